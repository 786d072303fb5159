//! Reading a request body piece by piece, decompressed, within a limit.
//!
//! gzip is fed in small slices, so that what one slice inflates to is bounded (8 KiB make 8 MiB at
//! the very most) and a bomb ends at the limit instead of in memory.

use std::io::Write as _;

use axum::body::Body;
use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http_body_util::BodyExt as _;

const SLICE: usize = 8 << 10;

/// Why a body cannot be read to its end.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// Longer than this many bytes, inflated.
    TooLarge(u64),
    /// It is said to be gzip and does not begin so.
    NotGzip,
    /// It ended early or is damaged: nothing to blame the contents for.
    Broken(String),
}

/// A body that is being read.
pub(crate) struct Reader {
    body: Body,
    /// Wire bytes that are not decoded yet.
    wire: Bytes,
    gzip: Option<MultiGzDecoder<Vec<u8>>>,
    gzip_started: bool,
    /// Decoded bytes that nobody has taken yet.
    ready: Vec<u8>,
    /// Decoded bytes so far.
    decoded: u64,
    limit: u64,
    /// Length of the body on the wire as declared, at most `limit`; 0 when it is not.
    declared: u64,
    pub(crate) wire_bytes: u64,
    ended: bool,
}

impl Reader {
    /// A reader of at most `limit` decoded bytes.
    pub(crate) fn new(headers: &HeaderMap, body: Body, limit: u64) -> Result<Reader, ReadError> {
        let gzip = match headers.get(CONTENT_ENCODING).map(|v| v.to_str().unwrap_or("?").trim()) {
            None | Some("" | "identity") => None,
            Some("gzip") => Some(MultiGzDecoder::new(Vec::new())),
            Some(_) => return Err(ReadError::NotGzip),
        };
        let declared = declared_length(headers).unwrap_or(0);
        if declared > limit {
            return Err(ReadError::TooLarge(limit));
        }
        Ok(Reader {
            body,
            wire: Bytes::new(),
            gzip,
            gzip_started: false,
            ready: Vec::new(),
            decoded: 0,
            limit,
            declared,
            wire_bytes: 0,
            ended: false,
        })
    }

    /// The next `N` bytes; nothing when the body ends before.
    pub(crate) async fn array<const N: usize>(&mut self) -> Result<Option<[u8; N]>, ReadError> {
        let bytes = self.up_to(N as u64).await?;
        Ok(bytes.as_slice().try_into().ok())
    }

    /// The next `most` bytes, fewer only where the body ends.
    pub(crate) async fn up_to(&mut self, most: u64) -> Result<Vec<u8>, ReadError> {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        if self.gzip.is_none() {
            // Callers have claimed the memory of a body that says how long it is.
            let left = self.declared.saturating_sub(self.decoded);
            self.ready.reserve_exact(usize::try_from(left).unwrap_or(usize::MAX).min(most.saturating_sub(self.ready.len())));
        }
        while self.ready.len() < most && self.fill().await? {}
        if self.ready.len() <= most {
            return Ok(std::mem::take(&mut self.ready));
        }
        let rest = self.ready.split_off(most);
        Ok(std::mem::replace(&mut self.ready, rest))
    }

    /// Whether nothing is left.
    pub(crate) async fn at_end(&mut self) -> Result<bool, ReadError> {
        while self.ready.is_empty() {
            if !self.fill().await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Reads and forgets the rest.
    pub(crate) async fn drain(&mut self) -> Result<(), ReadError> {
        while !self.at_end().await? {
            self.ready.clear();
        }
        Ok(())
    }

    /// Decodes some more; false at the end.
    async fn fill(&mut self) -> Result<bool, ReadError> {
        if self.ended {
            return Ok(false);
        }
        if self.wire.is_empty() && !self.next_frame().await? {
            self.ended = true;
            return self.finish();
        }
        let before = self.ready.len();
        match &mut self.gzip {
            None => {
                self.ready.extend_from_slice(&self.wire);
                self.wire = Bytes::new();
            }
            Some(decoder) => {
                if !self.gzip_started && self.wire[0] != 0x1f {
                    return Err(ReadError::NotGzip);
                }
                self.gzip_started = true;
                let slice = self.wire.split_to(self.wire.len().min(SLICE));
                decoder.write_all(&slice).map_err(|e| broken("gzip", &e))?;
                self.ready.append(decoder.get_mut());
            }
        }
        self.count(self.ready.len() - before)?;
        Ok(true)
    }

    fn finish(&mut self) -> Result<bool, ReadError> {
        let Some(mut decoder) = self.gzip.take() else { return Ok(false) };
        if !self.gzip_started {
            return Err(ReadError::NotGzip);
        }
        decoder.try_finish().map_err(|e| broken("gzip", &e))?;
        let rest = decoder.get_mut().len();
        self.ready.append(decoder.get_mut());
        self.count(rest)?;
        Ok(rest > 0)
    }

    fn count(&mut self, bytes: usize) -> Result<(), ReadError> {
        self.decoded += bytes as u64;
        if self.decoded > self.limit { Err(ReadError::TooLarge(self.limit)) } else { Ok(()) }
    }

    async fn next_frame(&mut self) -> Result<bool, ReadError> {
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|e| ReadError::Broken(format!("reading the body: {e}")))?;
            if let Ok(data) = frame.into_data()
                && !data.is_empty()
            {
                self.wire_bytes += data.len() as u64;
                self.wire = data;
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// `Content-Length`, if it is a number.
pub(crate) fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn broken(what: &str, error: &std::io::Error) -> ReadError {
    ReadError::Broken(format!("reading the {what} body: {error}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut e = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        e.write_all(data).unwrap();
        e.finish().unwrap()
    }

    fn reader(wire: Vec<u8>, gzip: bool, limit: u64) -> Reader {
        let mut headers = HeaderMap::new();
        if gzip {
            headers.insert(CONTENT_ENCODING, "gzip".parse().unwrap());
        }
        Reader::new(&headers, Body::from(wire), limit).unwrap()
    }

    #[tokio::test]
    async fn plain_and_gzip_give_the_same_pieces() {
        let data: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
        for (wire, packed) in [(data.clone(), false), (gzip(&data), true)] {
            let mut r = reader(wire, packed, 400_000);
            assert_eq!(r.array::<4>().await.unwrap(), Some([0; 4]));
            assert_eq!(r.up_to(4).await.unwrap(), [1, 0, 0, 0]);
            assert_eq!(r.up_to(u64::MAX).await.unwrap(), data[8..]);
            assert!(r.at_end().await.unwrap());
        }
    }

    #[tokio::test]
    async fn a_bomb_ends_at_the_limit() {
        let mut r = reader(gzip(&vec![0; 5_000_000]), true, 1_000_000);
        assert!(matches!(r.up_to(u64::MAX).await, Err(ReadError::TooLarge(_))));
        assert!(r.ready.len() < 10_000_000);
    }

    #[tokio::test]
    async fn a_cut_gzip_is_broken_and_other_bytes_are_no_gzip() {
        let whole = gzip(b"abcdefghijklmnop");
        let mut r = reader(whole[..whole.len() - 9].to_vec(), true, 100);
        assert!(matches!(r.up_to(100).await, Err(ReadError::Broken(_))));
        let mut r = reader(b"ADXWAL\0\0".to_vec(), true, 100);
        assert!(matches!(r.up_to(100).await, Err(ReadError::NotGzip)));
        let mut r = reader(Vec::new(), true, 100);
        assert!(matches!(r.up_to(100).await, Err(ReadError::NotGzip)));
    }
}
