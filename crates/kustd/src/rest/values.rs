//! Arrow values as the JSON of Kusto's answers.

use datafusion::arrow::array::{Array, ArrayRef, AsArray as _, RecordBatch};
use datafusion::arrow::datatypes::{DataType, Float64Type, Int32Type, Int64Type};
use kql::{Column, Type};

use crate::text::{write_datetime, write_json_string, write_timespan};

/// The .NET name of a type, as version 1 answers give it.
pub(super) fn dotnet_name(ty: Type) -> &'static str {
    match ty {
        Type::Bool => "SByte",
        Type::Int => "Int32",
        Type::Long => "Int64",
        Type::Real => "Double",
        Type::Decimal => "SqlDecimal",
        Type::String => "String",
        Type::DateTime => "DateTime",
        Type::TimeSpan => "TimeSpan",
        Type::Guid => "Guid",
        Type::Dynamic => "Object",
    }
}

/// Appends rows `from..to` of a batch as JSON arrays, separated by commas.
pub(super) fn write_rows(columns: &[Column], batch: &RecordBatch, from: usize, to: usize, out: &mut String) {
    for row in from..to {
        if row > from {
            out.push(',');
        }
        out.push('[');
        for (at, column) in columns.iter().enumerate() {
            if at > 0 {
                out.push(',');
            }
            write_cell(column.ty, batch.column(at), row, out);
        }
        out.push(']');
    }
}

fn write_cell(ty: Type, array: &ArrayRef, row: usize, out: &mut String) {
    use std::fmt::Write as _;
    if array.is_null(row) {
        // there is no null string
        out.push_str(if ty == Type::String { "\"\"" } else { "null" });
        return;
    }
    // formatting into a String does not fail
    let _ = match (ty, array.data_type()) {
        (Type::Bool, DataType::Boolean) => write!(out, "{}", array.as_boolean().value(row)),
        (Type::Int, DataType::Int32) => write!(out, "{}", array.as_primitive::<Int32Type>().value(row)),
        (Type::Long, DataType::Int64) => write!(out, "{}", array.as_primitive::<Int64Type>().value(row)),
        (Type::DateTime, DataType::Int64) => {
            out.push('"');
            write_datetime(array.as_primitive::<Int64Type>().value(row), out);
            out.push('"');
            Ok(())
        }
        (Type::TimeSpan, DataType::Int64) => {
            out.push('"');
            write_timespan(array.as_primitive::<Int64Type>().value(row), out);
            out.push('"');
            Ok(())
        }
        (Type::Real, DataType::Float64) => {
            write_real(array.as_primitive::<Float64Type>().value(row), out);
            Ok(())
        }
        (ty, _) => {
            match text_of(array, row) {
                Some(text) if ty == Type::Dynamic => write_dynamic(text, out),
                Some(text) => write_json_string(text, out),
                None => out.push_str("null"),
            }
            Ok(())
        }
    };
}

fn write_real(value: f64, out: &mut String) {
    use std::fmt::Write as _;
    let _ = if value.is_nan() {
        out.write_str("\"NaN\"")
    } else if value.is_infinite() {
        out.write_str(if value > 0.0 { "\"Infinity\"" } else { "\"-Infinity\"" })
    } else {
        // the debug form keeps `.0` and uses an exponent for very large and small numbers
        write!(out, "{value:?}")
    };
}

/// A dynamic is JSON already; one that is not (or spans lines) would break the answer's framing.
fn write_dynamic(json: &str, out: &mut String) {
    if json.bytes().any(|byte| byte == b'\n' || byte == b'\r') {
        match serde_json::from_str::<serde_json::Value>(json) {
            Ok(value) => out.push_str(&value.to_string()),
            Err(_) => write_json_string(json, out),
        }
    } else {
        out.push_str(json);
    }
}

fn text_of(array: &ArrayRef, row: usize) -> Option<&str> {
    match array.data_type() {
        DataType::Utf8 => Some(array.as_string::<i32>().value(row)),
        DataType::LargeUtf8 => Some(array.as_string::<i64>().value(row)),
        DataType::Utf8View => Some(array.as_string_view().value(row)),
        DataType::Dictionary(..) => {
            let dictionary = array.as_dictionary_opt::<Int32Type>()?;
            let key = usize::try_from(dictionary.keys().value(row)).ok()?;
            let values = dictionary.values().as_string_opt::<i32>()?;
            values.is_valid(key).then(|| values.value(key))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{Float64Array, Int64Array, StringArray};
    use datafusion::arrow::datatypes::{Field, Schema};

    use super::*;

    #[test]
    fn cells_as_the_protocol_writes_them() {
        let columns = [
            Column::new("t", Type::DateTime),
            Column::new("s", Type::TimeSpan),
            Column::new("r", Type::Real),
            Column::new("d", Type::Dynamic),
            Column::new("x", Type::String),
        ];
        let arrays: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![Some(kql::value::UNIX_EPOCH_TICKS), None])),
            Arc::new(Int64Array::from(vec![864_000_000_001, 0])),
            Arc::new(Float64Array::from(vec![f64::NAN, 1.0])),
            Arc::new(StringArray::from(vec![Some("{\"a\":1}"), None])),
            Arc::new(StringArray::from(vec![Some("a\"b"), None])),
        ];
        let fields: Vec<Field> = columns.iter().zip(&arrays).map(|(c, a)| Field::new(&c.name, a.data_type().clone(), true)).collect();
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap();
        let mut out = String::new();
        write_rows(&columns, &batch, 0, 2, &mut out);
        let expected = r#"["1970-01-01T00:00:00Z","1.00:00:00.0000001","NaN",{"a":1},"a\"b"],[null,"00:00:00",1.0,null,""]"#;
        assert_eq!(out, expected);
    }
}
