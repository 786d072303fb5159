//! What an operator's tools ask of a process: metrics, readiness, health; and the clock of the
//! store.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, any, get};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::registry::Registry;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::Connections;
use crate::exposition::{CLASSIC, OPEN_METRICS, classic, wants_open_metrics};

/// `/metrics`, `/readyz` (200 `ok`, or 503 `not ready` with the reason) and `/healthz`.
pub fn operations_router(ready: Arc<dyn Fn() -> Result<(), String> + Send + Sync>, registry: Arc<Registry>) -> Router {
    let readyz = move || async move {
        match ready() {
            Ok(()) => (StatusCode::OK, "ok".to_owned()),
            Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}")),
        }
    };
    Router::new().route("/metrics", metrics_endpoint(registry)).route("/readyz", any(readyz)).route("/healthz", get(|| async { "ok" }))
}

/// The metrics of `registry`: classic Prometheus text, or OpenMetrics for clients that ask for it.
pub fn metrics_endpoint(registry: Arc<Registry>) -> MethodRouter {
    get(move |headers: HeaderMap| async move { exposition(&registry, &headers) })
}

fn exposition(registry: &Registry, headers: &HeaderMap) -> Response {
    let mut text = String::new();
    if let Err(error) = prometheus_client::encoding::text::encode(&mut text, registry) {
        return (StatusCode::INTERNAL_SERVER_ERROR, format!("cannot encode metrics: {error}\n")).into_response();
    }
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let (content_type, text) = if wants_open_metrics(accept) { (OPEN_METRICS, text) } else { (CLASSIC, classic(&text)) };
    ([(header::CONTENT_TYPE, HeaderValue::from_static(content_type))], text).into_response()
}

/// Counts of listeners that a registry reads when it is asked.
#[derive(Debug)]
pub struct ListenerMetrics(pub Vec<Arc<Connections>>);

impl Collector for ListenerMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let sum = |count: fn(&Connections) -> u64| self.0.iter().map(|connections| count(connections)).sum::<u64>();
        for (name, help, count) in [
            ("adxmon_listener_failed_handshakes", "TLS handshakes that failed.", sum(Connections::handshakes_failed)),
            ("adxmon_listener_overdue_connections", "Connections closed because their time was over.", sum(Connections::overdue)),
        ] {
            ConstCounter::new(count).encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        }
        Ok(())
    }
}

/// How often a store looks at its ages.
const TICK: Duration = Duration::from_millis(250);

/// How often the system's clock was put forward or back while a store was open; clones share the counts.
#[derive(Clone, Debug, Default)]
pub struct ClockJumps {
    forward: Counter,
    back: Counter,
}

impl Collector for ClockJumps {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Times that the system's clock was put by more than five seconds while a store was open.";
        let mut metric = encoder.encode_descriptor("adxmon_clock_jumps", help, None, MetricType::Counter)?;
        for (direction, count) in [("forward", &self.forward), ("back", &self.back)] {
            count.encode(metric.encode_family(&[("direction", direction)])?)?;
        }
        Ok(())
    }
}

/// Calls [`wal::Store::tick`] until `shutdown`, and counts in `jumps` how often the clock was put. A tick only wakes the
/// store's own thread.
pub fn run_store_ticks(store: wal::Store, jumps: ClockJumps, shutdown: CancellationToken) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut interval = tokio::time::interval(TICK);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut time = StoreTime { last_ms: now_ms(), at: Instant::now(), behind_ms: 0, jumps };
        while shutdown.run_until_cancelled(interval.tick()).await.is_some() {
            store.tick(time.at(now_ms(), Instant::now()));
        }
    })
}

/// A difference between the system's clock and a store's that is worth a word.
const JUMP_MS: u64 = 5_000;

/// The system's clock, but for that a store's time goes on when that is put back: else nothing would come of age before the
/// clock is there again where it was.
struct StoreTime {
    last_ms: u64,
    at: Instant,
    /// By how much the system's clock is behind.
    behind_ms: u64,
    jumps: ClockJumps,
}

impl StoreTime {
    fn at(&mut self, clock_ms: u64, now: Instant) -> u64 {
        let passed = u64::try_from(now.saturating_duration_since(self.at).as_millis()).unwrap_or(u64::MAX);
        let expected = self.last_ms.saturating_add(passed);
        if clock_ms > expected.saturating_add(JUMP_MS) {
            tracing::warn!(milliseconds = clock_ms - expected, "the system's clock was put forward; what waits for its age goes early");
            self.jumps.forward.inc();
        }
        // Told once: afterwards the two go on side by side.
        if clock_ms.saturating_add(JUMP_MS) < expected && self.behind_ms < JUMP_MS {
            tracing::warn!(milliseconds = expected - clock_ms, "the system's clock was put back; ages are counted on");
            self.jumps.back.inc();
        }
        self.behind_ms = expected.saturating_sub(clock_ms);
        (self.last_ms, self.at) = (clock_ms.max(expected), now);
        self.last_ms
    }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_store_follows_the_clock_and_goes_on_when_that_is_put_back() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let jumps = ClockJumps::default();
        let mut time = StoreTime { last_ms: 1_000_000, at: start, behind_ms: 0, jumps: jumps.clone() };
        let counted = || (jumps.forward.get(), jumps.back.get());
        assert_eq!(time.at(1_001_000, start + second), 1_001_000);
        // An hour back: seconds pass as before.
        assert_eq!(time.at(2_000, start + 2 * second), 1_002_000);
        assert_eq!(time.at(3_000, start + 4 * second), 1_004_000);
        // Once, however long it stays there.
        assert_eq!(counted(), (0, 1));
        // Put right: no second is counted twice.
        assert_eq!(time.at(1_005_000, start + 5 * second), 1_005_000);
        assert_eq!(counted(), (0, 1));
        // An hour forward, as after a start without a clock.
        assert_eq!(time.at(4_606_000, start + 6 * second), 4_606_000);
        assert_eq!(time.at(1_007_000, start + 7 * second), 4_607_000);
        assert_eq!(counted(), (1, 2));
        let mut registry = Registry::default();
        registry.register_collector(Box::new(jumps));
        let mut page = String::new();
        prometheus_client::encoding::text::encode(&mut page, &registry).unwrap();
        for line in ["adxmon_clock_jumps_total{direction=\"forward\"} 1\n", "adxmon_clock_jumps_total{direction=\"back\"} 2\n"] {
            assert!(page.contains(line), "{page}");
        }
    }
}
