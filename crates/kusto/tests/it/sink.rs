//! Storage that answers as a test tells it to, and keeps nothing but counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use futures::StreamExt as _;
use parking_lot::Mutex;

/// The status of an answer, by method and path with query.
type Answers = dyn Fn(&Method, &str) -> u16 + Send + Sync;

#[derive(Clone)]
pub(crate) struct Sink {
    pub(crate) url: String,
    bytes: Arc<AtomicU64>,
    asked: Arc<Mutex<Vec<String>>>,
    answers: Arc<Answers>,
}

impl Sink {
    pub(crate) async fn start(answers: impl Fn(&Method, &str) -> u16 + Send + Sync + 'static) -> Sink {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let sink = Sink { url, bytes: Arc::default(), asked: Arc::default(), answers: Arc::new(answers) };
        let router = Router::new().fallback(take).with_state(sink.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        sink
    }

    /// Bytes of all bodies.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::SeqCst)
    }

    /// Requests whose method, path and query have that part.
    pub(crate) fn asked(&self, part: &str) -> usize {
        self.asked.lock().iter().filter(|asked| asked.contains(part)).count()
    }

    /// Everything that it can be, as a data-management service gives it out.
    pub(crate) fn resources(&self) -> Vec<(&'static str, String)> {
        let url = |name: &str| format!("{}/account/{name}?sv=1&sig=SECRET", self.url);
        vec![
            ("TempStorage", url("temp")),
            ("SecuredReadyForAggregationQueue", url("ready")),
            ("IngestionsStatusTable", url("status")),
            ("FailedIngestionsQueue", url("failed")),
        ]
    }
}

async fn take(State(sink): State<Sink>, method: Method, uri: Uri, body: Body) -> Response {
    let mut body = body.into_data_stream();
    while let Some(Ok(chunk)) = body.next().await {
        sink.bytes.fetch_add(chunk.len() as u64, Ordering::SeqCst);
    }
    let target = uri.to_string();
    let status = (sink.answers)(&method, &target);
    sink.asked.lock().push(format!("{method} {target}"));
    let code = if status == 503 { "ServerBusy" } else { "Code" };
    (StatusCode::from_u16(status).unwrap(), [("x-ms-error-code", code)]).into_response()
}
