//! Request bodies with limits.
//!
//! Two limits hold for every body: bytes on the wire, and bytes once inflated. A declared length is
//! checked before anything is read, a decoder writes at most the limit plus one byte, and a Snappy
//! block's own length is checked before its buffer exists, so no request can make us allocate more
//! than it is allowed to.

use std::io::Read;
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::BodyExt;

use crate::listen::SlowBody;
use crate::room::Room;

/// Most bytes one request body may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyLimits {
    /// Bytes on the wire, before `Content-Encoding` is undone.
    pub wire: usize,
    /// Bytes after `Content-Encoding` is undone.
    pub inflated: usize,
}

impl Default for BodyLimits {
    /// 20 MiB on the wire, 100 MiB inflated.
    fn default() -> Self {
        BodyLimits { wire: 20 << 20, inflated: 100 << 20 }
    }
}

/// Why a body could not be read. [`BodyError::status`] is the answer to send.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// More bytes on the wire than allowed.
    #[error("request body exceeds {limit} bytes; send smaller batches")]
    TooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
    /// More bytes after decompression than allowed.
    #[error("request body exceeds {limit} bytes after {encoding} decompression; send smaller batches")]
    InflatesTooLarge {
        /// The limit, in bytes.
        limit: usize,
        /// The content coding.
        encoding: &'static str,
    },
    /// The content coding is damaged.
    #[error("{encoding}: corrupt input: {reason}")]
    Corrupt {
        /// The content coding.
        encoding: &'static str,
        /// What the decoder said.
        reason: String,
    },
    /// A content coding we do not speak.
    #[error("unsupported content coding {0:?}: use identity, gzip or zstd")]
    UnsupportedEncoding(String),
    /// The bodies in memory are as many as may be.
    #[error("too many request bodies are in memory at a time; retry")]
    Busy,
    /// Nothing came of the body for too long.
    #[error("nothing of the request body came for {} s", .limit.as_secs())]
    TooSlow {
        /// How long may be between two pieces of a body.
        limit: Duration,
    },
    /// The client went away or broke the transfer coding.
    #[error("failed to read request body: {0}")]
    Read(String),
}

impl BodyError {
    /// The HTTP status that tells the client what to do about it.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            BodyError::TooLarge { .. } | BodyError::InflatesTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            BodyError::UnsupportedEncoding(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            BodyError::Corrupt { .. } | BodyError::Read(_) => StatusCode::BAD_REQUEST,
            BodyError::TooSlow { .. } => StatusCode::REQUEST_TIMEOUT,
            BodyError::Busy => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// When to try again, where that helps.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        matches!(self, BodyError::Busy).then_some(BUSY_RETRY_AFTER)
    }
}

const BUSY_RETRY_AFTER: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    Identity,
    Gzip,
    Zstd,
    Snappy,
}

/// Reads a whole body and undoes its `Content-Encoding` (identity, gzip, zstd or Snappy block).
///
/// # Errors
/// [`BodyError`]: too large, damaged, unknown coding, or the client went away.
pub async fn read_body(headers: &HeaderMap, body: Body, limits: &BodyLimits) -> Result<Bytes, BodyError> {
    read_body_into(&mut Room::unlimited(), headers, body, limits).await
}

/// [`read_body`], with the body's memory charged to `room`.
pub(crate) async fn read_body_into(room: &mut Room, headers: &HeaderMap, body: Body, limits: &BodyLimits) -> Result<Bytes, BodyError> {
    let coding = coding(headers)?;
    let wire = read_wire(room, headers, body, limits.wire).await?;
    match coding {
        Coding::Identity => Ok(wire),
        coding => inflate(room, coding, &wire, limits.inflated).await.map(Bytes::from),
    }
}

/// The declared length, if it is within `limit`.
fn declared(headers: &HeaderMap, limit: usize) -> Result<Option<usize>, BodyError> {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<u64>().ok());
    match length.map(usize::try_from) {
        None => Ok(None),
        Some(Ok(length)) if length <= limit => Ok(Some(length)),
        Some(_) => Err(BodyError::TooLarge { limit }),
    }
}

