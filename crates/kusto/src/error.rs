//! What can go wrong with a call, in the two questions that a caller has: can repeating help
//! ([`Kind`]), and may the request have been carried out ([`Delivery`])?
//!
//! The shape of the service's error bodies is Kusto's "OneApiError": `{"error":{"code",
//! "message", "@message", "@permanent", "innererror"…}}`.

use std::fmt;
use std::time::Duration;

use serde_json::Value;

/// Whether repeating the same request can succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Throttling, timeouts, a service that is away: the same request may succeed later.
    Transient,
    /// The request is wrong or not allowed: it fails again until somebody changes something.
    Permanent,
}

/// What is known about the request's effect on the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// It was not carried out: no connection, or a refusal before any work.
    NotExecuted,
    /// It may have been carried out: the answer was lost, or speaks of a failure midway.
    Unknown,
}

/// A place in the query or command text, both one-based, as the service reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Line, from 1.
    pub line: u32,
    /// Column in the line, from 1.
    pub column: u32,
}

/// A failed call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// Whether repeating can help.
    pub kind: Kind,
    /// Whether the request may have been carried out.
    pub delivery: Delivery,
    /// The most precise code that is known: `SEM0100`, `General_BadRequest`, `HTTP_503`,
    /// `CONNECT`, `DEADLINE` …
    pub code: String,
    /// What happened, for people. URLs in it carry no signatures.
    pub message: String,
    /// Where in the text, when the service says so.
    pub position: Option<Position>,
    /// HTTP status of the answer, if there was one.
    pub status: Option<u16>,
    /// The pause that the service asked for.
    pub retry_after: Option<Duration>,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)?;
        if let Some(p) = self.position
            && !self.message.contains("line:position")
        {
            write!(f, " [line:position={}:{}]", p.line, p.column)?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

impl Error {
    /// Whether repeating can help.
    pub fn is_transient(&self) -> bool {
        self.kind == Kind::Transient
    }

    /// A mistake of this side: nothing was sent.
    pub(crate) fn invalid(code: &str, message: impl Into<String>) -> Error {
        Error {
            kind: Kind::Permanent,
            delivery: Delivery::NotExecuted,
            code: code.to_owned(),
            message: message.into(),
            position: None,
            status: None,
            retry_after: None,
        }
    }

    pub(crate) fn transient(code: &str, delivery: Delivery, message: impl Into<String>) -> Error {
        Error { kind: Kind::Transient, delivery, ..Error::invalid(code, message) }
    }

    /// The request did not end in an answer.
    pub(crate) fn from_transport(doing: &str, error: &reqwest::Error) -> Error {
        let message = format!("{doing}: {}", redact(&with_causes(error)));
        if error.is_connect() {
            Error::transient("CONNECT", Delivery::NotExecuted, message)
        } else if error.is_builder() {
            Error::invalid("REQUEST", message)
        } else if error.is_timeout() {
            Error::transient("DEADLINE", Delivery::Unknown, message)
        } else {
            Error::transient("CONNECTION_LOST", Delivery::Unknown, message)
        }
    }

    /// An answer with a status other than 200.
    pub(crate) fn from_answer(doing: &str, status: u16, retry_after: Option<Duration>, body: &[u8]) -> Error {
        let body: Option<Value> = serde_json::from_slice(body).ok();
        let detail = body.as_ref().and_then(|b| b.get("error"));
        let mut error = match detail {
            Some(detail) => Error::from_one_api(doing, detail, kind_of_status(status)),
            None => Error { kind: kind_of_status(status), ..Error::invalid(&format!("HTTP_{status}"), without_body(doing, status)) },
        };
        // These refusals come before any work; every other failure may have done a part.
        error.delivery = match status {
            400 | 401 | 403 | 404 | 413 | 429 => Delivery::NotExecuted,
            _ => Delivery::Unknown,
        };
        // A status that speaks of throttling wins over a body that forgot to say so.
        if status == 429 {
            error.kind = Kind::Transient;
        }
        error.status = Some(status);
        error.retry_after = retry_after;
        error
    }

    /// A failure reported inside an answer with status 200 (partial failure).
    pub(crate) fn from_one_api(doing: &str, detail: &Value, default_kind: Kind) -> Error {
        let detail = detail.get("error").unwrap_or(detail);
        let text = |v: &Value, key: &str| v.get(key).and_then(Value::as_str).map(str::to_owned);
        let inner = detail.get("innererror");
        let code = inner
            .and_then(|i| text(i, "code").or_else(|| text(i, "@errorCode")))
            .or_else(|| text(detail, "code"))
            .unwrap_or_else(|| "UNKNOWN".to_owned());
        let message =
            text(detail, "@message").or_else(|| text(detail, "message")).unwrap_or_else(|| "the service gave no message".to_owned());
        let kind = match detail.get("@permanent").and_then(Value::as_bool) {
            Some(true) => Kind::Permanent,
            Some(false) => Kind::Transient,
            None => default_kind,
        };
        Error {
            kind,
            delivery: Delivery::Unknown,
            position: position_in(&message).or_else(|| inner.and_then(position_of)),
            code,
            message: format!("{doing}: {}", redact(&message)),
            status: Some(200),
            retry_after: None,
        }
    }

    /// An answer that cannot be read.
    pub(crate) fn unreadable(doing: &str, why: impl fmt::Display) -> Error {
        Error::transient("BAD_ANSWER", Delivery::Unknown, format!("{doing}: the answer cannot be read: {why}"))
    }
}

fn kind_of_status(status: u16) -> Kind {
    match status {
        408 | 429 | 500..=599 => Kind::Transient,
        _ => Kind::Permanent,
    }
}

fn without_body(doing: &str, status: u16) -> String {
    let hint = match status {
        401 => "the service asks for credentials",
        403 => "access is denied",
        404 => "no such database, table or route",
        413 => "the body is larger than the service takes",
        429 => "the service is overloaded",
        _ => "the service gave no reason",
    };
    format!("{doing}: status {status}: {hint}")
}

/// The text of an error and all its causes, as transports give them.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut out = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        out.push_str(": ");
        out.push_str(&cause.to_string());
        source = cause.source();
    }
    out
}

