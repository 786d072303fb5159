//! One request to a token endpoint, and its repetition.

use std::time::Duration;

use backon::{BackoffBuilder as _, Retryable as _};
use reqwest::RequestBuilder;
use reqwest::header::RETRY_AFTER;
use serde::Deserialize;

use crate::answer;
use crate::credentials::{Now, Pauses};
use crate::error::{Error, Kind};
use crate::token::Token;

/// Longest answer that is read; tokens are a few kilobytes.
const MAX_ANSWER_BYTES: usize = 256 << 10;
/// Longest text of an error that is shown.
const MAX_REASON_CHARS: usize = 300;
/// A service that wants more than this is asked again by the next caller.
const LONGEST_PAUSE: Duration = Duration::from_secs(90);

/// A request that did not give a token.
pub(crate) struct Failure {
    pub(crate) error: Error,
    pub(crate) status: Option<u16>,
    retry_after: Option<Duration>,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure { error, status: None, retry_after: None }
    }
}

/// Which statuses a service means as "later".
pub(crate) type IsTransient = fn(u16) -> bool;

/// Asks until there is a token, the service says no, or patience ends.
pub(crate) async fn persist<F: Future<Output = Result<Token, Failure>>>(pauses: Pauses, ask: impl Fn() -> F) -> Result<Token, Failure> {
    let again = |failure: &Failure| failure.error.kind == Kind::Transient;
    ask.retry(pauses.exponential().build())
        .when(again)
        .adjust(|failure, pause| {
            let pause = pause?.max(failure.retry_after.unwrap_or_default());
            (pause <= LONGEST_PAUSE).then_some(pause)
        })
        .notify(|failure, pause| tracing::debug!(error = %failure.error, ?pause, "a request for a token is repeated"))
        .await
}

/// Sends a request and reads the token in the answer.
pub(crate) async fn ask(request: RequestBuilder, now: &Now, is_transient: IsTransient) -> Result<Token, Failure> {
    let unreachable = |error: &reqwest::Error| Failure {
        error: match error.is_connect() {
            true => Error::unavailable(causes(error)),
            false => Error::transient(causes(error)),
        },
        status: None,
        retry_after: None,
    };
    let mut response = request.send().await.map_err(|error| unreachable(&error))?;
    let status = response.status().as_u16();
    let seconds = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| unreachable(&error))? {
        if body.len() + chunk.len() > MAX_ANSWER_BYTES {
            return Err(Error::refused(format!("the answer is longer than {MAX_ANSWER_BYTES} bytes")).into());
        }
        body.extend_from_slice(&chunk);
    }
    if status == 200 {
        return answer::read(&body, now()).map_err(|why| Error::refused(why).into());
    }
    let message = format!("status {status}{}", reason(&body));
    let error = if is_transient(status) { Error::transient(message) } else { Error::refused(message) };
    Err(Failure { error, status: Some(status), retry_after: seconds.map(Duration::from_secs) })
}

/// `error` and the first line of `error_description`. Nothing else of an answer is shown: it may repeat what was sent.
fn reason(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Refusal {
        error: String,
        #[serde(default)]
        error_description: String,
    }
    let Ok(refusal) = serde_json::from_slice::<Refusal>(body) else { return String::new() };
    let line = refusal.error_description.lines().next().unwrap_or_default();
    let text = if line.is_empty() { refusal.error } else { format!("{}: {line}", refusal.error) };
    format!(": {}", shorten(&text))
}

pub(crate) fn shorten(text: &str) -> String {
    match text.char_indices().nth(MAX_REASON_CHARS) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

fn causes(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// What Entra ID means as "later".
pub(crate) fn directory_is_busy(status: u16) -> bool {
    matches!(status, 408 | 429 | 500..=599)
}

/// What the metadata service of a machine means as "later": it is being updated, or asked too often.
pub(crate) fn machine_is_busy(status: u16) -> bool {
    matches!(status, 404 | 410) || directory_is_busy(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_refusal_the_first_line_is_shown_and_nothing_that_is_no_refusal() {
        let body =
            br#"{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret provided.\r\nTrace ID: x","x":"y"}"#;
        assert_eq!(reason(body), ": invalid_client: AADSTS7000215: Invalid client secret provided.");
        assert_eq!(reason(br#"{"error":"bad_request_102"}"#), ": bad_request_102");
        assert_eq!(reason(b"<html>client_secret=x</html>"), "");
        let long = format!(r#"{{"error":"{}"}}"#, "ä".repeat(1000));
        assert_eq!(reason(long.as_bytes()).chars().count(), 303);
    }
}
