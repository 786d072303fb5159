//! One database of a Kusto service: what kind of service it is, which tables and mappings it has,
//! and the way rows get in.
//!
//! | service | way | what it remembers |
//! |---|---|---|
//! | kustd | streaming ingestion | batch ids: a repeat changes nothing |
//! | Azure Data Explorer | streaming ingestion | nothing: at-least-once, counted |
//! | the Kusto emulator | `.ingest inline`, since it does not stream | nothing |

use std::collections::HashSet;
use std::time::Duration;

use kusto::{BatchId, Client, Delivery, Error, Kind, RetryPolicy, StreamOptions};
use parking_lot::Mutex;

use super::plan::{Batch, Ended};
use super::rows::{self, Rows};
use crate::kql::{self, Column};

/// One request may take this long; the reference's limit for a whole batch.
const TIMEOUT: Duration = Duration::from_secs(600);

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
            Service::Kustd => 16 << 20,
            Service::Adx => 3_500_000,
            Service::Emulator => 4 << 20,
        }
    }
}

/// A database and its service.
pub struct KustoDatabase {
    client: Client,
    database: String,
    metrics: bool,
    /// Known after the first answer.
    service: Mutex<Option<Service>>,
    /// Only one asks at a time.
    connecting: tokio::sync::Mutex<()>,
    /// Mappings that exist, and with them their tables.
    ensured: Mutex<HashSet<String>>,
}

impl KustoDatabase {
    /// A database of metrics (which gets the `prom_*` functions) or of logs. Nothing is sent yet.
    ///
    /// # Errors
    /// When the endpoint is no URL of a Kusto service.
    pub fn new(database: &str, url: &str, metrics: bool) -> Result<KustoDatabase, Error> {
        // The plan keeps the batch and knows when to try again, so the client tries once.
        let client = Client::builder(url).application("adx-mon-ingestor").retry(RetryPolicy::none());
        Ok(KustoDatabase {
            client: client.build()?,
            database: database.to_owned(),
            metrics,
            service: Mutex::new(None),
            connecting: tokio::sync::Mutex::new(()),
            ensured: Mutex::new(HashSet::new()),
        })
    }

    /// Whether a batch that is sent twice is stored once.
    pub fn remembers(&self) -> bool {
        *self.service.lock() == Some(Service::Kustd)
    }

    /// Uploads the rows of a batch; `images` are its segments.
    pub(super) async fn upload(&self, batch: &Batch, images: Vec<Vec<u8>>) -> Ended {
        let service = match self.connect().await {
            Ok(service) => service,
            Err(error) => return self.failed(batch, &error, Service::Kustd, 0, true),
        };
        let headed = !batch.table.schema.is_empty();
        let read = tokio::task::spawn_blocking(move || rows::read(&images, headed, service.piece_bytes()));
        let Rows { columns, pieces } = match read.await {
            Ok(Ok(rows)) => rows,
            Ok(Err(error)) => return Ended::Permanent { reason: error.to_string(), partly: false },
            Err(error) => {
                tracing::error!(%error, "reading a batch failed");
                return Ended::Transient { database: false, retry_after: None, outcome_unknown: false };
            }
        };
        if pieces.is_empty() {
            return Ended::Landed;
        }
        let columns = columns.unwrap_or_else(|| self.default_columns());
        let table = batch.table.table.as_ref();
        if let Err(error) = self.ensure(table, &columns).await {
            return self.failed(batch, &error, service, 0, false);
        }
        let count = pieces.len();
        for (index, piece) in pieces.into_iter().enumerate() {
            let id = rows::piece_id(&batch.id, index, count);
            if let Err(error) = self.send(service, table, &columns, id, piece).await {
                return self.failed(batch, &error, service, index, false);
            }
        }
        Ended::Landed
    }

    /// Sends one piece. When the service has forgotten table or mapping, both are made again once.
    async fn send(&self, service: Service, table: &str, columns: &[Column], id: [u8; 16], piece: bytes::Bytes) -> Result<(), Error> {
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
            let answer = self.client.mgmt(&self.database, &kql::ingest_inline(table, &csv)).await;
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

    /// Makes the table with its columns and the mapping, once for each schema.
    async fn ensure(&self, table: &str, columns: &[Column]) -> Result<(), Error> {
        let mapping = kql::mapping_name(table, columns);
        if self.ensured.lock().contains(&mapping) {
            return Ok(());
        }
        self.client.mgmt(&self.database, &kql::create_table(table, columns)).await?;
        self.client.mgmt(&self.database, &kql::create_mapping(table, columns)).await?;
        self.ensured.lock().insert(mapping);
        Ok(())
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
            for statement in kql::create_functions() {
                self.client.mgmt(&self.database, &statement).await?;
            }
        }
        tracing::info!(database = self.database, endpoint = %self.client.endpoint(), ?service, "connected to Kusto");
        *self.service.lock() = Some(service);
        Ok(service)
    }

    async fn detect(&self) -> Result<Service, Error> {
        let version = self.client.mgmt(&self.database, ".show version").await?;
        let cells = version.rows.iter().flatten().filter_map(|cell| cell.as_str());
        if cells.into_iter().any(|text| text.to_ascii_lowercase().contains("kustd")) {
            return Ok(Service::Kustd);
        }
        let details = self.client.mgmt(&self.database, ".show cluster details").await?;
        match details.text(0, "Name") {
            Some("KustoPersonal") => Ok(Service::Emulator),
            _ => Ok(Service::Adx),
        }
    }

    /// Columns of segments that carry no header: those of the database's kind.
    fn default_columns(&self) -> Vec<Column> {
        let schema = match self.metrics {
            true => telemetry::Schema::metrics(&[]),
            false => telemetry::Schema::logs(&[]),
        };
        let column = |c: telemetry::Column| Column { name: c.name, kind: c.kind.to_owned() };
        schema.columns.into_iter().map(column).collect()
    }

    /// What an error means for a batch of which `landed` pieces are there.
    fn failed(&self, batch: &Batch, error: &Error, service: Service, landed: usize, connecting: bool) -> Ended {
        let remembers = service == Service::Kustd;
        let wrong = error.kind == Kind::Permanent && matches!(error.status, Some(200 | 400 | 413));
        tracing::warn!(%error, table = %batch.table, segments = batch.segments.len(), landed, permanent = wrong, "an upload failed");
        if wrong && !connecting {
            return Ended::Permanent { reason: error.to_string(), partly: landed > 0 };
        }
        // Missing rights, a missing database, no connection: the rows are not at fault, and every
        // table of the database fails in the same way.
        let database = connecting || error.status.is_none() || matches!(error.status, Some(401 | 403 | 404 | 429 | 503));
        let sent = landed > 0 || error.delivery == Delivery::Unknown;
        Ended::Transient { database, retry_after: error.retry_after, outcome_unknown: sent && !remembers && !connecting }
    }
}

/// Whether table or mapping may be what is missing.
fn is_missing(error: &Error) -> bool {
    let about = |word: &str| error.message.to_ascii_lowercase().contains(word);
    error.kind == Kind::Permanent && matches!(error.status, Some(400 | 404)) && (about("mapping") || about("table") || about("entity"))
}
