//! The ledger for people and programs: rows by table, and where they are.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use serde::{Deserialize, Serialize};
use wal::{Counts, Ledger, Store};

/// A ledger as it is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerReport {
    /// For every table: accepted = forwarded + landed + dead-lettered + quarantined + dropped + on disk.
    pub balanced: bool,
    /// All tables together.
    pub total: Rows,
    /// Each table.
    pub tables: Vec<TableRows>,
    /// Rows that were left out before they were accepted.
    pub filtered: Vec<Filtered>,
    /// Segments of senders that came under a number that was known with other rows.
    pub conflicts: u64,
    /// How often the totals began anew because no checkpoint was readable.
    pub resets: u64,
}

/// Rows, by where they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rows {
    /// Durable here, ever.
    pub accepted: u64,
    /// Of these: the next process has them.
    pub forwarded: u64,
    /// Kusto has them.
    pub landed: u64,
    /// Refused for ever, and kept.
    pub dead_lettered: u64,
    /// In bytes that cannot be read, and are kept.
    pub quarantined: u64,
    /// Given up on purpose.
    pub dropped: u64,
    /// Here, and on their way.
    pub on_disk: u64,
    /// Perhaps also stored elsewhere; counted above too.
    pub maybe_duplicate: u64,
}

/// Rows of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableRows {
    /// Its database.
    pub database: String,
    /// Its name.
    pub table: String,
    /// Hash of its columns; a table has rows under several.
    pub schema: String,
    /// Its rows.
    #[serde(flatten)]
    pub rows: Rows,
}

/// Rows that were left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filtered {
    /// Where they would have gone.
    pub database: String,
    /// Why they were left out.
    pub reason: String,
    /// How many.
    pub rows: u64,
}

impl From<&Ledger> for LedgerReport {
    fn from(ledger: &Ledger) -> LedgerReport {
        let table = |(key, counts): (&wal::TableKey, &Counts)| TableRows {
            database: key.database.to_string(),
            table: key.table.to_string(),
            schema: key.schema.to_string(),
            rows: (*counts).into(),
        };
        let filtered = ledger.filtered.iter().map(|((database, reason), rows)| Filtered {
            database: database.to_string(),
            reason: reason.to_string(),
            rows: *rows,
        });
        LedgerReport {
            balanced: ledger.check().is_ok(),
            total: ledger.total().into(),
            tables: ledger.tables.iter().map(table).collect(),
            filtered: filtered.collect(),
            conflicts: ledger.conflicts,
            resets: ledger.resets,
        }
    }
}

impl From<Counts> for Rows {
    fn from(counts: Counts) -> Rows {
        let Counts { accepted, forwarded, landed, dead_lettered, quarantined, dropped, on_disk, maybe_duplicate } = counts;
        Rows { accepted, forwarded, landed, dead_lettered, quarantined, dropped, on_disk, maybe_duplicate }
    }
}

impl Rows {
    fn columns(&self) -> [(&'static str, u64); 8] {
        [
            ("accepted", self.accepted),
            ("forwarded", self.forwarded),
            ("landed", self.landed),
            ("dead_lettered", self.dead_lettered),
            ("quarantined", self.quarantined),
            ("dropped", self.dropped),
            ("on_disk", self.on_disk),
            ("maybe_duplicate", self.maybe_duplicate),
        ]
    }
}

impl fmt::Display for LedgerReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |table: &TableRows| match table.schema.as_str() {
            "" => format!("{}.{}", table.database, table.table),
            schema => format!("{}.{} ({schema})", table.database, table.table),
        };
        let names: Vec<String> = self.tables.iter().map(name).collect();
        let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0).max("total".len());
        let line = |f: &mut fmt::Formatter<'_>, name: &str, rows: &Rows| {
            write!(f, "{name:<width$}")?;
            rows.columns().iter().try_for_each(|(_, count)| write!(f, " {count:>15}"))?;
            writeln!(f)
        };
        write!(f, "{:<width$}", "table")?;
        self.total.columns().iter().try_for_each(|(column, _)| write!(f, " {column:>15}"))?;
        writeln!(f)?;
        for (name, table) in names.iter().zip(&self.tables) {
            line(f, name, &table.rows)?;
        }
        line(f, "total", &self.total)?;
        for Filtered { database, reason, rows } in &self.filtered {
            writeln!(f, "left out before it was accepted: {rows} rows of {database}, {reason}")?;
        }
        if self.conflicts + self.resets > 0 {
            writeln!(f, "{} segments known with other rows, {} times the totals began anew", self.conflicts, self.resets)?;
        }
        match self.balanced {
            true => writeln!(f, "balanced: accepted = forwarded + landed + dead_lettered + quarantined + dropped + on_disk"),
            false => writeln!(f, "NOT BALANCED: rows are missing, or there are too many"),
        }
    }
}

/// The ledger per table as metrics. States without rows are left out.
#[derive(Debug)]
pub(crate) struct LedgerMetrics(pub(crate) Store);

impl Collector for LedgerMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let ledger = self.0.ledger();
        let name = "adxmon_ingestor_ledger_table_rows";
        let mut metric = encoder.encode_descriptor(name, "Rows by table and where they are", None, MetricType::Gauge)?;
        for (table, counts) in &ledger.tables {
            for (state, rows) in Rows::from(*counts).columns() {
                if rows > 0 {
                    let labels = [
                        ("database", table.database.as_ref()),
                        ("table", table.table.as_ref()),
                        ("schema", table.schema.as_ref()),
                        ("state", state),
                    ];
                    ConstGauge::new(i64::try_from(rows).unwrap_or(i64::MAX)).encode(metric.encode_family(&labels)?)?;
                }
            }
        }
        Ok(())
    }
}
