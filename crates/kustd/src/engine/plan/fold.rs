//! `summarize` with the accumulators of [`kql::aggregates`]: one pass over the ordered input.

use std::collections::HashMap;

use datafusion::arrow::array::{ArrayRef, RecordBatch};
use datafusion::arrow::row::{RowConverter, SortField};
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::logical_expr::{Expr as PlanExpr, LogicalPlan, LogicalPlanBuilder};
use futures::TryStreamExt;
use kql::aggregates::{self, Accumulator};
use kql::rows::Rows;
use kql::tree::{Aggregate, Expr, ExprKind, Rel};
use kql::value::Key;
use kql::{Type, Value};

use super::{Planner, groups_natively};
use crate::engine::error::EngineError;
use crate::engine::values::{ColumnReader, arrow_type, column_name};

/// Batches between two looks at the size of the accumulators.
const ACCOUNTING_INTERVAL: usize = 32;

impl Planner {
    /// Groups and aggregates; expressions are prepared.
    pub(super) async fn fold(&self, rel: &Rel, input: &Rel, keys: &[Expr], aggregates: &[Aggregate]) -> Result<LogicalPlan, EngineError> {
        let mut fold = Fold::new(keys, aggregates, self.reservation("groups of summarize"))?;
        let plan = self.plan(input).await?;
        let mut columns: Vec<PlanExpr> = Vec::new();
        for (index, expr) in fold.inputs.iter().enumerate() {
            let lowered = if index < keys.len() { self.lower_key(expr, &plan) } else { self.lower(expr, &plan) };
            columns.push(lowered.alias(column_name(index)));
        }
        let plan = LogicalPlanBuilder::new(plan).project(columns)?.build()?;
        let mut stream = self.execute(&plan).await?;
        while let Some(batch) = stream.try_next().await? {
            fold.update(&batch)?;
        }
        let rows = fold.finish();
        let staged = self.stage_rows(&Rows::new(rel.columns.clone(), rows))?;
        self.scan_staged(staged)
    }
}

struct Fold {
    /// Keys, then the arguments that are not constants.
    inputs: Vec<Expr>,
    keys: usize,
    aggregates: Vec<FoldAggregate>,
    groups: Groups,
    /// Key values of each group.
    key_values: Vec<Vec<Value>>,
    /// Accumulators of all groups, those of a group together.
    accumulators: Vec<Box<dyn Accumulator>>,
    reserved: MemoryReservation,
    batches: usize,
}

struct FoldAggregate {
    function: &'static aggregates::AggregateFunction,
    types: Vec<Type>,
    args: Vec<Source>,
}

/// Where an argument comes from.
enum Source {
    Constant(Value),
    /// Position in [`Fold::inputs`].
    Input(usize),
}

impl Fold {
    fn new(keys: &[Expr], aggregates: &[Aggregate], reserved: MemoryReservation) -> Result<Self, EngineError> {
        let mut inputs: Vec<Expr> = keys.to_vec();
        let mut folded = Vec::with_capacity(aggregates.len());
        for aggregate in aggregates {
            let function = aggregates::lookup(aggregate.function)
                .ok_or_else(|| EngineError::internal(format!("aggregate '{}' is unknown", aggregate.function)))?;
            let args = aggregate.args.iter().map(|arg| source(arg, keys.len(), &mut inputs)).collect();
            let types = aggregate.args.iter().map(|arg| arg.ty).collect();
            folded.push(FoldAggregate { function, types, args });
        }
        let mut fold = Fold {
            groups: Groups::new(keys)?,
            inputs,
            keys: keys.len(),
            aggregates: folded,
            key_values: Vec::new(),
            accumulators: Vec::new(),
            reserved,
            batches: 0,
        };
        if keys.is_empty() {
            fold.add_group(Vec::new());
        }
        Ok(fold)
    }

    fn add_group(&mut self, key: Vec<Value>) {
        self.key_values.push(key);
        self.accumulators.extend(self.aggregates.iter().map(|aggregate| (aggregate.function.new)(&aggregate.types)));
    }

    fn update(&mut self, batch: &RecordBatch) -> Result<(), EngineError> {
        let mut readers = batch
            .columns()
            .iter()
            .zip(&self.inputs)
            .map(|(array, expr)| ColumnReader::new(array, expr.ty))
            .collect::<Result<Vec<_>, _>>()?;
        let groups = self.groups_of(batch, &mut readers)?;
        let width = self.aggregates.len();
        let mut args = Vec::new();
        for (index, aggregate) in self.aggregates.iter().enumerate() {
            for (row, group) in groups.iter().enumerate() {
                args.clear();
                args.extend(aggregate.args.iter().map(|source| match source {
                    Source::Constant(value) => value.clone(),
                    Source::Input(input) => readers[*input].value(row),
                }));
                self.accumulators[group * width + index].update(&args);
            }
        }
        self.account()
    }

