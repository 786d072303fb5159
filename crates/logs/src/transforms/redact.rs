//! `redact`: replaces what must not be stored, in the texts of body, attributes and resource.

use std::borrow::Cow;
use std::sync::Arc;

use regex::{Captures, Regex, RegexSet};
use serde::Deserialize;

use super::config::{self, TransformError};
use super::field::Scope;
use super::resource::ResourceChange;
use crate::record::Record;
use crate::value::{Map, Value};

const KEYS: &[&str] = &["presets", "patterns", "keys", "replacement", "in"];
const DEFAULT_REPLACEMENT: &str = "[REDACTED]";

/// What is found by name, and whether digits are checked as card numbers are. Text around the group `keep` stays.
const PRESETS: &[(&str, &str)] = &[
    ("email", r"(?i)\b[a-z0-9._%+-]{1,64}@(?:[a-z0-9-]{1,63}\.){1,8}[a-z]{2,63}\b"),
    ("credit-card", CARD),
    ("ipv4", r"\b(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)\b"),
    ("bearer-token", r"(?i)(?P<keep>\b(?:bearer|basic)\s+)[a-z0-9._~+/=-]{8,}"),
    ("jwt", r"\beyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"),
];

/// 13 to 19 digits, in groups or not.
const CARD: &str = r"\b\d(?:[ -]?\d){12,18}\b";

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", default)]
#[derive(Default)]
struct Settings {
    presets: Vec<String>,
    patterns: Vec<String>,
    keys: Vec<String>,
    replacement: Option<String>,
    r#in: Option<Vec<String>>,
}

#[derive(Clone, Debug)]
pub(super) struct Redact {
    rules: Arc<Rules>,
    resource: ResourceChange,
}

#[derive(Debug)]
struct Rules {
    /// All patterns at once: most texts have none of them.
    any: RegexSet,
    patterns: Vec<Pattern>,
    keys: Vec<String>,
    replacement: String,
    scopes: Vec<Scope>,
}

#[derive(Debug)]
struct Pattern {
    regex: Regex,
    is_card: bool,
}

impl Redact {
    pub(super) fn new(config: &toml::Value) -> Result<Self, Vec<TransformError>> {
        let settings: Settings = config::read(config, KEYS)?;
        let mut errors = Vec::new();
        let mut sources: Vec<(String, bool)> = Vec::new();
        for (item, name) in settings.presets.iter().enumerate() {
            match PRESETS.iter().find(|(known, _)| known == name) {
                Some((known, pattern)) => sources.push(((*pattern).to_owned(), *known == "credit-card")),
                None => {
                    let known: Vec<&str> = PRESETS.iter().map(|(known, _)| *known).collect();
                    let hint = config::suggestion(name, &known);
                    errors.push(TransformError::at_item("presets", item, format!("{name} is not a preset{hint}")));
                }
            }
        }
        for (item, pattern) in settings.patterns.iter().enumerate() {
            match Regex::new(pattern) {
                Ok(_) => sources.push((pattern.clone(), false)),
                Err(error) => errors.push(TransformError::at_item("patterns", item, error.to_string())),
            }
        }
        let mut scopes = Vec::new();
        for (item, name) in settings.r#in.unwrap_or_else(|| vec!["Body".to_owned(), "Attributes".to_owned()]).iter().enumerate() {
            match Scope::from_name(name) {
                Some(scope) => scopes.push(scope),
                None => errors.push(TransformError::at_item("in", item, format!("{name} is not one of {}", Scope::NAMES))),
            }
        }
        if settings.presets.is_empty() && settings.patterns.is_empty() && settings.keys.is_empty() {
            errors.push(TransformError::at_config("redact needs presets, patterns or keys"));
        }
        let regexes = sources.iter().map(|(source, is_card)| Ok(Pattern { regex: Regex::new(source)?, is_card: *is_card }));
        let compiled = regexes
            .collect::<Result<Vec<_>, regex::Error>>()
            .and_then(|patterns| Ok((patterns, RegexSet::new(sources.iter().map(|(source, _)| source))?)))
            .map_err(|error| TransformError::at_config(error.to_string()));
        match compiled {
            Ok((patterns, any)) if errors.is_empty() => {
                let replacement = settings.replacement.unwrap_or_else(|| DEFAULT_REPLACEMENT.to_owned());
                let rules = Rules { any, patterns, keys: settings.keys, replacement, scopes };
                Ok(Self { rules: Arc::new(rules), resource: ResourceChange::default() })
            }
            Ok(_) => Err(errors),
            Err(error) => Err(errors.into_iter().chain([error]).collect()),
        }
    }

    pub(super) fn apply(&mut self, record: &mut Record) {
        for scope in &self.rules.scopes {
            match scope {
                Scope::Body => self.rules.map(&mut record.body),
                Scope::Attributes => self.rules.map(&mut record.attributes),
                Scope::Resource => self.resource.apply(&mut record.resource, |resource| self.rules.map(resource)),
            }
        }
    }
}

impl Rules {
    fn map(&self, map: &mut Map) {
        for (key, value) in map.iter_mut() {
            if self.keys.iter().any(|known| known.eq_ignore_ascii_case(key)) {
                *value = Value::from(self.replacement.as_str());
            } else {
                self.value(value);
            }
        }
    }

    fn value(&self, value: &mut Value) {
        match value {
            Value::String(text) => {
                if let Some(redacted) = self.text(text) {
                    *text = redacted;
                }
            }
            // A card number may come as a number.
            Value::Int(_) | Value::Uint(_) => {
                if let Some(redacted) = self.text(&value.to_text()) {
                    *value = Value::String(redacted);
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.value(item)),
            Value::Map(map) => self.map(map),
            Value::Null | Value::Bool(_) | Value::Float(_) | Value::Bytes(_) => {}
        }
    }

    /// The text with replacements; `None` when there are none.
    fn text(&self, text: &str) -> Option<String> {
        let mut redacted: Option<String> = None;
        for index in self.any.matches(text) {
            let pattern = &self.patterns[index];
            let replace = |found: &Captures<'_>| self.replace(pattern, found);
            if let Cow::Owned(changed) = pattern.regex.replace_all(redacted.as_deref().unwrap_or(text), replace) {
                redacted = Some(changed);
            }
        }
        redacted.filter(|redacted| redacted != text)
    }

    fn replace(&self, pattern: &Pattern, found: &Captures<'_>) -> String {
        if pattern.is_card && !is_card_number(&found[0]) {
            return found[0].to_owned();
        }
        match found.name("keep") {
            Some(kept) => format!("{}{}", kept.as_str(), self.replacement),
            None => self.replacement.clone(),
        }
    }
}

/// The check of ISO/IEC 7812: doubling every second digit from the right, the digits add up to a multiple of ten.
fn is_card_number(text: &str) -> bool {
    let digits = text.bytes().rev().filter(u8::is_ascii_digit).map(|digit| u32::from(digit - b'0'));
    let sum: u32 = digits.enumerate().map(|(place, digit)| if place % 2 == 1 { digit * 2 / 10 + digit * 2 % 10 } else { digit }).sum();
    sum.is_multiple_of(10)
}
