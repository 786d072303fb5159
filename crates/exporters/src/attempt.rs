//! One try to send something, and what its end means for the next.

use std::time::Duration;

use ::http::HeaderMap;
use ::http::header::RETRY_AFTER;
use jiff::Timestamp;
use jiff::fmt::rfc2822;

/// What of an answer is read.
const LONGEST_ANSWER: usize = 64 << 10;

/// What became of items that the receiver took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pushed {
    /// Items that it took.
    pub accepted: u64,
    /// Items that it said it would not store.
    pub rejected: u64,
    /// What it had to say, with or without rejected items.
    pub message: Option<String>,
}

/// A try that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Failure {
    /// What was met, in the receiver's words where it had some.
    pub why: String,
    /// Whether the same is worth another try.
    pub again: Again,
}

/// Whether a try is worth repeating.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// The receiver refused for good.
    Never,
    /// After a pause that is no shorter than what the receiver asked for.
    After(Option<Duration>),
}

impl Failure {
    /// A failure that says nothing about what was sent: no connection, no answer.
    pub fn passing(why: impl Into<String>) -> Failure {
        Failure { why: why.into(), again: Again::After(None) }
    }

    /// A request of reqwest that got no answer. The URL is left out: it may hold a password.
    pub(crate) fn lost(error: reqwest::Error) -> Failure {
        Failure::passing(with_causes(&error.without_url()))
    }
}

/// The text of an error with its causes.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// How long `Retry-After` asks to wait.
pub(crate) fn asked_pause(headers: &HeaderMap) -> Option<Duration> {
    retry_after(headers.get(RETRY_AFTER)?.to_str().ok()?, Timestamp::now())
}

/// Seconds, or a date.
fn retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = rfc2822::DateTimeParser::new().parse_timestamp(text.trim()).ok()?;
    Some(Duration::try_from(date.duration_since(now)).unwrap_or_default())
}

/// The beginning of an answer's body.
pub(crate) async fn read_answer(mut response: reqwest::Response) -> Result<Vec<u8>, reqwest::Error> {
    let mut body = Vec::new();
    while body.len() < LONGEST_ANSWER {
        match response.chunk().await? {
            Some(chunk) => body.extend_from_slice(&chunk[..chunk.len().min(LONGEST_ANSWER - body.len())]),
            None => break,
        }
    }
    Ok(body)
}

/// The beginning of what a receiver says, on one line.
pub(crate) fn first_words(text: &str) -> String {
    let text: String = text.trim().chars().take(200).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.is_empty() { "no reason given".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn pauses_are_seconds_or_dates() {
        let now: Timestamp = "2015-10-21T07:27:30Z".parse().unwrap();
        assert_eq!(retry_after("120", now), Some(Duration::from_secs(120)));
        assert_eq!(retry_after("Wed, 21 Oct 2015 07:28:00 GMT", now), Some(Duration::from_secs(30)));
        assert_eq!(retry_after("Wed, 21 Oct 2015 07:27:00 GMT", now), Some(Duration::ZERO));
        assert_eq!(retry_after("soon", now), None);
    }
}
