//! The kernel log as a source.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use host_logs::kernel::{self, Reader, SystemClock, reference_position};
use tokio_util::sync::CancellationToken;

use super::{Delivery, Position};
use crate::config::KernelSource;

/// Records of one batch.
const MAX_RECORDS: usize = 1000;

/// Between two tries of a device that cannot be read.
const PAUSE: Duration = Duration::from_secs(10);

/// A kernel log that is read, and where its records go.
pub(crate) struct Source {
    reader: Reader<SystemClock>,
    position: Position,
    delivery: Delivery,
}

impl Source {
    /// Goes on where the store says, or where the reference's cursor in `storage_dir` does.
    ///
    /// # Errors
    /// When the log cannot be opened.
    pub(crate) fn new(source: &KernelSource, storage_dir: &Path, store: &wal::Store, delivery: Delivery) -> anyhow::Result<Source> {
        let (position, stored) = Position::load(store, format!("kernel/{}/{}", source.database, source.table));
        let boot = kernel::boot_id().context("reading which boot this is")?;
        let start = stored.or_else(|| reference_position(storage_dir, &source.database, &source.table, &boot, &SystemClock));
        let reader = Reader::open(source.target.clone(), start.as_deref()).context(
            "opening /dev/kmsg for host-log.kernel-target; the collector needs the device and, where kernel.dmesg_restrict is 1, \
             the capability SYSLOG",
        )?;
        Ok(Source { reader, position, delivery })
    }

    /// Reads until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut failing = false;
        loop {
            let batch = match stop.run_until_cancelled(self.reader.read(MAX_RECORDS)).await {
                None => return,
                Some(Ok(batch)) => batch,
                Some(Err(error)) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::error!(%error, "the kernel log cannot be read; it is tried again, and nothing is skipped");
                    }
                    self.delivery.failed();
                    stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await;
                    continue;
                }
            };
            failing = false;
            if batch.lost > 0 {
                tracing::warn!(records = batch.lost, "the kernel overwrote records before they were read");
            }
            self.delivery.count("overwritten", batch.lost);
            self.delivery.count("parse", batch.invalid);
            let Some(marks) = self.position.marks(&batch.records, batch.position) else { continue };
            if !self.delivery.deliver(batch.records, marks, &stop).await {
                return;
            }
        }
    }
}
