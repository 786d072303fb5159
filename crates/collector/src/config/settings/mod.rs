//! The configuration as the collector runs it: defaults filled in, scopes merged, units in types.

mod access;
mod receivers;
mod scrape;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use telemetry::Lift;
use token_review::Authentication;
use transfer::Credentials;

use super::events::{self, EventSource};
use super::exporters::ExporterSettings;
use super::file::{File, MetadataLabels, NodeLabels, Transform};
use super::files::{self, FileSource};
use super::host::{self, JournalSource, KernelSource, SyslogSource};
use super::kubernetes::{self, KubernetesSettings};
use super::rules::RuleScope;
use super::table_limits::TableLimit;
use super::{Problem, Warning};

pub use receivers::{LogSource, MetricEndpoint, MetricProtocol, TraceSource};
pub use scrape::{ScrapeSettings, ScrapeTarget, TlsMode};

/// Paths that the collector serves whatever the file says.
pub(super) const OWN_PATHS: [&str; 6] = ["/metrics", "/readyz", "/healthz", "/debug/store", "/targets", "/api/v1/targets"];
/// Where OTLP logs are received.
pub(super) const LOGS_PATH: &str = "/v1/logs";
/// Where OTLP traces are received unless the file says otherwise.
pub(super) const TRACES_PATH: &str = "/v1/traces";
/// The listener when the file names none.
pub(super) const LISTEN_ADDR: &str = ":8080";

/// What the collector writes for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// Azure Data Explorer, or kustd.
    Adx,
    /// ClickHouse: known by name, refused at start.
    ClickHouse,
}

impl Backend {
    /// `adx` or `clickhouse`, in any case, with spaces around it; absent means `adx`.
    ///
    /// # Errors
    /// The message about any other text.
    pub fn parse(text: Option<&str>) -> Result<Backend, String> {
        let text = text.unwrap_or("adx");
        match text.trim().to_ascii_lowercase().as_str() {
            "adx" => Ok(Backend::Adx),
            "clickhouse" => Ok(Backend::ClickHouse),
            "" => Err("storage-backend cannot be empty".to_owned()),
            _ => Err(format!("unknown storage backend {text:?}")),
        }
    }
}

