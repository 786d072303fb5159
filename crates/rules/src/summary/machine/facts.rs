//! What the spec of a rule says.

use crds::{BackfillSpec, SummaryRule};
use jiff::Timestamp;

use crate::store::Key;
use crate::window::Schedule;

/// What the spec says.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) key: Key,
    pub(super) uid: String,
    pub(super) generation: i64,
    pub(super) made: Option<Timestamp>,
    pub(super) database: String,
    pub(super) table: String,
    pub(super) body: String,
    /// Whether no window may be begun.
    pub(super) halted: bool,
    pub(super) schedule: Result<Schedule, String>,
    pub(super) backfill: Option<BackfillSpec>,
}

impl Facts {
    pub(super) fn of(rule: &SummaryRule) -> Facts {
        let spec = &rule.spec;
        let key = Key::of(rule);
        let schedule = || {
            spec.validate().map_err(|e| e.to_string())?;
            let interval = spec.interval().map_err(|e| e.to_string())?;
            let delay = spec.ingestion_delay().map_err(|e| e.to_string())?;
            Schedule::new(interval, delay).map_err(|e| e.to_string())
        };
        Facts {
            uid: rule.metadata.uid.clone().unwrap_or_else(|| key.to_string()),
            key,
            generation: rule.metadata.generation.unwrap_or(0),
            made: rule.metadata.creation_timestamp.as_ref().map(|time| time.0),
            database: spec.database.clone(),
            table: spec.table.clone(),
            body: spec.body.clone(),
            halted: spec.suspend || rule.metadata.deletion_timestamp.is_some(),
            schedule: schedule(),
            backfill: spec.backfill.clone(),
        }
    }
}
