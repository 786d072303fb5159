//! `drop`: leaves out records that conditions describe.

use regex::Regex;
use serde::Deserialize;

use super::add_attributes::scalar;
use super::config::{self, PathStep, TransformError};
use super::field::Field;
use super::{Fate, Record};
use crate::record::Severity;

const KEYS: &[&str] = &["any", "all", "field", "equals", "in", "matches", "exists", "severity-below"];

#[derive(Deserialize)]
#[serde(default, rename_all = "kebab-case")]
#[derive(Default)]
struct Settings {
    any: Vec<ConditionSettings>,
    all: Vec<ConditionSettings>,
}

#[derive(Deserialize)]
#[serde(default, rename_all = "kebab-case")]
#[derive(Default)]
struct ConditionSettings {
    field: Option<String>,
    equals: Option<toml::Value>,
    r#in: Option<Vec<toml::Value>>,
    matches: Option<String>,
    exists: Option<bool>,
    severity_below: Option<String>,
}

#[derive(Clone, Debug)]
pub(super) struct Drop {
    any: Vec<Condition>,
    all: Vec<Condition>,
}

#[derive(Clone, Debug)]
enum Condition {
    /// The text of the field is one of these.
    OneOf(Field, Vec<String>),
    Matches(Field, Regex),
    Exists(Field, bool),
    /// The severity is known and below this number.
    SeverityBelow(i32),
}

impl Drop {
    pub(super) fn new(config: &toml::Value) -> Result<Self, Vec<TransformError>> {
        let Settings { any, all } = config::read(config, KEYS)?;
        if any.is_empty() && all.is_empty() {
            let message = "drop needs conditions: any = [{ field = \"Body.level\", equals = \"debug\" }], or all = [...]";
            return Err(vec![TransformError::at_config(message)]);
        }
        let mut errors = Vec::new();
        let (any, all) = (conditions("any", any, &mut errors), conditions("all", all, &mut errors));
        if errors.is_empty() { Ok(Self { any, all }) } else { Err(errors) }
    }

    /// Drops a record for which all of `all` hold, and one of `any` if there are some.
    pub(super) fn apply(&self, record: &Record) -> Fate {
        let drops = self.all.iter().all(|condition| condition.holds(record))
            && (self.any.is_empty() || self.any.iter().any(|condition| condition.holds(record)));
        if drops { Fate::Drop } else { Fate::Keep }
    }
}

fn conditions(key: &str, settings: Vec<ConditionSettings>, errors: &mut Vec<TransformError>) -> Vec<Condition> {
    let mut conditions = Vec::new();
    for (item, settings) in settings.into_iter().enumerate() {
        match Condition::new(settings) {
            Ok(condition) => conditions.push(condition),
            Err((at, message)) => {
                let mut error = TransformError::at_item(key, item, message);
                error.path.extend(at.map(|at| PathStep::Key(at.to_owned())));
                errors.push(error);
            }
        }
    }
    conditions
}

impl Condition {
    /// Reads a condition; an error names the key that it is about.
    fn new(settings: ConditionSettings) -> Result<Self, (Option<&'static str>, String)> {
        let ConditionSettings { field, equals, r#in, matches, exists, severity_below } = settings;
        if let (Some(severity), None) = (&severity_below, &field) {
            let Some(severity) = Severity::from_name(severity) else {
                return Err((
                    Some("severity-below"),
                    format!("{severity} is not a severity; use trace, debug, info, warn, error or fatal"),
                ));
            };
            return Ok(Self::SeverityBelow(severity.number()));
        }
        let field = field.ok_or_else(|| (None, "field is missing, such as field = \"Body.level\"".to_owned()))?;
        let field = Field::parse(&field).map_err(|why| (Some("field"), why))?;
        match (equals, r#in, matches, exists, severity_below) {
            (Some(value), None, None, None, None) => {
                let text = scalar(&value).map(|value| value.to_text());
                text.map(|text| Self::OneOf(field, vec![text]))
                    .ok_or_else(|| (Some("equals"), "must be a string, number or bool".to_owned()))
            }
            (None, Some(values), None, None, None) => {
                let texts: Option<Vec<String>> = values.iter().map(|value| scalar(value).map(|value| value.to_text())).collect();
                texts.map(|texts| Self::OneOf(field, texts)).ok_or_else(|| (Some("in"), "must be strings, numbers or bools".to_owned()))
            }
            (None, None, Some(pattern), None, None) => {
                let pattern = Regex::new(&pattern).map_err(|error| (Some("matches"), error.to_string()))?;
                Ok(Self::Matches(field, pattern))
            }
            (None, None, None, Some(exists), None) => Ok(Self::Exists(field, exists)),
            _ => Err((None, "a condition has a field and one of equals, in, matches and exists, or severity-below alone".to_owned())),
        }
    }

    fn holds(&self, record: &Record) -> bool {
        match self {
            Self::OneOf(field, texts) => field.get(record).is_some_and(|value| match value.as_str() {
                Some(text) => texts.iter().any(|known| known == text),
                None => texts.contains(&value.to_text()),
            }),
            Self::Matches(field, pattern) => field.get(record).is_some_and(|value| match value.as_str() {
                Some(text) => pattern.is_match(text),
                None => pattern.is_match(&value.to_text()),
            }),
            Self::Exists(field, exists) => field.get(record).is_some() == *exists,
            Self::SeverityBelow(number) => (1..*number).contains(&record.severity_number),
        }
    }
}
