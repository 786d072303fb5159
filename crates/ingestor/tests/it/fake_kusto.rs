//! A Kusto service that keeps what it is sent, and can be told to fail.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::fake_storage::{self, FakeStorage};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Remembers batch ids, as kustd does.
    Kustd,
    /// The emulator: no streaming.
    Emulator,
    /// Azure Data Explorer: streams, and remembers no batches.
    Adx,
}

#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) commands: Vec<String>,
    /// CSV lines by `database.table`.
    pub(crate) rows: BTreeMap<String, Vec<String>>,
    /// Batch ids of all streaming requests, repeats included.
    pub(crate) batches: Vec<String>,
    pub(crate) mappings: Vec<String>,
    /// Lengths of all streamed bodies, refused ones included.
    pub(crate) lengths: Vec<usize>,
    /// When each request came that was answered 503 or 429.
    pub(crate) turned_away: Vec<Instant>,
    /// Columns of tables by `database.table`, in the order in which they were added.
    pub(crate) tables: BTreeMap<String, Vec<String>>,
    /// Columns that a mapping puts the fields into, by table and name.
    mapped: HashMap<(String, String), Vec<String>>,
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
    /// Rows that contain this text end in no answer.
    pub(crate) hang_up: Option<String>,
    /// Commands that contain this text, and streaming with the empty text, are refused so.
    pub(crate) refuse: Option<(&'static str, StatusCode, Value)>,
    /// Longer bodies are too large.
    pub(crate) most_bytes: Option<usize>,
    /// Everything answers 429, and is to be asked again after so many seconds.
    pub(crate) throttled: Option<u64>,
    /// The list of tables is empty.
    pub(crate) no_tables: bool,
}

