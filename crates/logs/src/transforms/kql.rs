//! `kql`: a row-wise KQL query over each record.
//!
//! The row has the columns of log tables, and `Database` and `Table`. What the query puts out becomes the record:
//! columns that are missing are emptied (times and destination stay), new ones become attributes. A body that is no
//! bag stands under `message`.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use indexmap::IndexMap;
use kql::eval::EvalContext;
use kql::value::{TICKS_PER_SECOND, UNIX_EPOCH_TICKS};
use kql::{Column, Dynamic, RowWise, Type, Value as Cell};
use serde::Deserialize;

use super::config::{self, TransformError};
use super::{Fate, Record};
use crate::record::Destination;
use crate::value::{Map, Value};

#[derive(Deserialize)]
struct Settings {
    query: Option<String>,
}

pub(super) struct Kql {
    plan: Arc<Plan>,
    ctx: EvalContext,
}

/// A query and what its columns are of a record.
struct Plan {
    query: RowWise,
    /// For each source column, whether the query needs its value.
    needs: [bool; COLUMNS.len()],
    outputs: Vec<Output>,
    /// Source columns that the query leaves out.
    missing: Vec<usize>,
}

/// What a column of the output is.
enum Output {
    /// The source column of that name, untouched.
    Unchanged,
    /// A new value of a source column.
    Changed(usize),
    /// A new attribute.
    Attribute(String),
}

const TIMESTAMP: usize = 0;
const OBSERVED: usize = 1;
const TRACE_ID: usize = 2;
const SPAN_ID: usize = 3;
const SEVERITY_TEXT: usize = 4;
const SEVERITY_NUMBER: usize = 5;
const BODY: usize = 6;
const RESOURCE: usize = 7;
const ATTRIBUTES: usize = 8;
const DATABASE: usize = 9;
const TABLE: usize = 10;

const COLUMNS: [(&str, Type); 11] = [
    ("Timestamp", Type::DateTime),
    ("ObservedTimestamp", Type::DateTime),
    ("TraceId", Type::String),
    ("SpanId", Type::String),
    ("SeverityText", Type::String),
    ("SeverityNumber", Type::Int),
    ("Body", Type::Dynamic),
    ("Resource", Type::Dynamic),
    ("Attributes", Type::Dynamic),
    ("Database", Type::String),
    ("Table", Type::String),
];

/// 100 ns.
const NS_PER_TICK: u64 = 1_000_000_000 / TICKS_PER_SECOND as u64;

impl Kql {
    pub(super) fn new(config: &toml::Value) -> Result<Self, Vec<TransformError>> {
        let Settings { query } = config::read(config, &["query"])?;
        let Some(text) = query else {
            return Err(vec![TransformError::at_config("kql needs query, such as query = \"where Body.level != 'debug'\"")]);
        };
        let columns = COLUMNS.map(|(name, ty)| Column::new(name, ty));
        let query = RowWise::new(&text, &columns).map_err(|diagnostics| {
            let said = |diagnostic: kql::Diagnostic| {
                let (line, column) = diagnostic.position(&text);
                TransformError::at_key("query", format!("line {line}, column {column} of the query: {diagnostic}"))
            };
            diagnostics.into_iter().map(said).collect::<Vec<_>>()
        })?;
        let plan =
            Plan::new(query).map_err(|errors| errors.into_iter().map(|why| TransformError::at_key("query", why)).collect::<Vec<_>>())?;
        Ok(Self { plan: Arc::new(plan), ctx: EvalContext::new(0) })
    }

    pub(super) fn apply(&mut self, record: &mut Record, now: u64) -> Fate {
        self.ctx.now = ticks(now);
        let Some(row) = self.plan.query.run(self.plan.row(record), &mut self.ctx) else { return Fate::Drop };
        if !self.plan.fits(&row) {
            return Fate::Failed;
        }
        self.plan.write(record, &row);
        Fate::Keep
    }
}

impl Clone for Kql {
    fn clone(&self) -> Self {
        Self { plan: Arc::clone(&self.plan), ctx: EvalContext::new(0) }
    }
}

impl std::fmt::Debug for Kql {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kql").field("query", &self.plan.query).finish_non_exhaustive()
    }
}

