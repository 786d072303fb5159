//! Logs that a host keeps or sends outside of files: systemd's journal, the kernel log, syslog.
//!
//! A reader ([`journal::Reader`], [`kernel::Reader`]) gives records in batches, each with a *position*: bytes that are
//! to be stored together with the records and given back at the next start, so that nothing is read twice or left out.
//! Syslog has no position, since its senders keep nothing: [`syslog`] has the framing and the parser.
//!
//! Sources: `systemd.journal-fields(7)`, `Documentation/ABI/testing/dev-kmsg` of Linux, RFC 3164, RFC 5424, RFC 6587,
//! and for severities the appendix "Mapping of SeverityNumber" of OpenTelemetry's log data model.

pub mod journal;
pub mod kernel;
mod priority;
pub mod syslog;

pub use priority::Priority;
