//! OTLP/JSON into protobuf, driven by the tables of [`super::json_schema`].
//!
//! JSON is read once, without a tree in memory. A log record, span or data point that cannot be read is counted and
//! left out; anything wrong outside of them refuses the body. Nesting is bounded before parsing starts.

use super::json_schema::{self, Field, Kind, Message, Shape};
use crate::{DecodeError, Outcome};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;

/// Deepest nesting of a body. An `AnyValue` inside another takes up to four levels.
const MAX_DEPTH: usize = 128;

/// Which request a body is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Signal {
    Logs,
    Metrics,
    Traces,
}

/// The body as protobuf.
pub(crate) fn transcode(body: &[u8], signal: Signal, outcome: &mut Outcome) -> Result<Vec<u8>, DecodeError> {
    check_depth(body)?;
    let message = match signal {
        Signal::Logs => &json_schema::LOGS,
        Signal::Metrics => &json_schema::METRICS,
        Signal::Traces => &json_schema::TRACES,
    };
    let mut out = Vec::with_capacity(body.len() / 2);
    let mut json = serde_json::Deserializer::from_slice(body);
    let read = MessageSeed { message, out: &mut out, outcome }.deserialize(&mut json);
    read.and_then(|()| json.end()).map_err(|error| {
        let (line, column, text) = (error.line(), error.column(), error.to_string());
        let place = format!(" at line {line} column {column}");
        DecodeError::Json { line, column, reason: text.strip_suffix(&place).unwrap_or(&text).to_owned() }
    })?;
    Ok(out)
}

/// Refuses bodies nested so deep that a recursive reader would be in danger.
fn check_depth(body: &[u8]) -> Result<(), DecodeError> {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for (at, &byte) in body.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_string,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => {
                depth += 1;
                if depth > MAX_DEPTH {
                    let before = &body[..at];
                    let line_start = memchr::memrchr(b'\n', before).map_or(0, |newline| newline + 1);
                    return Err(DecodeError::Json {
                        line: memchr::memchr_iter(b'\n', before).count() + 1,
                        column: at - line_start + 1,
                        reason: format!("nested deeper than {MAX_DEPTH} levels"),
                    });
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

/// Reads a JSON object as a message.
struct MessageSeed<'a> {
    message: &'static Message,
    out: &'a mut Vec<u8>,
    outcome: &'a mut Outcome,
}

impl<'de> DeserializeSeed<'de> for MessageSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for MessageSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        while let Some(field) = members.next_key_seed(KeySeed(self.message))? {
            match field {
                None => {
                    members.next_value::<IgnoredAny>()?;
                }
                Some(field) => {
                    members.next_value_seed(FieldSeed { field, out: self.out, outcome: self.outcome })?;
                }
            }
        }
        Ok(())
    }
}

/// Finds the field that a key names.
struct KeySeed(&'static Message);

impl<'de> DeserializeSeed<'de> for KeySeed {
    type Value = Option<&'static Field>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_str(self)
    }
}

impl Visitor<'_> for KeySeed {
    type Value = Option<&'static Field>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.fields.iter().find(|field| field.json == key))
    }
}

/// Reads the value of a field: one, an array, or null for none.
struct FieldSeed<'a> {
    field: &'static Field,
    out: &'a mut Vec<u8>,
    outcome: &'a mut Outcome,
}

impl<'de> DeserializeSeed<'de> for FieldSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for FieldSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a value for {}", self.field.json)
    }

    fn visit_none<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        match self.field.shape {
            Shape::Single => ValueSeed(self).deserialize(json),
            Shape::Repeated | Shape::Records => json.deserialize_seq(self),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        if self.field.shape == Shape::Records {
            let mut index = 0u64;
            while let Some(record) = elements.next_element::<&RawValue>()? {
                read_record(self.field, index, record.get(), self.out, self.outcome);
                index += 1;
            }
            return Ok(());
        }
        let Self { field, out, outcome } = self;
        while elements.next_element_seed(ValueSeed(FieldSeed { field, out, outcome }))?.is_some() {}
        Ok(())
    }
}

/// Reads an element on its own, and takes it back when it turns out unreadable.
fn read_record(field: &'static Field, index: u64, json: &str, out: &mut Vec<u8>, outcome: &mut Outcome) {
    let before = out.len();
    let mut reader = serde_json::Deserializer::from_str(json);
    if let Err(error) = ValueSeed(FieldSeed { field, out, outcome }).deserialize(&mut reader) {
        out.truncate(before);
        outcome.reject(1, || format!("{}[{index}]: {error}", field.json));
    }
}

/// Reads one value of a field and writes it with its tag.
struct ValueSeed<'a>(FieldSeed<'a>);

impl<'de> DeserializeSeed<'de> for ValueSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        let FieldSeed { field, out, outcome } = self.0;
        match &field.kind {
            Kind::Message(message) => {
                let open = open(out, field.number);
                MessageSeed { message, out, outcome }.deserialize(json)?;
                close(out, open);
                Ok(())
            }
            _ => json.deserialize_any(ScalarVisitor { field, out }),
        }
    }
}

/// Writes a string, number or boolean as the field's protobuf type.
struct ScalarVisitor<'a> {
    field: &'static Field,
    out: &'a mut Vec<u8>,
}

