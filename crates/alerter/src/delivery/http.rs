//! One request to a target, and what its answer means.

use std::time::Duration;

use jiff::Timestamp;
use kusto::with_causes;
use reqwest::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode, Url};

/// Longest pause that a target may ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);
/// Redirects of one request that are followed.
const MAX_REDIRECTS: usize = 3;
/// What of a refusal's body is read.
const MAX_REASON: usize = 1024;

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// Any 2xx.
    Taken,
    /// 429: not now.
    Busy {
        /// The pause that it asks for, if any.
        retry_after: Option<Duration>,
    },
    /// The body is at fault: the same request fails again.
    Refused(String),
    /// Everything else: it may work later.
    Failed(String),
}

/// The address of a target that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{flag} {address:?} is no address: {why}; use http://host:port or https://host")]
pub struct AddressError {
    /// The flag that gives it.
    pub flag: &'static str,
    /// What it says.
    pub address: String,
    /// What is wrong with it.
    pub why: String,
}

/// The URL of `route` under a base address.
///
/// # Errors
/// Where the address is no http or https URL.
pub fn route(flag: &'static str, address: &str, route: &[&str]) -> Result<Url, AddressError> {
    let bad = |why: String| AddressError { flag, address: address.to_owned(), why };
    let mut url = Url::parse(address).map_err(|error| bad(error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(bad(format!("the scheme is {}", url.scheme())));
    }
    match url.path_segments_mut() {
        Ok(mut path) => drop(path.pop_if_empty().extend(route)),
        Err(()) => return Err(bad("it has no path".to_owned())),
    }
    Ok(url)
}

/// A client for requests to `url`, of which each may take so long.
pub(super) fn client(url: &Url, timeout: Duration) -> reqwest::Result<Client> {
    server::install_crypto();
    let builder =
        Client::builder().user_agent("adx-mon-alerter").timeout(timeout).connect_timeout(Duration::from_secs(10)).redirect(redirects());
    let local = matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
    if local { builder.no_proxy().build() } else { builder.build() }
}

/// Only redirects that keep method and body: after any other the notification would not be in the request, and its answer,
/// such as that of a page to sign in, would say that it was taken.
fn redirects() -> Policy {
    Policy::custom(|attempt| match attempt.status() {
        StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT if attempt.previous().len() <= MAX_REDIRECTS => attempt.follow(),
        _ => attempt.stop(),
    })
}

/// Posts a JSON body.
pub(super) async fn post(client: &Client, url: Url, body: Vec<u8>, now: Timestamp) -> Answer {
    match client.post(url).header(CONTENT_TYPE, "application/json").body(body).send().await {
        Ok(response) => answer(response, now).await,
        Err(error) => Answer::Failed(with_causes(&error.without_url())),
    }
}

async fn answer(response: Response, now: Timestamp) -> Answer {
    let status = response.status();
    match status.as_u16() {
        200..=299 => Answer::Taken,
        429 => Answer::Busy { retry_after: retry_after(response.headers(), now) },
        300..=399 => Answer::Failed(format!("it answered {status}, which leads elsewhere without the notification; give that address")),
        // What these complain of may be put right without changing the body.
        401 | 403 | 404 | 405 | 407 | 408 | 425 => Answer::Failed(format!("it answered {status}")),
        400..=499 => Answer::Refused(format!("it answered {status}: {}", reason(response).await)),
        _ => Answer::Failed(format!("it answered {status}")),
    }
}

/// The beginning of a body.
async fn reason(mut response: Response) -> String {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        body.extend_from_slice(&chunk);
        if body.len() >= MAX_REASON {
            body.truncate(MAX_REASON);
            break;
        }
    }
    String::from_utf8_lossy(&body).trim().to_owned()
}

/// Seconds or a date.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let pause = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let until = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
            Duration::try_from(until.duration_since(now)).unwrap_or_default()
        }
    };
    Some(pause.min(LONGEST_PAUSE))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn pauses_are_read_in_seconds_and_as_dates() {
        let now: Timestamp = "2026-10-21T07:27:00Z".parse().unwrap();
        let pause = |text: &str| retry_after(&[(RETRY_AFTER, text.parse().unwrap())].into_iter().collect(), now);
        assert_eq!(pause("7"), Some(Duration::from_secs(7)));
        assert_eq!(pause("999999"), Some(LONGEST_PAUSE));
        assert_eq!(pause("Wed, 21 Oct 2026 07:28:00 GMT"), Some(Duration::from_secs(60)));
        assert_eq!(pause("Wed, 21 Oct 2026 07:26:00 GMT"), Some(Duration::ZERO));
        assert_eq!(pause("soon"), None);
    }

    /// Clients turn a POST into a GET without a body after the redirects 301 to 303 (RFC 9110, 15.4).
    #[tokio::test]
    async fn redirects_that_lose_the_notification_are_not_followed() {
        use axum::Router;
        use axum::response::IntoResponse as _;
        use axum::routing::{any, post};
        let redirect = |status: StatusCode| any(move || async move { (status, [("location", "/taken")]).into_response() });
        let mut router = Router::new().route("/taken", post(|body: String| async move { body.len().to_string() }).get(|| async {}));
        for status in [301, 302, 303, 307, 308] {
            router = router.route(&format!("/{status}"), redirect(StatusCode::from_u16(status).unwrap()));
        }
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = route("--alerter-address", &format!("http://{}", listener.local_addr().unwrap()), &[]).unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        let client = client(&url, Duration::from_secs(60)).unwrap();
        for (status, taken) in [(301, false), (302, false), (303, false), (307, true), (308, true)] {
            let answer = post_to(&client, url.join(&status.to_string()).unwrap()).await;
            match answer {
                Answer::Taken => assert!(taken, "{status}"),
                Answer::Failed(why) => assert!(!taken && why.contains(&status.to_string()), "{why}"),
                other => panic!("{status}: {other:?}"),
            }
        }
    }

    async fn post_to(client: &Client, url: Url) -> Answer {
        post(client, url, b"{}".to_vec(), Timestamp::UNIX_EPOCH).await
    }

    #[test]
    fn routes_are_appended_to_the_address() {
        let of = |address: &str| route("--alerter-address", address, &["alerts"]).map(|url| url.to_string());
        assert_eq!(of("http://icm").unwrap(), "http://icm/alerts");
        assert_eq!(of("https://icm/api/").unwrap(), "https://icm/api/alerts");
        for bad in ["", "icm", "ftp://icm", "mailto:a@b"] {
            assert!(of(bad).unwrap_err().to_string().contains("--alerter-address"), "{bad}");
        }
    }
}
