//! What the alerter remembers: until when each rule has run, and the notifications that nobody has taken yet.
//!
//! Both are written in one transaction when a run ends: after a kill a window and its notifications are there together, or
//! the window runs again. So every notification is delivered at least once.
//!
//! The outbox is keyed by destination and CorrelationID: a notification replaces those of earlier windows with the same
//! key that still wait. It is bounded; past the bound the oldest are dropped, and their names are returned.

mod database;

use std::collections::BTreeMap;
use std::path::Path;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, ToSql, params, params_from_iter};

use database::Database;
pub use database::StateError;

/// Most notifications that wait.
pub const MAX_WAITING: usize = 10_000;
/// Most bytes of their bodies.
pub const MAX_WAITING_BYTES: usize = 64 << 20;

/// Who takes notifications.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// The receiver at `--alerter-address`.
    Receiver = 0,
    /// Alertmanager at `--alertmanager-url`.
    Alertmanager = 1,
}

impl Target {
    /// The name that metrics and logs use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Target::Receiver => "receiver",
            Target::Alertmanager => "alertmanager",
        }
    }
}

/// How far a rule has run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// The windows up to here are done: the next one begins here.
    pub end: Timestamp,
    /// Windows have run up to here. What lies between, if anything, another process ran that may not have delivered all that
    /// it found: it runs again.
    pub reached: Timestamp,
}

impl Cursor {
    /// All windows up to `end` are done, and none was run after it.
    #[must_use]
    pub const fn at(end: Timestamp) -> Cursor {
        Cursor { end, reached: end }
    }
}

/// A notification for one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Who takes it.
    pub target: Target,
    /// Whom it is for.
    pub destination: String,
    /// Its CorrelationID; empty for none.
    pub correlation: String,
    /// Its title, for logs.
    pub title: String,
    /// What is sent.
    pub body: Vec<u8>,
}

/// The end of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// `namespace/name` of the rule.
    pub rule: String,
    /// The window that ran.
    pub window: (Timestamp, Timestamp),
    /// Whether the window is done: the next one begins at its end.
    pub done: bool,
    /// What it found.
    pub notifications: Vec<Outgoing>,
}

/// A notification to be sent now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// Its id in the outbox.
    pub id: i64,
    /// `namespace/name` of its rule.
    pub rule: String,
    /// Whom it is for.
    pub destination: String,
    /// Its CorrelationID.
    pub correlation: String,
    /// Its title.
    pub title: String,
    /// What to send.
    pub body: Vec<u8>,
    /// Tries before this one.
    pub attempts: u32,
    /// How many of the last of them were refused in a row.
    pub refusals: u32,
    /// When it was made.
    pub created: Timestamp,
}

/// A notification that was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// Who should have taken it.
    pub target: i64,
    /// `namespace/name` of its rule.
    pub rule: String,
    /// Its CorrelationID.
    pub correlation: String,
    /// Its title.
    pub title: String,
}

/// What waits for a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Waiting {
    /// Notifications.
    pub notifications: u64,
    /// When the oldest was made.
    pub oldest: Option<Timestamp>,
}

/// Cursors and outbox. Cheap to clone.
#[derive(Clone)]
pub struct State {
    database: Database,
    max_waiting: usize,
    max_bytes: usize,
}

impl State {
    /// Opens `alerter.sqlite` in a folder, which is made if it is not there.
    ///
    /// # Errors
    /// Where the file cannot be used. One that is damaged is set aside, and the state begins anew.
    pub fn open(folder: &Path) -> Result<State, StateError> {
        State::with_limits(folder, MAX_WAITING, MAX_WAITING_BYTES)
    }

    /// [`State::open`] with other bounds of the outbox.
    ///
    /// # Errors
    /// As [`State::open`].
    pub fn with_limits(folder: &Path, max_waiting: usize, max_bytes: usize) -> Result<State, StateError> {
        Ok(State { database: Database::open(&folder.join("alerter.sqlite"))?, max_waiting, max_bytes })
    }

