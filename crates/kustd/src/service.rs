//! One running kustd: storage, clock, the log of operations, metrics, and the tasks around them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use kql::binder::BindOptions;
use kql::value::UNIX_EPOCH_TICKS;
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::catalog::{StoredMapping, Table};
use crate::error::KustoError;
use crate::ingest::Format;
use crate::operations::Operations;
use crate::queued::{self, Failures, IngestionStorage};
use crate::remote::{Clusters, RemoteSettings};
use crate::snapshot::Snapshot;
use crate::storage::{Storage, StorageOptions};

/// The database that always exists.
pub const DEFAULT_DATABASE: &str = "NetDefaultDB";
/// Time between maintenance rounds.
const TICK: Duration = Duration::from_secs(1);

/// Where kustd keeps its data and how it is reached.
#[derive(Clone)]
pub struct Config {
    /// Folder of all data.
    pub data_dir: PathBuf,
    /// Address to listen on.
    pub listen: SocketAddr,
    /// What an acknowledgement of an ingestion promises.
    pub durability: wal::Durability,
    /// Databases that are created when missing, beside `NetDefaultDB`.
    pub databases: Vec<DatabaseSetting>,
    /// Age of rows that are dropped where neither a retention policy nor the database's setting says otherwise.
    pub retention: Option<Duration>,
    /// Size of all extents above which the oldest are dropped.
    pub max_bytes: Option<u64>,
    /// Connection strings of Azure Storage accounts, or of Azurite, for queued ingestion; without one there is none.
    pub ingestion_storage: Vec<String>,
    /// Which other clusters may be asked.
    pub remote: RemoteSettings,
}

/// A database that is created when missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseSetting {
    /// Its name.
    pub name: String,
    /// Age of its rows that are dropped where no retention policy says otherwise.
    pub retention: Option<Duration>,
}

impl From<&str> for DatabaseSetting {
    fn from(name: &str) -> DatabaseSetting {
        DatabaseSetting { name: name.to_owned(), retention: None }
    }
}

impl FromStr for DatabaseSetting {
    type Err = String;

    /// `Name`, or `Name=90d`.
    fn from_str(text: &str) -> Result<DatabaseSetting, String> {
        let Some((name, age)) = text.split_once('=') else { return Ok(text.into()) };
        let retention = crate::parse_period(age).ok_or_else(|| format!("'{age}' is no period such as 7d or 36h"))?;
        Ok(DatabaseSetting { retention: Some(retention), ..name.into() })
    }
}

/// Tells the time in ticks since year 1.
pub(crate) type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// Counts for `/metrics`.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) queries: Counter,
    pub(crate) query_failures: Counter,
    pub(crate) commands: Counter,
    pub(crate) ingested_rows: Counter,
    pub(crate) ingested_bytes: Counter,
    pub(crate) repeated_batches: Counter,
    pub(crate) queued_ingestions: Counter,
    pub(crate) queued_failures: Counter,
    pub(crate) queued_retries: Counter,
    sealed_tables: Counter,
    merged_extents: Counter,
    expired_extents: Counter,
    pub(crate) update_policy_failures: Counter,
    maintenance_failures: Counter,
    hot_bytes: Gauge,
    journal_bytes: Gauge,
}

impl Metrics {
    fn register(&self, registry: &mut Registry) {
        for (name, help, counter) in [
            ("kustd_queries", "Queries answered or refused", &self.queries),
            ("kustd_query_failures", "Queries that failed", &self.query_failures),
            ("kustd_commands", "Management commands run", &self.commands),
            ("kustd_ingested_rows", "Rows ingested", &self.ingested_rows),
            ("kustd_ingested_bytes", "Bytes of text ingested, uncompressed", &self.ingested_bytes),
            ("kustd_queued_ingestions", "Messages of queued ingestion whose rows are stored", &self.queued_ingestions),
            ("kustd_queued_failures", "Messages of queued ingestion that failed for good", &self.queued_failures),
            ("kustd_queued_retries", "Tries of queued ingestion that are to be repeated", &self.queued_retries),
            ("kustd_repeated_batches", "Ingestions whose batch id was durable already", &self.repeated_batches),
            ("kustd_sealed_tables", "Times that a table's rows went into an extent", &self.sealed_tables),
            ("kustd_merged_extents", "Extents that were merged into larger ones", &self.merged_extents),
            ("kustd_expired_extents", "Extents that retention dropped", &self.expired_extents),
            (
                "kustd_update_policy_failures",
                "Ingestions that a table without transactional policy did not get",
                &self.update_policy_failures,
            ),
            ("kustd_maintenance_failures", "Rounds of maintenance that failed", &self.maintenance_failures),
        ] {
            registry.register(name, help, counter.clone());
        }
        registry.register("kustd_hot_bytes", "Memory of rows that are not in extents yet", self.hot_bytes.clone());
        registry.register("kustd_journal_bytes", "Size of the journal", self.journal_bytes.clone());
    }
}

