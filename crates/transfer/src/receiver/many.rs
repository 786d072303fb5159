//! Our contract: many segments in a body ([`crate::body`]), known by number and digest.

use std::sync::Arc;

use axum::body::Body;
use http::HeaderMap;
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;
use wal::segment::FileName;
use wal::{Known, Receipt, Refusal, Request, Section};
use xxhash_rust::xxh3::Xxh3;

use super::admit;
use super::arriving::Claim;
use super::intake::{Intake, PIECE, blocking};
use super::reader::Reader;
use super::{Answer, Shared};
use crate::body::{Directory, Entry, PREAMBLE, Preamble, image_checksum};

/// The body of our 202.
#[derive(Debug, Default, Serialize)]
struct Report {
    /// Refused for ever: the sender keeps them as dead letters.
    refused: Vec<Refused>,
    /// Stored before, under the same number and digest.
    known: usize,
    /// Bytes that could not be read, by file.
    quarantined: Vec<Quarantined>,
}

#[derive(Debug, Serialize)]
struct Refused {
    index: usize,
    file: String,
    reason: String,
}

#[derive(Debug, Serialize)]
struct Quarantined {
    file: String,
    bytes: u64,
    kept_as: Vec<String>,
}

/// A segment of the body that is to be stored.
struct Part {
    index: usize,
    entry: Entry,
    name: FileName,
    section: Option<Section>,
}

pub(super) async fn receive(shared: &Arc<Shared>, headers: &HeaderMap, body: Body) -> Answer {
    // The directory comes on top of the images.
    let limit = shared.options.max_body_bytes + (8 << 20);
    let mut reader = match Reader::new(headers, body, limit) {
        Ok(reader) => reader,
        Err(error) => return Answer::from_read(error),
    };
    let answer = receive_from(shared, headers, &mut reader).await;
    if answer.is_err() {
        let rest = tokio::time::timeout(super::DRAIN_TIME, reader.drain());
        let _ = rest.await;
    }
    shared.metrics.wire_bytes(reader.wire_bytes);
    answer.unwrap_or_else(|answer| answer)
}

async fn receive_from(shared: &Arc<Shared>, headers: &HeaderMap, reader: &mut Reader) -> Result<Answer, Answer> {
    let (directory, _directory_memory) = read_directory(shared, reader).await?;
    let claim = Claim::take(shared, &directory);
    match receive_segments(shared, headers, directory, reader).await {
        Err(why_not) => Err(claim.answer(why_not)),
        stored => stored,
    }
}

async fn receive_segments(shared: &Arc<Shared>, headers: &HeaderMap, directory: Directory, reader: &mut Reader) -> Result<Answer, Answer> {
    (shared.ready)().map_err(Answer::Busy)?;
    let total = directory.images_len();
    let alone = directory.entries.len() == 1;
    if total > shared.options.max_body_bytes || total > shared.options.max_frame_bytes && !alone {
        return Err(Answer::TooLarge(if alone { shared.options.max_body_bytes } else { shared.options.max_frame_bytes }));
    }
    // The images, and the good blocks taken out of them.
    let _memory = reserve(shared, 2 * total.min(shared.options.max_frame_bytes)).await?;
    if total > shared.options.max_frame_bytes {
        return receive_large(shared, headers, directory, reader).await;
    }
    let mut report = Report::default();
    let mut parts = Vec::with_capacity(directory.entries.len());
    for (index, entry) in directory.entries.into_iter().enumerate() {
        let image = reader.up_to(entry.length).await.map_err(Answer::from_read)?;
        if image.len() as u64 != entry.length {
            return Err(Answer::Busy("the body ends before its last segment".to_owned()));
        }
        let known = is_known(shared, &directory.sender, &entry);
        if known {
            report.known += 1;
        } else if let Some(part) = check(shared, index, entry, image, &mut report).await? {
            parts.push(part);
        }
    }
    if parts.is_empty() && report.refused.is_empty() && report.known > 0 {
        shared.metrics.segments("known", report.known as u64);
        return Ok(Answer::AlreadyStored);
    }
    let _peer = shared.note_peer(headers, true, parts.iter().map(|part| &part.name));
    store(shared, directory.sender, parts, report).await
}

