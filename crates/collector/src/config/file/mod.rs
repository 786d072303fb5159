//! The shape of the configuration file, key for key, and what each key does.
//!
//! These types say what may be written and nothing more: rules are in [`super::validate`]. Their comments are the
//! documentation of the file: [`super::reference`] makes it from them. A default or an example that stands beside a key is
//! shown there, and tests compare it with what the collector does.
//!
//! Integers are `i64` so that a negative number is a message of ours rather than a parse error. Empty strings and zeroes
//! count as absent, as in the reference.

mod exporters;
mod filters;
mod host_logs;
mod kubernetes;
mod receivers;
mod scrape;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

pub use exporters::{Exporters, FluentForwardLogExport, OtlpMetricExport, RemoteWriteMetricExport};
pub use filters::{Filters, LabelMatcher, MetricSource};
use filters::{metric_source, with_filters};
pub use host_logs::{FileTarget, HostLog, JournalTarget, KernelTarget, PodDefaults, StaticPodTarget, Syslog, Transform};
pub use kubernetes::{KubeletDiscovery, KubernetesEvents, MetadataLabels, MetadataWatch, NodeLabels, Present};
pub use receivers::{OtelLog, OtelMetric, OtelTrace, RemoteWrite};
pub use scrape::{Scrape, StaticScrapeTarget};

/// String to string, in the order of keys.
pub type Map = BTreeMap<String, String>;

