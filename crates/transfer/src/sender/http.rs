//! One request: reads the segments, builds the body, sends it and says what the answer means.

use std::io::{self, Write as _};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, USER_AGENT};
use http::{Method, StatusCode};
use wal::{SegmentInfo, Store};

use super::SenderOptions;
use super::access::Accesses;
use crate::exchange::{self, receiver_of};
use crate::machine::{Answer, Contract};
use crate::names::HEADER_PEER;

const PROBE_TIMEOUT: Duration = Duration::from_secs(10);
/// What of an answer's text is looked at.
const ANSWER_BYTES: usize = 1 << 20;

/// The client of all endpoints.
pub(super) struct Http {
    accesses: Accesses,
    sender: [u8; 16],
    peer: Option<String>,
    gzip: bool,
}

/// What to send.
pub(super) struct Outgoing {
    pub(super) url: String,
    pub(super) receiver: Option<[u8; 16]>,
    pub(super) segments: Vec<SegmentInfo>,
    pub(super) floor: u64,
}

impl Http {
    pub(super) fn new(options: &SenderOptions, sender: [u8; 16]) -> Http {
        Http { sender, peer: options.peer.clone(), gzip: options.gzip, accesses: Accesses::new(options.clone()) }
    }

    /// Asks an endpoint what it is; nothing when it does not answer.
    pub(super) async fn probe(&self, endpoint: &str) -> Option<Contract> {
        let url = format!("{}/transfer", endpoint.trim_end_matches('/'));
        let sent = match self.request(Method::GET, &url) {
            Ok(request) => request.timeout(PROBE_TIMEOUT).send().await.map_err(|error| chain(&error)),
            Err(error) => Err(error),
        };
        let response = match sent {
            Ok(response) => response,
            Err(error) => {
                tracing::warn!(error, "an ingestor cannot be reached");
                return None;
            }
        };
        if matches!(response.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            self.accesses.refused();
            tracing::warn!(
                url,
                status = response.status().as_u16(),
                "an ingestor does not let us in; see the settings of token and certificate"
            );
            return None;
        }
        if response.status().is_server_error() {
            return None;
        }
        Some(match receiver_of(response.headers()) {
            Some(receiver) => Contract::Ours { receiver },
            None => Contract::Reference,
        })
    }

    /// Sends segments. The text says what went wrong, if anything did.
    pub(super) async fn send(&self, store: &Store, out: Outgoing) -> (Answer, Option<String>) {
        let images = match read_images(store, &out.segments).await {
            Ok(images) => images,
            Err(ReadFailure::Later(why)) => {
                return (Answer::Unavailable { retry_after_ms: None }, Some(why));
            }
            Err(ReadFailure::Lost(segments)) => {
                let text = segments.first().map(|(_, reason)| reason.clone());
                return (Answer::Unreadable { segments }, text);
            }
        };
        let endpoint = out.url.trim_end_matches('/');
        let request = match out.receiver {
            Some(receiver) => self.many(endpoint, receiver, &out, images),
            None => self.single(endpoint, &out, images),
        };
        let request = match request {
            Ok(request) => request,
            Err(error) => {
                return (Answer::Unavailable { retry_after_ms: None }, Some(error));
            }
        };
        match request.send().await {
            Ok(response) => self.answer(response, out.receiver.is_some()).await,
            Err(error) if error.is_connect() || error.is_builder() => (Answer::Unavailable { retry_after_ms: None }, Some(chain(&error))),
            Err(error) => (Answer::Unknown, Some(chain(&error))),
        }
    }

    /// A request with what all have in common.
    fn request(&self, method: Method, url: &str) -> Result<reqwest::RequestBuilder, String> {
        let access = self.accesses.current()?;
        let mut request = access.client.request(method, url).header(USER_AGENT, "adx-mon");
        if let Some(peer) = &self.peer {
            request = request.header(HEADER_PEER, peer);
        }
        Ok(match access.token_for(url)? {
            Some(token) => request.header(AUTHORIZATION, token),
            None => request,
        })
    }

    fn many(&self, endpoint: &str, receiver: [u8; 16], out: &Outgoing, images: Vec<Vec<u8>>) -> Result<reqwest::RequestBuilder, String> {
        let body = exchange::body(self.sender, out.floor, &out.segments, &images).map_err(|error| error.to_string())?;
        drop(images);
        let request = self.request(Method::POST, &format!("{endpoint}/transfer"))?;
        self.with_body(request.headers(exchange::headers(&receiver)), body)
    }

    /// The reference's contract; one segment.
    fn single(&self, endpoint: &str, out: &Outgoing, images: Vec<Vec<u8>>) -> Result<reqwest::RequestBuilder, String> {
        let name = out.segments.first().map(|info| info.file_name.as_str()).unwrap_or_default();
        let request = self
            .request(Method::POST, &format!("{endpoint}/transfer?filename={name}"))?
            .header(CONTENT_TYPE, "text/csv")
            .header("X-Request-ID", uuid::Uuid::new_v4().simple().to_string());
        self.with_body(request, images.concat())
    }

    fn with_body(&self, request: reqwest::RequestBuilder, body: Vec<u8>) -> Result<reqwest::RequestBuilder, String> {
        if !self.gzip {
            return Ok(request.body(body));
        }
        Ok(request.header(CONTENT_ENCODING, "gzip").body(gzipped(&body)?))
    }

    async fn answer(&self, response: reqwest::Response, ours: bool) -> (Answer, Option<String>) {
        let (status, headers) = (response.status(), response.headers().clone());
        if status == StatusCode::UNAUTHORIZED {
            self.accesses.refused();
        }
        exchange::meaning(status, &headers, &read_text(response).await, ours)
    }
}

pub(super) fn gzipped(body: &[u8]) -> Result<Vec<u8>, String> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::with_capacity(body.len() / 2), flate2::Compression::fast());
    encoder.write_all(body).and_then(|()| encoder.finish()).map_err(|error| format!("compressing: {error}"))
}

/// Why the images of a request are not there.
enum ReadFailure {
    /// These segments will never be readable.
    Lost(Vec<(usize, String)>),
    /// It may work later: descriptors used up, a disk that does not answer.
    Later(String),
}

async fn read_images(store: &Store, segments: &[SegmentInfo]) -> Result<Vec<Vec<u8>>, ReadFailure> {
    let ids: Vec<_> = segments.iter().map(|info| info.id).collect();
    let store = store.clone();
    let read = tokio::task::spawn_blocking(move || ids.into_iter().map(|id| store.read_segment(id)).collect::<Vec<_>>());
    let results = read.await.map_err(|e| ReadFailure::Later(e.to_string()))?;
    let mut images = Vec::with_capacity(segments.len());
    let mut lost = Vec::new();
    for (index, result) in results.into_iter().enumerate() {
        match result {
            Ok(image) => images.push(image),
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => {
                lost.push((index, format!("reading the segment: {e}")));
            }
            Err(e) => return Err(ReadFailure::Later(format!("reading a segment: {e}"))),
        }
    }
    if lost.is_empty() { Ok(images) } else { Err(ReadFailure::Lost(lost)) }
}

/// The beginning of an answer's text; what cannot be read is left out.
pub(super) async fn read_text(mut response: reqwest::Response) -> Bytes {
    let mut text = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        let room = ANSWER_BYTES - text.len().min(ANSWER_BYTES);
        text.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if room == 0 {
            break;
        }
    }
    text.into()
}

/// The text of an error with its causes.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut out = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        out.push_str(": ");
        out.push_str(&cause.to_string());
        source = cause.source();
    }
    out
}
