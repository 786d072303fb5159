//! Settings of the logs that the collector fetches itself, and of syslog.

use std::path::PathBuf;

use host_logs::{Priority, journal, kernel};
use logs::{Destination, Parsers, Transforms};
use server::TlsFiles;

use super::file::{self, File, Map, NodeLabels};
use super::settings::{self, node_labels};

/// What targets of all kinds have.
#[derive(Debug, Clone, PartialEq)]
pub struct LogTarget {
    /// What the messages are put through.
    pub parsers: Parsers,
    /// Set on the resource of every record.
    pub add_attributes: Map,
    /// Labels and annotations of the node that are set on it too.
    pub node_labels: NodeLabels,
    /// What the records are changed by.
    pub transforms: TransformList,
    /// Names of the exporters that get the records too.
    pub exporters: Vec<String>,
}

/// Transforms, as the file has them and as they run.
#[derive(Debug, Clone, Default)]
pub struct TransformList {
    written: Vec<file::Transform>,
    /// As they run.
    pub transforms: Transforms,
}

impl TransformList {
    fn new(list: &[file::Transform]) -> Result<Self, String> {
        let transforms = settings::transforms(list).map_err(|errors| {
            let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
            errors.join("; ")
        })?;
        Ok(TransformList { written: list.to_vec(), transforms })
    }
}

/// Equal when the file says the same.
impl PartialEq for TransformList {
    fn eq(&self, other: &Self) -> bool {
        self.written == other.written
    }
}

/// A part of systemd's journal.
#[derive(Debug, Clone)]
pub struct JournalSource {
    /// Database and table as the file has them: they name the position.
    pub database: String,
    /// See `database`.
    pub table: String,
    /// Matches as the file has them: they name the position.
    pub matches: Vec<String>,
    /// What is read.
    pub target: journal::Target,
    /// What is done with the records.
    pub shared: LogTarget,
}

/// The kernel log.
#[derive(Debug, Clone)]
pub struct KernelSource {
    /// Database and table as the file has them: they name the position.
    pub database: String,
    /// See `database`.
    pub table: String,
    /// What is read.
    pub target: kernel::Target,
    /// What is done with the records.
    pub shared: LogTarget,
}

/// How syslog comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyslogProtocol {
    /// A message in each datagram.
    Udp,
    /// A stream of messages, in TLS if there is a certificate.
    Tcp,
}

/// A receiver of syslog.
#[derive(Debug, Clone, PartialEq)]
pub struct SyslogSource {
    /// `host:port`; an empty host means all addresses.
    pub listen_addr: String,
    /// How it comes.
    pub protocol: SyslogProtocol,
    /// TLS of the connections.
    pub tls: Option<TlsFiles>,
    /// Where the records go.
    pub destination: Destination,
    /// What is done with the records.
    pub shared: LogTarget,
    /// What is kept of a message, in bytes.
    pub max_message_bytes: usize,
    /// Connections at a time.
    pub max_connections: usize,
}

/// Kept of a syslog message unless the file says otherwise.
const MAX_MESSAGE_BYTES: i64 = 64 * 1024;

/// Syslog connections at a time unless the file says otherwise.
const MAX_CONNECTIONS: i64 = 1000;

/// `udp` or `tcp`; absent means `udp`.
pub(super) fn syslog_protocol(text: &str) -> Option<SyslogProtocol> {
    match text {
        "" | "udp" => Some(SyslogProtocol::Udp),
        "tcp" => Some(SyslogProtocol::Tcp),
        _ => None,
    }
}

