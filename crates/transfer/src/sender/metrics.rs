//! Metrics of a sender.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::machine::{Answer, Release, Settle};

type Labels = [(&'static str, &'static str); 1];

/// Counters and gauges with the prefix `adxmon_transfer_`.
pub(super) struct SenderMetrics {
    requests: Family<Labels, Counter>,
    segments: Family<Labels, Counter>,
    released: Family<Labels, Counter>,
    maybe_duplicate: Counter,
    pending: Gauge,
    in_flight: Gauge,
}

impl SenderMetrics {
    pub(super) fn register(registry: &mut Registry) -> SenderMetrics {
        let made = SenderMetrics {
            requests: Family::default(),
            segments: Family::default(),
            released: Family::default(),
            maybe_duplicate: Counter::default(),
            pending: Gauge::default(),
            in_flight: Gauge::default(),
        };
        let r = registry.sub_registry_with_prefix("adxmon_transfer");
        r.register("requests", "Transfer requests by answer", made.requests.clone());
        r.register("segments_settled", "Segments settled by outcome", made.segments.clone());
        r.register("segments_released", "Segments that are not sent, by reason", made.released.clone());
        r.register("maybe_duplicate_segments", "Segments that another ingestor may have too", made.maybe_duplicate.clone());
        r.register("pending_segments", "Sealed segments that wait", made.pending.clone());
        r.register("in_flight_requests", "Requests that wait for an answer", made.in_flight.clone());
        made
    }

    pub(super) fn answered(&self, answer: &Answer) {
        let name = match answer {
            Answer::Stored { .. } => "stored",
            Answer::Unacceptable { .. } => "unacceptable",
            Answer::DatabaseBusy { .. } => "database_busy",
            Answer::Unavailable { .. } => "unavailable",
            Answer::Misdirected { .. } => "misdirected",
            Answer::Unknown => "unknown",
            Answer::Unreadable { .. } => "unreadable",
        };
        self.requests.get_or_create(&[("answer", name)]).inc();
    }

    pub(super) fn settled(&self, settles: &[Settle]) {
        for settle in settles {
            let outcome = if settle.dead.is_some() { "dead_lettered" } else { "forwarded" };
            self.segments.get_or_create(&[("outcome", outcome)]).inc();
            self.maybe_duplicate.inc_by(u64::from(settle.maybe_duplicate));
        }
    }

    pub(super) fn released(&self, releases: &[Release]) {
        for release in releases {
            self.released.get_or_create(&[("reason", release.reason)]).inc();
        }
    }

    pub(super) fn queue(&self, pending: usize, in_flight: usize) {
        self.pending.set(pending as i64);
        self.in_flight.set(in_flight as i64);
    }
}
