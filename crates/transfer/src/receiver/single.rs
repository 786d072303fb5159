//! The reference's contract: one segment image in a body, its file name in the query.
//!
//! The reference's senders delete what is answered with 409, so 409 is given only for the same name,
//! length and digest. They join segments under the first one's name and may repeat a request grown
//! at its end: then only what is new is stored.

use std::sync::Arc;

use axum::body::Body;
use http::HeaderMap;
use wal::Request;
use wal::segment::{self, FileName};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::admit::{self, Admitted};
use super::intake::{Intake, PIECE, blocking};
use super::reader::{ReadError, Reader, declared_length};
use super::recent::Seen;
use super::{Answer, Shared, drain, now_ms};

/// Bytes of a body that are compared at a time, when nothing of it is stored.
const HASHED: u64 = 64 << 10;

pub(super) async fn receive(shared: &Arc<Shared>, query: &str, headers: &HeaderMap, body: Body) -> Answer {
    let Some(file_name) = file_name(query) else {
        drain(body).await;
        return Answer::Unacceptable("missing filename".to_owned());
    };
    if let Some(prefix) = shared.drop_prefix(&file_name) {
        shared.metrics.dropped(prefix);
        drain(body).await;
        return Answer::Stored(String::new());
    }
    let name = match shared.check_name(&file_name) {
        Ok(name) => name,
        Err(why) => {
            drain(body).await;
            return Answer::Unacceptable(why.to_owned());
        }
    };
    let _claim = Claim::take(shared, &file_name).await;
    if let Err(why_not) = (shared.ready)().map_err(Answer::Busy).and_then(|()| shared.check_room(&name)) {
        return refuse(shared, &file_name, headers, body, why_not).await;
    }
    let _peer = shared.note_peer(headers, false, [&name]);
    read_and_store(shared, &name, &file_name, headers, body).await.unwrap_or_else(|answer| answer)
}

/// Stores nothing, for this reason; unless the body is stored already.
async fn refuse(shared: &Shared, file_name: &str, headers: &HeaderMap, body: Body, why_not: Answer) -> Answer {
    let known = shared.recent.lock().get(file_name);
    let Some(seen) = known else {
        drain(body).await;
        return why_not;
    };
    match is_stored(shared, seen, headers, body).await {
        Ok(true) => {
            shared.metrics.segments("known", 1);
            Answer::AlreadyStored
        }
        Ok(false) => why_not,
        Err(error) => Answer::from_read(error),
    }
}

/// Whether a body is what was stored under its name.
async fn is_stored(shared: &Shared, seen: Seen, headers: &HeaderMap, body: Body) -> Result<bool, ReadError> {
    let mut reader = Reader::new(headers, body, shared.options.max_body_bytes)?;
    let (mut whole, mut length) = (Xxh3::new(), 0);
    while !reader.at_end().await? {
        let piece = reader.up_to(HASHED).await?;
        whole.update(&piece);
        length += piece.len() as u64;
    }
    Ok(length == seen.length && whole.digest() == seen.digest)
}

async fn read_and_store(shared: &Arc<Shared>, name: &FileName, file_name: &str, headers: &HeaderMap, body: Body) -> Result<Answer, Answer> {
    let limit = shared.options.max_body_bytes;
    let mut reader = Reader::new(headers, body, limit).map_err(Answer::from_read)?;
    let _memory = super::many::reserve(shared, 2 * expected_bytes(shared, headers)).await?;
    let image = reader.up_to(shared.options.max_frame_bytes).await.map_err(Answer::from_read)?;
    let small = reader.at_end().await.map_err(Answer::from_read)?;
    if !segment::is_segment(&image) {
        let damaged = vec![(0, image)];
        admit::quarantine(shared, file_name, damaged).await;
        return Err(Answer::Unacceptable("the body is no ADXWAL segment".to_owned()));
    }
    let answer = if small {
        store_image(shared, name, file_name, image).await
    } else {
        store_stream(shared, name, file_name, image, &mut reader).await
    };
    shared.metrics.wire_bytes(reader.wire_bytes);
    answer
}

/// Length of a body, at most, while it is one frame.
fn expected_bytes(shared: &Shared, headers: &HeaderMap) -> u64 {
    match declared_length(headers) {
        Some(length) if !headers.contains_key(http::header::CONTENT_ENCODING) => length.min(shared.options.max_frame_bytes),
        _ => shared.options.max_frame_bytes,
    }
}

/// A body in memory: one frame.
async fn store_image(shared: &Arc<Shared>, name: &FileName, file_name: &str, image: Vec<u8>) -> Result<Answer, Answer> {
    let length = image.len() as u64;
    let known = shared.recent.lock().get(file_name);
    let name = name.clone();
    let work = move || {
        let digest = xxh3_64(&image);
        let from = match known {
            Some(seen) if seen.length == length && seen.digest == digest => return (digest, None),
            Some(seen) if continues(seen, &image) => seen.length as usize,
            _ => 0,
        };
        (digest, Some(admit::admit(&name, &image, from)))
    };
    let (digest, admitted) = blocking(work).await?;
    let Some(admitted) = admitted else {
        shared.metrics.segments("known", 1);
        return Ok(Answer::AlreadyStored);
    };
    let intact = admitted.damaged.is_empty();
    let seen = Seen { length, digest, intact, stored_ms: now_ms() };
    let Admitted { section, damaged } = admitted;
    let note = note(&damaged);
    admit::quarantine(shared, file_name, damaged).await;
    if section.is_none() && known.is_none() {
        // Only a header: nothing to store, and nothing to remember.
        return Ok(Answer::Stored(note));
    }
    let marks = shared.recent.lock().marks(file_name, seen);
    let request = Request { sections: section.into_iter().collect(), marks, ..Request::default() };
    commit_with_patience(shared, request).await?;
    shared.recent.lock().insert(file_name.to_owned(), seen);
    shared.metrics.segments("stored", 1);
    Ok(Answer::Stored(note))
}

