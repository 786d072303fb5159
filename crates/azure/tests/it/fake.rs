//! A scripted server, over HTTP or TLS with an authority of its own: answers in the order given, and keeps what it was
//! asked.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use azure::{Credentials, Environment, Pauses, Scope};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

pub(crate) const NOW: i64 = 1_800_000_000;
pub(crate) const KUSTO: &str = "https://kusto.kusto.windows.net";

pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Asked {
    /// The fields of a form.
    pub(crate) fn form(&self) -> BTreeMap<String, String> {
        form_urlencoded::parse(&self.body).into_owned().collect()
    }

    pub(crate) fn query(&self) -> BTreeMap<String, String> {
        form_urlencoded::parse(self.uri.query().unwrap_or_default().as_bytes()).into_owned().collect()
    }
}

/// Status, headers and body.
pub(crate) type Reply = (u16, &'static [(&'static str, &'static str)], String);

pub(crate) fn token(secret: &str) -> Reply {
    (200, &[], format!(r#"{{"access_token":"{secret}","expires_in":3599,"token_type":"Bearer"}}"#))
}

/// An answer with a header.
pub(crate) fn with(status: u16, header: &'static [(&'static str, &'static str)]) -> Reply {
    (status, header, String::new())
}

pub(crate) fn status(status: u16, body: &str) -> Reply {
    (status, &[], body.to_owned())
}

#[derive(Clone)]
pub(crate) struct Fake {
    pub(crate) asked: Arc<Mutex<Vec<Asked>>>,
    replies: Arc<Mutex<VecDeque<Reply>>>,
    pub(crate) url: String,
    /// The certificate of the server's authority, in PEM.
    pub(crate) authority: String,
}

impl Fake {
    pub(crate) async fn plain(replies: impl IntoIterator<Item = Reply>) -> Fake {
        server::install_crypto();
        Fake::start("http", None, String::new(), replies).await
    }

    pub(crate) async fn tls(replies: impl IntoIterator<Item = Reply>) -> Fake {
        let (authority, tls) = azure_testing::authority();
        Fake::start("https", Some(tls), authority, replies).await
    }

    async fn start(scheme: &str, tls: Option<server::Tls>, authority: String, replies: impl IntoIterator<Item = Reply>) -> Fake {
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

    /// Credentials that ask this server for the directory.
    pub(crate) fn credentials<const N: usize>(&self, environment: [(&str, &str); N]) -> Credentials {
        credentials(environment).authorities(self.authority.as_bytes()).unwrap()
    }

    pub(crate) fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    /// The only request so far.
    pub(crate) fn only(&self) -> Asked {
        let mut asked = self.asked.lock().unwrap();
        assert_eq!(asked.len(), 1);
        asked.remove(0)
    }
}

async fn answer(State(fake): State<Fake>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    fake.asked.lock().unwrap().push(Asked { method, uri, headers, body });
    let Some((status, headers, text)) = fake.replies.lock().unwrap().pop_front() else {
        return (StatusCode::IM_A_TEAPOT, "the script is over").into_response();
    };
    let mut response = (StatusCode::from_u16(status).unwrap(), text).into_response();
    for (name, value) in headers {
        response.headers_mut().insert(*name, value.parse().unwrap());
    }
    response
}

/// Credentials of an environment, with a fixed clock and hardly a pause.
pub(crate) fn credentials<const N: usize>(environment: [(&str, &str); N]) -> Credentials {
    let pauses = Pauses { first: std::time::Duration::from_millis(1), times: 3 };
    let now = Arc::new(|| Timestamp::from_second(NOW).unwrap());
    Credentials::new().environment(Environment::of(environment)).now(now).pauses(pauses)
}

pub(crate) fn kusto() -> Scope {
    Scope::new(KUSTO)
}

pub(crate) fn bearer(token: &azure::Token) -> String {
    token.header().to_str().unwrap().to_owned()
}
