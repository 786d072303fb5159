//! Who may store more: quotas of databases, the global limit with its reserve, the number of tables, and
//! receipts that are known already.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::frames::AdoptedRecord;
use super::stage::Staged;
use super::state::State;
use crate::Refusal;
use crate::types::{Known, Options, Receipt, TableKey, TableSet};

/// Kept free for settlements and checkpoints: this, or 2 %, but never more than a quarter.
const RESERVE: u64 = 256 << 20;

/// Admission of requests into a group.
pub(crate) struct Admission {
    /// Requests are refused from here on; `None` without a limit.
    limit: Option<u64>,
    database_quota: Option<u64>,
    max_tables: usize,
    /// Bytes of buffers and open segments per database, as of the last tick, and what came since.
    pub(crate) unsealed: BTreeMap<Arc<str>, u64>,
    used: u64,
    new_tables: HashMap<Arc<str>, TableSet>,
    receipts: HashSet<([u8; 16], Arc<str>, u64)>,
    numbers: HashMap<Arc<str>, u64>,
}

impl Admission {
    pub(crate) fn new(options: &Options) -> Admission {
        let max = options.max_disk_bytes;
        let reserve = RESERVE.max(max / 50).min(max / 4);
        Admission {
            limit: (max > 0).then(|| max - reserve),
            database_quota: options.database_quota_bytes,
            max_tables: options.max_tables_per_database,
            unsealed: BTreeMap::new(),
            used: 0,
            new_tables: HashMap::new(),
            receipts: HashSet::new(),
            numbers: HashMap::new(),
        }
    }

    /// Whether `used` bytes leave no room for requests.
    pub(crate) fn is_full(&self, used: u64) -> bool {
        self.limit.is_some_and(|limit| used >= limit)
    }

    /// Forgets what earlier groups were promised; `used` is what all files hold now.
    pub(crate) fn begin_group(&mut self, used: u64) {
        self.used = used;
        self.new_tables.clear();
        self.receipts.clear();
        self.numbers.clear();
    }

    /// The next segment number of `database` in this group.
    pub(crate) fn number(&mut self, database: &Arc<str>, state: &State) -> u64 {
        let next = self.numbers.entry(database.clone()).or_insert_with(|| state.next_number(database));
        *next += 1;
        *next - 1
    }

    /// Whether a request is to be stored; `Ok(false)` when all its receipts are durable already.
    pub(crate) fn admit(&mut self, staged: &Staged, state: &State) -> Result<bool, Refusal> {
        if !self.admit_receipts(&staged.head.receipts, state)? {
            return Ok(false);
        }
        if staged.contents.is_empty() {
            return Ok(true);
        }
        let stored = staged.stored();
        if self.limit.is_some_and(|limit| self.used + stored > limit) {
            return Err(Refusal::DiskFull);
        }
        self.check_databases(staged, state)?;
        self.check_tables(staged, state)?;
        self.used += stored;
        Ok(true)
    }

    /// As [`Admission::admit`], for receipts alone. Some known and some not is a race between two requests
    /// of one sender: the caller looks again.
    pub(crate) fn admit_receipts(&mut self, receipts: &[Receipt], state: &State) -> Result<bool, Refusal> {
        if receipts.is_empty() {
            return Ok(true);
        }
        let same = receipts.iter().filter(|r| state.known(&r.sender, &r.database, r.number, r.digest) == Known::Same).count();
        if same == receipts.len() {
            return Ok(false);
        }
        let taken = |r: &Receipt| self.receipts.contains(&(r.sender, r.database.clone(), r.number));
        if same > 0 || receipts.iter().any(taken) {
            return Err(Refusal::Busy);
        }
        self.receipts.extend(receipts.iter().map(|r| (r.sender, r.database.clone(), r.number)));
        Ok(true)
    }

    /// As [`Admission::admit`], for a segment that is a file already: only its database and table count.
    pub(crate) fn admit_adoption(&mut self, record: &AdoptedRecord, state: &State) -> Result<bool, Refusal> {
        if !self.admit_receipts(&record.receipts, state)? {
            return Ok(false);
        }
        let table = &record.segment.table;
        self.check_database(&table.database, state)?;
        self.check_table(table, state)?;
        Ok(true)
    }

    fn check_databases(&mut self, staged: &Staged, state: &State) -> Result<(), Refusal> {
        if self.database_quota.is_none() {
            return Ok(());
        }
        let mut incoming: BTreeMap<&Arc<str>, u64> = BTreeMap::new();
        for (section, len) in staged.head.sections.iter().zip(staged.contents.lens()) {
            *incoming.entry(&section.table.database).or_default() += len as u64;
        }
        for database in incoming.keys() {
            self.check_database(database, state)?;
        }
        for (database, bytes) in incoming {
            *self.unsealed.entry(database.clone()).or_default() += bytes;
        }
        Ok(())
    }

    fn check_database(&self, database: &Arc<str>, state: &State) -> Result<(), Refusal> {
        // Dead letters have no bound but this: what was acknowledged is kept, and no more is taken.
        let sealed = state.databases.get(database).map_or(0, |known| known.bytes + known.dead_bytes);
        let unsealed = self.unsealed.get(database).copied().unwrap_or(0);
        match self.database_quota {
            Some(quota) if sealed + unsealed >= quota => Err(Refusal::DatabaseOverQuota { database: Arc::clone(database) }),
            _ => Ok(()),
        }
    }

    fn check_tables(&mut self, staged: &Staged, state: &State) -> Result<(), Refusal> {
        staged.head.sections.iter().try_for_each(|section| self.check_table(&section.table, state))
    }

    fn check_table(&mut self, table: &TableKey, state: &State) -> Result<(), Refusal> {
        if state.counts.contains_key(table) {
            return Ok(());
        }
        let known = state.databases.get(&table.database).map_or(0, |known| known.tables);
        let new = self.new_tables.entry(table.database.clone()).or_default();
        new.insert(table.clone());
        if known + new.len() > self.max_tables {
            new.remove(table);
            return Err(Refusal::TooManyTables { database: table.database.clone() });
        }
        Ok(())
    }
}
