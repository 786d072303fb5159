//! The engine against the row interpreter of [`kql::rows`], which defines what every operator means: the same trees
//! over the same rows must give the same tables.
#![allow(clippy::unwrap_used)]

mod corpus;
mod limits;
mod operators;

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch, StringArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{Field, Schema};
use datafusion::catalog::{MemTable, TableProvider};
use kql::eval::EvalContext;
use kql::rows::{Rows, RunContext, Tables};
use kql::tree::Query;
use kql::value::UNIX_EPOCH_TICKS;
use kql::{BindOptions, Catalog, Column, Dynamic, StoredFunction, TableSchema, Type, Value};

use super::values::{append_rows, arrow_type, dictionary_type, values_to_array};
use super::{EngineError, QueryLimits, TableSource, key_field, run};

const NOW: i64 = UNIX_EPOCH_TICKS + 1_700_000_000 * 10_000_000;

/// One stored table `T`, as rows for the interpreter and as batches for the engine.
struct Fixture {
    rows: Rows,
}

impl Fixture {
    fn new() -> Self {
        let columns = vec![
            Column::new("Timestamp", Type::DateTime),
            Column::new("SeriesId", Type::Long),
            Column::new("Value", Type::Real),
            Column::new("Host", Type::String),
            Column::new("Labels", Type::Dynamic),
            Column::new("Count", Type::Int),
            Column::new("Flag", Type::Bool),
            Column::new("Span", Type::TimeSpan),
        ];
        Fixture { rows: Rows::new(columns, (0..300).map(row).collect()) }
    }

