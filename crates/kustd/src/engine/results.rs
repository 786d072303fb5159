//! Result tables, with the limits on their size.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use datafusion::arrow::datatypes::{Field, Int32Type, Schema, SchemaRef};
use futures::TryStreamExt;
use kql::Column;
use kql::tree::Rel;

use super::error::EngineError;
use super::limits::QueryLimits;
use super::plan::Planner;
use super::shortcut;
use super::values::{batch, finished_column, rows_to_batches};

/// One table of a query's answer.
#[derive(Debug, Clone)]
pub struct ResultTable {
    /// `PrimaryResult`, or `Table_1`, `Table_2`, … after the first.
    pub name: String,
    /// Columns with their Kusto types, which the batches' storage does not tell.
    pub columns: Vec<Column>,
    /// Rows. Fields carry the columns' names; storage is [`super::values::arrow_type`], and a dynamic column may be
    /// `Dictionary(Int32, Utf8)`.
    pub batches: Vec<RecordBatch>,
}

/// Names of the tables of an answer.
pub(super) fn names(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|index| if index == 0 { "PrimaryResult".to_owned() } else { format!("Table_{index}") })
}

/// Runs a tree to its result table.
pub(super) async fn collect(planner: &Planner, rel: &Rel, name: String, limits: &QueryLimits) -> Result<ResultTable, EngineError> {
    Planner::check_depth(rel)?;
    let mut table = Collector::new(rel, limits);
    if let Some(rows) = shortcut(rel, limits) {
        for batch in rows_to_batches(&rows?)? {
            table.push(&batch)?;
        }
    } else {
        let mut stream = planner.stream(rel).await?;
        while let Some(batch) = stream.try_next().await? {
            table.push(&batch)?;
        }
    }
    Ok(ResultTable { name, columns: rel.columns.clone(), batches: table.batches })
}

struct Collector<'a> {
    columns: &'a [Column],
    limits: &'a QueryLimits,
    batches: Vec<RecordBatch>,
    rows: u64,
    bytes: u64,
    /// Dictionaries counted already, by address: batches share them.
    dictionaries: HashSet<usize>,
}

impl<'a> Collector<'a> {
    fn new(rel: &'a Rel, limits: &'a QueryLimits) -> Self {
        Collector { columns: &rel.columns, limits, batches: Vec::new(), rows: 0, bytes: 0, dictionaries: HashSet::new() }
    }

    fn push(&mut self, positional: &RecordBatch) -> Result<(), EngineError> {
        if positional.num_rows() == 0 {
            return Ok(());
        }
        let arrays = positional
            .columns()
            .iter()
            .zip(self.columns)
            .map(|(array, column)| finished_column(array, column.ty))
            .collect::<Result<Vec<_>, _>>()?;
        self.rows += positional.num_rows() as u64;
        self.bytes += arrays.iter().map(|array| self.bytes_of(array)).sum::<u64>();
        if self.limits.max_rows.is_some_and(|limit| self.rows > limit) {
            return Err(EngineError::too_large(&format!("{} rows", self.limits.max_rows.unwrap_or_default())));
        }
        if self.limits.max_bytes.is_some_and(|limit| self.bytes > limit) {
            return Err(EngineError::too_large(&format!("{} MB", self.limits.max_bytes.unwrap_or_default() >> 20)));
        }
        self.batches.push(batch(schema(self.columns, &arrays), arrays, positional.num_rows())?);
        Ok(())
    }

    /// Bytes of the rows, with a dictionary counted once.
    fn bytes_of(&mut self, array: &ArrayRef) -> u64 {
        let Some(dictionary) = array.as_dictionary_opt::<Int32Type>() else { return slice_bytes(array.as_ref()) };
        let values = dictionary.values();
        let address = Arc::as_ptr(values).cast::<()>() as usize;
        let fresh = self.dictionaries.insert(address);
        slice_bytes(dictionary.keys()) + if fresh { slice_bytes(values.as_ref()) } else { 0 }
    }
}

/// Bytes of the part of the buffers that the array shows.
fn slice_bytes(array: &dyn Array) -> u64 {
    array.to_data().get_slice_memory_size().unwrap_or_else(|_| array.get_buffer_memory_size()) as u64
}

fn schema(columns: &[Column], arrays: &[ArrayRef]) -> SchemaRef {
    let field = |(column, array): (&Column, &ArrayRef)| Field::new(&column.name, array.data_type().clone(), true);
    Arc::new(Schema::new(columns.iter().zip(arrays).map(field).collect::<Vec<_>>()))
}
