//! What can go wrong with a request to storage.

use std::time::Duration;

/// What is known about a request's effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// It was not carried out: no connection, or a refusal.
    NotExecuted,
    /// It may have been carried out: the answer was lost, or speaks of a failure midway.
    Unknown,
}

/// A failed request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{doing}: {code}: {message}")]
pub struct Error {
    /// What was being done, to which blob, queue or table.
    pub doing: String,
    /// HTTP status of the answer, if there was one.
    pub status: Option<u16>,
    /// The service's code (`AuthenticationFailed`, `ServerBusy`, `BlobNotFound` …), or `CONNECT`, `TIMEOUT`,
    /// `CONNECTION_LOST`, `BAD_ANSWER`, `ADDRESS`, `TOO_LARGE`.
    pub code: String,
    /// What happened, for people; without signatures.
    pub message: String,
    /// The pause that the service asked for.
    pub retry_after: Option<Duration>,
    /// Whether the request may have been carried out.
    pub delivery: Delivery,
}

impl Error {
    /// Whether the same request may work later, or with a new signature.
    pub fn is_transient(&self) -> bool {
        match self.status {
            // a signature that has ended or a rule of the network: the request is not at fault
            Some(401 | 403 | 408 | 429 | 500..=599) => true,
            Some(_) => false,
            None => matches!(self.code.as_str(), "CONNECT" | "TIMEOUT" | "CONNECTION_LOST" | "BAD_ANSWER"),
        }
    }

    /// Whether the signature was refused: it has ended, or was withdrawn.
    pub fn is_refusal_of_signature(&self) -> bool {
        matches!(self.status, Some(401 | 403))
    }

    /// Whether there is no such blob, message, row, or no such container, queue or table.
    pub fn is_not_found(&self) -> bool {
        self.status == Some(404)
    }

    /// Whether what was to be made exists already.
    pub fn is_conflict(&self) -> bool {
        self.status == Some(409)
    }

    /// A mistake of this side: nothing was sent.
    pub(crate) fn invalid(doing: &str, code: &str, message: impl Into<String>) -> Error {
        Error {
            doing: doing.to_owned(),
            status: None,
            code: code.to_owned(),
            message: message.into(),
            retry_after: None,
            delivery: Delivery::NotExecuted,
        }
    }

    /// The request did not end in an answer.
    pub(crate) fn from_transport(doing: &str, error: reqwest::Error) -> Error {
        let (code, delivery) = match (error.is_connect(), error.is_timeout(), error.is_builder()) {
            (true, ..) => ("CONNECT", Delivery::NotExecuted),
            (_, true, _) => ("TIMEOUT", Delivery::Unknown),
            (.., true) => ("ADDRESS", Delivery::NotExecuted),
            _ => ("CONNECTION_LOST", Delivery::Unknown),
        };
        // the address has the signature
        Error { delivery, ..Error::invalid(doing, code, with_causes(&error.without_url())) }
    }

    /// An answer that tells of no success.
    pub(crate) fn from_answer(doing: &str, status: u16, code: Option<&str>, retry_after: Option<Duration>) -> Error {
        // 503 is the service's "too busy to begin"
        let delivery = match status {
            400..=499 | 503 => Delivery::NotExecuted,
            _ => Delivery::Unknown,
        };
        let code = code.map_or_else(|| format!("HTTP_{status}"), str::to_owned);
        let hint = match status {
            401 | 403 => ": the signature has ended or is not valid, or a rule of the network forbids it",
            404 => ": there is no such thing",
            409 => ": it exists already",
            413 => ": it is too large",
            429 | 503 => ": the service is too busy",
            _ => "",
        };
        Error { status: Some(status), retry_after, delivery, ..Error::invalid(doing, &code, format!("status {status}{hint}")) }
    }

    /// An answer that cannot be read.
    pub(crate) fn unreadable(doing: &str, why: impl std::fmt::Display) -> Error {
        Error { delivery: Delivery::Unknown, ..Error::invalid(doing, "BAD_ANSWER", format!("the answer cannot be read: {why}")) }
    }
}

fn with_causes(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
