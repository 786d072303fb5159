//! Keys of plain dynamic columns as columns of their own.
//!
//! Documents that hardly repeat, log bodies above all, are stored apart from the values of the keys that many of them
//! have: such a key has a column with its JSON text, and the document has a mark in its place. A query for
//! `Body.message` so reads one column and parses nothing, and a document is put together again from its marks, byte for
//! byte. Marks are control characters, which JSON text never has.

use std::collections::HashMap as Metadata;
use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray as _, DictionaryArray, Int32Array, RecordBatch, StringArray, StringBuilder, new_null_array,
};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Int32Type, Schema};
use datafusion::arrow::error::ArrowError;
use datafusion::common::HashMap;
use kql::Type;
use serde::{Deserialize, Serialize};

use super::columns::{self, Target};
use crate::json;

/// Rows, evenly spread, that are looked at to find frequent keys.
const SAMPLE: usize = 8192;
/// Keys that are counted; later ones are not looked at.
const MAX_COUNTED: usize = 4096;
/// Longest key that becomes a column: keys are names in every footer and in the catalogue.
const MAX_KEY_BYTES: usize = 256;
/// Keys of one column that become columns.
const MAX_KEYS: usize = 32;
/// A key is frequent above this share of the rows, in percent.
const FREQUENT_PERCENT: usize = 30;
/// Begins a mark; the character behind it says which key's value stands there, counted from [`FIRST_KEY`].
const MARK: char = '\u{1}';
const FIRST_KEY: u8 = b'0';

/// Field metadata of a key's column: the id of the document's column, and the key.
const KEY_OF: &str = "kustd:key_of";
const KEY: &str = "kustd:key";
/// Field metadata of documents with marks: how many keys were taken out.
const KEYS: &str = "kustd:keys";

/// A key that has a column of its own in an extent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ShreddedKey {
    /// Id of the dynamic column.
    pub(crate) column: u32,
    /// The key, at the top of its documents.
    pub(crate) key: String,
    /// Whether the values are stored as a dictionary.
    pub(crate) dictionary: bool,
}

/// Takes frequent keys out of the plain dynamic columns of `rows`. `targets` describe the columns, and get those of the
/// keys at their end.
pub(crate) fn shred(rows: &RecordBatch, targets: &mut Vec<Target>) -> Result<(RecordBatch, Vec<ShreddedKey>), ArrowError> {
    let mut arrays = rows.columns().to_vec();
    let mut keys = Vec::new();
    for at in 0..arrays.len() {
        let documents = match arrays[at].as_string_opt::<i32>() {
            Some(documents) if targets[at].ty == Type::Dynamic => documents.clone(),
            _ => continue,
        };
        let Some((marked, values)) = take_out(&documents) else { continue };
        let marked = columns::suited(&marked)?;
        targets[at].field = with_metadata(&targets[at].field, marked.data_type(), [(KEYS, values.len().to_string())]);
        arrays[at] = marked;
        for (key, values) in values {
            let values = columns::suited(&values)?;
            let column = targets[at].id;
            let field = Field::new(format!("{column}.{key}"), values.data_type().clone(), true);
            let field = with_metadata(&field, values.data_type(), [(KEY_OF, column.to_string()), (KEY, key.clone())]);
            let dictionary = matches!(values.data_type(), DataType::Dictionary(..));
            targets.push(Target { id: column, ty: Type::Dynamic, field, key: Some(key.clone()) });
            keys.push(ShreddedKey { column, key, dictionary });
            arrays.push(values);
        }
    }
    let schema = Schema::new(targets.iter().map(|target| target.field.clone()).collect::<Vec<_>>());
    Ok((RecordBatch::try_new(Arc::new(schema), arrays)?, keys))
}

fn with_metadata<const N: usize>(field: &Field, data_type: &DataType, more: [(&str, String); N]) -> FieldRef {
    let mut metadata: Metadata<String, String> = field.metadata().clone();
    metadata.extend(more.map(|(name, value)| (name.to_owned(), value)));
    Arc::new(field.clone().with_data_type(data_type.clone()).with_metadata(metadata))
}

