//! OTLP spans into rows of `OTELTraces`, in the columns of Microsoft's OpenTelemetry exporter for Azure Data
//! Explorer.
//!
//! What has no column of its own (scope, status message, trace state) joins the attributes under the names
//! OpenTelemetry gives it outside of OTLP.

use crate::otlp::object::{Member, Object};
use crate::otlp::route::{Route, Router};
use crate::otlp::{self, Described, Scope, Signal, is_internal, value};
use crate::schema::{SampleType, Schema};
use crate::text::{self, json_field};
use crate::wire::{self, Reader, Span, Value, WireError};
use crate::{Added, DecodeError, Encoding, Outcome, RowSet};
use std::collections::BTreeMap;
use std::sync::Arc;

const KINDS: &[&str] =
    &["SPAN_KIND_UNSPECIFIED", "SPAN_KIND_INTERNAL", "SPAN_KIND_SERVER", "SPAN_KIND_CLIENT", "SPAN_KIND_PRODUCER", "SPAN_KIND_CONSUMER"];
const STATUSES: &[&str] = &["STATUS_CODE_UNSET", "STATUS_CODE_OK", "STATUS_CODE_ERROR"];

/// Settings of a trace source.
#[derive(Clone, Debug, Default)]
pub struct TraceOptions {
    /// Database of spans that name none.
    pub default_database: Option<String>,
    /// Table of spans that name none; [`TraceOptions::DEFAULT_TABLE`] when absent.
    pub default_table: Option<String>,
    /// Attributes set on the resource of every span, whatever the span says.
    pub add_attributes: BTreeMap<String, String>,
}

impl TraceOptions {
    /// Table of spans that name none, unless the settings do.
    pub const DEFAULT_TABLE: &str = "OTELTraces";
}

/// Settings of one trace source; shared by its requests.
#[derive(Debug)]
pub struct TraceIntake {
    options: TraceOptions,
    schema: Arc<Schema>,
    added: Added,
}

impl TraceIntake {
    /// An intake with these settings.
    pub fn new(mut options: TraceOptions) -> Self {
        let added = Added::new(std::mem::take(&mut options.add_attributes));
        Self { options, schema: Arc::new(Schema::traces()), added }
    }

    /// Attributes set on every resource.
    pub fn added(&self) -> &Added {
        &self.added
    }

    /// Decodes an OTLP `ExportTraceServiceRequest`.
    pub fn otlp(&self, body: &[u8], encoding: Encoding, out: &mut RowSet) -> Result<Outcome, DecodeError> {
        let mut outcome = Outcome::default();
        let body = otlp::protobuf(body, encoding, Signal::Traces, &mut outcome)?;
        let table = self.options.default_table.as_deref().unwrap_or(TraceOptions::DEFAULT_TABLE);
        let database = self.options.default_database.as_deref();
        let mut request = Request {
            intake: self,
            body: &body,
            out,
            outcome,
            router: Router::new(database, Some(table), &self.schema, SampleType::Trace),
            resource: Vec::new(),
            scope: Object::default(),
            attributes: Object::default(),
            row: Vec::new(),
        };
        let mut fields = Reader::checked(&body)?;
        while let Some((field, value)) = fields.next()? {
            let (1, Value::Bytes(resource_spans)) = (field, value) else { continue };
            if let Err(error) = request.resource(resource_spans) {
                request.outcome.reject(otlp::count_lost(&body, resource_spans, 1, otlp::one_each), || error.to_string());
            }
        }
        Ok(request.outcome)
    }
}

/// One request on its way into rows.
struct Request<'b, 'o> {
    intake: &'b TraceIntake,
    body: &'b [u8],
    out: &'o mut RowSet,
    outcome: Outcome,
    router: Router<'b>,
    /// `ResourceAttributes` field of the present resource.
    resource: Vec<u8>,
    scope: Object<'b>,
    attributes: Object<'b>,
    row: Vec<u8>,
}

