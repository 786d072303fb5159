//! OTLP log records into rows (collector spec §7, §12).
//!
//! A key-value body is written as it is, any other under `message`. What has no column of its own (scope, event
//! name, trace flags) joins the attributes under the names OpenTelemetry gives it outside of OTLP.

use crate::otlp::log_records::{self, Record, Visit};
use crate::otlp::object::{Member, Object};
use crate::otlp::route::Router;
use crate::otlp::value::{self, Any};
use crate::otlp::{self, Signal, is_internal};
use crate::schema::{SampleType, Schema};
use crate::text::{self, json_field};
use crate::wire::WireError;
use crate::{Added, DecodeError, Encoding, Lift, Outcome, RowSet};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Times below this are milliseconds, others nanoseconds: senders of both kinds exist.
const MILLISECONDS_BELOW: u64 = 1 << 53;

/// Settings of a log source.
#[derive(Clone, Debug, Default)]
pub struct LogOptions {
    /// Database of records that name none.
    pub default_database: Option<String>,
    /// Table of records that name none.
    pub default_table: Option<String>,
    /// Attributes set on the Resource of every record, whatever the record says.
    pub add_attributes: BTreeMap<String, String>,
    /// Resource keys with columns of their own.
    pub lift_resources: Vec<Lift>,
}

/// Settings of one log source; shared by its requests.
#[derive(Debug)]
pub struct LogIntake {
    options: LogOptions,
    schema: Arc<Schema>,
    added: Added,
}

impl LogIntake {
    /// An intake with these settings. Lifted columns stand in the order of their resource keys.
    pub fn new(mut options: LogOptions) -> Self {
        options.lift_resources.sort_by(|a, b| a.name.cmp(&b.name));
        let schema = Arc::new(Schema::logs(&options.lift_resources));
        let added = Added::new(std::mem::take(&mut options.add_attributes));
        Self { options, schema, added }
    }

    /// Attributes set on every resource.
    pub fn added(&self) -> &Added {
        &self.added
    }

    /// Decodes an OTLP `ExportLogsServiceRequest`. Records without an observed time get the present one.
    pub fn otlp(&self, body: &[u8], encoding: Encoding, out: &mut RowSet) -> Result<Outcome, DecodeError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
        self.otlp_at(body, encoding, u64::try_from(now).unwrap_or(u64::MAX), out)
    }

    /// [`LogIntake::otlp`] at a given time, in nanoseconds since 1970.
    pub fn otlp_at(&self, body: &[u8], encoding: Encoding, now_ns: u64, out: &mut RowSet) -> Result<Outcome, DecodeError> {
        let mut outcome = Outcome::default();
        let body = otlp::protobuf(body, encoding, Signal::Logs, &mut outcome)?;
        let LogOptions { default_database, default_table, .. } = &self.options;
        let mut rows = RowWriter {
            intake: self,
            now_ns,
            out,
            router: Router::new(default_database.as_deref(), default_table.as_deref(), &self.schema, SampleType::Log),
            resource: Vec::new(),
            lifted: Vec::new(),
            row: Vec::new(),
        };
        log_records::walk(&body, outcome, &mut rows)
    }
}

/// One request on its way into rows.
struct RowWriter<'i, 'o> {
    intake: &'i LogIntake,
    now_ns: u64,
    out: &'o mut RowSet,
    router: Router<'i>,
    /// `Resource` field of the present resource.
    resource: Vec<u8>,
    /// `,<lifted>,<lifted>\n`
    lifted: Vec<u8>,
    row: Vec<u8>,
}

impl<'b> Visit<'b> for RowWriter<'_, '_> {
    fn resource(&mut self, body: &'b [u8], attributes: Object<'b>) -> Result<(), WireError> {
        let (options, added) = (&self.intake.options, self.intake.added.get());
        let mut object: Object<'_> = attributes;
        for (key, text) in &*added {
            object.push(key.as_bytes(), Member::Text(text.as_bytes()));
        }
        object.settle();
        self.lifted.clear();
        for lift in &options.lift_resources {
            self.lifted.push(b',');
            lifted_field(&mut self.lifted, body, object.take(lift.name.as_bytes()))?;
        }
        self.lifted.push(b'\n');
        self.resource.clear();
        object.write(&mut self.resource, body, |key| is_internal(key) || key.starts_with(b"label.") || key.starts_with(b"annotation."))
    }

    fn record(&mut self, body: &'b [u8], record: &Record<'b>, attributes: &Object<'b>, outcome: &mut Outcome) -> Result<(), WireError> {
        if self.out.is_full() {
            outcome.reject(1, RowSet::too_large);
            return Ok(());
        }
        self.write_row(body, record, attributes)?;
        let table = match self.router.table(record.route, self.out) {
            Ok(table) => table,
            Err(misrouted) => {
                outcome.misroute(misrouted);
                return Ok(());
            }
        };
        if self.out.append(table, |rows| rows.extend_from_slice(&self.row)) {
            outcome.accepted += 1;
        } else {
            outcome.reject(1, RowSet::too_large);
        }
        Ok(())
    }
}

impl RowWriter<'_, '_> {
    fn write_row(&mut self, body: &[u8], record: &Record<'_>, attributes: &Object<'_>) -> Result<(), WireError> {
        let row = &mut self.row;
        row.clear();
        let (time, observed) = record.times(self.now_ns);
        log_time(row, time);
        row.push(b',');
        log_time(row, observed);
        row.push(b',');
        text::hex(row, record.trace_id.of(body));
        row.push(b',');
        text::hex(row, record.span_id.of(body));
        row.push(b',');
        text::csv_field(row, record.severity_text.of(body));
        row.push(b',');
        text::integer(row, i64::from(record.severity));
        row.push(b',');
        write_body(row, body, record.body)?;
        row.push(b',');
        row.extend_from_slice(&self.resource);
        row.push(b',');
        attributes.write(row, body, is_internal)?;
        row.extend_from_slice(&self.lifted);
        Ok(())
    }
}

fn write_body(row: &mut Vec<u8>, body: &[u8], value: Any) -> Result<(), WireError> {
    json_field(row, |row| match value {
        Any::Map(_) => value::json(row, body, value),
        other if value::is_writable(other) => {
            row.extend_from_slice(b"{\"\"message\"\":");
            value::json(row, body, other)?;
            row.push(b'}');
            Ok(())
        }
        _ => {
            row.extend_from_slice(b"{}");
            Ok(())
        }
    })
}

fn lifted_field(out: &mut Vec<u8>, body: &[u8], value: Option<Member<'_>>) -> Result<(), WireError> {
    match value {
        None => {}
        Some(Member::Text(text)) => text::csv_field(out, text),
        Some(Member::Any(value)) => {
            let mut text = Vec::new();
            value::label_text(&mut text, body, value)?;
            text::csv_field(out, &text);
        }
    }
    Ok(())
}

/// A time as sent, in nanoseconds; one beyond the year 2554 stays at the end of what 64 bits hold.
pub(crate) fn nanoseconds(time: u64) -> u64 {
    if time < MILLISECONDS_BELOW { time.saturating_mul(1_000_000) } else { time }
}

fn log_time(row: &mut Vec<u8>, time: u64) {
    let (per_second, to_nanos) = if time < MILLISECONDS_BELOW { (1000, 1_000_000) } else { (1_000_000_000, 1) };
    text::timestamp(row, (time / per_second).cast_signed(), (time % per_second) as u32 * to_nanos);
}
