use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::Query;
use axum::response::IntoResponse as _;
use axum::routing::any;
use http::StatusCode;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;
use transfer::{Sender, SenderOptions};

use crate::setup::{key, open, peer, peer_with, reopen, rows, serve, write};

fn send(store: &wal::Store, urls: &[&str]) -> (Sender, CancellationToken) {
    let options = SenderOptions { endpoints: urls.iter().map(|u| (*u).to_owned()).collect(), ..SenderOptions::default() };
    let stop = CancellationToken::new();
    (Sender::start(store.clone(), options, stop.clone(), &mut Registry::default()), stop)
}

const LONG: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn rows_arrive_once_and_the_ledger_holds() {
    let (dir, peer) = (tempfile::tempdir().unwrap(), peer().await);
    let store = open(dir.path());
    write(&store, "A", 0..1000);
    write(&store, "B", 1000..1500);
    let (sender, _stop) = send(&store, &[&peer.url]);
    write(&store, "A", 1500..1600);
    assert_eq!(sender.drain(LONG).await.left, 0);

    let mut expected: Vec<String> = (0..1600).map(|i| format!("2026-01-01T00:00:00Z,{i}")).collect();
    expected.sort();
    assert_eq!(rows(&peer.store), expected);
    store.ledger().check().unwrap();
    peer.store.ledger().check().unwrap();
    assert_eq!(store.ledger().total().forwarded, 1600);
    assert_eq!(store.ledger().total().maybe_duplicate, 0);
    assert_eq!(peer.store.ledger().tables[&key("A")].accepted, 1100);
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_answers_make_no_duplicates() {
    let (dir, peer) = (tempfile::tempdir().unwrap(), peer().await);
    let store = open(dir.path());
    peer.faults.lose_answers.store(1, Ordering::SeqCst);
    write(&store, "A", 0..100);
    let (sender, _stop) = send(&store, &[&peer.url]);
    assert_eq!(sender.drain(LONG).await.left, 0);
    assert_eq!(rows(&peer.store).len(), 100);
    assert_eq!(store.ledger().total().maybe_duplicate, 0);
    assert_eq!(peer.faults.requests.load(Ordering::SeqCst), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_between_answer_and_settlement_makes_no_duplicates() {
    let (dir, peer) = (tempfile::tempdir().unwrap(), peer().await);
    peer.faults.lose_answers.store(1, Ordering::SeqCst);
    let store = open(dir.path());
    write(&store, "A", 0..100);
    let (sender, stop) = send(&store, &[&peer.url]);
    while peer.faults.requests.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stop.cancel();
    drop(sender);
    store.close();
    let other = crate::setup::peer().await;
    let store = reopen(dir.path()).await;
    // The other ingestor comes first now; the segment still belongs to the one that may have it.
    let (sender, _stop) = send(&store, &[&other.url, &peer.url]);
    assert_eq!(sender.drain(LONG).await.left, 0);
    assert_eq!(rows(&peer.store).len(), 100);
    assert_eq!(rows(&other.store).len(), 0);
    assert_eq!(store.ledger().total().maybe_duplicate, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ingestor_that_is_away_is_passed_over() {
    let (dir, peer) = (tempfile::tempdir().unwrap(), peer().await);
    let store = open(dir.path());
    write(&store, "A", 0..10);
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", gone.local_addr().unwrap());
    drop(gone);
    let (sender, _stop) = send(&store, &[&url, &peer.url]);
    assert_eq!(sender.drain(LONG).await.left, 0);
    assert_eq!(rows(&peer.store).len(), 10);
    assert_eq!(store.ledger().total().maybe_duplicate, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_for_ever_becomes_a_dead_letter() {
    let dir = tempfile::tempdir().unwrap();
    let peer = peer_with(|o| o.databases = Some(["Logs".to_owned()].into())).await;
    let store = open(dir.path());
    write(&store, "A", 0..10);
    let (sender, _stop) = send(&store, &[&peer.url]);
    assert_eq!(sender.drain(LONG).await.left, 0);
    assert_eq!(store.ledger().total().dead_lettered, 10);
    store.ledger().check().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_references_ingestor_gets_one_segment_a_request() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    write(&store, "A", 0..10);
    write(&store, "B", 0..10);
    let got: Arc<Mutex<Vec<(String, usize)>>> = Arc::default();
    let (seen, count) = (got.clone(), Arc::new(AtomicUsize::new(0)));
    let handler = move |Query(query): Query<std::collections::HashMap<String, String>>, body: Bytes| async move {
        let Some(name) = query.get("filename") else { return StatusCode::BAD_REQUEST.into_response() };
        if count.fetch_add(1, Ordering::SeqCst) == 0 {
            return (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "1")]).into_response();
        }
        seen.lock().push((name.clone(), wal::segment::verify(&body, true).rows as usize));
        StatusCode::ACCEPTED.into_response()
    };
    let (url, _server) = serve(Router::new().route("/transfer", any(handler))).await;
    let names: Vec<String> = store.sealed().into_iter().map(|s| s.file_name).collect();
    let (sender, _stop) = send(&store, &[&url]);
    assert_eq!(sender.drain(LONG).await.left, 0);
    let mut got = got.lock().clone();
    got.sort();
    let mut expected: Vec<_> = names.into_iter().map(|n| (n, 10)).collect();
    expected.sort();
    assert_eq!(got, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_larger_than_a_frame_arrives_whole() {
    let dir = tempfile::tempdir().unwrap();
    let peer = peer_with(|o| o.max_frame_bytes = 10_000).await;
    let store = open(dir.path());
    write(&store, "Big", 0..20_000);
    assert!(store.sealed()[0].bytes > 50_000);
    peer.faults.lose_answers.store(1, Ordering::SeqCst);
    let (sender, _stop) = send(&store, &[&peer.url]);
    assert_eq!(sender.drain(LONG).await.left, 0);
    assert_eq!(rows(&peer.store).len(), 20_000);
    assert_eq!(peer.store.ledger().tables[&key("Big")].accepted, 20_000);
    peer.store.ledger().check().unwrap();
}