/// A checked configuration. Made by [`Config::from_toml`].
#[derive(Debug, Clone)]
pub struct Config {
    /// Base URLs of ingestors in order of preference; without one, data is kept up to the quota.
    pub endpoints: Vec<String>,
    /// Whether the ingestor's certificate is not verified.
    pub insecure_skip_verify: bool,
    /// `host:port`; an empty host means all addresses.
    pub listen_addr: String,
    /// A second `host:port` with the same routes, for senders that expect OTLP's own port.
    pub otlp_listen_addr: Option<String>,
    /// `host:port` of OTLP over gRPC for all three signals. Metrics go where `/v1/metrics` puts them, or where the
    /// first entry does.
    pub otlp_grpc_listen_addr: Option<String>,
    /// Whether CPU profiles are taken on request.
    pub enable_pprof: bool,
    /// Label of the health gauge.
    pub region: String,
    /// Whether samples that filters drop are counted by metric (`METRICS_DEBUG`).
    pub count_drops: bool,
    /// Certificate and key of the listener.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Authorities of the certificates that clients must show.
    pub tls_client_ca: Option<PathBuf>,
    /// Who may send; everybody without it.
    pub authentication: Option<Authentication>,
    /// How the collector shows the ingestor who it is.
    pub credentials: Credentials,
    /// What the collector writes for.
    pub backend: Backend,
    /// Open connections, 0 for no limit.
    pub max_connections: usize,
    /// Where the journal and the segments are.
    pub storage_dir: PathBuf,
    /// What an acknowledgement promises.
    pub durability: wal::Durability,
    /// A segment is sealed at this age.
    pub segment_max_age: Duration,
    /// A segment is sealed at this size, in bytes.
    pub segment_max_bytes: u64,
    /// Limit of the storage directory, in bytes.
    pub max_disk_bytes: u64,
    /// Limit of one database in the storage directory, in bytes.
    pub database_quota_bytes: Option<u64>,
    /// Tables that one database may have.
    pub max_tables_per_database: usize,
    /// Requests to the ingestor at a time.
    pub transfer_concurrency: usize,
    /// Whether request bodies to the ingestor are compressed with gzip.
    pub transfer_gzip: bool,
    /// Labels that get columns of their own.
    pub lift_labels: Vec<Lift>,
    /// Receivers of metrics.
    pub metrics: Vec<MetricEndpoint>,
    /// The receiver of OTLP logs.
    pub logs: Option<LogSource>,
    /// The receiver of OTLP traces.
    pub traces: Option<TraceSource>,
    /// Limits of tables, in the order in which they are looked through.
    pub table_limits: Vec<TableLimit>,
    /// Resource keys of logs that get columns of their own.
    pub lift_resources: Vec<Lift>,
    /// Logs that are read from files.
    pub files: Vec<FileSource>,
    /// Parts of systemd's journal.
    pub journals: Vec<JournalSource>,
    /// Kernel logs.
    pub kernels: Vec<KernelSource>,
    /// Receivers of syslog.
    pub syslog: Vec<SyslogSource>,
    /// Events of the cluster.
    pub events: Option<EventSource>,
    /// Scraping.
    pub scrape: Option<ScrapeSettings>,
    /// Where else sources send.
    pub exporters: Vec<ExporterSettings>,
    /// Name of the node that this collector runs on.
    pub node: String,
    /// How the cluster is reached.
    pub kubernetes: KubernetesSettings,
}

impl Config {
    /// Whether somebody needs the pods of this node.
    pub(crate) fn discovers_pods(&self) -> bool {
        self.scrape.as_ref().is_some_and(|scrape| scrape.discovery) || self.files.iter().any(|source| source.pods.is_some())
    }

    /// Whether somebody needs the annotated Services.
    pub(crate) fn discovers_services(&self) -> bool {
        self.scrape.as_ref().is_some_and(|scrape| scrape.services)
    }
}

/// The settings of [`Config`] that hold from start to end of a collector, by their names in the file.
macro_rules! until_restart {
    ($($field:ident: $name:literal),* $(,)?) => {
        impl Config {
            /// `new`, with the settings that hold until a restart as they are here, and the names of those that differ.
            pub(crate) fn reloaded(&self, mut new: Config) -> (Config, Vec<&'static str>) {
                let mut different = Vec::new();
                $(if self.$field != new.$field {
                    different.push($name);
                    new.$field = self.$field.clone();
                })*
                (new, different)
            }
        }
    };
}

until_restart! {
    endpoints: "endpoint",
    insecure_skip_verify: "insecure-skip-verify",
    listen_addr: "listen-addr",
    otlp_listen_addr: "otlp-listen-addr",
    otlp_grpc_listen_addr: "otlp-grpc-listen-addr",
    region: "region",
    enable_pprof: "enable-pprof",
    tls: "tls-cert-file, tls-key-file",
    tls_client_ca: "tls-client-ca-file",
    authentication: "authentication",
    credentials: "transfer-token-file, transfer-client-cert-file, transfer-client-key-file, transfer-ca-file",
    backend: "storage-backend",
    max_connections: "max-connections",
    storage_dir: "storage-dir",
    durability: "durability",
    segment_max_age: "max-segment-age-seconds",
    segment_max_bytes: "max-segment-size",
    max_disk_bytes: "max-disk-usage",
    database_quota_bytes: "max-database-disk-usage",
    max_tables_per_database: "max-tables-per-database",
    transfer_concurrency: "max-transfer-concurrency",
    transfer_gzip: "disable-gzip",
}

