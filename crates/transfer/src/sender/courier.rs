//! Sends segments one at a time by hand, as the reference's collectors do: for whoever has a file and no store.

use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, StatusCode};
use reqwest::Url;

use super::access::Accesses;
use super::http::{chain, gzipped, read_text};
use super::{Credentials, SenderOptions};
use crate::exchange::retry_after_ms;

/// How often a segment is sent while the ingestor is busy or silent.
const ATTEMPTS: u32 = 10;
/// The pause after the first attempt where the ingestor names none; it doubles.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// An ingestor that asks for more does not get it.
const LONGEST_ASKED_PAUSE: Duration = Duration::from_secs(300);
const TIMEOUT: Duration = Duration::from_secs(120);
/// What of an answer is shown.
const SHOWN_BYTES: usize = 500;

/// What the ingestor says of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// It is stored.
    Stored,
    /// It was stored before.
    Known,
    /// It is not stored, and why.
    Refused(String),
    /// It may be stored or not.
    Unknown(String),
}

/// See the module.
pub struct Courier {
    url: Url,
    accesses: Accesses,
}

impl Courier {
    /// Sends to an ingestor, for example `https://ingestor:9090`.
    ///
    /// # Errors
    /// What is unusable: the address, a file of the credentials, or a token that would cross a network in the clear.
    pub fn new(endpoint: &str, credentials: Credentials, insecure_skip_verify: bool) -> Result<Courier, String> {
        let url =
            Url::parse(endpoint).and_then(|url| url.join("/transfer")).map_err(|error| format!("{endpoint} cannot be used: {error}"))?;
        let options = SenderOptions { credentials, insecure_skip_verify, timeout: TIMEOUT, ..SenderOptions::default() };
        let accesses = Accesses::new(options);
        accesses.current()?.token_for(url.as_str())?;
        Ok(Courier { url, accesses })
    }

    /// Where segments go.
    pub fn url(&self) -> &str {
        self.url.as_str()
    }

    /// Sends a segment, again while the ingestor is busy or silent; `pause` waits in between.
    ///
    /// # Errors
    /// When the credentials have become unusable.
    pub async fn send(&self, file_name: &str, image: &[u8], pause: impl AsyncFn(Duration)) -> Result<Delivery, String> {
        // Compressed as collectors do: what is not is taken for a peer's, and stays where it came.
        let body = bytes::Bytes::from(gzipped(image)?);
        let mut attempt = 1;
        loop {
            let (delivery, again_in) = match self.attempt(file_name, body.clone(), attempt).await? {
                Attempt::Ended(delivery) => return Ok(delivery),
                Attempt::Again(delivery, again_in) => (delivery, again_in),
            };
            if attempt == ATTEMPTS {
                return Ok(delivery);
            }
            attempt += 1;
            pause(again_in).await;
        }
    }

    async fn attempt(&self, file_name: &str, body: bytes::Bytes, number: u32) -> Result<Attempt, String> {
        let access = self.accesses.current()?;
        let mut url = self.url.clone();
        url.query_pairs_mut().append_pair("filename", file_name);
        let mut request = access.client.post(url).header(USER_AGENT, "adx-mon").header(CONTENT_TYPE, "text/csv");
        request = request.header(CONTENT_ENCODING, "gzip").body(body);
        if let Some(token) = access.token_for(self.url.as_str())? {
            request = request.header(AUTHORIZATION, token);
        }
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => {
                let delivery = if error.is_connect() || error.is_builder() { Delivery::Refused } else { Delivery::Unknown };
                return Ok(Attempt::Again(delivery(chain(&error)), own_pause(number)));
            }
        };
        let (status, again_in) = (response.status(), pause_after(response.headers(), number));
        let text = read_text(response).await;
        let shown = String::from_utf8_lossy(&text[..text.len().min(SHOWN_BYTES)]);
        let why = format!("{status}: {}", shown.trim());
        Ok(match status {
            StatusCode::ACCEPTED => Attempt::Ended(Delivery::Stored),
            StatusCode::CONFLICT => Attempt::Ended(Delivery::Known),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE | StatusCode::LOCKED => {
                Attempt::Again(Delivery::Refused(why), again_in)
            }
            status if status.is_server_error() => Attempt::Again(Delivery::Unknown(why), again_in),
            _ => Attempt::Ended(Delivery::Refused(why)),
        })
    }
}

enum Attempt {
    Ended(Delivery),
    /// After this pause it may go better.
    Again(Delivery, Duration),
}

/// Not sooner than the ingestor asks for.
fn pause_after(headers: &HeaderMap, attempt: u32) -> Duration {
    let asked = retry_after_ms(headers).map(Duration::from_millis);
    asked.map_or(own_pause(attempt), |asked| asked.clamp(FIRST_PAUSE, LONGEST_ASKED_PAUSE))
}

fn own_pause(attempt: u32) -> Duration {
    (FIRST_PAUSE * 2u32.saturating_pow(attempt.saturating_sub(1))).min(LONGEST_PAUSE)
}