impl<'b> Request<'b, '_> {
    fn resource(&mut self, message: Span) -> Result<(), WireError> {
        let described = Described::read(self.body, message)?;
        let added = self.intake.added.get();
        let mut object = Object::default();
        for attribute in otlp::resource_attributes(self.body, described.about)? {
            object.push_attribute(self.body, attribute)?;
        }
        for (key, text) in &*added {
            object.push(key.as_bytes(), Member::Text(text.as_bytes()));
        }
        object.settle();
        self.resource.clear();
        object.write(&mut self.resource, self.body, is_internal)?;
        for scope_spans in described.items() {
            if let Err(error) = self.scope(scope_spans) {
                self.outcome.reject(otlp::count_lost(self.body, scope_spans, 0, otlp::one_each), || error.to_string());
            }
        }
        Ok(())
    }

    fn scope(&mut self, message: Span) -> Result<(), WireError> {
        let described = Described::read(self.body, message)?;
        let scope = Scope::read(self.body, described.about)?;
        scope.describe(self.body, &mut self.scope)?;
        for span in described.items() {
            if let Err(error) = self.span(span) {
                self.outcome.reject(1, || error.to_string());
            }
        }
        Ok(())
    }

    fn span(&mut self, message: Span) -> Result<(), WireError> {
        if self.out.is_full() {
            self.outcome.reject(1, RowSet::too_large);
            return Ok(());
        }
        wire::check_item(message)?;
        let span = self.read_span(message)?;
        self.write_row(&span)?;
        let table = match self.router.table(span.route, self.out) {
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

    /// Reads a `Span`; its attributes go to `self.attributes`.
    fn read_span(&mut self, message: Span) -> Result<SpanRecord<'b>, WireError> {
        let body = self.body;
        let mut span = SpanRecord::default();
        let mut trace_state = Span::default();
        self.attributes.clear();
        self.attributes.extend(&self.scope);
        let mut fields = Reader::within(body, message);
        while let Some((field, value)) = fields.next()? {
            match (field, value) {
                (1, Value::Bytes(id)) => span.trace_id = id,
                (2, Value::Bytes(id)) => span.span_id = id,
                (3, Value::Bytes(state)) => trace_state = state,
                (4, Value::Bytes(id)) => span.parent_id = id,
                (5, Value::Bytes(name)) => span.name = name,
                (6, Value::Varint(kind)) => span.kind = kind,
                (7, Value::Fixed64(time)) => span.start_ns = time,
                (8, Value::Fixed64(time)) => span.end_ns = time,
                (9, Value::Bytes(attribute)) => {
                    let (key, value) = value::key_value(body, attribute)?;
                    span.route.attribute(body, key.of(body), value);
                    self.attributes.push_any(body, key, value)?;
                }
                (11, Value::Bytes(event)) => wire::push(&mut span.events, event, event)?,
                (13, Value::Bytes(link)) => wire::push(&mut span.links, link, link)?,
                (15, Value::Bytes(status)) => (span.status, span.status_message) = read_status(body, status)?,
                (1..=9 | 11 | 13 | 15, _) => return Err(fields.error("unexpected wire type")),
                _ => {}
            }
        }
        self.attributes.push_text(b"otel.status_description", span.status_message.of(body));
        self.attributes.push_text(b"w3c.tracestate", trace_state.of(body));
        self.attributes.settle();
        Ok(span)
    }

    fn write_row(&mut self, span: &SpanRecord<'_>) -> Result<(), WireError> {
        let (row, body) = (&mut self.row, self.body);
        row.clear();
        for id in [span.trace_id, span.span_id, span.parent_id] {
            text::hex(row, id.of(body));
            row.push(b',');
        }
        text::csv_field(row, span.name.of(body));
        row.push(b',');
        enum_name(row, STATUSES, span.status);
        row.push(b',');
        enum_name(row, KINDS, span.kind);
        for time in [span.start_ns, span.end_ns] {
            row.push(b',');
            time_ns(row, time);
        }
        row.push(b',');
        row.extend_from_slice(&self.resource);
        row.push(b',');
        self.attributes.write(row, body, is_internal)?;
        row.push(b',');
        array(row, &span.events, |row, event| write_event(row, body, event))?;
        row.push(b',');
        array(row, &span.links, |row, link| write_link(row, body, link))?;
        row.push(b'\n');
        Ok(())
    }
}

