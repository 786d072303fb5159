//! Arrow columns as they are stored: the field of a column carries the column's id, and batches written under an older
//! schema are brought to a newer one by these ids.

use std::collections::HashMap as Metadata;
use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray as _, DictionaryArray, Int32Array, Int64Array, RecordBatch, RecordBatchOptions, StringArray, StringBuilder,
    new_null_array,
};
use datafusion::arrow::compute;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Int32Type, Schema, SchemaRef};
use datafusion::arrow::error::ArrowError;
use datafusion::common::{HashMap, HashSet};
use kql::Type;

use super::shred;
use crate::catalog::{Table, TableColumn};

/// Field metadata under which Parquet keeps a column's id.
const FIELD_ID: &str = "PARQUET:field_id";
/// Id of the hidden column that holds the time of ingestion, ticks.
pub(crate) const INGESTED: u32 = 0;
/// Its name in files.
const INGESTED_NAME: &str = "$IngestionTime";
/// Rows that are looked at before a column is taken to be worth a dictionary.
const SAMPLE: usize = 8192;

/// A column as a reader wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// Id in the table.
    pub(crate) id: u32,
    /// KQL type.
    pub(crate) ty: Type,
    /// Name and physical type.
    pub(crate) field: FieldRef,
    /// Instead of the column, the values of this key in its documents.
    pub(crate) key: Option<String>,
}

/// The physical type of plain values.
pub(crate) fn plain_type(ty: Type) -> DataType {
    match ty {
        Type::Bool => DataType::Boolean,
        Type::Int => DataType::Int32,
        Type::Long | Type::DateTime | Type::TimeSpan => DataType::Int64,
        Type::Real => DataType::Float64,
        Type::Decimal | Type::String | Type::Guid | Type::Dynamic => DataType::Utf8,
    }
}

/// The physical type of dynamic values that repeat.
pub(crate) fn dictionary_type() -> DataType {
    DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
}

/// The stored field of a column.
pub(crate) fn stored_field(column: &TableColumn, data_type: &DataType) -> FieldRef {
    with_id(&column.name, column.id, data_type.clone(), column.ty != Type::String)
}

fn with_id(name: &str, id: u32, data_type: DataType, nullable: bool) -> FieldRef {
    let metadata = Metadata::from([(FIELD_ID.to_owned(), id.to_string())]);
    Arc::new(Field::new(name, data_type, nullable).with_metadata(metadata))
}

/// The column id of a stored field.
pub(crate) fn field_id(field: &Field) -> Option<u32> {
    field.metadata().get(FIELD_ID)?.parse().ok()
}

/// Position of the column with that id.
pub(crate) fn position(schema: &Schema, id: u32) -> Option<usize> {
    schema.fields().iter().position(|field| field_id(field) == Some(id))
}

/// Appends the hidden ingestion time.
pub(crate) fn with_ingestion_time(batch: &RecordBatch, ticks: i64) -> Result<RecordBatch, ArrowError> {
    let mut fields: Vec<FieldRef> = batch.schema().fields().iter().cloned().collect();
    fields.push(ingestion_target(INGESTED_NAME).field);
    let mut arrays = batch.columns().to_vec();
    arrays.push(Arc::new(Int64Array::from_value(ticks, batch.num_rows())));
    rebuilt(Arc::new(Schema::new(fields)), arrays, batch.num_rows())
}

