//! Which metrics are kept, and which labels they lose or gain (collector spec §4.4).

use std::collections::BTreeMap;
use thiserror::Error;

/// Settings of one metric source as they stand in a configuration file.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct MetricRulesConfig {
    /// Drop what no keep rule matches.
    pub default_drop: bool,
    /// Drop metrics whose name matches one of these.
    pub drop_metrics: Vec<String>,
    /// With `default_drop`: keep metrics whose name matches one of these.
    pub keep_metrics: Vec<String>,
    /// With `default_drop`: keep series with a label whose name and value match a pair.
    pub keep_metrics_with_label_value: Vec<(String, String)>,
    /// Metric name expression to label name expression: labels to remove.
    pub drop_labels: BTreeMap<String, String>,
    /// Labels set on every series, whatever the series says.
    pub add_labels: BTreeMap<String, String>,
}

/// Compiled [`MetricRulesConfig`].
#[derive(Debug, Default)]
pub struct MetricRules {}

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

impl MetricRules {
    /// Compiles the expressions.
    pub fn compile(_config: &MetricRulesConfig) -> Result<Self, RuleError> {
        Ok(Self {})
    }
}