/// What is read of a `Span`.
#[derive(Default)]
struct SpanRecord<'b> {
    trace_id: Span,
    span_id: Span,
    parent_id: Span,
    name: Span,
    kind: u64,
    start_ns: u64,
    end_ns: u64,
    status: u64,
    status_message: Span,
    events: Vec<Span>,
    links: Vec<Span>,
    route: Route<'b>,
}

fn read_status(body: &[u8], message: Span) -> Result<(u64, Span), WireError> {
    let (mut code, mut text) = (0, Span::default());
    let mut fields = Reader::within(body, message);
    while let Some((field, value)) = fields.next()? {
        match (field, value) {
            (2, Value::Bytes(span)) => text = span,
            (3, Value::Varint(number)) => code = number,
            (2 | 3, _) => return Err(fields.error("unexpected wire type")),
            _ => {}
        }
    }
    Ok((code, text))
}

fn enum_name(row: &mut Vec<u8>, names: &[&str], number: u64) {
    match usize::try_from(number).ok().and_then(|number| names.get(number)) {
        Some(name) => row.extend_from_slice(name.as_bytes()),
        None => text::integer(row, number.cast_signed()),
    }
}

fn time_ns(row: &mut Vec<u8>, time: u64) {
    text::timestamp(row, (time / 1_000_000_000).cast_signed(), (time % 1_000_000_000) as u32);
}

fn array(row: &mut Vec<u8>, items: &[Span], write: impl Fn(&mut Vec<u8>, Span) -> Result<(), WireError>) -> Result<(), WireError> {
    json_field(row, |row| {
        row.push(b'[');
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                row.push(b',');
            }
            write(row, *item)?;
        }
        row.push(b']');
        Ok(())
    })
}

/// `{"EventName": …, "Timestamp": …, "EventAttributes": {…}}`
fn write_event(row: &mut Vec<u8>, body: &[u8], message: Span) -> Result<(), WireError> {
    let (mut time, mut name, mut attributes) = (0, Span::default(), Object::default());
    let mut fields = Reader::within(body, message);
    while let Some((field, value)) = fields.next()? {
        match (field, value) {
            (1, Value::Fixed64(ns)) => time = ns,
            (2, Value::Bytes(span)) => name = span,
            (3, Value::Bytes(attribute)) => attributes.push_attribute(body, attribute)?,
            (1..=3, _) => return Err(fields.error("unexpected wire type")),
            _ => {}
        }
    }
    attributes.settle();
    row.extend_from_slice(b"{\"\"EventName\"\":");
    text::json_string(row, name.of(body));
    row.extend_from_slice(b",\"\"Timestamp\"\":\"\"");
    time_ns(row, time);
    row.extend_from_slice(b"\"\",\"\"EventAttributes\"\":");
    attributes.write_json(row, body, is_internal)?;
    row.push(b'}');
    Ok(())
}

/// `{"TraceID": …, "SpanID": …, "TraceState": …, "SpanLinkAttributes": {…}}`
fn write_link(row: &mut Vec<u8>, body: &[u8], message: Span) -> Result<(), WireError> {
    let (mut trace_id, mut span_id, mut state) = (Span::default(), Span::default(), Span::default());
    let mut attributes = Object::default();
    let mut fields = Reader::within(body, message);
    while let Some((field, value)) = fields.next()? {
        match (field, value) {
            (1, Value::Bytes(span)) => trace_id = span,
            (2, Value::Bytes(span)) => span_id = span,
            (3, Value::Bytes(span)) => state = span,
            (4, Value::Bytes(attribute)) => attributes.push_attribute(body, attribute)?,
            (1..=4, _) => return Err(fields.error("unexpected wire type")),
            _ => {}
        }
    }
    attributes.settle();
    row.extend_from_slice(b"{\"\"TraceID\"\":\"\"");
    text::hex(row, trace_id.of(body));
    row.extend_from_slice(b"\"\",\"\"SpanID\"\":\"\"");
    text::hex(row, span_id.of(body));
    row.extend_from_slice(b"\"\",\"\"TraceState\"\":");
    text::json_string(row, state.of(body));
    row.extend_from_slice(b",\"\"SpanLinkAttributes\"\":");
    attributes.write_json(row, body, is_internal)?;
    row.push(b'}');
    Ok(())
}
