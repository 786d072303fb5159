//! Reading a table: hot batches and row groups of extents, spread over partitions, brought to the present columns.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::parquet::arrow::ProjectionMask;
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReader;
use datafusion::parquet::errors::ParquetError;
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties};
use kql::Type;

use super::bounds::Bounds;
use crate::catalog::Table;
use crate::engine::key_field;
use crate::storage::columns::{self, Target};
use crate::storage::shred;
use crate::storage::{Extent, TableData};

/// Rows of one batch.
const BATCH_ROWS: usize = 8192;

/// One table of a snapshot.
#[derive(Debug)]
pub(super) struct TableScan {
    table: Arc<Table>,
    data: Arc<TableData>,
    targets: Vec<Target>,
    schema: SchemaRef,
}

impl TableScan {
    pub(super) fn new(table: Arc<Table>, data: Arc<TableData>) -> TableScan {
        let mut targets: Vec<Target> = table
            .columns
            .iter()
            .map(|column| {
                let data_type = match column.ty {
                    Type::Dynamic if mostly_dictionary(&data, column.id) => columns::dictionary_type(),
                    ty => columns::plain_type(ty),
                };
                Target { id: column.id, ty: column.ty, field: columns::stored_field(column, &data_type), key: None }
            })
            .chain([columns::ingestion_target(kql::binder::INGESTION_TIME)])
            .map(without_id)
            .collect();
        targets.extend(key_targets(&table, &data));
        let schema = Arc::new(Schema::new(targets.iter().map(|target| target.field.clone()).collect::<Vec<_>>()));
        TableScan { table, data, targets, schema }
    }

    /// Name of a column in that extent's file.
    fn name_in(&self, extent: &Extent, name: &str) -> Option<String> {
        let id = self.table.columns.iter().find(|column| column.name == name)?.id;
        let schema = extent.metadata().ok()?.schema();
        Some(schema.field(columns::position(schema, id)?).name().clone())
    }

    /// The parts of the table that the bounds do not exclude.
    fn units(&self, bounds: &Bounds) -> Result<Vec<Unit>> {
        let mut units: Vec<Unit> = self.data.hot.iter().map(|batch| Unit::Hot(batch.rows.clone())).collect();
        for extent in &self.data.extents {
            let time = extent.record.time_column;
            let time = time.and_then(|id| self.table.columns.iter().find(|column| column.id == id));
            if time.is_some_and(|column| bounds.exclude(&column.name, extent.record.times)) {
                continue;
            }
            let reader = extent.reader().map_err(external)?;
            let file_column = |name: &str| self.name_in(extent, name);
            for group in 0..reader.metadata().num_row_groups() {
                let excluded = bounds.exclude_group(reader.metadata().row_group(group), file_column)
                    || bounds.bloom_excludes(&reader, group, file_column);
                if !excluded {
                    units.push(Unit::Group(extent.clone(), group));
                }
            }
        }
        Ok(units)
    }
}

/// The ids of columns are the table's own: plans over several tables must not see them differ.
fn without_id(target: Target) -> Target {
    let field = datafusion::arrow::datatypes::Field::clone(&target.field).with_metadata(Default::default());
    Target { field: Arc::new(field), ..target }
}

/// Whether most rows have that column as a dictionary, so that the others are converted.
fn mostly_dictionary(data: &TableData, id: u32) -> bool {
    let (mut dictionary, mut plain) = (0, 0);
    for extent in &data.extents {
        let counter = if extent.record.dictionaries.contains(&id) { &mut dictionary } else { &mut plain };
        *counter += extent.record.rows;
    }
    for batch in &data.hot {
        match columns::position(batch.rows.schema_ref(), id).map(|at| batch.rows.column(at).data_type()) {
            Some(DataType::Dictionary(..)) => dictionary += batch.rows.num_rows() as u64,
            Some(_) => plain += batch.rows.num_rows() as u64,
            None => {}
        }
    }
    dictionary >= plain
}

/// Columns of the keys that extents have taken out of their documents.
fn key_targets(table: &Table, data: &TableData) -> Vec<Target> {
    // rows that have the key's values as a dictionary
    let mut known: BTreeMap<(u32, &str), u64> = BTreeMap::new();
    for extent in &data.extents {
        for key in &extent.record.shredded {
            *known.entry((key.column, &key.key)).or_default() += if key.dictionary { extent.record.rows } else { 0 };
        }
    }
    let target = |((id, key), dictionary): ((u32, &str), u64)| {
        let column = table.columns.iter().find(|column| column.id == id && column.ty == Type::Dynamic)?;
        let name = key_field(&column.name, key);
        let taken = table.columns.iter().any(|column| column.name == name);
        // a function of the documents runs once for each distinct one
        if taken || mostly_dictionary(data, id) {
            return None;
        }
        let data_type = if dictionary * 2 > data.rows() { columns::dictionary_type() } else { columns::plain_type(Type::Dynamic) };
        Some(Target { id, ty: Type::Dynamic, field: Arc::new(Field::new(name, data_type, true)), key: Some(key.to_owned()) })
    };
    known.into_iter().filter_map(target).collect()
}

#[async_trait]
impl TableProvider for TableScan {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let units = self.units(&Bounds::of(filters))?;
        let targets = match projection {
            Some(projection) => projection.iter().map(|at| self.targets[*at].clone()).collect(),
            None => self.targets.clone(),
        };
        Ok(Arc::new(ScanExec::new(targets, units, state.config().target_partitions(), limit)))
    }
}