#[derive(Clone)]
pub(crate) struct FakeKusto {
    kind: Kind,
    pub(crate) seen: Arc<Mutex<Seen>>,
    pub(crate) faults: Arc<Mutex<Faults>>,
    changed: Arc<Notify>,
    pub(crate) storage: FakeStorage,
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
            storage: FakeStorage::default(),
            url: format!("http://{}", listener.local_addr().unwrap()),
        };
        let router = Router::new()
            .route("/v1/rest/mgmt", post(command))
            .route("/storage/{*path}", axum::routing::any(fake_storage::handle))
            .route("/v1/rest/ingest/{database}/{table}", post(ingest))
            .layer(axum::extract::DefaultBodyLimit::disable())
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

    /// The answer while nothing is served.
    fn turn_away(&self) -> Option<Response> {
        let answer = match &*self.faults.lock() {
            Faults { down: true, .. } => StatusCode::SERVICE_UNAVAILABLE.into_response(),
            Faults { throttled: Some(seconds), .. } => {
                (StatusCode::TOO_MANY_REQUESTS, [("retry-after", seconds.to_string())]).into_response()
            }
            _ => return None,
        };
        self.seen.lock().turned_away.push(Instant::now());
        self.changed.notify_waiters();
        Some(answer)
    }

    pub(crate) fn rows(&self, table: &str) -> Vec<String> {
        let mut rows = self.seen.lock().rows.get(table).cloned().unwrap_or_default();
        rows.sort();
        rows
    }

    /// Lets go of every table and mapping, as when somebody drops them.
    pub(crate) fn forget_tables(&self) {
        let mut seen = self.seen.lock();
        seen.tables.clear();
        seen.mapped.clear();
    }

    /// Lets go of one table with its mappings, as when somebody drops it.
    pub(crate) fn drop_table(&self, table: &str) {
        let mut seen = self.seen.lock();
        seen.tables.remove(table);
        seen.mapped.retain(|(of, _), _| of != table);
    }

    fn list(&self, database: &str) -> Value {
        let seen = self.seen.lock();
        let prefix = format!("{database}.");
        let names = seen.tables.keys().filter_map(|table| table.strip_prefix(&prefix)).filter(|_| !self.faults.lock().no_tables);
        let rows: Vec<_> = names.map(|name| json!([name])).collect();
        json!({"Tables": [{"TableName": "Table_0", "Columns": [{"ColumnName": "TableName", "ColumnType": "string"}], "Rows": rows}]})
    }

    /// Somebody may wait for what was seen.
    pub(crate) fn changed(&self) {
        self.changed.notify_waiters();
    }

    pub(crate) fn store(&self, table: String, csv: &str) {
        self.seen.lock().rows.entry(table).or_default().extend(csv.lines().map(str::to_owned));
    }

    /// Rows as `Column=value`, by the mapping; nothing when table or mapping is not there.
    pub(crate) fn store_mapped(&self, table: &str, mapping: &str, csv: &str) -> Option<()> {
        let columns = {
            let seen = self.seen.lock();
            let have = seen.tables.get(table)?;
            let columns = seen.mapped.get(&(table.to_owned(), mapping.to_owned()))?.clone();
            assert!(columns.iter().all(|c| have.contains(c)), "{columns:?} {have:?}");
            columns
        };
        for line in csv.lines() {
            let fields: Vec<_> = columns.iter().zip(line.split(',')).map(|(column, field)| format!("{column}={field}")).collect();
            self.store(format!("{table} mapped"), &fields.join(" "));
        }
        Some(())
    }

    fn define(&self, database: &str, csl: &str) {
        let mut seen = self.seen.lock();
        if let Some(rest) = csl.strip_prefix(".create-merge table ['") {
            let (name, list) = rest.split_once("'] (").unwrap();
            let columns = seen.tables.entry(format!("{database}.{name}")).or_default();
            for field in list.trim_end_matches(')').split(", ") {
                let column = field.split_once("']:").unwrap().0.trim_start_matches("['").to_owned();
                if !columns.contains(&column) {
                    columns.push(column);
                }
            }
        }
        if let Some(rest) = csl.strip_prefix(".create-or-alter table ['") {
            let (name, rest) = rest.split_once("'] ingestion csv mapping \"").unwrap();
            let (mapping, json) = rest.split_once("\" '").unwrap();
            let entries: Vec<Value> = serde_json::from_str(json.trim_end_matches('\'')).unwrap();
            let columns = entries.iter().map(|e| e["Column"].as_str().unwrap().to_owned()).collect();
            seen.mapped.insert((format!("{database}.{name}"), mapping.to_owned()), columns);
        }
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
    if let Some(answer) = fake.turn_away() {
        return answer;
    }
    let csl = body["csl"].as_str().unwrap().to_owned();
    fake.seen.lock().commands.push(csl.clone());
    let refuse = fake.faults.lock().refuse.clone();
    if let Some((_, status, body)) = refuse.filter(|(text, ..)| !text.is_empty() && csl.contains(text)) {
        fake.changed.notify_waiters();
        return (status, Json(body)).into_response();
    }
    let answer = match (csl.as_str(), fake.kind) {
        (".show version", Kind::Kustd) => table(&["ServiceType"], &["kustd"]),
        (".show version", _) => table(&["ServiceType"], &["Engine"]),
        (".show tables | project TableName", _) => fake.list(body["db"].as_str().unwrap()),
        (".get ingestion resources", _) => fake_storage::resources(&fake.storage, &fake.url),
        (".get kusto identity token", _) => table(&["AuthorizationContext"], &["IDENTITY"]),
        (".show cluster details", Kind::Emulator) => table(&["Name"], &["KustoPersonal"]),
        (".show cluster details", _) => table(&["Name"], &["KEngine000001"]),
        _ => table(&["Result"], &["Completed"]),
    };
    let database = body["db"].as_str().unwrap();
    fake.define(database, &csl);
    if let Some(rest) = csl.strip_prefix(".ingest inline into table ['") {
        let (name, rest) = rest.split_once("']").unwrap();
        let (properties, csv) = rest.split_once("<|\n").unwrap();
        let mapping = properties.split_once("ingestionMappingReference=\"").unwrap().1.split_once('"').unwrap().0;
        let table = format!("{database}.{name}");
        if fake.store_mapped(&table, mapping, csv).is_none() {
            return bad_request("Entity ID 'T' of kind 'Table' was not found.");
        }
        fake.store(table, csv);
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
    if let Some(answer) = fake.turn_away() {
        return answer;
    }
    if fake.kind == Kind::Emulator {
        return StatusCode::NOT_FOUND.into_response();
    }
    fake.seen.lock().lengths.push(body.len());
    if fake.faults.lock().most_bytes.is_some_and(|most| body.len() > most) {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    }
    let refuse = fake.faults.lock().refuse.clone();
    if let Some((_, status, body)) = refuse.filter(|(text, ..)| text.is_empty()) {
        fake.changed.notify_waiters();
        return (status, Json(body)).into_response();
    }
    let csv = String::from_utf8(body.to_vec()).unwrap();
    let hang_up = fake.faults.lock().hang_up.clone();
    if hang_up.is_some_and(|text| csv.contains(&text)) {
        // A body that breaks off: the client cannot know what happened.
        let broken = futures::stream::iter([Err::<Bytes, _>(std::io::Error::other("gone"))]);
        return axum::body::Body::from_stream(broken).into_response();
    }
    let bad = fake.faults.lock().bad_text.clone();
    if bad.is_some_and(|bad| csv.contains(&bad)) {
        return bad_request("malformed rows");
    }
    let id = headers["x-adxmon-batch-id"].to_str().unwrap().to_owned();
    let new = {
        let mut seen = fake.seen.lock();
        seen.batches.push(id.clone());
        seen.mappings.push(query["mappingName"].clone());
        seen.known.insert(id.clone()) || fake.kind == Kind::Adx
    };
    if new {
        if fake.store_mapped(&format!("{database}.{table}"), &query["mappingName"], &csv).is_none() {
            fake.seen.lock().known.remove(&id);
            return bad_request("Entity ID 'T' of kind 'Table' was not found.");
        }
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
