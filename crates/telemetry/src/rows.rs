//! Rows of one request, grouped by table in the order of first use.

use crate::export::ExportRows;
use crate::schema::{SampleType, Schema};
use foldhash::fast::RandomState;
use parking_lot::Mutex;
use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// Rows that one request may become: a few bytes of samples repeat all labels of their series, so a small body can
/// ask for very much. Normal requests stay near twice their own size.
const MAX_BYTES: usize = 256 << 20;

/// The table of bytes that no row is in any more.
const NOBODY: u32 = u32::MAX;

/// Tables that one request may write to.
const MAX_TABLES: usize = 10_000;

/// Buffers that are kept for the next sets, and the largest of them.
const MAX_SPARE: usize = 4;
const MAX_SPARE_BYTES: usize = 1 << 20;

/// Buffers that no set uses at the moment.
static SPARE: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// What the rows of one table have in common.
#[derive(Clone, Debug)]
pub struct Table {
    /// Database, normalised.
    pub database: Arc<str>,
    /// Table, normalised.
    pub table: Arc<str>,
    /// Columns of the rows.
    pub schema: Arc<Schema>,
    /// What the rows are.
    pub sample_type: SampleType,
    /// Number of rows.
    pub rows: u32,
}

/// CSV rows for one table.
#[derive(Clone, Debug)]
pub struct TableRows {
    /// Database, normalised.
    pub database: Arc<str>,
    /// Table, normalised.
    pub table: Arc<str>,
    /// Columns of the rows.
    pub schema: Arc<Schema>,
    /// What the rows are.
    pub sample_type: SampleType,
    /// Number of rows in `bytes`.
    pub rows: u32,
    /// CSV rows without header, each ending in `\n`.
    pub bytes: Vec<u8>,
}

/// The rows of a [`RowSet`] as they came, and whose they are.
#[derive(Clone, Debug, Default)]
pub struct Grouped {
    /// All rows.
    pub bytes: Vec<u8>,
    /// Parts of `bytes`, those of one table side by side.
    pub places: Vec<Range<u32>>,
    /// The tables that have rows, and which places are theirs.
    pub tables: Vec<(Table, Range<usize>)>,
}

/// The rows of one table of a [`RowSet`].
#[derive(Clone, Copy, Debug)]
pub struct RowsOfTable<'a> {
    bytes: &'a [u8],
    places: &'a [Range<u32>],
}

impl<'a> RowsOfTable<'a> {
    /// All of them side by side; a copy where they lie between those of other tables.
    pub fn joined(self) -> Cow<'a, [u8]> {
        let rows = |place: &Range<u32>| &self.bytes[place.start as usize..place.end as usize];
        match self.places {
            [only] => Cow::Borrowed(rows(only)),
            places => Cow::Owned(places.iter().map(rows).collect::<Vec<_>>().concat()),
        }
    }
}

/// Where rows go: everything that tells one table of a [`RowSet`] from another.
#[derive(Clone, Copy, Debug)]
pub struct Destination<'a> {
    /// Database, normalised.
    pub database: &'a Arc<str>,
    /// Table, normalised.
    pub table: &'a Arc<str>,
    /// Columns of the rows.
    pub schema: &'a Arc<Schema>,
    /// What the rows are.
    pub sample_type: SampleType,
}

/// Rows of one request by table, in order of first use.
///
/// They lie in one buffer as they come: a request has a few for each of many tables, and writing to a buffer of each would
/// touch as many cold places in memory.
///
/// A set may serve several intakes one after the other; [`RowSet::clear`] makes it ready for the next request and
/// keeps its allocations.
#[derive(Clone, Debug, Default)]
pub struct RowSet {
    tables: Vec<Table>,
    bytes: Vec<u8>,
    /// Whose the bytes are, from front to back.
    runs: Vec<Run>,
    /// Where the first `named` tables are.
    by_name: HashMap<Vec<u8>, u32, RandomState>,
    named: usize,
    key: Vec<u8>,
    /// By tap of the intake; empty when there are none.
    exports: Vec<ExportRows>,
}

/// Bytes of rows of one table.
#[derive(Clone, Copy, Debug)]
struct Run {
    table: u32,
    len: u32,
}

impl RowSet {
    /// An empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether it holds no row.
    pub fn is_empty(&self) -> bool {
        self.tables.iter().all(|table| table.rows == 0)
    }

    /// Number of rows over all tables.
    pub fn rows(&self) -> u64 {
        self.tables.iter().map(|table| u64::from(table.rows)).sum()
    }

    /// Its tables. One whose every row was refused may stand here without rows.
    pub fn tables(&self) -> &[Table] {
        &self.tables
    }

