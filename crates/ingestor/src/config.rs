//! What an ingestor is told, checked.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use token_review::Authentication;
use wal::Durability;

use crate::cluster::Cluster;
use crate::peers::Peers;
use crate::time::Time;
use crate::upload::Ingestion;
use crate::upload::passage::QueueOptions;

/// Segments are sealed at this size at the latest: one is in memory as a whole when it goes to a peer, or is damaged.
const LARGEST_SEGMENT: u64 = 64 << 20;

/// A database and the Kusto service that holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Name of the database.
    pub database: String,
    /// URL of the service.
    pub url: String,
}

impl Endpoint {
    /// Reads `<database>=<url>`, split at the first `=`.
    ///
    /// # Errors
    /// When a part is missing or the name cannot be in a segment's file name.
    pub fn parse(text: &str, flag: &'static str) -> Result<Endpoint, ConfigError> {
        let invalid = |reason| ConfigError::Endpoint { flag, text: text.to_owned(), reason };
        let (database, url) = text.split_once('=').ok_or_else(|| invalid("has no ="))?;
        let (database, url) = (database.trim(), url.trim());
        if database.is_empty() || url.is_empty() {
            return Err(invalid("lacks the database or the endpoint"));
        }
        if !database.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(invalid("names a database with other characters than ASCII letters and digits"));
        }
        kusto::Endpoint::parse(url).map_err(|_| invalid("has an endpoint that is no http or https URL"))?;
        Ok(Endpoint { database: database.to_owned(), url: url.to_owned() })
    }
}

/// Why an ingestor cannot be configured so.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// `--storage-dir` is missing.
    #[error("--storage-dir is required: name a folder on a disk that survives restarts")]
    NoStorageDir,
    /// A database with its endpoint cannot be read.
    #[error("{flag} {text:?} {reason}; write <database>=<endpoint>")]
    Endpoint {
        /// The flag.
        flag: &'static str,
        /// What it says.
        text: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// A label has no `=`.
    #[error("--cluster-labels {0:?} has no =; write <key>=<value>")]
    Label(String),
    /// The backend is not available.
    #[error("{0}")]
    Backend(String),
    /// Only one of a pair of files is given.
    #[error("--ca-cert and --key belong together: give both, or neither for a self-signed certificate")]
    HalfCertificate,
    /// Client certificates without a certificate of one's own.
    #[error("--client-ca needs --ca-cert and --key: clients could not know whom they show their certificates to")]
    ClientCa,
    /// Settings of authentication that have no effect.
    #[error("--auth-audiences, --auth-service-accounts and --auth-open-paths need --auth-token-file or --auth-token-review")]
    NoAuthentication,
    /// A value is out of its range.
    #[error("{flag}: {reason}")]
    Value {
        /// The flag.
        flag: &'static str,
        /// What is wrong.
        reason: String,
    },
}

/// An ingestor's settings. [`Config::new`] has the defaults of the command line.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where journal and segments are kept.
    pub storage_dir: PathBuf,
    /// What an acknowledgement promises.
    pub durability: Durability,
    /// Databases of metrics. Empty: database `FakeMetrics`, whose segments are logged and deleted.
    pub metrics: Vec<Endpoint>,
    /// Databases of logs and traces. Empty: database `FakeLogs`, likewise.
    pub logs: Vec<Endpoint>,
    /// Hosts that may see Azure tokens beside those of Azure.
    pub trusted_hosts: Vec<kusto::TrustedHost>,
    /// Address with TLS, or none.
    pub listen_tls: Option<SocketAddr>,
    /// Address without TLS: metrics, state, and telemetry.
    pub listen_plain: SocketAddr,
    /// Take segments on the plain address too.
    pub transfer_on_plain: bool,
    /// PEM files of certificate and key; nothing means a self-signed certificate.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// PEM file of the authorities whose certificates clients must show on the address with TLS.
    pub client_ca: Option<PathBuf>,
    /// Who may send; everybody without it.
    pub authentication: Option<Authentication>,
    /// Uploads at a time for each database.
    pub uploads: usize,
    /// Connections at a time on each listener; 0 is no limit.
    pub max_connections: usize,
    /// A segment is sealed at this size, in bytes; at 64 MiB at the latest.
    pub max_segment_bytes: u64,
    /// A segment is sealed when its first row is this old.
    pub max_segment_age: Duration,
    /// All files together, in bytes, of which each database may use its equal share; 0 is no limit.
    pub max_disk_bytes: u64,
    /// A database takes no more when this many of its segments wait; 0 is no limit.
    pub max_segment_count: u64,
    /// Segments in one upload.
    pub max_batch_segments: usize,
    /// Where rows are queued: how old a table's oldest rows get while it gathers a large batch.
    pub max_transfer_age: Duration,
    /// Which way rows go into databases.
    pub ingestion: Ingestion,
    /// Where rows are queued: batches of about so many bytes of CSV at most are streamed.
    pub streaming_bytes: u64,
    /// Where rows are queued: tables whose rows are streamed, without waiting.
    pub streaming_tables: Vec<String>,
    /// Details of queueing.
    pub queue: QueueOptions,
    /// Segments with file names that begin so are acknowledged and dropped.
    pub drop_prefixes: Vec<String>,
    /// Requests that take longer are logged; zero turns it off.
    pub slow_request: Duration,
    /// Database and table of logs that name none.
    pub default_logs: Option<(String, String)>,
    /// Take CPU profiles on request, on the plain address.
    pub profiles: bool,
    /// Label of the health metric.
    pub region: String,
    /// The cluster whose rules are run; none without one.
    pub cluster: Option<Cluster>,
    /// Without a cluster: whether this one does what one of the ingestors does for all.
    pub leader: bool,
    /// The other ingestors, to which segments of their tables are passed on; none without it.
    pub peers: Option<Peers>,
    /// After a signal: how long uploads may go on.
    pub grace: Duration,
    /// The clock of uploads.
    pub time: Time,
}