/// What one read yields.
#[derive(Debug, Clone)]
enum Unit {
    Hot(RecordBatch),
    Group(Arc<Extent>, usize),
}

/// Reads units; each partition takes every n-th.
#[derive(Debug)]
struct ScanExec {
    targets: Arc<Vec<Target>>,
    partitions: Vec<Vec<Unit>>,
    limit: Option<usize>,
    properties: Arc<PlanProperties>,
}

impl ScanExec {
    fn new(targets: Vec<Target>, units: Vec<Unit>, partitions: usize, limit: Option<usize>) -> ScanExec {
        let count = partitions.clamp(1, units.len().max(1));
        let mut partitions = vec![Vec::new(); count];
        for (at, unit) in units.into_iter().enumerate() {
            partitions[at % count].push(unit);
        }
        let schema = Arc::new(Schema::new(targets.iter().map(|target| target.field.clone()).collect::<Vec<_>>()));
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(count),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        ScanExec { targets: Arc::new(targets), partitions, limit, properties: Arc::new(properties) }
    }
}

impl DisplayAs for ScanExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units: usize = self.partitions.iter().map(Vec::len).sum();
        write!(f, "ScanExec: units={units}, partitions={}, limit={:?}", self.partitions.len(), self.limit)
    }
}

impl ExecutionPlan for ScanExec {
    fn name(&self) -> &'static str {
        "ScanExec"
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

    fn execute(&self, partition: usize, _context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let schema = self.schema();
        let reader = Reader {
            targets: self.targets.clone(),
            schema: schema.clone(),
            units: self.partitions[partition].clone().into_iter(),
            current: None,
            left: self.limit.unwrap_or(usize::MAX),
        };
        let batches = futures::stream::iter(reader);
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches)))
    }
}

/// The batches of one partition. Decoding is done where the stream is polled: it is work for the processor, the bytes
/// are in the page cache or one read away.
struct Reader {
    targets: Arc<Vec<Target>>,
    schema: SchemaRef,
    units: std::vec::IntoIter<Unit>,
    current: Option<Open>,
    left: usize,
}

/// A unit being read.
enum Open {
    Hot { rows: RecordBatch, at: usize },
    Group { extent: Arc<Extent>, batches: ParquetRecordBatchReader },
}

impl Iterator for Reader {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.left > 0 {
            match self.next_of_current() {
                Some(Ok(batch)) if batch.num_rows() == 0 => {}
                Some(Ok(batch)) => {
                    let batch = batch.slice(0, batch.num_rows().min(self.left));
                    self.left -= batch.num_rows();
                    return Some(Ok(batch));
                }
                Some(Err(error)) => {
                    self.left = 0;
                    return Some(Err(error));
                }
                None => match self.units.next()? {
                    Unit::Hot(rows) => self.current = Some(Open::Hot { rows, at: 0 }),
                    Unit::Group(extent, group) => match self.open(&extent, group) {
                        Ok(batches) => self.current = Some(Open::Group { extent, batches }),
                        Err(error) => return Some(Err(error)),
                    },
                },
            }
        }
        None
    }
}

impl Reader {
    fn open(&self, extent: &Extent, group: usize) -> Result<ParquetRecordBatchReader> {
        let reader: datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder<File> = extent.reader().map_err(external)?;
        let wanted: Vec<usize> = {
            let fields = reader.schema().fields();
            let has_column = |id, key: &str| fields.iter().any(|field| shred::key_of(field) == Some((id, key)));
            // whose documents are needed: those asked for, and those in which a key has to be looked up
            let whole = |id| self.targets.iter().any(|t| t.id == id && t.key.as_deref().is_none_or(|key| !has_column(id, key)));
            let is_wanted = |field: &FieldRef| match (shred::key_of(field), columns::field_id(field)) {
                (Some((id, key)), _) => whole(id) || self.targets.iter().any(|t| t.id == id && t.key.as_deref() == Some(key)),
                (None, id) => id.is_some_and(whole),
            };
            fields.iter().enumerate().filter(|(_, field)| is_wanted(field)).map(|(at, _)| at).collect()
        };
        let mask = ProjectionMask::roots(reader.parquet_schema(), wanted);
        reader
            .with_row_groups(vec![group])
            .with_projection(mask)
            .with_batch_size(BATCH_ROWS)
            .build()
            .map_err(|error| external(extent.damaged(error)))
    }

    /// The next batch of the open unit; None when there is none open or it has ended.
    fn next_of_current(&mut self) -> Option<Result<RecordBatch>> {
        let batch = match self.current.as_mut()? {
            Open::Hot { rows, at } => {
                let length = BATCH_ROWS.min(rows.num_rows() - *at);
                let batch = rows.slice(*at, length);
                *at += length;
                (length > 0).then_some(Ok(batch))
            }
            Open::Group { extent, batches } => {
                let damaged = |error| external(extent.damaged(ParquetError::from(error)));
                batches.next().map(|batch| batch.map_err(damaged))
            }
        };
        match batch {
            Some(Ok(batch)) => {
                let whole = shred::restore(batch);
                Some(whole.and_then(|batch| columns::conform_to(&batch, &self.targets, self.schema.clone())).map_err(Into::into))
            }
            Some(Err(error)) => Some(Err(error)),
            None => {
                self.current = None;
                None
            }
        }
    }
}

fn external(error: impl std::error::Error + Send + Sync + 'static) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}
