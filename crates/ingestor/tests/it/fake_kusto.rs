//! A Kusto service that keeps what it is sent, and can be told to fail.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Notify;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Remembers batch ids, as kustd does.
    Kustd,
    /// The emulator: no streaming.
    Emulator,
}

#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) commands: Vec<String>,
    /// CSV lines by `database.table`.
    pub(crate) rows: BTreeMap<String, Vec<String>>,
    /// Batch ids of all streaming requests, repeats included.
    pub(crate) batches: Vec<String>,
    pub(crate) mappings: Vec<String>,
    known: HashSet<String>,
}

/// What the next requests meet with.
#[derive(Default)]
pub(crate) struct Faults {
    /// So many streaming requests are stored, and the answer is lost.
    pub(crate) lose_answers: usize,
    /// Everything answers 503.
    pub(crate) down: bool,
    /// Rows that contain this text make the request a bad one.
    pub(crate) bad_text: Option<String>,
}

#[derive(Clone)]
pub(crate) struct FakeKusto {
    kind: Kind,
    pub(crate) seen: Arc<Mutex<Seen>>,
    pub(crate) faults: Arc<Mutex<Faults>>,
    changed: Arc<Notify>,
    pub(crate) url: String,
}

impl FakeKusto {
    pub(crate) async fn start(kind: Kind) -> FakeKusto {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let fake = FakeKusto {
            kind,
            seen: Arc::default(),
            faults: Arc::default(),
            changed: Arc::default(),
            url: format!("http://{}", listener.local_addr().unwrap()),
        };
        let router = Router::new()
            .route("/v1/rest/mgmt", post(command))
            .route("/v1/rest/ingest/{database}/{table}", post(ingest))
            .with_state(fake.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        fake
    }

    /// Waits until the service has seen what is asked for.
    pub(crate) async fn wait(&self, what: impl Fn(&Seen) -> bool) {
        let reached = async {
            loop {
                let mut changed = std::pin::pin!(self.changed.notified());
                changed.as_mut().enable();
                if what(&self.seen.lock()) {
                    return;
                }
                changed.await;
            }
        };
        let in_time = tokio::time::timeout(std::time::Duration::from_secs(60), reached).await;
        assert!(in_time.is_ok(), "not seen: {:?}", self.seen.lock().commands);
    }

    pub(crate) fn rows(&self, table: &str) -> Vec<String> {
        let mut rows = self.seen.lock().rows.get(table).cloned().unwrap_or_default();
        rows.sort();
        rows
    }

    fn store(&self, table: String, csv: &str) {
        self.seen.lock().rows.entry(table).or_default().extend(csv.lines().map(str::to_owned));
    }
}

fn table(columns: &[&str], row: &[&str]) -> Value {
    let columns: Vec<_> = columns.iter().map(|c| json!({"ColumnName": c, "ColumnType": "string"})).collect();
    json!({"Tables": [{"TableName": "Table_0", "Columns": columns, "Rows": [row]}]})
}

fn bad_request(text: &str) -> Response {
    let error = json!({"error": {"code": "General_BadRequest", "@message": text, "@permanent": true}});
    (StatusCode::BAD_REQUEST, Json(error)).into_response()
}

async fn command(State(fake): State<FakeKusto>, Json(body): Json<Value>) -> Response {
    if fake.faults.lock().down {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let csl = body["csl"].as_str().unwrap().to_owned();
    fake.seen.lock().commands.push(csl.clone());
    let answer = match (csl.as_str(), fake.kind) {
        (".show version", Kind::Kustd) => table(&["ServiceType"], &["kustd"]),
        (".show version", _) => table(&["ServiceType"], &["Engine"]),
        (".show cluster details", _) => table(&["Name"], &["KustoPersonal"]),
        _ => table(&["Result"], &["Completed"]),
    };
    if let Some(rest) = csl.strip_prefix(".ingest inline into table ['") {
        let (name, rest) = rest.split_once("']").unwrap();
        let csv = rest.split_once("<|\n").unwrap().1;
        fake.store(format!("{}.{name}", body["db"].as_str().unwrap()), csv);
    }
    fake.changed.notify_waiters();
    Json(answer).into_response()
}

async fn ingest(
    State(fake): State<FakeKusto>,
    Path((database, table)): Path<(String, String)>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if fake.faults.lock().down {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    if fake.kind == Kind::Emulator {
        return StatusCode::NOT_FOUND.into_response();
    }
    let csv = String::from_utf8(body.to_vec()).unwrap();
    let bad = fake.faults.lock().bad_text.clone();
    if bad.is_some_and(|bad| csv.contains(&bad)) {
        return bad_request("malformed rows");
    }
    let id = headers["x-adxmon-batch-id"].to_str().unwrap().to_owned();
    let new = {
        let mut seen = fake.seen.lock();
        seen.batches.push(id.clone());
        seen.mappings.push(query["mappingName"].clone());
        seen.known.insert(id)
    };
    if new {
        fake.store(format!("{database}.{table}"), &csv);
    }
    fake.changed.notify_waiters();
    let mut faults = fake.faults.lock();
    if faults.lose_answers > 0 {
        faults.lose_answers -= 1;
        return StatusCode::GATEWAY_TIMEOUT.into_response();
    }
    Json(json!({})).into_response()
}