impl ScalarVisitor<'_> {
    fn varint(&mut self, number: u64) {
        varint(self.out, u64::from(self.field.number) << 3);
        varint(self.out, number);
    }

    fn fixed64(&mut self, bits: u64) {
        varint(self.out, u64::from(self.field.number) << 3 | 1);
        self.out.extend_from_slice(&bits.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        varint(self.out, u64::from(self.field.number) << 3 | 2);
        varint(self.out, bytes.len() as u64);
        self.out.extend_from_slice(bytes);
    }

    fn integer<E: Error>(mut self, number: i128) -> Result<(), E> {
        match self.field.kind {
            Kind::Unsigned => self.varint(self.within(number, "an unsigned 64-bit integer")?),
            Kind::Signed => self.varint(self.within::<i64, E>(number, "a 64-bit integer")?.cast_unsigned()),
            Kind::Enum(_) => self.varint(i64::from(self.within::<i32, E>(number, "a 32-bit integer")?).cast_unsigned()),
            Kind::Zigzag => {
                let number: i32 = self.within(number, "a 32-bit integer")?;
                self.varint(u64::from((number << 1 ^ number >> 31).cast_unsigned()));
            }
            Kind::Fixed64 => self.fixed64(self.within(number, "an unsigned 64-bit integer")?),
            Kind::SignedFixed64 => self.fixed64(self.within::<i64, E>(number, "a 64-bit integer")?.cast_unsigned()),
            Kind::Fixed32 => {
                let number: u32 = self.within(number, "an unsigned 32-bit integer")?;
                varint(self.out, u64::from(self.field.number) << 3 | 5);
                self.out.extend_from_slice(&number.to_le_bytes());
            }
            _ => return Err(self.mismatch("a string")),
        }
        Ok(())
    }

    fn within<T: TryFrom<i128>, E: Error>(&self, number: i128, wanted: &str) -> Result<T, E> {
        T::try_from(number).map_err(|_| self.mismatch(wanted))
    }

    fn mismatch<E: Error>(&self, wanted: &str) -> E {
        E::custom(format_args!("{} needs {wanted}", self.field.json))
    }
}

impl Visitor<'_> for ScalarVisitor<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a value for {}", self.field.json)
    }

    fn visit_bool<E: Error>(mut self, value: bool) -> Result<(), E> {
        match self.field.kind {
            Kind::Bool => self.varint(u64::from(value)),
            _ => return Err(self.mismatch("something else than a boolean")),
        }
        Ok(())
    }

    fn visit_u64<E: Error>(mut self, value: u64) -> Result<(), E> {
        match self.field.kind {
            Kind::Double => self.fixed64((value as f64).to_bits()),
            _ => return self.integer(value.into()),
        }
        Ok(())
    }

    fn visit_i64<E: Error>(mut self, value: i64) -> Result<(), E> {
        match self.field.kind {
            Kind::Double => self.fixed64((value as f64).to_bits()),
            _ => return self.integer(value.into()),
        }
        Ok(())
    }

    fn visit_f64<E: Error>(mut self, value: f64) -> Result<(), E> {
        match self.field.kind {
            Kind::Double => self.fixed64(value.to_bits()),
            _ if value == value.trunc() && value.abs() < 9_007_199_254_740_992.0 => {
                return self.integer(value as i128);
            }
            _ => return Err(self.mismatch("an integer")),
        }
        Ok(())
    }

    fn visit_str<E: Error>(mut self, value: &str) -> Result<(), E> {
        match self.field.kind {
            Kind::String => self.bytes(value.as_bytes()),
            Kind::Hex => {
                let bytes = unhex(value).ok_or_else(|| self.mismatch::<E>("hexadecimal digits"))?;
                self.bytes(&bytes);
            }
            Kind::Base64 => {
                let bytes = unbase64(value).ok_or_else(|| self.mismatch::<E>("base64"))?;
                self.bytes(&bytes);
            }
            Kind::Double => {
                let number = value.parse().map_err(|_| self.mismatch::<E>("a number"))?;
                self.fixed64(f64::to_bits(number));
            }
            Kind::Enum(names) if !value.starts_with(|c: char| c.is_ascii_digit() || c == '-') => {
                let number = names.iter().position(|name| *name == value);
                let number = number.ok_or_else(|| self.mismatch::<E>("a known name or a number"))?;
                self.varint(number as u64);
            }
            Kind::Bool | Kind::Message(_) => return Err(self.mismatch("something else than a string")),
            _ => {
                let number = value.parse().map_err(|_| self.mismatch::<E>("an integer"))?;
                return self.integer(number);
            }
        }
        Ok(())
    }
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    rest.is_empty().then_some(())?;
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

/// Either alphabet, with or without padding, as protobuf's JSON mapping accepts.
fn unbase64(text: &str) -> Option<Vec<u8>> {
    [STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD].iter().find_map(|engine| engine.decode(text).ok())
}

fn varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Writes tag and room for the length of a message, which is filled in by [`close`].
fn open(out: &mut Vec<u8>, field: u32) -> usize {
    varint(out, u64::from(field) << 3 | 2);
    out.extend_from_slice(&[0x80, 0x80, 0x80, 0x80, 0]);
    out.len()
}

/// Fills in the length as a varint padded to five bytes.
fn close(out: &mut [u8], start: usize) {
    let mut length = out.len() - start;
    for byte in &mut out[start - 5..start] {
        *byte = *byte & 0x80 | (length & 0x7f) as u8;
        length >>= 7;
    }
}