    /// Two partitions of small batches; labels as dictionaries.
    fn provider(&self) -> Arc<MemTable> {
        let stored = |column: &Column| if column.ty == Type::Dynamic { dictionary_type() } else { arrow_type(column.ty) };
        let fields = self.rows.columns.iter().map(|column| Field::new(&column.name, stored(column), true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let batch = |rows: &[Vec<Value>]| {
            let arrays = self.rows.columns.iter().enumerate().map(|(index, column)| {
                let plain = values_to_array(rows.iter().map(|row| &row[index]), column.ty).unwrap();
                cast(&plain, &stored(column)).unwrap()
            });
            RecordBatch::try_new(schema.clone(), arrays.collect()).unwrap()
        };
        let partitions = self.rows.rows.chunks(150).map(|part| part.chunks(40).map(batch).collect()).collect();
        Arc::new(MemTable::try_new(schema.clone(), partitions).unwrap())
    }
}

impl Fixture {
    /// Plain labels with columns for two of their keys, whose values `change` may make others.
    fn provider_with_keys(&self, change: impl Fn(&str, Option<String>) -> Option<String>) -> Arc<MemTable> {
        let keys = ["host", "n"];
        let mut fields: Vec<Field> = self.rows.columns.iter().map(|c| Field::new(&c.name, arrow_type(c.ty), true)).collect();
        fields.extend(keys.map(|key| Field::new(key_field("Labels", key), arrow_type(Type::Dynamic), true)));
        let schema = Arc::new(Schema::new(fields));
        let labels = self.rows.columns.iter().position(|column| column.name == "Labels").unwrap();
        let key_column = |key: &'static str| -> ArrayRef {
            let value = |row: &Vec<Value>| {
                let document: serde_json::Value = serde_json::from_str(&row[labels].to_json()).unwrap();
                change(key, document.get(key).map(ToString::to_string))
            };
            Arc::new(self.rows.rows.iter().map(value).collect::<StringArray>())
        };
        let columns = self.rows.columns.iter().enumerate();
        let stored = columns.map(|(index, column)| values_to_array(self.rows.rows.iter().map(|row| &row[index]), column.ty).unwrap());
        let batch = RecordBatch::try_new(schema.clone(), stored.chain(keys.map(key_column)).collect()).unwrap();
        Arc::new(MemTable::try_new(schema, vec![vec![batch]]).unwrap())
    }
}

/// Values repeat, and each column has nulls of its own rhythm.
fn row(n: i64) -> Vec<Value> {
    let some = |every: i64, value: Value| if n % every == 0 { Value::Null } else { value };
    let labels = format!(r#"{{"host":"h{}","pod":"p-{}","n":{},"deep":{{"x":[1,{}]}}}}"#, n % 5, n % 40, n % 3, n % 4);
    vec![
        some(31, Value::DateTime(NOW - n * 17 * 10_000_000)),
        some(37, Value::Long(n % 7)),
        some(23, Value::Real((n % 50) as f64 / 4.0 - 3.0)),
        Value::string(if n % 11 == 0 { String::new() } else { format!("Host-{}", n % 6) }),
        some(29, Value::dynamic(Dynamic::parse_json(&labels).unwrap())),
        some(19, Value::Int((n % 13) as i32 - 4)),
        some(13, Value::Bool(n % 2 == 0)),
        some(17, Value::TimeSpan(n * 1_000_000 - 5_000_000)),
    ]
}

impl Catalog for Fixture {
    fn table(&self, _: Option<&str>, name: &str) -> Option<TableSchema> {
        (name == "T").then(|| TableSchema { database: "db".into(), name: "T".into(), columns: self.rows.columns.clone() })
    }

    fn function(&self, _: Option<&str>, _: &str) -> Option<StoredFunction> {
        None
    }

    fn tables(&self, _: Option<&str>, wildcard: &str) -> Vec<TableSchema> {
        if wildcard == "*" || wildcard == "T" { self.table(None, "T").into_iter().collect() } else { Vec::new() }
    }

    fn databases(&self) -> Vec<String> {
        vec!["db".into()]
    }

    fn run(&self, rel: &kql::tree::Rel) -> Result<Rows, String> {
        let mut context = RunContext::new(self, EvalContext::new(NOW));
        kql::rows::run(rel, &mut context).map_err(|error| error.to_string())
    }
}

impl Tables for Fixture {
    fn scan(&self, _: &str, table: &str) -> Result<Rows, String> {
        if table == "T" { Ok(self.rows.clone()) } else { Err(format!("no table {table}")) }
    }
}

struct Stored(Arc<MemTable>);

impl TableSource for Stored {
    fn scan(&self, _: &str, table: &str) -> Option<Arc<dyn TableProvider>> {
        (table == "T").then(|| Arc::<MemTable>::clone(&self.0) as Arc<dyn TableProvider>)
    }
}

fn bind(fixture: &Fixture, text: &str) -> Result<Query, String> {
    let options = BindOptions { now: NOW, database: "db".into(), ..BindOptions::default() };
    kql::bind(text, fixture, &options).map_err(|diagnostics| format!("{diagnostics:?}"))
}

fn limits() -> QueryLimits {
    QueryLimits { row_shortcut: false, ..QueryLimits::new(NOW) }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// The engine's answer as rows.
fn engine_rows(query: &Query, source: Arc<dyn TableSource>, limits: QueryLimits) -> Result<Vec<Rows>, EngineError> {
    let tables = block_on(run(query, source, limits))?;
    tables
        .into_iter()
        .map(|table| {
            let mut rows = Vec::new();
            table.batches.iter().try_for_each(|batch| append_rows(batch, &table.columns, &mut rows))?;
            Ok(Rows::new(table.columns, rows))
        })
        .collect()
}

/// The interpreter's answer.
fn interpreted(query: &Query, fixture: &Fixture) -> Result<Vec<Rows>, String> {
    let mut context = RunContext::new(fixture, EvalContext::new(NOW));
    context.max_rows = 200_000;
    kql::rows::run_query(query, &mut context).map_err(|error| error.to_string())
}

/// A row as text that is equal for equal values: reals to nine digits, since sums are taken in another order, and
/// dynamics as JSON, since the type of a scalar inside is not stored.
fn canonical(row: &[Value], columns: &[Column]) -> String {
    let text = |(value, column): (&Value, &Column)| match value {
        value if column.ty == Type::Dynamic => value.to_json(),
        Value::Real(real) if *real == 0.0 => "0".to_owned(),
        Value::Real(real) => format!("{real:.9e}"),
        other => format!("{other:?}"),
    };
    row.iter().zip(columns).map(text).collect::<Vec<_>>().join(" | ")
}

fn canonical_table(table: &Rows, ordered: bool) -> Vec<String> {
    let mut rows: Vec<String> = table.rows.iter().map(|row| canonical(row, &table.columns)).collect();
    if !ordered {
        rows.sort_unstable();
    }
    rows
}
