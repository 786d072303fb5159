//! JSON lines (`json`) and MultiJSON: records one per line, or one after another, or in arrays.

use serde::Deserialize as _;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::builder::ColumnBuilder;
use super::mapping::{self, CellRule, CellSource, Transform};
use super::{BadInput, Part, Taken, push_cell};
use crate::catalog::Table;
use crate::text;

/// Appends records to the builders.
struct Rows<'a> {
    table: &'a Table,
    rules: &'a [CellRule],
    builders: &'a mut [ColumnBuilder],
    count: u64,
    /// The first record that cannot be taken.
    bad: Option<BadInput>,
}

/// Reads JSON lines. Where more text follows, the last line is left: it may go on there.
pub(super) fn read_lines(
    body: &[u8],
    part: Part,
    table: &Table,
    rules: &[CellRule],
    builders: &mut [ColumnBuilder],
) -> Result<Taken, BadInput> {
    let mut rows = Rows { table, rules, builders, count: part.before, bad: None };
    let bytes = match part.more {
        true => body.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1),
        false => body.len(),
    };
    for line in body[..bytes].split(|byte| *byte == b'\n') {
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        match serde_json::from_slice::<Value>(line) {
            Ok(record) => rows.push(&record),
            Err(error) => return Err(BadInput::row(rows.count + 1, format!("the record is not valid JSON: {error}"))),
        }
        if let Some(bad) = rows.bad.take() {
            return Err(bad);
        }
    }
    let records = rows.count - part.before;
    Ok(Taken { bytes, records, rows: records })
}

/// Reads MultiJSON; returns how many records. Arrays are read element by element, so that memory holds one record.
pub(super) fn read_multi(body: &[u8], table: &Table, rules: &[CellRule], builders: &mut [ColumnBuilder]) -> Result<u64, BadInput> {
    let mut rows = Rows { table, rules, builders, count: 0, bad: None };
    let mut rest = body;
    while !rest.iter().all(u8::is_ascii_whitespace) {
        let mut deserializer = serde_json::Deserializer::from_slice(rest);
        let outcome = Top(&mut rows).deserialize(&mut deserializer);
        if let Some(bad) = rows.bad.take() {
            return Err(bad);
        }
        outcome.map_err(|error| BadInput::row(rows.count + 1, format!("the record is not valid JSON: {error}")))?;
        // the offset is only known to the stream iterator, which takes up where the value ended
        let stream = deserializer.into_iter::<serde::de::IgnoredAny>();
        let consumed = stream.byte_offset();
        if consumed == 0 {
            break;
        }
        rest = rest.get(consumed..).unwrap_or_default();
    }
    Ok(rows.count)
}

impl Rows<'_> {
    fn push(&mut self, record: &Value) {
        self.count += 1;
        if !record.is_object() {
            self.bad = Some(BadInput::row(self.count, "the record is not a JSON object"));
            return;
        }
        for ((rule, column), builder) in self.rules.iter().zip(&self.table.columns).zip(self.builders.iter_mut()) {
            match &rule.source {
                CellSource::Path(path) => match mapping::follow(record, path) {
                    None => builder.push_null(),
                    Some(value) => push_value(builder, value, rule.transform),
                },
                CellSource::Constant(text) => push_cell(builder, text, Transform::None),
                CellSource::Absent => builder.push_null(),
                CellSource::Ordinal(_) => {
                    let what = "the mapping has an ordinal where the format needs a JSON path";
                    self.bad = Some(BadInput::cell(self.count, &column.name, what));
                    return;
                }
            }
        }
    }
}

fn push_value(builder: &mut ColumnBuilder, value: &Value, transform: Transform) {
    match (transform, value) {
        (Transform::None, value) => builder.push_json(value),
        (Transform::Unix(per_second), Value::Number(number)) => {
            builder.push_datetime(number.as_i64().and_then(|n| text::unix_ticks(n, per_second)));
        }
        (Transform::Unix(_), Value::String(text)) => push_cell(builder, text, transform),
        (Transform::Unix(_), _) => builder.push_null(),
    }
}

/// A top-level value: a record, or an array of them.
struct Top<'r, 'a>(&'r mut Rows<'a>);

impl<'de> DeserializeSeed<'de> for Top<'_, '_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Top<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON object or an array of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        while let Some(record) = elements.next_element::<Value>()? {
            // after a bad record the rest is only read, so that the parser ends in a known place
            if self.0.bad.is_none() {
                self.0.push(&record);
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<(), A::Error> {
        let record = Value::deserialize(serde::de::value::MapAccessDeserializer::new(entries))?;
        self.0.push(&record);
        Ok(())
    }
}
