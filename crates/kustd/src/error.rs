//! Errors as Kusto's REST API words them: code, exception type, message, whether repeating helps, and the inner error
//! with the place in the query. Clients parse these; the words are part of the protocol.

use http::StatusCode;
use kql::diagnostic::{Diagnostic, DiagnosticKind};

use crate::catalog::CatalogError;
use crate::engine::EngineError;
use crate::storage::StorageError;

/// An error to answer a request with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct KustoError {
    /// HTTP status.
    pub(crate) status: StatusCode,
    /// `error.code`
    pub(crate) code: &'static str,
    /// `error.@type`
    pub(crate) exception: &'static str,
    /// `error.@message`
    pub(crate) message: String,
    /// `error.@permanent`: the same request fails again.
    pub(crate) permanent: bool,
    /// `error.innererror`
    pub(crate) inner: Option<Box<Inner>>,
}

/// What is wrong with the text of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Inner {
    pub(crate) code: String,
    pub(crate) exception: &'static str,
    pub(crate) message: String,
    /// Line and column, from 1.
    pub(crate) position: (usize, usize),
}

impl KustoError {
    /// 400: the request can never work.
    pub(crate) fn bad_request(message: impl Into<String>) -> KustoError {
        KustoError {
            status: StatusCode::BAD_REQUEST,
            code: "General_BadRequest",
            exception: "Kusto.Data.Exceptions.KustoBadRequestException",
            message: format!("Request is invalid and cannot be processed: {}", message.into()),
            permanent: true,
            inner: None,
        }
    }

    /// 400: no entity of that kind and name.
    pub(crate) fn not_found(kind: &str, name: &str) -> KustoError {
        KustoError {
            status: StatusCode::BAD_REQUEST,
            code: "BadRequest_EntityNotFound",
            exception: "Kusto.Common.Svc.Exceptions.EntityNotFoundException",
            message: format!("Entity ID '{name}' of kind '{kind}' was not found."),
            permanent: true,
            inner: None,
        }
    }

    /// 400: an entity of that kind and name exists.
    pub(crate) fn exists(kind: &str, name: &str) -> KustoError {
        KustoError {
            status: StatusCode::BAD_REQUEST,
            code: "BadRequest_EntityNameAlreadyExists",
            exception: "Kusto.Common.Svc.Exceptions.EntityNameAlreadyExistsException",
            message: format!("{kind} '{name}' already exists."),
            permanent: true,
            inner: None,
        }
    }

    /// 429: later.
    pub(crate) fn throttled(message: impl Into<String>) -> KustoError {
        KustoError {
            status: StatusCode::TOO_MANY_REQUESTS,
            code: "LimitsExceeded",
            exception: "Kusto.Common.Svc.Exceptions.ServiceThrottledException",
            message: message.into(),
            permanent: false,
            inner: None,
        }
    }

    /// 413: the body is over a limit.
    pub(crate) fn too_large(message: impl Into<String>) -> KustoError {
        KustoError {
            status: StatusCode::PAYLOAD_TOO_LARGE,
            code: "BadRequest_MessageTooLarge",
            exception: "Kusto.Data.Exceptions.KustoBadRequestException",
            message: message.into(),
            permanent: true,
            inner: None,
        }
    }

    /// 520: a fault on this side.
    pub(crate) fn internal(message: impl Into<String>) -> KustoError {
        KustoError {
            status: StatusCode::from_u16(520).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            code: "Internal service error",
            exception: "Kusto.Data.Exceptions.KustoServicePartialQueryFailureInternalServiceErrorException",
            message: message.into(),
            permanent: false,
            inner: None,
        }
    }

    /// 503: another cluster, which the request needs, does not answer.
    pub(crate) fn unavailable(message: &str) -> KustoError {
        KustoError {
            status: StatusCode::SERVICE_UNAVAILABLE,
            code: "RemoteClusterUnavailable",
            exception: "Kusto.Data.Exceptions.KustoServicePartialQueryFailureException",
            message: message.to_owned(),
            permanent: false,
            inner: None,
        }
    }

