//! Builds typed Arrow columns from cells of text or JSON. A cell that does not fit its column becomes null.

use std::sync::Arc;

use datafusion::arrow::array::Array as _;
use datafusion::arrow::array::{
    ArrayRef, BooleanBuilder, DictionaryArray, Float64Builder, Int32Array, Int32Builder, Int64Builder, StringBuilder,
};
use datafusion::common::HashMap;
use kql::Type;

use crate::text;

/// Rows after which a dynamic column is looked at: if its values hardly repeat, it stops being a dictionary.
const PROBATION: usize = 1024;

/// A column under construction.
pub(crate) enum ColumnBuilder {
    /// bool
    Bool(BooleanBuilder),
    /// int
    Int(Int32Builder),
    /// long
    Long(Int64Builder),
    /// real
    Real(Float64Builder),
    /// decimal, as text
    Decimal(StringBuilder),
    /// string
    String(StringBuilder),
    /// datetime, ticks
    DateTime(Int64Builder),
    /// timespan, ticks
    TimeSpan(Int64Builder),
    /// guid, as text
    Guid(StringBuilder),
    /// dynamic, JSON text
    Dynamic(DynamicBuilder),
}

impl ColumnBuilder {
    /// An empty column of that type.
    pub(crate) fn new(ty: Type) -> ColumnBuilder {
        match ty {
            Type::Bool => ColumnBuilder::Bool(BooleanBuilder::new()),
            Type::Int => ColumnBuilder::Int(Int32Builder::new()),
            Type::Long => ColumnBuilder::Long(Int64Builder::new()),
            Type::Real => ColumnBuilder::Real(Float64Builder::new()),
            Type::Decimal => ColumnBuilder::Decimal(StringBuilder::new()),
            Type::String => ColumnBuilder::String(StringBuilder::new()),
            Type::DateTime => ColumnBuilder::DateTime(Int64Builder::new()),
            Type::TimeSpan => ColumnBuilder::TimeSpan(Int64Builder::new()),
            Type::Guid => ColumnBuilder::Guid(StringBuilder::new()),
            Type::Dynamic => ColumnBuilder::Dynamic(DynamicBuilder::default()),
        }
    }

    /// Appends the value that `cell` spells.
    pub(crate) fn push_text(&mut self, cell: &str) {
        match self {
            ColumnBuilder::Bool(b) => b.append_option(text::parse_bool(cell)),
            ColumnBuilder::Int(b) => b.append_option(text::parse_long(cell).and_then(|n| i32::try_from(n).ok())),
            ColumnBuilder::Long(b) => b.append_option(text::parse_long(cell)),
            ColumnBuilder::Real(b) => b.append_option(text::parse_real(cell)),
            ColumnBuilder::Decimal(b) => b.append_option(text::parse_decimal(cell)),
            ColumnBuilder::String(b) => b.append_value(cell),
            ColumnBuilder::DateTime(b) => b.append_option(text::parse_datetime(cell)),
            ColumnBuilder::TimeSpan(b) => b.append_option(text::parse_timespan(cell)),
            ColumnBuilder::Guid(b) => b.append_option(text::parse_guid(cell)),
            ColumnBuilder::Dynamic(b) => b.push(cell),
        }
    }

    /// Appends ticks to a datetime column, or their text to another.
    pub(crate) fn push_datetime(&mut self, ticks: Option<i64>) {
        match (self, ticks) {
            (ColumnBuilder::DateTime(b), ticks) => b.append_option(ticks),
            (other, Some(ticks)) => other.push_text(&text::datetime_text(ticks)),
            (other, None) => other.push_null(),
        }
    }

    /// Appends a JSON value.
    pub(crate) fn push_json(&mut self, value: &serde_json::Value) {
        use serde_json::Value;
        match (&mut *self, value) {
            (_, Value::Null) => self.push_null(),
            (ColumnBuilder::Dynamic(b), value) => b.push_json(&value.to_string()),
            (ColumnBuilder::Int(b), Value::Number(n)) => {
                b.append_option(n.as_i64().and_then(|n| i32::try_from(n).ok()));
            }
            (ColumnBuilder::Long(b), Value::Number(n)) => b.append_option(n.as_i64()),
            (ColumnBuilder::Real(b), Value::Number(n)) => b.append_option(n.as_f64()),
            (ColumnBuilder::Bool(b), Value::Bool(v)) => b.append_value(*v),
            (other, Value::String(s)) => other.push_text(s),
            (other, value) => other.push_text(&value.to_string()),
        }
    }

