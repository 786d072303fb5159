//! `limit`: so many records a second for each table, or for each value of a field; the others are dropped.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Deserialize;
use xxhash_rust::xxh64::xxh64;

use super::config::{self, TransformError};
use super::field::Field;
use super::{Fate, Record};

const SECOND: f64 = 1e9;

/// Values told apart at a time; more of them share one allowance.
const MAX_KEYS: usize = 10_000;
/// The key of the shared allowance.
const SHARED: u64 = 0;

#[derive(Deserialize)]
struct Settings {
    rate: Option<f64>,
    #[serde(default)]
    burst: Option<f64>,
    #[serde(default)]
    key: Option<String>,
}

#[derive(Clone, Debug)]
pub(super) struct Limit {
    /// Nanoseconds that one record uses up.
    cost: u64,
    /// Nanoseconds that may be used up ahead of time.
    ahead: u64,
    key: Option<Field>,
    /// By hash of the key: when everything used up so far is earned again. Shared by all workers.
    used: Arc<Mutex<HashMap<u64, u64>>>,
}

impl Limit {
    pub(super) fn new(config: &toml::Value) -> Result<Self, Vec<TransformError>> {
        let Settings { rate, burst, key } = config::read(config, &["rate", "burst", "key"])?;
        let Some(rate) = rate else {
            return Err(vec![TransformError::at_config("limit needs rate, the records a second to keep for each table")]);
        };
        if !(0.001..=1e9).contains(&rate) {
            return Err(vec![TransformError::at_key("rate", format!("rate is {rate} and must be from 0.001 to 1000000000"))]);
        }
        let burst = burst.unwrap_or(rate.max(1.0));
        if !(1.0..=1e9).contains(&burst) {
            return Err(vec![TransformError::at_key("burst", format!("burst is {burst} and must be from 1 to 1000000000"))]);
        }
        let key = key.map(|key| Field::parse(&key)).transpose().map_err(|why| vec![TransformError::at_key("key", why)])?;
        Ok(Self { cost: (SECOND / rate) as u64, ahead: (SECOND / rate * burst) as u64, key, used: Arc::default() })
    }

    pub(super) fn apply(&self, record: &Record, now: u64) -> Fate {
        let mut used = self.used.lock();
        let mut key = self.key_of(record);
        if used.len() >= MAX_KEYS && !used.contains_key(&key) {
            used.retain(|_, until| *until > now);
            if used.len() >= MAX_KEYS {
                key = SHARED;
            }
        }
        let until = used.entry(key).or_insert(now);
        // Never further ahead than can be used: a clock that was set back must not drop everything until it is there again.
        let from = (*until).clamp(now, now.saturating_add(self.ahead));
        if from.saturating_add(self.cost) > now.saturating_add(self.ahead) {
            *until = from;
            return Fate::Drop;
        }
        *until = from.saturating_add(self.cost);
        Fate::Keep
    }

    fn key_of(&self, record: &Record) -> u64 {
        let hash = match (&self.key, &record.destination) {
            (Some(field), _) => match field.get(record) {
                Some(value) => xxh64(value.to_text().as_bytes(), 0),
                None => return SHARED,
            },
            (None, Some(to)) => xxh64(to.table().as_bytes(), xxh64(to.database().as_bytes(), 0)),
            (None, None) => return SHARED,
        };
        hash.max(1)
    }
}
