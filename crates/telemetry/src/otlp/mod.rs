//! What the three OTLP signals share: attributes and values read in place, and JSON bodies turned into protobuf.
//!
//! The protobuf encoding is the one model. A JSON body is transcoded to it ([`json`]), so that every decoder exists
//! once. Field numbers are those of `opentelemetry/proto/**/v1/*.proto`.

pub(crate) mod json;
mod json_schema;
pub(crate) mod object;
pub(crate) mod route;
pub(crate) mod value;

use crate::wire::{Reader, Span, Value, WireError};
use crate::{DecodeError, Encoding, Outcome};
use std::borrow::Cow;

pub(crate) use json::Signal;
use object::Object;

/// The body in protobuf, checked to be framed; JSON records that cannot be read are counted in `outcome`.
pub(crate) fn protobuf<'a>(
    body: &'a [u8],
    encoding: Encoding,
    signal: Signal,
    outcome: &mut Outcome,
) -> Result<Cow<'a, [u8]>, DecodeError> {
    let body = match encoding {
        Encoding::Protobuf => Cow::Borrowed(body),
        Encoding::Json => Cow::Owned(json::transcode(body, signal, outcome)?),
    };
    Reader::checked(&body)?;
    Ok(body)
}

/// `Resource*` and `Scope*` messages have one shape: field 1 describes, field 2 repeats what it describes.
pub(crate) struct Described {
    /// The Resource or InstrumentationScope; empty when absent.
    pub(crate) about: Span,
    /// What it describes.
    pub(crate) items: Vec<Span>,
}

impl Described {
    /// Reads a `ResourceLogs`, `ScopeLogs`, `ResourceMetrics`, ….
    pub(crate) fn read(body: &[u8], message: Span) -> Result<Self, WireError> {
        let mut read = Self { about: Span::default(), items: Vec::new() };
        let mut fields = Reader::within(body, message);
        while let Some((field, value)) = fields.next()? {
            match (field, value) {
                (1, Value::Bytes(span)) => read.about = span,
                (2, Value::Bytes(span)) => read.items.push(span),
                (1 | 2, _) => return Err(fields.error("unexpected wire type")),
                _ => {}
            }
        }
        Ok(read)
    }
}

/// An `InstrumentationScope`.
#[derive(Default)]
pub(crate) struct Scope {
    pub(crate) name: Span,
    pub(crate) version: Span,
    pub(crate) attributes: Vec<Span>,
}

impl Scope {
    pub(crate) fn read(body: &[u8], message: Span) -> Result<Self, WireError> {
        let mut scope = Self::default();
        let mut fields = Reader::within(body, message);
        while let Some((field, value)) = fields.next()? {
            match (field, value) {
                (1, Value::Bytes(span)) => scope.name = span,
                (2, Value::Bytes(span)) => scope.version = span,
                (3, Value::Bytes(span)) => scope.attributes.push(span),
                (1..=3, _) => return Err(fields.error("unexpected wire type")),
                _ => {}
            }
        }
        Ok(scope)
    }

    /// Adds what the scope says about itself to the attributes of its records.
    pub(crate) fn describe<'b>(&self, body: &'b [u8], object: &mut Object<'b>) -> Result<(), WireError> {
        for attribute in &self.attributes {
            object.push_attribute(body, *attribute)?;
        }
        object.push_text(b"otel.scope.name", self.name.of(body));
        object.push_text(b"otel.scope.version", self.version.of(body));
        Ok(())
    }
}

/// The attributes of a `Resource`, as spans of `KeyValue` messages.
pub(crate) fn resource_attributes(body: &[u8], resource: Span) -> Result<Vec<Span>, WireError> {
    let mut attributes = Vec::new();
    let mut fields = Reader::within(body, resource);
    while let Some((field, value)) = fields.next()? {
        match (field, value) {
            (1, Value::Bytes(span)) => attributes.push(span),
            (1, _) => return Err(fields.error("unexpected wire type")),
            _ => {}
        }
    }
    Ok(attributes)
}