/// Documents with marks, and the values of the keys that were taken out; None when no key is frequent.
fn take_out(documents: &StringArray) -> Option<(ArrayRef, Vec<(String, ArrayRef)>)> {
    let keys = frequent_keys(documents);
    // what is no JSON could read as a mark
    if keys.is_empty() || documents.value_data().contains(&(MARK as u8)) {
        return None;
    }
    let mut marked = StringBuilder::with_capacity(documents.len(), documents.value_data().len() / 4);
    let mut values: Vec<StringBuilder> = keys.iter().map(|_| StringBuilder::with_capacity(documents.len(), documents.len() * 8)).collect();
    let mut found: Vec<Option<&str>> = vec![None; keys.len()];
    for document in documents {
        found.fill(None);
        let class = |key: &str| keys.iter().position(|known| known == key);
        let whole = document.is_some_and(|document| json::members(document, class, |key, value| found[key] = Some(value)));
        if !whole {
            found.fill(None);
        }
        // null is the value of a key that is not there
        found.iter_mut().for_each(|value| *value = value.filter(|value| *value != "null"));
        match document {
            Some(document) => marked.append_value(with_marks(document, &found)),
            None => marked.append_null(),
        }
        values.iter_mut().zip(&found).for_each(|(values, found)| values.append_option(*found));
    }
    let values = values.into_iter().map(|mut values| Arc::new(values.finish()) as ArrayRef);
    Some((Arc::new(marked.finish()), keys.into_iter().zip(values).collect()))
}

/// Keys at the top of more than [`FREQUENT_PERCENT`] of the rows, the most frequent ones first.
fn frequent_keys(documents: &StringArray) -> Vec<String> {
    let step = documents.len().div_ceil(SAMPLE).max(1);
    let mut known: HashMap<String, usize> = HashMap::new();
    // for each key: rows that have it, and the last of them
    let mut counts: Vec<(usize, usize)> = Vec::new();
    let mut rows = 0;
    for row in (0..documents.len()).step_by(step) {
        rows += 1;
        if documents.is_null(row) {
            continue;
        }
        let class = |key: &str| {
            known.get(key).copied().or_else(|| {
                let next = known.len();
                (next < MAX_COUNTED && key.len() <= MAX_KEY_BYTES).then(|| {
                    known.insert(key.to_owned(), next);
                    next
                })
            })
        };
        json::members(documents.value(row), class, |key, value| {
            // a key whose value could not be read is known, but was never found
            if key >= counts.len() {
                counts.resize(key + 1, (0, usize::MAX));
            }
            if value != "null" && counts[key].1 != row {
                counts[key] = (counts[key].0 + 1, row);
            }
        });
    }
    let mut keys: Vec<(usize, String)> = known.into_iter().map(|(key, at)| (counts.get(at).map_or(0, |count| count.0), key)).collect();
    keys.retain(|(count, _)| count * 100 > rows * FREQUENT_PERCENT);
    keys.sort_by(|(a, a_key), (b, b_key)| b.cmp(a).then_with(|| a_key.cmp(b_key)));
    keys.truncate(MAX_KEYS);
    keys.into_iter().map(|(_, key)| key).collect()
}

/// The document with a mark for each value, which are parts of it.
fn with_marks(document: &str, values: &[Option<&str>]) -> String {
    let offset = |value: &str| value.as_ptr() as usize - document.as_ptr() as usize;
    let mut places: Vec<(usize, usize, u8)> =
        values.iter().zip(FIRST_KEY..).filter_map(|(value, key)| value.map(|value| (offset(value), value.len(), key))).collect();
    places.sort_unstable();
    let mut marked = String::with_capacity(document.len());
    let mut from = 0;
    for (at, length, key) in places {
        marked.push_str(&document[from..at]);
        marked.push(MARK);
        marked.push(key as char);
        from = at + length;
    }
    marked.push_str(&document[from..]);
    marked
}

/// The batch with whole documents in the place of those with marks. The columns of all their keys must be there.
pub(crate) fn restore(batch: RecordBatch) -> Result<RecordBatch, ArrowError> {
    let schema = batch.schema();
    if !schema.fields().iter().any(|field| field.metadata().contains_key(KEYS)) {
        return Ok(batch);
    }
    let mut arrays = batch.columns().to_vec();
    let mut fields: Vec<FieldRef> = schema.fields().iter().cloned().collect();
    for (at, field) in schema.fields().iter().enumerate() {
        let Some(keys) = field.metadata().get(KEYS) else { continue };
        let id = columns::field_id(field);
        let values: Vec<Texts<'_>> = (0..fields.len())
            .filter(|other| id.is_some() && key_of(schema.field(*other)).map(|(of, _)| of) == id)
            .map(|other| Texts::of(batch.column(other)))
            .collect::<Result<_, _>>()?;
        if values.len().to_string() != *keys {
            return Err(damaged("a document's keys are not all there"));
        }
        arrays[at] = put_back(&Texts::of(batch.column(at))?, &values, batch.num_rows())?;
        let mut metadata = field.metadata().clone();
        metadata.remove(KEYS);
        fields[at] = Arc::new(Field::clone(field).with_data_type(DataType::Utf8).with_metadata(metadata));
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)
}

