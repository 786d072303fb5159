//! The storage of a Kusto that takes rows by queue, and what takes messages out of it: well, badly, or never.

use std::collections::{BTreeMap, HashSet};
use std::io::Read as _;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use http::{Method, StatusCode};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use crate::fake_kusto::FakeKusto;

/// What becomes of a message.
#[derive(Clone, Debug)]
pub(crate) enum Fate {
    /// Its rows are stored.
    Ingest,
    /// Nobody takes it.
    Nothing,
    /// Its status becomes this; no row is stored.
    Status(Value),
}

pub(crate) fn failed(kind: &str, code: &str) -> Fate {
    Fate::Status(json!({"Status": "Failed", "FailureStatus": kind, "ErrorCode": code, "Details": "as told"}))
}

/// Of a message its number, from 0, and its rows.
type Decide = Arc<dyn Fn(usize, &str) -> Fate + Send + Sync>;

#[derive(Clone, Default)]
pub(crate) struct FakeStorage {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    blocks: BTreeMap<(String, String), Bytes>,
    blobs: BTreeMap<String, Bytes>,
    statuses: BTreeMap<String, Map<String, Value>>,
    messages: Vec<Value>,
    tags: HashSet<String>,
    decide: Option<Decide>,
    /// Requests whose path contains this answer so.
    refuse: Option<(&'static str, StatusCode)>,
    /// So many requests whose path contains this are told to come again after a second.
    throttle: Option<(&'static str, usize)>,
    uploads: usize,
    /// The number of the signature that is good.
    signature: usize,
    /// How many requests had another one.
    stale: usize,
}

impl FakeStorage {
    /// What becomes of messages from now on; at first they are ingested.
    pub(crate) fn decide(&self, decide: impl Fn(usize, &str) -> Fate + Send + Sync + 'static) {
        self.inner.lock().decide = Some(Arc::new(decide));
    }

    pub(crate) fn refuse(&self, path: Option<(&'static str, StatusCode)>) {
        self.inner.lock().refuse = path;
    }

    /// The next so many requests whose path contains this are throttled.
    pub(crate) fn throttle(&self, path: &'static str, times: usize) {
        self.inner.lock().throttle = Some((path, times));
    }

    /// Whether that many have been.
    pub(crate) fn has_throttled(&self) -> bool {
        self.inner.lock().throttle.is_some_and(|(_, left)| left == 0)
    }

    /// The signatures that were given out are good no more.
    pub(crate) fn expire(&self) {
        self.inner.lock().signature += 1;
    }

    /// How many requests came with a signature that has expired.
    pub(crate) fn stale(&self) -> usize {
        self.inner.lock().stale
    }

    pub(crate) fn messages(&self) -> Vec<Value> {
        self.inner.lock().messages.clone()
    }

    pub(crate) fn blobs(&self) -> Vec<String> {
        self.inner.lock().blobs.keys().cloned().collect()
    }

    /// How often a blob was completed.
    pub(crate) fn uploads(&self) -> usize {
        self.inner.lock().uploads
    }

    /// Changes the status of a message.
    pub(crate) fn set_status(&self, message: usize, properties: &Value) {
        let mut inner = self.inner.lock();
        let key = status_key(&inner.messages[message]);
        inner.statuses.get_mut(&key).unwrap().extend(properties.as_object().unwrap().clone());
    }

    /// Takes a message that nobody has taken.
    pub(crate) fn ingest(&self, kusto: &FakeKusto, message: usize) {
        let taken = self.inner.lock().messages[message].clone();
        self.store(kusto, message, &taken);
    }

    fn csv(&self, message: &Value) -> String {
        let path = message["BlobPath"].as_str().unwrap().split('?').next().unwrap();
        let blob = self.inner.lock().blobs[path.rsplit('/').next().unwrap()].clone();
        let mut csv = String::new();
        flate2::read::GzDecoder::new(&blob[..]).read_to_string(&mut csv).unwrap();
        csv
    }

    fn store(&self, kusto: &FakeKusto, number: usize, message: &Value) {
        let properties = &message["AdditionalProperties"];
        let list =
            |name: &str| -> Vec<String> { properties[name].as_str().map(|text| serde_json::from_str(text).unwrap()).unwrap_or_default() };
        let known = list("ingestIfNotExists").iter().any(|tag| self.inner.lock().tags.contains(&format!("ingest-by:{tag}")));
        if known {
            return self.set_status(number, &json!({"Status": "Skipped", "ErrorCode": "Skipped_IngestByTagAlreadyExists"}));
        }
        let table = format!("{}.{}", message["DatabaseName"].as_str().unwrap(), message["TableName"].as_str().unwrap());
        let csv = self.csv(message);
        let mapping = properties["ingestionMappingReference"].as_str().unwrap();
        if kusto.store_mapped(&table, mapping, &csv).is_none() {
            let missing = "BadRequest_MappingReferenceWasNotFound";
            return self.set_status(number, &json!({"Status": "Failed", "FailureStatus": "Permanent", "ErrorCode": missing}));
        }
        kusto.store(table, &csv);
        self.inner.lock().tags.extend(list("tags"));
        self.set_status(number, &json!({"Status": "Succeeded"}));
    }

    fn message(&self, kusto: &FakeKusto, body: &Bytes) {
        let text = String::from_utf8(body.to_vec()).unwrap();
        let text = text.split_once("<MessageText>").unwrap().1.split_once("</MessageText>").unwrap().0;
        let message: Value = serde_json::from_slice(&base64::engine::general_purpose::STANDARD.decode(text).unwrap()).unwrap();
        let (number, decide) = {
            let mut inner = self.inner.lock();
            inner.messages.push(message.clone());
            (inner.messages.len() - 1, inner.decide.clone())
        };
        let csv = self.csv(&message);
        match decide.map_or(Fate::Ingest, |decide| decide(number, &csv)) {
            Fate::Ingest => self.store(kusto, number, &message),
            Fate::Nothing => {}
            Fate::Status(properties) => self.set_status(number, &properties),
        }
        kusto.changed();
    }
}

fn status_key(message: &Value) -> String {
    let table = &message["IngestionStatusInTable"];
    format!("{}/{}", table["PartitionKey"].as_str().unwrap(), table["RowKey"].as_str().unwrap())
}

/// What `.get ingestion resources` gives out.
pub(crate) fn resources(storage: &FakeStorage, url: &str) -> Value {
    let signature = storage.inner.lock().signature;
    let row = |kind: &str, name: &str| json!([kind, format!("{url}/storage/{name}?sig=SECRET{signature}")]);
    let rows = [row("TempStorage", "temp"), row("SecuredReadyForAggregationQueue", "ready"), row("IngestionsStatusTable", "status")];
    let columns = ["ResourceTypeName", "StorageRoot"].map(|name| json!({"ColumnName": name, "ColumnType": "string"}));
    json!({"Tables": [{"TableName": "Table_0", "Columns": columns, "Rows": rows}]})
}

/// Every request to storage.
pub(crate) async fn handle(
    State(kusto): State<FakeKusto>,
    method: Method,
    Path(path): Path<String>,
    Query(query): Query<BTreeMap<String, String>>,
    body: Bytes,
) -> Response {
    let storage = kusto.storage.clone();
    {
        let mut inner = storage.inner.lock();
        if query["sig"] != format!("SECRET{}", inner.signature) {
            inner.stale += 1;
            return StatusCode::FORBIDDEN.into_response();
        }
        if let Some((_, left)) = inner.throttle.as_mut().filter(|(part, left)| *left > 0 && path.contains(*part)) {
            *left -= 1;
            return (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "1")]).into_response();
        }
    }
    let refused = storage.inner.lock().refuse;
    if let Some((_, status)) = refused.filter(|(part, _)| path.contains(part)) {
        return status.into_response();
    }
    match (method.as_str(), path.split_once('/').map_or(path.as_str(), |(first, _)| first), query.get("comp").map(String::as_str)) {
        ("PUT", "temp", Some("block")) => {
            let blob = path["temp/".len()..].to_owned();
            storage.inner.lock().blocks.insert((blob, query["blockid"].clone()), body);
            StatusCode::CREATED.into_response()
        }
        ("PUT", "temp", Some("blocklist")) => {
            let name = path["temp/".len()..].to_owned();
            let list = String::from_utf8(body.to_vec()).unwrap();
            let mut inner = storage.inner.lock();
            let ids = list.split("<Latest>").skip(1).map(|rest| rest.split('<').next().unwrap().to_owned());
            let whole: Vec<u8> = ids.flat_map(|id| inner.blocks[&(name.clone(), id)].to_vec()).collect();
            inner.blobs.insert(name, whole.into());
            inner.uploads += 1;
            StatusCode::CREATED.into_response()
        }
        ("POST", "ready", _) => {
            storage.message(&kusto, &body);
            StatusCode::CREATED.into_response()
        }
        ("POST", "status", _) => {
            let row: Map<String, Value> = serde_json::from_slice(&body).unwrap();
            let key = format!("{}/{}", row["PartitionKey"].as_str().unwrap(), row["RowKey"].as_str().unwrap());
            storage.inner.lock().statuses.insert(key, row);
            StatusCode::NO_CONTENT.into_response()
        }
        ("GET", _, _) if path.starts_with("status(") => {
            let keys: Vec<&str> = path.split('\'').skip(1).step_by(2).collect();
            match storage.inner.lock().statuses.get(&keys.join("/")) {
                Some(row) => axum::Json(row.clone()).into_response(),
                None => StatusCode::NOT_FOUND.into_response(),
            }
        }
        other => panic!("no such request: {other:?} {path}"),
    }
}
