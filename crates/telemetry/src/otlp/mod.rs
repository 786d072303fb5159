//! What the three OTLP signals share: attributes and values read in place, and JSON bodies turned into protobuf.
//!
//! The protobuf encoding is the one model. A JSON body is transcoded to it ([`json`]), so that every decoder exists
//! once. Field numbers are those of `opentelemetry/proto/**/v1/*.proto`.

pub(crate) mod json;
mod json_schema;
pub(crate) mod log_records;
pub(crate) mod object;
pub(crate) mod route;
pub(crate) mod value;
pub(crate) mod view;

use crate::wire::{self, Reader, Span, Value, WireError};
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
pub(crate) struct Described<'b> {
    /// The Resource or InstrumentationScope; empty when absent.
    pub(crate) about: Span,
    fields: Reader<'b>,
}

impl<'b> Described<'b> {
    /// Reads a `ResourceLogs`, `ScopeLogs`, `ResourceMetrics`, ….
    pub(crate) fn read(body: &'b [u8], message: Span) -> Result<Self, WireError> {
        let mut read = Self { about: Span::default(), fields: Reader::within(body, message) };
        let mut fields = read.fields;
        while let Some((field, value)) = fields.next()? {
            match (field, value) {
                (1, Value::Bytes(span)) => read.about = span,
                (1 | 2, Value::Varint(_) | Value::Fixed32(_) | Value::Fixed64(_)) => {
                    return Err(fields.error("unexpected wire type"));
                }
                _ => {}
            }
        }
        wire::check_item(read.about)?;
        Ok(read)
    }

    /// What it describes.
    pub(crate) fn items(mut self) -> impl Iterator<Item = Span> + use<'b> {
        std::iter::from_fn(move || {
            // They were read once already, so there is no error.
            while let Ok(Some((field, value))) = self.fields.next() {
                if let (2, Value::Bytes(item)) = (field, value) {
                    return Some(item);
                }
            }
            None
        })
    }
}

/// Number of items in a message that has to be given up, as far as it can be read; at least one. Items stand in field
/// 2 of messages that stand `levels` times in field 2; `leaf` counts what one of them holds.
pub(crate) fn count_lost(body: &[u8], message: Span, levels: u32, leaf: fn(&[u8], Span) -> u64) -> u64 {
    let mut lost = 0;
    let mut fields = Reader::within(body, message);
    while let Ok(Some((field, value))) = fields.next() {
        if let (2, Value::Bytes(inner)) = (field, value) {
            lost += if levels == 0 { leaf(body, inner) } else { count_lost(body, inner, levels - 1, leaf) };
        }
    }
    lost.max(1)
}

/// [`count_lost`] of log records or spans.
pub(crate) fn one_each(_: &[u8], _: Span) -> u64 {
    1
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
                (3, Value::Bytes(span)) => wire::push(&mut scope.attributes, span, span)?,
                (1..=3, _) => return Err(fields.error("unexpected wire type")),
                _ => {}
            }
        }
        Ok(scope)
    }

    /// Makes `object` what the scope says about itself, for the attributes of its records.
    pub(crate) fn describe<'b>(&self, body: &'b [u8], object: &mut Object<'b>) -> Result<(), WireError> {
        object.clear();
        for attribute in &self.attributes {
            object.push_attribute(body, *attribute)?;
        }
        object.push_text(b"otel.scope.name", self.name.of(body));
        object.push_text(b"otel.scope.version", self.version.of(body));
        object.settle();
        object.forget(is_internal);
        Ok(())
    }
}

/// The attributes of a `Resource`, as spans of `KeyValue` messages.
pub(crate) fn resource_attributes(body: &[u8], resource: Span) -> Result<Vec<Span>, WireError> {
    let mut attributes = Vec::new();
    let mut fields = Reader::within(body, resource);
    while let Some((field, value)) = fields.next()? {
        match (field, value) {
            (1, Value::Bytes(span)) => wire::push(&mut attributes, span, span)?,
            (1, _) => return Err(fields.error("unexpected wire type")),
            _ => {}
        }
    }
    Ok(attributes)
}

/// Keys of our own bookkeeping.
pub(crate) fn is_internal(key: &[u8]) -> bool {
    key.starts_with(b"adxmon_")
}
