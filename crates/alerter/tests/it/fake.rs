//! A Kusto service and a receiver whose answers a test decides.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use futures::StreamExt as _;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;

/// A query or command that came.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) database: String,
    pub(crate) csl: String,
    /// `_startTime` and `_endTime`; none for a command.
    pub(crate) window: Option<(Timestamp, Timestamp)>,
}

/// How a query is answered, by a word that it contains.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// Columns with types, and rows.
    Rows(Vec<(&'static str, &'static str)>, Vec<Vec<Value>>),
    /// The same with columns of JSON.
    Table(Vec<(Value, Value)>, Vec<Vec<Value>>),
    Status(u16, String),
    /// 429 with `Retry-After`, in seconds.
    Busy(u64),
    /// No answer at all.
    Hang,
    /// No row, once this is true.
    Later(watch::Receiver<bool>),
    /// The beginning of an answer, and nothing after it.
    Stall,
}

/// A service that keeps what it was asked.
#[derive(Clone)]
pub(crate) struct Kusto {
    pub(crate) url: String,
    answers: Arc<Mutex<HashMap<&'static str, Answer>>>,
    asked: watch::Sender<Vec<Asked>>,
}

impl Kusto {
    pub(crate) async fn start() -> Kusto {
        let (listener, url) = bind().await;
        let kusto = Kusto { url, answers: Arc::default(), asked: watch::Sender::new(Vec::new()) };
        let router = Router::new().fallback(kusto_answer).with_state(kusto.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        kusto
    }

    /// Answers queries that contain `word`.
    pub(crate) fn answer(&self, word: &'static str, answer: Answer) {
        self.answers.lock().insert(word, answer);
    }

    /// One alert with that title.
    pub(crate) fn alert(&self, word: &'static str, id: &str) {
        let columns = vec![("Title", "string"), ("Severity", "long"), ("CorrelationId", "string")];
        self.answer(word, Answer::Rows(columns, vec![vec![json!(format!("title of {id}")), json!(2), json!(id)]]));
    }

    /// What was asked with `word` so far.
    pub(crate) fn asked(&self, word: &str) -> Vec<Asked> {
        self.asked.borrow().iter().filter(|asked| asked.csl.contains(word)).cloned().collect()
    }

    /// Waits until `count` queries with `word` came.
    pub(crate) async fn wait_for(&self, word: &str, count: usize) -> Vec<Asked> {
        let mut asked = self.asked.subscribe();
        let enough = |asked: &Vec<Asked>| asked.iter().filter(|a| a.csl.contains(word)).count() >= count;
        asked.wait_for(enough).await.unwrap();
        self.asked(word)
    }
}

async fn bind() -> (tokio::net::TcpListener, String) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (listener, url)
}