fn rebuilt(schema: SchemaRef, arrays: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch, ArrowError> {
    RecordBatch::try_new_with_options(schema, arrays, &RecordBatchOptions::new().with_row_count(Some(rows)))
}

/// What is stored of a table's rows: its columns and the ingestion time. Dynamic columns are dictionaries unless
/// most of the rows at hand are plain.
pub(crate) fn stored_targets(table: &Table, batches: &[RecordBatch]) -> Vec<Target> {
    let column = |column: &TableColumn| {
        let data_type = match column.ty {
            Type::Dynamic if mostly_dictionary(batches, column.id) => dictionary_type(),
            ty => plain_type(ty),
        };
        Target { id: column.id, ty: column.ty, field: stored_field(column, &data_type), key: None }
    };
    table.columns.iter().map(column).chain([ingestion_target(INGESTED_NAME)]).collect()
}

/// The time of ingestion under that name.
pub(crate) fn ingestion_target(name: &str) -> Target {
    Target { id: INGESTED, ty: Type::DateTime, field: with_id(name, INGESTED, DataType::Int64, false), key: None }
}

fn mostly_dictionary(batches: &[RecordBatch], id: u32) -> bool {
    let (mut dictionary, mut plain) = (0, 0);
    for batch in batches {
        match position(batch.schema_ref(), id).map(|at| batch.column(at).data_type()) {
            Some(DataType::Dictionary(..)) => dictionary += batch.num_rows(),
            Some(_) => plain += batch.num_rows(),
            None => {}
        }
    }
    dictionary >= plain
}

/// `batch` with exactly the columns of `targets`; what it does not have is null (the empty string for strings).
pub(crate) fn conform(batch: &RecordBatch, targets: &[Target]) -> Result<RecordBatch, ArrowError> {
    let schema = Arc::new(Schema::new(targets.iter().map(|target| target.field.clone()).collect::<Vec<_>>()));
    conform_to(batch, targets, schema)
}

/// [`conform`] with the schema of the targets at hand.
pub(crate) fn conform_to(batch: &RecordBatch, targets: &[Target], schema: SchemaRef) -> Result<RecordBatch, ArrowError> {
    let rows = batch.num_rows();
    let column = |target: &Target| match (&target.key, position(batch.schema_ref(), target.id)) {
        (Some(key), _) => converted(&shred::key_values(batch, target.id, key), target.field.data_type()),
        (None, Some(at)) => converted(batch.column(at), target.field.data_type()),
        (None, None) => Ok(absent(target, rows)),
    };
    let arrays = targets.iter().map(column).collect::<Result<Vec<_>, _>>()?;
    rebuilt(schema, arrays, rows)
}

fn absent(target: &Target, rows: usize) -> ArrayRef {
    match target.ty {
        Type::String => Arc::new(StringArray::from_iter_values(std::iter::repeat_n("", rows))),
        _ => new_null_array(target.field.data_type(), rows),
    }
}

/// The array in another storage of the same values.
pub(crate) fn converted(array: &ArrayRef, wanted: &DataType) -> Result<ArrayRef, ArrowError> {
    match (array.data_type(), wanted) {
        (have, wanted) if have == wanted => Ok(array.clone()),
        (DataType::Utf8, DataType::Dictionary(..)) => Ok(as_dictionary(array.as_string())),
        (_, wanted) => compute::cast(array, wanted),
    }
}

/// Plain text as a dictionary whose values are the rows: no row is looked at.
fn as_dictionary(array: &StringArray) -> ArrayRef {
    let keys = (0..array.len()).map(|row| array.is_valid(row).then_some(row as i32)).collect::<Int32Array>();
    match DictionaryArray::<Int32Type>::try_new(keys, Arc::new(array.clone())) {
        Ok(dictionary) => Arc::new(dictionary),
        Err(error) => unreachable!("each key is a row of the values: {error}"),
    }
}

/// Rows of `batches` one after another; all have the columns of `targets`. Dictionaries are unified.
pub(crate) fn concat(batches: &[RecordBatch], targets: &[Target]) -> Result<RecordBatch, ArrowError> {
    let schema = Arc::new(Schema::new(targets.iter().map(|target| target.field.clone()).collect::<Vec<_>>()));
    let rows = batches.iter().map(RecordBatch::num_rows).sum();
    let mut arrays = Vec::with_capacity(targets.len());
    for (at, target) in targets.iter().enumerate() {
        let parts: Vec<&ArrayRef> = batches.iter().map(|batch| batch.column(at)).collect();
        arrays.push(match target.field.data_type() {
            DataType::Dictionary(..) => concat_dictionaries(&parts)?,
            _ if parts.is_empty() => absent(target, 0),
            _ => compute::concat(&parts.iter().map(|part| part.as_ref()).collect::<Vec<_>>())?,
        });
    }
    rebuilt(schema, arrays, rows)
}

fn concat_dictionaries(parts: &[&ArrayRef]) -> Result<ArrayRef, ArrowError> {
    let rows = parts.iter().map(|part| part.len()).sum();
    let mut keys: Vec<Option<i32>> = Vec::with_capacity(rows);
    let mut values = StringBuilder::new();
    let mut known: HashMap<&str, i32> = HashMap::new();
    for part in parts {
        let dictionary = part
            .as_dictionary_opt::<Int32Type>()
            .ok_or_else(|| ArrowError::SchemaError("a dictionary column holds something else".to_owned()))?;
        let texts = dictionary
            .values()
            .as_string_opt::<i32>()
            .ok_or_else(|| ArrowError::SchemaError("a dictionary does not hold text".to_owned()))?;
        // filled on first use, so that values no row uses are left behind
        let mut moved: Vec<Option<i32>> = vec![None; texts.len()];
        for key in dictionary.keys() {
            let Some(key) = key.and_then(|key| usize::try_from(key).ok()).filter(|key| texts.is_valid(*key)) else {
                keys.push(None);
                continue;
            };
            let new = *moved[key].get_or_insert_with(|| {
                let next = known.len() as i32;
                *known.entry(texts.value(key)).or_insert_with(|| {
                    values.append_value(texts.value(key));
                    next
                })
            });
            keys.push(Some(new));
        }
    }
    Ok(Arc::new(DictionaryArray::<Int32Type>::try_new(Int32Array::from(keys), Arc::new(values.finish()))?))
}

/// Gives each dynamic column the form that suits its values: a dictionary where they repeat, plain text otherwise.
pub(crate) fn suit_encodings(batch: &RecordBatch, targets: &mut [Target]) -> Result<RecordBatch, ArrowError> {
    let mut arrays = batch.columns().to_vec();
    for (target, array) in targets.iter_mut().zip(&mut arrays).filter(|(target, _)| target.ty == Type::Dynamic) {
        *array = match array.data_type() {
            DataType::Utf8 => suited(array)?,
            DataType::Dictionary(..) => {
                let unified = concat_dictionaries(&[array])?;
                let distinct = unified.as_dictionary::<Int32Type>().values().len();
                let hardly = distinct > SAMPLE && distinct * 2 > unified.len();
                if hardly { compute::cast(&unified, &DataType::Utf8)? } else { unified }
            }
            _ => array.clone(),
        };
        let field = Field::clone(&target.field).with_data_type(array.data_type().clone());
        target.field = Arc::new(field);
    }
    let schema = Arc::new(Schema::new(targets.iter().map(|target| target.field.clone()).collect::<Vec<_>>()));
    rebuilt(schema, arrays, batch.num_rows())
}

/// Plain text as a dictionary, if it repeats.
pub(crate) fn suited(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    match array.as_string_opt() {
        Some(texts) if repeats(texts) => concat_dictionaries(&[&as_dictionary(texts)]),
        _ => Ok(array.clone()),
    }
}

/// Whether there are at most half as many values as rows. All rows are looked at: series take turns, so the first
/// thousands of rows may all differ.
fn repeats(array: &StringArray) -> bool {
    let limit = array.len() / 2;
    let mut seen: HashSet<&str> = HashSet::new();
    array.iter().flatten().all(|text| {
        seen.insert(text);
        seen.len() <= limit
    })
}

/// Whether a text column looks like ids: short values that hardly repeat. These get a Bloom filter.
pub(crate) fn looks_like_ids(array: &ArrayRef) -> bool {
    let Some(texts) = array.as_string_opt::<i32>() else { return false };
    let short = texts.iter().take(SAMPLE).flatten().all(|text| text.len() <= 64);
    texts.len() >= SAMPLE && short && !repeats(texts)
}

/// Text whose nulls are empty strings, as string columns are stored.
pub(crate) fn without_nulls(array: &ArrayRef) -> ArrayRef {
    match compute::cast(array, &DataType::Utf8) {
        Ok(plain) if plain.null_count() > 0 => {
            let filled = plain.as_string::<i32>().iter().map(|text| text.unwrap_or_default());
            Arc::new(StringArray::from_iter_values(filled))
        }
        Ok(plain) => plain,
        Err(_) => array.clone(),
    }
}

/// Smallest and largest value of an Int64 column.
pub(crate) fn range(batch: &RecordBatch, id: u32) -> Option<(i64, i64)> {
    let array = batch.column(position(batch.schema_ref(), id)?);
    let array = array.as_primitive_opt::<datafusion::arrow::datatypes::Int64Type>()?;
    compute::min(array).zip(compute::max(array))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&"Db".into(), "T", 0);
        table.add_column("A", Type::Long);
        table.add_column("S", Type::String);
        table.add_column("D", Type::Dynamic);
        table
    }

    #[test]
    fn missing_columns_are_null_or_empty() {
        let table = table();
        let field = stored_field(&table.columns[0], &DataType::Int64);
        let old = RecordBatch::try_new(Arc::new(Schema::new(vec![field])), vec![Arc::new(Int64Array::from(vec![7]))]).unwrap();
        let new = conform(&with_ingestion_time(&old, 5).unwrap(), &stored_targets(&table, &[])).unwrap();
        assert_eq!(new.num_columns(), 4);
        assert_eq!(new.column(1).as_string::<i32>().value(0), "");
        assert!(new.column(2).is_null(0));
        assert_eq!(range(&new, INGESTED), Some((5, 5)));
    }

    #[test]
    fn dictionaries_are_unified() {
        let part = |values: Vec<&str>| -> ArrayRef { as_dictionary(&StringArray::from(values)) };
        let (a, b) = (part(vec!["x", "y", "x"]), part(vec!["y", "z"]));
        let all = concat_dictionaries(&[&a, &b]).unwrap();
        let dictionary = all.as_dictionary::<Int32Type>();
        assert_eq!(dictionary.values().len(), 3);
        let texts = compute::cast(&all, &DataType::Utf8).unwrap();
        assert_eq!(texts.as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["x", "y", "x", "y", "z"]);
    }
}
