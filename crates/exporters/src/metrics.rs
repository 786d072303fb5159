//! What exporters count. `exporter_sent` and `exporter_failed` have the reference's names and labels.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Endpoint {
    exporter: &'static str,
    endpoint: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Named {
    name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NamedReason {
    name: String,
    reason: &'static str,
}

/// The metrics of all exporters of a process.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    sent: Family<Endpoint, Counter>,
    failed: Family<Endpoint, Counter>,
    skipped: Family<Named, Counter>,
    dropped: Family<NamedReason, Counter>,
    retries: Family<Named, Counter>,
    bytes: Family<Named, Gauge>,
    oldest: Family<Named, Gauge>,
}

impl Metrics {
    /// Makes the metrics and registers them.
    pub fn register(registry: &mut Registry) -> Metrics {
        let m = Metrics::default();
        let r = registry.sub_registry_with_prefix("adxmon_collector_exporter");
        r.register("sent", "Samples and log records that the receiver took", m.sent.clone());
        r.register("failed", "Samples and log records that the receiver refused for good", m.failed.clone());
        r.register("skipped", "Samples and log records that cannot be sent, such as logs without a tag", m.skipped.clone());
        r.register("dropped", "Samples and log records given up before the receiver had them", m.dropped.clone());
        r.register("retries", "Tries that are repeated", m.retries.clone());
        r.register("buffer_bytes", "Bytes that wait in the exporter's buffer", m.bytes.clone());
        r.register("buffer_oldest_seconds", "Age of the oldest data in the exporter's buffer", m.oldest.clone());
        m
    }

    /// The metrics of the buffer of the exporter `name`, which are there from now on.
    pub(crate) fn of_buffer(&self, name: &str) -> BufferCounts {
        let named = Named { name: name.to_owned() };
        BufferCounts {
            bytes: self.bytes.get_or_create_owned(&named),
            oldest: self.oldest.get_or_create_owned(&named),
            dropped: Drop::ALL.map(|why| self.dropped.get_or_create_owned(&NamedReason { name: name.to_owned(), reason: why.reason() })),
        }
    }

    /// The metrics of the exporter `name`, of a `kind` as the reference calls it.
    pub(crate) fn of_exporter(&self, name: &str, kind: &'static str, endpoint: &str) -> Counts {
        let (at, named) = (Endpoint { exporter: kind, endpoint: endpoint.to_owned() }, Named { name: name.to_owned() });
        Counts {
            sent: self.sent.get_or_create_owned(&at),
            failed: self.failed.get_or_create_owned(&at),
            skipped: self.skipped.get_or_create_owned(&named),
            retries: self.retries.get_or_create_owned(&named),
        }
    }
}

/// Why data was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drop {
    /// The buffer is at its size.
    Full,
    /// It is older than it may become.
    Old,
    /// The buffer could not store it.
    NotStored,
    /// The buffer could not read it back.
    Unreadable,
}

impl Drop {
    const ALL: [Drop; 4] = [Drop::Full, Drop::Old, Drop::NotStored, Drop::Unreadable];

    pub(crate) fn reason(self) -> &'static str {
        match self {
            Drop::Full => "full",
            Drop::Old => "old",
            Drop::NotStored => "not_stored",
            Drop::Unreadable => "unreadable",
        }
    }
}

/// The counters of one exporter.
#[derive(Clone, Debug)]
pub(crate) struct Counts {
    pub(crate) sent: Counter,
    pub(crate) failed: Counter,
    pub(crate) skipped: Counter,
    pub(crate) retries: Counter,
}

/// The metrics of one buffer.
#[derive(Clone, Debug)]
pub(crate) struct BufferCounts {
    pub(crate) bytes: Gauge,
    pub(crate) oldest: Gauge,
    dropped: [Counter; 4],
}

impl BufferCounts {
    pub(crate) fn dropped(&self, why: Drop, rows: u64) {
        self.dropped[why as usize].inc_by(rows);
    }
}
