//! Where a log record or span goes: its attributes `kusto.database` and `kusto.table`, or the defaults.

use super::value::{self, Any};
use crate::error::Misrouted;
use crate::names;
use crate::rows::{Destination, RowSet};
use crate::schema::{SampleType, Schema};
use crate::wire::{Span, WireError};
use foldhash::fast::RandomState;
use std::collections::HashMap;
use std::sync::Arc;

const DATABASE: &[u8] = b"kusto.database";
const TABLE: &[u8] = b"kusto.table";

/// Destinations remembered at a time.
const MAX_NAMES: usize = 10_000;

/// What a record says about its destination; of several strings the last counts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Route<'a> {
    database: Option<&'a [u8]>,
    table: Option<&'a [u8]>,
}

impl<'a> Route<'a> {
    /// Takes note of an attribute.
    #[inline]
    pub(crate) fn attribute(&mut self, body: &'a [u8], key: &[u8], value: Any) {
        if let Any::String(text) = value {
            match key {
                DATABASE => self.database = Some(text.of(body)),
                TABLE => self.table = Some(text.of(body)),
                _ => {}
            }
        }
    }

    /// Database and table as named.
    pub(crate) fn names(&self) -> (Option<&'a [u8]>, Option<&'a [u8]>) {
        (self.database, self.table)
    }

    /// Looks up what is missing among the keys of a key-value body.
    pub(crate) fn body(&mut self, body: &'a [u8], map: Span) -> Result<(), WireError> {
        if self.database.is_some() && self.table.is_some() {
            return Ok(());
        }
        let mut said = Route::default();
        for member in value::members(body, map) {
            let (key, value) = value::key_value(body, member?)?;
            said.attribute(body, key.of(body), value);
        }
        self.database = self.database.or(said.database);
        self.table = self.table.or(said.table);
        Ok(())
    }
}

/// Finds the tables of one request.
pub(crate) struct Router<'i> {
    pub(crate) default_database: Option<&'i str>,
    pub(crate) default_table: Option<&'i str>,
    pub(crate) schema: &'i Arc<Schema>,
    pub(crate) sample_type: SampleType,
    /// Tables by length of the database's name, database and table as records name them.
    tables: HashMap<Vec<u8>, usize, RandomState>,
    key: Vec<u8>,
}

impl<'i> Router<'i> {
    pub(crate) fn new(
        default_database: Option<&'i str>,
        default_table: Option<&'i str>,
        schema: &'i Arc<Schema>,
        sample_type: SampleType,
    ) -> Self {
        Self { default_database, default_table, schema, sample_type, tables: HashMap::default(), key: Vec::new() }
    }

    /// Index of the record's table, or why there is none.
    pub(crate) fn table(&mut self, route: Route<'_>, out: &mut RowSet) -> Result<usize, Misrouted> {
        let unrouted = |reason: &str| Misrouted { reason: reason.to_owned(), unrouted: true };
        let database = route.database.or(self.default_database.map(str::as_bytes));
        let table = route.table.or(self.default_table.map(str::as_bytes));
        let (Some(database), Some(table)) = (database, table) else {
            return Err(unrouted("kusto.database and kusto.table are neither among the attributes nor in the body"));
        };
        self.key.clear();
        self.key.extend_from_slice(&database.len().to_le_bytes());
        self.key.extend_from_slice(database);
        self.key.extend_from_slice(table);
        if let Some(&index) = self.tables.get(&self.key) {
            return Ok(index);
        }
        let table: Arc<str> = names::normalize_id(table).into();
        let database: Arc<str> = names::normalize_id(database).into();
        if database.is_empty() || table.is_empty() {
            return Err(unrouted("kusto.database or kusto.table has no letter or digit"));
        }
        let (schema, sample_type) = (self.schema, self.sample_type);
        let index = out.find_or_add(Destination { database: &database, table: &table, schema, sample_type });
        let index = index.ok_or_else(|| Misrouted { reason: RowSet::too_many_tables(), unrouted: false })?;
        if self.tables.len() < MAX_NAMES {
            self.tables.insert(self.key.clone(), index);
        }
        Ok(index)
    }
}
