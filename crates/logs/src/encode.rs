//! Records and plain lines into rows of log tables.
//!
//! The rows are those that [`telemetry::LogIntake`] writes for the same OTLP record: same columns, same order of keys,
//! same keys left out.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;

use telemetry::{Added, Lift, RowSet, SampleType, Schema, text};

use crate::lines::Entry;
use crate::record::{Destination, Record};
use crate::value::{Map, Value, write_object};

/// How records of a source become rows.
#[derive(Debug)]
pub struct Encoder {
    added: Added,
    lift_resources: Vec<Lift>,
    schema: Arc<Schema>,
}

/// A resource as it stands in rows: the `Resource` field and the lifted columns after it.
#[derive(Debug)]
pub struct EncodedResource {
    /// What was added to it.
    added: Arc<BTreeMap<String, String>>,
    json: Vec<u8>,
    /// `,<lifted>,<lifted>\n`
    lifted: Vec<u8>,
}

impl Encoder {
    /// An encoder that sets the attributes `added` on every resource and gives `lift_resources` columns of their own, in
    /// the order of their resource keys.
    pub fn new(added: Added, mut lift_resources: Vec<Lift>) -> Self {
        lift_resources.sort_by(|a, b| a.name.cmp(&b.name));
        let schema = Arc::new(Schema::logs(&lift_resources));
        Self { added, lift_resources, schema }
    }

    /// Columns of the rows.
    pub fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    /// Encodes a resource, once for all records that share it.
    pub fn resource(&self, resource: &Map) -> Arc<EncodedResource> {
        let added = self.added.get();
        let values: Vec<(&str, Value)> = added.iter().map(|(key, text)| (key.as_str(), Value::from(text.as_str()))).collect();
        let own = resource.iter().map(|(key, value)| (key.as_str(), value));
        let mut members: BTreeMap<&str, &Value> = own.chain(values.iter().map(|(key, value)| (*key, value))).collect();
        let mut encoded = EncodedResource { added: Arc::clone(&added), json: Vec::new(), lifted: Vec::new() };
        for lift in &self.lift_resources {
            encoded.lifted.push(b',');
            if let Some(value) = take(&mut members, &lift.name) {
                text::csv_field(&mut encoded.lifted, value.to_text().as_bytes());
            }
        }
        encoded.lifted.push(b'\n');
        let hidden = |key: &str| is_internal(key) || key.starts_with("label.") || key.starts_with("annotation.");
        object_field(&mut encoded.json, members.into_iter(), hidden);
        Arc::new(encoded)
    }

    /// Whether a resource would still be encoded that way: what is added may change while the collector runs.
    pub fn is_current(&self, resource: &EncodedResource) -> bool {
        Arc::ptr_eq(&resource.added, &self.added.get())
    }
}

/// Takes out the value of a key: of that very key, or of the first one that differs in the case of ASCII letters only.
fn take<'m>(members: &mut BTreeMap<&'m str, &'m Value>, key: &str) -> Option<&'m Value> {
    members.remove(key).or_else(|| {
        let other = *members.keys().find(|other| other.eq_ignore_ascii_case(key))?;
        members.remove(other)
    })
}

/// Keys of the collector's own bookkeeping.
fn is_internal(key: &str) -> bool {
    key.starts_with("adxmon_")
}

fn object_field<'m>(out: &mut Vec<u8>, members: impl Iterator<Item = (&'m str, &'m Value)>, hidden: impl Fn(&str) -> bool) {
    json_field(out, |out| write_object(out, members, hidden));
}

fn json_field(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let Ok(()) = text::json_field::<Infallible>(out, |out| {
        write(out);
        Ok(())
    });
}

/// Why a record did not become a row.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NoRow {
    /// It has no destination.
    Unrouted,
    /// The batch writes to too many tables already.
    TooManyTables,
    /// The batch is full: commit it and start another.
    Full,
}

impl fmt::Display for NoRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unrouted => {
                f.write_str("the record has no destination: kusto.database and kusto.table are missing or have no letter or digit")
            }
            Self::TooManyTables => f.write_str(&RowSet::too_many_tables()),
            Self::Full => f.write_str(&RowSet::too_large()),
        }
    }
}

/// What became of the records of a batch.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct BatchCounts {
    /// Rows written.
    pub rows: u64,
    /// Records without destination.
    pub unrouted: u64,
    /// Records for which there was no room.
    pub refused: u64,
}