    /// Appends null; for strings, which have none, the empty string.
    pub(crate) fn push_null(&mut self) {
        match self {
            ColumnBuilder::Bool(b) => b.append_null(),
            ColumnBuilder::Int(b) => b.append_null(),
            ColumnBuilder::Long(b) | ColumnBuilder::DateTime(b) | ColumnBuilder::TimeSpan(b) => b.append_null(),
            ColumnBuilder::Real(b) => b.append_null(),
            ColumnBuilder::Decimal(b) | ColumnBuilder::Guid(b) => b.append_null(),
            ColumnBuilder::String(b) => b.append_value(""),
            ColumnBuilder::Dynamic(b) => b.push_null(),
        }
    }

    /// The finished column.
    pub(crate) fn finish(self) -> ArrayRef {
        match self {
            ColumnBuilder::Bool(mut b) => Arc::new(b.finish()),
            ColumnBuilder::Int(mut b) => Arc::new(b.finish()),
            ColumnBuilder::Long(mut b) | ColumnBuilder::DateTime(mut b) | ColumnBuilder::TimeSpan(mut b) => Arc::new(b.finish()),
            ColumnBuilder::Real(mut b) => Arc::new(b.finish()),
            ColumnBuilder::Decimal(mut b) | ColumnBuilder::String(mut b) | ColumnBuilder::Guid(mut b) => Arc::new(b.finish()),
            ColumnBuilder::Dynamic(b) => b.finish(),
        }
    }
}

/// A dynamic column: a dictionary of JSON text while values repeat, plain text once they turn out not to.
#[derive(Default)]
pub(crate) struct DynamicBuilder {
    /// Key of each raw cell seen, so that a label set is parsed once.
    seen: HashMap<Box<str>, Option<i32>>,
    values: StringBuilder,
    distinct: i32,
    keys: Vec<Option<i32>>,
    plain: Option<StringBuilder>,
}

impl DynamicBuilder {
    fn push(&mut self, raw: &str) {
        self.push_with(raw, text::dynamic_text);
    }

    /// Appends text that is known to be JSON without blanks.
    fn push_json(&mut self, json: &str) {
        self.push_with(json, |json| (json != "null").then_some(std::borrow::Cow::Borrowed(json)));
    }

    fn push_with<'r>(&mut self, raw: &'r str, parse: impl Fn(&'r str) -> Option<std::borrow::Cow<'r, str>>) {
        if let Some(plain) = &mut self.plain {
            plain.append_option(parse(raw));
            return;
        }
        let key = match self.seen.get(raw) {
            Some(key) => *key,
            None => {
                let key = parse(raw).map(|json| {
                    self.values.append_value(json);
                    self.distinct += 1;
                    self.distinct - 1
                });
                self.seen.insert(raw.into(), key);
                key
            }
        };
        self.keys.push(key);
        if self.keys.len() == PROBATION && self.seen.len() > PROBATION / 2 {
            self.give_up();
        }
    }

    fn push_null(&mut self) {
        match &mut self.plain {
            Some(plain) => plain.append_null(),
            None => self.keys.push(None),
        }
    }

    /// Becomes plain text.
    fn give_up(&mut self) {
        let values = self.values.finish();
        let mut plain = StringBuilder::new();
        for key in self.keys.drain(..) {
            plain.append_option(key.map(|key| values.value(key as usize)));
        }
        self.seen.clear();
        self.plain = Some(plain);
    }

    fn finish(mut self) -> ArrayRef {
        if let Some(mut plain) = self.plain {
            return Arc::new(plain.finish());
        }
        let values = Arc::new(self.values.finish());
        debug_assert!(values.len() == self.distinct as usize);
        let keys = Int32Array::from(self.keys);
        match DictionaryArray::try_new(keys, values) {
            Ok(array) => Arc::new(array),
            Err(error) => unreachable!("every key was handed out with its value: {error}"),
        }
    }
}
