//! What an intake reports: errors of whole bodies, and counts of what happened to the items of a readable one.

use thiserror::Error;

/// A request body that could not be read as a whole; nothing of it was stored.
#[derive(Clone, Debug, Eq, PartialEq, Error)]
pub enum DecodeError {
    /// The protobuf framing is broken.
    #[error("reading protobuf at byte {offset}: {reason}")]
    Protobuf {
        /// Byte offset in the body where reading stopped.
        offset: usize,
        /// What was wrong there.
        reason: &'static str,
    },
    /// The JSON text is not an OTLP request.
    #[error("reading OTLP/JSON at line {line}, column {column}: {reason}")]
    Json {
        /// Line, from 1; 0 when unknown.
        line: usize,
        /// Column, from 1; 0 when unknown.
        column: usize,
        /// What was wrong there.
        reason: String,
    },
}

/// How an OTLP request is encoded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Encoding {
    /// `application/x-protobuf`.
    Protobuf,
    /// `application/json`, in the OTLP flavour: hexadecimal ids, enum numbers, int64 as strings or numbers.
    Json,
}

/// Longest reason that is passed on: senders' own names and texts occur in it.
const MAX_REASON: usize = 500;

/// A reason without the rest of an endless name.
pub(crate) fn shortened(mut reason: String) -> String {
    if reason.len() > MAX_REASON {
        reason.truncate(reason.floor_char_boundary(MAX_REASON));
        reason.push('…');
    }
    reason
}

/// Why a log record or span has no table.
pub(crate) struct Misrouted {
    pub(crate) reason: String,
    /// Whether it names no usable destination, rather than one there is no room for.
    pub(crate) unrouted: bool,
}

/// What became of the items (samples, points, records, spans) of one readable request.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Outcome {
    /// Items that became rows.
    pub accepted: u64,
    /// Items left out because a filter says so.
    pub filtered: u64,
    /// Items that could not be used; a series that cannot be read counts once.
    pub rejected: u64,
    /// Of the rejected ones, log records and spans that name no usable destination.
    pub unrouted: u64,
    /// Why the first rejected item was rejected.
    pub first_error: Option<String>,
}

impl Outcome {
    /// Counts items that could not be used; the first reason is kept.
    pub fn reject(&mut self, items: u64, reason: impl FnOnce() -> String) {
        self.rejected += items;
        if self.first_error.is_none() {
            self.first_error = Some(shortened(reason()));
        }
    }

    pub(crate) fn misroute(&mut self, misrouted: Misrouted) {
        self.unrouted += u64::from(misrouted.unrouted);
        self.reject(1, || misrouted.reason);
    }

    /// All items seen.
    pub fn total(&self) -> u64 {
        self.accepted + self.filtered + self.rejected
    }
}
