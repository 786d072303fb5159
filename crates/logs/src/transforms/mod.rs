//! Transforms: what a configuration does to records between their source and their rows.
//!
//! A list of them is checked as a whole when the configuration is read ([`Transforms::new`]) and runs in order on
//! every record. A record that a transform cannot work on is kept as it was and counted.

mod add_attributes;
mod config;
mod drop;
mod field;
mod kql;
mod limit;
mod log_router;
mod redact;
mod rename;
mod resource;
mod sample;

pub use config::{PathStep, TransformError};

use crate::record::Record;
use add_attributes::AddAttributes;
use drop::Drop;
use kql::Kql;
use limit::Limit;
use log_router::LogRouter;
use redact::Redact;
use rename::Rename;
use sample::Sample;

/// Transforms in their order. Each worker has its own clone; what limits count is shared by all of them.
#[derive(Clone, Debug, Default)]
pub struct Transforms(Vec<Step>);

#[derive(Clone, Debug)]
struct Step {
    transform: Transform,
    dropped: u64,
    failed: u64,
}

#[derive(Clone, Debug)]
enum Transform {
    AddAttributes(AddAttributes),
    Drop(Drop),
    Kql(Kql),
    Limit(Limit),
    LogRouter(LogRouter),
    Redact(Redact),
    Rename(Rename),
    Sample(Sample),
}

/// What a transform has done.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TransformCounts {
    /// Its name in configurations.
    pub name: &'static str,
    /// Records that it dropped, as it is meant to.
    pub dropped: u64,
    /// Records that it could not work on; they stayed as they were.
    pub failed: u64,
}

/// What becomes of a record.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fate {
    Keep,
    Drop,
    /// Kept as it was.
    Failed,
}

impl Transforms {
    /// The names that configurations use.
    pub const NAMES: [&'static str; 8] = ["addattributes", "drop", "kql", "limit", "logrouter", "redact", "rename", "sample"];

    /// The transforms of a configuration: their names with their settings.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn new<'c>(list: impl IntoIterator<Item = (&'c str, &'c toml::Value)>) -> Result<Self, Vec<TransformError>> {
        let (mut steps, mut errors) = (Vec::new(), Vec::new());
        for (index, (name, config)) in list.into_iter().enumerate() {
            match Transform::new(name, config) {
                Ok(transform) => steps.push(Step { transform, dropped: 0, failed: 0 }),
                Err(found) => errors.extend(found.into_iter().map(|error| TransformError { index, ..error })),
            }
        }
        if errors.is_empty() { Ok(Self(steps)) } else { Err(errors) }
    }

    /// The same, with a fixed seed for what is random.
    #[must_use]
    pub fn seeded(mut self, seed: u64) -> Self {
        for step in &mut self.0 {
            if let Transform::Sample(sample) = &mut step.transform {
                sample.seed(seed);
            }
        }
        self
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Changes a record. False when it is to be dropped. `now` is in nanoseconds since 1970.
    pub fn apply(&mut self, record: &mut Record, now: u64) -> bool {
        for Step { transform, dropped, failed } in &mut self.0 {
            match transform.apply(record, now) {
                Fate::Keep => {}
                Fate::Drop => {
                    *dropped += 1;
                    return false;
                }
                Fate::Failed => *failed += 1,
            }
        }
        true
    }

    /// What each that did something has done since the last time this was asked.
    pub fn take_counts(&mut self) -> Vec<TransformCounts> {
        let taken = self.0.iter_mut().map(|step| TransformCounts {
            name: step.transform.name(),
            dropped: std::mem::take(&mut step.dropped),
            failed: std::mem::take(&mut step.failed),
        });
        taken.filter(|counts| counts.dropped + counts.failed > 0).collect()
    }
}

impl Transform {
    fn new(name: &str, config: &toml::Value) -> Result<Self, Vec<TransformError>> {
        Ok(match name {
            "addattributes" => Self::AddAttributes(AddAttributes::new(config)?),
            "drop" => Self::Drop(Drop::new(config)?),
            "kql" => Self::Kql(Kql::new(config)?),
            "limit" => Self::Limit(Limit::new(config)?),
            "logrouter" => Self::LogRouter(LogRouter::new(config)?),
            "redact" => Self::Redact(Redact::new(config)?),
            "rename" => Self::Rename(Rename::new(config)?),
            "sample" => Self::Sample(Sample::new(config)?),
            "plugin" => {
                let message = "plugin: transforms written in Go cannot be run; write the transform in KQL instead: \
                               name = \"kql\" with config.query = \"where … | extend …\"";
                return Err(vec![TransformError::at_name(message)]);
            }
            other => {
                let hint = config::suggestion(other, &Transforms::NAMES);
                return Err(vec![TransformError::at_name(format!("unknown transform type: {other}{hint}"))]);
            }
        })
    }

    fn name(&self) -> &'static str {
        match self {
            Self::AddAttributes(_) => "addattributes",
            Self::Drop(_) => "drop",
            Self::Kql(_) => "kql",
            Self::Limit(_) => "limit",
            Self::LogRouter(_) => "logrouter",
            Self::Redact(_) => "redact",
            Self::Rename(_) => "rename",
            Self::Sample(_) => "sample",
        }
    }

    fn apply(&mut self, record: &mut Record, now: u64) -> Fate {
        match self {
            Self::AddAttributes(transform) => transform.apply(record),
            Self::Drop(transform) => return transform.apply(record),
            Self::Kql(transform) => return transform.apply(record, now),
            Self::Limit(transform) => return transform.apply(record, now),
            Self::LogRouter(transform) => transform.apply(record),
            Self::Redact(transform) => transform.apply(record),
            Self::Rename(transform) => transform.apply(record),
            Self::Sample(transform) => return transform.apply(record),
        }
        Fate::Keep
    }
}
