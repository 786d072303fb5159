//! Walks an `ExportLogsServiceRequest` record by record, for whoever visits them.

use super::object::{Member, Object};
use super::route::Route;
use super::value::{self, Any};
use super::{Described, Scope};
use crate::wire::{self, Reader, Span, Value, WireError};
use crate::{DecodeError, Outcome, otlp};

/// Who takes resources and their records.
pub(crate) trait Visit<'b> {
    /// The attributes of a resource, not settled; records that follow are of it.
    fn resource(&mut self, body: &'b [u8], attributes: Object<'b>) -> Result<(), WireError>;

    /// A record and its attributes, settled, those of its scope among them.
    fn record(&mut self, body: &'b [u8], record: &Record<'b>, attributes: &Object<'b>, outcome: &mut Outcome) -> Result<(), WireError>;
}

/// Shows every record of `body` (in protobuf, its framing checked) to `visit`; what cannot be read is counted.
pub(crate) fn walk<'b>(body: &'b [u8], outcome: Outcome, visit: &mut impl Visit<'b>) -> Result<Outcome, DecodeError> {
    let mut walk = Walk { body, outcome, scope: Object::default(), attributes: Object::default(), visit };
    let mut fields = Reader::checked(body)?;
    while let Some((field, value)) = fields.next()? {
        let (1, Value::Bytes(resource_logs)) = (field, value) else { continue };
        if let Err(error) = walk.resource(resource_logs) {
            walk.outcome.reject(otlp::count_lost(body, resource_logs, 1, otlp::one_each), || error.to_string());
        }
    }
    Ok(walk.outcome)
}

struct Walk<'b, 'v, V> {
    body: &'b [u8],
    outcome: Outcome,
    scope: Object<'b>,
    attributes: Object<'b>,
    visit: &'v mut V,
}

impl<'b, V: Visit<'b>> Walk<'b, '_, V> {
    fn resource(&mut self, message: Span) -> Result<(), WireError> {
        let described = Described::read(self.body, message)?;
        let mut object = Object::default();
        for attribute in otlp::resource_attributes(self.body, described.about)? {
            object.push_attribute(self.body, attribute)?;
        }
        self.visit.resource(self.body, object)?;
        for scope_logs in described.items() {
            if let Err(error) = self.scope(scope_logs) {
                self.outcome.reject(otlp::count_lost(self.body, scope_logs, 0, otlp::one_each), || error.to_string());
            }
        }
        Ok(())
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
        wire::check_item(message)?;
        let record = self.read_record(message)?;
        self.visit.record(self.body, &record, &self.attributes, &mut self.outcome)
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
}

/// What is read of a `LogRecord`; texts and ids are spans of the request.
pub(crate) struct Record<'b> {
    pub(crate) time: u64,
    pub(crate) observed: u64,
    pub(crate) severity: i32,
    pub(crate) severity_text: Span,
    pub(crate) trace_id: Span,
    pub(crate) span_id: Span,
    pub(crate) body: Any,
    pub(crate) route: Route<'b>,
    event_name: Span,
    flags: u32,
}

impl Record<'_> {
    /// Time of the event and of its observation, as sent. OTLP: a time of 0 is unknown, and then the time of
    /// observation stands for it; that of a record without one is now.
    pub(crate) fn times(&self, now_ns: u64) -> (u64, u64) {
        let observed = if self.observed == 0 { now_ns } else { self.observed };
        (if self.time == 0 { observed } else { self.time }, observed)
    }
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
