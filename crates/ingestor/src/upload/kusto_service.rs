//! One database of a Kusto service: what kind of service it is, which tables and mappings it has,
//! and the way rows get in.
//!
//! | service | way | what it remembers |
//! |---|---|---|
//! | kustd | streaming ingestion | batch ids: a repeat changes nothing |
//! | Azure Data Explorer | queued ingestion; streaming ingestion of small batches and urgent tables, if that is wanted | tags of large batches; otherwise nothing: at-least-once, counted |
//! | the Kusto emulator | `.ingest inline`, since it does not stream | nothing |
//!
//! A failure is laid to the rows only when the service says that it refuses them. What an
//! administrator can put right (rights, a missing database, streaming ingestion that is switched off)
//! keeps the rows here until it is.

use std::collections::{HashMap, HashSet};
use std::io;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use azure::TokenSource;
use kusto::{BatchId, Client, Delivery, Error, Kind, RetryPolicy, StreamOptions, TrustedHost};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};
use wal::SegmentId;

use super::azure_queue::AzureQueue;
use super::machine::Sent;
use super::passage::Way;
use super::plan::{Batch, Ended};
use super::queue::{Queue, Source};
use super::rows::{Piece, Pieces, ReadError};
use crate::kql::{self, Column};
use crate::time::Time;

/// One request may take this long; the reference's limit for a whole batch.
const TIMEOUT: Duration = Duration::from_secs(600);
/// Rows that the uploads of a database hold in memory at a time, compressed or not.
const MEMORY_KIB: u32 = 64 << 10;
/// What the upload of a blob holds: blocks on their way, rows and the compressor.
const BLOB_KIB: u32 = 20 << 10;
/// CSV is at most about so many times as long as the blocks that it is stored in.
const INFLATION: u64 = 24;
/// How long a table that does not stream is not asked again.
const NO_STREAMING_MS: u64 = 3_600_000;
/// How often tables that are gone are looked for; the reference's period.
const TABLES_MS: u64 = 900_000;
/// Pieces are not made smaller than this.
const SMALLEST_PIECE: usize = 4 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Service {
    Kustd,
    Adx,
    Emulator,
}

impl Service {
    /// Bytes of CSV in one request. Azure's streaming ingestion takes 4 MB.
    fn piece_bytes(self) -> usize {
        match self {
            Service::Kustd => 8 << 20,
            Service::Adx => 3_500_000,
            Service::Emulator => 4 << 20,
        }
    }
}

/// Which way rows go into a database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ingestion {
    /// Queued into Azure Data Explorer over https, streamed into everything else.
    #[default]
    Auto,
    /// Queued.
    Queued,
    /// Streamed, or inline where the service does not stream.
    Streaming,
}

impl FromStr for Ingestion {
    type Err = String;

    fn from_str(text: &str) -> Result<Ingestion, String> {
        match text {
            "auto" => Ok(Ingestion::Auto),
            "queued" => Ok(Ingestion::Queued),
            "streaming" => Ok(Ingestion::Streaming),
            other => Err(format!("unknown way {other:?}: use auto, queued or streaming")),
        }
    }
}

/// A database, and how rows get into it.
#[derive(Clone, Debug, Default)]
pub struct DatabaseOptions {
    /// Its name.
    pub database: String,
    /// Where it is.
    pub url: String,
    /// It is of metrics, and gets the `prom_*` functions; otherwise of logs.
    pub metrics: bool,
    /// Which way rows go.
    pub ingestion: Ingestion,
    /// Where rows are queued: batches of at most about so much CSV are streamed,
    pub streaming_bytes: u64,
    /// and all of these tables, if the service streams.
    pub streaming_tables: Vec<String>,
    /// The clock that periods go by.
    pub time: Time,
}

/// A database and its service.
pub struct KustoDatabase {
    client: Client,
    options: DatabaseOptions,
    database: String,
    metrics: bool,
    queue: AzureQueue,
    /// Tables that do not stream, until when.
    unstreamed: Mutex<HashMap<Arc<str>, u64>>,
    /// Known after the first answer.
    service: Mutex<Option<Service>>,
    /// Only one asks at a time.
    connecting: tokio::sync::Mutex<()>,
    /// Mappings that exist, with their tables.
    ensured: Mutex<HashMap<String, String>>,
    /// When the service is asked which tables there are.
    look_at: AtomicU64,
    /// Bytes of CSV in one request; shrinks when the service finds it too much.
    piece_bytes: AtomicUsize,
    /// KiB that are not in use.
    memory: Semaphore,
}

