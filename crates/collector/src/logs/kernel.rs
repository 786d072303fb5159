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
        let (position, stored) = position(source, store);
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

/// The position of a target, and what was stored of it.
fn position(source: &KernelSource, store: &wal::Store) -> (Position, Option<Vec<u8>>) {
    Position::load(store, format!("kernel/{}/{}", source.database, source.table))
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixDatagram;

    use prometheus_client::registry::Registry;

    use super::*;
    use crate::config::Config;
    use crate::logs::tests::pipeline;
    use crate::metrics::Metrics;

    const SETTINGS: &str = "
listen-addr = '127.0.0.1:0'
storage-dir = '/nowhere'
[[host-log]]
disable-kube-discovery = true
[[host-log.kernel-target]]
database = 'Logs'
table = 'Kernel'
";

    /// Of several targets each goes on where it was itself: in the reference the cursor of the last one alone moves.
    #[tokio::test(flavor = "multi_thread")]
    async fn every_target_has_a_position_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let more = "[[host-log.kernel-target]]\ndatabase = 'Logs'\ntable = 'Errors'\npriority = 'err'\n";
        let (config, _) = Config::from_toml(&format!("{SETTINGS}{more}"), "node-1").unwrap();
        let metrics = Metrics::register(&mut Registry::default(), "", false);
        let (store, _) = wal::Store::open(wal::Options::new(dir.path()), wal::RealDisk::new(), 0).unwrap();
        let stop = CancellationToken::new();
        let pipeline = pipeline(store, metrics, &stop);
        let mut running = Vec::new();
        for (settings, records) in config.kernels.iter().zip([&["3,1,100,-;a", "3,2,200,-;b"][..], &["3,1,100,-;a"]]) {
            let (kernel, device) = UnixDatagram::pair().unwrap();
            device.set_nonblocking(true).unwrap();
            records.iter().for_each(|record| assert!(kernel.send(record.as_bytes()).is_ok()));
            let source = Source {
                reader: Reader::new(device.into(), settings.target.clone(), SystemClock, "boot", None),
                position: position(settings, &pipeline.store).0,
                delivery: Delivery::new(&pipeline, "kernelsource", &settings.shared, &config, &stop),
            };
            running.push((kernel, tokio::spawn(source.run(stop.clone()))));
        }
        // What a reader at each position has still to read of three records.
        let left = || {
            let left = config.kernels.iter().map(|settings| {
                let (kernel, device) = UnixDatagram::pair().unwrap();
                device.set_nonblocking(true).unwrap();
                ["3,1,100,-;a", "3,2,200,-;b", "3,3,300,-;c"].iter().for_each(|record| assert!(kernel.send(record.as_bytes()).is_ok()));
                let stored = position(settings, &pipeline.store).1;
                (kernel, Reader::new(device.into(), settings.target.clone(), SystemClock, "boot", stored.as_deref()))
            });
            left.collect::<Vec<_>>()
        };
        let all = async {
            loop {
                let mut counts = Vec::new();
                for (_kernel, mut reader) in left() {
                    counts.push(reader.read(MAX_RECORDS).await.unwrap().records.len());
                }
                if counts == [1, 2] {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(30), all).await.is_ok(), "the positions do not come to 2 and 1");
        stop.cancel();
        for (_kernel, task) in running {
            task.await.unwrap();
        }
        tokio::task::spawn_blocking(move || pipeline.store.close()).await.unwrap();
    }

    /// Records 2 to 4 were overwritten, one is no record; and a device that cannot be read.
    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_lost_or_cannot_be_read_is_in_the_metrics() {
        let dir = tempfile::tempdir().unwrap();
        let (config, _) = Config::from_toml(SETTINGS, "node-1").unwrap();
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry, "", false);
        let (store, _) = wal::Store::open(wal::Options::new(dir.path()), wal::RealDisk::new(), 0).unwrap();
        let stop = CancellationToken::new();
        let pipeline = pipeline(store, metrics, &stop);
        let settings = &config.kernels[0];
        let source = |device: OwnedFd| Source {
            reader: Reader::new(device, settings.target.clone(), SystemClock, "boot", None),
            position: Position::load(&pipeline.store, "k".to_owned()).0,
            delivery: Delivery::new(&pipeline, "kernelsource", &settings.shared, &config, &stop),
        };
        // One record for each read, as the device has it.
        let (kernel, device) = UnixDatagram::pair().unwrap();
        device.set_nonblocking(true).unwrap();
        for record in ["6,1,100,-;first", "no record", "6,5,200,-;fifth"] {
            kernel.send(record.as_bytes()).unwrap();
        }
        let running = tokio::spawn(source(device.into()).run(stop.clone()));
        let until = async |lines: &[&str]| {
            let mut page = String::new();
            let all = async {
                while !lines.iter().all(|line| page.lines().any(|found| found == *line)) {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    page.clear();
                    prometheus_client::encoding::text::encode(&mut page, &registry).unwrap();
                }
            };
            assert!(tokio::time::timeout(Duration::from_secs(30), all).await.is_ok(), "{lines:?} do not come");
        };
        until(&[
            "adxmon_collector_logs_sent{source=\"kernelsource\",sink=\"StoreSink\"} 2",
            "adxmon_collector_logs_dropped{source=\"kernelsource\",stage=\"overwritten\"} 3",
            "adxmon_collector_logs_dropped{source=\"kernelsource\",stage=\"parse\"} 1",
        ])
        .await;
        let failing = tokio::spawn(source(std::fs::File::open(dir.path()).unwrap().into()).run(stop.clone()));
        until(&["adxmon_collector_log_source_failures_total{source=\"kernelsource\"} 1"]).await;
        stop.cancel();
        running.await.unwrap();
        failing.await.unwrap();
        tokio::task::spawn_blocking(move || pipeline.store.close()).await.unwrap();
    }
}
