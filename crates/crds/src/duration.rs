//! Durations as Go writes them: `300ms`, `1h30m`, `-1.5h`; units `ns`, `us`, `µs`, `ms`, `s`, `m`, `h`, no days.
//!
//! Own code, because the libraries at hand either panic on `1h-5m` and round through floats (`kube`'s) or have been
//! without an owner for years. Follows `time.ParseDuration` and `Duration.String` of Go, whose errors people search for.

use std::fmt;
use std::time::Duration;

use jiff::SignedDuration;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};
use thiserror::Error;

use crate::SpecError;

const UNITS: &[(&str, i128)] = &[
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// A text that is no duration.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum DurationError {
    /// Not of the form `1h30m`, or more than the 292 years that Go can hold.
    #[error("time: invalid duration {0:?}")]
    Invalid(String),
    /// A number without a unit.
    #[error("time: missing unit in duration {0:?}")]
    MissingUnit(String),
    /// A unit that Go does not know, such as `d`.
    #[error("time: unknown unit {unit:?} in duration {text:?}")]
    UnknownUnit {
        /// The unit as written.
        unit: String,
        /// The whole text.
        text: String,
    },
}

/// Parses what Go's `time.ParseDuration` parses.
pub fn parse(text: &str) -> Result<SignedDuration, DurationError> {
    let invalid = || DurationError::Invalid(text.to_owned());
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(SignedDuration::ZERO);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total = 0_i128;
    while !rest.is_empty() {
        let (whole, after) = digits(rest);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => digits(after),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(invalid());
        }
        let end = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        if unit.is_empty() {
            return Err(DurationError::MissingUnit(text.to_owned()));
        }
        let Some(&(_, nanos)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(DurationError::UnknownUnit { unit: unit.to_owned(), text: text.to_owned() });
        };
        total += amount(whole, fraction, nanos).ok_or_else(invalid)?;
        // Go holds 2^63 nanoseconds, below zero one more than above.
        if total > i128::from(i64::MAX) + i128::from(negative) {
            return Err(invalid());
        }
        rest = after;
    }
    let total = if negative { -total } else { total };
    i64::try_from(total).map(SignedDuration::from_nanos).map_err(|_| invalid())
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// `whole.fraction` units in nanoseconds, rounded as Go does it: through a float.
fn amount(whole: &str, fraction: &str, unit: i128) -> Option<i128> {
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse::<u64>().ok()?.into() };
    let (mut part, mut scale) = (0_i64, 1.0);
    for digit in fraction.bytes() {
        let Some(more) = part.checked_mul(10).and_then(|part| part.checked_add(i64::from(digit - b'0'))) else { break };
        part = more;
        scale *= 10.0;
    }
    let nanos = part as f64 * (unit as f64 / scale);
    Some(whole * unit + nanos as i128)
}

/// Writes what Go's `Duration.String` writes: `1h30m0.25s`, `1.5ms`, `0s`.
pub fn format(duration: SignedDuration) -> String {
    let nanos = duration.as_nanos();
    let sign = if nanos < 0 { "-" } else { "" };
    let nanos = nanos.unsigned_abs();
    let fraction = |value: u128, unit: u128| {
        let digits = unit.ilog10() as usize;
        let part = value % unit;
        if part == 0 {
            (value / unit).to_string()
        } else {
            format!("{}.{}", value / unit, format!("{part:0digits$}").trim_end_matches('0'))
        }
    };
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{sign}{nanos}ns"),
        1_000..1_000_000 => format!("{sign}{}µs", fraction(nanos, 1_000)),
        1_000_000..1_000_000_000 => format!("{sign}{}ms", fraction(nanos, 1_000_000)),
        _ => {
            let (minutes, seconds) = (nanos / 60_000_000_000, nanos % 60_000_000_000);
            let seconds = fraction(seconds, 1_000_000_000);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{sign}{seconds}s"),
                (0, minutes) => format!("{sign}{minutes}m{seconds}s"),
                (hours, minutes) => format!("{sign}{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

/// A duration in a spec, kept as it is written: an object with a bad one still decodes, and says so when it is used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct GoDuration(String);

impl GoDuration {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is not set: missing or `""`.
    pub fn is_unset(&self) -> bool {
        self.0.is_empty()
    }

    /// The duration; `None` if not set.
    pub fn parse(&self) -> Result<Option<SignedDuration>, DurationError> {
        if self.is_unset() { Ok(None) } else { parse(&self.0).map(Some) }
    }

    /// The duration of a field that needs one above zero.
    pub(crate) fn positive(&self, field: &'static str) -> Result<Duration, SpecError> {
        let parsed = self.parse().map_err(|error| SpecError::new(field, format!("{error}; write it like 5m or 1h30m")))?;
        let duration = parsed.ok_or_else(|| SpecError::new(field, "is missing; write it like 5m or 1h30m"))?;
        Duration::try_from(duration)
            .ok()
            .filter(|duration| !duration.is_zero())
            .ok_or_else(|| SpecError::new(field, format!("{:?} is not above zero", self.0)))
    }

    /// The duration of a field that may be missing, and is then zero, but not below zero.
    pub(crate) fn non_negative(&self, field: &'static str) -> Result<Duration, SpecError> {
        let parsed = self.parse().map_err(|error| SpecError::new(field, format!("{error}; write it like 5m or 1h30m")))?;
        let duration = parsed.unwrap_or(SignedDuration::ZERO);
        Duration::try_from(duration).map_err(|_| SpecError::new(field, format!("{:?} is below zero", self.0)))
    }
}

impl From<&str> for GoDuration {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl From<Duration> for GoDuration {
    /// Longer than Go can hold becomes the longest that it can.
    fn from(duration: Duration) -> Self {
        let nanos = i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
        Self(format(SignedDuration::from_nanos(nanos)))
    }
}

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for GoDuration {
    /// Takes any scalar as its text: `interval: 5` in a file is then reported as a duration without unit.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::Null => String::new(),
            serde_json::Value::String(text) => text,
            other => other.to_string(),
        }))
    }
}

impl JsonSchema for GoDuration {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "GoDuration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}
