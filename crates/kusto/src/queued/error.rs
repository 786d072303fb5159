//! What can go wrong on the way into the queue, and in reading what became of it.

use std::time::Duration;

use crate::error::{Delivery, Error};
use crate::queued::message::Queued;

/// A failed step of queued ingestion.
#[derive(Debug, thiserror::Error)]
pub enum QueuedError {
    /// The data-management service did not give out resources or an identity token.
    #[error(transparent)]
    Service(#[from] Error),
    /// A request to its storage failed, in every account that was tried.
    #[error(transparent)]
    Storage(#[from] azure_storage::Error),
    /// The caller's source could not be opened or read.
    #[error("reading what is to be uploaded: {0}")]
    Source(#[source] std::io::Error),
    /// The service has no storage of that kind.
    #[error("the service gives out no {0}; does the principal have the role Database Ingestor?")]
    NoResource(&'static str),
    /// The storage that a blob or a status row is in is no longer given out by the service.
    #[error("the service no longer gives out {0}; the batch has to be uploaded again")]
    Gone(String),
    /// The message may be in the queue or not: the answer was lost. Its status tells, if it is ever taken up.
    #[error("the message may have been queued or not: {source}")]
    MaybeQueued {
        /// What to ask for the status of.
        queued: Box<Queued>,
        /// What went wrong.
        source: azure_storage::Error,
    },
    /// The status row is missing or makes no sense. It says neither that the batch is in the table nor that it is not.
    #[error("the status of the ingestion cannot be read: {0}")]
    Unreadable(String),
}

impl QueuedError {
    /// Whether the same step may work later. Only a source, a request that is wrong in itself, and a name that cannot be
    /// one are permanent: what is refused because of signatures, roles or the network is not the batch's fault.
    pub fn is_transient(&self) -> bool {
        match self {
            QueuedError::Service(error) => error.is_transient() || matches!(error.status, Some(401 | 403)),
            QueuedError::Storage(error) => error.is_transient(),
            QueuedError::Source(_) => false,
            QueuedError::NoResource(_) | QueuedError::Gone(_) | QueuedError::MaybeQueued { .. } | QueuedError::Unreadable(_) => true,
        }
    }

    /// The pause that the service asked for.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            QueuedError::Service(error) => error.retry_after,
            QueuedError::Storage(error) | QueuedError::MaybeQueued { source: error, .. } => error.retry_after,
            _ => None,
        }
    }

    /// Whether Kusto may know of the batch.
    pub fn delivery(&self) -> Delivery {
        match self {
            QueuedError::MaybeQueued { .. } => Delivery::Unknown,
            _ => Delivery::NotExecuted,
        }
    }

    /// Whether a signature was refused, so that new resources may help.
    pub(crate) fn is_refusal_of_signature(&self) -> bool {
        matches!(self, QueuedError::Storage(error) if error.is_refusal_of_signature())
    }
}