/// All that requests share.
pub(crate) struct Kustd {
    pub(crate) storage: Arc<Storage>,
    clock: Clock,
    pub(crate) started: i64,
    pub(crate) address: String,
    pub(crate) operations: Operations,
    pub(crate) ingestion_storage: Option<Arc<IngestionStorage>>,
    /// Queued ingestions that failed.
    pub(crate) failures: Failures,
    /// Other clusters.
    clusters: Arc<Clusters>,
    pub(crate) metrics: Metrics,
    /// Why the last round of maintenance failed.
    ailing: Mutex<Option<String>>,
}

impl Kustd {
    pub(crate) fn now(&self) -> i64 {
        (self.clock)()
    }

    /// The present state of everything, for a query.
    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot::take(&self.storage, self.address.trim_start_matches("http://"), &self.clusters)
    }

    /// The table of that name.
    pub(crate) fn table(&self, database: &str, name: &str) -> Result<Arc<Table>, KustoError> {
        let image = self.storage.catalog().image();
        let database = image.database(database).ok_or_else(|| KustoError::not_found("Database", database))?;
        database.tables.get(name).cloned().ok_or_else(|| KustoError::not_found("Table", name))
    }

    /// The ingestion mapping of that name for a format.
    pub(crate) fn mapping(&self, table: &Table, format: Format, name: &str) -> Result<Arc<StoredMapping>, KustoError> {
        let key = (format.mapping_kind().to_owned(), name.to_owned());
        table.mappings.get(&key).cloned().ok_or_else(|| {
            let mut error = KustoError::not_found("MappingPersistent", name);
            error.code = "BadRequest_MappingReferenceWasNotFound";
            error
        })
    }

    /// What queries in `database` are bound with.
    pub(crate) fn bind_options(&self, database: &str) -> BindOptions {
        BindOptions { now: self.now(), database: database.to_owned(), ..BindOptions::default() }
    }

    fn tick(&self) {
        let outcome = self.storage.tick(self.now());
        let (hot, journal) = self.storage.pressure();
        self.metrics.hot_bytes.set(i64::try_from(hot).unwrap_or(i64::MAX));
        self.metrics.journal_bytes.set(i64::try_from(journal).unwrap_or(i64::MAX));
        match outcome {
            Ok(report) => {
                self.metrics.sealed_tables.inc_by(report.sealed as u64);
                self.metrics.merged_extents.inc_by(report.merged as u64);
                self.metrics.expired_extents.inc_by(report.expired as u64);
                *self.ailing.lock() = None;
            }
            Err(error) => {
                tracing::error!(%error, "maintenance failed; it is tried again");
                self.metrics.maintenance_failures.inc();
                *self.ailing.lock() = Some(error.to_string());
            }
        }
    }
}

/// A kustd that has been started.
pub struct Running {
    /// Where it listens.
    pub addr: SocketAddr,
    server: JoinHandle<anyhow::Result<()>>,
}

impl Running {
    /// Waits until it has stopped: requests ended, the journal written.
    ///
    /// # Errors
    /// When the listener failed.
    pub async fn finished(self) -> anyhow::Result<()> {
        self.server.await.context("kustd's server task")?
    }
}

