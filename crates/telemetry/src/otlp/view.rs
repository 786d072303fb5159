//! OTLP log records for readers outside of this crate: values of the request, borrowed from its bytes.

use super::log_records::{self, Record, Visit};
use super::object::{Member, Object};
use super::value::{self, Any};
use super::{Signal, protobuf};
use crate::logs::nanoseconds;
use crate::wire::{Span, WireError};
use crate::{DecodeError, Encoding, Outcome};

/// An `AnyValue`. Texts are as they were sent, so they need not be UTF-8.
#[derive(Clone, Copy, Debug)]
pub enum AnyView<'b> {
    /// No value.
    Null,
    /// A string.
    String(&'b [u8]),
    /// A bool.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A double.
    Double(f64),
    /// Bytes.
    Bytes(&'b [u8]),
    /// An array.
    Array(ListView<'b>),
    /// A list of keys and values.
    Map(MapView<'b>),
}

impl<'b> AnyView<'b> {
    fn new(body: &'b [u8], value: Any) -> Self {
        match value {
            Any::Null => Self::Null,
            Any::String(text) => Self::String(text.of(body)),
            Any::Bool(flag) => Self::Bool(flag),
            Any::Int(number) => Self::Int(number),
            Any::Double(number) => Self::Double(number),
            Any::Bytes(bytes) => Self::Bytes(bytes.of(body)),
            Any::Array(span) => Self::Array(ListView { body, span }),
            Any::Map(span) => Self::Map(MapView { body, span }),
        }
    }
}

/// An `ArrayValue`.
#[derive(Clone, Copy, Debug)]
pub struct ListView<'b> {
    body: &'b [u8],
    span: Span,
}

impl<'b> ListView<'b> {
    /// Its values in order; an error is the last item.
    pub fn iter(self) -> impl Iterator<Item = Result<AnyView<'b>, DecodeError>> {
        value::members(self.body, self.span).map(move |member| {
            let value = member.and_then(|member| value::any(self.body, member))?;
            Ok(AnyView::new(self.body, value))
        })
    }
}

/// A `KeyValueList`.
#[derive(Clone, Copy, Debug)]
pub struct MapView<'b> {
    body: &'b [u8],
    span: Span,
}

impl<'b> MapView<'b> {
    /// Its keys and values in order, equal keys included; an error is the last item.
    pub fn iter(self) -> impl Iterator<Item = Result<(&'b [u8], AnyView<'b>), DecodeError>> {
        value::members(self.body, self.span).map(move |member| {
            let (key, value) = member.and_then(|member| value::key_value(self.body, member))?;
            Ok((key.of(self.body), AnyView::new(self.body, value)))
        })
    }
}

/// A `LogRecord` with what surrounds it.
#[derive(Debug)]
pub struct LogRecordView<'b, 'r> {
    /// When it happened, in nanoseconds since 1970; the time of observation when the record does not say.
    pub time_ns: u64,
    /// When it was observed, in nanoseconds since 1970.
    pub observed_ns: u64,
    /// Severity as the sender calls it.
    pub severity_text: &'b [u8],
    /// Severity as OpenTelemetry numbers it; 0 when unknown.
    pub severity_number: i32,
    /// Trace id, 16 bytes or none.
    pub trace_id: &'b [u8],
    /// Span id, 8 bytes or none.
    pub span_id: &'b [u8],
    /// The body.
    pub body: AnyView<'b>,
    /// Attributes by key, each once, with those of the scope, the event name and the flags as in table rows.
    pub attributes: &'r [(&'b [u8], AnyView<'b>)],
    /// Attributes of the resource by key, each once.
    pub resource: &'r [(&'b [u8], AnyView<'b>)],
    /// Which resource of the request it is, from 1: equal for records that share one.
    pub resource_number: usize,
    /// `kusto.database` of the attributes or the body.
    pub database: Option<&'b [u8]>,
    /// `kusto.table` of the attributes or the body.
    pub table: Option<&'b [u8]>,
}

/// Shows the records of an OTLP `ExportLogsServiceRequest` to `each`, which may refuse one. Records that cannot be read
/// or are refused count as rejected, the others are not counted. Records without an observed time get `now_ns`.
///
/// # Errors
/// When the body cannot be read as a whole.
pub fn otlp_log_records<F>(body: &[u8], encoding: Encoding, now_ns: u64, each: F) -> Result<Outcome, DecodeError>
where
    F: FnMut(LogRecordView<'_, '_>, &mut Outcome) -> Result<(), DecodeError>,
{
    let mut outcome = Outcome::default();
    let body = protobuf(body, encoding, Signal::Logs, &mut outcome)?;
    let mut viewer = Viewer { now_ns, resource: Vec::new(), resource_number: 0, attributes: Vec::new(), each };
    log_records::walk(&body, outcome, &mut viewer)
}

struct Viewer<'b, F> {
    now_ns: u64,
    resource: Vec<(&'b [u8], AnyView<'b>)>,
    resource_number: usize,
    attributes: Vec<(&'b [u8], AnyView<'b>)>,
    each: F,
}

impl<'b, F> Visit<'b> for Viewer<'b, F>
where
    F: FnMut(LogRecordView<'_, '_>, &mut Outcome) -> Result<(), DecodeError>,
{
    fn resource(&mut self, body: &'b [u8], mut attributes: Object<'b>) -> Result<(), WireError> {
        attributes.settle();
        self.resource_number += 1;
        self.resource.clear();
        self.resource.extend(attributes.members().map(|member| view(body, member)));
        Ok(())
    }

    fn record(&mut self, body: &'b [u8], record: &Record<'b>, attributes: &Object<'b>, outcome: &mut Outcome) -> Result<(), WireError> {
        self.attributes.clear();
        self.attributes.extend(attributes.members().map(|member| view(body, member)));
        let (time, observed) = record.times(self.now_ns);
        let (database, table) = record.route.names();
        let view = LogRecordView {
            time_ns: nanoseconds(time),
            observed_ns: nanoseconds(observed),
            severity_text: record.severity_text.of(body),
            severity_number: record.severity,
            trace_id: record.trace_id.of(body),
            span_id: record.span_id.of(body),
            body: AnyView::new(body, record.body),
            attributes: &self.attributes,
            resource: &self.resource,
            resource_number: self.resource_number,
            database,
            table,
        };
        if let Err(error) = (self.each)(view, outcome) {
            outcome.reject(1, || error.to_string());
        }
        Ok(())
    }
}

fn view<'b>(body: &'b [u8], (key, member): (&'b [u8], Member<'b>)) -> (&'b [u8], AnyView<'b>) {
    let value = match member {
        Member::Any(value) => AnyView::new(body, value),
        Member::Text(text) => AnyView::String(text),
    };
    (key, value)
}