/// Reads a body as it came, whatever `Content-Encoding` says. Memory is taken and charged as bytes arrive, not as
/// the header promises: a promise costs the sender nothing.
pub(crate) async fn read_wire(room: &mut Room, headers: &HeaderMap, body: Body, limit: usize) -> Result<Bytes, BodyError> {
    let declared = declared(headers, limit)?;
    let mut body = body;
    let Some(first) = next_data(&mut body).await? else { return Ok(Bytes::new()) };
    if first.len() > limit {
        return Err(BodyError::TooLarge { limit });
    }
    room.grow_to(first.len()).await?;
    let Some(mut next) = next_data(&mut body).await? else { return Ok(first) };
    let promised = declared.map_or(0, |n| n.min(1 << 20));
    let mut whole = BytesMut::with_capacity(promised.max(first.len() + next.len()));
    whole.extend_from_slice(&first);
    drop(first);
    loop {
        if whole.len() + next.len() > limit {
            return Err(BodyError::TooLarge { limit });
        }
        room.grow_to(whole.len() + next.len()).await?;
        whole.extend_from_slice(&next);
        match next_data(&mut body).await? {
            Some(data) => next = data,
            None => return Ok(whole.freeze()),
        }
    }
}

async fn next_data(body: &mut Body) -> Result<Option<Bytes>, BodyError> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| read_error(&e))?;
        if let Ok(data) = frame.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

fn read_error(error: &axum::Error) -> BodyError {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(cause) = source {
        if let Some(slow) = cause.downcast_ref::<SlowBody>() {
            return BodyError::TooSlow { limit: slow.limit };
        }
        source = cause.source();
    }
    BodyError::Read(error.to_string())
}

/// The message of a gRPC frame that says it is compressed.
pub(crate) async fn inflate_message(
    room: &mut Room,
    coding: Option<&HeaderValue>,
    message: &[u8],
    limit: usize,
) -> Result<Bytes, BodyError> {
    match coding_of(coding)? {
        Coding::Identity => Err(BodyError::Read("a compressed message without grpc-encoding".to_owned())),
        Coding::Snappy => Err(BodyError::UnsupportedEncoding("snappy".to_owned())),
        coding => inflate(room, coding, message, limit).await.map(Bytes::from),
    }
}

fn coding(headers: &HeaderMap) -> Result<Coding, BodyError> {
    coding_of(headers.get(header::CONTENT_ENCODING))
}

fn coding_of(value: Option<&HeaderValue>) -> Result<Coding, BodyError> {
    let Some(value) = value else { return Ok(Coding::Identity) };
    let text = value.to_str().unwrap_or("\u{fffd}").trim();
    match text.to_ascii_lowercase().as_str() {
        "" | "identity" => Ok(Coding::Identity),
        "gzip" | "x-gzip" => Ok(Coding::Gzip),
        "zstd" => Ok(Coding::Zstd),
        "snappy" => Ok(Coding::Snappy),
        _ => Err(BodyError::UnsupportedEncoding(text.to_owned())),
    }
}

async fn inflate(room: &mut Room, coding: Coding, wire: &[u8], limit: usize) -> Result<Vec<u8>, BodyError> {
    match coding {
        Coding::Identity => Ok(wire.to_vec()),
        Coding::Gzip => inflate_into(room, "gzip", flate2::read::MultiGzDecoder::new(wire), wire.len(), limit).await,
        Coding::Zstd => {
            let decoder = zstd::Decoder::with_buffer(wire)
                .and_then(|mut d| d.window_log_max(ZSTD_WINDOW_LOG_MAX).map(|()| d))
                .map_err(|e| BodyError::Corrupt { encoding: "zstd", reason: e.to_string() })?;
            inflate_into(room, "zstd", decoder, wire.len(), limit).await
        }
        Coding::Snappy => {
            room.grow_to(wire.len() + snappy_len(wire, limit)?).await?;
            let mut out = Vec::new();
            snappy_block(wire, limit, &mut out)?;
            Ok(out)
        }
    }
}

