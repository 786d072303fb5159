//! OTLP log records into rows (collector spec §7, §12).
//!
//! A key-value body is written as it is, any other under `message`. What has no column of its own (scope, event
//! name, trace flags) joins the attributes under the names OpenTelemetry gives it outside of OTLP.

use crate::otlp::object::{Member, Object, json_field};
use crate::otlp::route::{Route, Router};
use crate::otlp::value::{self, Any};
use crate::otlp::{self, Described, Scope, Signal, is_internal};
use crate::schema::{SampleType, Schema};
use crate::text;
use crate::wire::{self, Reader, Span, Value, WireError};
use crate::{DecodeError, Encoding, Lift, Outcome, RowSet};
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
}

impl LogIntake {
    /// An intake with these settings. Lifted columns stand in the order of their resource keys.
    pub fn new(mut options: LogOptions) -> Self {
        options.lift_resources.sort_by(|a, b| a.name.cmp(&b.name));
        let schema = Arc::new(Schema::logs(&options.lift_resources));
        Self { options, schema }
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
        let mut request = Request {
            intake: self,
            body: &body,
            now_ns,
            out,
            outcome,
            router: Router::new(default_database.as_deref(), default_table.as_deref(), &self.schema, SampleType::Log),
            resource: Vec::new(),
            lifted: Vec::new(),
            scope: Object::default(),
            attributes: Object::default(),
            row: Vec::new(),
        };
        let mut fields = Reader::checked(&body)?;
        while let Some((field, value)) = fields.next()? {
            let (1, Value::Bytes(resource_logs)) = (field, value) else { continue };
            if let Err(error) = request.resource(resource_logs) {
                request.outcome.reject(otlp::count_lost(&body, resource_logs, 1, otlp::one_each), || error.to_string());
            }
        }
        Ok(request.outcome)
    }
}

/// One request on its way into rows.
struct Request<'b, 'o> {
    intake: &'b LogIntake,
    body: &'b [u8],
    now_ns: u64,
    out: &'o mut RowSet,
    outcome: Outcome,
    router: Router<'b>,
    /// `Resource` field of the present resource.
    resource: Vec<u8>,
    /// `,<lifted>,<lifted>\n`
    lifted: Vec<u8>,
    scope: Object<'b>,
    attributes: Object<'b>,
    row: Vec<u8>,
}

