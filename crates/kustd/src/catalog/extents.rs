//! Extents, sealed positions and remembered batch ids in the catalogue.

use std::collections::HashMap;

use rusqlite::params;

use super::{Catalog, CatalogError, Edit, Operation, TableId};
use crate::storage::shred::ShreddedKey;

/// One immutable Parquet file, as the catalogue knows it. Times are ticks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExtentRecord {
    /// Guid, also the name of the file.
    pub(crate) id: String,
    /// Table that owns it.
    pub(crate) table: TableId,
    /// Rows in it.
    pub(crate) rows: u64,
    /// Size of the file.
    pub(crate) bytes: u64,
    /// Size of the rows in memory before they were encoded.
    pub(crate) original_bytes: u64,
    /// When it was made.
    pub(crate) created: i64,
    /// Earliest and latest ingestion of its rows.
    pub(crate) ingested: (i64, i64),
    /// Id of the time column that `times` is about.
    pub(crate) time_column: Option<u32>,
    /// Smallest and largest value of that column; None when all are null.
    pub(crate) times: Option<(i64, i64)>,
    /// Ids of the dynamic columns that are stored as dictionaries.
    pub(crate) dictionaries: Vec<u32>,
    /// Keys of plain dynamic columns that have columns of their own.
    pub(crate) shredded: Vec<ShreddedKey>,
    /// Extent tags.
    pub(crate) tags: Vec<String>,
}

/// Identity of an ingested batch: the table and the sender's id.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct BatchKey(pub(crate) Vec<u8>);

/// One atomic change of the stored rows.
#[derive(Debug, Default)]
pub(crate) struct Round {
    /// New extents.
    pub(crate) added: Vec<ExtentRecord>,
    /// Extents that end.
    pub(crate) removed: Vec<String>,
    /// Frames up to this LSN are now in extents (or gone).
    pub(crate) sealed: Vec<(TableId, u64)>,
    /// Batch ids to remember with the time they were seen.
    pub(crate) batches: Vec<(BatchKey, i64)>,
    /// Batch ids seen before this time are forgotten.
    pub(crate) forget_batches_before: Option<i64>,
    /// The operation that this is the work of, as it ends.
    pub(crate) operation: Option<Operation>,
}

impl Edit<'_> {
    /// Stores a round of extents.
    pub(crate) fn put_round(&mut self, round: &Round) -> Result<(), CatalogError> {
        if let Some(operation) = &round.operation {
            self.end_operation(operation)?;
        }
        for id in &round.removed {
            self.execute("removing an extent", "DELETE FROM extents WHERE id = ?1", [id])?;
        }
        for extent in &round.added {
            self.put_extent(extent)?;
        }
        for (table, lsn) in &round.sealed {
            let sql = "UPDATE tables SET sealed_lsn = max(sealed_lsn, ?2) WHERE id = ?1";
            self.execute("moving a sealed position", sql, params![table.0, lsn.cast_signed()])?;
        }
        for (key, seen) in &round.batches {
            let sql = "INSERT OR REPLACE INTO batches (key, seen) VALUES (?1, ?2)";
            self.execute("remembering a batch", sql, params![key.0, seen])?;
        }
        if let Some(before) = round.forget_batches_before {
            self.execute("forgetting batches", "DELETE FROM batches WHERE seen < ?1", [before])?;
        }
        Ok(())
    }

    fn put_extent(&self, extent: &ExtentRecord) -> Result<(), CatalogError> {
        let sql = "INSERT INTO extents (id, table_id, row_count, bytes, original_bytes, created, min_ingested, max_ingested,
                       time_column, min_time, max_time, dictionaries, tags, shredded)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)";
        let json = |what: &dyn Fn() -> serde_json::Result<String>| what().map_err(|e| self.catalog.damaged(e.to_string()));
        let values = params![
            extent.id,
            extent.table.0,
            extent.rows.cast_signed(),
            extent.bytes.cast_signed(),
            extent.original_bytes.cast_signed(),
            extent.created,
            extent.ingested.0,
            extent.ingested.1,
            extent.time_column,
            extent.times.map(|t| t.0),
            extent.times.map(|t| t.1),
            json(&|| serde_json::to_string(&extent.dictionaries))?,
            json(&|| serde_json::to_string(&extent.tags))?,
            json(&|| serde_json::to_string(&extent.shredded))?,
        ];
        self.execute("adding an extent", sql, values)
    }

    /// Forgets every sealed position: the journal starts anew.
    pub(crate) fn reset_sealed(&mut self) -> Result<(), CatalogError> {
        self.execute("resetting sealed positions", "UPDATE tables SET sealed_lsn = 0", [])
    }
}

