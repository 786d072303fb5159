//! The command line, with the names and meanings of the reference.
//!
//! Differences, each on purpose: `--durability` says what an acknowledgement promises, and
//! `--enable-wal-fsync=false` does not weaken it; listen addresses can be set.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Parser};
use kusto::TrustedHost;
use server::auth::{AuthError, OPEN_PATHS};
use token_review::Authentication;
use transfer::Credentials;
use wal::Durability;

use crate::cluster::Cluster;
use crate::config::{Config, ConfigError, Endpoint};
use crate::peers::{Discovery, Peers, parse};
use crate::upload::Ingestion;
use crate::upload::passage::QueueOptions;

/// Shown below the flags.
const EXAMPLES: &str = "\
Lists are repeated or separated by commas; durations are written as 90s, 5m or 1h30m.

Examples:
  Metrics and logs into an embedded Kusto on this machine:
    ingestor --storage-dir /var/lib/ingestor \\
      --metrics-kusto-endpoints Metrics=http://127.0.0.1:8080 \\
      --logs-kusto-endpoints Logs=http://127.0.0.1:8080

  What became of all rows, and of those that Kusto refuses:
    ingestor ledger --storage-dir /var/lib/ingestor
    ingestor dlq ls --storage-dir /var/lib/ingestor

  Then, with collectors that send to https://HOST:9090:
    curl http://127.0.0.1:9091/debug/store     what waits, and where all rows are
    curl http://127.0.0.1:9091/metrics         the same for Prometheus

On SIGTERM nothing more is taken, and what is here is uploaded for up to 20 seconds; the rest is kept
and uploaded after the next start. LOG_LEVEL (ERROR, WARN, INFO, DEBUG, TRACE) says how much is logged.";

