//! One log record.

use std::sync::Arc;

use telemetry::names;

use crate::value::{Map, Value};

/// A log record. What is not known is empty or zero.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    /// When it happened, in nanoseconds since 1970.
    pub timestamp: u64,
    /// When it was seen, in nanoseconds since 1970.
    pub observed: u64,
    /// Severity as the source calls it.
    pub severity_text: String,
    /// Severity as OpenTelemetry numbers it, 1 to 24; 0 when unknown.
    pub severity_number: i32,
    /// Trace id, 32 hexadecimal digits.
    pub trace_id: String,
    /// Span id, 16 hexadecimal digits.
    pub span_id: String,
    /// What was logged; a text stands under [`MESSAGE`].
    pub body: Map,
    /// What is known about the event.
    pub attributes: Map,
    /// What is known about where it comes from. Shared by the records of a file or request.
    pub resource: Arc<Map>,
    /// Where it goes; a record without destination is counted and left out of rows.
    pub destination: Option<Destination>,
}

/// Key of a body's text.
pub const MESSAGE: &str = "message";

impl Record {
    /// A body that is one value.
    pub fn message(value: impl Into<Value>) -> Map {
        Map::from([(MESSAGE.to_owned(), value.into())])
    }

    /// Sets the severity unless one is known.
    pub fn set_severity(&mut self, severity: Severity) {
        if self.severity_number == 0 && self.severity_text.is_empty() {
            self.severity_number = severity.number();
            severity.text().clone_into(&mut self.severity_text);
        }
    }
}

/// A database and table, named as Kusto can name them: ASCII letters and digits.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Destination {
    database: Arc<str>,
    table: Arc<str>,
}

impl Destination {
    /// The destination of these names; `None` when nothing is left of one of them.
    pub fn new(database: impl AsRef<[u8]>, table: impl AsRef<[u8]>) -> Option<Self> {
        let (database, table) = (names::normalize_id(database), names::normalize_id(table));
        let named = !database.is_empty() && !table.is_empty();
        named.then(|| Self { database: database.into(), table: table.into() })
    }

    /// The database.
    pub fn database(&self) -> &Arc<str> {
        &self.database
    }

    /// The table.
    pub fn table(&self) -> &Arc<str> {
        &self.table
    }
}

/// Severities that parsers and names tell apart.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Severity {
    /// Finest detail.
    Trace,
    /// For debugging.
    Debug,
    /// The usual.
    Info,
    /// Something to look at.
    Warn,
    /// Something failed.
    Error,
    /// The process ends, or worse.
    Fatal,
}

impl Severity {
    /// The severity that a word such as `warning` or `ERR` names.
    pub fn from_name(name: &str) -> Option<Self> {
        const NAMES: &[(&str, Severity)] = &[
            ("trace", Severity::Trace),
            ("debug", Severity::Debug),
            ("info", Severity::Info),
            ("information", Severity::Info),
            ("notice", Severity::Info),
            ("warn", Severity::Warn),
            ("warning", Severity::Warn),
            ("error", Severity::Error),
            ("err", Severity::Error),
            ("critical", Severity::Fatal),
            ("crit", Severity::Fatal),
            ("alert", Severity::Fatal),
            ("emerg", Severity::Fatal),
            ("emergency", Severity::Fatal),
            ("fatal", Severity::Fatal),
            ("panic", Severity::Fatal),
        ];
        NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, severity)| *severity)
    }

    /// `SeverityNumber` of the OpenTelemetry log data model: the first of its range.
    pub fn number(self) -> i32 {
        match self {
            Self::Trace => 1,
            Self::Debug => 5,
            Self::Info => 9,
            Self::Warn => 13,
            Self::Error => 17,
            Self::Fatal => 21,
        }
    }

    /// Its short name in OpenTelemetry.
    pub fn text(self) -> &'static str {
        match self {
            Self::Trace => "TRACE",
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warn => "WARN",
            Self::Error => "ERROR",
            Self::Fatal => "FATAL",
        }
    }
}