/// What a call was for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Connect,
    Rows,
}

impl KustoDatabase {
    /// A database; an https endpoint of Azure, or of a trusted host, gets tokens. Nothing is sent yet.
    ///
    /// # Errors
    /// When the endpoint is no URL of a Kusto service, or not trusted with tokens.
    pub fn new(options: DatabaseOptions, credentials: Arc<dyn TokenSource>, trusted: &[TrustedHost]) -> anyhow::Result<KustoDatabase> {
        // The plan keeps the batch and knows when to try again, so the client tries once.
        let client = |url: &str| {
            let client = Client::builder(url).application("adx-mon-ingestor").retry(RetryPolicy::none());
            client.credentials(credentials.clone()).trusted_hosts(trusted).build()
        };
        let engine = client(&options.url)?;
        let management = match options.ingestion {
            Ingestion::Streaming => engine.clone(),
            _ => client(&engine.endpoint().data_management().to_string())?,
        };
        Ok(KustoDatabase {
            queue: AzureQueue::new(management)?,
            client: engine,
            database: options.database.clone(),
            metrics: options.metrics,
            options,
            service: Mutex::new(None),
            connecting: tokio::sync::Mutex::new(()),
            ensured: Mutex::default(),
            look_at: AtomicU64::new(0),
            unstreamed: Mutex::default(),
            piece_bytes: AtomicUsize::new(0),
            memory: Semaphore::new(MEMORY_KIB as usize),
        })
    }

    /// Whether batches are to be queued as far as is known without asking the service, so that they should be large.
    pub fn prefers_queue(&self) -> bool {
        match self.options.ingestion {
            Ingestion::Queued => true,
            Ingestion::Streaming => false,
            Ingestion::Auto => self.client.endpoint().is_https(),
        }
    }

    /// The way of a batch with about so much CSV.
    pub(super) async fn way(&self, batch: &Batch, csv_bytes: u64) -> Result<Way, Ended> {
        let service = match self.connect().await {
            Ok(service) => service,
            Err(error) => return Err(self.failed(batch, &error, Step::Connect, None)),
        };
        let table = batch.table.table.as_ref();
        let small = csv_bytes <= self.options.streaming_bytes || self.options.streaming_tables.iter().any(|t| t == table);
        let streams =
            service != Service::Emulator && self.unstreamed.lock().get(table).is_none_or(|until| *until <= self.options.time.now_ms());
        Ok(if self.queues(service) && !(small && streams) { Way::Queued } else { Way::Streaming })
    }

    fn queues(&self, service: Service) -> bool {
        match self.options.ingestion {
            Ingestion::Queued => true,
            Ingestion::Streaming => false,
            Ingestion::Auto => service == Service::Adx && self.client.endpoint().is_https(),
        }
    }

    /// The service's queue.
    pub(super) fn queue(&self) -> &dyn Queue {
        &self.queue
    }

