//! Rows of a query's result become metric points.
//!
//! What a [`Transform`] says is checked once against the result's columns, which gives a [`Plan`];
//! the plan then turns rows into points. A row that cannot be turned costs that row only: it is
//! counted, and the first reason is kept for the status.

mod name;
mod value;

use std::collections::BTreeMap;
use std::sync::Arc;

use exporters::otlp::{Batch, Batcher};
use jiff::Timestamp;
use kusto::Column;
use serde_json::Value;

pub use name::{NameError, metric_name};
use value::{label_text, number, time_ms};

/// What the exporter's `transform` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transform {
    /// Column that names the metric; wins over `default_metric_name` and never falls back to it.
    pub metric_name_column: Option<String>,
    /// Name of the metric where no column names it.
    pub default_metric_name: Option<String>,
    /// Put before every name, the process's prefix already joined with `_`.
    pub metric_name_prefix: String,
    /// Columns of numbers; each gives a metric per row.
    pub value_columns: Vec<String>,
    /// Column with the time of a row; empty: the time that the caller gives.
    pub timestamp_column: String,
    /// Columns that become labels; those that the result lacks are left out.
    pub label_columns: Vec<String>,
}

/// A point of a metric.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Name of the metric.
    pub name: Arc<str>,
    /// Labels, sorted by name.
    pub labels: Arc<BTreeMap<Arc<str>, String>>,
    /// Milliseconds since 1970.
    pub time_ms: u64,
    /// The value; may be NaN or infinite.
    pub value: f64,
}

impl Point {
    /// Adds the point to a batch; returns the batch that had no room for it.
    pub fn add_to(&self, batcher: &mut Batcher) -> Option<Batch> {
        let labels = self.labels.iter().map(|(name, value)| (&**name, value.as_str()));
        batcher.add(&self.name, labels, self.time_ms, self.value)
    }
}

/// Why a result cannot be exported at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// There is nothing to export.
    #[error("transform.valueColumns is empty; name at least one column of numbers")]
    NoValueColumns,
    /// Nothing names the metric.
    #[error("the metric has no name; set transform.metricNameColumn or transform.defaultMetricName")]
    NoName,
    /// The result lacks a column.
    #[error("{role} column {column:?} is not in the query's result, which has {present}")]
    MissingColumn {
        /// What the column is for.
        role: &'static str,
        /// Its name.
        column: String,
        /// The columns that are there.
        present: String,
    },
    /// A column has a type that does not fit.
    #[error("{role} column {column:?} is of type {ty}; use {instead}")]
    ColumnType {
        /// What the column is for.
        role: &'static str,
        /// Its name.
        column: String,
        /// Its type.
        ty: String,
        /// Types that fit.
        instead: &'static str,
    },
    /// A name of the transform has no letter or digit.
    #[error("{role} {name:?}: {error}")]
    Name {
        /// What the name is for.
        role: &'static str,
        /// The name.
        name: String,
        /// What is wrong with it.
        error: NameError,
    },
}

/// Why a row gave no points.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("column {column:?}: {why}")]
pub struct RowError {
    /// The column at fault.
    pub column: String,
    /// What is wrong with its cell.
    pub why: String,
}

#[derive(Clone, Debug)]
struct Place {
    index: usize,
    name: Arc<str>,
    ty: String,
}

#[derive(Clone, Debug)]
enum MetricName {
    /// One full name per value column.
    Fixed(Vec<Arc<str>>),
    FromColumn(Place),
}

/// How rows with certain columns become points.
#[derive(Clone, Debug)]
pub struct Plan {
    prefix: String,
    name: MetricName,
    values: Vec<Place>,
    time: Option<Place>,
    labels: Vec<Place>,
    missing_labels: Vec<String>,
}

impl Plan {
    /// Checks the transform against the result's columns.
    ///
    /// # Errors
    /// When no row could give a point.
    pub fn new(transform: &Transform, columns: &[Column]) -> Result<Plan, PlanError> {
        if transform.value_columns.is_empty() {
            return Err(PlanError::NoValueColumns);
        }
        let prefix = transform.metric_name_prefix.clone();
        if !prefix.is_empty() {
            metric_name(&[&prefix]).map_err(|error| PlanError::Name { role: "transform.metricNamePrefix", name: prefix.clone(), error })?;
        }
        let values: Vec<Place> = transform.value_columns.iter().map(|name| value_column(columns, name)).collect::<Result<_, _>>()?;
        let name = match (set(&transform.metric_name_column), set(&transform.default_metric_name)) {
            (Some(column), _) => MetricName::FromColumn(text_column(columns, column)?),
            (None, Some(base)) => MetricName::Fixed(fixed_names(&prefix, base, &values)?),
            (None, None) => return Err(PlanError::NoName),
        };
        let time = match transform.timestamp_column.as_str() {
            "" => None,
            column => Some(time_column(columns, column)?),
        };
        let (present, missing): (Vec<_>, Vec<_>) =
            transform.label_columns.iter().map(|name| (name, find(columns, name))).partition(|(_, place)| place.is_some());
        Ok(Plan {
            prefix,
            name,
            values,
            time,
            labels: present.into_iter().filter_map(|(_, place)| place).collect(),
            missing_labels: missing.into_iter().map(|(name, _)| name.clone()).collect(),
        })
    }