impl Config {
    /// The defaults, with storage in `storage_dir`.
    pub fn new(storage_dir: impl Into<PathBuf>) -> Config {
        Config {
            storage_dir: storage_dir.into(),
            durability: Durability::Disk,
            metrics: Vec::new(),
            logs: Vec::new(),
            trusted_hosts: Vec::new(),
            listen_tls: Some(SocketAddr::from(([0, 0, 0, 0], 9090))),
            listen_plain: SocketAddr::from(([0, 0, 0, 0], 9091)),
            transfer_on_plain: false,
            certificate: None,
            client_ca: None,
            authentication: None,
            uploads: 50,
            max_connections: 1000,
            max_segment_bytes: 1 << 30,
            max_segment_age: Duration::from_secs(300),
            max_disk_bytes: 10 << 30,
            max_segment_count: 10_000,
            max_batch_segments: 25,
            max_transfer_age: Duration::from_secs(90),
            ingestion: Ingestion::Auto,
            streaming_bytes: 0,
            streaming_tables: Vec::new(),
            queue: QueueOptions::default(),
            cluster: None,
            leader: false,
            peers: None,
            drop_prefixes: Vec::new(),
            slow_request: Duration::from_secs(10),
            default_logs: None,
            profiles: false,
            region: String::new(),
            grace: Duration::from_secs(20),
            time: Time::default(),
        }
    }

    /// The database of metrics that clients send here directly: the first one.
    pub fn metrics_database(&self) -> &str {
        self.metrics.first().map_or("FakeMetrics", |e| e.database.as_str())
    }

    /// All databases that are taken.
    pub fn databases(&self) -> Vec<String> {
        let named = |endpoints: &[Endpoint], fake: &str| match endpoints {
            [] => vec![fake.to_owned()],
            some => some.iter().map(|e| e.database.clone()).collect(),
        };
        let mut all = named(&self.metrics, "FakeMetrics");
        all.extend(named(&self.logs, "FakeLogs"));
        all.dedup();
        all
    }

    pub(crate) fn store_options(&self) -> wal::Options {
        let mut options = wal::Options::new(&self.storage_dir);
        options.durability = self.durability;
        options.segment_max_bytes = self.max_segment_bytes.min(LARGEST_SEGMENT);
        options.segment_max_age_ms = self.max_segment_age.as_millis() as u64;
        options.max_disk_bytes = self.max_disk_bytes;
        let room = if self.max_disk_bytes == 0 { u64::MAX } else { self.max_disk_bytes };
        options.journal_file_bytes = (128 << 20).min(room / 64).max(1 << 20);
        // Uploads wait much shorter than the journal is long; half of the disk is for segments.
        options.journal_budget_bytes = (1 << 30).min(room / 4).max(4 << 20);
        options.memtable_bytes = 64 << 20;
        if self.max_disk_bytes > 0 {
            options.database_quota_bytes = Some(self.database_quota(&options));
        }
        options
    }

    /// An equal share for each database of what journal and reserve leave, so that one whose service
    /// is away cannot use up the room of the others.
    fn database_quota(&self, options: &wal::Options) -> u64 {
        let max = self.max_disk_bytes;
        let reserve = (256 << 20).max(max / 50).min(max / 4);
        let journal = options.journal_budget_bytes + 2 * options.journal_file_bytes;
        max.saturating_sub(reserve + journal) / self.databases().len().max(1) as u64
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn endpoint(database: &str) -> Endpoint {
        Endpoint { database: database.to_owned(), url: "http://a".to_owned() }
    }

    #[test]
    fn databases_share_the_disk_and_leave_room_for_the_journal() {
        let mut config = Config::new("/d");
        config.metrics = vec![endpoint("A"), endpoint("B")];
        config.logs = vec![endpoint("C"), endpoint("D")];
        let options = config.store_options();
        let quota = options.database_quota_bytes.unwrap();
        let rest = config.max_disk_bytes - 4 * quota;
        assert!(rest >= options.journal_budget_bytes + (256 << 20), "{rest}");
        assert!(4 * quota > config.max_disk_bytes / 2);
        config.max_disk_bytes = 0;
        assert_eq!(config.store_options().database_quota_bytes, None);
    }

    #[test]
    fn a_segment_fits_into_memory_whatever_the_flag_says() {
        let mut config = Config::new("/d");
        assert_eq!(config.store_options().segment_max_bytes, 64 << 20);
        config.max_segment_bytes = 1000;
        assert_eq!(config.store_options().segment_max_bytes, 1000);
    }

    proptest! {
        #[test]
        fn an_endpoint_is_refused_or_has_a_name_that_fits_into_a_file_name(text in "\\PC{0,40}|[A-Za-z0-9]{0,5} ?=? ?https?://[a-z.:0-9]{0,10}") {
            if let Ok(endpoint) = Endpoint::parse(&text, "--x") {
                prop_assert!(!endpoint.database.is_empty() && endpoint.database.bytes().all(|b| b.is_ascii_alphanumeric()));
                prop_assert!(kusto::Endpoint::parse(&endpoint.url).is_ok());
                prop_assert!(text.contains(&endpoint.url));
            }
        }
    }
}