/// Whether an image is a stored body with more behind it.
fn continues(seen: Seen, image: &[u8]) -> bool {
    let length = usize::try_from(seen.length).unwrap_or(usize::MAX);
    seen.intact && length < image.len() && xxh3_64(&image[..length]) == seen.digest
}

async fn commit_with_patience(shared: &Shared, request: Request) -> Result<(), Answer> {
    let mut tries = 0;
    loop {
        match (admit::commit(shared, request.clone()).await, admit::busy_pause(tries)) {
            (Ok(_), _) => return Ok(()),
            (Err(wal::Refusal::Busy), Some(pause)) => tokio::time::sleep(pause).await,
            // Only the journal's queue can be busy here, so nothing is stored.
            (Err(wal::Refusal::Busy), None) => return Err(Answer::Busy("the journal is busy".to_owned())),
            (Err(refusal), _) => return Err(Answer::from_refusal(&refusal)),
        }
        tries += 1;
    }
}

/// A large body: straight into a segment file, piece by piece.
async fn store_stream(
    shared: &Arc<Shared>,
    name: &FileName,
    file_name: &str,
    image: Vec<u8>,
    reader: &mut Reader,
) -> Result<Answer, Answer> {
    let known = shared.recent.lock().get(file_name);
    let mut intake = Intake::begin(shared, name, 0)?;
    let mut whole = Xxh3::new();
    let mut length = 0u64;
    let mut piece = image;
    loop {
        let mut hashed = 0;
        if let Some(seen) = known.filter(|s| ends_within(s, length, &piece)) {
            let cut = (seen.length - length) as usize;
            whole.update(&piece[..cut]);
            hashed = cut;
            if whole.digest() == seen.digest {
                // Stored already up to here: what was written again is given up.
                intake = Intake::begin(shared, name, seen.length)?;
                piece.drain(..cut);
                (length, hashed) = (seen.length, 0);
            }
        }
        whole.update(&piece[hashed..]);
        length += piece.len() as u64;
        let last = reader.at_end().await.map_err(Answer::from_read)?;
        intake = intake.push(piece, last).await?;
        if last {
            break;
        }
        piece = reader.up_to(PIECE).await.map_err(Answer::from_read)?;
    }
    let digest = whole.digest();
    if known.is_some_and(|seen| seen.length == length && seen.digest == digest) {
        shared.metrics.segments("known", 1);
        return Ok(Answer::AlreadyStored);
    }
    let seen = Seen { length, digest, intact: intake.damaged.is_empty(), stored_ms: now_ms() };
    let damaged = std::mem::take(&mut intake.damaged);
    let note = note(&damaged);
    admit::quarantine(shared, file_name, damaged).await;
    let marks = shared.recent.lock().marks(file_name, seen);
    intake.finish(Vec::new(), marks).await?;
    shared.recent.lock().insert(file_name.to_owned(), seen);
    shared.metrics.segments("stored", 1);
    Ok(Answer::Stored(note))
}

/// Whether a stored body ends inside this piece, with more behind it.
fn ends_within(seen: &Seen, start: u64, piece: &[u8]) -> bool {
    seen.intact && start <= seen.length && seen.length < start + piece.len() as u64
}

/// What of the body is in quarantine, for the answer; empty when nothing is.
fn note(damaged: &[(u64, Vec<u8>)]) -> String {
    let bytes: usize = damaged.iter().map(|(_, b)| b.len()).sum();
    match damaged.first() {
        None => String::new(),
        Some((offset, _)) => {
            format!("stored; {bytes} unreadable bytes from offset {offset} are in quarantine\n")
        }
    }
}

/// The value of `filename` in a query, percent-decoded.
fn file_name(query: &str) -> Option<String> {
    let value = query.split('&').find_map(|pair| pair.strip_prefix("filename="))?;
    let decoded = percent_decode(value);
    (!decoded.is_empty()).then_some(decoded)
}

/// Undoes percent-encoding; bytes that are not UTF-8 become a character that no name may have.
fn percent_decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let hex = tail.get(..2).and_then(|h| std::str::from_utf8(h).ok());
        match (byte, hex.and_then(|h| u8::from_str_radix(h, 16).ok())) {
            (b'%', Some(decoded)) => {
                out.push(decoded);
                rest = &tail[2..];
                continue;
            }
            (b'+', _) => out.push(b' '),
            _ => out.push(byte),
        }
        rest = tail;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// One request at a time for a name, so that a repeated one finds what the first has stored.
struct Claim {
    shared: Arc<Shared>,
    name: String,
}

impl Claim {
    async fn take(shared: &Arc<Shared>, name: &str) -> Claim {
        loop {
            let mut freed = std::pin::pin!(shared.name_freed.notified());
            freed.as_mut().enable();
            if shared.recent.lock().claim(name) {
                return Claim { shared: shared.clone(), name: name.to_owned() };
            }
            freed.await;
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.shared.recent.lock().free(&self.name);
        self.shared.name_freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_name_is_found_and_decoded() {
        assert_eq!(file_name("filename=a_b_1.wal"), Some("a_b_1.wal".to_owned()));
        assert_eq!(file_name("x=1&filename=..%2Fa%00"), Some("../a\0".to_owned()));
        assert_eq!(file_name("filename="), None);
        assert_eq!(file_name("name=x"), None);
        assert_eq!(file_name("filename=%zz%"), Some("%zz%".to_owned()));
    }
}
