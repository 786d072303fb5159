//! Segments that are sent by hand: how often, after which pauses, and what is said of the answers.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::response::IntoResponse;
use http::{HeaderMap, StatusCode, Uri};
use parking_lot::Mutex;
use transfer::{Courier, Credentials, Delivery};

use crate::setup::serve;

/// A request as it came: its query, its token, and what its body decompresses to.
type Seen = (String, Option<String>, Vec<u8>);

/// An ingestor that answers by a list, the last answer for ever: status, and after how many seconds it wants to be asked.
async fn scripted(answers: &[(u16, Option<&str>)]) -> (String, Arc<Mutex<Vec<Seen>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let queue: VecDeque<(u16, Option<String>)> = answers.iter().map(|(status, after)| (*status, after.map(str::to_owned))).collect();
    let shared = (seen.clone(), Arc::new(Mutex::new(queue)));
    let answer = move |uri: Uri, headers: HeaderMap, body: Bytes| {
        let (log, queue) = shared.clone();
        async move {
            let token = headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
            let mut image = Vec::new();
            std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&body[..]), &mut image).unwrap();
            log.lock().push((uri.query().unwrap().to_owned(), token, image));
            let mut queue = queue.lock();
            let (status, after) = if queue.len() > 1 { queue.pop_front().unwrap() } else { queue[0].clone() };
            let mut headers = HeaderMap::new();
            if let Some(after) = after {
                headers.insert("retry-after", after.parse().unwrap());
            }
            (StatusCode::from_u16(status).unwrap(), headers, "as told").into_response()
        }
    };
    let (url, _) = serve(Router::new().route("/transfer", axum::routing::post(answer))).await;
    (url, seen)
}

/// What becomes of a segment, and the seconds that were waited between the attempts.
async fn sent(courier: &Courier) -> (Delivery, Vec<f64>) {
    let pauses = Mutex::new(Vec::new());
    let pause = async |pause: Duration| pauses.lock().push(pause.as_secs_f64());
    let delivery = courier.send("Db_T_1.wal", b"image", pause).await.unwrap();
    (delivery, pauses.into_inner())
}

async fn delivered(answers: &[(u16, Option<&str>)]) -> (Delivery, Vec<f64>) {
    let (url, seen) = scripted(answers).await;
    let (delivery, pauses) = sent(&Courier::new(&url, Credentials::default(), false).unwrap()).await;
    assert_eq!(*seen.lock(), vec![("filename=Db_T_1.wal".to_owned(), None, b"image".to_vec()); pauses.len() + 1]);
    (delivery, pauses)
}

#[tokio::test]
async fn an_answer_that_ends_it_is_told_as_it_is() {
    assert_eq!(delivered(&[(202, None)]).await, (Delivery::Stored, vec![]));
    assert_eq!(delivered(&[(409, None)]).await, (Delivery::Known, vec![]));
    for (status, told) in [(400, "400 Bad Request: as told"), (401, "401 Unauthorized: as told"), (413, "413 Payload Too Large: as told")] {
        assert_eq!(delivered(&[(status, Some("1"))]).await, (Delivery::Refused(told.to_owned()), vec![]));
    }
}

#[tokio::test]
async fn a_busy_ingestor_is_asked_again_when_it_says() {
    let (delivery, pauses) = delivered(&[(429, Some("7")), (503, Some("0")), (429, Some("86400")), (423, Some("soon")), (202, None)]).await;
    // Not at once, not after a day, and without a number as after the fourth failure.
    assert_eq!((delivery, pauses), (Delivery::Stored, vec![7.0, 1.0, 300.0, 8.0]));
}

#[tokio::test]
async fn pauses_double_up_to_a_minute_and_end() {
    let (delivery, pauses) = delivered(&[(429, None)]).await;
    assert_eq!(delivery, Delivery::Refused("429 Too Many Requests: as told".to_owned()));
    assert_eq!(pauses, [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]);
    let (delivery, pauses) = delivered(&[(502, None)]).await;
    assert_eq!((delivery, pauses.len()), (Delivery::Unknown("502 Bad Gateway: as told".to_owned()), 9));
}

#[tokio::test]
async fn nobody_there_is_a_refusal_after_as_many_attempts() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let (delivery, pauses) = sent(&Courier::new(&url, Credentials::default(), false).unwrap()).await;
    assert!(matches!(&delivery, Delivery::Refused(why) if why.contains("onnect")), "{delivery:?}");
    assert_eq!(pauses.len(), 9);
}

#[tokio::test]
async fn the_token_of_a_file_goes_with_every_request_and_never_in_the_clear() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, "# of the ingestor\n secret \n").unwrap();
    let credentials = Credentials { token_file: Some(file.clone()), ..Credentials::default() };
    let (url, seen) = scripted(&[(429, None), (202, None)]).await;
    let courier = Courier::new(&url, credentials.clone(), false).unwrap();
    assert_eq!(sent(&courier).await, (Delivery::Stored, vec![1.0]));
    let tokens: Vec<_> = seen.lock().iter().map(|(_, token, _)| token.clone()).collect();
    assert_eq!(tokens, vec![Some("Bearer secret".to_owned()); 2]);

    let refused = |endpoint: &str, credentials: &Credentials| Courier::new(endpoint, credentials.clone(), false).err().unwrap();
    assert_eq!(refused("http://ingestor:9091", &credentials), "the bearer token is not sent to http://ingestor:9091/transfer: use https");
    assert!(refused("ingestor", &credentials).starts_with("ingestor cannot be used: "));
    std::fs::remove_file(&file).unwrap();
    assert!(refused(&url, &credentials).starts_with(&file.display().to_string()));
}
