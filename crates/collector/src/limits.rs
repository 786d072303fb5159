//! Limits of single tables: how many series they may have, and how many rows they may get.
//!
//! A limit guards the store and Kusto against one metric or one program that runs wild, without refusing the requests
//! that its rows come in: what is above it is left out and counted, and the rest is stored.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use telemetry::{RowSet, SampleType};
use tokio::time::Instant;
use wal::csv::Records;

use crate::config::TableLimit;
use crate::metrics::{LimitedRows, Metrics};

/// A series that was not seen for this long no longer counts.
const SERIES_FORGOTTEN_AFTER: Duration = Duration::from_secs(3600);

/// How often series that are no longer there are looked for while a table has as many as it may have.
const SWEEP_PERIOD: Duration = Duration::from_secs(60);

/// Rates are averages over this time: a table may get as many rows at once.
const RATE_PERIOD: Duration = Duration::from_secs(60);

/// Database and table.
type TableName = (Arc<str>, Arc<str>);

/// The limits of all tables, over all sources.
pub(crate) struct Limits {
    state: Mutex<State>,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct State {
    rules: Vec<TableLimit>,
    /// Nothing for those that no rule is about.
    tables: HashMap<TableName, Option<Table>>,
}

/// What the limits did to the rows of a table in one request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Applied {
    table: TableName,
    /// Rows above the limit of series.
    series: u64,
    /// Rows above the rate.
    rate: u64,
    kept: u64,
}

impl Applied {
    /// Rows that were left out.
    pub(crate) fn dropped(&self) -> u64 {
        self.series + self.rate
    }
}

/// A table that a rule is about.
struct Table {
    max_series: Option<usize>,
    rows_per_second: Option<u64>,
    /// By id, when each was seen last.
    series: HashMap<i64, Instant>,
    swept: Option<Instant>,
    /// Rows that it may still get.
    room: f64,
    filled: Instant,
}

impl Limits {
    /// None, until [`Limits::follow`].
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        Limits { state: Mutex::default(), metrics }
    }

    /// From now on the first of `rules` that names a table is the table's. What is known of tables stays.
    pub(crate) fn follow(&self, rules: Vec<TableLimit>, now: Instant) {
        let mut state = self.state.lock();
        state.rules = rules;
        let State { rules, tables } = &mut *state;
        tables.retain(|(database, table), known| match (rule(rules, database, table), known) {
            (Some(rule), Some(known)) => {
                known.follow(rule, now);
                true
            }
            _ => false,
        });
    }

    /// Takes out what is above the limits. What came of it belongs to [`Limits::stored`] or [`Limits::refused`].
    pub(crate) fn apply(&self, rows: &mut RowSet, now: Instant) -> Vec<Applied> {
        let mut state = self.state.lock();
        let State { rules, tables } = &mut *state;
        if rules.is_empty() {
            return Vec::new();
        }
        let mut applied = Vec::new();
        rows.change_tables(|of, rows| {
            let key = (Arc::clone(&of.database), Arc::clone(&of.table));
            let table = tables.entry(key.clone()).or_insert_with(|| Some(Table::new(rule(rules, &of.database, &of.table)?, now)));
            let table = table.as_mut()?;
            let bytes = rows.joined();
            let mut rows = Rows { bytes: Cow::Borrowed(&bytes), count: of.rows };
            let series = if of.sample_type == SampleType::Metric { table.limit_series(&mut rows, now) } else { 0 };
            let rate = table.limit_rate(&mut rows, now);
            applied.push(Applied { table: key, series, rate, kept: rows.count.into() });
            match rows.bytes {
                Cow::Owned(bytes) => Some((bytes, rows.count)),
                Cow::Borrowed(_) => None,
            }
        });
        applied
    }

    /// The rest was stored: what was left out is lost, and is counted.
    pub(crate) fn stored(&self, applied: Vec<Applied>) {
        for Applied { table: (database, table), series, rate, .. } in applied {
            for (limit, dropped) in [("series", series), ("rate", rate)].into_iter().filter(|(_, dropped)| *dropped > 0) {
                let labels = LimitedRows { database: database.to_string(), table: table.to_string(), limit };
                if self.metrics.limited_rows.get_or_create(&labels).inc_by(dropped) == 0 {
                    tracing::warn!(%database, %table, limit, "rows are left out: the table is above its limit");
                }
            }
        }
    }

    /// The rest was not stored, and comes again: it does not count.
    pub(crate) fn refused(&self, applied: Vec<Applied>) {
        let mut state = self.state.lock();
        for Applied { table, kept, .. } in applied {
            if let Some(Some(table)) = state.tables.get_mut(&table) {
                table.room += kept as f64;
            }
        }
    }
}

