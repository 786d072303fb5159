//! OTLP requests into records.

use std::sync::Arc;

use telemetry::{AnyView, DecodeError, Encoding, LogRecordView, Outcome, otlp_log_records};

use crate::record::{Destination, Record};
use crate::value::{Map, Value};

/// Containers nested deeper than this become `"..."` (collector spec §7).
const MAX_DEPTH: usize = 20;

/// Shows every record of an OTLP `ExportLogsServiceRequest` to `each`. Records that cannot be read are counted as
/// rejected; what becomes of the others is for `each` to count. Records that name no destination get `default`;
/// records without an observed time get `now_ns`.
///
/// # Errors
/// When the body cannot be read as a whole.
pub fn otlp_records(
    body: &[u8],
    encoding: Encoding,
    now_ns: u64,
    default: (Option<&str>, Option<&str>),
    mut each: impl FnMut(Record, &mut Outcome),
) -> Result<Outcome, DecodeError> {
    let mut resource = (0, Arc::default());
    let mut destinations = Destinations { default, last: None };
    otlp_log_records(body, encoding, now_ns, |view, outcome| {
        if resource.0 != view.resource_number {
            resource = (view.resource_number, Arc::new(map(view.resource.iter().map(|(key, value)| Ok((*key, *value))), 0)?));
        }
        let mut record = record(&view)?;
        record.resource = Arc::clone(&resource.1);
        record.destination = destinations.find(&view);
        each(record, outcome);
        Ok(())
    })
}

/// Destinations of the records of a request; most have that of the one before.
struct Destinations<'d> {
    default: (Option<&'d str>, Option<&'d str>),
    last: Option<(Vec<u8>, Vec<u8>, Option<Destination>)>,
}

impl Destinations<'_> {
    fn find(&mut self, view: &LogRecordView<'_, '_>) -> Option<Destination> {
        let database = view.database.or(self.default.0.map(str::as_bytes))?;
        let table = view.table.or(self.default.1.map(str::as_bytes))?;
        if let Some((last_database, last_table, destination)) = &self.last
            && last_database == database
            && last_table == table
        {
            return destination.clone();
        }
        let destination = Destination::new(database, table);
        self.last = Some((database.to_vec(), table.to_vec(), destination.clone()));
        destination
    }
}

fn record(view: &LogRecordView<'_, '_>) -> Result<Record, DecodeError> {
    let body = match view.body {
        AnyView::Map(entries) => map(entries.iter(), 1)?,
        AnyView::Null => Map::new(),
        other => Record::message(value(other, 0)?),
    };
    Ok(Record {
        timestamp: view.time_ns,
        observed: view.observed_ns,
        severity_text: text(view.severity_text),
        severity_number: view.severity_number,
        trace_id: hex(view.trace_id),
        span_id: hex(view.span_id),
        body,
        attributes: map(view.attributes.iter().map(|(key, value)| Ok((*key, *value))), 0)?,
        ..Record::default()
    })
}

/// Members, `depth` containers deep; those that say nothing are left out, of equal keys the last counts.
fn map<'b>(entries: impl Iterator<Item = Result<(&'b [u8], AnyView<'b>), DecodeError>>, depth: usize) -> Result<Map, DecodeError> {
    let mut map = Map::new();
    for entry in entries {
        let (key, view) = entry?;
        match value(view, depth)? {
            Value::Null => map.remove(&text(key)),
            value => map.insert(text(key), value),
        };
    }
    Ok(map)
}

fn value(view: AnyView<'_>, depth: usize) -> Result<Value, DecodeError> {
    Ok(match view {
        AnyView::Null => Value::Null,
        AnyView::String(string) => Value::String(text(string)),
        AnyView::Bool(flag) => Value::Bool(flag),
        AnyView::Int(number) => Value::Int(number),
        AnyView::Double(number) => Value::Float(number),
        AnyView::Bytes(bytes) => Value::Bytes(bytes.to_vec()),
        AnyView::Array(_) | AnyView::Map(_) if depth >= MAX_DEPTH => Value::from("..."),
        AnyView::Array(list) => Value::Array(list.iter().map(|item| value(item?, depth + 1)).collect::<Result<_, _>>()?),
        AnyView::Map(entries) => Value::Map(map(entries.iter(), depth + 1)?),
    })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn hex(bytes: &[u8]) -> String {
    let mut out = Vec::with_capacity(2 * bytes.len());
    telemetry::text::hex(&mut out, bytes);
    text(&out)
}
