//! Which metrics are kept, and which labels they lose or gain (collector spec §4.4).
//!
//! Expressions are unanchored. Everything that depends on the metric's name alone is decided once per name and
//! request ([`NameDecision`]).

use regex::bytes::{Regex, RegexSet};
use std::collections::BTreeMap;
use thiserror::Error;

/// Settings of one metric source as they stand in a configuration file.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct MetricRulesConfig {
    /// Drop what no keep rule matches.
    pub default_drop: bool,
    /// Drop metrics whose name matches one of these; stronger than the keep rules.
    pub drop_metrics: Vec<String>,
    /// With `default_drop`: keep metrics whose name matches one of these.
    pub keep_metrics: Vec<String>,
    /// With `default_drop`: keep series with a label (`__name__` included) whose name and value match a pair.
    pub keep_metrics_with_label_value: Vec<(String, String)>,
    /// Metric name expression to label name expression: labels to remove, never `__name__`.
    pub drop_labels: BTreeMap<String, String>,
    /// Labels set on every series, whatever the series says.
    pub add_labels: BTreeMap<String, String>,
}

/// Compiled [`MetricRulesConfig`]. The default keeps everything as it is.
#[derive(Clone, Debug, Default)]
pub struct MetricRules {
    default_drop: bool,
    drop_metrics: Option<RegexSet>,
    keep_metrics: Option<RegexSet>,
    keep_label_values: Vec<(Regex, Regex)>,
    drop_labels: Vec<(Regex, Regex)>,
    add_labels: Vec<(String, String)>,
}

/// An expression that does not compile.
#[derive(Clone, Debug, Error)]
#[error("compiling {setting} expression {pattern:?}: {reason}")]
pub struct RuleError {
    /// The setting, by its name in configuration files.
    pub setting: &'static str,
    /// The expression.
    pub pattern: String,
    /// What the compiler said.
    pub reason: String,
}

/// What a metric's name decides for all its series.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct NameDecision {
    pub(crate) verdict: Verdict,
    /// Rules of `drop-labels` whose metric expression matches.
    pub(crate) drop_labels: Vec<u32>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    Keep,
    Drop,
    /// Kept only if [`MetricRules::keeps_labels`] says so.
    AskLabels,
}

impl MetricRules {
    /// Compiles the expressions.
    pub fn compile(config: &MetricRulesConfig) -> Result<Self, RuleError> {
        Ok(Self {
            default_drop: config.default_drop,
            drop_metrics: set("drop-metrics", &config.drop_metrics)?,
            keep_metrics: set("keep-metrics", &config.keep_metrics)?,
            keep_label_values: pairs(
                "keep-metrics-with-label-value",
                config.keep_metrics_with_label_value.iter().map(|(name, value)| (name, value)),
            )?,
            drop_labels: pairs("drop-labels", config.drop_labels.iter())?,
            add_labels: config.add_labels.clone().into_iter().collect(),
        })
    }

    pub(crate) fn decide(&self, metric: &[u8]) -> NameDecision {
        let matches = |set: &Option<RegexSet>| set.as_ref().is_some_and(|set| set.is_match(metric));
        let verdict = if matches(&self.drop_metrics) {
            Verdict::Drop
        } else if !self.default_drop || matches(&self.keep_metrics) {
            Verdict::Keep
        } else if self.keep_label_values.is_empty() {
            Verdict::Drop
        } else {
            Verdict::AskLabels
        };
        let applies = |(_, rule): &(u32, &(Regex, Regex))| rule.0.is_match(metric);
        let drop_labels = (0..).zip(&self.drop_labels).filter(applies).map(|(index, _)| index).collect();
        NameDecision { verdict, drop_labels }
    }

    /// Whether `keep-metrics-with-label-value` keeps a series with these labels.
    pub(crate) fn keeps_labels<'t>(&self, mut labels: impl Iterator<Item = (&'t [u8], &'t [u8])>) -> bool {
        labels.any(|(name, value)| {
            self.keep_label_values.iter().any(|(name_rule, value_rule)| name_rule.is_match(name) && value_rule.is_match(value))
        })
    }

    /// Whether one of the `drop-labels` rules in `rules` removes the label.
    pub(crate) fn drops_label(&self, rules: &[u32], label: &[u8]) -> bool {
        rules.iter().any(|&rule| self.drop_labels[rule as usize].1.is_match(label))
    }

    pub(crate) fn add_labels(&self) -> &[(String, String)] {
        &self.add_labels
    }
}

fn set(setting: &'static str, patterns: &[String]) -> Result<Option<RegexSet>, RuleError> {
    for pattern in patterns {
        compile(setting, pattern)?;
    }
    if patterns.is_empty() {
        return Ok(None);
    }
    let set = RegexSet::new(patterns);
    set.map(Some).map_err(|error| RuleError { setting, pattern: patterns.join("|"), reason: error.to_string() })
}

fn pairs<'a>(setting: &'static str, pairs: impl Iterator<Item = (&'a String, &'a String)>) -> Result<Vec<(Regex, Regex)>, RuleError> {
    pairs.map(|(first, second)| Ok((compile(setting, first)?, compile(setting, second)?))).collect()
}

fn compile(setting: &'static str, pattern: &str) -> Result<Regex, RuleError> {
    Regex::new(pattern).map_err(|error| RuleError { setting, pattern: pattern.to_owned(), reason: error.to_string() })
}
