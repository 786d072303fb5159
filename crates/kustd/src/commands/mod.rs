//! Management commands: [`parse`] reads them, [`execute`] changes things, [`show`] answers with tables.

mod execute;
mod fill;
mod functions;
mod groups;
mod parse;
mod script;
mod show;
mod syntax;

pub(crate) use execute::run;
pub(crate) use fill::{FromQuery, check, fit, from_query};
pub(crate) use parse::{is_command, parse};
pub(crate) use syntax::{Command, Parsed};

use std::sync::Arc;

use kql::rows::Rows;
use kql::{Column, Type, Value};

use crate::error::KustoError;

/// The rows that a command answers with.
pub(crate) type Outcome = Result<Rows, KustoError>;

/// A table of an answer.
pub(crate) fn table(columns: &[(&str, Type)], rows: Vec<Vec<Value>>) -> Rows {
    Rows::new(columns.iter().map(|(name, ty)| Column::new(*name, *ty)).collect(), rows)
}

fn text(value: impl AsRef<str>) -> Value {
    Value::String(Arc::from(value.as_ref()))
}

fn long(value: impl TryInto<i64>) -> Value {
    Value::Long(value.try_into().unwrap_or(i64::MAX))
}

fn guid(id: &str) -> Value {
    uuid::Uuid::parse_str(id).map_or(Value::Null, |id| Value::Guid(id.as_u128()))
}

fn optional_time(ticks: Option<i64>) -> Value {
    ticks.map_or(Value::Null, Value::DateTime)
}