    /// Keeps the end of a run; returns the notifications that the bound of the outbox cost.
    ///
    /// # Errors
    /// Where it cannot be written: nothing of it is kept then.
    pub async fn record(&self, record: Record, now: Timestamp) -> Result<Vec<Dropped>, StateError> {
        let (count, bytes) = (self.max_waiting as u64, self.max_bytes as u64);
        self.database
            .run(move |db| {
                if record.done {
                    set_cursor(db, &record.rule, Cursor::at(record.window.1))?;
                }
                for notification in &record.notifications {
                    insert(db, &record, notification, now)?;
                }
                if record.notifications.is_empty() { Ok(Vec::new()) } else { shrink(db, count, bytes) }
            })
            .await
    }

    /// Until when each rule has run.
    ///
    /// # Errors
    /// Where the state cannot be read.
    pub async fn cursors(&self) -> Result<BTreeMap<String, Cursor>, StateError> {
        self.database.run(|db| read_cursors(db, "SELECT rule, ended, max(ended, reached) FROM cursors")).await
    }

    /// Cursors as another process may take them over: not past a window whose notifications still wait here.
    ///
    /// # Errors
    /// Where the state cannot be read.
    pub async fn settled_cursors(&self) -> Result<BTreeMap<String, Cursor>, StateError> {
        const SETTLED: &str = "SELECT rule, min(ended, ifnull((SELECT min(started) FROM notifications n WHERE n.rule = c.rule), ended)),
            max(ended, reached) FROM cursors c";
        self.database.run(|db| read_cursors(db, SETTLED)).await
    }

    /// The start of the first window of a rule of whose notifications one still waits.
    ///
    /// # Errors
    /// Where the state cannot be read.
    pub async fn waits_since(&self, rule: String) -> Result<Option<Timestamp>, StateError> {
        let read = move |db: &Connection| {
            db.prepare_cached("SELECT min(started) FROM notifications WHERE rule = ?1")?
                .query_row([&rule], |row| row.get::<_, Option<i64>>(0))
        };
        Ok(self.database.run(read).await?.map(from_nanos))
    }

    /// Takes over cursors of another process, where they are later than ours.
    ///
    /// # Errors
    /// Where they cannot be written.
    pub async fn adopt_cursors(&self, cursors: BTreeMap<String, Cursor>) -> Result<(), StateError> {
        self.database
            .run(move |db| {
                for (rule, cursor) in &cursors {
                    set_cursor(db, rule, *cursor)?;
                }
                Ok(())
            })
            .await
    }