/// Takes segments and telemetry, batches them per table and uploads them to Kusto.
#[derive(Debug, Parser)]
#[command(name = "ingestor", version, after_help = EXAMPLES)]
pub struct Flags {
    /// Look into a storage directory instead of running.
    #[command(subcommand)]
    pub command: Option<crate::Command>,
    /// Kubeconfig file of the cluster whose rules are run; without it KUBECONFIG, or the pod's service account.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Namespace of the ingestors, where their leader is elected; without it that of the kubeconfig or the pod.
    #[arg(long, value_name = "NAME")]
    pub namespace: Option<String>,
    /// Name of this host among its peers and as leader, usually `<statefulset>-<n>`; without it HOSTNAME.
    #[arg(long, value_name = "NAME")]
    pub hostname: Option<String>,
    /// Region, a label of the health metric.
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    pub region: String,
    /// Folder of journal and segments. Required.
    #[arg(long, value_name = "DIR")]
    pub storage_dir: Option<PathBuf>,
    /// Where data goes: adx.
    #[arg(long, value_name = "BACKEND", default_value = "adx", env = "INGESTOR_STORAGE_BACKEND")]
    pub storage_backend: String,
    /// Databases of metrics. At https endpoints the default chain of Azure's credentials is used, as in docs/credentials.md.
    #[arg(long, value_name = "DATABASE=URL", value_delimiter = ',', action = ArgAction::Append)]
    pub metrics_kusto_endpoints: Vec<String>,
    /// Databases of logs and traces.
    #[arg(long, value_name = "DATABASE=URL", value_delimiter = ',', action = ArgAction::Append)]
    pub logs_kusto_endpoints: Vec<String>,
    /// Hosts that may see Azure tokens though they are no addresses of Kusto in Azure: `adx.example.com`, or `.example.com` for
    /// all below it.
    #[arg(long, value_name = "HOST", value_delimiter = ',', action = ArgAction::Append, env = "ADXMON_KUSTO_TRUSTED_HOSTS")]
    pub kusto_trusted_hosts: Vec<TrustedHost>,
    /// Labels of this cluster, for the criteria of rules and, as _region, in their KQL.
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',', action = ArgAction::Append)]
    pub cluster_labels: Vec<String>,
    /// All ingestors of the cluster, this one included, by the names that --hostname gives them. Without it and without
    /// --peers-file they are the ready pods with the label app=ingestor of this one's StatefulSet, if there is a cluster.
    #[arg(long, value_name = "NAME=URL", value_delimiter = ',', action = ArgAction::Append)]
    pub peers: Vec<String>,
    /// File with the same, an entry a line. Read again when it changes.
    #[arg(long, value_name = "FILE", conflicts_with = "peers")]
    pub peers_file: Option<PathBuf>,
    /// Do what one ingestor does for all: counts of tables, and a word on unused ones. For one of them where there is no
    /// cluster, in which a lease decides.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", default_value = "false", require_equals = true, action = ArgAction::Set)]
    pub leader: bool,
    /// File with the bearer token for peers; without it the first one of --auth-token-file.
    #[arg(long, value_name = "FILE")]
    pub peer_token_file: Option<PathBuf>,
    /// PEM file of the authorities that peers' certificates must be of; without it those of the system.
    #[arg(long, value_name = "FILE")]
    pub peer_ca: Option<PathBuf>,
    /// Upload everything oneself instead of passing it to the owner of its table.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", default_value = "false", require_equals = true, action = ArgAction::Set)]
    pub disable_peer_transfer: bool,
    /// Uploads at a time for each database.
    #[arg(long, value_name = "COUNT", default_value_t = 50)]
    pub uploads: usize,
    /// Connections at a time on each listener; 0 is no limit.
    #[arg(long, value_name = "COUNT", default_value_t = 1000)]
    pub max_connections: usize,
    /// Bytes at which a segment is sealed; at 64 MiB at the latest.
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 30)]
    pub max_segment_size: u64,
    /// Age at which a segment is sealed.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = parse_go_duration)]
    pub max_segment_age: Duration,
    /// Bytes up to which segments are passed to peers. No effect without peers.
    #[arg(long, value_name = "BYTES", default_value_t = 100 << 20)]
    pub max_transfer_size: u64,
    /// Age up to which segments are passed to peers, and up to which rows wait for a large batch where they are queued.
    #[arg(long, value_name = "DURATION", default_value = "90s", value_parser = parse_go_duration)]
    pub max_transfer_age: Duration,
    /// Bytes of all files together, of which each database may use its equal share; 0 is no limit.
    #[arg(long, value_name = "BYTES", default_value_t = 10 << 30)]
    pub max_disk_usage: u64,
    /// Waiting segments from which on a database takes no more; 0 is no limit.
    #[arg(long, value_name = "COUNT", default_value_t = 10_000)]
    pub max_segment_count: u64,
    /// Segments in one upload.
    #[arg(long, value_name = "COUNT", default_value_t = 25)]
    pub max_batch_segments: usize,
    /// Which way rows go into databases: auto (queued ingestion into Azure Data Explorer over https, streaming into everything
    /// else), queued or streaming.
    #[arg(long, value_name = "WAY", default_value = "auto")]
    pub ingestion: Ingestion,
    /// Where rows are queued: batches of about so many bytes of CSV at most are streamed, if the table streams. They arrive
    /// sooner, and after a lost answer perhaps twice.
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    pub streaming_size: u64,
    /// Where rows are queued: tables whose rows are streamed, without waiting for a large batch.
    #[arg(long, value_name = "TABLE", value_delimiter = ',', action = ArgAction::Append)]
    pub streaming_tables: Vec<String>,
    /// Where rows are queued: how long Kusto gathers rows of a table before it ingests them, as the tables' batching policies
    /// say. Kusto is asked more or less patiently accordingly, and a message that may be lost is sent again after three times
    /// this.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = parse_go_duration)]
    pub ingestion_batching_time: Duration,
    /// Transfers to peers at a time; at most 5 to each.
    #[arg(long, value_name = "COUNT", default_value_t = 50)]
    pub max_transfer_concurrency: usize,
    /// Accepted for the reference's manifests; has no meaning there either.
    #[arg(long, value_name = "COUNT", default_value_t = 25)]
    pub partition_size: u64,
    /// File-name prefixes of segments to acknowledge and drop.
    #[arg(long, value_name = "PREFIX", value_delimiter = ',', action = ArgAction::Append)]
    pub drop_prefix: Vec<String>,
    /// Accepted; what is acknowledged is durable as --durability says, never less.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", default_value = "false", require_equals = true, action = ArgAction::Set)]
    pub enable_wal_fsync: bool,
    /// What an acknowledgement promises: disk (survives a power cut) or process (survives a crash of
    /// the process).
    #[arg(long, value_name = "PROMISE", default_value = "disk", env = "ADXMON_DURABILITY")]
    pub durability: Durability,
    /// Requests that take longer are logged; 0 turns it off.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_go_duration)]
    pub slow_request_threshold: Duration,
    /// PEM file of the server's certificate.
    #[arg(long, value_name = "FILE")]
    pub ca_cert: Option<PathBuf>,
    /// PEM file of its key.
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// PEM file of authorities: clients of the address with TLS must show a certificate of one of them.
    #[arg(long, value_name = "FILE")]
    pub client_ca: Option<PathBuf>,
    /// File with bearer tokens, one a line; senders need one of them. Read again when it changes.
    #[arg(long, value_name = "FILE")]
    pub auth_token_file: Option<PathBuf>,
    /// Take bearer tokens that Kubernetes knows; needs deploy/rbac/token-review.yaml.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", default_value = "false", require_equals = true, action = ArgAction::Set)]
    pub auth_token_review: bool,
    /// What tokens of Kubernetes must be meant for; any of the cluster will do without it.
    #[arg(long, value_delimiter = ',', action = ArgAction::Append, value_name = "AUDIENCE")]
    pub auth_audiences: Vec<String>,
    /// Whose tokens of Kubernetes are good, `<namespace>/<name>` or `<namespace>/*`; anybody's without it.
    #[arg(long, value_delimiter = ',', action = ArgAction::Append, value_name = "NAMESPACE/NAME")]
    pub auth_service_accounts: Vec<String>,
    /// Paths that need no token [default: /metrics,/readyz,/healthz].
    #[arg(long, value_delimiter = ',', action = ArgAction::Append, value_name = "PATH")]
    pub auth_open_paths: Vec<String>,
    /// Take CPU profiles on request, on the plain address: /debug/pprof/profile?seconds=10.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", default_value = "false", require_equals = true, action = ArgAction::Set)]
    pub enable_pprof: bool,
    /// Accept any certificate of peers. Always so without --ca-cert, since peers then have such certificates too.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", default_value = "false", require_equals = true, action = ArgAction::Set)]
    pub insecure_skip_verify: bool,
    /// Address with TLS.
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:9090")]
    pub listen_tls: SocketAddr,
    /// Address without TLS.
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:9091")]
    pub listen_plain: SocketAddr,
}