/// Rows in the making.
#[derive(Debug)]
pub struct Batch<'e> {
    encoder: &'e Encoder,
    rows: RowSet,
    counts: BatchCounts,
    row: Vec<u8>,
    /// The last table written to.
    table: Option<(Destination, usize)>,
    /// The last resource encoded. The map is held, so that it changes for others only as a copy.
    resource: Option<(Arc<Map>, Arc<EncodedResource>)>,
}

impl<'e> Batch<'e> {
    /// An empty batch.
    pub fn new(encoder: &'e Encoder) -> Self {
        Self::reusing(encoder, RowSet::new())
    }

    /// A batch that adds to `rows`.
    pub fn reusing(encoder: &'e Encoder, rows: RowSet) -> Self {
        Self { encoder, rows, counts: BatchCounts::default(), row: Vec::new(), table: None, resource: None }
    }

    /// The rows so far.
    pub fn rows(&self) -> &RowSet {
        &self.rows
    }

    /// What became of the records so far.
    pub fn counts(&self) -> BatchCounts {
        self.counts
    }

    /// Ends the batch.
    pub fn finish(self) -> (RowSet, BatchCounts) {
        (self.rows, self.counts)
    }

    /// Adds a record. One that becomes no row is counted.
    ///
    /// # Errors
    /// Why it became no row.
    pub fn record(&mut self, record: &Record) -> Result<(), NoRow> {
        let Some(destination) = &record.destination else {
            self.counts.unrouted += 1;
            return Err(NoRow::Unrouted);
        };
        let resource = match &self.resource {
            Some((map, encoded)) if Arc::ptr_eq(map, &record.resource) => Arc::clone(encoded),
            _ => {
                let encoded = self.encoder.resource(&record.resource);
                self.resource = Some((Arc::clone(&record.resource), Arc::clone(&encoded)));
                encoded
            }
        };
        let table = self.table(destination)?;
        let row = &mut self.row;
        row.clear();
        time(row, record.timestamp);
        row.push(b',');
        time(row, record.observed);
        for text in [&record.trace_id, &record.span_id, &record.severity_text] {
            row.push(b',');
            text::csv_field(row, text.as_bytes());
        }
        row.push(b',');
        text::integer(row, i64::from(record.severity_number));
        row.push(b',');
        object_field(row, record.body.iter().map(|(key, value)| (key.as_str(), value)), |_| false);
        row.push(b',');
        row.extend_from_slice(&resource.json);
        row.push(b',');
        object_field(row, record.attributes.iter().map(|(key, value)| (key.as_str(), value)), is_internal);
        row.extend_from_slice(&resource.lifted);
        self.append(table)
    }

    /// Adds a line that needs neither parser nor transform, without making a [`Record`] of it: the row is the one of
    /// [`Entry::record`].
    ///
    /// # Errors
    /// Why it became no row.
    pub fn line(&mut self, entry: &Entry<'_>, resource: &EncodedResource, destination: &Destination) -> Result<(), NoRow> {
        let table = self.table(destination)?;
        let row = &mut self.row;
        row.clear();
        time(row, entry.timestamp);
        row.push(b',');
        time(row, entry.observed);
        row.extend_from_slice(b",,,,0,");
        json_field(row, |row| {
            row.extend_from_slice(b"{\"\"message\"\":");
            text::json_string(row, entry.message.as_bytes());
            if !entry.stream.is_empty() {
                row.extend_from_slice(b",\"\"stream\"\":");
                text::json_string(row, entry.stream.as_bytes());
            }
            row.push(b'}');
        });
        row.push(b',');
        row.extend_from_slice(&resource.json);
        row.extend_from_slice(b",{}");
        row.extend_from_slice(&resource.lifted);
        self.append(table)
    }

    fn table(&mut self, destination: &Destination) -> Result<usize, NoRow> {
        if let Some((last, index)) = &self.table
            && last == destination
        {
            return Ok(*index);
        }
        let to = telemetry::Destination {
            database: destination.database(),
            table: destination.table(),
            schema: &self.encoder.schema,
            sample_type: SampleType::Log,
        };
        let Some(index) = self.rows.find_or_add(to) else {
            self.counts.refused += 1;
            return Err(NoRow::TooManyTables);
        };
        self.table = Some((destination.clone(), index));
        Ok(index)
    }

    fn append(&mut self, table: usize) -> Result<(), NoRow> {
        if self.rows.append(table, |rows| rows.extend_from_slice(&self.row)) {
            self.counts.rows += 1;
            Ok(())
        } else {
            self.counts.refused += 1;
            Err(NoRow::Full)
        }
    }
}

fn time(row: &mut Vec<u8>, ns: u64) {
    text::timestamp(row, (ns / 1_000_000_000).cast_signed(), (ns % 1_000_000_000) as u32);
}