    /// A copy of the rows by table; those without rows are left out.
    pub fn by_table(&self) -> Vec<TableRows> {
        let (places, ends) = self.places();
        let rows = |(index, table): (usize, &Table)| TableRows {
            database: Arc::clone(&table.database),
            table: Arc::clone(&table.table),
            schema: Arc::clone(&table.schema),
            sample_type: table.sample_type,
            rows: table.rows,
            bytes: RowsOfTable { bytes: &self.bytes, places: &places[start(&ends, index)..ends[index]] }.joined().into_owned(),
        };
        self.tables.iter().enumerate().filter(|(_, table)| table.rows > 0).map(rows).collect()
    }

    /// The rows as they came, with their places by table.
    pub fn into_grouped(self) -> Grouped {
        let (places, ends) = self.places();
        let tables = self.tables.into_iter().enumerate().map(|(index, table)| (table, start(&ends, index)..ends[index]));
        Grouped { bytes: self.bytes, places, tables: tables.filter(|(table, _)| table.rows > 0).collect() }
    }

    /// Shows the rows of each table to `change`; what it answers, rows and their number, takes their place.
    pub fn change_tables(&mut self, mut change: impl FnMut(&Table, RowsOfTable<'_>) -> Option<(Vec<u8>, u32)>) {
        let (places, ends) = self.places();
        for index in 0..self.tables.len() {
            let places = &places[start(&ends, index)..ends[index]];
            if places.is_empty() {
                continue;
            }
            if let Some((bytes, rows)) = change(&self.tables[index], RowsOfTable { bytes: &self.bytes, places }) {
                // Nobody's from now on; the new ones come last.
                self.runs.iter_mut().filter(|run| run.table == index as u32).for_each(|run| run.table = NOBODY);
                self.runs.push(Run { table: index as u32, len: bytes.len() as u32 });
                self.bytes.extend_from_slice(&bytes);
                self.tables[index].rows = rows;
            }
        }
    }

    /// Where rows are, by table, and by table the end of its places.
    fn places(&self) -> (Vec<Range<u32>>, Vec<usize>) {
        let mut ends = vec![0; self.tables.len()];
        let owned = || self.runs.iter().filter(|run| run.table != NOBODY);
        owned().for_each(|run| ends[run.table as usize] += 1);
        let mut before = 0;
        for end in &mut ends {
            // Where the next place of the table goes, which is its end when all are there.
            before += std::mem::replace(end, before);
        }
        let mut places = vec![0..0; before];
        let mut at = 0;
        for run in &self.runs {
            let place = at..at + run.len;
            at = place.end;
            if run.table != NOBODY {
                let next = &mut ends[run.table as usize];
                places[*next] = place;
                *next += 1;
            }
        }
        (places, ends)
    }

    /// Forgets all rows and keeps the allocations.
    pub fn clear(&mut self) {
        self.by_name.clear();
        self.named = 0;
        self.exports.clear();
        self.tables.clear();
        self.runs.clear();
        self.bytes.clear();
    }

    /// Keeps the memory of rows that are elsewhere now for the sets that come.
    pub fn give_back(mut buffer: Vec<u8>) {
        if (1..=MAX_SPARE_BYTES).contains(&buffer.capacity()) {
            buffer.clear();
            let mut spare = SPARE.lock();
            if spare.len() < MAX_SPARE {
                spare.push(buffer);
            }
        }
    }

    /// What the taps of the intake took ([`crate::MetricIntake::tap`]), in their order; empty when they took nothing.
    pub fn take_exports(&mut self) -> Vec<ExportRows> {
        std::mem::take(&mut self.exports)
    }

    /// The rows of a tap.
    pub(crate) fn export(&mut self, tap: usize) -> &mut ExportRows {
        if self.exports.len() <= tap {
            self.exports.resize_with(tap + 1, ExportRows::default);
        }
        &mut self.exports[tap]
    }

    /// Index of the table for [`RowSet::append`], made when it is not there yet; `None` when there are too many. It
    /// holds until [`RowSet::clear`].
    pub fn find_or_add(&mut self, to: Destination<'_>) -> Option<usize> {
        while let Some(table) = self.tables.get(self.named) {
            write_key(&mut self.key, [&table.database, &table.table, &table.schema.hash]);
            self.by_name.insert(self.key.clone(), self.named as u32);
            self.named += 1;
        }
        write_key(&mut self.key, [to.database, to.table, &to.schema.hash]);
        match self.by_name.get(&self.key) {
            Some(&index) => Some(index as usize),
            None => self.add(to),
        }
    }

    /// [`RowSet::find_or_add`] for a caller who knows that the table is not there yet.
    pub(crate) fn add(&mut self, to: Destination<'_>) -> Option<usize> {
        let index = self.tables.len();
        if index == MAX_TABLES {
            return None;
        }
        if self.bytes.capacity() == 0 {
            self.bytes = SPARE.lock().pop().unwrap_or_default();
        }
        self.tables.push(Table {
            database: to.database.clone(),
            table: to.table.clone(),
            schema: to.schema.clone(),
            sample_type: to.sample_type,
            rows: 0,
        });
        Some(index)
    }

    /// Whether [`RowSet::append`] would refuse any row.
    pub fn is_full(&self) -> bool {
        self.bytes.len() > MAX_BYTES
    }

    /// Appends one row, written by `write`, to the table at `index`; false when the set holds too much already.
    ///
    /// # Panics
    /// When `index` is not one that [`RowSet::find_or_add`] gave since the last [`RowSet::clear`].
    #[inline]
    pub fn append(&mut self, index: usize, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        if self.is_full() {
            return false;
        }
        let before = self.bytes.len();
        write(&mut self.bytes);
        let len = (self.bytes.len() - before) as u32;
        self.tables[index].rows += 1;
        match self.runs.last_mut() {
            Some(last) if last.table == index as u32 => last.len += len,
            _ => self.runs.push(Run { table: index as u32, len }),
        }
        true
    }

    /// Why [`RowSet::find_or_add`] refused.
    pub fn too_many_tables() -> String {
        format!("the request writes to more than {MAX_TABLES} tables; send smaller requests")
    }

    /// Why [`RowSet::append`] refused.
    pub fn too_large() -> String {
        format!("the request expands to more than {} MiB of rows; send smaller requests", MAX_BYTES >> 20)
    }
}

/// Where the places of a table begin.
fn start(ends: &[usize], index: usize) -> usize {
    if index == 0 { 0 } else { ends[index - 1] }
}

fn write_key(key: &mut Vec<u8>, parts: [&Arc<str>; 3]) {
    key.clear();
    for part in parts {
        key.extend_from_slice(part.as_bytes());
        key.push(0);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// A set of rows, each of a table's number, and the same by table.
    fn set(rows: &[(u8, String)]) -> (RowSet, BTreeMap<String, Vec<String>>) {
        let (database, schema) = (Arc::<str>::from("Db"), Arc::new(Schema::metrics(&[])));
        let (mut set, mut by_table) = (RowSet::new(), BTreeMap::<String, Vec<String>>::new());
        for (table, row) in rows {
            let name = Arc::<str>::from(format!("T{table}"));
            let to = Destination { database: &database, table: &name, schema: &schema, sample_type: SampleType::Metric };
            let index = set.find_or_add(to).unwrap();
            assert!(set.append(index, |out| out.extend_from_slice(format!("{row}\n").as_bytes())));
            by_table.entry(name.to_string()).or_default().push(row.clone());
        }
        (set, by_table)
    }

    fn lines(bytes: &[u8]) -> Vec<String> {
        String::from_utf8(bytes.to_vec()).unwrap().lines().map(str::to_owned).collect()
    }

    /// What a set holds, which it says in two ways.
    fn rows_of(set: &RowSet) -> BTreeMap<String, Vec<String>> {
        let rows: BTreeMap<_, _> = set.by_table().iter().map(|t| (t.table.to_string(), (t.rows, lines(&t.bytes)))).collect();
        let grouped = set.clone().into_grouped();
        let bytes = |places: &Range<usize>| {
            let places = &grouped.places[places.clone()];
            places.iter().flat_map(|place| &grouped.bytes[place.start as usize..place.end as usize]).copied().collect::<Vec<u8>>()
        };
        let again = grouped.tables.iter().map(|(table, places)| (table.table.to_string(), (table.rows, lines(&bytes(places)))));
        assert_eq!(again.collect::<BTreeMap<_, _>>(), rows);
        let counted = |(name, (rows, lines)): (String, (u32, Vec<String>))| {
            assert_eq!(rows as usize, lines.len());
            (name, lines)
        };
        rows.into_iter().map(counted).collect()
    }

    proptest! {
        #[test]
        fn tables_have_their_rows_in_the_order_they_came(rows in prop::collection::vec((0u8..6, "[a-z]{1,9}"), 0..60), kept in 0u8..6) {
            let (mut set, mut expected) = set(&rows);
            prop_assert_eq!(rows_of(&set), expected.clone());
            prop_assert_eq!(set.rows(), rows.len() as u64);

            // Every second row of some tables goes, and all of one.
            let mut seen = BTreeMap::new();
            set.change_tables(|table, bytes| {
                let all = lines(&bytes.joined());
                seen.insert(table.table.to_string(), all.clone());
                let number: u8 = table.table[1..].parse().unwrap();
                let left: Vec<String> = if number == kept { Vec::new() } else { all.into_iter().step_by(2).collect() };
                (number >= kept).then(|| (left.iter().flat_map(|row| format!("{row}\n").into_bytes()).collect(), left.len() as u32))
            });
            prop_assert_eq!(&seen, &expected);
            for (table, rows) in &mut expected {
                let number: u8 = table[1..].parse().unwrap();
                if number > kept {
                    *rows = rows.iter().step_by(2).cloned().collect();
                }
            }
            expected.remove(&format!("T{kept}"));
            prop_assert_eq!(rows_of(&set), expected);
            set.clear();
            prop_assert!(set.is_empty() && set.tables().is_empty() && set.by_table().is_empty());
        }
    }
}
