//! The rows of a query of another cluster as a table: batches of bounded size, as they arrive.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchReceiverStreamBuilder;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties};
use kql::Column;
use kql::tree::Remote;
use tokio::sync::mpsc::Sender;

use super::values::Batch;
use super::{Clusters, late, share_of};
use crate::engine::values::arrow_type;
use crate::engine::{Branch, EngineError, QueryLimits};

/// Batches that wait to be read; one more is being written, and one read.
const WAITING: usize = 2;
/// Code of an error when the batches are more than the query may hold.
const NO_MEMORY: &str = "E_RUNAWAY_QUERY";

/// One query of another cluster.
pub(crate) struct RemoteScan {
    call: Call,
    schema: SchemaRef,
}

/// What it takes to run it.
#[derive(Clone)]
struct Call {
    clusters: Arc<Clusters>,
    remote: Remote,
    columns: Vec<Column>,
    limits: QueryLimits,
    branch: Option<Branch>,
}

impl RemoteScan {
    /// Of a query with those columns. A branch that the query can do without has no more rows when it fails.
    pub(crate) fn new(clusters: Arc<Clusters>, remote: Remote, columns: &[Column], limits: QueryLimits, branch: Option<Branch>) -> Self {
        RemoteScan { schema: schema(columns), call: Call { clusters, remote, columns: columns.to_vec(), limits, branch } }
    }
}

fn schema(columns: &[Column]) -> SchemaRef {
    let fields = columns.iter().map(|column| Field::new(&column.name, arrow_type(column.ty), true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

impl fmt::Debug for RemoteScan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RemoteScan({:?})", self.call.remote)
    }
}

#[async_trait]
impl TableProvider for RemoteScan {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let mut call = self.call.clone();
        let wanted: Vec<usize> = projection.cloned().unwrap_or_else(|| (0..call.columns.len()).collect());
        call.columns = wanted.iter().map(|at| self.call.columns[*at].clone()).collect();
        // there is no row without columns in an answer: one stands for all, and is left out of the batches
        let named: &[Column] = if call.columns.is_empty() { &self.call.columns[..1] } else { &call.columns };
        if named.len() < self.call.columns.len() {
            let names: Vec<String> = named.iter().map(|column| kusto::text::quote_name(&column.name)).collect();
            call.remote.query.push_str(&format!(" | project {}", names.join(", ")));
        }
        if let Some(limit) = limit {
            call.remote.query.push_str(&format!(" | take {limit}"));
        }
        Ok(Arc::new(RemoteExec::new(call)))
    }
}

/// Runs the query when it is read, in one partition.
struct RemoteExec {
    call: Call,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
}

impl RemoteExec {
    fn new(call: Call) -> Self {
        let schema = schema(&call.columns);
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema.clone()),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        RemoteExec { call, schema, properties: Arc::new(properties) }
    }
}

impl fmt::Debug for RemoteExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RemoteExec({:?})", self.call.remote)
    }
}

impl DisplayAs for RemoteExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "RemoteExec: cluster={}, database={}, query={}",
            self.call.remote.cluster, self.call.remote.database, self.call.remote.query
        )
    }
}

impl ExecutionPlan for RemoteExec {
    fn name(&self) -> &'static str {
        "RemoteExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(&self, _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, _children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, _: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let mut stream = RecordBatchReceiverStreamBuilder::new(self.schema.clone(), WAITING);
        let (call, schema, batches) = (self.call.clone(), self.schema.clone(), stream.tx());
        let held = MemoryConsumer::new("rows of other clusters").register(context.memory_pool());
        stream.spawn(async move {
            call.run(schema, batches, held).await?;
            Ok(())
        });
        Ok(stream.build())
    }
}

impl Call {
    async fn run(self, schema: SchemaRef, batches: Sender<Result<RecordBatch>>, held: MemoryReservation) -> Result<(), EngineError> {
        let mut sent = 0;
        let Err(error) = self.read(schema, &batches, &held, &mut sent).await else { return Ok(()) };
        let Remote { cluster, database, .. } = &self.remote;
        let said = format!("cluster('{cluster}').database('{database}'): {error}");
        // what is too large is the query's fault, and leaving it out would look like an answer
        let is_too_large = matches!(error.code.as_str(), "E_QUERY_RESULT_SET_TOO_LARGE" | "ANSWER_TOO_LARGE" | NO_MEMORY);
        match &self.branch {
            Some(branch) if !is_too_large && branch.is_dispensable() => {
                self.clusters.metrics.skipped.inc();
                self.limits.warnings.add(format!("macro-expand has {sent} rows of {said}"));
                Ok(())
            }
            _ => Err(EngineError::remote(said, !error.is_transient())),
        }
    }

    async fn read(
        &self,
        schema: SchemaRef,
        batches: &Sender<Result<RecordBatch>>,
        held: &MemoryReservation,
        sent: &mut usize,
    ) -> Result<(), kusto::Error> {
        let started = Instant::now();
        let patience = self.clusters.timeout.min(share_of(&self.limits));
        let failed = |error| {
            self.clusters.rows_failed(&self.remote, &error);
            error
        };
        let mut rows = self.clusters.ask(&self.remote, &self.limits, patience).await.map_err(failed)?;
        let unreadable = |why: String| super::error("UNREADABLE", why);
        let mut largest = 0;
        let mut batch = Batch::new(schema, &self.columns, rows.columns()).map_err(unreadable)?;
        loop {
            let left = patience.saturating_sub(started.elapsed());
            let next = match tokio::time::timeout(left, rows.next()).await {
                Ok(next) => next,
                Err(_) => Err(late(&self.remote, patience)),
            };
            let row = next.map_err(failed)?;
            let is_last = row.is_none();
            if let Some(row) = row {
                batch.push(&row).map_err(unreadable)?;
            }
            if batch.is_full() || (is_last && !batch.is_empty()) {
                *sent += batch.len();
                let full = batch.take().map_err(|error| unreadable(error.to_string()))?;
                largest = largest.max(full.get_array_memory_size());
                held.try_resize(largest * (WAITING + 2)).map_err(|error| no_memory(&error))?;
                // the reader has gone away: nobody wants more
                if batches.send(Ok(full)).await.is_err() {
                    return Ok(());
                }
            }
            if is_last {
                return Ok(());
            }
        }
    }
}

fn no_memory(error: &DataFusionError) -> kusto::Error {
    let message = format!("its rows need more memory than the query may use, summarize or filter them: {error}");
    kusto::Error { kind: kusto::Kind::Permanent, ..super::error(NO_MEMORY, message) }
}