fn put_back(marked: &Texts<'_>, values: &[Texts<'_>], rows: usize) -> Result<ArrayRef, ArrowError> {
    let mut documents = StringBuilder::with_capacity(rows, rows * 64);
    let mut document = String::new();
    for row in 0..rows {
        let Some(mut rest) = marked.get(row) else {
            documents.append_null();
            continue;
        };
        document.clear();
        while let Some((before, after)) = rest.split_once(MARK) {
            let key = after.bytes().next().map(|key| usize::from(key.wrapping_sub(FIRST_KEY)));
            let value = key.and_then(|key| values.get(key)).and_then(|values| values.get(row));
            document.push_str(before);
            document.push_str(value.ok_or_else(|| damaged("a document has a mark without a value"))?);
            rest = &after[1..];
        }
        document.push_str(rest);
        documents.append_value(&document);
    }
    Ok(Arc::new(documents.finish()))
}

fn damaged(what: &str) -> ArrowError {
    ArrowError::ParseError(what.to_owned())
}

/// Document's column id and key, if the field is the column of a key.
pub(crate) fn key_of(field: &Field) -> Option<(u32, &str)> {
    let metadata = field.metadata();
    Some((metadata.get(KEY_OF)?.parse().ok()?, metadata.get(KEY)?))
}

/// The values of a key in dynamic column `id` of the batch: from its own column, or looked up in the documents.
pub(crate) fn key_values(batch: &RecordBatch, id: u32, key: &str) -> ArrayRef {
    let schema = batch.schema_ref();
    if let Some(at) = schema.fields().iter().position(|field| key_of(field) == Some((id, key))) {
        return batch.column(at).clone();
    }
    let Some(documents) = columns::position(schema, id).map(|at| batch.column(at)) else {
        return new_null_array(&DataType::Utf8, batch.num_rows());
    };
    let keys = [key.to_owned()];
    let look_up = |documents: &StringArray| -> StringArray {
        documents.iter().map(|document| document.and_then(|document| json::lookup(document, &keys))).collect()
    };
    match documents.as_dictionary_opt::<Int32Type>() {
        Some(dictionary) => Arc::new(dictionary.with_values(Arc::new(look_up(dictionary.values().as_string())))),
        None => Arc::new(look_up(documents.as_string())),
    }
}

/// Text, plain or by dictionary.
enum Texts<'a> {
    Plain(&'a StringArray),
    Dictionary(&'a Int32Array, &'a StringArray),
}

impl<'a> Texts<'a> {
    fn of(array: &'a ArrayRef) -> Result<Texts<'a>, ArrowError> {
        let dictionary = |dictionary: &'a DictionaryArray<Int32Type>| {
            dictionary.values().as_string_opt().map(|values| Texts::Dictionary(dictionary.keys(), values))
        };
        let plain = || array.as_string_opt().map(Texts::Plain);
        array.as_dictionary_opt().and_then(dictionary).or_else(plain).ok_or_else(|| damaged("documents are not stored as text"))
    }

    fn get(&self, row: usize) -> Option<&'a str> {
        let (values, row) = match self {
            Texts::Plain(values) => (*values, row),
            Texts::Dictionary(keys, values) => (*values, usize::try_from(keys.is_valid(row).then(|| keys.value(row))?).ok()?),
        };
        values.is_valid(row).then(|| values.value(row))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::catalog::Table;

    fn table() -> Table {
        let mut table = Table::new(&"Db".into(), "Logs", 0);
        table.add_column("n", Type::Long);
        table.add_column("Body", Type::Dynamic);
        table
    }

