//! Why a request was not carried out.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;

/// Longest message of Azure that is kept.
const MAX_MESSAGE_CHARS: usize = 1000;
/// Whoever wants more is asked again before.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// What can be done about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// There is no token, or none that Azure takes.
    Credentials,
    /// The identity lacks a right, which the message names.
    Forbidden,
    /// What is asked for, or what it belongs to, does not exist.
    NotFound,
    /// Something else is under way with the resource: later.
    Conflict,
    /// The resource is not what the request is for: it exists already, or has changed.
    Changed,
    /// The subscription or the region has no room for it.
    Quota,
    /// Too many requests: later.
    Throttled,
    /// No answer, or none that says anything of the request: it may have been carried out.
    Transient,
    /// Azure does not take the request as it is.
    Refused,
}

/// A request that was not carried out, as far as is known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{doing}: {}", self.reason())]
pub struct Error {
    /// What was being done, to which thing.
    pub doing: String,
    /// What can be done about it.
    pub kind: Kind,
    /// Status of the answer.
    pub status: Option<u16>,
    /// Azure's word for it.
    pub code: String,
    /// For people: Azure's words, or ours.
    pub message: String,
    /// How long Azure wants to be left alone.
    pub retry_after: Option<Duration>,
}

impl Error {
    pub(crate) fn new(doing: &str, kind: Kind, message: impl Into<String>) -> Self {
        Self { doing: doing.to_owned(), kind, status: None, code: String::new(), message: message.into(), retry_after: None }
    }

    /// Of an answer that is no success.
    pub(crate) fn of_answer(doing: &str, status: StatusCode, headers: &HeaderMap, body: &Bytes) -> Self {
        let cloud = serde_json::from_slice::<CloudError>(body).unwrap_or_default().error;
        let kind = kind(status, &cloud);
        let retry_after = retry_after(headers);
        Self { doing: doing.to_owned(), kind, status: Some(status.as_u16()), retry_after, ..cloud.into_error(doing, kind) }
    }

    /// Of an operation that came to nothing.
    pub(crate) fn of_operation(doing: &str, cloud: ErrorBody) -> Self {
        let kind = if cloud.is_about_quota() { Kind::Quota } else { Kind::Refused };
        cloud.into_error(doing, kind)
    }

    /// Status, code and message.
    fn reason(&self) -> String {
        let status = self.status.map(|status| status.to_string()).unwrap_or_default();
        let parts = [status.as_str(), &self.code].into_iter().filter(|part| !part.is_empty());
        let head = parts.collect::<Vec<_>>().join(" ");
        match (head.is_empty(), self.message.is_empty()) {
            (true, _) => self.message.clone(),
            (false, true) => head,
            (false, false) => format!("{head}: {}", self.message),
        }
    }
}

/// `CloudError` of the description.
#[derive(Debug, Default, Deserialize)]
struct CloudError {
    #[serde(default)]
    error: ErrorBody,
}

/// `CloudErrorBody` of the description.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct ErrorBody {
    #[serde(default)]
    code: Option<String>,
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    details: Option<Vec<Detail>>,
}

/// Details have details in turn, which are of no use.
#[derive(Debug, Deserialize)]
struct Detail {
    #[serde(default)]
    code: Option<String>,
    #[serde(default)]
    message: Option<String>,
}

impl ErrorBody {
    fn texts(&self) -> impl Iterator<Item = &str> {
        let own = [&self.code, &self.message];
        let details = self.details.iter().flatten().flat_map(|detail| [&detail.code, &detail.message]);
        own.into_iter().chain(details).filter_map(|text| text.as_deref())
    }

    /// Services have different codes for it, among them `QuotaExceeded` in the details, and `OperationNotAllowed`.
    fn is_about_quota(&self) -> bool {
        self.texts().any(|text| text.to_ascii_lowercase().contains("quota"))
    }