/// Bytes inflated first, after room for them was found; then as many again as there are.
const FIRST_STEP: std::ops::RangeInclusive<usize> = 64 << 10..=1 << 20;

/// [`inflate_limited`], with room taken step by step.
async fn inflate_into(
    room: &mut Room,
    encoding: &'static str,
    mut decoder: impl Read + Send,
    wire: usize,
    limit: usize,
) -> Result<Vec<u8>, BodyError> {
    let first = wire.saturating_mul(8).clamp(*FIRST_STEP.start(), *FIRST_STEP.end());
    let mut out = Vec::new();
    loop {
        let step = first.max(out.len()).min(limit + 1 - out.len());
        room.grow_to(wire + out.len() + step).await?;
        let read = crate::receive::on_this_task(step, || decoder.by_ref().take(step as u64).read_to_end(&mut out));
        let read = read.map_err(|e| BodyError::Corrupt { encoding, reason: e.to_string() })?;
        if out.len() > limit {
            return Err(BodyError::InflatesTooLarge { limit, encoding });
        }
        if read < step {
            return Ok(out);
        }
    }
}

/// 8 MiB: what every level of the reference encoder up to 19 stays within, and RFC 8878 asks for.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// Reads `decoder` to its end, at most `limit` bytes.
///
/// # Errors
/// [`BodyError::InflatesTooLarge`] past the limit, [`BodyError::Corrupt`] when the decoder fails.
pub fn inflate_limited(encoding: &'static str, decoder: impl Read, limit: usize) -> Result<Vec<u8>, BodyError> {
    let mut out = Vec::new();
    decoder.take(limit as u64 + 1).read_to_end(&mut out).map_err(|e| BodyError::Corrupt { encoding, reason: e.to_string() })?;
    if out.len() > limit {
        return Err(BodyError::InflatesTooLarge { limit, encoding });
    }
    Ok(out)
}

/// The length that a Snappy block declares, if it can be true and is within `limit`.
pub(crate) fn snappy_len(wire: &[u8], limit: usize) -> Result<usize, BodyError> {
    let corrupt = |reason: String| BodyError::Corrupt { encoding: "snappy", reason };
    let len = snap::raw::decompress_len(wire).map_err(|e| corrupt(e.to_string()))?;
    if len > limit {
        return Err(BodyError::InflatesTooLarge { limit, encoding: "snappy" });
    }
    // The best a Snappy element does is 64 bytes from 3: a longer promise cannot be kept.
    if len > wire.len().saturating_mul(SNAPPY_BEST_RATIO) {
        return Err(corrupt(format!("{} bytes cannot decompress to the declared {len}", wire.len())));
    }
    Ok(len)
}

/// Decodes a Snappy block into `out`, whose old contents are lost and whose memory is reused.
pub(crate) fn snappy_block(wire: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), BodyError> {
    let len = snappy_len(wire, limit)?;
    if out.len() < len {
        out.resize(len, 0);
    }
    out.truncate(len);
    let written = snap::raw::Decoder::new().decompress(wire, out);
    let written = written.map_err(|e| BodyError::Corrupt { encoding: "snappy", reason: e.to_string() })?;
    out.truncate(written);
    Ok(())
}

