//! What is scraped.

use std::path::PathBuf;
use std::time::Duration;

use super::receivers::source_rules;
use super::{http_url, node_labels, positive};
use crate::config::file::{File, NodeLabels, StaticScrapeTarget};
use crate::config::rules::RuleScope;

/// Scraping of this host's targets.
#[derive(Debug, Clone)]
pub struct ScrapeSettings {
    /// Where the rows go.
    pub database: String,
    /// From one scrape of a target to the next.
    pub interval: Duration,
    /// Longest time of a scrape; never longer than the interval.
    pub timeout: Duration,
    /// Filters and label rules, global ones included.
    pub rules: RuleScope,
    /// Samples that go into one request to the store, roughly.
    pub batch_samples: usize,
    /// `disable-metrics-forwarding`: scraped, counted, not stored.
    pub discard: bool,
    /// Names of the exporters that get its samples too.
    pub exporters: Vec<String>,
    /// Labels and annotations of the Node to add.
    pub node_labels: NodeLabels,
    /// Whether annotated pods of this node are scraped.
    pub discovery: bool,
    /// Whether the pods of this node behind annotated Services are scraped.
    pub services: bool,
    /// Whether the protobuf exposition is asked for.
    pub protobuf: bool,
    /// Largest page, inflated, in bytes.
    pub max_page_bytes: usize,
    /// Samples of a page at most; 0 is no limit. A page of more is a failed scrape.
    pub max_samples: u64,
    /// Whether labels of scraped series win over those of their target.
    pub honor_labels: bool,
    /// Whether stale markers become rows.
    pub store_stale_markers: bool,
    /// The static targets whose `host-regex` matches this host.
    pub targets: Vec<ScrapeTarget>,
}

/// A page of metrics.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ScrapeTarget {
    /// Its URL.
    pub url: String,
    /// Whose metrics these are: `adxmon_namespace`, `adxmon_pod`, `adxmon_container`.
    pub namespace: String,
    /// See `namespace`.
    pub pod: String,
    /// See `namespace`.
    pub container: String,
    /// From one scrape to the next, where it is not that of the source.
    pub interval: Option<Duration>,
    /// Whether the service account's token is sent.
    pub token: bool,
    /// Whose certificate it must have.
    pub tls: TlsMode,
}

/// How the certificate of a target is checked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TlsMode {
    /// There is none: http.
    Plain,
    /// By the authorities that the system trusts.
    System,
    /// By the authorities of the cluster, which Kubernetes puts into every pod.
    ClusterCa,
    /// By those of a file.
    File(PathBuf),
    /// Not at all.
    Unverified,
}

pub(super) fn scrape(file: &File, global: &RuleScope, hostname: &str) -> Option<ScrapeSettings> {
    let scrape = file.prometheus_scrape.as_ref()?;
    let interval = Duration::from_secs(positive(scrape.scrape_interval).unwrap_or(30));
    let source = scrape.source();
    let here = |regex: &str| regex::Regex::new(regex).is_ok_and(|regex| regex.is_match(hostname));
    let targets = scrape.static_scrape_target.iter().filter(|t| here(&t.host_regex));
    Some(ScrapeSettings {
        database: source.database.clone(),
        interval,
        timeout: Duration::from_secs(positive(scrape.scrape_timeout).unwrap_or(10)).min(interval),
        rules: source_rules(global, &source),
        batch_samples: positive(file.max_batch_size).unwrap_or(5000) as usize,
        discard: file.disable_metrics_forwarding || source.disable_metrics_forwarding,
        exporters: source.exporters.clone(),
        node_labels: node_labels(file, source.add_metadata_labels.as_ref()),
        discovery: !scrape.disable_discovery,
        services: !scrape.disable_discovery && scrape.discover_services.unwrap_or(file.kubelet_discovery.is_none()),
        protobuf: scrape.protobuf,
        max_page_bytes: positive(scrape.body_size_limit).unwrap_or(100 << 20) as usize,
        max_samples: positive(scrape.sample_limit).unwrap_or(0),
        honor_labels: scrape.honor_labels,
        store_stale_markers: scrape.store_stale_markers,
        targets: targets.map(static_target).collect(),
    })
}

/// Whether nothing is said of the certificate of an https target, nor of a token: the reference's collector sends its own to
/// every target and checks no certificate.
pub(super) fn is_checked_by_default(target: &StaticScrapeTarget) -> bool {
    let https = http_url(&target.url).is_some_and(|url| url.scheme() == "https");
    https && !target.insecure_skip_verify && !target.service_account_token && target.ca_file.is_empty()
}

fn static_target(target: &StaticScrapeTarget) -> ScrapeTarget {
    let tls = match http_url(&target.url) {
        Some(url) if url.scheme() == "http" => TlsMode::Plain,
        _ if target.insecure_skip_verify => TlsMode::Unverified,
        _ if !target.ca_file.is_empty() => TlsMode::File((&target.ca_file).into()),
        _ if target.service_account_token => TlsMode::ClusterCa,
        _ => TlsMode::System,
    };
    ScrapeTarget {
        url: target.url.clone(),
        namespace: target.namespace.clone(),
        pod: target.pod.clone(),
        container: target.container.clone(),
        interval: positive(target.scrape_interval).map(Duration::from_secs),
        token: target.service_account_token,
        tls,
    }
}