with_filters! {
    /// Configuration of the collector. $(HOSTNAME) in a value becomes the name of the node. Empty texts and zeroes are as
    /// good as absent.
    pub struct File {
        /// Base URL of the ingestor, http or https. Several, in order of preference, as an array or separated by commas:
        /// while one is away the next is used. Empty: data is kept on disk up to max-disk-usage.
        #[schemars(example = &"https://ingestor.adx-mon.svc.cluster.local")]
        pub endpoint: OneOrMany,
        /// Accept any certificate of the ingestor.
        pub insecure_skip_verify: bool,
        /// Address to listen on, host:port; ':8080' listens on all addresses.
        #[schemars(extend("default" = super::settings::LISTEN_ADDR), example = &"127.0.0.1:8080")]
        pub listen_addr: String,
        /// A second address with the same routes; OTLP senders expect port 4318.
        #[schemars(example = &"127.0.0.1:4318")]
        pub otlp_listen_addr: String,
        /// Address of OTLP over gRPC (also gRPC-Web and Connect) for metrics, logs and traces; senders expect port 4317.
        /// Metrics go where the otel-metric entry with the path /v1/metrics puts them, or else where the first entry does.
        #[schemars(example = &"127.0.0.1:4317")]
        pub otlp_grpc_listen_addr: String,
        /// Label of the health metric.
        pub region: String,
        /// Take CPU profiles on request: /debug/pprof/profile?seconds=10.
        pub enable_pprof: bool,
        /// Certificate (PEM) of all listeners, with a key or not at all. Read again when it changes.
        #[schemars(example = &"/etc/adx-mon/tls.crt")]
        pub tls_cert_file: String,
        /// Key (PEM) of the certificate.
        #[schemars(example = &"/etc/adx-mon/tls.key")]
        pub tls_key_file: String,
        /// Certificates of authorities (PEM): clients must show a certificate of one of them.
        #[schemars(example = &"/etc/adx-mon/clients.crt")]
        pub tls_client_ca_file: String,
        /// A file with a bearer token, read again when it changes, that shows the ingestor who this is. It goes to https
        /// endpoints and to this host only.
        #[schemars(example = &"/etc/adx-mon/ingestor-token")]
        pub transfer_token_file: String,
        /// A client certificate (PEM) that shows the ingestor who this is, with a key or not at all.
        #[schemars(example = &"/etc/adx-mon/collector.crt")]
        pub transfer_client_cert_file: String,
        /// Key (PEM) of the client certificate.
        #[schemars(example = &"/etc/adx-mon/collector.key")]
        pub transfer_client_key_file: String,
        /// Authorities (PEM) that may have signed the ingestor's certificate; those of the system without it.
        #[schemars(example = &"/etc/adx-mon/ingestor-ca.crt")]
        pub transfer_ca_file: String,
        /// What the collector writes for.
        #[schemars(extend("default" = "adx"))]
        pub storage_backend: Option<String>,
        /// Open connections; 0 is no limit.
        pub max_connections: i64,
        /// Samples of a scrape that go into one write to the store.
        #[schemars(extend("default" = 5000))]
        pub max_batch_size: i64,
        /// A segment is sent once it is this old, in seconds.
        #[schemars(extend("default" = 30))]
        pub max_segment_age_seconds: i64,
        /// A segment is sent once it is this large, in bytes.
        #[schemars(extend("default" = 1_048_576))]
        pub max_segment_size: i64,
        /// Limit of the storage directory, in bytes. Beyond it, senders are told to retry later (429).
        #[schemars(extend("default" = 10_737_418_240_u64))]
        pub max_disk_usage: i64,
        /// Limit of one database in the storage directory, in bytes; 0 is no limit of its own.
        pub max_database_disk_usage: i64,
        /// Tables that one database may have; every metric name makes a table.
        #[schemars(extend("default" = 10_000))]
        pub max_tables_per_database: i64,
        /// Accepted for compatibility, without effect: every acknowledged request is durable at once, see durability.
        #[schemars(extend("default" = 100))]
        pub wal_flush_interval_ms: i64,
        /// Requests to the ingestor at a time.
        #[schemars(extend("default" = 5))]
        pub max_transfer_concurrency: i64,
        /// Send segments uncompressed.
        pub disable_gzip: bool,
        /// Where data waits until it is sent. Absent: $HOME/.adx-mon/collector.
        #[schemars(example = &"/var/lib/adx-mon/collector")]
        pub storage_dir: String,
        /// What a 2xx promises. 'disk': survives a power cut. 'process': survives the end of the process.
        #[schemars(extend("default" = "disk", "enum" = ["disk", "process"]))]
        pub durability: Option<String>,
        /// Credentials of the cluster. Absent: what KUBECONFIG names, or else the cluster that the collector runs in.
        #[schemars(example = &"/etc/adx-mon/kubeconfig")]
        pub kube_config: String,
        /// Count metrics but do not store or forward them.
        pub disable_metrics_forwarding: bool,
        /// Attributes added to the resource of every log record and span.
        #[schemars(example = example_labels())]
        pub add_attributes: Map,
        /// Accepted for compatibility, without effect: attributes stay in the column Attributes; see lift-resources.
        pub lift_attributes: Vec<String>,

        /// Labels that get a column of their own.
        pub lift_labels: Vec<Lift>,
        /// Resource attributes that get a column of their own.
        pub lift_resources: Vec<Lift>,
        /// Who may send; without this table everybody may. Requests carry a bearer token, which is one of the file's or one
        /// that Kubernetes knows.
        pub authentication: Option<Authentication>,
        /// Scraping of this node's pods, as their annotations ask for it (adx-mon/scrape: "true"), and of static targets.
        pub prometheus_scrape: Option<Scrape>,
        /// Receiver of Prometheus remote write 1.0 and 2.0.
        pub prometheus_remote_write: Vec<RemoteWrite>,
        /// Receiver of OTLP metrics.
        pub otel_metric: Vec<OtelMetric>,
        /// Receiver of OTLP logs over HTTP, at /v1/logs. A record names its destination in the attributes kusto.database and
        /// kusto.table.
        pub otel_log: Option<OtelLog>,
        /// Receiver of OTLP traces over HTTP.
        pub otel_trace: Option<OtelTrace>,
        /// Logs of this host. Their positions are stored with them: nothing is read twice or left out.
        pub host_log: Vec<HostLog>,
        /// Receiver of syslog (RFC 3164 and RFC 5424).
        pub syslog: Vec<Syslog>,
        /// Events of the Kubernetes cluster: a row for each event, and another for each change of one, such as a larger
        /// count. Of several collectors with the same table and namespaces one stores, and another goes on when it ends
        /// (a Lease in their namespace says which); the storage directory must last (a StatefulSet or a Deployment with
        /// a volume, not the DaemonSet). Needs deploy/rbac/collector-events.yaml.
        pub kubernetes_events: Option<KubernetesEvents>,
        /// Limits of tables, over all sources. What is above one is left out and counted in
        /// adxmon_collector_limited_rows_total; the rest of its request is stored. The first that names a table counts.
        pub table_limit: Vec<TableLimit>,
        /// Exporters send what sources name them for (`exporters = ['name']` in a source) to other systems as well. Each has a
        /// buffer of its own on disk: one whose receiver is away holds up nothing, and gives up its oldest data when the
        /// buffer is full.
        pub exporters: Exporters,
        /// Ask the kubelet for the pods of this node instead of watching the API server.
        pub kubelet_discovery: Option<KubeletDiscovery>,
        /// What of the cluster is followed, for add-metadata-labels.
        pub metadata_watch: Option<MetadataWatch>,
        /// Labels that everything gets from the cluster.
        pub add_metadata_labels: Option<MetadataLabels>,
    }
}