async fn kusto_answer(State(kusto): State<Kusto>, uri: Uri, body: Bytes) -> Response {
    let body: Value = serde_json::from_slice(&body).unwrap();
    let parameters = &body["properties"]["Parameters"];
    let time = |name: &str| {
        let literal = parameters[name].as_str()?.strip_prefix("datetime(")?.strip_suffix(')')?;
        literal.parse::<Timestamp>().ok()
    };
    let csl = body["csl"].as_str().unwrap().to_owned();
    let asked = Asked {
        database: body["db"].as_str().unwrap().to_owned(),
        csl: csl.clone(),
        window: time("_adxmonStartTime").zip(time("_adxmonEndTime")),
    };
    kusto.asked.send_modify(|all| all.push(asked));
    let answer = kusto.answers.lock().iter().find(|(word, _)| csl.contains(**word)).map(|(_, answer)| answer.clone());
    match answer.unwrap_or(Answer::Rows(vec![("Title", "string"), ("Severity", "long")], Vec::new())) {
        Answer::Rows(columns, rows) => {
            let columns: Vec<(Value, Value)> = columns.iter().map(|(name, ty)| (json!(name), json!(ty))).collect();
            rows_answer(&uri, &columns, &rows).to_string().into_response()
        }
        Answer::Table(columns, rows) => rows_answer(&uri, &columns, &rows).to_string().into_response(),
        Answer::Status(status, text) => (StatusCode::from_u16(status).unwrap(), text).into_response(),
        Answer::Busy(seconds) => (StatusCode::TOO_MANY_REQUESTS, [("retry-after", seconds.to_string())]).into_response(),
        Answer::Hang => std::future::pending().await,
        Answer::Later(mut now) => {
            now.wait_for(|now| *now).await.unwrap();
            let columns = [(json!("Title"), json!("string")), (json!("Severity"), json!("long"))];
            rows_answer(&uri, &columns, &[]).to_string().into_response()
        }
        Answer::Stall => {
            let first = Bytes::from_static(br#"[{"FrameType":"DataSetHeader","IsProgressive":false,"Version":"v2.0"},"#);
            let rest = futures::stream::pending();
            Body::from_stream(futures::stream::iter([Ok::<_, std::io::Error>(first)]).chain(rest)).into_response()
        }
    }
}

fn rows_answer(uri: &Uri, columns: &[(Value, Value)], rows: &[Vec<Value>]) -> Value {
    let columns: Vec<Value> = columns.iter().map(|(name, ty)| json!({"ColumnName": name, "ColumnType": ty})).collect();
    if uri.path() == "/v1/rest/mgmt" {
        return json!({"Tables": [{"TableName": "Table_0", "Columns": columns, "Rows": rows}]});
    }
    json!([
        {"FrameType": "DataSetHeader", "IsProgressive": false, "Version": "v2.0"},
        {"FrameType": "DataTable", "TableId": 1, "TableKind": "PrimaryResult", "TableName": "PrimaryResult", "Columns": columns, "Rows": rows},
        {"FrameType": "DataSetCompletion", "HasErrors": false, "Cancelled": false},
    ])
}

/// How a receiver answers.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    Status(u16, Vec<(&'static str, &'static str)>),
    Hang,
}

/// A request that a receiver got, and whether it took it.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
    pub(crate) taken: bool,
}

/// A receiver that keeps what it got.
#[derive(Clone)]
pub(crate) struct Receiver {
    pub(crate) url: String,
    /// By destination; `""` for all others.
    replies: Arc<Mutex<HashMap<&'static str, Reply>>>,
    received: watch::Sender<Vec<Received>>,
}

impl Receiver {
    pub(crate) async fn start() -> Receiver {
        let (listener, url) = bind().await;
        let receiver = Receiver { url, replies: Arc::default(), received: watch::Sender::new(Vec::new()) };
        let router = Router::new().fallback(receiver_answer).with_state(receiver.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        receiver
    }

    /// Answers notifications for `destination`; `""` for all others.
    pub(crate) fn reply(&self, destination: &'static str, reply: Reply) {
        self.replies.lock().insert(destination, reply);
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.received.borrow().clone()
    }

    /// Waits until so many requests were taken, and returns them.
    pub(crate) async fn taken(&self, count: usize) -> Vec<Received> {
        let mut received = self.received.subscribe();
        received.wait_for(|all| all.iter().filter(|r| r.taken).count() >= count).await.unwrap();
        self.received().into_iter().filter(|r| r.taken).collect()
    }

    /// Waits until so many requests came.
    pub(crate) async fn came(&self, count: usize) -> Vec<Received> {
        let mut received = self.received.subscribe();
        received.wait_for(|all| all.len() >= count).await.unwrap();
        self.received()
    }
}

async fn receiver_answer(State(receiver): State<Receiver>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let body: Value = serde_json::from_slice(&body).unwrap();
    let destination = body["Destination"].as_str().or_else(|| body[0]["labels"]["destination"].as_str()).unwrap_or_default().to_owned();
    let reply = {
        let replies = receiver.replies.lock();
        replies.get(destination.as_str()).or_else(|| replies.get("")).cloned().unwrap_or(Reply::Status(201, Vec::new()))
    };
    let taken = matches!(reply, Reply::Status(200..=299, _));
    receiver.received.send_modify(|all| all.push(Received { path: uri.path().to_owned(), headers, body, taken }));
    match reply {
        Reply::Hang => std::future::pending().await,
        Reply::Status(status, headers) => {
            let mut response = StatusCode::from_u16(status).unwrap().into_response();
            for (name, value) in headers {
                response.headers_mut().insert(name, value.parse().unwrap());
            }
            response
        }
    }
}
