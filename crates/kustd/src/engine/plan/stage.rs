//! Stages: parts of a query that run to the end before the plan above them is made.

use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::MemTable;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::execute_stream;
use datafusion::prelude::SessionConfig;
use futures::TryStreamExt;
use kql::Value;
use kql::eval::EvalContext;
use kql::rows::{NoTables, Rows, RunContext};
use kql::tree::{Rel, RelOp};

use super::{Planner, STORED, keys, walk};
use crate::engine::error::EngineError;
use crate::engine::values::{append_rows, plan_schema, rows_to_batches};

/// The result of a stage, to be scanned by the plan above.
#[derive(Clone)]
pub(super) struct Staged(Arc<MemTable>);

impl Planner {
    /// A tree's rows as values, with the memory that they are accounted for.
    pub(in crate::engine) async fn rows(&self, rel: &Rel) -> Result<(Rows, MemoryReservation), EngineError> {
        let reserved = self.reservation("rows of an operator in memory");
        let mut rows = Vec::new();
        let mut stream = self.stream(rel).await?;
        while let Some(batch) = stream.try_next().await? {
            reserved.try_grow(batch_row_bytes(&batch))?;
            append_rows(&batch, &rel.columns, &mut rows)?;
        }
        Ok((Rows::new(rel.columns.clone(), rows), reserved))
    }

    /// Starts a tree; its batches come in the tree's order.
    pub(in crate::engine) async fn stream(&self, rel: &Rel) -> Result<SendableRecordBatchStream, EngineError> {
        let rel = keys::from_columns(rel, self.source.as_ref());
        let plan = self.plan(&rel).await?;
        self.execute(&plan).await
    }

    pub(super) async fn execute(&self, plan: &LogicalPlan) -> Result<SendableRecordBatchStream, EngineError> {
        let state = self.session(plan)?;
        let physical = state.create_physical_plan(plan).await?;
        tracing::trace!(plan = %datafusion::physical_plan::displayable(physical.as_ref()).indent(false), "running");
        Ok(execute_stream(physical, state.task_ctx())?)
    }

    /// Settings for one plan. Order matters to what is above a stage, and DataFusion keeps it only where nothing
    /// redistributes rows: plans without stored tables run in one partition, and sorted ones are not redistributed
    /// for the sake of balance.
    fn session(&self, plan: &LogicalPlan) -> Result<SessionState, EngineError> {
        let traits = PlanTraits::of(plan)?;
        let partitions = if traits.stored { std::thread::available_parallelism().map_or(1, usize::from) } else { 1 };
        let mut config = SessionConfig::new()
            .with_target_partitions(partitions)
            .with_round_robin_repartition(!traits.sorted)
            .with_information_schema(false);
        let parquet = &mut config.options_mut().execution.parquet;
        // Columns that only filters read are decoded first, the others for the rows that are left.
        parquet.pushdown_filters = true;
        parquet.reorder_filters = true;
        parquet.schema_force_view_types = false;
        Ok(SessionStateBuilder::new().with_config(config).with_runtime_env(Arc::clone(&self.environment)).build())
    }

    /// An operator that DataFusion does not have: collects the inputs, applies it, and scans the result.
    pub(super) async fn apply_rows(&self, rel: &Rel) -> Result<LogicalPlan, EngineError> {
        if is_row_wise(&rel.op) {
            return self.apply_by_batch(rel).await;
        }
        let mut inputs = Vec::new();
        let mut reserved = Vec::new();
        for input in kql::rows::inputs(rel) {
            let (rows, memory) = self.rows(input).await?;
            inputs.push(rows);
            reserved.push(memory);
        }
        let mut operator = walk::without_inputs(rel);
        self.prepare_operator(&mut operator).await?;
        let rows = kql::rows::apply(&operator, inputs, &mut self.row_context())?;
        drop(reserved);
        let staged = self.stage_rows(&rows)?;
        self.scan_memory(staged.0)
    }

    /// An operator that looks at one row at a time: only its result is held, not its input.
    async fn apply_by_batch(&self, rel: &Rel) -> Result<LogicalPlan, EngineError> {
        let mut operator = walk::without_inputs(rel);
        self.prepare_operator(&mut operator).await?;
        let held = self.reservation("result of an operator in memory");
        let mut batches = Vec::new();
        for input in kql::rows::inputs(rel) {
            let mut stream = self.stream(input).await?;
            while let Some(batch) = stream.try_next().await? {
                let mut rows = Vec::new();
                append_rows(&batch, &input.columns, &mut rows)?;
                // Made for each batch: the context is not kept across a wait.
                let applied = kql::rows::apply(&operator, vec![Rows::new(input.columns.clone(), rows)], &mut self.row_context())?;
                for batch in rows_to_batches(&applied)? {
                    held.try_grow(batch.get_array_memory_size())?;
                    batches.push(batch);
                }
            }
        }
        let staged = self.stage_batches(plan_schema(&rel.columns), batches, held)?;
        self.scan_memory(staged.0)
    }