    /// The group of each row; adds those that are new.
    fn groups_of(&mut self, batch: &RecordBatch, readers: &mut [ColumnReader]) -> Result<Vec<usize>, EngineError> {
        if self.keys == 0 {
            return Ok(vec![0; batch.num_rows()]);
        }
        let known = self.key_values.len();
        let (groups, first_rows) = self.groups.assign(&batch.columns()[..self.keys], &mut readers[..self.keys], batch.num_rows(), known)?;
        for row in first_rows {
            let key = readers[..self.keys].iter_mut().map(|reader| reader.value(row)).collect();
            self.add_group(key);
        }
        Ok(groups)
    }

    fn account(&mut self) -> Result<(), EngineError> {
        self.batches += 1;
        if self.batches.is_multiple_of(ACCOUNTING_INTERVAL) {
            let states: usize = self.accumulators.iter().map(|accumulator| accumulator.size() + size_of::<usize>() * 2).sum();
            let keys: usize = self.key_values.iter().map(|key| 2 * super::row_bytes(key)).sum();
            self.reserved.try_resize(states + keys)?;
        }
        Ok(())
    }

    fn finish(mut self) -> Vec<Vec<Value>> {
        let width = self.aggregates.len();
        let mut accumulators = self.accumulators.iter_mut();
        self.key_values
            .into_iter()
            .map(|mut row| {
                row.extend(accumulators.by_ref().take(width).map(|accumulator| accumulator.finish()));
                row
            })
            .collect()
    }
}

/// The source of an argument; equal columns are read once.
fn source(arg: &Expr, keys: usize, inputs: &mut Vec<Expr>) -> Source {
    match &arg.kind {
        ExprKind::Const(value) => Source::Constant(value.clone()),
        ExprKind::Column(index) => {
            let same = |input: &Expr| matches!(input.kind, ExprKind::Column(other) if other == *index);
            let known = inputs.iter().skip(keys).position(same).map(|position| position + keys);
            Source::Input(known.unwrap_or_else(|| {
                inputs.push(arg.clone());
                inputs.len() - 1
            }))
        }
        _ => {
            inputs.push(arg.clone());
            Source::Input(inputs.len() - 1)
        }
    }
}

/// Numbers groups by their keys.
enum Groups {
    /// Keys whose storage identifies them, in Arrow's row format.
    Stored { converter: RowConverter, numbers: HashMap<Box<[u8]>, usize> },
    /// Other keys, by value.
    Values(HashMap<Vec<Key>, usize>),
}

impl Groups {
    fn new(keys: &[Expr]) -> Result<Self, EngineError> {
        if keys.is_empty() || !groups_natively(keys.iter().map(|key| key.ty)) {
            return Ok(Groups::Values(HashMap::new()));
        }
        let fields = keys.iter().map(|key| SortField::new(arrow_type(key.ty))).collect();
        Ok(Groups::Stored { converter: RowConverter::new(fields)?, numbers: HashMap::new() })
    }

    /// The group of each row, numbering new ones from `known` on, and the rows where new groups begin.
    fn assign(
        &mut self,
        keys: &[ArrayRef],
        readers: &mut [ColumnReader],
        rows: usize,
        known: usize,
    ) -> Result<(Vec<usize>, Vec<usize>), EngineError> {
        let mut groups = Vec::with_capacity(rows);
        let mut first_rows = Vec::new();
        match self {
            Groups::Stored { converter, numbers } => {
                let encoded = converter.convert_columns(keys)?;
                for (row, key) in encoded.iter().enumerate() {
                    // Most rows belong to a known group; only a new one pays for a copy of its key.
                    let number = numbers.get(key.as_ref()).copied().unwrap_or_else(|| {
                        let number = known + first_rows.len();
                        first_rows.push(row);
                        numbers.insert(key.as_ref().into(), number);
                        number
                    });
                    groups.push(number);
                }
            }
            Groups::Values(numbers) => {
                for row in 0..rows {
                    let key = readers.iter_mut().map(|reader| reader.value(row).group_key()).collect();
                    let number = *numbers.entry(key).or_insert_with(|| {
                        first_rows.push(row);
                        known + first_rows.len() - 1
                    });
                    groups.push(number);
                }
            }
        }
        Ok((groups, first_rows))
    }
}

/// The first row of each key, in order.
pub(super) struct FirstRows(Groups, usize);

impl FirstRows {
    pub(super) fn new(keys: &[Expr]) -> Result<Self, EngineError> {
        Ok(FirstRows(Groups::new(keys)?, 0))
    }

    /// Rows of this batch whose key has not been seen before.
    pub(super) fn of(&mut self, keys: &[ArrayRef]) -> Result<Vec<usize>, EngineError> {
        let rows = keys.first().map_or(0, |key| key.len());
        let (_, first) = self.0.assign(keys, &mut [], rows, self.1)?;
        self.1 += first.len();
        Ok(first)
    }
}