impl Config {
    /// Ports that sources of metrics have for themselves.
    pub fn grpc_ports(&self) -> impl Iterator<Item = u16> {
        self.metrics.iter().filter_map(|endpoint| endpoint.grpc_port)
    }
}

/// The settings of a valid file, and what to warn about.
pub(super) fn resolve(file: File, hostname: &str) -> Result<(Config, Vec<Warning>), Vec<Problem>> {
    let problem = |message: String| vec![Problem { position: None, message }];
    let mut warnings = super::absent::warnings(&file);
    let global = RuleScope::from(file.filters());
    let storage_dir = storage_dir(&file.storage_dir).map_err(problem)?;
    let durability = file.durability.as_deref().map_or(Ok(wal::Durability::Disk), str::parse);
    let config = Config {
        endpoints: file.endpoint.iter().map(str::to_owned).collect(),
        insecure_skip_verify: file.insecure_skip_verify,
        listen_addr: text(&file.listen_addr).unwrap_or_else(|| LISTEN_ADDR.to_owned()),
        otlp_listen_addr: text(&file.otlp_listen_addr),
        otlp_grpc_listen_addr: text(&file.otlp_grpc_listen_addr),
        region: file.region.clone(),
        enable_pprof: file.enable_pprof,
        count_drops: std::env::var_os("METRICS_DEBUG").is_some_and(|value| !value.is_empty()),
        tls: (!file.tls_cert_file.is_empty()).then(|| ((&file.tls_cert_file).into(), (&file.tls_key_file).into())),
        tls_client_ca: (!file.tls_client_ca_file.is_empty()).then(|| (&file.tls_client_ca_file).into()),
        authentication: file.authentication.as_ref().map(access::authentication).transpose().map_err(problem)?,
        credentials: access::credentials(&file),
        backend: Backend::parse(file.storage_backend.as_deref()).map_err(problem)?,
        max_connections: positive(file.max_connections).unwrap_or(0) as usize,
        storage_dir,
        durability: durability.map_err(problem)?,
        segment_max_age: Duration::from_secs(positive(file.max_segment_age_seconds).unwrap_or(30)),
        segment_max_bytes: positive(file.max_segment_size).unwrap_or(1 << 20),
        max_disk_bytes: positive(file.max_disk_usage).unwrap_or(10 << 30),
        database_quota_bytes: positive(file.max_database_disk_usage),
        max_tables_per_database: positive(file.max_tables_per_database).unwrap_or(10_000) as usize,
        transfer_concurrency: positive(file.max_transfer_concurrency).unwrap_or(5) as usize,
        transfer_gzip: !file.disable_gzip,
        lift_labels: lifts(&file.lift_labels),
        metrics: receivers::metric_endpoints(&file, &global),
        logs: receivers::log_source(&file).map_err(problem)?,
        traces: receivers::trace_source(&file),
        lift_resources: lifts(&file.lift_resources),
        files: files::sources(&file).map_err(problem)?,
        journals: host::journals(&file).map_err(problem)?,
        kernels: host::kernels(&file).map_err(problem)?,
        syslog: host::syslog(&file).map_err(problem)?,
        events: events::source(&file).map_err(problem)?,
        table_limits: file.table_limit.iter().map(TableLimit::from).collect(),
        scrape: scrape::scrape(&file, &global, hostname),
        exporters: file.exporters.settings().map_err(problem)?,
        node: hostname.to_owned(),
        kubernetes: kubernetes::settings(&file, hostname),
    };
    if config.endpoints.is_empty() {
        warnings.push(Warning(format!(
            "endpoint is empty: data is kept in {} up to max-disk-usage ({} bytes), then refused; set endpoint to an ingestor",
            config.storage_dir.display(),
            config.max_disk_bytes
        )));
    }
    let targets = file.prometheus_scrape.iter().flat_map(|scrape| &scrape.static_scrape_target);
    for target in targets.filter(|target| scrape::is_checked_by_default(target)) {
        warnings.push(Warning(format!(
            "prometheus-scrape.static-scrape-target {}: its certificate is checked against the system's authorities, and no token is sent; \
             for a kubelet set service-account-token = true, and insecure-skip-verify = true if its certificate is not the cluster's; \
             otherwise set ca-file",
            target.url
        )));
    }
    for source in discarding(&config) {
        warnings.push(Warning(format!("disable-metrics-forwarding is set for {source}: its metrics are counted and discarded")));
    }
    Ok((config, warnings))
}