/// An example of labels.
fn example_labels() -> Map {
    Map::from([("cluster".to_owned(), "production".to_owned())])
}

/// One text, or an array of them.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a string or an array of strings")]
#[schemars(inline)]
pub enum OneOrMany {
    /// Commas separate several.
    One(String),
    /// One each.
    Many(Vec<String>),
}

impl Default for OneOrMany {
    fn default() -> Self {
        OneOrMany::One(String::new())
    }
}

impl OneOrMany {
    /// Each of them; empty ones do not count.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        let (one, many) = match self {
            OneOrMany::One(one) => (Some(one.split(',')), None),
            OneOrMany::Many(many) => (None, Some(many.iter())),
        };
        one.into_iter().flatten().chain(many.into_iter().flatten().map(String::as_str)).map(str::trim).filter(|text| !text.is_empty())
    }
}

/// A label or resource key that gets a column of its own.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(extend("required" = ["name"]))]
pub struct Lift {
    /// Name of the label or resource key.
    #[schemars(example = &"namespace")]
    pub name: String,
    /// The column, of ASCII letters and digits. Absent: the name without other characters, its words capitalised.
    #[schemars(example = &"Namespace")]
    pub column: String,
}

/// `[authentication]`
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", default)]
pub struct Authentication {
    /// A file with the tokens that are good, one a line, so that several make rotation possible. Read again when it changes.
    #[schemars(example = &"/etc/adx-mon/tokens")]
    pub token_file: String,
    /// Ask the API server whose a token is; needs deploy/rbac/token-review.yaml.
    #[schemars(example = true)]
    pub token_review: bool,
    /// What tokens that Kubernetes knows must be meant for; every token of the cluster will do when empty.
    #[schemars(example = ["adx-mon"])]
    pub audiences: Vec<String>,
    /// Whose they must be, namespace/name or namespace/*; anybody's when empty.
    #[schemars(example = ["monitoring/prometheus", "apps/*"])]
    pub service_accounts: Vec<String>,
    /// Paths that need no token.
    #[schemars(extend("default" = server::auth::OPEN_PATHS))]
    pub open_paths: Option<Vec<String>>,
}

/// `[[table-limit]]`
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", default)]
pub struct TableLimit {
    /// Empty: every database, each of its tables with a limit of its own.
    #[schemars(example = &"Metrics")]
    pub database: String,
    /// Empty: every table, each with a limit of its own. Tables of metrics are named as in Kusto.
    #[schemars(example = &"HttpRequestsTotal")]
    pub table: String,
    /// Different series of a metric in an hour; 0 is no limit.
    #[schemars(example = 100_000)]
    pub max_series: i64,
    /// Rows a second, on an average over a minute; 0 is no limit.
    pub max_rows_per_second: i64,
}
