//! Why there is no token.

/// What can be done about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// This way to a token is not set up here.
    Unavailable,
    /// The same request may succeed later.
    Transient,
    /// It fails until somebody changes something.
    Refused,
}

/// There is no token. The message names each way that was tried, why it failed and what to set; it holds no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// What can be done about it.
    pub kind: Kind,
    /// What happened, for people.
    pub message: String,
}

impl Error {
    pub(crate) fn unavailable(message: impl Into<String>) -> Error {
        Error { kind: Kind::Unavailable, message: message.into() }
    }

    pub(crate) fn transient(message: impl Into<String>) -> Error {
        Error { kind: Kind::Transient, message: message.into() }
    }

    pub(crate) fn refused(message: impl Into<String>) -> Error {
        Error { kind: Kind::Refused, message: message.into() }
    }
}
