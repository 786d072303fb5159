//! What must outlive the process: the last good document of each object, its status, and what was written to it. SQLite,
//! every change committed and synced before it is shown.

use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::super::{Key, documents};
use super::FilesError;
use super::parse::Kind;
use super::statuses::{StatusWrite, Written};

/// The layout of the tables. Newer code reads older files, older code refuses newer ones.
const VERSION: i64 = 1;
const SCHEMA: &str = "
    CREATE TABLE object (
        api_version TEXT NOT NULL,
        kind TEXT NOT NULL,
        namespace TEXT NOT NULL,
        name TEXT NOT NULL,
        file TEXT NOT NULL,
        document TEXT NOT NULL,   -- as the file has it
        overlay TEXT NOT NULL,    -- merge patch: what was written to metadata and spec
        status TEXT,
        uid TEXT NOT NULL,
        generation INTEGER NOT NULL,
        version INTEGER NOT NULL,
        created TEXT NOT NULL,
        deleted TEXT,             -- when it went from the files
        PRIMARY KEY (api_version, kind, namespace, name)
    ) STRICT;
    PRAGMA user_version = 1;";

/// An object that is gone from the files comes back as it was within this time: an editor that empties a file before it
/// writes it must not make a rule forget which windows it ran.
const REMEMBERED: SignedDuration = SignedDuration::from_hours(7 * 24);

/// The table of objects.
#[derive(Debug)]
pub(super) struct State {
    database: Connection,
}

/// A row of the table.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Stored {
    pub(super) key: Key,
    pub(super) file: String,
    pub(super) document: Value,
    overlay: Map<String, Value>,
    status: Option<Value>,
    uid: String,
    generation: i64,
    version: i64,
    created: String,
    pub(super) deleted: Option<String>,
}

impl Stored {
    /// The object as readers see it; none once it is gone and nothing holds it.
    pub(super) fn object(&self) -> Option<Value> {
        let mut object = self.content();
        if self.deleted.is_some() {
            let held = object.pointer("/metadata/finalizers").and_then(Value::as_array).is_some_and(|list| !list.is_empty());
            if !held {
                return None;
            }
        }
        let mut metadata = Map::new();
        metadata.insert("uid".to_owned(), json!(self.uid));
        metadata.insert("generation".to_owned(), json!(self.generation));
        metadata.insert("resourceVersion".to_owned(), json!(self.version.to_string()));
        metadata.insert("creationTimestamp".to_owned(), json!(self.created));
        if let Some(deleted) = &self.deleted {
            metadata.insert("deletionTimestamp".to_owned(), json!(deleted));
        }
        let mut patch = Map::new();
        patch.insert("metadata".to_owned(), Value::Object(metadata));
        documents::merge(&mut object, &patch);
        if let (Some(status), Value::Object(fields)) = (&self.status, &mut object) {
            fields.insert("status".to_owned(), status.clone());
        }
        Some(object)
    }

    fn content(&self) -> Value {
        let mut content = self.document.clone();
        documents::merge(&mut content, &self.overlay);
        content
    }

    /// Runs a change of the content and counts a generation if it changed the spec.
    fn change(&mut self, change: impl FnOnce(&mut Self)) {
        let before = self.content().get("spec").cloned();
        change(self);
        if self.content().get("spec") != before.as_ref() {
            self.generation += 1;
        }
    }
}

impl State {
    pub(super) fn open(path: &Path, now: Timestamp) -> Result<Self, FilesError> {
        let mut database = Connection::open(path)?;
        database.pragma_update(None, "journal_mode", "WAL")?;
        database.pragma_update(None, "synchronous", "FULL")?;
        let transaction = database.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        let version: i64 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        match version {
            0 => transaction.execute_batch(SCHEMA)?,
            VERSION => {}
            newer => return Err(FilesError::Newer { path: path.to_owned(), version: newer, known: VERSION }),
        }
        transaction.commit()?;
        let state = Self { database };
        state.forget(now - REMEMBERED)?;
        Ok(state)
    }

    /// Removes objects that went before `until` and that nothing holds.
    fn forget(&self, until: Timestamp) -> Result<(), FilesError> {
        let mut gone = self.database.prepare("SELECT * FROM object WHERE deleted < ?1")?;
        let rows = gone.query_map([until.to_string()], |row| Ok((kind(row)?, stored(row)?)))?.collect::<Result<Vec<_>, _>>()?;
        for (kind, row) in rows.iter().filter(|(_, row)| row.object().is_none()) {
            let delete = "DELETE FROM object WHERE api_version = ?1 AND kind = ?2 AND namespace = ?3 AND name = ?4";
            self.database.execute(delete, params![kind.0, kind.1, row.key.namespace, row.key.name])?;
        }
        Ok(())
    }

