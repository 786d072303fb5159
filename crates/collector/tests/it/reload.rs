//! Another configuration while the collector runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::support::{Collector, RECEIVERS, client, one_sample};

const RELOADS_FAILED: &str = "adxmon_collector_config_reloads_total{result=\"failed\"}";
const LAST_SUCCESSFUL: &str = "adxmon_collector_config_last_reload_successful";

#[tokio::test(flavor = "multi_thread")]
async fn routes_and_rules_change() {
    let collector = Collector::start("", RECEIVERS).await;
    assert_eq!(collector.write("dropme", 1.0).await, 202);
    assert_eq!(collector.metric("adxmon_collector_samples_stored_total").await, Some(0.0));
    let tables = "[[prometheus-remote-write]]\ndatabase = 'Other'\npath = '/receive'\n[[otel-metric]]\ndatabase = 'Metrics'\npath = '/m'\n";
    assert_eq!(collector.reload("", tables).await.unwrap(), [""; 0]);
    assert_eq!(collector.write("dropme", 1.0).await, 202);
    assert_eq!(collector.metric("adxmon_ledger_rows{database=\"Other\",state=\"accepted\"}").await, Some(1.0));
    let status = |path: &str| client().post(format!("{}{path}", collector.url)).send();
    assert_eq!(status("/v1/metrics").await.unwrap().status(), 404);
    assert_eq!(status("/m").await.unwrap().status(), 415);
    assert_eq!(collector.metric(LAST_SUCCESSFUL).await, Some(1.0));
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_a_restart_is_named_and_stays() {
    let collector = Collector::start("", RECEIVERS).await;
    let changed = collector.reload("max-connections = 1\nregion = 'elsewhere'", RECEIVERS).await.unwrap();
    assert_eq!(changed, ["region", "max-connections"]);
    // Asked again, the answer is the same: the collector still runs with the old values.
    let changed = collector.reload("max-connections = 1\nregion = 'elsewhere'", RECEIVERS).await.unwrap();
    assert_eq!(changed, ["region", "max-connections"]);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_configuration_changes_nothing() {
    let collector = Collector::start("", RECEIVERS).await;
    let error = collector.reload("no-such-key = 1", "").await.unwrap_err();
    assert!(error.to_string().contains("unknown key no-such-key"), "{error:#}");
    assert_eq!(collector.write("up", 1.0).await, 202);
    assert_eq!((collector.metric(RELOADS_FAILED).await, collector.metric(LAST_SUCCESSFUL).await), (Some(1.0), Some(0.0)));
    collector.reload("", RECEIVERS).await.unwrap();
    assert_eq!(collector.metric(LAST_SUCCESSFUL).await, Some(1.0));
    collector.stop().await;
}

/// A client on one connection sends without a pause while the configuration changes fifty times.
#[tokio::test(flavor = "multi_thread")]
async fn no_request_and_no_connection_is_lost() {
    let collector = Collector::start("", RECEIVERS).await;
    let (sent, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let sender = tokio::spawn({
        let (url, sent, stop) = (format!("{}/receive", collector.url), Arc::clone(&sent), Arc::clone(&stop));
        // One idle connection is kept; a closed one would show as another accepted one.
        let client = client();
        async move {
            while !stop.load(Ordering::Relaxed) {
                assert_eq!(client.post(&url).body(one_sample("up", 1.0)).send().await.unwrap().status(), 202);
                sent.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    for i in 0..50 {
        let before = sent.load(Ordering::Relaxed);
        collector.reload("", &format!("{RECEIVERS}\n[[otel-metric]]\ndatabase = 'M'\npath = '/m{i}'\n")).await.unwrap();
        while sent.load(Ordering::Relaxed) == before {
            tokio::task::yield_now().await;
        }
    }
    stop.store(true, Ordering::Relaxed);
    sender.await.unwrap();
    let stored = collector.metric("adxmon_collector_samples_stored_total").await;
    assert_eq!(stored, Some(sent.load(Ordering::Relaxed) as f64));
    collector.stop().await;
}