    /// Label columns that the result lacks.
    pub fn missing_labels(&self) -> &[String] {
        &self.missing_labels
    }

    /// The points of a row, one for each value column. `row` has as many cells as there were columns;
    /// `default_time` is the time of rows without a timestamp column.
    ///
    /// # Errors
    /// Names the cell that cannot be used; then the row gives no points.
    pub fn points(&self, row: &[Value], default_time: Timestamp) -> Result<Vec<Point>, RowError> {
        static NULL: Value = Value::Null;
        let cell = |place: &Place| row.get(place.index).unwrap_or(&NULL);
        let fail = |place: &Place| {
            let column = place.name.to_string();
            move |why: String| RowError { column, why }
        };
        let time_ms = match &self.time {
            Some(place) => time_ms(cell(place)).map_err(fail(place))?,
            None => u64::try_from(default_time.as_millisecond()).unwrap_or_default(),
        };
        let base = match &self.name {
            MetricName::FromColumn(place) => Some(base_name(cell(place)).map_err(fail(place))?),
            MetricName::Fixed(_) => None,
        };
        let mut labels = BTreeMap::new();
        for place in &self.labels {
            labels.insert(place.name.clone(), label_text(cell(place), &place.ty).map_err(fail(place))?);
        }
        let labels = Arc::new(labels);
        let point = |(index, place): (usize, &Place)| {
            let value = number(cell(place)).map_err(fail(place))?;
            let name = match (&self.name, &base) {
                (MetricName::Fixed(names), _) => names[index].clone(),
                (MetricName::FromColumn(column), base) => {
                    let base = base.as_deref().unwrap_or_default();
                    let name = full_name(&self.prefix, base, &place.name);
                    name.map_err(|error| fail(column)(format!("{base:?} and value column {:?} give no name: {error}", place.name)))?
                }
            };
            Ok(Point { name, labels: labels.clone(), time_ms, value })
        };
        self.values.iter().enumerate().map(point).collect()
    }
}

fn set(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|text| !text.is_empty())
}

fn find(columns: &[Column], name: &str) -> Option<Place> {
    let index = columns.iter().position(|column| column.name == name)?;
    Some(Place { index, name: name.into(), ty: columns[index].ty.clone() })
}

fn required(columns: &[Column], role: &'static str, name: &str) -> Result<Place, PlanError> {
    let present = || columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>().join(", ");
    find(columns, name).ok_or_else(|| PlanError::MissingColumn { role, column: name.to_owned(), present: present() })
}

fn typed(place: Place, role: &'static str, types: &[&str], instead: &'static str) -> Result<Place, PlanError> {
    match types.contains(&place.ty.as_str()) {
        true => Ok(place),
        false => Err(PlanError::ColumnType { role, column: place.name.to_string(), ty: place.ty, instead }),
    }
}

fn value_column(columns: &[Column], name: &str) -> Result<Place, PlanError> {
    let types = ["int", "long", "real", "decimal", "bool", "string"];
    let instead = "int, long, real, decimal, bool, or a string with a number; todouble() converts others";
    let place = typed(required(columns, "value", name)?, "value", &types, instead)?;
    metric_name(&[name]).map_err(|error| PlanError::Name { role: "value column", name: name.to_owned(), error })?;
    Ok(place)
}

fn text_column(columns: &[Column], name: &str) -> Result<Place, PlanError> {
    typed(required(columns, "metric name", name)?, "metric name", &["string"], "string; tostring() converts others")
}

fn time_column(columns: &[Column], name: &str) -> Result<Place, PlanError> {
    typed(required(columns, "timestamp", name)?, "timestamp", &["datetime", "string"], "datetime, or a string with one")
}

fn fixed_names(prefix: &str, base: &str, values: &[Place]) -> Result<Vec<Arc<str>>, PlanError> {
    let named = |error| PlanError::Name { role: "transform.defaultMetricName", name: base.to_owned(), error };
    values.iter().map(|place| full_name(prefix, base, &place.name).map_err(named)).collect()
}

fn full_name(prefix: &str, base: &str, column: &str) -> Result<Arc<str>, NameError> {
    match prefix {
        "" => metric_name(&[base, column]),
        prefix => metric_name(&[prefix, base, column]),
    }
    .map(Into::into)
}

fn base_name(cell: &Value) -> Result<String, String> {
    match cell {
        Value::String(text) if text.is_empty() => Err("the metric's name is empty".to_owned()),
        Value::String(text) => Ok(text.clone()),
        Value::Null => Err("the metric's name is null".to_owned()),
        _ => Err("the metric's name is no string".to_owned()),
    }
}