fn discarding(config: &Config) -> Vec<String> {
    let endpoints = config.metrics.iter().filter(|e| e.discard).map(MetricEndpoint::name);
    let scrape = config.scrape.iter().filter(|s| s.discard).map(|_| "prometheus-scrape".to_owned());
    endpoints.chain(scrape).collect()
}

pub(super) fn positive(value: i64) -> Option<u64> {
    u64::try_from(value).ok().filter(|v| *v > 0)
}

fn storage_dir(text: &str) -> Result<PathBuf, String> {
    if !text.is_empty() {
        return Ok(text.into());
    }
    match std::env::var_os("HOME") {
        Some(home) if !home.is_empty() => Ok(PathBuf::from(home).join(".adx-mon/collector")),
        _ => Err("storage-dir is required: set it, or HOME for the default $HOME/.adx-mon/collector".to_owned()),
    }
}

/// The lifts of a file, as telemetry knows them.
pub(super) fn lifts(lifts: &[super::file::Lift]) -> Vec<Lift> {
    let column = |lift: &super::file::Lift| (!lift.column.is_empty()).then(|| lift.column.clone());
    lifts.iter().map(|lift| Lift { name: lift.name.clone(), column: column(lift) }).collect()
}

/// `add-metadata-labels` of the file and of a source together; the source's win.
pub(super) fn node_labels(file: &File, source: Option<&MetadataLabels>) -> NodeLabels {
    let mut all = NodeLabels::default();
    for scope in [file.add_metadata_labels.as_ref(), source].into_iter().flatten() {
        if let Some(node) = &scope.kubernetes_node {
            // A name that the source gives is no longer that of the top of the file, whatever that took it from.
            let given = |name: &String| node.labels.values().chain(node.annotations.values()).any(|given| given == name);
            all.labels.retain(|_, name| !given(name));
            all.annotations.retain(|_, name| !given(name));
            all.labels.extend(node.labels.clone());
            all.annotations.extend(node.annotations.clone());
        }
    }
    all
}

/// The transforms of a list in the file.
///
/// # Errors
/// Everything that is wrong with them.
pub(super) fn transforms(list: &[Transform]) -> Result<logs::Transforms, Vec<logs::TransformError>> {
    logs::Transforms::new(list.iter().map(|transform| (transform.name.as_str(), &transform.config)))
}

/// The URL, if it is one of http or https with a host.
pub(crate) fn http_url(text: &str) -> Option<reqwest::Url> {
    reqwest::Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}

/// Empty means absent.
fn text(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// Empty means absent.
fn path(text: &str) -> Option<PathBuf> {
    (!text.is_empty()).then(|| text.into())
}

/// Host and port of `host:port`, where the host may be absent.
///
/// # Errors
/// What is wrong with the text.
pub(crate) fn listen_addr(text: &str) -> Result<(String, u16), String> {
    if text.is_empty() {
        return listen_addr(LISTEN_ADDR);
    }
    if let Ok(addr) = text.parse::<SocketAddr>() {
        return Ok((addr.ip().to_string(), addr.port()));
    }
    let (host, port) = text.rsplit_once(':').ok_or("missing port in address; use host:port")?;
    let port = port.parse().map_err(|_| format!("invalid port {port:?}"))?;
    Ok((host.trim_matches(['[', ']']).to_owned(), port))
}
