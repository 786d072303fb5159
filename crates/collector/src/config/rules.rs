//! The rules of a metric source: the global ones and its own together.

use telemetry::rules::{MetricRules, MetricRulesConfig, RuleError};

use super::file::{Filters, Map};

/// Filters and label rules of a scope of the file, with those of the scopes around it.
#[derive(Debug, Clone, Default)]
pub struct RuleScope(Filters);

impl From<Filters> for RuleScope {
    fn from(filters: Filters) -> Self {
        RuleScope(filters)
    }
}

impl RuleScope {
    /// These rules with those of `inner` on top: lists are joined, of maps and of
    /// `default-drop-metrics` the inner value wins.
    #[must_use]
    pub fn with(self, inner: RuleScope) -> Self {
        let (mut all, inner) = (self.0, inner.0);
        all.default_drop_metrics = inner.default_drop_metrics.or(all.default_drop_metrics);
        all.drop_metrics.extend(inner.drop_metrics);
        all.keep_metrics.extend(inner.keep_metrics);
        all.keep_metrics_with_label_value.extend(inner.keep_metrics_with_label_value);
        all.drop_labels.extend(inner.drop_labels);
        all.add_labels.extend(inner.add_labels);
        RuleScope(all)
    }

    /// These rules with more labels, which win.
    #[must_use]
    pub fn with_labels(mut self, labels: &Map) -> Self {
        self.0.add_labels.extend(labels.clone());
        self
    }

    /// The rules as they run.
    ///
    /// # Errors
    /// An expression that does not compile.
    pub fn compile(&self) -> Result<MetricRules, RuleError> {
        let filters = self.0.clone();
        let matchers = filters.keep_metrics_with_label_value.into_iter();
        MetricRules::compile(&MetricRulesConfig {
            default_drop: filters.default_drop_metrics.unwrap_or(false),
            drop_metrics: filters.drop_metrics,
            keep_metrics: filters.keep_metrics,
            keep_metrics_with_label_value: matchers.map(|matcher| (matcher.label_regex, matcher.value_regex)).collect(),
            drop_labels: filters.drop_labels,
            add_labels: filters.add_labels,
        })
    }
}
