//! Extents: immutable Parquet files. Written sorted by time, synced, then published by the catalogue; deleted when the
//! catalogue has let them go and the last query that reads them has ended.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use datafusion::arrow::array::{Array as _, AsArray as _, RecordBatch, UInt32Array};
use datafusion::arrow::compute;
use datafusion::arrow::datatypes::Int64Type;
use datafusion::arrow::error::ArrowError;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use datafusion::parquet::basic::{Compression, ZstdLevel};
use datafusion::parquet::errors::ParquetError;
use datafusion::parquet::file::properties::{WriterProperties, WriterPropertiesBuilder};
use datafusion::parquet::schema::types::ColumnPath;
use kql::Type;

use super::columns::{self, INGESTED, Target};
use super::shred;
use crate::catalog::{ExtentRecord, Table};

/// Rows of a row group: the unit of pruning and of parallel reading.
const ROW_GROUP_ROWS: usize = 128 * 1024;
/// Limit of a dictionary page. The writer falls back to plain pages in silence beyond it, so it is high.
const DICTIONARY_PAGE_BYTES: usize = 32 * 1024 * 1024;
const ZSTD_LEVEL: i32 = 3;

/// Failures around extent files.
#[derive(Debug, thiserror::Error)]
pub enum ExtentError {
    /// The file system refused.
    #[error("{action} extent {path}: {source}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The file is no Parquet file that we wrote, or is damaged.
    #[error("reading extent {path}: {source}; the file is damaged: restore it from a backup, or drop the extent's table")]
    Parquet {
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: ParquetError,
    },
    /// Columns could not be brought together.
    #[error("building an extent: {0}")]
    Arrow(#[from] ArrowError),
}

/// An extent that exists.
#[derive(Debug)]
pub(crate) struct Extent {
    /// What the catalogue knows of it.
    pub(crate) record: ExtentRecord,
    path: PathBuf,
    metadata: OnceLock<ArrowReaderMetadata>,
    /// Set once the catalogue has let go: the file is deleted with the last reader.
    doomed: AtomicBool,
}

impl Extent {
    /// The extent of that record below `root`.
    pub(crate) fn new(root: &Path, record: ExtentRecord) -> Extent {
        let path = file_path(root, &record);
        Extent { record, path, metadata: OnceLock::new(), doomed: AtomicBool::new(false) }
    }

    /// Deletes the file when the last reader is gone.
    pub(crate) fn doom(&self) {
        self.doomed.store(true, Ordering::Release);
    }

    /// The footer, read once.
    pub(crate) fn metadata(&self) -> Result<&ArrowReaderMetadata, ExtentError> {
        if let Some(metadata) = self.metadata.get() {
            return Ok(metadata);
        }
        let file = self.open()?;
        let metadata = ArrowReaderMetadata::load(&file, ArrowReaderOptions::new())
            .map_err(|source| ExtentError::Parquet { path: self.path.clone(), source })?;
        Ok(self.metadata.get_or_init(|| metadata))
    }

    /// A reader of the file, to be narrowed to row groups and columns.
    pub(crate) fn reader(&self) -> Result<ParquetRecordBatchReaderBuilder<File>, ExtentError> {
        let metadata = self.metadata()?.clone();
        Ok(ParquetRecordBatchReaderBuilder::new_with_metadata(self.open()?, metadata))
    }

    /// All rows, for merging.
    pub(crate) fn read_all(&self) -> Result<Vec<RecordBatch>, ExtentError> {
        let failed = |source| ExtentError::Parquet { path: self.path.clone(), source };
        let reader = self.reader()?.with_batch_size(ROW_GROUP_ROWS).build().map_err(failed)?;
        let batches = reader.map(|batch| batch.map_err(|error| failed(error.into())));
        batches.map(|batch| Ok(shred::restore(batch?)?)).collect()
    }

    /// The error for a read that failed half-way.
    pub(crate) fn damaged(&self, source: ParquetError) -> ExtentError {
        ExtentError::Parquet { path: self.path.clone(), source }
    }