impl Catalog {
    /// All extents by table.
    pub(crate) fn extents(&self) -> Result<HashMap<TableId, Vec<ExtentRecord>>, CatalogError> {
        let connection = self.connection.lock();
        let load = || -> rusqlite::Result<Vec<ExtentRecord>> {
            let sql = "SELECT id, table_id, row_count, bytes, original_bytes, created, min_ingested, max_ingested,
                           time_column, min_time, max_time, dictionaries, tags, shredded FROM extents ORDER BY created, id";
            let mut statement = connection.prepare(sql)?;
            statement.query_map([], extent)?.collect()
        };
        let mut extents: HashMap<TableId, Vec<ExtentRecord>> = HashMap::new();
        for extent in load().map_err(|source| self.failed("loading extents", source))? {
            extents.entry(extent.table).or_default().push(extent);
        }
        Ok(extents)
    }

    /// LSN up to which each table's frames are in extents.
    pub(crate) fn sealed_positions(&self) -> Result<HashMap<TableId, u64>, CatalogError> {
        let connection = self.connection.lock();
        let load = || -> rusqlite::Result<HashMap<TableId, u64>> {
            let mut statement = connection.prepare("SELECT id, sealed_lsn FROM tables")?;
            statement.query_map([], |row| Ok((TableId(row.get(0)?), row.get::<_, i64>(1)?.cast_unsigned())))?.collect()
        };
        load().map_err(|source| self.failed("loading sealed positions", source))
    }

    /// Remembered batch ids with the time they were seen.
    pub(crate) fn batches(&self) -> Result<Vec<(BatchKey, i64)>, CatalogError> {
        let connection = self.connection.lock();
        let load = || -> rusqlite::Result<Vec<(BatchKey, i64)>> {
            let mut statement = connection.prepare("SELECT key, seen FROM batches")?;
            statement.query_map([], |row| Ok((BatchKey(row.get(0)?), row.get(1)?)))?.collect()
        };
        load().map_err(|source| self.failed("loading batch ids", source))
    }
}

fn extent(row: &rusqlite::Row<'_>) -> rusqlite::Result<ExtentRecord> {
    let list = |index: usize, error: serde_json::Error| {
        rusqlite::Error::FromSqlConversionFailure(index, rusqlite::types::Type::Text, Box::new(error))
    };
    let dictionaries: String = row.get(11)?;
    let (tags, shredded): (String, String) = (row.get(12)?, row.get(13)?);
    let times: (Option<i64>, Option<i64>) = (row.get(9)?, row.get(10)?);
    Ok(ExtentRecord {
        id: row.get(0)?,
        table: TableId(row.get(1)?),
        rows: row.get::<_, i64>(2)?.cast_unsigned(),
        bytes: row.get::<_, i64>(3)?.cast_unsigned(),
        original_bytes: row.get::<_, i64>(4)?.cast_unsigned(),
        created: row.get(5)?,
        ingested: (row.get(6)?, row.get(7)?),
        time_column: row.get(8)?,
        times: times.0.zip(times.1),
        dictionaries: serde_json::from_str(&dictionaries).map_err(|e| list(11, e))?,
        tags: serde_json::from_str(&tags).map_err(|e| list(12, e))?,
        shredded: serde_json::from_str(&shredded).map_err(|e| list(13, e))?,
    })
}
