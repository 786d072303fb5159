//! A request between two nodes: the body of the sender, and what the receiver's router makes of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use http_body_util::BodyExt as _;
use ingestor::peers::Arrivals;
use tower::ServiceExt as _;
use transfer::machine::{Answer, Job, Key};
use transfer::receiver::{ReceiverOptions, router};
use transfer::{HEADER_PEER, exchange};
use wal::Store;

use super::nodes::key_of;

/// The body of a request; nothing when the disk is down.
pub(super) fn body(store: &Store, job: &Job) -> Option<Vec<u8>> {
    let mut sealed: BTreeMap<Key, wal::SegmentInfo> = store.sealed().into_iter().map(|info| (key_of(&info), info)).collect();
    let segments: Vec<_> = job.segments.iter().map(|key| sealed.remove(key).unwrap()).collect();
    let images: Vec<_> = segments.iter().map(|info| store.read_segment(info.id).ok()).collect::<Option<_>>()?;
    Some(exchange::body(store.sender_id(), store.floor(&job.segments[0].database), &segments, &images).unwrap())
}

/// The receiver with this store answers; one that is `full` takes nothing.
pub(super) async fn post(store: Store, full: bool, job: &Job, body: Vec<u8>, peer: Option<String>, arrivals: Arrivals) -> Answer {
    let mut request = ::http::Request::post("/transfer").body(axum::body::Body::from(body)).unwrap();
    *request.headers_mut() = exchange::headers(&job.receiver.unwrap());
    if let Some(peer) = peer {
        request.headers_mut().insert(HEADER_PEER, peer.parse().unwrap());
    }
    let options = ReceiverOptions { from_peer: Some(Arc::new(move |tables| arrivals.begin(tables))), ..ReceiverOptions::default() };
    let ready = move || if full { Err("full".to_owned()) } else { Ok(()) };
    let response = router(store, options, Arc::new(ready)).oneshot(request).await.unwrap();
    let (head, body) = response.into_parts();
    exchange::meaning(head.status, &head.headers, &body.collect().await.unwrap().to_bytes(), true).0
}
