//! Streaming ingestion: `POST /v1/rest/ingest/{database}/{table}?streamFormat=…&mappingName=…`. The answer comes when the
//! rows are durable and visible. With the header `x-adxmon-batch-id`, a repeat within a day stores nothing.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use kql::rows::Rows;
use kql::{Column, Type, Value};

use super::request::{parameters, read_body};
use super::respond::{Frames, Talk};
use crate::error::KustoError;
use crate::ingest::{Format, Reading, read};
use crate::query::{Answer, rows_answer};
use crate::service::Kustd;
use crate::storage::Ingested;
use crate::update;

/// Longest batch id in bytes.
const LONGEST_BATCH_ID: usize = 64;

pub(super) async fn streaming(
    State(kustd): State<Arc<Kustd>>,
    Path((database, table)): Path<(String, String)>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let talk = Talk::new(&headers, kustd.now());
    let outcome = ingest(&kustd, &database, &table, &uri, &headers, body).await;
    talk.respond(outcome.map(|answer| (answer, Frames::Management)))
}

async fn ingest(kustd: &Arc<Kustd>, database: &str, table: &str, uri: &Uri, headers: &HeaderMap, body: Body) -> Result<Answer, KustoError> {
    let parameters = parameters(uri);
    let parameter = |name: &str| {
        let found = parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    };
    if parameter("sourceKind").is_some_and(|kind| kind.eq_ignore_ascii_case("uri")) {
        return Err(KustoError::bad_request("ingestion from a blob is not supported; send the data in the body"));
    }
    let batch_id = batch_id(headers)?;
    let format: Format = parameter("streamFormat").unwrap_or("csv").parse().map_err(KustoError::bad_request)?;
    let table = kustd.table(database, table)?;
    let mapping = match parameter("mappingName") {
        Some(name) => Some(kustd.mapping(&table, format, name)?),
        None => None,
    };
    let body = read_body(headers, body).await?;
    let bytes = body.len() as u64;
    let batch = {
        let table = table.clone();
        let reading = move || {
            let reading = Reading { format, mapping: mapping.as_deref(), skip_first: false };
            read(&table, &reading, &body)
        };
        tokio::task::spawn_blocking(reading).await
    };
    let batch = batch
        .map_err(|error| KustoError::internal(format!("reading the rows: {error}")))?
        .map_err(|error| KustoError::bad_request(error.to_string()))?;
    let rows = batch.num_rows() as u64;
    if rows == 0 {
        return answer(0);
    }
    match update::ingest(kustd, table, batch, &batch_id).await? {
        Ingested::Stored => {
            kustd.metrics.ingested_rows.inc_by(rows);
            kustd.metrics.ingested_bytes.inc_by(bytes);
        }
        Ingested::Known => {
            kustd.metrics.repeated_batches.inc();
        }
    }
    answer(rows)
}

/// The sender's id of the batch, from hexadecimal digits.
fn batch_id(headers: &HeaderMap) -> Result<Vec<u8>, KustoError> {
    let Some(value) = headers.get("x-adxmon-batch-id") else { return Ok(Vec::new()) };
    let bad = || KustoError::bad_request(format!("x-adxmon-batch-id must be 1 to {LONGEST_BATCH_ID} bytes in hexadecimal"));
    let digits = value.as_bytes();
    if digits.is_empty() || digits.len() % 2 != 0 || digits.len() > LONGEST_BATCH_ID * 2 {
        return Err(bad());
    }
    let nibble = |digit: u8| char::from(digit).to_digit(16).and_then(|n| u8::try_from(n).ok());
    let byte = |pair: &[u8]| Some(nibble(pair[0])? << 4 | nibble(pair[1])?);
    digits.chunks_exact(2).map(byte).collect::<Option<Vec<u8>>>().ok_or_else(bad)
}

fn answer(rows: u64) -> Result<Answer, KustoError> {
    let columns = vec![
        Column::new("ConsumedRecordsCount", Type::Long),
        Column::new("UpdatePolicyStatus", Type::String),
        Column::new("UpdatePolicyFailureCode", Type::String),
        Column::new("UpdatePolicyFailureReason", Type::String),
    ];
    let text = |text: &str| Value::String(text.into());
    let count = Value::Long(i64::try_from(rows).unwrap_or(i64::MAX));
    rows_answer(Rows::new(columns, vec![vec![count, text("Inactive"), text(""), text("")]]))
}
