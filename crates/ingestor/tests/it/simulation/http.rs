//! A request between two nodes: the body of the sender, and what the receiver's router makes of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use http_body_util::BodyExt as _;
use ingestor::peers::Arrivals;
use tower::ServiceExt as _;
use transfer::body::{Directory, Entry, image_checksum};
use transfer::machine::{Answer, Job, Key};
use transfer::receiver::{ReceiverOptions, router};
use transfer::{CONTENT_TYPE_MANY, HEADER_EXPECT, HEADER_PEER};
use wal::Store;

use super::nodes::key_of;

/// The body of a request; nothing when the disk is down.
pub(super) fn body(store: &Store, job: &Job) -> Option<Vec<u8>> {
    let sealed: BTreeMap<Key, wal::SegmentInfo> = store.sealed().into_iter().map(|info| (key_of(&info), info)).collect();
    let mut entries = Vec::new();
    let mut images = Vec::new();
    for key in &job.segments {
        let info = &sealed[key];
        let image = store.read_segment(info.id).ok()?;
        entries.push(Entry {
            file_name: info.file_name.clone(),
            number: info.number,
            digest: info.digest,
            floor: store.floor(&key.database),
            length: image.len() as u64,
            rows: info.rows,
            checksum: image_checksum(&image),
        });
        images.extend(image);
    }
    let mut body = Directory { sender: store.sender_id(), entries }.encode().unwrap();
    body.extend(images);
    Some(body)
}

/// The receiver with this store answers; one that is `full` takes nothing.
pub(super) async fn post(store: Store, full: bool, job: &Job, body: Vec<u8>, peer: Option<String>, arrivals: Arrivals) -> Answer {
    let receiver = uuid::Uuid::from_bytes(job.receiver.unwrap()).simple().to_string();
    let mut request = ::http::Request::post("/transfer").header("content-type", CONTENT_TYPE_MANY).header(HEADER_EXPECT, receiver);
    if let Some(peer) = peer {
        request = request.header(HEADER_PEER, peer);
    }
    let request = request.body(axum::body::Body::from(body)).unwrap();
    let options = ReceiverOptions { from_peer: Some(Arc::new(move |tables| arrivals.begin(tables))), ..ReceiverOptions::default() };
    let ready = move || if full { Err("full".to_owned()) } else { Ok(()) };
    let response = router(store, options, Arc::new(ready)).oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let text = response.into_body().collect().await.unwrap().to_bytes();
    match status {
        202 => {
            let report: serde_json::Value = serde_json::from_slice(&text).unwrap();
            assert_eq!(report["refused"], serde_json::json!([]));
            Answer::Stored { refused: Vec::new() }
        }
        409 => Answer::Stored { refused: Vec::new() },
        421 => Answer::Unavailable { retry_after_ms: None },
        429 => Answer::DatabaseBusy { retry_after_ms: None },
        500 => Answer::Unknown,
        503 => Answer::Unavailable { retry_after_ms: None },
        other => panic!("status {other}: {}", String::from_utf8_lossy(&text)),
    }
}
