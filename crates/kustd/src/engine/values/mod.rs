//! The two representations of data: Kusto's scalars ([`kql::Value`]) and Arrow arrays.
//!
//! The Kusto type of a column is known from the typed tree; the Arrow type only says how it is stored. A datetime and
//! a timespan are both plain 64-bit ticks, a guid, a decimal and a dynamic are text.

mod build;
mod read;

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, StringArray, StringBuilder};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, Int32Type, Schema, SchemaRef};
use datafusion::scalar::ScalarValue;
use kql::rows::Rows;
use kql::{Column, Type, Value};

pub use build::ColumnBuilder;
pub use read::ColumnReader;

use super::error::EngineError;

/// Rows of a batch that the engine makes itself.
pub(super) const BATCH_ROWS: usize = 8192;
/// Text bytes at which such a batch ends early.
const BATCH_BYTES: usize = 32 << 20;

/// How values of a type are stored: datetime and timespan as ticks, guid, decimal and dynamic as text. A string or
/// dynamic column may also be `Dictionary(Int32, Utf8)`.
pub fn arrow_type(ty: Type) -> DataType {
    match ty {
        Type::Bool => DataType::Boolean,
        Type::Int => DataType::Int32,
        Type::Long | Type::DateTime | Type::TimeSpan => DataType::Int64,
        Type::Real => DataType::Float64,
        Type::String | Type::Guid | Type::Decimal | Type::Dynamic => DataType::Utf8,
    }
}

/// The dictionary form of a string or dynamic column.
pub(super) fn dictionary_type() -> DataType {
    DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
}

/// Whether the engine computes on this storage without converting it first.
pub(super) fn is_native(stored: &DataType, ty: Type) -> bool {
    *stored == arrow_type(ty) || (matches!(ty, Type::String | Type::Dynamic) && *stored == dictionary_type())
}

/// Name of column `index` inside plans. Positions instead of names: a tree may repeat a name, a plan may not.
pub(super) fn column_name(index: usize) -> String {
    format!("c{index}")
}

/// Schema with positional names and the usual storage.
pub(super) fn plan_schema(columns: &[Column]) -> SchemaRef {
    let field = |(index, column): (usize, &Column)| Field::new(column_name(index), arrow_type(column.ty), true);
    Arc::new(Schema::new(columns.iter().enumerate().map(field).collect::<Vec<_>>()))
}

/// A constant as DataFusion's literal.
pub(super) fn scalar_value(value: &Value, ty: Type) -> ScalarValue {
    let text = |value: &Value| match value {
        Value::Null if ty == Type::String => Some(String::new()),
        Value::Null => None,
        other => Some(build::text_of(other, ty)),
    };
    match (arrow_type(ty), value) {
        (DataType::Boolean, Value::Bool(v)) => ScalarValue::Boolean(Some(*v)),
        (DataType::Boolean, _) => ScalarValue::Boolean(None),
        (DataType::Int32, value) => ScalarValue::Int32(build::int_of(value)),
        (DataType::Int64, value) => ScalarValue::Int64(build::long_of(value)),
        (DataType::Float64, value) => ScalarValue::Float64(build::real_of(value)),
        (_, value) => ScalarValue::Utf8(text(value)),
    }
}

/// An array of the usual storage out of values.
pub fn values_to_array<'a>(values: impl IntoIterator<Item = &'a Value>, ty: Type) -> Result<ArrayRef, EngineError> {
    let mut builder = ColumnBuilder::new(ty);
    values.into_iter().for_each(|value| builder.push(value));
    builder.finish()
}

/// Batches of bounded size out of rows, with positional column names.
pub(super) fn rows_to_batches(rows: &Rows) -> Result<Vec<RecordBatch>, EngineError> {
    let schema = plan_schema(&rows.columns);
    let mut batches = Vec::new();
    let mut at = 0;
    while at < rows.rows.len() {
        let mut builders: Vec<ColumnBuilder> = rows.columns.iter().map(|column| ColumnBuilder::new(column.ty)).collect();
        let start = at;
        while at < rows.rows.len() && at - start < BATCH_ROWS && builders.iter().all(|b| b.text_bytes() < BATCH_BYTES) {
            builders.iter_mut().zip(&rows.rows[at]).for_each(|(builder, value)| builder.push(value));
            at += 1;
        }
        let arrays = builders.into_iter().map(ColumnBuilder::finish).collect::<Result<Vec<_>, _>>()?;
        batches.push(batch(schema.clone(), arrays, at - start)?);
    }
    Ok(batches)
}

/// A batch that may be without columns.
pub(crate) fn batch(schema: SchemaRef, arrays: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch, EngineError> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(schema, arrays, &options)?)
}

/// Appends the rows of a batch whose columns have those types.
pub(super) fn append_rows(batch: &RecordBatch, columns: &[Column], rows: &mut Vec<Vec<Value>>) -> Result<(), EngineError> {
    let mut readers =
        batch.columns().iter().zip(columns).map(|(array, column)| ColumnReader::new(array, column.ty)).collect::<Result<Vec<_>, _>>()?;
    rows.reserve(batch.num_rows());
    for row in 0..batch.num_rows() {
        rows.push(readers.iter_mut().map(|reader| reader.value(row)).collect());
    }
    Ok(())
}

/// The array as text without a dictionary.
pub(super) fn plain_text(array: &ArrayRef) -> Result<StringArray, EngineError> {
    if let Some(text) = array.as_string_opt::<i32>() {
        return Ok(text.clone());
    }
    Ok(cast(array, &DataType::Utf8)?.as_string::<i32>().clone())
}

/// Text in which nulls are empty strings, as Kusto has it for strings.
pub(super) fn without_nulls(text: StringArray) -> StringArray {
    if text.null_count() == 0 {
        return text;
    }
    let mut filled = StringBuilder::with_capacity(text.len(), text.value_data().len());
    text.iter().for_each(|value| filled.append_value(value.unwrap_or_default()));
    filled.finish()
}

/// Strings as they leave the engine: no dictionary, no nulls.
pub(super) fn finished_column(array: &ArrayRef, ty: Type) -> Result<ArrayRef, EngineError> {
    match ty {
        Type::String => Ok(Arc::new(without_nulls(plain_text(array)?))),
        Type::Dynamic if array.as_dictionary_opt::<Int32Type>().is_some() => Ok(Arc::clone(array)),
        _ if *array.data_type() == arrow_type(ty) => Ok(Arc::clone(array)),
        _ => Ok(cast(array, &arrow_type(ty))?),
    }
}