    /// Room for the upload of a blob.
    pub(super) async fn memory_of_a_blob(&self) -> Option<SemaphorePermit<'_>> {
        self.memory.acquire_many(BLOB_KIB).await.ok()
    }

    /// Whether a batch that is sent twice is stored once.
    pub fn remembers(&self) -> bool {
        *self.service.lock() == Some(Service::Kustd)
    }

    /// Streams the rows of a batch.
    pub(super) async fn stream(&self, batch: &Batch, source: Source) -> Sent {
        let service = match self.connect().await {
            Ok(service) => service,
            Err(error) => return Sent::Ended(self.failed(batch, &error, Step::Connect, None)),
        };
        let most = self.piece_bytes.load(Ordering::Relaxed);
        let _memory = self.memory.acquire_many(memory_kib(batch, most)).await;
        let ids: Arc<[SegmentId]> = batch.segments.iter().map(|s| s.id).collect();
        let mut pieces = Pieces::new(ids.len(), !batch.table.schema.is_empty(), most);
        // Segments that earlier pieces hold rows of.
        let mut sent = 0;
        loop {
            let (source, ids) = (source.clone(), ids.clone());
            let read = move || {
                let next = pieces.next(&mut |index| source(ids[index]));
                (pieces, next)
            };
            let next;
            (pieces, next) = match tokio::task::spawn_blocking(read).await {
                Ok(read) => read,
                Err(error) => {
                    tracing::error!(%error, "reading a batch failed");
                    let outcome_unknown = sent > 0 && !self.remembers();
                    return Sent::Ended(Ended::Transient { database: false, retry_after: None, outcome_unknown });
                }
            };
            let piece = match next {
                Ok(Some(piece)) => piece,
                Ok(None) => return Sent::Ended(Ended::Landed),
                Err(error) => return Sent::Ended(self.unread(batch, error, sent)),
            };
            let columns = pieces.columns().map_or_else(|| self.default_columns(), <[Column]>::to_vec);
            let table = batch.table.table.as_ref();
            if let Err(error) = self.send(service, table, &columns, piece.id(&batch.id), piece.csv.clone()).await {
                if piece.index == 0 && self.queues(service) && does_not_stream(&error) {
                    tracing::info!(%error, table = %batch.table, "the table does not stream; its batches are queued for the next hour");
                    let until = self.options.time.now_ms() + NO_STREAMING_MS;
                    self.unstreamed.lock().insert(batch.table.table.clone(), until);
                    return Sent::MustQueue;
                }
                return Sent::Ended(self.failed(batch, &error, Step::Rows, Some(&piece)));
            }
            sent = piece.segments.end;
        }
    }

    /// A segment of the batch cannot be read; pieces with rows of the first `sent` have arrived.
    pub(super) fn unread(&self, batch: &Batch, error: ReadError, sent: usize) -> Ended {
        use io::ErrorKind::{InvalidData, NotFound};
        match error {
            ReadError::Content(segment, reason) => {
                Ended::Refused { landed: sent.min(segment), bad: segment..segment + 1, reason, partly: segment < sent }
            }
            ReadError::Source(segment, error) if matches!(error.kind(), NotFound | InvalidData) => {
                Ended::Unreadable { landed: sent.min(segment), segment, reason: format!("reading the segment: {error}") }
            }
            ReadError::Source(segment, error) => {
                tracing::warn!(%error, table = %batch.table, segment, "a segment cannot be read now");
                Ended::Transient { database: false, retry_after: None, outcome_unknown: sent > 0 && !self.remembers() }
            }
        }
    }

    /// Sends one piece into a table that is there. When the service has forgotten table or mapping,
    /// both are made again once.
    async fn send(&self, service: Service, table: &str, columns: &[Column], id: [u8; 16], piece: bytes::Bytes) -> Result<(), Error> {
        self.ensure(table, columns).await?;
        let first = self.send_once(service, table, columns, id, piece.clone()).await;
        match first {
            Err(error) if is_missing(&error) => {
                self.ensured.lock().remove(&kql::mapping_name(table, columns));
                self.ensure(table, columns).await?;
                self.send_once(service, table, columns, id, piece).await
            }
            other => other,
        }
    }

    async fn send_once(&self, service: Service, table: &str, columns: &[Column], id: [u8; 16], piece: bytes::Bytes) -> Result<(), Error> {
        if service == Service::Emulator {
            let csv = String::from_utf8_lossy(&piece);
            let mapping = kql::mapping_name(table, columns);
            let answer = self.client.mgmt(&self.database, &kql::ingest_inline(table, &mapping, &csv)).await;
            return answer.map(drop);
        }
        let options = StreamOptions {
            mapping: Some(kql::mapping_name(table, columns)),
            gzip: !self.client.endpoint().is_loopback(),
            batch_id: Some(BatchId(id)),
            timeout: TIMEOUT,
            ..StreamOptions::default()
        };
        self.client.ingest_streaming(&self.database, table, piece, options).await
    }

    /// As [`KustoDatabase::ensure`], for a batch that is to be queued.
    pub(super) async fn ensure_for(&self, batch: &Batch, columns: &[Column]) -> Result<(), Ended> {
        let Err(error) = self.ensure(&batch.table.table, columns).await else { return Ok(()) };
        if !blames_rows(&error) {
            return Err(self.failed(batch, &error, Step::Rows, None));
        }
        tracing::warn!(%error, table = %batch.table, "the service refuses the table's columns");
        Err(Ended::Refused { landed: 0, bad: 0..batch.segments.len(), reason: error.to_string(), partly: false })
    }

    /// Tables and mappings may be gone: they are made again when they are next needed.
    pub(super) fn forget_tables(&self) {
        self.ensured.lock().clear();
    }

    /// Makes the table with its columns and the mapping, once for each schema.
    async fn ensure(&self, table: &str, columns: &[Column]) -> Result<(), Error> {
        self.look_for_tables().await;
        let mapping = kql::mapping_name(table, columns);
        if self.ensured.lock().contains_key(&mapping) {
            return Ok(());
        }
        self.client.mgmt(&self.database, &kql::create_table(table, columns)).await?;
        self.client.mgmt(&self.database, &kql::create_mapping(table, columns)).await?;
        self.ensured.lock().insert(mapping, table.to_owned());
        Ok(())
    }

    /// From time to time: tables that somebody dropped are made again with the next batch, rather than when Kusto has
    /// failed to ingest one. Without an answer everything stays as it was.
    async fn look_for_tables(&self) {
        let now = self.options.time.now_ms();
        let (due, next) = (self.look_at.load(Ordering::Relaxed), now.saturating_add(TABLES_MS));
        // Later than one period: the clock went back.
        let early = due > now && due <= next;
        if early || self.look_at.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return;
        }
        if self.ensured.lock().is_empty() {
            return;
        }
        match self.client.mgmt(&self.database, kql::SHOW_TABLES).await {
            // A database without any table is not one that has just been written to.
            Ok(answer) if answer.rows.is_empty() => {}
            Ok(answer) => {
                let names: HashSet<&str> = answer.rows.iter().filter_map(|row| row.first()?.as_str()).collect();
                self.ensured.lock().retain(|_, table| {
                    let there = names.contains(table.as_str());
                    if !there {
                        tracing::warn!(database = self.database, table, "the table is gone: it is made again with the next batch");
                    }
                    there
                });
            }
            Err(error) => {
                tracing::warn!(%error, database = self.database, "which tables there are cannot be read, and is asked again later")
            }
        }
    }

    /// Finds out what the service is, and gives a metrics database its functions.
    async fn connect(&self) -> Result<Service, Error> {
        if let Some(service) = *self.service.lock() {
            return Ok(service);
        }
        let _one = self.connecting.lock().await;
        if let Some(service) = *self.service.lock() {
            return Ok(service);
        }
        let service = self.detect().await?;
        if self.metrics {
            self.create_functions().await?;
        }
        tracing::info!(database = self.database, endpoint = %self.client.endpoint(), ?service, "connected to Kusto");
        self.piece_bytes.store(service.piece_bytes(), Ordering::Relaxed);
        *self.service.lock() = Some(service);
        Ok(service)
    }

    /// A service that refuses the functions takes rows all the same.
    async fn create_functions(&self) -> Result<(), Error> {
        for statement in kql::create_functions() {
            match self.client.mgmt(&self.database, &statement).await {
                Err(error) if error.status == Some(400) && error.kind == Kind::Permanent && !concerns_database(&error) => {
                    tracing::error!(%error, database = self.database, "the service refuses a function; queries with it will not work");
                }
                answer => drop(answer?),
            }
        }
        Ok(())
    }

    async fn detect(&self) -> Result<Service, Error> {
        let version = self.client.mgmt(&self.database, ".show version").await?;
        let cells = version.rows.iter().flatten().filter_map(|cell| cell.as_str());
        if cells.into_iter().any(|text| text.to_ascii_lowercase().contains("kustd")) {
            return Ok(Service::Kustd);
        }
        match self.client.mgmt(&self.database, ".show cluster details").await {
            Ok(details) if details.text(0, "Name") == Some("KustoPersonal") => Ok(Service::Emulator),
            // Who may ingest may not always look at the cluster; the emulator knows no rights.
            Err(error) if error.status != Some(403) => Err(error),
            _ => Ok(Service::Adx),
        }
    }

    /// Columns of segments that carry no header: those of the database's kind.
    pub(super) fn default_columns(&self) -> Vec<Column> {
        let schema = match self.metrics {
            true => telemetry::Schema::metrics(&[]),
            false => telemetry::Schema::logs(&[]),
        };
        let column = |c: telemetry::Column| Column { name: c.name, kind: c.kind.to_owned() };
        schema.columns.into_iter().map(column).collect()
    }

    /// What an error means for a batch; `piece` is what was sent.
    fn failed(&self, batch: &Batch, error: &Error, step: Step, piece: Option<&Piece>) -> Ended {
        let (table, hint) = (&batch.table, hint(error));
        if let Some(piece) = piece
            && error.status == Some(413)
            && !piece.is_one_record()
        {
            let smaller = (piece.csv.len() / 2).max(SMALLEST_PIECE);
            self.piece_bytes.fetch_min(smaller, Ordering::Relaxed);
            tracing::warn!(%error, %table, bytes = piece.csv.len(), smaller, "the service wants smaller requests");
            // Cut anew, what has arrived is not known again.
            return Ended::Transient { database: false, retry_after: None, outcome_unknown: piece.index > 0 };
        }
        let wrong = blames_rows(error);
        tracing::warn!(%error, hint, %table, segments = batch.segments.len(), permanent = wrong, "an upload failed");
        if let Some(piece) = piece.filter(|_| wrong) {
            let (landed, bad) = (piece.segments.start, piece.segments.clone());
            return Ended::Refused { landed, bad, reason: error.to_string(), partly: piece.continues };
        }
        // Missing rights, a missing database, no connection: the rows are not at fault, and every
        // table of the database fails in the same way.
        let statuses = matches!(error.status, None | Some(401 | 403 | 404 | 429 | 503));
        let database = step == Step::Connect || statuses || concerns_database(error);
        let sent = piece.is_some_and(|piece| piece.index > 0) || error.delivery == Delivery::Unknown;
        let outcome_unknown = step == Step::Rows && sent && !self.remembers();
        Ended::Transient { database, retry_after: error.retry_after, outcome_unknown }
    }
}

