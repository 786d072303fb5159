//! Counters of a receiver, under the names that the reference's dashboards use.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// Label values by name.
type Labels<const N: usize> = [(&'static str, String); N];

/// Counters of `/transfer`.
#[derive(Clone, Debug, Default)]
pub struct ReceiverMetrics {
    requests: Family<Labels<2>, Counter>,
    bytes: Counter,
    dropped_prefixes: Family<Labels<1>, Counter>,
    segments: Family<Labels<1>, Counter>,
    quarantined_bytes: Counter,
}

impl ReceiverMetrics {
    /// Puts the counters into a registry, with the prefix `adxmon_ingestor_`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("adxmon_ingestor");
        registry.register("requests_received", "Transfer requests by path and status", self.requests.clone());
        registry.register("requests_received_bytes", "Bytes of transfer requests on the wire", self.bytes.clone());
        registry.register("dropped_prefixes", "Transfers dropped by their prefix", self.dropped_prefixes.clone());
        registry.register("segments_received", "Segments by what became of them: stored, known, refused", self.segments.clone());
        registry.register("quarantined_bytes", "Unreadable bytes of transfers put aside", self.quarantined_bytes.clone());
    }

    pub(crate) fn request(&self, path: &str, code: u16) {
        let labels = [("path", path.to_owned()), ("code", code.to_string())];
        self.requests.get_or_create(&labels).inc();
    }

    pub(crate) fn wire_bytes(&self, bytes: u64) {
        self.bytes.inc_by(bytes);
    }

    pub(crate) fn dropped(&self, prefix: &str) {
        self.dropped_prefixes.get_or_create(&[("prefix", prefix.to_owned())]).inc();
    }

    pub(crate) fn segments(&self, outcome: &str, count: u64) {
        self.segments.get_or_create(&[("outcome", outcome.to_owned())]).inc_by(count);
    }

    pub(crate) fn quarantined(&self, bytes: u64) {
        self.quarantined_bytes.inc_by(bytes);
    }
}
