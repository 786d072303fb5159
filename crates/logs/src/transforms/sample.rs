//! `sample`: keeps a share of the records, by the hash of a key or at random.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Deserialize;
use xxhash_rust::xxh64::xxh64;

use super::config::{self, TransformError};
use super::field::Field;
use super::{Fate, Record};
use crate::record::Severity;

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Settings {
    rate: Option<f64>,
    #[serde(default)]
    key: Option<String>,
    #[serde(default)]
    keep_errors: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Sample {
    rate: f64,
    key: Option<Field>,
    keep_errors: bool,
    /// State of SplitMix64, shared by all clones.
    random: Arc<AtomicU64>,
}

impl Sample {
    pub(super) fn new(config: &toml::Value) -> Result<Self, Vec<TransformError>> {
        let Settings { rate, key, keep_errors } = config::read(config, &["rate", "key", "keep-errors"])?;
        let Some(rate) = rate else {
            return Err(vec![TransformError::at_config("sample needs rate, the share of records to keep, from 0.0 to 1.0")]);
        };
        if !(0.0..=1.0).contains(&rate) {
            return Err(vec![TransformError::at_key("rate", format!("rate is {rate} and must be from 0.0 to 1.0"))]);
        }
        let key = key.map(|key| Field::parse(&key)).transpose().map_err(|why| vec![TransformError::at_key("key", why)])?;
        let seed = RandomState::new().hash_one(0);
        Ok(Self { rate, key, keep_errors, random: Arc::new(AtomicU64::new(seed)) })
    }

    pub(super) fn seed(&mut self, seed: u64) {
        self.random = Arc::new(AtomicU64::new(seed));
    }

    /// Records with equal keys share their fate; those without the key are taken at random.
    pub(super) fn apply(&self, record: &Record) -> Fate {
        if self.keep_errors && record.severity_number >= Severity::Error.number() {
            return Fate::Keep;
        }
        let key = self.key.as_ref().and_then(|key| key.get(record));
        let bits = match key {
            Some(key) => match key.as_str() {
                Some(text) => xxh64(text.as_bytes(), 0),
                None => xxh64(key.to_text().as_bytes(), 0),
            },
            None => self.random_bits(),
        };
        // 53 bits make a fraction of 0 to 1, 1 left out.
        let fraction = (bits >> 11) as f64 / (1u64 << 53) as f64;
        if fraction < self.rate { Fate::Keep } else { Fate::Drop }
    }

    /// SplitMix64; not for secrets.
    fn random_bits(&self) -> u64 {
        const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut bits = self.random.fetch_add(GAMMA, Ordering::Relaxed).wrapping_add(GAMMA);
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }
}
