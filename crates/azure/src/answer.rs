//! What token endpoints and the Azure CLI answer.
//!
//! The end of a token comes as `expires_in`, seconds from now, as `expires_on`, a point in time, or as both. Both are
//! written as numbers by some and as strings by others; App Service of 2017 writes a date. The earlier end counts: a clock
//! that is behind then does not keep a token too long, nor does a server that counts `expires_in` from the token's issue.

use jiff::{SignedDuration, Timestamp, Zoned, fmt::strtime};
use serde::Deserialize;
use serde_json::Value;

use crate::token::Token;

/// `9/14/2017 6:53:12 PM +00:00`.
const APP_SERVICE_DATE: &str = "%m/%d/%Y %I:%M:%S %p %:z";

#[derive(Deserialize)]
struct Answer {
    #[serde(alias = "accessToken")]
    access_token: String,
    expires_in: Option<Value>,
    expires_on: Option<Value>,
}

/// Reads a token. What is wrong is said without repeating any of the answer, which may hold the token.
pub(crate) fn read(body: &[u8], now: Timestamp) -> Result<Token, String> {
    let answer: Answer = serde_json::from_slice(body).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => "the answer is JSON, but holds no access token".to_owned(),
        _ => format!("the answer of {} bytes is no JSON", body.len()),
    })?;
    let expires = end(&answer, now)?;
    if expires <= now {
        return Err(format!("the token has ended already, at {expires}, while it is {now} here: is this machine's clock right?"));
    }
    Token::new(answer.access_token, expires).map_err(|error| error.message)
}

fn end(answer: &Answer, now: Timestamp) -> Result<Timestamp, String> {
    let relative = answer.expires_in.as_ref().filter(|value| !value.is_null()).map(|value| {
        let seconds = seconds(value).ok_or("expires_in is no number of seconds")?;
        now.checked_add(SignedDuration::from_secs(seconds)).map_err(|_| "expires_in is beyond all dates")
    });
    let absolute = answer
        .expires_on
        .as_ref()
        .filter(|value| !value.is_null())
        .map(|value| point(value).ok_or("expires_on is neither seconds since 1970 nor a date"));
    match (relative.transpose()?, absolute.transpose()?) {
        (Some(relative), Some(absolute)) => Ok(relative.min(absolute)),
        (Some(end), None) | (None, Some(end)) => Ok(end),
        (None, None) => Err("the answer does not say when the token ends (expires_in or expires_on)".to_owned()),
    }
}

/// Whole seconds, from a number or from a string of digits.
fn seconds(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64().or_else(|| number.as_f64().filter(|n| n.abs() < 1e15).map(|n| n as i64)),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

fn point(value: &Value) -> Option<Timestamp> {
    if let Some(seconds) = seconds(value) {
        return Timestamp::from_second(seconds).ok();
    }
    let text = value.as_str()?.trim();
    let date = || strtime::parse(APP_SERVICE_DATE, text).ok()?.to_timestamp().ok();
    text.parse().ok().or_else(date).or_else(|| text.parse::<Zoned>().ok().map(|zoned| zoned.timestamp()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const NOW: i64 = 1_506_480_273;

    fn read_at_now(answer: &Value) -> Result<i64, String> {
        read(answer.to_string().as_bytes(), Timestamp::from_second(NOW).unwrap()).map(|token| token.expires().as_second())
    }

    /// Forms from Microsoft's documentation of Entra ID, IMDS, App Service (2019-08-01 and 2017-09-01) and the Azure CLI.
    #[test]
    fn the_end_of_a_token_is_read_in_every_form() {
        for (answer, end) in [
            (json!({"token_type": "Bearer", "expires_in": 3599, "access_token": "t"}), NOW + 3599),
            (json!({"access_token": "t", "expires_in": "3599", "expires_on": "1506484173"}), NOW + 3599),
            (json!({"access_token": "t", "expires_on": 1_506_484_173}), 1_506_484_173),
            (json!({"access_token": "t", "expires_on": "1506484173"}), 1_506_484_173),
            (json!({"access_token": "t", "expires_on": 1_506_484_173.7}), 1_506_484_173),
            (json!({"access_token": "t", "expires_on": "9/27/2017 3:49:33 AM +00:00"}), 1_506_484_173),
            (json!({"access_token": "t", "expires_on": "09/27/2017 03:49:33 PM +02:00"}), 1_506_484_173 + 43_200 - 7_200),
            (json!({"access_token": "t", "expires_on": "2017-09-27T03:49:33Z"}), 1_506_484_173),
            (json!({"accessToken": "t", "expiresOn": "2017-09-27 05:49:33.000000", "expires_on": 1_506_484_173}), 1_506_484_173),
            (json!({"access_token": "t", "expires_in": null, "expires_on": "1506484173"}), 1_506_484_173),
            // The earlier of two ends.
            (json!({"access_token": "t", "expires_in": 10, "expires_on": 1_506_484_173}), NOW + 10),
            (json!({"access_token": "t", "expires_in": 86_400, "expires_on": 1_506_484_173}), 1_506_484_173),
        ] {
            assert_eq!(read_at_now(&answer), Ok(end), "{answer}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_named_and_not_repeated() {
        for (answer, says) in [
            (json!({"access_token": "SECRET"}), "when the token ends"),
            (json!({"access_token": "SECRET", "expires_in": 0}), "clock"),
            (json!({"access_token": "SECRET", "expires_on": NOW - 1}), "clock"),
            (json!({"access_token": "SECRET", "expires_in": "SECRET"}), "expires_in"),
            (json!({"access_token": "SECRET", "expires_in": i64::MAX}), "expires_in"),
            (json!({"access_token": "SECRET", "expires_on": "SECRET"}), "expires_on"),
            (json!({"access_token": "SECRET", "expires_on": "13/45/2017 3:49:33 AM +00:00"}), "expires_on"),
            (json!({"access_token": ["SECRET"], "expires_in": 1}), "no access token"),
            (json!({"access_token": "SECRET\n", "expires_in": 1}), "header"),
            (json!({"token": "SECRET", "expires_in": 1}), "no access token"),
            (json!("SECRET"), "no access token"),
        ] {
            let error = read_at_now(&answer).unwrap_err();
            assert!(error.contains(says) && !error.contains("SECRET"), "{answer}: {error}");
        }
        assert!(read(b"SECRET", Timestamp::UNIX_EPOCH).unwrap_err().contains("no JSON"));
    }

    proptest! {
        #[test]
        fn seconds_mean_the_same_as_number_and_as_string(ahead in 1i64..10_000_000) {
            for end in [json!(NOW + ahead), json!((NOW + ahead).to_string()), json!((NOW + ahead) as f64)] {
                prop_assert_eq!(read_at_now(&json!({"access_token": "t", "expires_on": end})), Ok(NOW + ahead));
            }
            for length in [json!(ahead), json!(ahead.to_string()), json!(ahead as f64)] {
                prop_assert_eq!(read_at_now(&json!({"access_token": "t", "expires_in": length})), Ok(NOW + ahead));
            }
        }

        #[test]
        fn no_answer_makes_the_reader_panic_or_speak(end in "\\PC{0,30}|-?[0-9]{0,25}|[0-9/: +APM]{0,30}", number in any::<f64>(), body in any::<Vec<u8>>()) {
            for field in ["expires_in", "expires_on"] {
                for value in [json!(end), json!(number)] {
                    if let Err(error) = read_at_now(&json!({"access_token": "SECRET", field: value})) {
                        prop_assert!(!error.contains("SECRET"));
                    }
                }
            }
            let _ = read(&body, Timestamp::UNIX_EPOCH);
        }
    }
}
