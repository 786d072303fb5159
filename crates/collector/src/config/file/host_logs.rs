//! Logs that the collector fetches itself, and syslog.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Map, MetadataLabels};

/// A transform and its own, free-form settings.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(extend("required" = ["name"]))]
pub struct Transform {
    /// Name of the transform.
    #[schemars(
        example = &"redact",
        extend("enum" = ["addattributes", "drop", "kql", "limit", "logrouter", "redact", "rename", "sample"])
    )]
    pub name: String,
    /// Settings of the transform.
    #[schemars(with = "serde_json::Map<String, serde_json::Value>", example = serde_json::json!({"presets": ["email", "credit-card"]}))]
    pub config: toml::Value,
}

impl Default for Transform {
    fn default() -> Self {
        Transform { name: String::new(), config: toml::Value::Table(toml::Table::new()) }
    }
}

/// `[[host-log]]`
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", default)]
pub struct HostLog {
    /// Do not follow the logs of pods. One host-log at most may follow them.
    #[schemars(example = true)]
    pub disable_kube_discovery: bool,
    /// Set on the resource of every record.
    #[schemars(example = super::example_labels())]
    pub add_attributes: Map,
    /// Names of exporters that get the records too.
    #[schemars(example = ["fluent"])]
    pub exporters: Vec<String>,
    /// Accepted for compatibility, without effect: each target has its own parsers.
    pub parsers: Vec<String>,
    /// Log files. They are followed when they are renamed, truncated, compressed or made anew.
    pub file_target: Vec<FileTarget>,
    /// How the logs of all pods are read, unless a static-pod-target or an annotation says otherwise.
    pub pod_defaults: Option<PodDefaults>,
    /// Pods whose logs are collected although no annotation asks for it. Empty settings fit all.
    pub static_pod_target: Vec<StaticPodTarget>,
    /// Entries of systemd's journal.
    pub journal_target: Vec<JournalTarget>,
    /// The kernel log, /dev/kmsg.
    pub kernel_target: Vec<KernelTarget>,
    /// What is done to records before they are stored, in this order. docs/logs.md has examples.
    pub transforms: Vec<Transform>,
    /// Labels that the resource of every record gets from the cluster.
    pub add_metadata_labels: Option<MetadataLabels>,
}

/// `[[host-log.file-target]]`
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", default)]
#[schemars(extend("required" = ["file-path", "database", "table"]))]
pub struct FileTarget {
    /// A path, or a pattern: `* ? [ab] {a,b}` within a name, `**` for any number of folders.
    #[schemars(example = &"/var/log/app/*.log")]
    pub file_path: String,
    /// Patterns of what is left out.
    #[schemars(example = ["/var/log/app/debug*"])]
    pub exclude: Vec<String>,
    /// How lines are written.
    #[schemars(extend("default" = "plain", "enum" = ["plain", "docker", "cri", "kubernetes"]))]
    pub log_type: String,
    /// Database of the records.
    #[schemars(example = &"Logs")]
    pub database: String,
    /// Table of the records.
    #[schemars(example = &"App")]
    pub table: String,
    /// What messages are put through: 'json', 'keyvalue', 'klog', 'space'; the first that succeeds counts.
    #[schemars(example = ["json"])]
    pub parsers: Vec<String>,
    /// Bytes that are kept of a line or event.
    #[schemars(extend("default" = logs::DEFAULT_MAX_BYTES))]
    pub max_line_bytes: i64,
    /// Lines that are one event: with first-line, each line that matches begins one; with presets, stack traces are one each.
    pub multi_line: Option<logs::MultiLineSettings>,
}

/// `[host-log.pod-defaults]`
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", default)]
pub struct PodDefaults {
    /// Bytes that are kept of a line or event.
    #[schemars(extend("default" = logs::DEFAULT_MAX_BYTES))]
    pub max_line_bytes: i64,
    /// Lines that are one event, unless the annotations adx-mon/log-multi-line or adx-mon/log-first-line say otherwise.
    pub multi_line: Option<logs::MultiLineSettings>,
}