    fn row_context(&self) -> RunContext<'static> {
        let mut context = RunContext::new(&NoTables, EvalContext::new(self.limits.now));
        context.max_rows = context.max_rows.min(self.limits.memory / MIN_ROW_BYTES);
        context.interrupted = Some(self.limits.interruption());
        context
    }

    /// Keeps rows as a table in memory for the rest of the query.
    pub(super) fn stage_rows(&self, rows: &Rows) -> Result<Staged, EngineError> {
        let bytes = rows.rows.iter().map(|row| row_bytes(row)).sum();
        let held = self.reservation("result of an operator in memory");
        held.try_grow(bytes)?;
        let batches = rows_to_batches(rows)?;
        held.try_resize(batches.iter().map(RecordBatch::get_array_memory_size).sum())?;
        self.keep(held);
        Ok(Staged(Arc::new(MemTable::try_new(plan_schema(&rows.columns), vec![batches])?)))
    }

    /// Keeps batches as a table in memory; `held` accounts for them.
    pub(super) fn stage_batches(
        &self,
        schema: SchemaRef,
        batches: Vec<RecordBatch>,
        held: MemoryReservation,
    ) -> Result<Staged, EngineError> {
        self.keep(held);
        Ok(Staged(Arc::new(MemTable::try_new(schema, vec![batches])?)))
    }

    /// A scan of what a stage left.
    pub(super) fn scan_staged(&self, staged: Staged) -> Result<LogicalPlan, EngineError> {
        self.scan_memory(staged.0)
    }

    /// `materialize`: the shared tree runs once in a query.
    pub(super) async fn materialize(&self, shared: &Arc<Rel>) -> Result<LogicalPlan, EngineError> {
        let address = Arc::as_ptr(shared) as usize;
        let known = self.shared.lock().await.get(&address).cloned();
        let staged = match known {
            Some(staged) => staged,
            None => {
                let staged = self.stage(shared).await?;
                self.shared.lock().await.insert(address, staged.clone());
                staged
            }
        };
        self.scan_memory(staged.0)
    }

    pub(super) async fn stage(&self, rel: &Rel) -> Result<Staged, EngineError> {
        let stream = self.stream(rel).await?;
        let schema = stream.schema();
        let held = self.reservation("materialized rows");
        let batches = collect(stream, &held).await?;
        self.stage_batches(schema, batches, held)
    }

    /// Memory of this query under that name.
    pub(super) fn reservation(&self, name: &str) -> MemoryReservation {
        MemoryConsumer::new(name).register(&self.environment.memory_pool)
    }

    /// Holds memory until the query ends.
    pub(super) fn keep(&self, reservation: MemoryReservation) {
        self.held.lock().push(reservation);
    }
}

async fn collect(mut stream: SendableRecordBatchStream, held: &MemoryReservation) -> Result<Vec<RecordBatch>, EngineError> {
    let mut batches = Vec::new();
    while let Some(batch) = stream.try_next().await? {
        held.try_grow(batch.get_array_memory_size())?;
        batches.push(batch);
    }
    Ok(batches)
}

/// Operators whose result for a row depends on that row alone.
fn is_row_wise(op: &RelOp) -> bool {
    matches!(op, RelOp::Parse(_) | RelOp::ParseKv(_) | RelOp::MvExpand(_) | RelOp::MvApply { .. })
}

/// What decides how a plan is run.
#[derive(Debug, Default)]
struct PlanTraits {
    /// Reads stored tables.
    stored: bool,
    /// Sorts somewhere.
    sorted: bool,
}

impl PlanTraits {
    fn of(plan: &LogicalPlan) -> Result<Self, EngineError> {
        use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
        let mut traits = PlanTraits::default();
        plan.apply(|node| {
            match node {
                LogicalPlan::TableScan(scan) => traits.stored |= scan.table_name.table().starts_with(STORED),
                LogicalPlan::Sort(_) => traits.sorted = true,
                _ => {}
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(traits)
    }
}

/// Least memory of a row of values.
const MIN_ROW_BYTES: usize = 64;

/// Memory of a row of values, roughly: dynamics count their size as JSON text would.
pub(in crate::engine) fn row_bytes(row: &[Value]) -> usize {
    let heap = |value: &Value| match value {
        Value::String(text) => text.len() + 16,
        Value::Dynamic(_) => 64,
        _ => 0,
    };
    size_of::<Vec<Value>>() + row.iter().map(|value| size_of::<Value>() + heap(value)).sum::<usize>()
}

/// Memory that the rows of a batch take as values.
fn batch_row_bytes(batch: &RecordBatch) -> usize {
    let rows = batch.num_rows();
    let text: usize = batch.columns().iter().map(|array| array.get_buffer_memory_size().min(rows * 4096)).sum();
    rows * (size_of::<Vec<Value>>() + batch.num_columns() * size_of::<Value>()) + text
}
