//! systemd's journal as a source.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use host_logs::journal::{Batch, JournalError, Reader, reference_position};
use logs::{MESSAGE, Parsers, Record};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{Delivery, Position, now_ns};
use crate::config::JournalSource;

/// Entries of one read.
const MAX_ENTRIES: usize = 1000;

/// How often the files are looked at for new entries.
const PAUSE: Duration = Duration::from_millis(500);

/// Longest pause after errors.
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// A journal that is read, and where its records go.
pub(crate) struct Source {
    name: String,
    reader: Reader,
    parsers: Parsers,
    position: Position,
    delivery: Delivery,
}

impl Source {
    /// Goes on where the store says, or where the reference's cursor in `storage_dir` does.
    pub(crate) fn new(source: &JournalSource, storage_dir: &Path, store: &wal::Store, delivery: Delivery) -> Source {
        let name = format!("{}.{}", source.database, source.table);
        let matches = source.matches.join("\0");
        let dirs: Vec<_> = source.target.dirs.iter().map(|dir| dir.display().to_string()).collect();
        let key = format!("journal/{}/{}/{}/{matches}", source.database, source.table, dirs.join(":"));
        let (position, stored) = Position::load(store, key);
        let start = stored.or_else(|| reference_position(storage_dir, &source.database, &source.table, &source.matches));
        let reader = Reader::new(source.target.clone(), start.as_deref()).unwrap_or_else(|error| {
            tracing::error!(journal = name, %error, "the journal is read from its start");
            Reader::from_start(source.target.clone())
        });
        Source { name, reader, parsers: source.shared.parsers.clone(), position, delivery }
    }

    /// Reads until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut failures: u32 = 0;
        loop {
            let Some(read) = stop.run_until_cancelled(on_thread(move || read(self.reader))).await else { return };
            let (reader, read) = match read {
                Ok(read) => read,
                Err(error) => {
                    tracing::error!(journal = self.name, %error, "reading the journal ended");
                    return;
                }
            };
            self.reader = reader;
            let pause = match read {
                Ok(batch) => {
                    failures = 0;
                    let pause = if batch.more { Duration::ZERO } else { PAUSE };
                    if !deliver(&self.parsers, &self.delivery, &mut self.position, batch, &stop).await {
                        return;
                    }
                    pause
                }
                Err(error) => {
                    failures += 1;
                    self.delivery.failed();
                    if failures == 1 {
                        tracing::warn!(journal = self.name, %error, "the journal cannot be read; it is tried again, and nothing is skipped");
                    }
                    MAX_PAUSE.min(PAUSE * 2u32.saturating_pow(failures.min(10)))
                }
            };
            if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
        }
    }
}

/// Does blocking work on a thread of its own. It is left behind when nobody waits for it any more: a file system that hangs
/// would hold up whoever does, and the runtime waits for its own threads.
async fn on_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> anyhow::Result<T> {
    let (done, result) = oneshot::channel();
    std::thread::Builder::new().name("journal".to_owned()).spawn(move || drop(done.send(work())))?;
    result.await.context("its thread ended")
}

fn read(mut reader: Reader) -> (Reader, Result<Batch, JournalError>) {
    let read = reader.read(MAX_ENTRIES, now_ns());
    (reader, read)
}

/// Whether the batch was stored before `stop`.
async fn deliver(parsers: &Parsers, delivery: &Delivery, position: &mut Position, batch: Batch, stop: &CancellationToken) -> bool {
    (0..batch.unreadable).for_each(|_| delivery.failed());
    delivery.count("unreadable", batch.skipped);
    if batch.entries == 0 {
        return true;
    }
    delivery.truncated(batch.truncated_bytes);
    delivery.problem("cut", batch.truncated);
    delivery.problem("utf8", batch.invalid_utf8);
    let mut records = batch.records;
    if !parsers.is_empty() {
        records.iter_mut().for_each(|record| parse(parsers, record));
    }
    match position.marks(&records, batch.position) {
        Some(marks) => delivery.deliver(records, marks, stop).await,
        None => true,
    }
}

/// Puts the message through the parsers.
pub(super) fn parse(parsers: &Parsers, record: &mut Record) {
    let Some(logs::Value::String(message)) = record.body.remove(MESSAGE) else { return };
    if let Some(severity) = parsers.parse(&message, &mut record.body) {
        record.set_severity(severity);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As on a file system that does not answer. The runtime of the test would not end either if it had the thread.
    #[tokio::test]
    async fn work_that_hangs_is_left_behind() {
        let (answer, hangs) = std::sync::mpsc::channel::<()>();
        let stop = CancellationToken::new();
        let (begun, begins) = oneshot::channel();
        let work = move || {
            begun.send(()).unwrap();
            hangs.recv()
        };
        let waiting = tokio::spawn({
            let stop = stop.clone();
            async move { stop.run_until_cancelled(on_thread(work)).await.is_none() }
        });
        begins.await.unwrap();
        stop.cancel();
        assert!(waiting.await.unwrap());
        std::mem::forget(answer);
    }
}