/// `[[host-log.static-pod-target]]`
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", default)]
pub struct StaticPodTarget {
    /// Namespace of the pods; empty fits all.
    #[schemars(example = &"kube-system")]
    pub namespace: String,
    /// Name of the pod; empty fits all.
    pub name: String,
    /// Labels that the pods have.
    #[schemars(example = Map::from([("app".to_owned(), "coredns".to_owned())]))]
    pub label_targets: Map,
    /// Where the records go, database:table, unless an annotation of the pod says otherwise.
    #[schemars(example = &"Logs:Dns")]
    pub destination: String,
    /// What messages are put through, unless an annotation of the pod says otherwise.
    #[schemars(example = ["keyvalue"])]
    pub parsers: Vec<String>,
    /// Bytes that are kept of a line or event; 0 is what pod-defaults says.
    pub max_line_bytes: i64,
    /// Lines that are one event, in place of those of pod-defaults.
    pub multi_line: Option<logs::MultiLineSettings>,
}

/// `[[host-log.journal-target]]`
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", default)]
#[schemars(extend("required" = ["database", "table"]))]
pub struct JournalTarget {
    /// Database of the records.
    #[schemars(example = &"Logs")]
    pub database: String,
    /// Table of the records.
    #[schemars(example = &"Journal")]
    pub table: String,
    /// As of journalctl: matches of one field are alternatives, different fields must all match, '+' joins two such sets.
    /// Empty: all entries.
    #[schemars(example = ["_SYSTEMD_UNIT=kubelet.service", "_SYSTEMD_UNIT=containerd.service"])]
    pub matches: Vec<String>,
    /// Fields that are copied to the resource.
    #[schemars(example = ["_SYSTEMD_UNIT", "_HOSTNAME"])]
    pub journal_fields: Vec<String>,
    /// What messages are put through: 'json', 'keyvalue', 'klog', 'space'; the first that succeeds counts.
    #[schemars(example = ["klog"])]
    pub parsers: Vec<String>,
    /// Folder of the journal. Empty: those of systemd, /var/log/journal and /run/log/journal.
    pub journal_path: String,
}

/// `[[host-log.kernel-target]]`
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(extend("required" = ["database", "table"]))]
pub struct KernelTarget {
    /// Database of the records.
    #[schemars(example = &"Logs")]
    pub database: String,
    /// Table of the records.
    #[schemars(example = &"Kernel")]
    pub table: String,
    /// Least urgent priority that is taken.
    #[schemars(extend("default" = "info", "enum" = super::super::validate::KERNEL_PRIORITIES))]
    pub priority: String,
}

/// `[[syslog]]`
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", default)]
#[schemars(extend("required" = ["listen-addr", "database", "table"]))]
pub struct Syslog {
    /// Address to listen on, host:port.
    #[schemars(example = &"127.0.0.1:6514")]
    pub listen_addr: String,
    /// 'udp', or 'tcp' with messages that have a count before them or a newline behind them.
    #[schemars(example = &"tcp", extend("default" = "udp", "enum" = ["udp", "tcp"]))]
    pub protocol: String,
    /// Certificate (PEM) for TLS over tcp, with a key or not at all. Read again when it changes.
    #[schemars(example = &"/etc/adx-mon/tls.crt")]
    pub tls_cert_file: String,
    /// Key (PEM) of the certificate.
    #[schemars(example = &"/etc/adx-mon/tls.key")]
    pub tls_key_file: String,
    /// Certificates of authorities (PEM): clients must show a certificate of one of them.
    #[schemars(example = &"/etc/adx-mon/clients.crt")]
    pub tls_client_ca_file: String,
    /// Database of the records.
    #[schemars(example = &"Logs")]
    pub database: String,
    /// Table of the records.
    #[schemars(example = &"Syslog")]
    pub table: String,
    /// What messages are put through: 'json', 'keyvalue', 'klog', 'space'; the first that succeeds counts.
    pub parsers: Vec<String>,
    /// Set on the resource of every record.
    #[schemars(example = super::example_labels())]
    pub add_attributes: Map,
    /// Names of exporters that get the records too.
    #[schemars(example = ["fluent"])]
    pub exporters: Vec<String>,
    /// What is kept of a message, in bytes; the rest is counted.
    #[schemars(extend("default" = 65_536))]
    pub max_message_bytes: i64,
    /// Connections at a time.
    #[schemars(extend("default" = 1000))]
    pub max_connections: i64,
    /// What is done to records before they are stored, in this order. docs/logs.md has examples.
    pub transforms: Vec<Transform>,
}