impl<'b> Request<'b, '_> {
    fn resource(&mut self, message: Span) -> Result<(), WireError> {
        let described = Described::read(self.body, message)?;
        self.write_resource(described.about)?;
        for scope_logs in described.items() {
            if let Err(error) = self.scope(scope_logs) {
                self.outcome.reject(otlp::count_lost(self.body, scope_logs, 0, otlp::one_each), || error.to_string());
            }
        }
        Ok(())
    }

    fn write_resource(&mut self, resource: Span) -> Result<(), WireError> {
        let options = &self.intake.options;
        let mut object = Object::default();
        for attribute in otlp::resource_attributes(self.body, resource)? {
            object.push_attribute(self.body, attribute)?;
        }
        for (key, text) in &options.add_attributes {
            object.push(key.as_bytes(), Member::Text(text.as_bytes()));
        }
        object.settle();
        self.lifted.clear();
        for lift in &options.lift_resources {
            self.lifted.push(b',');
            lifted_field(&mut self.lifted, self.body, object.take(lift.name.as_bytes()))?;
        }
        self.lifted.push(b'\n');
        self.resource.clear();
        object.write(&mut self.resource, self.body, |key| is_internal(key) || key.starts_with(b"label.") || key.starts_with(b"annotation."))
    }

    fn scope(&mut self, message: Span) -> Result<(), WireError> {
        let described = Described::read(self.body, message)?;
        let scope = Scope::read(self.body, described.about)?;
        scope.describe(self.body, &mut self.scope)?;
        for record in described.items() {
            if let Err(error) = self.record(record) {
                self.outcome.reject(1, || error.to_string());
            }
        }
        Ok(())
    }

    fn record(&mut self, message: Span) -> Result<(), WireError> {
        if self.out.is_full() {
            self.outcome.reject(1, RowSet::too_large);
            return Ok(());
        }
        wire::check_item(message)?;
        let record = self.read_record(message)?;
        self.write_row(&record)?;
        let table = match self.router.table(record.route, self.out) {
            Ok(table) => table,
            Err(misrouted) => {
                self.outcome.misroute(misrouted);
                return Ok(());
            }
        };
        if self.out.append(table, |rows| rows.extend_from_slice(&self.row)) {
            self.outcome.accepted += 1;
        } else {
            self.outcome.reject(1, RowSet::too_large);
        }
        Ok(())
    }

    /// Reads a `LogRecord`; its attributes go to `self.attributes`.
    fn read_record(&mut self, message: Span) -> Result<Record<'b>, WireError> {
        let body = self.body;
        let mut record = Record::default();
        self.attributes.clear();
        self.attributes.extend(&self.scope);
        let mut fields = Reader::within(body, message);
        while let Some((field, value)) = fields.next()? {
            match (field, value) {
                (1, Value::Fixed64(time)) => record.time = time,
                (2, Value::Varint(number)) => record.severity = number as i32,
                (3, Value::Bytes(text)) => record.severity_text = text,
                (5, Value::Bytes(message)) => record.body = value::any(body, message)?,
                (6, Value::Bytes(attribute)) => {
                    let (key, value) = value::key_value(body, attribute)?;
                    record.route.attribute(body, key.of(body), value);
                    self.attributes.push_any(body, key, value)?;
                }
                (8, Value::Fixed32(flags)) => record.flags = flags,
                (9, Value::Bytes(id)) => record.trace_id = id,
                (10, Value::Bytes(id)) => record.span_id = id,
                (11, Value::Fixed64(time)) => record.observed = time,
                (12, Value::Bytes(name)) => record.event_name = name,
                (1..=3 | 5 | 6 | 8..=12, _) => return Err(fields.error("unexpected wire type")),
                _ => {}
            }
        }
        self.attributes.push_text(b"event.name", record.event_name.of(body));
        if record.flags & 0xff != 0 {
            let flags = Any::Int(i64::from(record.flags & 0xff));
            self.attributes.push(b"trace_flags", Member::Any(flags));
        }
        self.attributes.settle();
        if let Any::Map(map) = record.body {
            record.route.body(body, map)?;
        }
        Ok(record)
    }

    fn write_row(&mut self, record: &Record<'_>) -> Result<(), WireError> {
        let (row, body) = (&mut self.row, self.body);
        row.clear();
        // OTLP: a time of 0 is unknown, and then the time of observation stands for it.
        let observed = if record.observed == 0 { self.now_ns } else { record.observed };
        log_time(row, if record.time == 0 { observed } else { record.time });
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
        self.attributes.write(row, body, is_internal)?;
        row.extend_from_slice(&self.lifted);
        Ok(())
    }
}

/// What is read of a `LogRecord`.
struct Record<'b> {
    time: u64,
    observed: u64,
    severity: i32,
    severity_text: Span,
    trace_id: Span,
    span_id: Span,
    event_name: Span,
    flags: u32,
    body: Any,
    route: Route<'b>,
}

impl Default for Record<'_> {
    fn default() -> Self {
        Self {
            time: 0,
            observed: 0,
            severity: 0,
            severity_text: Span::default(),
            trace_id: Span::default(),
            span_id: Span::default(),
            event_name: Span::default(),
            flags: 0,
            body: Any::Null,
            route: Route::default(),
        }
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

fn log_time(row: &mut Vec<u8>, time: u64) {
    let (per_second, to_nanos) = if time < MILLISECONDS_BELOW { (1000, 1_000_000) } else { (1_000_000_000, 1) };
    text::timestamp(row, (time / per_second).cast_signed(), (time % per_second) as u32 * to_nanos);
}
