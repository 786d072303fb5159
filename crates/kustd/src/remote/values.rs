//! Cells of an answer as columns of a batch.

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use kql::{Column, Dynamic, Type, Value};
use serde_json::Value as Json;

use crate::engine::EngineError;
use crate::engine::values::{ColumnBuilder, batch};

/// Rows of a batch, and text at which it ends early.
const ROWS: usize = 8192;
const BYTES: usize = 4 << 20;

/// Rows on their way into a batch.
pub(super) struct Batch {
    schema: SchemaRef,
    /// Type and position in the answer; a column that the answer lacks is null.
    sources: Vec<(Type, Option<usize>)>,
    builders: Vec<ColumnBuilder>,
    rows: usize,
}

impl Batch {
    /// Of those columns, out of an answer with these.
    ///
    /// # Errors
    /// When a column has another type there.
    pub(super) fn new(schema: SchemaRef, columns: &[Column], answer: &[kusto::Column]) -> Result<Batch, String> {
        let source = |column: &Column| {
            let Some(at) = answer.iter().position(|other| other.name == column.name) else { return Ok((column.ty, None)) };
            match Type::parse(&answer[at].ty) {
                Some(ty) if ty == column.ty => Ok((ty, Some(at))),
                _ => Err(format!("column '{}' is a {} now and was a {} before", column.name, answer[at].ty, column.ty)),
            }
        };
        let sources = columns.iter().map(source).collect::<Result<Vec<_>, _>>()?;
        Ok(Batch { schema, builders: builders(&sources), sources, rows: 0 })
    }

    pub(super) fn len(&self) -> usize {
        self.rows
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows == 0
    }

    pub(super) fn is_full(&self) -> bool {
        self.rows >= ROWS || self.builders.iter().map(ColumnBuilder::text_bytes).sum::<usize>() >= BYTES
    }

    pub(super) fn push(&mut self, row: &[Json]) -> Result<(), String> {
        for ((ty, source), builder) in self.sources.iter().zip(&mut self.builders) {
            let cell = source.and_then(|at| row.get(at)).unwrap_or(&Json::Null);
            let value = value(cell, *ty).ok_or_else(|| format!("{cell} is no {ty}"))?;
            builder.push(&value);
        }
        self.rows += 1;
        Ok(())
    }

    /// The batch; the next one begins.
    pub(super) fn take(&mut self) -> Result<RecordBatch, EngineError> {
        let full = std::mem::replace(&mut self.builders, builders(&self.sources));
        let arrays = full.into_iter().map(ColumnBuilder::finish).collect::<Result<Vec<_>, _>>()?;
        batch(self.schema.clone(), arrays, std::mem::take(&mut self.rows))
    }
}

fn builders(sources: &[(Type, Option<usize>)]) -> Vec<ColumnBuilder> {
    sources.iter().map(|(ty, _)| ColumnBuilder::new(*ty)).collect()
}

/// A cell of the protocol; none if it cannot be one of that type.
fn value(cell: &Json, ty: Type) -> Option<Value> {
    if cell.is_null() {
        return Some(Value::null_of(ty));
    }
    let text = cell.as_str();
    Some(match ty {
        Type::Bool => Value::Bool(cell.as_bool().or_else(|| Some(cell.as_i64()? != 0))?),
        Type::Int => Value::Int(i32::try_from(cell.as_i64()?).ok()?),
        Type::Long => Value::Long(cell.as_i64()?),
        Type::Real => Value::Real(match text {
            Some("NaN") => f64::NAN,
            Some("Infinity") => f64::INFINITY,
            Some("-Infinity") => f64::NEG_INFINITY,
            Some(_) => return None,
            None => cell.as_f64()?,
        }),
        Type::Decimal => match text {
            Some(text) => kql::value::to_decimal(&Value::string(text)),
            None => kql::value::to_decimal(&Value::string(cell.to_string())),
        },
        Type::String => Value::string(text?),
        Type::DateTime => Value::DateTime(crate::text::parse_datetime(text?)?),
        Type::TimeSpan => Value::TimeSpan(crate::text::parse_timespan(text?)?),
        Type::Guid => Value::Guid(uuid::Uuid::parse_str(text?).ok()?.as_u128()),
        Type::Dynamic => Value::dynamic(Dynamic::parse_json(&cell.to_string())?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn cells_of_every_type() {
        for (ty, cell, wanted) in [
            (Type::Bool, json!(true), Some(Value::Bool(true))),
            (Type::Int, json!(-7), Some(Value::Int(-7))),
            (Type::Int, json!(3_000_000_000_i64), None),
            (Type::Long, json!(i64::MIN), Some(Value::Long(i64::MIN))),
            (Type::Long, json!("7"), None),
            (Type::Real, json!(1), Some(Value::Real(1.0))),
            (Type::Real, json!("-Infinity"), Some(Value::Real(f64::NEG_INFINITY))),
            (Type::Real, json!("x"), None),
            (Type::String, json!("a\"b"), Some(Value::string("a\"b"))),
            (Type::String, Json::Null, Some(Value::null_of(Type::String))),
            (Type::DateTime, json!("1970-01-01T00:00:00.0000001Z"), Some(Value::DateTime(kql::value::UNIX_EPOCH_TICKS + 1))),
            (Type::DateTime, json!("yesterday"), None),
            (Type::TimeSpan, json!("1.00:00:00.0000001"), Some(Value::TimeSpan(864_000_000_001))),
            (Type::Guid, json!("74be27de-1e4e-49d9-b579-fe0b331d3642"), Some(Value::Guid(0x74be27de_1e4e_49d9_b579_fe0b331d3642))),
            (Type::Decimal, json!("1.50"), Some(kql::value::to_decimal(&Value::string("1.50")))),
            (Type::Dynamic, json!({"a": [1, null]}), Dynamic::parse_json("{\"a\":[1,null]}").map(Value::dynamic)),
        ] {
            assert_eq!(value(&cell, ty), wanted, "{ty} {cell}");
        }
        assert!(matches!(value(&json!("NaN"), Type::Real), Some(Value::Real(x)) if x.is_nan()));
    }
}