    fn open(&self) -> Result<File, ExtentError> {
        File::open(&self.path).map_err(|source| ExtentError::Io { action: "opening", path: self.path.clone(), source })
    }
}

impl Drop for Extent {
    fn drop(&mut self) {
        if *self.doomed.get_mut() {
            // a file that cannot be deleted now is an orphan at the next start
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn file_path(root: &Path, record: &ExtentRecord) -> PathBuf {
    root.join(record.table.0.to_string()).join(format!("{}.parquet", record.id))
}

/// Writes the rows as one extent of `table`, durable when this returns. The catalogue does not know it yet.
pub(crate) fn write(root: &Path, table: &Table, batches: &[RecordBatch], now: i64, tags: Vec<String>) -> Result<Extent, ExtentError> {
    let mut targets = columns::stored_targets(table, batches);
    let conformed = batches.iter().map(|batch| columns::conform(batch, &targets)).collect::<Result<Vec<_>, ArrowError>>()?;
    let rows = columns::concat(&conformed, &targets)?;
    drop(conformed);
    let time_column = table.time_column().map(|at| table.columns[at].id);
    let rows = match time_column {
        Some(id) => sorted_by(&rows, id)?,
        None => rows,
    };
    let rows = columns::suit_encodings(&rows, &mut targets)?;
    let original_bytes = rows.get_array_memory_size() as u64;
    let dictionaries = targets.iter().filter(|t| t.field.data_type() == &columns::dictionary_type()).map(|t| t.id).collect();
    let (rows, shredded) = shred::shred(&rows, &mut targets)?;
    let mut record = ExtentRecord {
        id: uuid::Uuid::new_v4().to_string(),
        table: table.id,
        rows: rows.num_rows() as u64,
        bytes: 0,
        original_bytes,
        created: now,
        ingested: columns::range(&rows, INGESTED).unwrap_or((now, now)),
        time_column,
        times: time_column.and_then(|id| columns::range(&rows, id)),
        dictionaries,
        shredded,
        tags,
    };
    let path = file_path(root, &record);
    record.bytes = write_file(&path, &rows, &targets)?;
    Ok(Extent { record, path, metadata: OnceLock::new(), doomed: AtomicBool::new(false) })
}

/// Rows in order of a column of ticks, nulls first; rows of equal time keep their order.
fn sorted_by(batch: &RecordBatch, id: u32) -> Result<RecordBatch, ArrowError> {
    let Some(at) = columns::position(batch.schema_ref(), id) else { return Ok(batch.clone()) };
    let times = batch.column(at).as_primitive::<Int64Type>();
    let key = |row: usize| times.is_valid(row).then(|| times.value(row));
    if (1..batch.num_rows()).all(|row| key(row - 1) <= key(row)) {
        return Ok(batch.clone());
    }
    let mut order: Vec<u32> = (0..batch.num_rows() as u32).collect();
    order.sort_by_key(|row| key(*row as usize));
    compute::take_record_batch(batch, &UInt32Array::from(order))
}

fn write_file(path: &Path, rows: &RecordBatch, targets: &[Target]) -> Result<u64, ExtentError> {
    let io = |action| move |source| ExtentError::Io { action, path: path.to_owned(), source };
    let parquet = |source| ExtentError::Parquet { path: path.to_owned(), source };
    let directory = path.parent().unwrap_or(Path::new("."));
    let new_directory = !directory.exists();
    fs::create_dir_all(directory).map_err(io("creating the folder of"))?;
    let temporary = path.with_extension("tmp");
    let file = File::create(&temporary).map_err(io("creating"))?;
    let mut writer = ArrowWriter::try_new(file, rows.schema(), Some(properties(rows, targets))).map_err(parquet)?;
    writer.write(rows).map_err(parquet)?;
    let file = writer.into_inner().map_err(parquet)?;
    file.sync_all().map_err(io("syncing"))?;
    let bytes = file.metadata().map_err(io("measuring"))?.len();
    fs::rename(&temporary, path).map_err(io("renaming"))?;
    sync_directory(directory).map_err(io("syncing the folder of"))?;
    if new_directory && let Some(parent) = directory.parent() {
        sync_directory(parent).map_err(io("syncing the folder of"))?;
    }
    Ok(bytes)
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn properties(rows: &RecordBatch, targets: &[Target]) -> WriterProperties {
    let level = ZstdLevel::try_new(ZSTD_LEVEL).unwrap_or_default();
    let mut builder = WriterProperties::builder()
        .set_created_by(concat!("kustd ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(Compression::ZSTD(level))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS));
    for (at, target) in targets.iter().enumerate() {
        builder = column_properties(builder, target, rows.column(at));
    }
    builder.build()
}

fn column_properties(
    builder: WriterPropertiesBuilder,
    target: &Target,
    array: &datafusion::arrow::array::ArrayRef,
) -> WriterPropertiesBuilder {
    let path = ColumnPath::new(vec![target.field.name().clone()]);
    if target.field.data_type() == &columns::dictionary_type() {
        return builder
            .set_column_dictionary_enabled(path.clone(), true)
            .set_column_dictionary_page_size_limit(path, DICTIONARY_PAGE_BYTES);
    }
    match target.ty {
        Type::Real | Type::Dynamic => builder.set_column_dictionary_enabled(path, false),
        Type::String | Type::Guid if columns::looks_like_ids(array) => builder
            .set_column_dictionary_enabled(path.clone(), false)
            .set_column_bloom_filter_enabled(path.clone(), true)
            .set_column_bloom_filter_max_ndv(path, ROW_GROUP_ROWS as u64),
        _ => builder,
    }
}

/// Deletes files that no catalogued extent owns: leavings of a crash between writing and publishing.
pub(crate) fn remove_orphans(root: &Path, known: impl Fn(&str, &str) -> bool) -> io::Result<u64> {
    let mut removed = 0;
    for directory in fs::read_dir(root)? {
        let directory = directory?;
        if !directory.file_type()?.is_dir() {
            continue;
        }
        let table = directory.file_name().to_string_lossy().into_owned();
        for file in fs::read_dir(directory.path())? {
            let path = file?.path();
            let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let ours = matches!(path.extension().and_then(|e| e.to_str()), Some("parquet" | "tmp"));
            let kept = path.extension().is_some_and(|e| e == "parquet") && known(&table, &stem);
            if ours && !kept {
                fs::remove_file(&path)?;
                removed += 1;
            }
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::StringArray;
    use datafusion::arrow::datatypes::{DataType, Schema};

    use super::*;

    /// Extents with columns of keys are merged like others: documents first become whole.
    #[test]
    fn extents_are_read_and_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut table = Table::new(&"Db".into(), "Logs", 0);
        table.add_column("Body", Type::Dynamic);
        let field = columns::stored_field(&table.columns[0], &DataType::Utf8);
        let schema = Arc::new(Schema::new(vec![field]));
        let written = |documents: &[String]| {
            let batch = RecordBatch::try_new(schema.clone(), vec![Arc::new(StringArray::from(documents.to_vec()))]).unwrap();
            let batch = columns::with_ingestion_time(&batch, 5).unwrap();
            write(folder.path(), &table, &[batch], 5, Vec::new()).unwrap()
        };
        let keys = |extent: &Extent| extent.record.shredded.iter().map(|key| key.key.clone()).collect::<Vec<_>>();
        let first: Vec<String> = (0..10).map(|n| format!("{{\"a\":{n},\"b\":\"x\"}}")).collect();
        let second: Vec<String> = (0..50).map(|n| format!("{{\"c\": [{n}], \"a\" : {n}}}")).collect();
        let extents = [written(&first), written(&second)];
        assert_eq!([keys(&extents[0]), keys(&extents[1])], [["a", "b"], ["a", "c"]]);
        let batches: Vec<RecordBatch> = extents.iter().flat_map(|extent| extent.read_all().unwrap()).collect();
        let merged = write(folder.path(), &table, &batches, 5, Vec::new()).unwrap();
        assert_eq!(keys(&merged), ["a", "c"], "b is in 10 of 60 rows");
        assert_eq!((merged.record.rows, merged.record.ingested), (60, (5, 5)));
        let read: Vec<String> = merged.read_all().unwrap().iter().flat_map(documents).collect();
        assert_eq!(read, [first, second].concat());
    }

    /// Samples of 10,000 series that take turns: no two of the first rows are alike.
    #[test]
    fn label_sets_of_many_series_are_stored_as_a_dictionary() {
        let folder = tempfile::tempdir().unwrap();
        let mut table = Table::new(&"Db".into(), "Samples", 0);
        table.add_column("Labels", Type::Dynamic);
        let schema = Arc::new(Schema::new(vec![columns::stored_field(&table.columns[0], &DataType::Utf8)]));
        let labels: StringArray = (0..30_000).map(|row| Some(format!("{{\"series\":{}}}", row % 10_000))).collect();
        let batch = RecordBatch::try_new(schema, vec![Arc::new(labels)]).unwrap();
        let batch = columns::with_ingestion_time(&batch, 5).unwrap();
        let extent = write(folder.path(), &table, &[batch], 5, Vec::new()).unwrap();
        assert_eq!((extent.record.dictionaries.as_slice(), extent.record.shredded.len()), (&[1][..], 0));
    }

    fn documents(batch: &RecordBatch) -> Vec<String> {
        batch.column(0).as_string::<i32>().iter().flatten().map(str::to_owned).collect()
    }
}