/// An upper bound of what streaming a batch holds in memory: two pieces, one of them twice.
fn memory_kib(batch: &Batch, most: usize) -> u32 {
    let inflated = batch.segments.iter().map(|s| s.bytes).sum::<u64>().saturating_mul(INFLATION);
    let bytes = 3 * inflated.min(most as u64);
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(MEMORY_KIB).clamp(1, MEMORY_KIB)
}

/// Whether text of the service speaks of something, by its code or message.
fn speaks_of(error: &Error, words: &[&str]) -> bool {
    let text = format!("{} {}", error.code, error.message).to_ascii_lowercase().replace(' ', "");
    words.iter().any(|word| text.contains(word))
}

/// Whether it is the database, and not a table or its rows, that is wrong.
fn concerns_database(error: &Error) -> bool {
    speaks_of(error, &["ofkind'database'", "databasenotfound", "databasenotexist", "streamingingestion"])
}

/// Whether the service refuses what was sent, and will again.
fn blames_rows(error: &Error) -> bool {
    error.kind == Kind::Permanent && matches!(error.status, Some(200 | 400 | 413)) && !concerns_database(error)
}

/// Whether streaming ingestion is what is missing.
fn does_not_stream(error: &Error) -> bool {
    error.status == Some(404) || speaks_of(error, &["streamingingestion"])
}

/// What can be done about it, where that is known.
fn hint(error: &Error) -> &'static str {
    if speaks_of(error, &["streamingingestion"]) {
        return "enable streaming ingestion on the cluster, and with .alter database D policy streamingingestion enable";
    }
    match error.status {
        Some(400) if concerns_database(error) => "create the database, or correct its name in the ingestor's flags",
        Some(401 | 403) => "give this identity the rights of a database admin, or of an ingestor and table creator",
        Some(404) => "check the endpoint, and that streaming ingestion is enabled there",
        _ => "",
    }
}

/// Whether table or mapping may be what is missing.
fn is_missing(error: &Error) -> bool {
    error.kind == Kind::Permanent && matches!(error.status, Some(400 | 404)) && speaks_of(error, &["mapping", "table", "entity"])
}
