//! Logs that the collector fetches itself: files, systemd's journal, the kernel log, events of Kubernetes; and syslog, which is
//! sent to it.
//!
//! A source reads records, and [`Delivery`] makes them rows of the store. What cannot be stored now is kept and tried
//! again, and the source reads no further meanwhile. The position of a source is stored in the frame of the rows before
//! it, so that nothing is read twice or left out after any crash.

mod delivery;
mod events;
mod files;
mod journal;
mod kernel;
mod syslog;

use std::time::{SystemTime, UNIX_EPOCH};

use kube_client::Client;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::pipeline::Pipeline;
use crate::pods::Pods;

pub(crate) use delivery::{Delivery, Position};
pub(crate) use syslog::Servers as SyslogServers;

/// Starts the sources of `config` that read by themselves; they end when `stop` is cancelled.
///
/// # Errors
/// A source that can never be read, such as a kernel log without the right to read it.
pub(crate) fn start(
    pipeline: &Pipeline,
    config: &Config,
    pods: Option<watch::Receiver<Pods>>,
    cluster: Option<&Client>,
    stop: &CancellationToken,
    sources: &mut JoinSet<()>,
) -> anyhow::Result<()> {
    files::start(pipeline, config, pods, stop, sources)?;
    for source in &config.journals {
        let delivery = Delivery::new(pipeline, "journal", &source.shared, config, stop);
        sources.spawn(journal::Source::new(source, &config.storage_dir, &pipeline.store, delivery).run(stop.clone()));
    }
    for source in &config.kernels {
        let delivery = Delivery::new(pipeline, "kernelsource", &source.shared, config, stop);
        sources.spawn(kernel::Source::new(source, &config.storage_dir, &pipeline.store, delivery)?.run(stop.clone()));
    }
    if let (Some(settings), Some(client)) = (&config.events, cluster) {
        let delivery = Delivery::new(pipeline, "kubernetes-events", &settings.shared, config, stop);
        let shift = events::Shift::new(settings, client, &pipeline.store, &pipeline.metrics, delivery, &config.node);
        sources.spawn(shift.run(stop.clone()));
    }
    Ok(())
}

/// Nanoseconds since 1970.
fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::limits::Limits;
    use crate::metrics::Metrics;
    use crate::node_labels::NodeLabeling;

    /// Without exporters and limits.
    pub(super) fn pipeline(store: wal::Store, metrics: Arc<Metrics>, stop: &CancellationToken) -> Pipeline {
        Pipeline {
            store,
            metrics: Arc::clone(&metrics),
            draining: Arc::default(),
            identity: Default::default(),
            body: server::BodyLimits::default(),
            node: NodeLabeling { node: None, stop: stop.clone() },
            exporters: Default::default(),
            limits: Arc::new(Limits::new(metrics)),
        }
    }
}