/// The directory, with the claim on memory for it.
async fn read_directory(shared: &Shared, reader: &mut Reader) -> Result<(Directory, OwnedSemaphorePermit), Answer> {
    let unacceptable = |e: crate::body::BodyError| Answer::Unacceptable(e.to_string());
    let short = || Answer::Busy("the body ends inside its directory".to_owned());
    let preamble = reader.array::<PREAMBLE>().await.map_err(Answer::from_read)?.ok_or_else(short)?;
    let preamble = Preamble::decode(&preamble).map_err(unacceptable)?;
    let wanted = preamble.directory_len;
    // As it came, taken apart, and claimed. Without it nobody can look what of it is stored.
    let memory = reserve(shared, 4 * wanted as u64).await.map_err(|_| Answer::Unknown("too many transfers at a time".to_owned()))?;
    let bytes = reader.up_to(wanted as u64).await.map_err(Answer::from_read)?;
    if bytes.len() != wanted {
        return Err(short());
    }
    match Directory::decode(&preamble, &bytes) {
        Ok(directory) if directory.entries.is_empty() => Err(Answer::Unacceptable("the body names no segment".to_owned())),
        other => other.map(|directory| (directory, memory)).map_err(|e| match e {
            // The sender wrote it with a right checksum: it was damaged on the way.
            crate::body::BodyError::Damaged(why) => Answer::Busy(why.to_owned()),
            e => unacceptable(e),
        }),
    }
}

pub(super) fn is_known(shared: &Shared, sender: &[u8; 16], entry: &Entry) -> bool {
    FileName::parse(&entry.file_name)
        .is_ok_and(|name| shared.store.known(sender, &name.database, entry.number, entry.digest) == Known::Same)
}

/// Checks one segment. Nothing: it is refused for ever, or dropped, and the report says so.
async fn check(shared: &Arc<Shared>, index: usize, entry: Entry, image: Vec<u8>, report: &mut Report) -> Result<Option<Part>, Answer> {
    if let Some(prefix) = shared.drop_prefix(&entry.file_name) {
        shared.metrics.dropped(prefix);
        return Ok(None);
    }
    let mut refuse = |entry: &Entry, reason: &str| {
        shared.metrics.segments("refused", 1);
        let (file, reason) = (entry.file_name.clone(), reason.to_owned());
        report.refused.push(Refused { index, file, reason });
    };
    let name = match shared.check_name(&entry.file_name) {
        Ok(name) => name,
        Err(why) => {
            refuse(&entry, why);
            return Ok(None);
        }
    };
    shared.check_room(&name)?;
    let (checksum, for_work) = (entry.checksum, name.clone());
    let admitted = blocking(move || (image_checksum(&image) == checksum).then(|| admit::admit(&for_work, &image, 0)));
    let Some(admitted) = admitted.await? else {
        return Err(Answer::Busy("a segment was damaged on the way".to_owned()));
    };
    if admitted.section.is_none() && !admitted.damaged.is_empty() {
        refuse(&entry, "no block of it can be read");
        return Ok(None);
    }
    let bytes = admitted.damaged_bytes();
    if bytes > 0 {
        let kept_as = admit::quarantine(shared, &entry.file_name, admitted.damaged).await;
        report.quarantined.push(Quarantined { file: entry.file_name.clone(), bytes, kept_as });
    }
    Ok(Some(Part { index, entry, name, section: admitted.section }))
}

async fn store(shared: &Arc<Shared>, sender: [u8; 16], mut parts: Vec<Part>, mut report: Report) -> Result<Answer, Answer> {
    let mut tries = 0;
    while !parts.is_empty() {
        match admit::commit(shared, request(sender, &parts)).await {
            Ok(_) => {
                shared.metrics.segments("stored", parts.len() as u64);
                break;
            }
            Err(Refusal::TooManyTables { .. }) => {
                refuse_new_tables(shared, sender, parts, &mut report).await?;
                break;
            }
            Err(Refusal::Busy) => match admit::busy_pause(tries) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Err(Answer::from_refusal(&Refusal::Busy)),
            },
            Err(refusal) => return Err(Answer::from_refusal(&refusal)),
        }
        tries += 1;
        // Another request may have stored some of them meanwhile.
        let before = parts.len();
        parts.retain(|part| !is_known(shared, &sender, &part.entry));
        report.known += before - parts.len();
    }
    Ok(Answer::Stored(serde_json::to_string(&report).unwrap_or_default()))
}

