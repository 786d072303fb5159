//! The rules of a metric source: the global ones and its own together.

use std::collections::BTreeMap;

use telemetry::rules::{MetricRules, MetricRulesConfig, RuleError};

use super::file::{File, LabelMatcher, Map, MetricSource};

/// Filters and label rules of one scope of the file.
#[derive(Debug, Clone, Default)]
pub struct RuleScope {
    default_drop: Option<bool>,
    drop_metrics: Vec<String>,
    keep_metrics: Vec<String>,
    keep_with_label: Vec<(String, String)>,
    drop_labels: Map,
    add_labels: Map,
}

impl RuleScope {
    /// The rules at the top of the file.
    #[must_use]
    pub fn global(file: &File) -> Self {
        RuleScope {
            default_drop: file.default_drop_metrics,
            drop_metrics: file.drop_metrics.clone(),
            keep_metrics: file.keep_metrics.clone(),
            keep_with_label: pairs(&file.keep_metrics_with_label_value),
            drop_labels: file.drop_labels.clone(),
            add_labels: file.add_labels.clone(),
        }
    }

    /// The rules of one source.
    #[must_use]
    pub fn source(source: &MetricSource) -> Self {
        RuleScope {
            default_drop: source.default_drop_metrics,
            drop_metrics: source.drop_metrics.clone(),
            keep_metrics: source.keep_metrics.clone(),
            keep_with_label: pairs(&source.keep_metrics_with_label_value),
            drop_labels: source.drop_labels.clone(),
            add_labels: source.add_labels.clone(),
        }
    }

    /// These rules with those of `inner` on top: lists are joined, of maps and of
    /// `default-drop-metrics` the inner value wins.
    #[must_use]
    pub fn with(mut self, inner: RuleScope) -> Self {
        self.default_drop = inner.default_drop.or(self.default_drop);
        self.drop_metrics.extend(inner.drop_metrics);
        self.keep_metrics.extend(inner.keep_metrics);
        self.keep_with_label.extend(inner.keep_with_label);
        self.drop_labels.extend(inner.drop_labels);
        self.add_labels.extend(inner.add_labels);
        self
    }

    /// These rules with more labels, which win.
    #[must_use]
    pub fn with_labels(mut self, labels: &BTreeMap<String, String>) -> Self {
        self.add_labels.extend(labels.clone());
        self
    }

    /// The rules as they run.
    ///
    /// # Errors
    /// An expression that does not compile.
    pub fn compile(&self) -> Result<MetricRules, RuleError> {
        MetricRules::compile(&MetricRulesConfig {
            default_drop: self.default_drop.unwrap_or(false),
            drop_metrics: self.drop_metrics.clone(),
            keep_metrics: self.keep_metrics.clone(),
            keep_metrics_with_label_value: self.keep_with_label.clone(),
            drop_labels: self.drop_labels.clone(),
            add_labels: self.add_labels.clone(),
        })
    }
}

fn pairs(matchers: &[LabelMatcher]) -> Vec<(String, String)> {
    matchers.iter().map(|m| (m.label_regex.clone(), m.value_regex.clone())).collect()
}