impl Flags {
    /// What the flags mean.
    ///
    /// # Errors
    /// The first flag that makes no sense, with the way out.
    pub fn config(&self) -> Result<Config, ConfigError> {
        let storage_dir = self.storage_dir.clone().filter(|d| !d.as_os_str().is_empty());
        let mut config = Config::new(storage_dir.ok_or(ConfigError::NoStorageDir)?);
        check_backend(&self.storage_backend)?;
        let label = |text: &String| match text.split_once('=') {
            Some((name, value)) => Ok((name.trim().to_owned(), value.trim().to_owned())),
            None => Err(ConfigError::Label(text.clone())),
        };
        config.cluster = Some(Cluster {
            kubeconfig: self.kubeconfig.clone().filter(|path| !path.as_os_str().is_empty()),
            namespace: self.namespace.clone().filter(|name| !name.is_empty()),
            hostname: self.hostname.clone().filter(|name| !name.is_empty()),
            labels: self.cluster_labels.iter().map(label).collect::<Result<_, _>>()?,
        });
        config.metrics = endpoints(&self.metrics_kusto_endpoints, "--metrics-kusto-endpoints")?;
        config.logs = endpoints(&self.logs_kusto_endpoints, "--logs-kusto-endpoints")?;
        config.trusted_hosts.clone_from(&self.kusto_trusted_hosts);
        config.certificate = match (&self.ca_cert, &self.key) {
            (Some(cert), Some(key)) => Some((cert.clone(), key.clone())),
            (None, None) => None,
            _ => return Err(ConfigError::HalfCertificate),
        };
        config.profiles = self.enable_pprof;
        config.client_ca = self.client_ca.clone();
        if config.client_ca.is_some() && config.certificate.is_none() {
            return Err(ConfigError::ClientCa);
        }
        config.authentication = self.authentication()?;
        config.durability = self.durability;
        config.uploads = at_least_one(self.uploads, "--uploads")?;
        config.max_batch_segments = at_least_one(self.max_batch_segments, "--max-batch-segments")?;
        config.max_transfer_age = self.max_transfer_age;
        config.ingestion = self.ingestion;
        config.streaming_bytes = self.streaming_size;
        config.streaming_tables = self.streaming_tables.clone();
        config.queue = QueueOptions::of_batching(self.ingestion_batching_time);
        config.max_connections = self.max_connections;
        config.max_segment_bytes = self.max_segment_size;
        config.max_segment_age = self.max_segment_age;
        config.max_disk_bytes = self.max_disk_usage;
        config.max_segment_count = self.max_segment_count;
        config.drop_prefixes = self.drop_prefix.iter().filter(|p| !p.is_empty()).cloned().collect();
        config.slow_request = self.slow_request_threshold;
        config.region = self.region.clone();
        config.listen_tls = Some(self.listen_tls);
        config.listen_plain = self.listen_plain;
        config.peers = self.peers()?;
        config.leader = self.leader;
        Ok(config)
    }
}

