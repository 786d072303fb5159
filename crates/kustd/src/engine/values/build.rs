//! Arrays out of values.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, BooleanBuilder, Float64Builder, Int32Builder, Int64Builder, StringBuilder};
use kql::{Type, Value};

use crate::engine::error::EngineError;

/// Text that one array can hold: its offsets are 32-bit.
const MAX_TEXT: usize = i32::MAX as usize;

/// Builds one column of the usual storage ([`super::arrow_type`]). A value of another type is converted where that
/// loses nothing and is null otherwise; null in a string column is the empty string.
#[derive(Debug)]
pub struct ColumnBuilder {
    ty: Type,
    storage: Storage,
    overflow: bool,
}

#[derive(Debug)]
enum Storage {
    Bool(BooleanBuilder),
    Int(Int32Builder),
    Long(Int64Builder),
    Real(Float64Builder),
    Text(StringBuilder),
}

impl ColumnBuilder {
    /// An empty column of that type.
    pub fn new(ty: Type) -> Self {
        let storage = match ty {
            Type::Bool => Storage::Bool(BooleanBuilder::new()),
            Type::Int => Storage::Int(Int32Builder::new()),
            Type::Long | Type::DateTime | Type::TimeSpan => Storage::Long(Int64Builder::new()),
            Type::Real => Storage::Real(Float64Builder::new()),
            Type::String | Type::Guid | Type::Decimal | Type::Dynamic => Storage::Text(StringBuilder::new()),
        };
        ColumnBuilder { ty, storage, overflow: false }
    }

    /// Appends a value.
    pub fn push(&mut self, value: &Value) {
        match &mut self.storage {
            Storage::Bool(builder) => builder.append_option(bool_of(value)),
            Storage::Int(builder) => builder.append_option(int_of(value)),
            Storage::Long(builder) => builder.append_option(long_of(value)),
            Storage::Real(builder) => builder.append_option(real_of(value)),
            Storage::Text(builder) => match value {
                Value::Null if self.ty == Type::String => builder.append_value(""),
                Value::Null => builder.append_null(),
                Value::String(text) if self.ty == Type::String => append(builder, text, &mut self.overflow),
                other => append(builder, &text_of(other, self.ty), &mut self.overflow),
            },
        }
    }

    /// Bytes of text so far.
    pub fn text_bytes(&self) -> usize {
        match &self.storage {
            Storage::Text(builder) => builder.values_slice().len(),
            _ => 0,
        }
    }

    /// The array; an error when its text does not fit one array.
    pub fn finish(self) -> Result<ArrayRef, EngineError> {
        if self.overflow {
            return Err(EngineError::out_of_memory("one column of a batch has more than 2 GiB of text"));
        }
        Ok(match self.storage {
            Storage::Bool(mut builder) => Arc::new(builder.finish()),
            Storage::Int(mut builder) => Arc::new(builder.finish()),
            Storage::Long(mut builder) => Arc::new(builder.finish()),
            Storage::Real(mut builder) => Arc::new(builder.finish()),
            Storage::Text(mut builder) => Arc::new(builder.finish()),
        })
    }
}

fn append(builder: &mut StringBuilder, text: &str, overflow: &mut bool) {
    if builder.values_slice().len() + text.len() > MAX_TEXT {
        *overflow = true;
        builder.append_null();
    } else {
        builder.append_value(text);
    }
}

fn bool_of(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(v) => Some(*v),
        _ => None,
    }
}

pub(super) fn int_of(value: &Value) -> Option<i32> {
    match value {
        Value::Int(v) => Some(*v),
        Value::Long(v) => i32::try_from(*v).ok(),
        _ => None,
    }
}

pub(super) fn long_of(value: &Value) -> Option<i64> {
    match value {
        Value::Long(v) | Value::DateTime(v) | Value::TimeSpan(v) => Some(*v),
        Value::Int(v) => Some(i64::from(*v)),
        _ => None,
    }
}

pub(super) fn real_of(value: &Value) -> Option<f64> {
    match value {
        Value::Real(v) => Some(*v),
        Value::Int(v) => Some(f64::from(*v)),
        Value::Long(v) => Some(*v as f64),
        _ => None,
    }
}

/// Storage text of a value that is not null.
pub(super) fn text_of(value: &Value, ty: Type) -> String {
    match (ty, value) {
        (Type::Dynamic, value) => value.to_json(),
        // Keeps the scale, which printing a decimal would drop.
        (_, Value::Decimal(decimal)) => decimal.to_string(),
        (_, value) => value.to_text(),
    }
}