/// One table too many must not hold up the others: each segment alone, and those that would make a
/// table are refused.
async fn refuse_new_tables(shared: &Arc<Shared>, sender: [u8; 16], parts: Vec<Part>, report: &mut Report) -> Result<(), Answer> {
    for part in parts {
        let one = std::slice::from_ref(&part);
        match admit::commit(shared, request(sender, one)).await {
            Ok(_) => shared.metrics.segments("stored", 1),
            Err(refusal @ Refusal::TooManyTables { .. }) => {
                shared.metrics.segments("refused", 1);
                let (index, file) = (part.index, part.entry.file_name);
                report.refused.push(Refused { index, file, reason: refusal.to_string() });
            }
            Err(refusal) => return Err(Answer::from_refusal(&refusal)),
        }
    }
    Ok(())
}

fn request(sender: [u8; 16], parts: &[Part]) -> Request {
    Request {
        sections: parts.iter().filter_map(|part| part.section.clone()).collect(),
        receipts: parts.iter().map(|part| receipt(sender, &part.name, &part.entry)).collect(),
        ..Request::default()
    }
}

fn receipt(sender: [u8; 16], name: &FileName, entry: &Entry) -> Receipt {
    Receipt { sender, database: name.database.as_str().into(), number: entry.number, digest: entry.digest, floor: entry.floor }
}

/// One segment that is too large for a frame.
async fn receive_large(shared: &Arc<Shared>, headers: &HeaderMap, directory: Directory, reader: &mut Reader) -> Result<Answer, Answer> {
    let sender = directory.sender;
    let Some(entry) = directory.entries.into_iter().next() else {
        return Err(Answer::Unacceptable("the body names no segment".to_owned()));
    };
    if is_known(shared, &sender, &entry) {
        reader.drain().await.map_err(Answer::from_read)?;
        return Ok(Answer::AlreadyStored);
    }
    let name = match shared.check_name(&entry.file_name) {
        Ok(name) => name,
        Err(why) => return Err(Answer::Unacceptable(why.to_owned())),
    };
    shared.check_room(&name)?;
    let _peer = shared.note_peer(headers, true, [&name]);
    let mut intake = Intake::begin(shared, &name, 0)?;
    let mut whole = Xxh3::new();
    let mut left = entry.length;
    while left > 0 {
        let piece = reader.up_to(left.min(PIECE)).await.map_err(Answer::from_read)?;
        if piece.is_empty() {
            return Err(Answer::Busy("the body ends before its segment".to_owned()));
        }
        whole.update(&piece);
        left -= piece.len() as u64;
        intake = intake.push(piece, left == 0).await?;
    }
    if whole.digest() != entry.checksum {
        return Err(Answer::Busy("the segment was damaged on the way".to_owned()));
    }
    let mut report = Report::default();
    let damaged = std::mem::take(&mut intake.damaged);
    if !damaged.is_empty() {
        let bytes = damaged.iter().map(|(_, b)| b.len() as u64).sum();
        let kept_as = admit::quarantine(shared, &entry.file_name, damaged).await;
        report.quarantined.push(Quarantined { file: entry.file_name.clone(), bytes, kept_as });
    }
    intake.finish(vec![receipt(sender, &name, &entry)], Vec::new()).await.map_err(|answer| match answer {
        // No waiting makes room for one more table.
        Answer::TableRefused(_, why) => Answer::Unacceptable(why),
        other => other,
    })?;
    shared.metrics.segments("stored", 1);
    Ok(Answer::Stored(serde_json::to_string(&report).unwrap_or_default()))
}

/// Waits for memory for a body; answers busy when none comes free for a while.
pub(super) async fn reserve(shared: &Shared, bytes: u64) -> Result<OwnedSemaphorePermit, Answer> {
    // A request holds two claims at most, which must fit beside each other.
    let most = shared.options.max_buffered_bytes / 2048;
    let wanted = (bytes / 1024 + 1).min(most).max(1) as u32;
    let permit = shared.buffers.clone().acquire_many_owned(wanted);
    match tokio::time::timeout(std::time::Duration::from_secs(10), permit).await {
        Ok(Ok(permit)) => Ok(permit),
        _ => Err(Answer::Busy("too many transfers at a time".to_owned())),
    }
}
