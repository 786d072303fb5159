//! `[prometheus-scrape]`

use schemars::JsonSchema;
use serde::Deserialize;

use super::{metric_source, with_filters};

metric_source! {
    /// `[prometheus-scrape]`
    #[schemars(extend("required" = ["database", "scrape-interval"]))]
    pub struct Scrape {
        /// From one scrape of a target to the next, in seconds.
        #[schemars(example = 30)]
        pub scrape_interval: i64,
        /// Longest time of a scrape, in seconds; never longer than the interval.
        #[schemars(extend("default" = 10))]
        pub scrape_timeout: i64,
        /// Only the static targets, no pods: no Kubernetes is needed then.
        #[schemars(example = true)]
        pub disable_discovery: bool,
        /// Also scrape the pods of this node behind annotated Services. Needs the API server. Absent: unless
        /// kubelet-discovery is set.
        #[schemars(example = true)]
        pub discover_services: Option<bool>,
        /// Ask targets for the protobuf exposition, which has native histograms.
        pub protobuf: bool,
        /// Largest page, inflated, in bytes. A larger one is a failed scrape.
        #[schemars(extend("default" = 104_857_600))]
        pub body_size_limit: i64,
        /// Samples of a page at most; 0 is no limit. A page of more is a failed scrape.
        pub sample_limit: i64,
        /// Where a scraped series has a label that its target gives too (adxmon_namespace, adxmon_pod, adxmon_container), keep
        /// that of the series. Otherwise it becomes exported_<name>.
        pub honor_labels: bool,
        /// Store a row with the value NaN where a series has ended. Exporters are told of it either way.
        pub store_stale_markers: bool,
        /// A page of metrics that is scraped wherever it may be.
        pub static_scrape_target: Vec<StaticScrapeTarget>,
    }
}

/// `[[prometheus-scrape.static-scrape-target]]`
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", default)]
#[schemars(extend("required" = ["host-regex", "url", "namespace", "pod", "container"]))]
pub struct StaticScrapeTarget {
    /// Scraped by the nodes whose name matches.
    #[schemars(example = &".*")]
    pub host_regex: String,
    /// Its URL, http or https.
    #[schemars(example = &"http://127.0.0.1:9100/metrics")]
    pub url: String,
    /// Whose metrics these are: the label adxmon_namespace.
    #[schemars(example = &"node")]
    pub namespace: String,
    /// The label adxmon_pod.
    #[schemars(example = &"node-exporter")]
    pub pod: String,
    /// The label adxmon_container.
    #[schemars(example = &"node-exporter")]
    pub container: String,
    /// From one scrape to the next, in seconds; 0 is that of all targets.
    pub scrape_interval: i64,
    /// Of an https url: authorities (PEM) that its certificate is checked against, otherwise those of the system.
    pub ca_file: String,
    /// Of an https url: accept any certificate.
    pub insecure_skip_verify: bool,
    /// Send the token of the collector's service account; https only. Without ca-file, the certificate is then checked
    /// against the cluster's authorities.
    pub service_account_token: bool,
}