impl Flags {
    fn peers(&self) -> Result<Option<Peers>, ConfigError> {
        let invalid = |reason| ConfigError::Value { flag: "--peers", reason };
        let found = match (&self.peers_file, self.peers.as_slice()) {
            (Some(path), _) => Discovery::File(path.clone()),
            (None, []) => Discovery::Cluster,
            (None, list) => Discovery::List(parse(&list.join(",")).map_err(invalid)?),
        };
        let own_pair = self.ca_cert.clone().zip(self.key.clone());
        let peers = Peers {
            concurrency: at_least_one(self.max_transfer_concurrency, "--max-transfer-concurrency")?,
            max_bytes: self.max_transfer_size,
            max_age: self.max_transfer_age,
            credentials: Credentials {
                token_file: self.peer_token_file.clone().or_else(|| self.auth_token_file.clone()),
                // Peers ask for what this one asks for.
                client_certificate: own_pair.clone().filter(|_| self.client_ca.is_some()),
                server_ca: self.peer_ca.clone(),
            },
            insecure_skip_verify: self.insecure_skip_verify || own_pair.is_none(),
            ..Peers::new(found)
        };
        Ok((!self.disable_peer_transfer).then_some(peers))
    }

    fn authentication(&self) -> Result<Option<Authentication>, ConfigError> {
        if self.auth_token_file.is_none() && !self.auth_token_review {
            let useless = [&self.auth_audiences, &self.auth_service_accounts, &self.auth_open_paths].iter().any(|list| !list.is_empty());
            return if useless { Err(ConfigError::NoAuthentication) } else { Ok(None) };
        }
        let invalid = |error: AuthError| ConfigError::Value { flag: "--auth-service-accounts", reason: error.to_string() };
        let open_paths = match self.auth_open_paths.as_slice() {
            [] => OPEN_PATHS.map(str::to_owned).to_vec(),
            given => given.to_vec(),
        };
        Ok(Some(Authentication {
            token_file: self.auth_token_file.clone(),
            token_review: self.auth_token_review,
            audiences: self.auth_audiences.clone(),
            service_accounts: self.auth_service_accounts.iter().map(|text| text.parse().map_err(invalid)).collect::<Result<_, _>>()?,
            open_paths,
        }))
    }
}

fn check_backend(backend: &str) -> Result<(), ConfigError> {
    match backend.trim().to_ascii_lowercase().as_str() {
        "adx" => Ok(()),
        "clickhouse" => Err(ConfigError::Backend(
            "--storage-backend clickhouse is not supported: data goes to Azure Data Explorer or to the \
             embedded Kusto; use adx"
                .to_owned(),
        )),
        other => Err(ConfigError::Backend(format!("unknown --storage-backend {other:?}: use adx"))),
    }
}

fn endpoints(list: &[String], flag: &'static str) -> Result<Vec<Endpoint>, ConfigError> {
    let mut out: Vec<Endpoint> = Vec::with_capacity(list.len());
    for text in list.iter().filter(|text| !text.trim().is_empty()) {
        let endpoint = Endpoint::parse(text, flag)?;
        if out.iter().any(|known| known.database == endpoint.database) {
            let reason = "names a database that has an endpoint already";
            return Err(ConfigError::Endpoint { flag, text: text.clone(), reason });
        }
        out.push(endpoint);
    }
    Ok(out)
}

