use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::StreamExt as _;
use http::StatusCode;
use tower::ServiceExt as _;
use transfer::body::{Directory, Entry, image_checksum};
use transfer::{CONTENT_TYPE_MANY, HEADER_DATABASE, HEADER_EXPECT, HEADER_RECEIVER, HEADER_VERSION};

use crate::setup::{Peer, client, image, limited_peer, peer, peer_that_takes, peer_with, reopen, router_that_takes, rows};

const NAME: &str = "Metrics_A_abc_2f5d0c3e517e4001.wal";

async fn post(peer: &Peer, name: &str, body: Vec<u8>) -> (StatusCode, String) {
    let request = client().post(format!("{}/transfer?filename={name}", peer.url));
    let response = request.body(body).send().await.unwrap();
    (response.status(), response.text().await.unwrap())
}

async fn post_many(peer: &Peer, directory: &Directory, images: &[Vec<u8>]) -> (StatusCode, String) {
    let mut body = directory.encode().unwrap();
    body.extend(images.concat());
    let request = client().post(format!("{}/transfer", peer.url)).header("content-type", CONTENT_TYPE_MANY);
    let response = request.body(body).send().await.unwrap();
    (response.status(), response.text().await.unwrap())
}

fn entry(name: &str, number: u64, image: &[u8]) -> Entry {
    Entry {
        file_name: name.to_owned(),
        number,
        digest: image_checksum(image),
        floor: 1,
        length: image.len() as u64,
        rows: 1,
        checksum: image_checksum(image),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_references_answers() {
    let peer = peer_with(|o| {
        o.databases = Some(["Metrics".to_owned()].into());
        o.drop_prefixes = vec!["Metrics_Noise".to_owned()];
    })
    .await;
    let whole = image(&["a,1\n", "b,2\n"]);
    assert_eq!(post(&peer, NAME, whole.clone()).await, (StatusCode::ACCEPTED, String::new()));
    // Its senders delete on 409: only for the same name, length and digest.
    assert_eq!(post(&peer, NAME, whole.clone()).await.0, StatusCode::CONFLICT);
    assert_eq!(rows(&peer.store), ["a,1", "b,2"]);

    let empty = post(&peer, "Metrics_E_abc_2f5d0c3e517e4001.wal", image(&[])).await;
    assert_eq!(empty, (StatusCode::ACCEPTED, String::new()));
    let dropped = post(&peer, "Metrics_Noise_abc_2f5d0c3e517e4001.wal", b"anything".to_vec()).await;
    assert_eq!(dropped.0, StatusCode::ACCEPTED);
    for (name, body) in [
        ("", whole.clone()),
        ("Other_A_abc_2f5d0c3e517e4001.wal", whole.clone()),
        ("..%2FMetrics_A_1.wal", whole.clone()),
        ("Metrics_..%2F..%2Fx_abc_1.wal", whole.clone()),
        ("Metrics_A.B_abc_1.wal", whole.clone()),
        ("Metrics_A_abc_2f5d0c3e517e4002.log", whole.clone()),
        ("Metrics_A_abc_2f5d0c3e517e4003.wal", b"not a segment".to_vec()),
    ] {
        assert_eq!(post(&peer, name, body).await.0, StatusCode::BAD_REQUEST, "{name}");
    }
    assert_eq!(rows(&peer.store), ["a,1", "b,2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_grew_is_stored_from_the_known_end() {
    let peer = peer().await;
    let short = image(&["a,1\n", "b,2\n"]);
    let mut grown = short.clone();
    grown.extend_from_slice(&image(&["c,3\n"])[8..]);
    assert_eq!(post(&peer, NAME, short.clone()).await.0, StatusCode::ACCEPTED);
    assert_eq!(post(&peer, NAME, grown.clone()).await.0, StatusCode::ACCEPTED);
    assert_eq!(rows(&peer.store), ["a,1", "b,2", "c,3"]);
    assert_eq!(post(&peer, NAME, grown).await.0, StatusCode::CONFLICT);
    // Other contents under the same name are no repetition.
    assert_eq!(post(&peer, NAME, image(&["d,4\n"])).await.0, StatusCode::ACCEPTED);
    assert_eq!(rows(&peer.store).len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_remembered_across_a_restart() {
    let first = peer().await;
    assert_eq!(post(&first, NAME, image(&["a,1\n"])).await.0, StatusCode::ACCEPTED);
    let Peer { store, dir, server, faults, .. } = first;
    server.abort();
    assert!(server.await.unwrap_err().is_cancelled());
    store.close();
    let store = reopen(dir.path()).await;
    let options = transfer::receiver::ReceiverOptions::default();
    let router = transfer::receiver::router(store.clone(), options, std::sync::Arc::new(|| Ok(())));
    let (url, server) = crate::setup::serve(router).await;
    let again = Peer { store, dir, url, faults, server };
    assert_eq!(post(&again, NAME, image(&["a,1\n"])).await.0, StatusCode::CONFLICT);
}

#[tokio::test(flavor = "multi_thread")]
async fn good_blocks_are_kept_and_bad_bytes_put_aside() {
    let peer = peer().await;
    let mut damaged = image(&["a,1\n", "b,2\n", "c,3\n"]);
    let one = image(&["a,1\n"]).len() - 8;
    damaged[8 + one + 12] ^= 0xff;
    let (status, text) = post(&peer, NAME, damaged.clone()).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    assert!(text.contains("quarantine"), "{text}");
    assert_eq!(rows(&peer.store), ["a,1", "c,3"]);
    let kept: Vec<_> = std::fs::read_dir(peer.dir.path().join("quarantine")).unwrap().collect();
    assert_eq!(kept.len(), 1);
    let kept = std::fs::read(kept.into_iter().next().unwrap().unwrap().path()).unwrap();
    assert_eq!(kept, damaged[8 + one..8 + 2 * one]);
    assert_eq!(peer.store.usage().quarantine_bytes, one as u64);

    // Ours: the same, and the answer names the file.
    let name = "Metrics_B_abc_2f5d0c3e517e4001.wal";
    let directory = Directory { sender: [1; 16], entries: vec![entry(name, 1, &damaged)] };
    let (status, text) = post_many(&peer, &directory, &[damaged]).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    assert!(text.contains("kept_as\":[\"transfer-Metrics_B"), "{text}");
    assert_eq!(rows(&peer.store).len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_are_known_however_they_are_grouped() {
    let peer = peer().await;
    let images = [image(&["a,1\n"]), image(&["b,2\n"]), image(&["c,3\n"])];
    let name = |n| format!("Metrics_A_abc_2f5d0c3e517e400{n}.wal");
    let group = |members: &[usize]| {
        let entries = members.iter().map(|&m| entry(&name(m), m as u64 + 1, &images[m])).collect();
        let images: Vec<_> = members.iter().map(|&m| images[m].clone()).collect();
        (Directory { sender: [2; 16], entries }, images)
    };
    for (members, status, stored) in [(&[0, 1][..], 202, 2), (&[0, 1], 409, 2), (&[1, 2], 202, 3), (&[2], 409, 3), (&[2, 0, 1], 409, 3)] {
        let (directory, images) = group(members);
        let (got, text) = post_many(&peer, &directory, &images).await;
        assert_eq!((got.as_u16(), rows(&peer.store).len()), (status, stored), "{members:?} {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_on_the_way_stores_nothing_and_is_not_the_segments_fault() {
    let peer = peer().await;
    let good = image(&["a,1\n"]);
    let directory = Directory { sender: [3; 16], entries: vec![entry(NAME, 1, &good)] };
    let mut bad = good.clone();
    bad[20] ^= 1;
    assert_eq!(post_many(&peer, &directory, &[bad]).await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(post_many(&peer, &directory, &[good[..10].to_vec()]).await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert!(rows(&peer.store).is_empty());
    assert_eq!(post_many(&peer, &directory, &[good]).await.0, StatusCode::ACCEPTED);
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_and_headers() {
    let peer = peer_with(|o| o.max_body_bytes = 1000).await;
    let http = client();
    let probe = http.get(format!("{}/transfer", peer.url)).send().await.unwrap();
    assert_eq!(probe.status(), StatusCode::NO_CONTENT);
    assert_eq!(probe.headers()[HEADER_VERSION], "1");
    assert_eq!(probe.headers()[HEADER_RECEIVER].len(), 32);

    assert_eq!(post(&peer, NAME, vec![0; 2000]).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(&vec![0; 1_000_000]).unwrap();
    let bomb = http.post(format!("{}/transfer?filename={NAME}", peer.url)).header("content-encoding", "gzip").body(gzip.finish().unwrap());
    assert_eq!(bomb.send().await.unwrap().status(), StatusCode::PAYLOAD_TOO_LARGE);

    let elsewhere = http
        .post(format!("{}/transfer", peer.url))
        .header("content-type", CONTENT_TYPE_MANY)
        .header(HEADER_EXPECT, "00".repeat(16))
        .body("x");
    assert_eq!(elsewhere.send().await.unwrap().status(), StatusCode::MISDIRECTED_REQUEST);
}

#[tokio::test(flavor = "multi_thread")]
async fn gzip_bodies_and_concurrent_repeats() {
    let peer = peer().await;
    let whole = image(&["a,1\n", "b,2\n"]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(&whole).unwrap();
    let packed = gzip.finish().unwrap();
    let http = client();
    let sends = (0..8).map(|_| {
        let request = http.post(format!("{}/transfer?filename={NAME}", peer.url)).header("content-encoding", "gzip").body(packed.clone());
        async move { request.send().await.unwrap().status().as_u16() }
    });
    let mut answers = futures::future::join_all(sends).await;
    answers.sort_unstable();
    assert_eq!(answers, [202, 409, 409, 409, 409, 409, 409, 409]);
    assert_eq!(rows(&peer.store), ["a,1", "b,2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_body_that_grew_is_stored_from_the_known_end() {
    let peer = peer_with(|o| o.max_frame_bytes = 300).await;
    let texts: Vec<String> = (0..40).map(|n| format!("row{n},{n}\n")).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let mut stored = 0;
    // Each is larger than a frame, but the first, and each continues the one before it.
    for blocks in [2, 10, 25, 40] {
        let grown = image(&texts[..blocks]);
        assert_eq!(grown.len() > 300, blocks > 2);
        assert_eq!(post(&peer, NAME, grown.clone()).await.0, StatusCode::ACCEPTED);
        assert_eq!(rows(&peer.store).len(), blocks);
        assert_eq!(post(&peer, NAME, grown).await.0, StatusCode::CONFLICT);
        assert!(blocks > stored);
        stored = blocks;
    }
    // The same name with another beginning is another body.
    let other = image(&texts[20..]);
    assert_eq!(post(&peer, NAME, other).await.0, StatusCode::ACCEPTED);
    assert_eq!(rows(&peer.store).len(), 60);
    peer.store.ledger().check().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_over_its_quota_is_told_to_wait_and_one_table_too_many_is_refused() {
    let limits = |o: &mut wal::Options| {
        o.database_quota_bytes = Some(2000);
        o.max_tables_per_database = 2;
    };
    for max_frame_bytes in [16 << 20, 10] {
        let peer = limited_peer(limits, |o| o.max_frame_bytes = max_frame_bytes).await;
        let noise: String = (0..400u64).map(|n| format!("{:x}\n", n.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
        let send = async |name: &str, number: u64, image: Vec<u8>| {
            let directory = Directory { sender: [4; 16], entries: vec![entry(name, number, &image)] };
            let mut body = directory.encode().unwrap();
            body.extend(image);
            let request = client().post(format!("{}/transfer", peer.url)).header("content-type", CONTENT_TYPE_MANY);
            let response = request.body(body).send().await.unwrap();
            let header = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
            let headers = (header("retry-after"), header(HEADER_DATABASE));
            (response.status().as_u16(), headers, response.text().await.unwrap())
        };
        for table in ["A", "B"] {
            assert_eq!(send(&format!("Small_{table}_abc_1.wal"), 1 + u64::from(table == "B"), image(&["a,1\n"])).await.0, 202);
        }
        // Small: the answer lists it. Too large for a frame: it is alone in its request.
        let (status, _, text) = send("Small_C_abc_1.wal", 3, image(&["a,1\n"])).await;
        let refused = (status == 202 && text.contains("\"refused\":[{\"index\":0")) || status == 400;
        assert!(refused && text.contains("number of tables"), "{status} {text}");
        assert_eq!(send("Full_A_abc_1.wal", 1, image(&[&noise])).await.0, 202);
        peer.store.seal_all().unwrap();
        let (status, headers, _) = send("Full_A_abc_2.wal", 2, image(&["a,1\n"])).await;
        assert_eq!((status, headers), (429, (Some("10".to_owned()), Some("Full".to_owned()))));
        // Nothing of it is stored, and others go on.
        assert_eq!(send("Small_A_abc_4.wal", 4, image(&["b,2\n"])).await.0, 202);
        assert_eq!(rows(&peer.store).len(), 2 + 400 + 1);
        peer.store.ledger().check().unwrap();
    }
}

/// A receiver that takes nothing now says so only of what it does not have: its sender would send it elsewhere too.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_stored_is_known_while_nothing_is_taken() {
    let taking = Arc::new(AtomicBool::new(true));
    let full = Arc::new(AtomicBool::new(false));
    let peer = peer_that_takes(&taking, &full).await;
    let images = [image(&["a,1\n"]), image(&["b,2\n"]), image(&["c,3\n"])];
    let many = |numbers: &[u64]| {
        let entries = numbers.iter().map(|n| entry(NAME, *n, &images[*n as usize])).collect();
        let images: Vec<_> = numbers.iter().map(|n| images[*n as usize].clone()).collect();
        (Directory { sender: [7; 16], entries }, images)
    };
    let post_numbers = async |numbers: &[u64]| {
        let (directory, images) = many(numbers);
        post_many(&peer, &directory, &images).await.0
    };
    assert_eq!(post_numbers(&[0, 1]).await, StatusCode::ACCEPTED);
    let single = image(&["d,4\n"]);
    let mut grown = single.clone();
    grown.extend_from_slice(&image(&["e,5\n"])[8..]);
    assert_eq!(post(&peer, NAME, single.clone()).await.0, StatusCode::ACCEPTED);
    let stored = ["a,1", "b,2", "d,4"];
    for (switch, taken, refusal) in [(&taking, true, StatusCode::SERVICE_UNAVAILABLE), (&full, false, StatusCode::TOO_MANY_REQUESTS)] {
        switch.store(!taken, Ordering::Relaxed);
        assert_eq!(post_numbers(&[0, 1]).await, StatusCode::CONFLICT);
        assert_eq!(post_numbers(&[1]).await, StatusCode::CONFLICT);
        assert_eq!(post_numbers(&[2]).await, refusal);
        // Neither is true of the whole: the sender asks here again.
        assert_eq!(post_numbers(&[1, 2]).await, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(post(&peer, NAME, single.clone()).await.0, StatusCode::CONFLICT);
        assert_eq!(post(&peer, NAME, grown.clone()).await.0, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(post(&peer, NAME, image(&["f,6\n"])).await.0, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(post(&peer, "Metrics_B_abc_2f5d0c3e517e4001.wal", single.clone()).await.0, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(rows(&peer.store), stored);
        switch.store(taken, Ordering::Relaxed);
    }
    assert_eq!(post_numbers(&[1, 2]).await, StatusCode::ACCEPTED);
    assert_eq!(rows(&peer.store), ["a,1", "b,2", "c,3", "d,4"]);
}

/// The first of two copies is still on its way into the store.
#[tokio::test]
async fn what_another_request_may_store_is_not_said_to_be_nowhere() {
    let taking = Arc::new(AtomicBool::new(true));
    let dir = tempfile::tempdir().unwrap();
    let store = crate::setup::open(dir.path());
    let router = router_that_takes(store.clone(), &taking, &Arc::default());
    let image = image(&["a,1\n"]);
    let head = Directory { sender: [7; 16], entries: vec![entry(NAME, 1, &image)] }.encode().unwrap();
    let (last, waits) = tokio::sync::oneshot::channel();
    let reached = Arc::new(tokio::sync::Notify::new());
    let (asked, rest) = (reached.clone(), image.clone());
    let body = futures::stream::once(std::future::ready(head.clone())).chain(futures::stream::once(async move {
        // Whoever reads on has read the directory.
        asked.notify_one();
        waits.await.unwrap();
        rest
    }));
    let request = |body: axum::body::Body| http::Request::post("/transfer").header("content-type", CONTENT_TYPE_MANY).body(body).unwrap();
    let first = tokio::spawn(router.clone().oneshot(request(axum::body::Body::from_stream(body.map(Ok::<_, std::io::Error>)))));
    reached.notified().await;
    taking.store(false, Ordering::Relaxed);
    let copy = || request(axum::body::Body::from([head.clone(), image.clone()].concat()));
    assert_eq!(router.clone().oneshot(copy()).await.unwrap().status(), StatusCode::INTERNAL_SERVER_ERROR);
    last.send(()).unwrap();
    assert_eq!(first.await.unwrap().unwrap().status(), StatusCode::ACCEPTED);
    assert_eq!(router.oneshot(copy()).await.unwrap().status(), StatusCode::CONFLICT);
    assert_eq!(rows(&store), ["a,1"]);
}