    /// Forgets the cursor of a rule that is gone. What it found is delivered all the same.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub async fn forget(&self, rule: String) -> Result<(), StateError> {
        self.database.run(move |db| db.prepare_cached("DELETE FROM cursors WHERE rule = ?1")?.execute([&rule]).map(drop)).await
    }

    /// Notifications of a target that are due, oldest first, at most `limit`, and none for a destination in `busy`. They
    /// are due again only after [`State::delivered`] or [`State::postpone`] says how it went, or in the next process.
    ///
    /// # Errors
    /// Where the state cannot be used.
    pub async fn claim(&self, target: Target, now: Timestamp, limit: usize, busy: Vec<String>) -> Result<Vec<Claimed>, StateError> {
        self.database.run(move |db| claim(db, target, now, limit, &busy)).await
    }

    /// When the next notification of a target is due that nobody has claimed and whose destination is not in `busy`.
    ///
    /// # Errors
    /// Where the state cannot be read.
    pub async fn next_due(&self, target: Target, busy: Vec<String>) -> Result<Option<Timestamp>, StateError> {
        let read = move |db: &Connection| {
            let sql = format!("SELECT min(due) FROM notifications WHERE target = ? AND claimed = 0 {}", not_in(busy.len()));
            let target = target as i64;
            let values = std::iter::once(&target as &dyn ToSql).chain(busy.iter().map(|b| b as &dyn ToSql));
            db.prepare_cached(&sql)?.query_row(params_from_iter(values), |row| row.get::<_, Option<i64>>(0))
        };
        Ok(self.database.run(read).await?.map(from_millis))
    }

    /// The notification was taken, or is given up: it leaves the outbox.
    ///
    /// # Errors
    /// Where that cannot be written.
    pub async fn delivered(&self, id: i64) -> Result<(), StateError> {
        self.database.run(move |db| db.prepare_cached("DELETE FROM notifications WHERE id = ?1")?.execute([id]).map(drop)).await
    }

    /// The notification is to be tried again at `due`; `refused` says whether this try was.
    ///
    /// # Errors
    /// Where that cannot be written.
    pub async fn postpone(&self, id: i64, due: Timestamp, refused: bool) -> Result<(), StateError> {
        self.database
            .run(move |db| {
                db.prepare_cached(
                    "UPDATE notifications SET due = ?2, attempts = attempts + 1, claimed = 0,
                         refusals = CASE WHEN ?3 THEN refusals + 1 ELSE 0 END WHERE id = ?1",
                )?
                .execute(params![id, due.as_millisecond(), refused])
                .map(drop)
            })
            .await
    }

    /// Lets all writes fail, as on a full disk, or no longer.
    #[cfg(test)]
    pub(crate) async fn refuse_writes(&self, refuse: bool) -> Result<(), StateError> {
        self.database.run(move |db| db.pragma_update(None, "query_only", refuse)).await
    }

    /// What waits for a target.
    ///
    /// # Errors
    /// Where the state cannot be read.
    pub async fn waiting(&self, target: Target) -> Result<Waiting, StateError> {
        let read = move |db: &Connection| {
            db.prepare_cached("SELECT count(*), min(created) FROM notifications WHERE target = ?1")?
                .query_row([target as i64], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Option<i64>>(1)?)))
        };
        let (count, oldest) = self.database.run(read).await?;
        Ok(Waiting { notifications: u64::try_from(count).unwrap_or_default(), oldest: oldest.map(from_millis) })
    }

    /// How many notifications of a rule wait.
    ///
    /// # Errors
    /// Where the state cannot be read.
    pub async fn waiting_of(&self, rule: String) -> Result<u64, StateError> {
        let read = move |db: &Connection| {
            db.prepare_cached("SELECT count(*) FROM notifications WHERE rule = ?1")?.query_row([&rule], |row| row.get::<_, i64>(0))
        };
        Ok(u64::try_from(self.database.run(read).await?).unwrap_or_default())
    }
}

fn read_cursors(db: &Connection, sql: &str) -> rusqlite::Result<BTreeMap<String, Cursor>> {
    let cursor = |row: &rusqlite::Row<'_>| {
        let cursor = Cursor { end: from_nanos(row.get(1)?), reached: from_nanos(row.get(2)?) };
        Ok((row.get(0)?, cursor))
    };
    db.prepare_cached(sql)?.query_map([], cursor)?.collect()
}

fn set_cursor(db: &Connection, rule: &str, cursor: Cursor) -> rusqlite::Result<()> {
    // A cursor never goes back: its windows are done.
    db.prepare_cached(
        "INSERT INTO cursors (rule, ended, reached) VALUES (?1, ?2, ?3)
             ON CONFLICT (rule) DO UPDATE SET ended = max(ended, excluded.ended), reached = max(reached, excluded.reached)",
    )?
    .execute(params![rule, nanos(cursor.end), nanos(cursor.reached)])
    .map(drop)
}

