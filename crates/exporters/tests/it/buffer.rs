//! What waits for a receiver that is away: survives, stays in its bounds, and does not hold up those who fill it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use exporters::remote_write::{RemoteWrite, RemoteWriteConfig};
use telemetry::client::Series;

use crate::receivers::{Receiver, status};
use crate::support::{LONG, Rig, sample, series};

/// A URL that nobody listens on.
fn away() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}/", listener.local_addr().unwrap())
}

fn client(url: &str) -> RemoteWrite {
    RemoteWrite::new(RemoteWriteConfig::new(url)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_survives_a_restart_and_is_delivered() {
    let rig = Rig::new();
    let exporter = rig.start(client(&away()));
    rig.keep(&(0..100).map(sample).collect::<Vec<_>>()).await;
    rig.until("the failure", |_| exporter.status().failing.is_some()).await;
    exporter.end().await.close();
    let receiver = Receiver::start([]).await;
    let rig = Rig::open(rig.into_dir(), |_| {});
    let exporter = rig.start(client(&receiver.url));
    receiver.until_taken(1).await;
    exporter.drain(LONG).await;
    assert_eq!((rig.sent(), rig.buffer.segments()), (100.0, 0));
}

/// Rows that Snappy cannot make small.
fn noise(n: u64) -> Series {
    let text: String = (0..200).map(|i| char::from(b'a' + (xorshift(n * 1000 + i) % 26) as u8)).collect();
    series(&[("__name__", "m"), ("noise", &text)], &[(1, n as f64)])
}

fn xorshift(seed: u64) -> u64 {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    x ^= x << 13;
    x ^= x >> 7;
    x ^ x << 17
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_buffer_drops_the_oldest_counts_them_and_keeps_the_newest() {
    const ROWS: u64 = 4000;
    let rig = Rig::with(|options| options.max_bytes = 300_000);
    let exporter = rig.start(client(&away()));
    for batch in 0..ROWS / 100 {
        rig.keep(&(0..100).map(|n| noise(batch * 100 + n)).collect::<Vec<_>>()).await;
    }
    // All of it is far more than the limit; the last look at the limits comes within a second.
    rig.until("the limit", |rig| rig.buffer.bytes() < 300_000 && rig.dropped("full") > 0.0).await;
    exporter.end().await.close();
    let (dropped, receiver) = (rig.dropped("full"), Receiver::start([]).await);
    let rig = Rig::open(rig.into_dir(), |_| {});
    let exporter = rig.start(client(&receiver.url));
    receiver.until_taken(1).await;
    exporter.drain(LONG).await;
    assert_eq!(rig.sent() + dropped, ROWS as f64);
    let bytes: usize = receiver.got.lock().unwrap().iter().map(|got| got.body.len()).sum();
    // A sender's compression is about that of the buffer.
    assert!((200_000..600_000).contains(&bytes), "{bytes}");
    let last = snap::raw::Decoder::new().decompress_vec(&receiver.got.lock().unwrap().last().unwrap().body).unwrap();
    let newest = ((ROWS - 1) as f64).to_le_bytes();
    assert!(last.windows(8).any(|window| window == newest), "the newest row is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_old_is_given_up_and_counted() {
    let rig = Rig::with(|options| options.max_age = Duration::from_secs(3600));
    let exporter = rig.start(client(&away()));
    rig.keep(&(0..10).map(sample).collect::<Vec<_>>()).await;
    rig.until("the failure", |_| exporter.status().failing.is_some()).await;
    assert_eq!(rig.dropped("old"), 0.0);
    rig.now_ms.fetch_add(3_601_000, Ordering::SeqCst);
    rig.until("the drop", |rig| rig.dropped("old") == 10.0).await;
    rig.until("room", |rig| rig.buffer.segments() == 0).await;
}

/// The age and size of what waits can be seen.
#[tokio::test(flavor = "multi_thread")]
async fn gauges_show_what_waits() {
    let rig = Rig::new();
    let exporter = rig.start(client(&away()));
    rig.keep(&[sample(1)]).await;
    rig.until("the failure", |_| exporter.status().failing.is_some()).await;
    rig.now_ms.fetch_add(90_000, Ordering::SeqCst);
    rig.until("the age", |rig| rig.metric("buffer_oldest_seconds{name=\"ex\"}") >= 90.0).await;
    assert!(rig.metric("buffer_bytes{name=\"ex\"}") > 0.0);
}

/// Keeping is a write to the kernel, whatever the receiver does: many more rows than any queue could hold are kept while
/// it hangs on the first.
#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_hangs_holds_up_nobody() {
    let (rig, receiver) = (Rig::new(), Receiver::start([crate::receivers::Reply::Hang]).await);
    let _exporter = rig.start_with(client(&receiver.url), Duration::from_secs(3600));
    rig.keep(&[sample(0)]).await;
    receiver.until_tries(1).await;
    for n in 1..50 {
        rig.keep(&(0..1000).map(|i| sample(n * 1000 + i)).collect::<Vec<_>>()).await;
    }
    assert_eq!((receiver.tries(), rig.sent(), rig.dropped("not_stored")), (1, 0.0, 0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_order_of_arrival_is_the_order_of_sending() {
    let (rig, receiver) = (Rig::new(), Receiver::start([status(500), status(500)]).await);
    let _exporter = rig.start(client(&receiver.url));
    for n in 0..20 {
        rig.keep(&[series(&[("__name__", "m")], &[(n, n as f64)])]).await;
    }
    rig.until("all of them", |rig| rig.sent() == 20.0).await;
    let bodies: Vec<Vec<u8>> =
        receiver.got.lock().unwrap().iter().map(|got| snap::raw::Decoder::new().decompress_vec(&got.body).unwrap()).collect();
    let all = bodies.concat();
    let places: Vec<usize> = (1..20)
        .map(|n| all.windows(8).position(|window| window == f64::from(n).to_le_bytes()).unwrap_or_else(|| panic!("{n} is missing")))
        .collect();
    assert!(places.is_sorted(), "{places:?}");
}
