//! Values out of arrays.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int32Array, Int64Array, StringArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Float64Type, Int32Type, Int64Type};
use kql::value::parse_guid;
use kql::{Dynamic, Type, Value};

use super::arrow_type;
use crate::engine::error::EngineError;

/// Reads values of one Kusto type out of an array. Values of a dictionary are decoded once.
#[derive(Debug)]
pub struct ColumnReader {
    ty: Type,
    storage: Storage,
}

#[derive(Debug)]
enum Storage {
    Bool(BooleanArray),
    Int(Int32Array),
    Long(Int64Array),
    Real(Float64Array),
    Text(StringArray),
    Dictionary { keys: Int32Array, text: StringArray, decoded: Vec<Option<Value>> },
}

impl ColumnReader {
    /// A reader of an array that holds values of `ty`, in any storage that Arrow can cast to the usual one.
    pub fn new(array: &ArrayRef, ty: Type) -> Result<Self, EngineError> {
        let storage = match array.data_type() {
            DataType::Dictionary(..) if dictionary_text(array).is_some() => {
                let dictionary = array.as_dictionary::<Int32Type>();
                let text = dictionary.values().as_string::<i32>().clone();
                Storage::Dictionary { keys: dictionary.keys().clone(), decoded: vec![None; text.len()], text }
            }
            stored if *stored == arrow_type(ty) => Storage::plain(array, ty),
            _ => Storage::plain(&cast(array, &arrow_type(ty))?, ty),
        };
        Ok(ColumnReader { ty, storage })
    }

    /// The value of a row.
    ///
    /// # Panics
    /// When the array has no such row.
    pub fn value(&mut self, row: usize) -> Value {
        let ty = self.ty;
        let valid = |array: &dyn Array| array.is_valid(row);
        match &mut self.storage {
            Storage::Bool(array) if valid(array) => Value::Bool(array.value(row)),
            Storage::Int(array) if valid(array) => Value::Int(array.value(row)),
            Storage::Long(array) if valid(array) => match ty {
                Type::DateTime => Value::DateTime(array.value(row)),
                Type::TimeSpan => Value::TimeSpan(array.value(row)),
                _ => Value::Long(array.value(row)),
            },
            Storage::Real(array) if valid(array) => Value::Real(array.value(row)),
            Storage::Text(array) if valid(array) => decode(array.value(row), ty),
            Storage::Dictionary { keys, text, decoded } if keys.is_valid(row) => {
                let key = keys.value(row) as usize;
                let slot = &mut decoded[key];
                slot.get_or_insert_with(|| if text.is_valid(key) { decode(text.value(key), ty) } else { Value::null_of(ty) }).clone()
            }
            _ => Value::null_of(ty),
        }
    }
}

impl Storage {
    /// `array` has the usual storage of `ty`.
    fn plain(array: &ArrayRef, ty: Type) -> Storage {
        match ty {
            Type::Bool => Storage::Bool(array.as_boolean().clone()),
            Type::Int => Storage::Int(array.as_primitive::<Int32Type>().clone()),
            Type::Long | Type::DateTime | Type::TimeSpan => Storage::Long(array.as_primitive::<Int64Type>().clone()),
            Type::Real => Storage::Real(array.as_primitive::<Float64Type>().clone()),
            Type::String | Type::Guid | Type::Decimal | Type::Dynamic => Storage::Text(array.as_string::<i32>().clone()),
        }
    }
}

fn dictionary_text(array: &ArrayRef) -> Option<&StringArray> {
    array.as_dictionary_opt::<Int32Type>()?.values().as_string_opt::<i32>()
}

/// A value out of its storage text. Text in a dynamic column that is not JSON is a string, as Kusto ingests it.
pub(crate) fn decode(text: &str, ty: Type) -> Value {
    match ty {
        Type::Guid => parse_guid(text).map_or(Value::Null, Value::Guid),
        Type::Decimal => text.parse().map_or(Value::Null, Value::Decimal),
        Type::Dynamic => Dynamic::parse_json(text).map_or_else(|| Value::Dynamic(Dynamic::String(Arc::from(text))), Value::dynamic),
        _ => Value::String(Arc::from(text)),
    }
}