fn rule<'r>(rules: &'r [TableLimit], database: &str, table: &str) -> Option<&'r TableLimit> {
    rules.iter().find(|rule| rule.is_about(database, table))
}

/// Rows of a table that are looked at, and their number.
struct Rows<'r> {
    bytes: Cow<'r, [u8]>,
    count: u32,
}

impl Table {
    fn new(rule: &TableLimit, now: Instant) -> Table {
        let room = room(rule.max_rows_per_second);
        let (max_series, rows_per_second) = (rule.max_series, rule.max_rows_per_second);
        Table { max_series, rows_per_second, series: HashMap::new(), swept: None, room, filled: now }
    }

    fn follow(&mut self, rule: &TableLimit, now: Instant) {
        if self.rows_per_second.is_none() {
            (self.room, self.filled) = (room(rule.max_rows_per_second), now);
        }
        (self.max_series, self.rows_per_second) = (rule.max_series, rule.max_rows_per_second);
    }

    fn limit_series(&mut self, rows: &mut Rows<'_>, now: Instant) -> u64 {
        let Some(max) = self.max_series else { return 0 };
        keep(rows, |row| match series_id(row) {
            Some(id) => self.admit(id, max, now),
            None => true,
        })
    }

    fn admit(&mut self, id: i64, max: usize, now: Instant) -> bool {
        if let Some(seen) = self.series.get_mut(&id) {
            *seen = now;
            return true;
        }
        if self.series.len() >= max && self.swept.is_none_or(|swept| now - swept >= SWEEP_PERIOD) {
            self.swept = Some(now);
            self.series.retain(|_, seen| now.saturating_duration_since(*seen) < SERIES_FORGOTTEN_AFTER);
        }
        if self.series.len() >= max {
            return false;
        }
        self.series.insert(id, now);
        true
    }

    fn limit_rate(&mut self, rows: &mut Rows<'_>, now: Instant) -> u64 {
        let Some(rate) = self.rows_per_second else { return 0 };
        let rate = rate as f64;
        let gained = now.saturating_duration_since(self.filled).as_secs_f64() * rate;
        self.room = (self.room + gained).min(rate * RATE_PERIOD.as_secs_f64());
        self.filled = now;
        let fit = u64::from(rows.count).min(self.room as u64);
        self.room -= fit as f64;
        let mut left = fit;
        if fit == u64::from(rows.count) {
            return 0;
        }
        keep(rows, |_| {
            let fits = left > 0;
            left = left.saturating_sub(1);
            fits
        })
    }
}

/// Rows that a table may get at once.
fn room(rows_per_second: Option<u64>) -> f64 {
    rows_per_second.unwrap_or(0) as f64 * RATE_PERIOD.as_secs_f64()
}

/// Keeps the rows that `wanted` says; how many went.
fn keep(rows: &mut Rows<'_>, mut wanted: impl FnMut(&[u8]) -> bool) -> u64 {
    let mut kept = Vec::new();
    let (mut dropped, mut start) = (0, 0);
    for row in Records::new(&rows.bytes) {
        if wanted(row) {
            if dropped > 0 {
                kept.extend_from_slice(row);
            }
        } else {
            if dropped == 0 {
                // Everything in front stays; most requests never get here.
                kept.extend_from_slice(&rows.bytes[..start]);
            }
            dropped += 1;
        }
        start += row.len();
    }
    if dropped > 0 {
        rows.bytes = Cow::Owned(kept);
        rows.count -= dropped;
    }
    dropped.into()
}

/// The second column of a row of metrics. The first, a time, has no comma.
fn series_id(row: &[u8]) -> Option<i64> {
    std::str::from_utf8(row.split(|byte| *byte == b',').nth(1)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests;