const SNAPPY_BEST_RATIO: usize = 22;

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(encoding: &str) -> HeaderMap {
        let mut h = HeaderMap::new();
        h.insert(header::CONTENT_ENCODING, encoding.parse().unwrap());
        h
    }

    fn gzip(data: &[u8]) -> Vec<u8> {
        use std::io::Write;
        let mut e = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        e.write_all(data).unwrap();
        e.finish().unwrap()
    }

    const SMALL: BodyLimits = BodyLimits { wire: 1000, inflated: 5000 };

    #[tokio::test]
    async fn every_coding_gives_the_original_back() {
        let data = b"telemetry ".repeat(100);
        for (name, wire) in [
            ("identity", data.clone()),
            ("GZIP", gzip(&data)),
            ("zstd", zstd::encode_all(&data[..], 3).unwrap()),
            ("snappy", snap::raw::Encoder::new().compress_vec(&data).unwrap()),
        ] {
            let got = read_body(&headers(name), Body::from(wire), &SMALL).await.unwrap();
            assert_eq!(got, data, "{name}");
        }
    }

    #[tokio::test]
    async fn bombs_are_too_large_in_every_coding() {
        let data = vec![0u8; SMALL.inflated + 1];
        for (name, wire) in [
            ("gzip", gzip(&data)),
            ("zstd", zstd::encode_all(&data[..], 3).unwrap()),
            ("snappy", snap::raw::Encoder::new().compress_vec(&data).unwrap()),
        ] {
            assert!(wire.len() < SMALL.wire, "{name} must fit the wire");
            let error = read_body(&headers(name), Body::from(wire), &SMALL).await.unwrap_err();
            assert_eq!(error.status(), StatusCode::PAYLOAD_TOO_LARGE, "{name}: {error}");
        }
    }

    #[tokio::test]
    async fn what_a_body_inflates_to_is_charged_before_it_is_there() {
        let data = vec![0u8; 1 << 20];
        let limits = BodyLimits { wire: 1 << 20, inflated: 2 << 20 };
        for (name, wire) in [
            ("identity", data.clone()),
            ("gzip", gzip(&data)),
            ("zstd", zstd::encode_all(&data[..], 3).unwrap()),
            ("snappy", snap::raw::Encoder::new().compress_vec(&data).unwrap()),
        ] {
            let sizes = [("much", 4 << 20, true), ("little", 512 << 10, false)];
            for (room, bytes, enough) in sizes {
                let read = read_body_into(&mut Room::of_bytes(bytes), &headers(name), Body::from(wire.clone()), &limits).await;
                match read {
                    Ok(read) => assert!(enough && read == data, "{name}, {room} room"),
                    Err(error) => assert!(!enough && matches!(error, BodyError::Busy), "{name}, {room} room: {error}"),
                }
            }
        }
    }

    #[tokio::test]
    async fn the_wire_limit_is_exact_for_streamed_bodies() {
        for (len, ok) in [(SMALL.wire, true), (SMALL.wire + 1, false)] {
            let chunks: Vec<Result<Bytes, std::io::Error>> = vec![0u8; len].chunks(7).map(|c| Ok(Bytes::copy_from_slice(c))).collect();
            let body = Body::from_stream(futures::stream::iter(chunks));
            assert_eq!(read_body(&HeaderMap::new(), body, &SMALL).await.is_ok(), ok, "{len}");
        }
    }

    #[tokio::test]
    async fn a_truncated_gzip_and_an_unknown_coding_are_refused() {
        let whole = gzip(b"abcdefgh");
        let error = read_body(&headers("gzip"), Body::from(whole[..whole.len() - 4].to_vec()), &SMALL).await.unwrap_err();
        assert_eq!(error.status(), StatusCode::BAD_REQUEST);
        let error = read_body(&headers("br"), Body::from("x"), &SMALL).await.unwrap_err();
        assert_eq!(error.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }

    #[test]
    fn a_snappy_block_that_promises_too_much_is_refused_before_allocating() {
        // Declared length 100 MiB (varint), then nothing.
        let mut out = Vec::new();
        let error = snappy_block(&[0x80, 0x80, 0x80, 0x32, 0], 100 << 20, &mut out).unwrap_err();
        assert!(matches!(error, BodyError::Corrupt { .. }), "{error}");
        assert_eq!(out.capacity(), 0);
    }
}