fn at_least_one(value: usize, flag: &'static str) -> Result<usize, ConfigError> {
    match value {
        0 => Err(ConfigError::Value { flag, reason: "must be at least 1".to_owned() }),
        value => Ok(value),
    }
}

/// Reads a duration as Go writes it: `5m`, `1h30m`, `1.5s`, `100ms`, or `0`.
///
/// # Errors
/// A text that says what is wrong with it.
pub fn parse_go_duration(text: &str) -> Result<Duration, String> {
    let invalid = || format!("{text:?} is no duration: write it like 90s, 5m or 1h30m");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(invalid)?;
        let number: f64 = rest[..digits].parse().map_err(|_| invalid())?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        total += number * unit_seconds(&rest[..end]).ok_or_else(invalid)?;
        rest = &rest[end..];
    }
    match Duration::try_from_secs_f64(total) {
        Ok(duration) if !text.is_empty() => Ok(duration),
        _ => Err(invalid()),
    }
}

fn unit_seconds(unit: &str) -> Option<f64> {
    Some(match unit {
        "h" => 3600.0,
        "m" => 60.0,
        "s" => 1.0,
        "ms" => 1e-3,
        "us" | "µs" | "μs" => 1e-6,
        "ns" => 1e-9,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn config(arguments: &[&str]) -> Result<Config, ConfigError> {
        let all = ["ingestor"].iter().chain(arguments);
        Flags::try_parse_from(all).unwrap().config()
    }

    #[test]
    fn the_defaults_are_those_of_the_reference() {
        let c = config(&["--storage-dir=/d"]).unwrap();
        assert_eq!(c.max_segment_age, Duration::from_secs(300));
        assert_eq!((c.max_segment_bytes, c.max_disk_bytes), (1 << 30, 10 << 30));
        assert_eq!((c.uploads, c.max_batch_segments, c.max_connections), (50, 25, 1000));
        assert_eq!(c.listen_plain.port(), 9091);
        assert_eq!(c.databases(), ["FakeMetrics", "FakeLogs"]);
        assert_eq!(c.durability, Durability::Disk);
        assert_eq!(c.queue, QueueOptions::default());
    }

    #[test]
    fn kusto_is_asked_as_patiently_as_it_gathers() {
        let queue = config(&["--storage-dir=/d", "--ingestion-batching-time=10s"]).unwrap().queue;
        assert_eq!((queue.first_ask, queue.longest_ask), (Duration::from_millis(500), Duration::from_secs(10)));
        assert_eq!(queue.batching, Duration::from_secs(10));
    }

    #[test]
    fn the_command_of_the_page_on_security_is_taken() {
        let page = include_str!("../../../docs/security.md");
        let (_, command) = page.split_once("\n```\ningestor ").unwrap();
        let (command, _) = command.split_once(" …").unwrap();
        let arguments: Vec<&str> = command.split_whitespace().filter(|word| *word != "\\").chain(["--storage-dir=/d"]).collect();
        let config = config(&arguments).unwrap();
        assert!(config.certificate.is_some() && config.client_ca.is_some());
        assert_eq!(config.authentication.unwrap().token_file.unwrap().to_str(), Some("/etc/adx-mon/token"));
    }

    /// `--cluster-labels <CLUSTER_LABELS>` would say nothing of what is meant.
    #[test]
    fn the_help_says_how_each_value_is_written() {
        use clap::CommandFactory as _;
        for argument in Flags::command().get_arguments().filter(|argument| argument.get_action().takes_values()) {
            let id = argument.get_id().as_str();
            let name = argument.get_value_names().and_then(|names| names.first()).unwrap_or_else(|| panic!("{id}")).to_string();
            assert_ne!(name, id.to_uppercase(), "--{id}");
        }
        let help = Flags::command().render_long_help().to_string();
        for part in ["--cluster-labels <KEY=VALUE>", "--metrics-kusto-endpoints <DATABASE=URL>", "--max-disk-usage <BYTES>"] {
            assert!(help.contains(part), "{help}");
        }
    }

    #[test]
    fn lists_are_repeated_or_separated_by_commas() {
        let c = config(&[
            "--storage-dir=/d",
            "--metrics-kusto-endpoints= A = http://a:1 ,B=https://b",
            "--metrics-kusto-endpoints=C=http://c;x=y",
            "--logs-kusto-endpoints=L=http://a:1",
            "--drop-prefix=x,y",
            "--enable-wal-fsync=false",
            "--insecure-skip-verify",
            "--durability=process",
        ])
        .unwrap();
        let databases: Vec<_> = c.metrics.iter().map(|e| e.database.as_str()).collect();
        assert_eq!(databases, ["A", "B", "C"]);
        assert_eq!(c.metrics[0].url, "http://a:1");
        assert_eq!(c.metrics_database(), "A");
        assert_eq!(c.drop_prefixes, ["x", "y"]);
        assert_eq!(c.durability, Durability::Process);
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_a_reason() {
        assert_eq!(config(&[]).unwrap_err(), ConfigError::NoStorageDir);
        for (flag, part) in [
            ("--metrics-kusto-endpoints=http", "has no ="),
            ("--metrics-kusto-endpoints==http://a", "lacks"),
            ("--logs-kusto-endpoints=a_b=http://a", "other characters"),
            ("--logs-kusto-endpoints=A=ftp://a", "no http"),
            ("--cluster-labels=a", "has no ="),
            ("--storage-backend=ClickHouse", "not supported"),
            ("--storage-backend=x", "unknown"),
            ("--ca-cert=/x", "belong together"),
            ("--client-ca=/x", "--ca-cert"),
            ("--auth-audiences=x", "--auth-token-review"),
            ("--uploads=0", "at least 1"),
            ("--max-transfer-concurrency=0", "at least 1"),
            ("--peers=a", "has no ="),
        ] {
            let error = config(&["--storage-dir=/d", flag]).unwrap_err().to_string();
            assert!(error.contains(part), "{flag}: {error}");
        }
    }

    #[test]
    fn peers_are_a_list_a_file_or_pods() {
        let peers = |arguments: &[&str]| {
            let all = ["--storage-dir=/d"].iter().chain(arguments).copied().collect::<Vec<_>>();
            config(&all).unwrap().peers
        };
        let found = peers(&[]).unwrap();
        assert!(matches!(found.found, Discovery::Cluster));
        assert_eq!((found.concurrency, found.max_bytes, found.max_age), (50, 100 << 20, Duration::from_secs(90)));
        // The reference forces it with its own self-signed certificate.
        assert!(found.insecure_skip_verify);
        assert!(peers(&["--disable-peer-transfer"]).is_none());
        let list = peers(&["--peers=a=https://a:9090,b=https://b:9090", "--ca-cert=/c", "--key=/k", "--auth-token-file=/t"]).unwrap();
        assert!(matches!(&list.found, Discovery::List(members) if members.len() == 2));
        assert!(!list.insecure_skip_verify);
        assert_eq!(list.credentials.token_file, Some("/t".into()));
        assert_eq!(list.credentials.client_certificate, None);
        let file = peers(&["--peers-file=/p", "--ca-cert=/c", "--key=/k", "--client-ca=/a", "--peer-token-file=/s"]).unwrap();
        assert!(matches!(&file.found, Discovery::File(path) if path.as_os_str() == "/p"));
        assert_eq!(file.credentials.client_certificate, Some(("/c".into(), "/k".into())));
        assert_eq!(file.credentials.token_file, Some("/s".into()));
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_reader_of_durations_panic(text in "\\PC{0,20}|[-+0-9.hmsuµn]{0,20}") {
            let _ = parse_go_duration(&text);
        }

        #[test]
        fn whole_units_are_read_exactly(hours in 0u64..1000, minutes in 0u64..60, seconds in 0u64..60, ms in 0u64..1000) {
            let text = format!("{hours}h{minutes}m{seconds}s{ms}ms");
            let expected = Duration::from_millis(((hours * 60 + minutes) * 60 + seconds) * 1000 + ms);
            let read = parse_go_duration(&text).unwrap();
            proptest::prop_assert!(read.abs_diff(expected) < Duration::from_micros(1), "{read:?}");
        }
    }

    #[test]
    fn go_durations() {
        for (text, ms) in [("0", 0), ("5m", 300_000), ("1h30m", 5_400_000), ("1.5s", 1500), ("100ms", 100), ("2h0.5m", 7_230_000)] {
            assert_eq!(parse_go_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "5", "m", "-1s", "1x", "1..5s", "999999999999999999h"] {
            assert!(parse_go_duration(text).is_err(), "{text}");
        }
    }
}