    fn into_error(self, doing: &str, kind: Kind) -> Error {
        let mut message = self.message.unwrap_or_default();
        for detail in self.details.iter().flatten() {
            let text = [&detail.code, &detail.message].into_iter().filter_map(|text| text.as_deref()).collect::<Vec<_>>().join(": ");
            let separator = if message.is_empty() { "" } else { "; " };
            message = format!("{message}{separator}{text}");
            if message.len() > MAX_MESSAGE_CHARS {
                break;
            }
        }
        Error { code: shorten(&self.code.unwrap_or_default()), ..Error::new(doing, kind, shorten(&message)) }
    }
}

fn kind(status: StatusCode, cloud: &ErrorBody) -> Kind {
    match status.as_u16() {
        401 => Kind::Credentials,
        403 if cloud.is_about_quota() => Kind::Quota,
        403 => Kind::Forbidden,
        404 => Kind::NotFound,
        408 | 500..=599 => Kind::Transient,
        429 => Kind::Throttled,
        400 | 409 if cloud.is_about_quota() => Kind::Quota,
        // Nobody has registered the provider, and waiting does not do it.
        409 if cloud.code.as_deref() == Some("MissingSubscriptionRegistration") => Kind::Refused,
        409 => Kind::Conflict,
        412 => Kind::Changed,
        _ => Kind::Refused,
    }
}

/// `Retry-After`, which Resource Manager gives in seconds.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u64 = headers.get(http::header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_PAUSE))
}

fn shorten(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MAX_MESSAGE_CHARS) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(status: u16, body: &str) -> Error {
        let headers = [(http::header::RETRY_AFTER, http::HeaderValue::from_static("17"))].into_iter().collect();
        Error::of_answer("making x", StatusCode::from_u16(status).unwrap(), &headers, &Bytes::copy_from_slice(body.as_bytes()))
    }

    /// Bodies as users report them.
    #[test]
    fn quota_is_told_from_other_refusals_and_conflicts() {
        let nested = r#"{"error":{"code":"ResourceDeploymentFailure","message":"Terminal state 'Failed'.","details":[{"code":"QuotaExceeded","message":"limits of Core"}]}}"#;
        let plain = r#"{"error":{"code":"OperationNotAllowed","message":"Operation could not be completed as it results in exceeding approved Total Regional Cores quota."}}"#;
        let forbidden = r#"{"error":{"code":"AuthorizationFailed","message":"The client 'x' does not have authorization to perform action 'Microsoft.Kusto/clusters/write'"}}"#;
        for (status, body, kind) in [
            (400, nested, Kind::Quota),
            (409, plain, Kind::Quota),
            (403, forbidden, Kind::Forbidden),
            (409, r#"{"error":{"code":"MissingSubscriptionRegistration","message":"m"}}"#, Kind::Refused),
            (409, r#"{"error":{"code":"ServiceIsInMaintenance"}}"#, Kind::Conflict),
            (409, "", Kind::Conflict),
            (412, "{}", Kind::Changed),
            (429, "{}", Kind::Throttled),
            (502, "<html>", Kind::Transient),
            (400, r#"{"error":{"code":"InvalidSku"}}"#, Kind::Refused),
            (404, "null", Kind::NotFound),
        ] {
            assert_eq!(error(status, body).kind, kind, "{status} {body}");
        }
        assert_eq!(
            error(400, nested).to_string(),
            "making x: 400 ResourceDeploymentFailure: Terminal state 'Failed'.; QuotaExceeded: limits of Core"
        );
        assert_eq!(error(502, "<html>").to_string(), "making x: 502");
        assert_eq!(error(429, "").retry_after, Some(Duration::from_secs(17)));
    }

    #[test]
    fn long_messages_are_cut() {
        let body = format!(r#"{{"error":{{"code":"C","message":"{}"}}}}"#, "ä ".repeat(2000));
        assert_eq!(error(400, &body).message.chars().count(), MAX_MESSAGE_CHARS + 1);
    }
}