/// Starts kustd; it stops when `shutdown` is cancelled.
///
/// # Errors
/// When the folder cannot be opened or the address is taken.
pub async fn start(config: Config, shutdown: CancellationToken) -> anyhow::Result<Running> {
    let options = StorageOptions {
        durability: config.durability,
        retention: config.retention,
        max_bytes: config.max_bytes,
        ..StorageOptions::new(&config.data_dir)
    };
    start_with(config, options, Arc::new(system_ticks), shutdown).await
}

/// [`start`] with every limit of storage and the clock given: for tests.
///
/// # Errors
/// As [`start`].
pub async fn start_with(
    config: Config,
    mut options: StorageOptions,
    clock: Arc<dyn Fn() -> i64 + Send + Sync>,
    shutdown: CancellationToken,
) -> anyhow::Result<Running> {
    let ages = config.databases.iter().filter_map(|database| Some((database.name.clone(), database.retention?)));
    options.retentions.extend(ages);
    let ingestion_storage = IngestionStorage::new(&config.ingestion_storage)?.map(Arc::new);
    let clusters = Arc::new(Clusters::new(&config.remote)?);
    let listener = tokio::net::TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("listening on {}: stop what uses the port, or choose another address", config.listen))?;
    let addr = listener.local_addr()?;
    let data_dir = config.data_dir.display().to_string();
    let storage = tokio::task::spawn_blocking(move || Storage::open(options))
        .await?
        .with_context(|| format!("opening the data folder {data_dir}"))?;
    let stored = storage.catalog().resume_operations(clock())?;
    let kustd = Arc::new(Kustd {
        storage: Arc::new(storage),
        started: clock(),
        clock,
        address: format!("http://{addr}"),
        operations: Operations::new(stored, shutdown.clone()),
        ingestion_storage,
        failures: Failures::default(),
        clusters,
        metrics: Metrics::default(),
        ailing: Mutex::default(),
    });
    create_databases(&kustd, &config.databases)?;
    let mut registry = Registry::default();
    kustd.metrics.register(&mut registry);
    kustd.clusters.metrics.register(&mut registry);
    let ready = {
        let kustd = kustd.clone();
        Arc::new(move || match &*kustd.ailing.lock() {
            Some(why) => Err(format!("maintenance fails: {why}")),
            None => Ok(()),
        })
    };
    let router = crate::rest::router(kustd.clone()).merge(server::operations_router(ready, Arc::new(registry)));
    // queries have their own time limit, and say so in Kusto's words
    let limits = server::Limits { request_timeout: Duration::from_secs(3700), ..server::Limits::default() };
    let maintenance = run_maintenance(kustd.clone(), shutdown.clone());
    let queued = kustd.ingestion_storage.as_ref().map(|storage| queued::run(&kustd, storage, &shutdown));
    let task = tokio::spawn(async move {
        server::serve(listener, router, limits, None, shutdown).await.context("serving requests")?;
        if let Some(queued) = queued {
            queued.wait().await;
        }
        kustd.operations.finished().await;
        maintenance.await.context("the maintenance task")?;
        Ok(())
    });
    Ok(Running { addr, server: task })
}

fn create_databases(kustd: &Kustd, databases: &[DatabaseSetting]) -> anyhow::Result<()> {
    let catalog = kustd.storage.catalog();
    for name in databases.iter().map(|database| database.name.as_str()).chain([DEFAULT_DATABASE]) {
        if catalog.image().database(name).is_none() {
            catalog.change(|edit| edit.create_database(name, kustd.now()))?;
        }
    }
    Ok(())
}

fn run_maintenance(kustd: Arc<Kustd>, shutdown: CancellationToken) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
            let kustd = kustd.clone();
            if tokio::task::spawn_blocking(move || kustd.tick()).await.is_err() {
                tracing::error!("a round of maintenance panicked");
            }
        }
    })
}

/// The present moment.
pub(crate) fn system_ticks() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    UNIX_EPOCH_TICKS + i64::try_from(since.as_nanos() / 100).unwrap_or(0)
}

/// Total and available memory of the machine in bytes, 0 where it is not known.
pub(crate) fn machine_memory() -> (u64, u64) {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
    };
    (field("MemTotal:").unwrap_or(0), field("MemAvailable:").unwrap_or(0))
}