/// Hides the signature of shared-access URLs.
pub(crate) fn redact(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("sig=") {
        out.push_str(&rest[..at + 4]);
        out.push_str("***");
        let tail = &rest[at + 4..];
        let end = tail.find(|c: char| c == '&' || c.is_whitespace() || c == ')' || c == '"');
        rest = end.map_or("", |end| &tail[end..]);
    }
    out.push_str(rest);
    out
}

/// `[line:position=1:12]` in a message.
fn position_in(message: &str) -> Option<Position> {
    let after = message.split_once("line:position=")?.1;
    let (line, rest) = after.split_once(':')?;
    let column: String = rest.chars().take_while(char::is_ascii_digit).collect();
    Some(Position { line: line.parse().ok()?, column: column.parse().ok()? })
}

/// `@line` and `@pos` of a syntax exception.
fn position_of(inner: &Value) -> Option<Position> {
    let number = |key: &str| inner.get(key)?.as_u64().and_then(|n| u32::try_from(n).ok());
    Some(Position { line: number("@line")?, column: number("@pos")? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_semantic_error_gives_its_inner_code_and_position() {
        let body = json!({"error": {
            "code": "General_BadRequest",
            "message": "Request is invalid and cannot be executed.",
            "@message": "Semantic error: SEM0100: 'where' failed [line:position=2:7]",
            "@permanent": true,
            "innererror": {"code": "SEM0100"}
        }});
        let e = Error::from_answer("query", 400, None, body.to_string().as_bytes());
        assert_eq!((e.kind, e.delivery), (Kind::Permanent, Delivery::NotExecuted));
        assert_eq!(e.code, "SEM0100");
        assert_eq!(e.position, Some(Position { line: 2, column: 7 }));
    }

    #[test]
    fn throttling_is_transient_whatever_the_body_says() {
        for body in ["", "{\"error\":{\"code\":\"x\",\"@permanent\":true}}"] {
            let e = Error::from_answer("q", 429, Some(Duration::from_secs(3)), body.as_bytes());
            assert!(e.is_transient(), "{body}");
            assert_eq!(e.retry_after, Some(Duration::from_secs(3)));
        }
    }

    #[test]
    fn statuses_without_a_body_are_classed() {
        for (status, kind) in
            [(401, Kind::Permanent), (404, Kind::Permanent), (408, Kind::Transient), (503, Kind::Transient), (520, Kind::Transient)]
        {
            assert_eq!(Error::from_answer("q", status, None, b"").kind, kind, "{status}");
        }
        let lost = Error::from_answer("q", 504, None, b"<html>");
        assert_eq!(lost.delivery, Delivery::Unknown);
    }

    #[test]
    fn signatures_do_not_reach_messages() {
        assert_eq!(redact("GET https://x/?sv=1&sig=abc%2F&se=2 (sig=z)"), "GET https://x/?sv=1&sig=***&se=2 (sig=***)");
    }

    proptest::proptest! {
        #[test]
        fn no_answer_makes_an_error_panic_or_show_a_signature(
            status in 100u16..600,
            bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..100),
            message in "(sig=SECRET|[&\"a ]|line:position=|[0-9:]){0,12}",
        ) {
            let _ = Error::from_answer("q", status, None, &bytes);
            let body = json!({"error": {"code": "X", "@message": message, "innererror": {"@line": 1, "@pos": -1}}});
            let error = Error::from_answer("q", status, None, body.to_string().as_bytes());
            proptest::prop_assert!(!error.to_string().contains("SECRET"), "{}", error);
            proptest::prop_assert_eq!(error.status, Some(status));
        }
    }
}