/// The journals of a file.
///
/// # Errors
/// A name or a match that the check of the file let pass.
pub(super) fn journals(file: &File) -> Result<Vec<JournalSource>, String> {
    let source = |(log, target): (&file::HostLog, &file::JournalTarget)| {
        let dirs = match target.journal_path.as_str() {
            "" => journal::SYSTEM_DIRS.map(PathBuf::from).to_vec(),
            path => vec![path.into()],
        };
        let matches = journal::Matches::parse(&target.matches).map_err(|error| error.to_string())?;
        let destination = destination(&target.database, &target.table)?;
        Ok(JournalSource {
            database: target.database.clone(),
            table: target.table.clone(),
            matches: target.matches.clone(),
            target: journal::Target { dirs, matches, fields: target.journal_fields.clone(), destination },
            shared: shared(file, &target.parsers, log)?,
        })
    };
    let targets = file.host_log.iter().flat_map(|log| log.journal_target.iter().map(move |target| (log, target)));
    targets.map(source).collect()
}

/// The kernel logs of a file.
///
/// # Errors
/// A name that the check of the file let pass.
pub(super) fn kernels(file: &File) -> Result<Vec<KernelSource>, String> {
    let source = |(log, target): (&file::HostLog, &file::KernelTarget)| {
        Ok(KernelSource {
            database: target.database.clone(),
            table: target.table.clone(),
            target: kernel::Target {
                threshold: Priority::from_name(&target.priority).unwrap_or(Priority::INFO),
                destination: destination(&target.database, &target.table)?,
            },
            shared: shared(file, &[], log)?,
        })
    };
    let targets = file.host_log.iter().flat_map(|log| log.kernel_target.iter().map(move |target| (log, target)));
    targets.map(source).collect()
}

/// The receivers of syslog of a file.
///
/// # Errors
/// A name that the check of the file let pass.
pub(super) fn syslog(file: &File) -> Result<Vec<SyslogSource>, String> {
    let positive = |value: i64, default: i64| usize::try_from(if value > 0 { value } else { default }).unwrap_or(usize::MAX);
    let source = |syslog: &file::Syslog| {
        let tls = (!syslog.tls_cert_file.is_empty()).then(|| TlsFiles {
            certificate: (&syslog.tls_cert_file).into(),
            key: (&syslog.tls_key_file).into(),
            client_ca: (!syslog.tls_client_ca_file.is_empty()).then(|| (&syslog.tls_client_ca_file).into()),
        });
        Ok(SyslogSource {
            listen_addr: syslog.listen_addr.clone(),
            protocol: syslog_protocol(&syslog.protocol).ok_or_else(|| format!("syslog protocol {} is not known", syslog.protocol))?,
            tls,
            destination: destination(&syslog.database, &syslog.table)?,
            shared: LogTarget {
                parsers: Parsers::from_names(&syslog.parsers)?,
                add_attributes: added(file, &syslog.add_attributes),
                node_labels: node_labels(file, None),
                transforms: TransformList::new(&syslog.transforms)?,
                exporters: syslog.exporters.clone(),
            },
            max_message_bytes: positive(syslog.max_message_bytes, MAX_MESSAGE_BYTES),
            max_connections: positive(syslog.max_connections, MAX_CONNECTIONS),
        })
    };
    file.syslog.iter().map(source).collect()
}

/// What is said of a target and, of all targets, at the top of the file.
pub(super) fn shared(file: &File, parsers: &[String], log: &file::HostLog) -> Result<LogTarget, String> {
    Ok(LogTarget {
        parsers: Parsers::from_names(parsers)?,
        add_attributes: added(file, &log.add_attributes),
        node_labels: node_labels(file, log.add_metadata_labels.as_ref()),
        transforms: TransformList::new(&log.transforms)?,
        exporters: log.exporters.clone(),
    })
}

/// What is added to records: the labels and attributes of the top of the file, and those of a source, which count.
pub(super) fn added(file: &File, source: &Map) -> Map {
    let all = file.add_labels.iter().chain(&file.add_attributes).chain(source);
    all.map(|(key, value)| (key.clone(), value.clone())).collect()
}

pub(super) fn destination(database: &str, table: &str) -> Result<Destination, String> {
    Destination::new(database, table).ok_or_else(|| format!("database {database:?} and table {table:?} need an ASCII letter or digit each"))
}