impl Plan {
    fn new(query: RowWise) -> Result<Self, Vec<String>> {
        let mut needs = [false; COLUMNS.len()];
        for (needs, reads) in needs.iter_mut().zip(query.reads()) {
            *needs = *reads;
        }
        let (mut outputs, mut errors) = (Vec::new(), Vec::new());
        for (column, origin) in query.columns().iter().zip(query.origins()) {
            let known = COLUMNS.iter().position(|(name, _)| *name == column.name);
            if let Some(origin) = origin
                && known != Some(*origin)
            {
                needs[*origin] = true;
            }
            outputs.push(match known {
                Some(known) if *origin == Some(known) => Output::Unchanged,
                Some(known) => {
                    errors.extend(unfit(known, column.ty));
                    Output::Changed(known)
                }
                None => Output::Attribute(column.name.clone()),
            });
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let is_there = |index: &usize| query.columns().iter().any(|column| column.name == COLUMNS[*index].0);
        let missing = (0..COLUMNS.len()).filter(|index| !is_there(index)).collect();
        Ok(Self { query, needs, outputs, missing })
    }

    /// The row of a record; cells that the query does not need are null.
    fn row(&self, record: &Record) -> Vec<Cell> {
        let cell = |index: usize| {
            if !self.needs[index] {
                return Cell::Null;
            }
            let destination = record.destination.as_ref();
            match index {
                TIMESTAMP => Cell::DateTime(ticks(record.timestamp)),
                OBSERVED => Cell::DateTime(ticks(record.observed)),
                TRACE_ID => Cell::string(&record.trace_id),
                SPAN_ID => Cell::string(&record.span_id),
                SEVERITY_TEXT => Cell::string(&record.severity_text),
                SEVERITY_NUMBER => Cell::Int(record.severity_number),
                BODY => bag(&record.body),
                RESOURCE => bag(&record.resource),
                ATTRIBUTES => bag(&record.attributes),
                DATABASE => Cell::string(destination.map_or("", |to| to.database())),
                _ => Cell::string(destination.map_or("", |to| to.table())),
            }
        };
        (0..COLUMNS.len()).map(cell).collect()
    }

    /// Whether a record can hold what the query put out.
    fn fits(&self, row: &[Cell]) -> bool {
        self.outputs.iter().zip(row).all(|(output, cell)| match output {
            Output::Changed(TIMESTAMP | OBSERVED) => *cell == Cell::Null || nanoseconds(cell).is_some(),
            Output::Changed(SEVERITY_NUMBER) => i32::try_from(cell.as_long().unwrap_or(0)).is_ok(),
            Output::Changed(RESOURCE | ATTRIBUTES) => *cell == Cell::Null || cell.as_bag().is_some(),
            _ => true,
        })
    }

    /// Makes the record what the query put out.
    fn write(&self, record: &mut Record, row: &[Cell]) {
        for index in &self.missing {
            match *index {
                TIMESTAMP => record.timestamp = record.observed,
                OBSERVED | DATABASE | TABLE => {}
                index => set(record, index, &Cell::Null),
            }
        }
        let (mut database, mut table) = (None, None);
        for (output, cell) in self.outputs.iter().zip(row) {
            match output {
                Output::Changed(DATABASE) => database = Some(text(cell)),
                Output::Changed(TABLE) => table = Some(text(cell)),
                Output::Changed(index) => set(record, *index, cell),
                Output::Unchanged | Output::Attribute(_) => {}
            }
        }
        if database.is_some() || table.is_some() {
            let old = record.destination.as_ref();
            let database = database.unwrap_or_else(|| old.map_or_else(String::new, |to| to.database().to_string()));
            let table = table.unwrap_or_else(|| old.map_or_else(String::new, |to| to.table().to_string()));
            record.destination = Destination::new(database, table);
        }
        for (output, cell) in self.outputs.iter().zip(row) {
            // In KQL the empty string is the null of strings.
            if let Output::Attribute(name) = output
                && *cell != Cell::Null
                && cell.as_str() != Some("")
            {
                record.attributes.insert(name.clone(), value(&cell.to_dynamic()));
            }
        }
    }
}

/// Why a column of that type cannot be the column of a record.
fn unfit(index: usize, ty: Type) -> Option<String> {
    let (name, wanted) = COLUMNS[index];
    let fits = match index {
        BODY => true,
        SEVERITY_NUMBER => matches!(ty, Type::Int | Type::Long),
        _ => ty == wanted,
    };
    let cast = match wanted {
        Type::DateTime => "todatetime",
        Type::Int => "toint",
        Type::Dynamic => "todynamic",
        _ => "tostring",
    };
    (!fits).then(|| format!("{name} has to be of type {wanted}, and the query makes it a {ty}; convert it with {cast}()"))
}

/// Sets a column to a cell that fits; null is nothing.
fn set(record: &mut Record, index: usize, cell: &Cell) {
    match index {
        TIMESTAMP => record.timestamp = nanoseconds(cell).unwrap_or(record.observed),
        OBSERVED => record.observed = nanoseconds(cell).unwrap_or(record.observed),
        TRACE_ID => record.trace_id = text(cell),
        SPAN_ID => record.span_id = text(cell),
        SEVERITY_TEXT => record.severity_text = text(cell),
        SEVERITY_NUMBER => record.severity_number = cell.as_long().and_then(|number| i32::try_from(number).ok()).unwrap_or(0),
        RESOURCE => record.resource = Arc::new(map(cell)),
        ATTRIBUTES => record.attributes = map(cell),
        _ => record.body = map(cell),
    }
}

/// A cell as a map: what is no bag stands under `message`.
fn map(cell: &Cell) -> Map {
    match value(&cell.to_dynamic()) {
        Value::Map(map) => map,
        Value::Null => Map::new(),
        other => Record::message(other),
    }
}

fn text(cell: &Cell) -> String {
    cell.as_str().unwrap_or_default().to_owned()
}

/// KQL's ticks of 100 ns since the year 1. All of `u64` fits.
fn ticks(ns: u64) -> i64 {
    (ns / NS_PER_TICK).cast_signed() + UNIX_EPOCH_TICKS
}

fn nanoseconds(cell: &Cell) -> Option<u64> {
    let Cell::DateTime(ticks) = cell else { return None };
    u64::try_from(ticks - UNIX_EPOCH_TICKS).ok()?.checked_mul(NS_PER_TICK)
}

fn bag(map: &Map) -> Cell {
    Cell::Dynamic(dynamic_bag(map))
}

fn dynamic_bag(map: &Map) -> Dynamic {
    let bag: IndexMap<Arc<str>, Dynamic> = map.iter().map(|(key, value)| (Arc::from(key.as_str()), dynamic(value))).collect();
    Dynamic::Bag(Arc::new(bag))
}

/// A value as KQL has it. Integers beyond `long` become the nearest real, as they do in a table.
fn dynamic(value: &Value) -> Dynamic {
    match value {
        Value::Null => Dynamic::Null,
        Value::Bool(flag) => Dynamic::Bool(*flag),
        Value::Int(number) => Dynamic::Long(*number),
        Value::Uint(number) => Dynamic::Real(*number as f64),
        Value::Float(number) => Dynamic::Real(*number),
        Value::String(text) => Dynamic::string(text),
        Value::Bytes(bytes) => Dynamic::string(STANDARD.encode(bytes)),
        Value::Array(items) => Dynamic::array(items.iter().map(dynamic).collect()),
        Value::Map(map) => dynamic_bag(map),
    }
}

/// A value of KQL as a record has it: what JSON has no type for is text.
fn value(dynamic: &Dynamic) -> Value {
    match dynamic {
        Dynamic::Null => Value::Null,
        Dynamic::Bool(flag) => Value::Bool(*flag),
        Dynamic::Long(number) => Value::Int(*number),
        Dynamic::Real(number) => Value::Float(*number),
        Dynamic::String(text) => Value::from(&**text),
        Dynamic::Array(items) => Value::Array(items.iter().map(value).collect()),
        Dynamic::Bag(bag) => Value::Map(bag.iter().map(|(key, item)| (key.to_string(), value(item))).collect()),
        Dynamic::Decimal(_) | Dynamic::DateTime(_) | Dynamic::TimeSpan(_) | Dynamic::Guid(_) => {
            Value::String(dynamic.to_json().trim_matches('"').to_owned())
        }
    }
}