    /// A batch of these documents, and its targets.
    fn batch(documents: &[Option<&str>]) -> (RecordBatch, Vec<Target>) {
        let table = table();
        let field = columns::stored_field(&table.columns[1], &DataType::Utf8);
        let array: ArrayRef = Arc::new(StringArray::from(documents.to_vec()));
        let batch = RecordBatch::try_new(Arc::new(Schema::new(vec![field.clone()])), vec![array]).unwrap();
        (batch, vec![Target { id: 2, ty: Type::Dynamic, field, key: None }])
    }

    fn keys(documents: &[Option<&str>]) -> Vec<String> {
        let (batch, mut targets) = batch(documents);
        shred(&batch, &mut targets).unwrap().1.into_iter().map(|key| key.key).collect()
    }

    #[test]
    fn keys_of_more_than_thirty_percent_of_the_rows_are_taken_out() {
        let document = |row: usize| match row {
            0..3 => format!(r#"{{"always": {row}, "three": 1}}"#),
            3..7 => format!(r#"{{"always": {row}, "four": "x{row}", "four": "y"}}"#),
            _ => format!(r#"{{"always": {row}, "one{row}": 1, "null": null}}"#),
        };
        let documents: Vec<String> = (0..10).map(document).collect();
        let documents: Vec<Option<&str>> = documents.iter().map(|document| Some(document.as_str())).collect();
        assert_eq!(keys(&documents), ["always", "four"], "three of ten rows are not more than 30 %, nor are nulls values");
    }

    #[test]
    fn what_is_no_object_is_left_alone() {
        assert!(keys(&[Some("1"), Some("\"a\""), Some("[{\"a\":1}]"), None]).is_empty());
        assert_eq!(keys(&[Some(r#"{"a":1}"#), Some("2"), None]), ["a"]);
        assert!(keys(&[Some(r#"{"a":1}"#), Some("\u{1}0")]).is_empty(), "text that could be taken for a mark");
    }

    #[test]
    fn what_is_no_json_and_long_keys_are_left_alone() {
        assert_eq!(keys(&[Some(r#"{"a":tru"#), Some(r#"{"b":1}"#), Some(r#"{"b":2}"#)]), ["b"]);
        let documents = [256, 257].map(|length| format!("{{\"{}\":1}}", "k".repeat(length)));
        assert_eq!(keys(&[Some(documents[0].as_str())]), ["k".repeat(256)]);
        assert!(keys(&[Some(documents[1].as_str())]).is_empty());
    }

    #[test]
    fn damage_is_an_error() {
        let (batch, mut targets) = batch(&[Some(r#"{"a":1,"b":2}"#)]);
        let (shredded, _) = shred(&batch, &mut targets).unwrap();
        restore(shredded.project(&[0, 1]).unwrap()).unwrap_err();
        let nothing = new_null_array(shredded.column(1).data_type(), 1);
        let columns = vec![shredded.column(0).clone(), nothing.clone(), nothing];
        restore(RecordBatch::try_new(shredded.schema(), columns).unwrap()).unwrap_err();
    }

    fn value() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i32>().prop_map(Into::into),
            ".{0,6}".prop_map(Into::into)
        ];
        leaf.prop_recursive(2, 8, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Into::into),
                prop::collection::btree_map("[ab\"\\\\é\u{1}]{1,2}", inner, 0..4)
                    .prop_map(|map| map.into_iter().collect::<serde_json::Map<_, _>>().into()),
            ]
        })
    }

    proptest! {
        /// Documents come back byte for byte, and the columns of keys hold what looking them up gives.
        #[test]
        fn documents_come_back(values in prop::collection::vec((value(), any::<bool>()), 1..20)) {
            let text = |(value, pretty): &(serde_json::Value, bool)| if *pretty { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) };
            let documents: Vec<String> = values.iter().map(|value| text(value).unwrap()).collect();
            let documents: Vec<Option<&str>> = documents.iter().map(|document| (*document != "null").then_some(document.as_str())).collect();
            let (before, mut targets) = batch(&documents);
            let (shredded, keys) = shred(&before, &mut targets).unwrap();
            for key in &keys {
                let looked_up = key_values(&before, 2, &key.key);
                let stored = columns::converted(&key_values(&shredded, 2, &key.key), &DataType::Utf8).unwrap();
                prop_assert_eq!(&looked_up, &stored);
            }
            let restored = restore(shredded).unwrap();
            prop_assert_eq!(restored.column(0), before.column(0));
        }
    }
}
