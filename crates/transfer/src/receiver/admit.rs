//! From a segment image to a section of a request: checks every block, keeps the good ones, puts
//! bad bytes aside; and committing, with the answer that follows from it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use wal::segment::{self, FileName, Gathered};
use wal::{Refusal, Request, Section, Store, TableKey};

use super::Shared;

/// The good part of an image.
pub(super) struct Admitted {
    /// Nothing when no block is left, which is no error: a segment may be empty.
    pub(super) section: Option<Section>,
    /// Unreadable ranges, with their bytes.
    pub(super) damaged: Vec<(u64, Vec<u8>)>,
}

impl Admitted {
    pub(super) fn damaged_bytes(&self) -> u64 {
        self.damaged.iter().map(|(_, bytes)| bytes.len() as u64).sum()
    }
}

/// The table that a file name stands for.
pub(super) fn table_of(name: &FileName) -> TableKey {
    TableKey::new(name.database.as_str(), name.table.as_str(), name.schema.as_deref().unwrap_or_default())
}

/// Checks an image, or blocks that follow one already stored (`from` its length).
pub(super) fn admit(name: &FileName, image: &[u8], from: usize) -> Admitted {
    let headed = name.schema.is_some();
    let Gathered { verified, header, sample_type, body } = segment::gather(image, from, headed);
    let damaged = verified.damaged.iter().map(|(range, _)| (range.start as u64, image[range.clone()].to_vec())).collect();
    let section = (verified.blocks > 0).then(|| Section {
        table: table_of(name),
        header: Arc::from(header),
        sample_type,
        rows: u32::try_from(verified.rows).unwrap_or(u32::MAX),
        body,
    });
    Admitted { section, damaged }
}

/// Writes damaged ranges into the quarantine folder; returns the files' names.
pub(super) async fn quarantine(shared: &Shared, file_name: &str, damaged: Vec<(u64, Vec<u8>)>) -> Vec<String> {
    if damaged.is_empty() {
        return Vec::new();
    }
    let bytes = damaged.iter().map(|(_, b)| b.len() as u64).sum();
    let (store, name) = (shared.store.clone(), file_name.to_owned());
    let written = tokio::task::spawn_blocking(move || write_quarantine(&store, &name, &damaged)).await;
    match written.map_err(io::Error::other).and_then(|r| r) {
        Ok(files) => {
            shared.metrics.quarantined(bytes);
            tracing::warn!(file = file_name, bytes, ?files, "unreadable bytes of a transfer are in quarantine");
            files
        }
        Err(error) => {
            // The good rows must not be lost for it: the loss is said as loudly as possible.
            tracing::error!(file = file_name, bytes, %error, "unreadable bytes of a transfer cannot be kept");
            Vec::new()
        }
    }
}

fn write_quarantine(store: &Store, name: &str, damaged: &[(u64, Vec<u8>)]) -> io::Result<Vec<String>> {
    // Names of tables may be longer than those of files.
    let name = &name[..name.floor_char_boundary(180)];
    let mut files = Vec::with_capacity(damaged.len());
    for (offset, bytes) in damaged {
        let digest = crate::body::image_checksum(bytes);
        let file = format!("transfer-{name}-{offset}-{digest:016x}");
        store.set_aside(&file, bytes)?;
        files.push(file);
    }
    Ok(files)
}

/// Commits and waits until it is durable.
pub(super) async fn commit(shared: &Shared, request: Request) -> Result<u64, Refusal> {
    let (done, committed) = oneshot::channel();
    shared.store.commit(request, Box::new(move |outcome| drop(done.send(outcome))));
    committed.await.unwrap_or(Err(Refusal::Closed))
}

/// How long to wait before a busy store is asked again, or nothing when it was asked often enough.
pub(super) fn busy_pause(tries: u32) -> Option<Duration> {
    (tries < 12).then(|| Duration::from_millis(2 << tries.min(9)))
}
