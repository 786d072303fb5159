//! Whom targets over TLS must prove to be, and who is sent the token.

use std::path::Path;

use axum::http::header::AUTHORIZATION;

use super::*;
use crate::scrape::fetch::Fetcher;

/// A target over TLS that remembers the credentials it was sent, and one over HTTP to which `/away` leads; the folder gets
/// the files of a service account whose authority made the certificate.
async fn secret_target(folder: &Path, other: &str) -> (String, Arc<Mutex<Vec<Option<String>>>>) {
    server::install_crypto();
    let pair = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    std::fs::write(folder.join("ca.crt"), pair.cert.pem()).unwrap();
    std::fs::write(folder.join("tls.key"), pair.signing_key.serialize_pem()).unwrap();
    std::fs::write(folder.join("token"), "secret\n").unwrap();
    let sent = Arc::new(Mutex::new(Vec::new()));
    let router = recording(&sent).route(
        "/away",
        get({
            let other = other.to_owned();
            move || async move { Redirect::temporary(&other) }
        }),
    );
    let files = server::TlsFiles { certificate: folder.join("ca.crt"), key: folder.join("tls.key"), client_ca: None };
    let tls = server::Tls::from_files(&files).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    tokio::spawn(server::serve(listener, router, Limits::default(), Some(tls), CancellationToken::new()));
    (url, sent)
}

fn recording(sent: &Arc<Mutex<Vec<Option<String>>>>) -> Router {
    let sent = Arc::clone(sent);
    let answer = move |headers: HeaderMap| {
        sent.lock().unwrap().push(headers.get(AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned()));
        std::future::ready("a 1\n")
    };
    Router::new().route("/m", get(answer))
}

#[tokio::test]
async fn certificates_are_checked_and_the_token_goes_to_whom_it_is_meant_for() {
    let folder = tempfile::tempdir().unwrap();
    let sent_elsewhere = Arc::new(Mutex::new(Vec::new()));
    let (other, stop) = serve(recording(&sent_elsewhere)).await;
    let (url, sent) = secret_target(folder.path(), &format!("{other}/m")).await;
    let fetcher = Fetcher::new(1 << 20, false, folder.path());
    let fetch = async |tls: TlsMode, token: bool, path: &str| {
        let target = ScrapeTarget { token, tls, ..static_target(format!("{url}{path}")) };
        let fetched = fetcher.fetch(&target, Duration::from_secs(5)).await;
        (fetched.map(|page| page.body.len()).map_err(|error| error.to_string()), std::mem::take(&mut *sent.lock().unwrap()))
    };
    let bearer = || Some("Bearer secret".to_owned());
    assert_eq!(fetch(TlsMode::Unverified, false, "/m").await, (Ok(4), vec![None]));
    assert_eq!(fetch(TlsMode::ClusterCa, false, "/m").await, (Ok(4), vec![None]));
    assert_eq!(fetch(TlsMode::File(folder.path().join("ca.crt")), false, "/m").await, (Ok(4), vec![None]));
    assert_eq!(fetch(TlsMode::ClusterCa, true, "/m").await, (Ok(4), vec![bearer()]));
    std::fs::write(folder.path().join("token"), "renewed").unwrap();
    assert_eq!(fetch(TlsMode::ClusterCa, true, "/m").await, (Ok(4), vec![Some("Bearer renewed".to_owned())]));

    // Somebody else's certificate: nothing is sent.
    let stranger = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let strange = folder.path().join("stranger.crt");
    std::fs::write(&strange, stranger.cert.pem()).unwrap();
    let (failed, sent) = fetch(TlsMode::File(strange), true, "/m").await;
    assert!(failed.as_ref().unwrap_err().contains("certificate"), "{failed:?}");
    assert_eq!(sent, []);

    // A redirect to somebody else takes the token along to nobody.
    assert_eq!(fetch(TlsMode::ClusterCa, true, "/away").await.0, Ok(4));
    assert_eq!(*sent_elsewhere.lock().unwrap(), [None]);

    std::fs::remove_file(folder.path().join("token")).unwrap();
    let (failed, _) = fetch(TlsMode::ClusterCa, true, "/m").await;
    assert!(failed.as_ref().unwrap_err().contains("service account's token"), "{failed:?}");
    let (failed, _) = fetch(TlsMode::File(folder.path().join("missing")), false, "/m").await;
    assert!(failed.as_ref().unwrap_err().contains("missing"), "{failed:?}");
    stop.cancel();
}