fn insert(db: &Connection, record: &Record, notification: &Outgoing, now: Timestamp) -> rusqlite::Result<()> {
    let Outgoing { target, destination, correlation, title, body } = notification;
    let (started, window) = (nanos(record.window.0), nanos(record.window.1));
    if !correlation.is_empty() {
        db.prepare_cached("DELETE FROM notifications WHERE target = ?1 AND correlation = ?2 AND destination = ?3 AND window < ?4")?
            .execute(params![*target as i64, correlation, destination, window])?;
    }
    db.prepare_cached(
        "INSERT INTO notifications (target, rule, destination, correlation, title, window, started, body, size, created, due)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?10)",
    )?
    .execute(params![
        *target as i64,
        record.rule,
        destination,
        correlation,
        title,
        window,
        started,
        body,
        i64::try_from(body.len()).unwrap_or(i64::MAX),
        now.as_millisecond()
    ])
    .map(drop)
}

/// Drops the oldest notifications until the rest fits.
fn shrink(db: &Connection, max_count: u64, max_bytes: u64) -> rusqlite::Result<Vec<Dropped>> {
    let mut dropped = Vec::new();
    loop {
        let (count, bytes) = db
            .prepare_cached("SELECT count(*), ifnull(sum(size), 0) FROM notifications")?
            .query_row([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))?;
        if count <= i64::try_from(max_count).unwrap_or(i64::MAX) && bytes <= i64::try_from(max_bytes).unwrap_or(i64::MAX) {
            return Ok(dropped);
        }
        let oldest = db
            .prepare_cached(
                "DELETE FROM notifications WHERE id = (SELECT min(id) FROM notifications) RETURNING target, rule, correlation, title",
            )?
            .query_row([], |row| Ok(Dropped { target: row.get(0)?, rule: row.get(1)?, correlation: row.get(2)?, title: row.get(3)? }))
            .optional()?;
        match oldest {
            Some(oldest) => dropped.push(oldest),
            None => return Ok(dropped),
        }
    }
}

fn claim(db: &Connection, target: Target, now: Timestamp, limit: usize, busy: &[String]) -> rusqlite::Result<Vec<Claimed>> {
    let sql = format!(
        "UPDATE notifications SET claimed = 1 WHERE id IN
            (SELECT id FROM notifications WHERE target = ? AND due <= ? AND claimed = 0 {} ORDER BY due, id LIMIT ?)
         RETURNING id, rule, destination, correlation, title, body, attempts, refusals, created",
        not_in(busy.len())
    );
    let (target, due, limit) = (target as i64, now.as_millisecond(), i64::try_from(limit).unwrap_or(i64::MAX));
    let values = [&target as &dyn ToSql, &due].into_iter().chain(busy.iter().map(|b| b as &dyn ToSql)).chain([&limit as &dyn ToSql]);
    let mut claimed: Vec<Claimed> = db
        .prepare_cached(&sql)?
        .query_map(params_from_iter(values), |row| {
            Ok(Claimed {
                id: row.get(0)?,
                rule: row.get(1)?,
                destination: row.get(2)?,
                correlation: row.get(3)?,
                title: row.get(4)?,
                body: row.get(5)?,
                attempts: row.get(6)?,
                refusals: row.get(7)?,
                created: from_millis(row.get(8)?),
            })
        })?
        .collect::<rusqlite::Result<_>>()?;
    claimed.sort_by_key(|notification| notification.id);
    Ok(claimed)
}

fn not_in(count: usize) -> String {
    if count == 0 { String::new() } else { format!("AND destination NOT IN ({})", vec!["?"; count].join(", ")) }
}

/// Nanoseconds since 1970, held within what 64 bits can say (the years 1677 to 2262).
fn nanos(time: Timestamp) -> i64 {
    i64::try_from(time.as_nanosecond()).unwrap_or(if time < Timestamp::UNIX_EPOCH { i64::MIN } else { i64::MAX })
}

fn from_nanos(nanos: i64) -> Timestamp {
    Timestamp::from_nanosecond(nanos.into()).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn from_millis(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(millis).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests;
