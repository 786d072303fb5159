//! A request of our sender and what its answer means, without the network between them: what [`crate::Sender`] puts on the
//! wire, and what tests that have a network of their own do.

use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use http::{HeaderName, StatusCode};
use serde::Deserialize;
use wal::SegmentInfo;

use crate::body::{BodyError, Directory, Entry, image_checksum};
use crate::machine::Answer;
use crate::names::{CONTENT_TYPE_MANY, HEADER_EXPECT, HEADER_RECEIVER, HEADER_VERSION, hex, unhex};

/// What of an answer's text is told.
const TOLD_BYTES: usize = 500;

/// The parts of our 202 that a sender acts upon.
#[derive(Deserialize)]
struct Report {
    refused: Vec<Refused>,
}

#[derive(Deserialize)]
struct Refused {
    index: usize,
    reason: String,
}

/// The body with these segments of one database; `floor` is the sender's in it.
///
/// # Errors
/// [`BodyError::TooLong`] when there are too many segments for one request.
pub fn body(sender: [u8; 16], floor: u64, segments: &[SegmentInfo], images: &[Vec<u8>]) -> Result<Vec<u8>, BodyError> {
    let entries = segments.iter().zip(images).map(|(info, image)| Entry {
        file_name: info.file_name.clone(),
        number: info.number,
        digest: info.digest,
        floor,
        length: image.len() as u64,
        rows: info.rows,
        checksum: image_checksum(image),
    });
    let mut body = Directory { sender, entries: entries.collect() }.encode()?;
    body.reserve(images.iter().map(Vec::len).sum());
    images.iter().for_each(|image| body.extend_from_slice(image));
    Ok(body)
}

/// The headers of such a request, meant for this receiver.
pub fn headers(receiver: &[u8; 16]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE_MANY));
    if let Ok(value) = HeaderValue::try_from(hex(receiver)) {
        headers.insert(HeaderName::from_static(HEADER_EXPECT), value);
    }
    headers
}

/// What an answer means, and in words what went wrong, if anything did. `to_ours`: the request had a body as above, and not
/// the reference's.
pub fn meaning(status: StatusCode, headers: &HeaderMap, text: &[u8], to_ours: bool) -> (Answer, Option<String>) {
    let retry_after_ms = retry_after_ms(headers);
    let actual = receiver_of(headers);
    let failure = || {
        let text = String::from_utf8_lossy(&text[..text.len().min(TOLD_BYTES)]);
        Some(format!("status {}: {}", status.as_u16(), text.trim_end()))
    };
    match status {
        StatusCode::ACCEPTED if to_ours => match serde_json::from_slice::<Report>(text) {
            Ok(report) => {
                let refused = report.refused.into_iter().map(|r| (r.index, r.reason));
                (Answer::Stored { refused: refused.collect() }, None)
            }
            // It is stored, but what of it was refused got lost.
            Err(error) => (Answer::Unknown, Some(format!("the answer cannot be read: {error}"))),
        },
        StatusCode::ACCEPTED | StatusCode::CONFLICT => (Answer::Stored { refused: Vec::new() }, None),
        StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE => {
            let reason = failure().unwrap_or_default();
            (Answer::Unacceptable { reason: reason.clone() }, Some(reason))
        }
        // The reference's ingestor says so when its disk is full, whatever the database.
        StatusCode::TOO_MANY_REQUESTS if !to_ours => (Answer::Unavailable { retry_after_ms }, failure()),
        StatusCode::TOO_MANY_REQUESTS => (Answer::DatabaseBusy { retry_after_ms }, failure()),
        StatusCode::MISDIRECTED_REQUEST if actual.is_some() => (Answer::Misdirected { actual: actual.unwrap_or_default() }, None),
        // One that lacks our headers comes from what stands around the receiver: a time limit that
        // struck while it was storing, or a proxy.
        StatusCode::SERVICE_UNAVAILABLE if to_ours && actual.is_none() => (Answer::Unknown, failure()),
        StatusCode::SERVICE_UNAVAILABLE => (Answer::Unavailable { retry_after_ms }, failure()),
        status if status.is_server_error() => (Answer::Unknown, failure()),
        // A proxy, a wrong address, missing rights: nothing is stored, and data must not die of it.
        _ => (Answer::Unavailable { retry_after_ms }, failure()),
    }
}

/// The identity of the receiver that answered, if it is one of ours.
pub(crate) fn receiver_of(headers: &HeaderMap) -> Option<[u8; 16]> {
    headers.get(HEADER_VERSION)?;
    headers.get(HEADER_RECEIVER)?.to_str().ok().and_then(unhex)
}

pub(crate) fn retry_after_ms(headers: &HeaderMap) -> Option<u64> {
    let seconds: u64 = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(seconds.min(3600) * 1000)
}
