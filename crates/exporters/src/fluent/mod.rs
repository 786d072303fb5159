//! Logs over the fluent forward protocol, version 1: what Fluentd, Fluent Bit and Azure's agents take.
//!
//! Records go in Forward mode, one message per tag, tags sorted: `[tag, [[EventTime, body], …]]`. With acknowledgements
//! a message carries a `chunk` that the receiver must repeat; without, it counts as taken when the system has its bytes, and
//! a receiver that dies at that moment loses them. The tag is an attribute of the record; a record without it is skipped.

pub(crate) mod connection;
mod message;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use rmpv::Value;

use crate::attempt::{Failure, Pushed};
use crate::exporter::{Added, Client, Origin};
use connection::Connection;
use message::Columns;

/// Where to and how records are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FluentConfig {
    /// The receiver.
    pub destination: Destination,
    /// The attribute that holds the tag; `adxmon_destination_database` and `…_table` are where the record goes.
    pub tag_attribute: String,
    /// Whether each message must be acknowledged, and for how long that is waited for.
    pub acknowledge: Option<Duration>,
    /// The receiver's shared key, read for every connection. The receiver asks for it; one that does not is spoken to without.
    pub shared_key_file: Option<PathBuf>,
    /// Certificates (PEM) that the receiver's must be signed by; the system's when absent. Read for every connection.
    pub ca_file: Option<PathBuf>,
    /// PEM files of a certificate chain and its key, for receivers that ask for a client's certificate. Read for every
    /// connection.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
    /// Records in the messages that are sent together.
    pub max_records: usize,
    /// Bytes of them, about.
    pub max_bytes: usize,
}

impl FluentConfig {
    /// The defaults for a receiver: no acknowledgements, as the reference.
    pub fn new(destination: Destination, tag_attribute: &str) -> FluentConfig {
        FluentConfig {
            destination,
            tag_attribute: tag_attribute.to_owned(),
            acknowledge: None,
            shared_key_file: None,
            ca_file: None,
            client_certificate: None,
            max_records: 5000,
            max_bytes: 1 << 20,
        }
    }
}

/// A receiver's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// `tcp://host:port`.
    Tcp(String),
    /// `tls://host:port`.
    Tls(String),
    /// `unix:///path`.
    Unix(PathBuf),
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Destination::Tcp(address) => write!(f, "tcp://{address}"),
            Destination::Tls(address) => write!(f, "tls://{address}"),
            Destination::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

impl Destination {
    /// Reads a destination.
    ///
    /// # Errors
    /// What is wrong with it, in the reference's words where it has some.
    pub fn parse(text: &str) -> Result<Destination, String> {
        if let Some(path) = text.strip_prefix("unix://") {
            return if path.is_empty() { Err("unix socket path is empty".to_owned()) } else { Ok(Destination::Unix(path.into())) };
        }
        let (address, tls) = match (text.strip_prefix("tcp://"), text.strip_prefix("tls://")) {
            (Some(address), _) => (address, false),
            (_, Some(address)) => (address, true),
            _ => return Err("must be in the form tcp://<host>:<port> or unix:///path/to/socket".to_owned()),
        };
        let Some((_host, port)) = address.rsplit_once(':') else {
            return Err(format!("address {address}: missing port in address"));
        };
        if !matches!(port.parse::<u32>(), Ok(1..=65535)) {
            return Err(format!("port {port} not between 1 and 65535"));
        }
        Ok(if tls { Destination::Tls(address.to_owned()) } else { Destination::Tcp(address.to_owned()) })
    }
}

/// Sends log records to a fluent forward receiver over one lasting connection.
#[derive(Debug)]
pub struct FluentForward {
    config: FluentConfig,
    connection: Option<Connection>,
    columns: Columns,
    begun: Group,
    ready: Group,
}

/// Records by tag.
#[derive(Debug, Default)]
struct Group {
    tags: BTreeMap<String, Vec<Value>>,
    records: usize,
    bytes: usize,
}

impl FluentForward {
    /// A client that is not connected yet.
    pub fn new(config: FluentConfig) -> FluentForward {
        crate::tls::install_crypto();
        FluentForward { config, connection: None, columns: Columns::default(), begun: Group::default(), ready: Group::default() }
    }

    /// A connection that is open as far as can be told.
    async fn connection(&mut self) -> Result<&mut Connection, Failure> {
        let usable = self.connection.as_mut().is_some_and(Connection::is_open);
        if !usable {
            self.connection = None;
        }
        match &mut self.connection {
            Some(connection) => Ok(connection),
            none => Ok(none.insert(Connection::open(&self.config).await?)),
        }
    }

    /// Sends the records of the first tag that is ready.
    async fn send_tag(&mut self) -> Result<u64, Failure> {
        let Some((tag, entries)) = self.ready.tags.first_key_value() else { return Ok(0) };
        let records = entries.len();
        let chunk = self.config.acknowledge.map(|_| message::chunk_id());
        let bytes = message::forward(tag, entries, chunk.as_deref())?;
        let acknowledge = self.config.acknowledge;
        let connection = self.connection().await?;
        connection.write(&bytes).await?;
        if let (Some(chunk), Some(patience)) = (chunk, acknowledge) {
            connection.acknowledged(&chunk, patience).await?;
        }
        self.ready.tags.pop_first();
        self.ready.records -= records;
        Ok(records as u64)
    }
}

impl Client for FluentForward {
    fn add(&mut self, origin: Origin<'_>, row: &[u8]) -> Added {
        let Some((tag, entry)) = self.columns.entry(origin, row, &self.config.tag_attribute) else { return Added::Skipped };
        let full = self.begun.records >= self.config.max_records || self.begun.bytes >= self.config.max_bytes;
        if full {
            self.finish();
        }
        self.begun.tags.entry(tag).or_default().push(entry);
        self.begun.records += 1;
        self.begun.bytes += row.len();
        if full { Added::Ready } else { Added::Taken }
    }

    fn finish(&mut self) {
        self.ready = std::mem::take(&mut self.begun);
    }

    fn ready(&self) -> u64 {
        self.ready.records as u64
    }

    /// Tags that were sent do not wait for those behind them: after a failure only the rest is sent again.
    async fn send(&mut self) -> Result<Pushed, Failure> {
        match self.send_tag().await {
            Ok(accepted) => Ok(Pushed { accepted, ..Pushed::default() }),
            Err(failure) => {
                // Whatever the receiver has of the message, it ends here.
                self.connection = None;
                Err(failure)
            }
        }
    }

    fn discard(&mut self) {
        self.ready = Group::default();
    }
}
