//! A scripted Kusto service, over HTTP or over TLS with an authority of its own: answers in the order given, and keeps what
//! it was asked.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use tokio_util::sync::CancellationToken;

pub(crate) struct Asked {
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

pub(crate) enum Reply {
    Json(&'static str),
    Status(u16, &'static [(&'static str, &'static str)], &'static str),
    /// Never answers; the sender is dropped when the client goes away.
    Hang(tokio::sync::oneshot::Sender<()>),
}

#[derive(Clone)]
pub(crate) struct Fake {
    pub(crate) asked: Arc<Mutex<Vec<Asked>>>,
    replies: Arc<Mutex<VecDeque<Reply>>>,
    pub(crate) url: String,
    /// The certificate of the authority, in PEM; empty over HTTP.
    pub(crate) authority: String,
}

impl Fake {
    pub(crate) async fn start(replies: impl IntoIterator<Item = Reply>) -> Fake {
        Fake::serve("http", String::new(), None, replies).await
    }

    /// Over TLS, HTTP/2 if the client likes.
    pub(crate) async fn tls(replies: impl IntoIterator<Item = Reply>) -> Fake {
        let (authority, tls) = azure_testing::authority();
        Fake::serve("https", authority, Some(tls), replies).await
    }

    async fn serve(scheme: &str, authority: String, tls: Option<server::Tls>, replies: impl IntoIterator<Item = Reply>) -> Fake {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let fake = Fake {
            asked: Arc::default(),
            replies: Arc::new(Mutex::new(replies.into_iter().collect())),
            url: format!("{scheme}://localhost:{}", listener.local_addr().unwrap().port()),
            authority,
        };
        let router = Router::new().fallback(answer).with_state(fake.clone());
        tokio::spawn(server::serve(listener, router, server::Limits::default(), tls, CancellationToken::new()));
        fake
    }

    pub(crate) fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

async fn answer(State(fake): State<Fake>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    fake.asked.lock().unwrap().push(Asked { uri, headers, body });
    let reply = fake.replies.lock().unwrap().pop_front();
    match reply {
        Some(Reply::Json(text)) => text.into_response(),
        Some(Reply::Status(status, headers, text)) => {
            let mut response = (StatusCode::from_u16(status).unwrap(), text).into_response();
            for (name, value) in headers {
                response.headers_mut().insert(*name, value.parse().unwrap());
            }
            response
        }
        Some(Reply::Hang(held)) => {
            let _held = held;
            std::future::pending().await
        }
        None => (StatusCode::IM_A_TEAPOT, "the script is over").into_response(),
    }
}
