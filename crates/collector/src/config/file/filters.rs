//! What tables of the file have in common: filters of metrics, and the keys of every source of metrics.
//!
//! (`serde(flatten)` would hide unknown keys and lose the position of wrong types, so the keys are put in by macros.)

use schemars::JsonSchema;
use serde::Deserialize;

use super::MetadataLabels;

/// A table with the keys of [`Filters`] behind its own.
macro_rules! with_filters {
    ($(#[$attribute:meta])* pub struct $name:ident { $($own:tt)* }) => {
        #[derive(Debug, Clone, Default, serde::Deserialize, schemars::JsonSchema)]
        #[serde(rename_all = "kebab-case", default)]
        $(#[$attribute])*
        pub struct $name {
            $($own)*
            /// Drop every metric that no keep rule names.
            pub default_drop_metrics: Option<bool>,
            /// Drop metrics whose name matches. Expressions are not anchored.
            #[schemars(example = ["^go_"])]
            pub drop_metrics: Vec<String>,
            /// With default-drop-metrics: keep metrics whose name matches.
            #[schemars(example = ["^http_"])]
            pub keep_metrics: Vec<String>,
            /// Labels added to every metric; those at the top of the file to host logs and syslog too.
            #[schemars(example = crate::config::file::example_labels())]
            pub add_labels: crate::config::file::Map,
            /// Expression of metric names = expression of names of labels: labels to remove.
            #[schemars(example = crate::config::file::Map::from([("^http_".to_owned(), "^(user_agent|referer)$".to_owned())]))]
            pub drop_labels: crate::config::file::Map,
            /// With default-drop-metrics: keep series that have such a label.
            pub keep_metrics_with_label_value: Vec<crate::config::file::LabelMatcher>,
        }

        impl $name {
            /// Its filters and label rules.
            #[must_use]
            pub fn filters(&self) -> crate::config::file::Filters {
                crate::config::file::Filters {
                    default_drop_metrics: self.default_drop_metrics,
                    drop_metrics: self.drop_metrics.clone(),
                    keep_metrics: self.keep_metrics.clone(),
                    add_labels: self.add_labels.clone(),
                    drop_labels: self.drop_labels.clone(),
                    keep_metrics_with_label_value: self.keep_metrics_with_label_value.clone(),
                }
            }
        }
    };
}

/// A table with the keys of every source of metrics around its own.
macro_rules! metric_source {
    ($(#[$attribute:meta])* pub struct $name:ident { $($own:tt)* }) => {
        with_filters! {
            $(#[$attribute])*
            pub struct $name {
                /// Database of the metrics.
                #[schemars(example = &"Metrics")]
                pub database: String,
                $($own)*
                /// Count metrics but do not store or forward them.
                pub disable_metrics_forwarding: bool,
                /// Names of exporters that get the metrics too.
                #[schemars(example = ["otel"])]
                pub exporters: Vec<String>,
                /// Labels that the metrics get from the cluster.
                pub add_metadata_labels: Option<crate::config::file::MetadataLabels>,
            }
        }

        impl $name {
            /// The keys that all sources of metrics share.
            #[must_use]
            pub fn source(&self) -> crate::config::file::MetricSource {
                crate::config::file::MetricSource {
                    database: self.database.clone(),
                    disable_metrics_forwarding: self.disable_metrics_forwarding,
                    exporters: self.exporters.clone(),
                    add_metadata_labels: self.add_metadata_labels.clone(),
                    filters: self.filters(),
                }
            }
        }
    };
}

pub(super) use {metric_source, with_filters};

with_filters! {
    /// Filters and label rules of metrics. Those of a source come on top of those at the top of the file, those of an
    /// exporter on top of its source's: lists are joined; of labels to add or drop, and of default-drop-metrics, the inner
    /// one counts.
    pub struct Filters {}
}

/// What every source of metrics has.
#[derive(Debug, Clone, Default)]
pub struct MetricSource {
    /// Where the metrics go.
    pub database: String,
    /// Whether they are counted only.
    pub disable_metrics_forwarding: bool,
    /// Who gets them too.
    pub exporters: Vec<String>,
    /// Labels from the cluster.
    pub add_metadata_labels: Option<MetadataLabels>,
    /// Filters and label rules.
    pub filters: Filters,
}

/// A pair of expressions for a label's name and value.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", default)]
#[schemars(extend("required" = ["label-regex", "value-regex"]))]
pub struct LabelMatcher {
    /// Expression of the label's name, not anchored.
    #[schemars(example = &"^namespace$")]
    pub label_regex: String,
    /// Expression of its value, not anchored.
    #[schemars(example = &"^prod-")]
    pub value_regex: String,
}
