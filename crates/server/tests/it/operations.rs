//! Metrics, readiness, health.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use server::Limits;

use crate::support::{Server, client};

async fn server(ready: Arc<AtomicBool>) -> Server {
    let mut registry = Registry::default();
    let counter: Counter = Counter::default();
    counter.inc_by(3);
    registry.register("adxmon_things", "Things", counter);
    let ready = Arc::new(move || if ready.load(Ordering::Relaxed) { Ok(()) } else { Err("store is full".to_owned()) });
    Server::start(server::operations_router(ready, Arc::new(registry)), Limits::default()).await
}

#[tokio::test]
async fn metrics_are_classic_text_unless_open_metrics_is_asked_for() {
    let server = server(Arc::default()).await;
    let classic = client().get(server.url("/metrics")).send().await.unwrap();
    assert_eq!(classic.headers()[CONTENT_TYPE], "text/plain; version=0.0.4; charset=utf-8");
    let expected = "# HELP adxmon_things_total Things.\n# TYPE adxmon_things_total counter\nadxmon_things_total 3\n";
    assert_eq!(classic.text().await.unwrap(), expected);
    let request = client().get(server.url("/metrics")).header(ACCEPT, "application/openmetrics-text; version=1.0.0");
    let open = request.send().await.unwrap();
    assert!(open.headers()[CONTENT_TYPE].to_str().unwrap().starts_with("application/openmetrics-text"));
    assert!(open.text().await.unwrap().ends_with("# EOF\n"));
}

#[tokio::test]
async fn readiness_follows_the_store() {
    let ready = Arc::new(AtomicBool::new(true));
    let server = server(Arc::clone(&ready)).await;
    let get = |path: &'static str| {
        let url = server.url(path);
        async move {
            let response = client().get(url).send().await.unwrap();
            (response.status().as_u16(), response.text().await.unwrap())
        }
    };
    assert_eq!(get("/readyz").await, (200, "ok".to_owned()));
    ready.store(false, Ordering::Relaxed);
    assert_eq!(get("/readyz").await, (503, "not ready: store is full".to_owned()));
    assert_eq!(get("/healthz").await.0, 200);
}
