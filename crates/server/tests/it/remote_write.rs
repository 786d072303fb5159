//! Remote write 1.0 and 2.0.

use std::time::Duration;

use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use server::Refused;
use telemetry::client::{Series, remote_write_body};

use crate::support::{client, receivers};

fn series(name: Option<&str>, value: f64) -> Series {
    let mut labels: Vec<(String, String)> = name.iter().map(|n| ("__name__".to_owned(), (*n).to_owned())).collect();
    labels.push(("host".to_owned(), "a,\"b\"".to_owned()));
    Series { labels, samples: vec![(1_700_000_000_123, value)] }
}

fn body(series: &[Series]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(&remote_write_body(series)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn samples_are_stored_and_answered_with_202() {
    let (server, stored) = receivers().await;
    let sent = body(&[series(Some("http_requests_total"), 1.5), series(Some("up"), 1.0)]);
    let response = client().post(server.url("/receive")).body(sent).send().await.unwrap();
    assert_eq!((response.status().as_u16(), response.text().await.unwrap().as_str()), (202, ""));
    let row = stored.table("Metrics.HttpRequestsTotal");
    assert!(row.starts_with("2023-11-14T22:13:20.123Z,"), "{row}");
    assert!(row.ends_with(",1.5\n"), "{row}");
    assert!(!stored.table("Metrics.Up").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_series_without_a_name_is_refused_and_its_neighbours_are_stored() {
    let (server, stored) = receivers().await;
    let sent = body(&[series(Some("before"), 1.0), series(None, 2.0), series(Some("after"), 3.0)]);
    let response = client().post(server.url("/receive")).body(sent).send().await.unwrap();
    assert_eq!(response.status(), 400);
    let text = response.text().await.unwrap();
    assert!(text.contains("name"), "{text}");
    assert!(!stored.table("Metrics.Before").is_empty() && !stored.table("Metrics.After").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn filtered_samples_are_counted_and_accepted() {
    let (server, stored) = receivers().await;
    let response = client().post(server.url("/receive")).body(body(&[series(Some("dropme"), 1.0)])).send().await.unwrap();
    assert_eq!(response.status(), 202);
    assert_eq!((*stored.filtered.lock().unwrap(), stored.rows.lock().unwrap().len()), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_bodies_are_400_with_what_and_where() {
    let (server, stored) = receivers().await;
    let bad_protobuf = snap::raw::Encoder::new().compress_vec(&[0x0a, 0x7f, 0x01]).unwrap();
    for (sent, word) in [(b"not snappy at all".to_vec(), "snappy"), (Vec::new(), "snappy"), (bad_protobuf, "byte")] {
        let response = client().post(server.url("/receive")).body(sent).send().await.unwrap();
        assert_eq!(response.status(), 400);
        let text = response.text().await.unwrap();
        assert!(text.contains(word), "{text}");
    }
    assert!(stored.rows.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_over_the_limits_are_413() {
    let (server, _) = receivers().await;
    let too_long = vec![0u8; (20 << 20) + 1];
    // Declared: refused by its length. The server may close before all is sent, which also is a refusal.
    if let Ok(response) = client().post(server.url("/receive")).body(too_long).send().await {
        assert_eq!(response.status(), 413);
    }
    let bomb = snap::raw::Encoder::new().compress_vec(&vec![0u8; (100 << 20) + 1]).unwrap();
    assert!(bomb.len() < 20 << 20);
    let response = client().post(server.url("/receive")).body(bomb).send().await.unwrap();
    assert_eq!(response.status(), 413);
}

const VERSION_2: &str = "application/x-protobuf;proto=io.prometheus.write.v2.Request";

/// `io.prometheus.write.v2.Request` with a series of `up` and one sample for each list of references, by the published
/// `types.proto`.
fn version_2(series: &[&[u8]]) -> Vec<u8> {
    let field = |number: u8, bytes: &[u8]| [&[number << 3 | 2, u8::try_from(bytes.len()).unwrap()], bytes].concat();
    let mut body: Vec<u8> = ["", "__name__", "up", "host", "a"].iter().flat_map(|symbol| field(4, symbol.as_bytes())).collect();
    for refs in series {
        let sample = [&[1 << 3 | 1][..], &1.5f64.to_le_bytes(), &[2 << 3, 1]].concat();
        body.extend(field(5, &[field(1, refs), field(2, &sample), field(4, &field(1, &[3, 4]))].concat()));
    }
    snap::raw::Encoder::new().compress_vec(&body).unwrap()
}

fn written(response: &reqwest::Response) -> [Option<u64>; 3] {
    ["samples", "histograms", "exemplars"].map(|kind| {
        let value = response.headers().get(format!("x-prometheus-remote-write-{kind}-written"))?;
        Some(value.to_str().unwrap().parse().unwrap())
    })
}

/// Remote-Write 2.0 (2.0-rc.4): 204 and the counts of what was written, on the path of 1.0.
#[tokio::test(flavor = "multi_thread")]
async fn version_2_is_taken_on_the_same_path_and_told_what_was_written() {
    let (server, stored) = receivers().await;
    let send = |body: Vec<u8>| client().post(server.url("/receive")).header(CONTENT_TYPE, VERSION_2).body(body);
    let response = send(version_2(&[&[1, 2, 3, 4], &[1, 2]])).header(CONTENT_ENCODING, "snappy").send().await.unwrap();
    assert_eq!((response.status().as_u16(), written(&response)), (204, [Some(2), Some(0), Some(0)]));
    assert!(response.text().await.unwrap().is_empty());
    assert_eq!(stored.table("Metrics.Up").lines().count(), 2);

    // Partial writes are 400 with the counts and the reason.
    let response = send(version_2(&[&[1, 2], &[1, 2, 3]])).send().await.unwrap();
    assert_eq!((response.status().as_u16(), written(&response)), (400, [Some(1), Some(0), Some(0)]));
    let text = response.text().await.unwrap();
    assert!(text.contains("rejected 1") && text.contains("odd"), "{text}");
    assert_eq!(stored.table("Metrics.Up").lines().count(), 3);

    // A full store has written nothing.
    *stored.refuse.lock().unwrap() = Some(Refused::overloaded("full"));
    let response = send(version_2(&[&[1, 2]])).send().await.unwrap();
    assert_eq!((response.status().as_u16(), written(&response)), (429, [None; 3]));
    assert!(response.headers().contains_key(RETRY_AFTER));
}

#[tokio::test(flavor = "multi_thread")]
async fn other_messages_and_codings_are_415_so_that_senders_fall_back() {
    let (server, stored) = receivers().await;
    let send = async |content_type: &str, coding: &str| {
        let request = client().post(server.url("/receive")).header(CONTENT_TYPE, content_type).header(CONTENT_ENCODING, coding);
        request.body(version_2(&[&[1, 2]])).send().await.unwrap().status().as_u16()
    };
    assert_eq!(send("application/x-protobuf;proto=io.prometheus.write.v3.Request", "snappy").await, 415);
    assert_eq!(send(VERSION_2, "zstd").await, 415);
    assert_eq!(send("application/x-protobuf; proto=\"io.prometheus.write.v2.Request\"", "snappy").await, 204);
    assert_eq!(stored.table("Metrics.Up").lines().count(), 1);
    let content_type = "application/x-protobuf;proto=prometheus.WriteRequest";
    let sent = body(&[series(Some("up"), 1.0)]);
    let response = client().post(server.url("/receive")).header(CONTENT_TYPE, content_type).body(sent).send().await.unwrap();
    assert_eq!((response.status().as_u16(), written(&response)), (202, [None; 3]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_store_is_429_with_retry_after_and_a_broken_one_500() {
    let (server, stored) = receivers().await;
    let send = || async {
        let response = client().post(server.url("/receive")).body(body(&[series(Some("up"), 1.0)])).send().await.unwrap();
        (response.status().as_u16(), response.headers().get(RETRY_AFTER).map(|v| v.to_str().unwrap().to_owned()))
    };
    *stored.refuse.lock().unwrap() =
        Some(Refused::Overloaded { retry_after: Duration::from_secs(7), reason: "database Metrics is full".to_owned() });
    assert_eq!(send().await, (429, Some("7".to_owned())));
    *stored.refuse.lock().unwrap() = Some(Refused::Failed("disk on fire".to_owned()));
    assert_eq!(send().await.0, 500);
    *stored.refuse.lock().unwrap() = None;
    *stored.unready.lock().unwrap() = Some("storage is full".to_owned());
    let (status, retry_after) = send().await;
    assert_eq!(status, 429);
    assert!(retry_after.is_some());
    *stored.unready.lock().unwrap() = None;
    assert_eq!(send().await.0, 202);
}