    /// The first thing that is wrong with `text`.
    pub(crate) fn diagnostics(text: &str, diagnostics: &[Diagnostic]) -> KustoError {
        let Some(first) = diagnostics.first() else {
            return KustoError::internal("the query was refused without a reason");
        };
        if first.kind == DiagnosticKind::Unavailable {
            return KustoError::unavailable(&first.message);
        }
        let position = first.position(text);
        let (class, exception) = match first.kind {
            DiagnosticKind::Syntax => ("Syntax error", "Kusto.Data.Exceptions.SyntaxException"),
            DiagnosticKind::Semantic => ("Semantic error", "Kusto.Data.Exceptions.SemanticException"),
            DiagnosticKind::Unsupported | DiagnosticKind::Unavailable => ("Semantic error", "Kusto.Data.Exceptions.SemanticException"),
        };
        let detail = format!("{class}: {}: {} [line:position={}:{}]", first.code, first.message, position.0, position.1);
        let inner = Inner { code: first.code.to_owned(), exception, message: detail.clone(), position };
        KustoError { inner: Some(Box::new(inner)), ..KustoError::bad_request(detail) }
    }

    /// Seconds after which a throttled client may come back.
    pub(crate) fn retry_after(&self) -> Option<u32> {
        (self.status == StatusCode::TOO_MANY_REQUESTS).then_some(1)
    }

    /// The JSON body.
    pub(crate) fn body(&self, context: &serde_json::Value) -> serde_json::Value {
        let short = match self.status {
            StatusCode::BAD_REQUEST => "Request is invalid and cannot be executed.",
            StatusCode::TOO_MANY_REQUESTS => "The request was throttled; send it again later.",
            _ => "The request could not be executed.",
        };
        let mut error = serde_json::json!({
            "code": self.code,
            "message": short,
            "@type": self.exception,
            "@message": self.message,
            "@context": context,
            "@permanent": self.permanent,
        });
        if let Some(inner) = &self.inner {
            error["innererror"] = serde_json::json!({
                "code": inner.code,
                "message": inner.message,
                "@type": inner.exception,
                "@message": inner.message,
                "@errorCode": inner.code,
                "@errorMessage": inner.message,
                "@line": inner.position.0,
                "@pos": inner.position.1,
                "@context": context,
                "@permanent": self.permanent,
            });
        }
        serde_json::json!({ "error": error })
    }
}

impl From<EngineError> for KustoError {
    fn from(error: EngineError) -> KustoError {
        if error.code == "E_QUERY_TIMEOUT" {
            let status = StatusCode::GATEWAY_TIMEOUT;
            let exception = "Kusto.Data.Exceptions.KustoServiceTimeoutException";
            return KustoError { status, code: "Timeout", exception, permanent: false, inner: None, message: error.message };
        }
        if error.is_remote() && !error.permanent {
            return KustoError::unavailable(&error.message);
        }
        if error.permanent {
            let mut answer = KustoError::bad_request(format!("{} ({})", error.message, error.code));
            answer.code = error.code;
            return answer;
        }
        KustoError::internal(format!("{} ({})", error.message, error.code))
    }
}

impl From<CatalogError> for KustoError {
    fn from(error: CatalogError) -> KustoError {
        tracing::error!(%error, "catalogue");
        KustoError::internal(error.to_string())
    }
}

impl From<StorageError> for KustoError {
    fn from(error: StorageError) -> KustoError {
        match &error {
            StorageError::Overloaded(why) => KustoError::throttled(why.clone()),
            StorageError::Refused(refusal) if refusal.retryable() => KustoError::throttled(refusal.to_string()),
            _ => {
                tracing::error!(%error, "storage");
                KustoError::internal(error.to_string())
            }
        }
    }
}