    /// All objects of a kind, those that are gone too.
    pub(super) fn all(&self, kind: &Kind) -> Result<Vec<Stored>, FilesError> {
        let mut select = self.database.prepare_cached("SELECT * FROM object WHERE api_version = ?1 AND kind = ?2")?;
        let rows = select.query_map(params![kind.0, kind.1], stored)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Makes `wanted`, documents by key with their files, the present objects of a kind. Returns what changed.
    pub(super) fn replace(&mut self, kind: &Kind, wanted: Vec<(Key, String, Value)>, now: Timestamp) -> Result<Vec<Stored>, FilesError> {
        let mut present: std::collections::BTreeMap<Key, Stored> = self.all(kind)?.into_iter().map(|row| (row.key.clone(), row)).collect();
        let mut changed = Vec::new();
        for (key, file, document) in wanted {
            let row = match present.remove(&key) {
                None => Stored {
                    key,
                    file,
                    document,
                    overlay: Map::new(),
                    status: None,
                    uid: Uuid::new_v4().to_string(),
                    generation: 1,
                    version: 1,
                    created: seconds(now),
                    deleted: None,
                },
                Some(row) if row.document == document && row.file == file && row.deleted.is_none() => continue,
                Some(mut row) => {
                    row.change(|row| {
                        row.document = document;
                        row.file = file;
                        row.deleted = None;
                    });
                    row.version += 1;
                    row
                }
            };
            changed.push(row);
        }
        for mut row in present.into_values().filter(|row| row.deleted.is_none()) {
            row.deleted = Some(seconds(now));
            row.version += 1;
            changed.push(row);
        }
        let transaction = self.database.transaction()?;
        for row in &changed {
            write(&transaction, kind, row)?;
        }
        transaction.commit()?;
        Ok(changed)
    }

    /// Sets statuses in one transaction, each if its object still has the version that the status was made from.
    pub(super) fn set_statuses(&mut self, writes: &[StatusWrite]) -> Result<Vec<Written>, FilesError> {
        let transaction = self.database.transaction()?;
        let mut written = Vec::with_capacity(writes.len());
        {
            let mut update = transaction.prepare_cached(
                "UPDATE object SET status = ?1, version = version + 1
                 WHERE api_version = ?2 AND kind = ?3 AND namespace = ?4 AND name = ?5 AND version = ?6",
            )?;
            for StatusWrite { kind, key, version, status, .. } in writes {
                let status = status.as_ref().map(Value::to_string);
                let changed = update.execute(params![status, kind.0, kind.1, key.namespace, key.name, version])?;
                written.push(if changed == 1 { Written::As(version + 1) } else { Written::Stale });
            }
        }
        transaction.commit()?;
        Ok(written)
    }

    /// Writes to metadata and spec, which stays written when the file changes.
    pub(super) fn patch(&self, kind: &Kind, key: &Key, patch: &Map<String, Value>) -> Result<Option<Stored>, FilesError> {
        self.modify(kind, key, |row| {
            row.change(|row| {
                let mut content = row.content();
                documents::merge(&mut content, patch);
                row.overlay = documents::merge_diff(&row.document, &content);
            });
        })
    }

    fn modify(&self, kind: &Kind, key: &Key, change: impl FnOnce(&mut Stored)) -> Result<Option<Stored>, FilesError> {
        let mut select =
            self.database.prepare_cached("SELECT * FROM object WHERE api_version = ?1 AND kind = ?2 AND namespace = ?3 AND name = ?4")?;
        let row = select.query_row(params![kind.0, kind.1, key.namespace, key.name], stored).optional()?;
        let Some(mut row) = row.filter(|row| row.object().is_some()) else { return Ok(None) };
        change(&mut row);
        row.version += 1;
        write(&self.database, kind, &row)?;
        Ok(Some(row))
    }
}

/// Kubernetes shows times of objects in whole seconds.
fn seconds(time: Timestamp) -> String {
    let whole = Timestamp::from_second(time.as_second()).unwrap_or(time);
    whole.to_string()
}

fn write(database: &Connection, kind: &Kind, row: &Stored) -> Result<(), FilesError> {
    database.prepare_cached("INSERT OR REPLACE INTO object VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)")?.execute(
        params![
            kind.0,
            kind.1,
            row.key.namespace,
            row.key.name,
            row.file,
            row.document.to_string(),
            serde_json::to_string(&row.overlay).unwrap_or_default(),
            row.status.as_ref().map(Value::to_string),
            row.uid,
            row.generation,
            row.version,
            row.created,
            row.deleted,
        ],
    )?;
    Ok(())
}

fn kind(row: &Row<'_>) -> rusqlite::Result<Kind> {
    Ok((row.get("api_version")?, row.get("kind")?))
}

fn stored(row: &Row<'_>) -> rusqlite::Result<Stored> {
    let parsed = |name: &str| -> rusqlite::Result<Option<Value>> {
        let Some(text) = row.get::<_, Option<String>>(name)? else { return Ok(None) };
        let failed = |error| rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(error));
        serde_json::from_str(&text).map(Some).map_err(failed)
    };
    Ok(Stored {
        key: Key { namespace: row.get("namespace")?, name: row.get("name")? },
        file: row.get("file")?,
        document: parsed("document")?.unwrap_or_default(),
        overlay: parsed("overlay")?.and_then(|overlay| overlay.as_object().cloned()).unwrap_or_default(),
        status: parsed("status")?,
        uid: row.get("uid")?,
        generation: row.get("generation")?,
        version: row.get("version")?,
        created: row.get("created")?,
        deleted: row.get("deleted")?,
    })
}
