//! Scraping a real HTTP target.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::http::HeaderMap;
use axum::response::IntoResponse;
use axum::routing::get;
use server::Limits;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::support::Collector;

const SAMPLES: usize = 12_000;

/// A target with a page of [`SAMPLES`] samples, gzipped; `/broken` fails.
async fn target(hits: Arc<AtomicUsize>) -> (String, CancellationToken) {
    let page: String = (0..SAMPLES).map(|i| format!("requests_total{{path=\"/{i}\"}} {i}\n")).collect();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(page.as_bytes()).unwrap();
    let page = gzip.finish().unwrap();
    let metrics = move |headers: HeaderMap| {
        hits.fetch_add(1, Ordering::Relaxed);
        assert!(headers["accept"].to_str().unwrap().starts_with("application/openmetrics-text;version=1.0.0"));
        assert!(headers["user-agent"].to_str().unwrap().starts_with("adx-mon-collector/"));
        assert_eq!(headers["x-prometheus-scrape-timeout-seconds"], "1");
        assert!(!headers.contains_key("authorization"));
        let page = page.clone();
        async move { ([("content-type", "text/plain; version=0.0.4"), ("content-encoding", "gzip")], page).into_response() }
    };
    let open =
        get(|| async { ([("content-type", "application/openmetrics-text; version=1.0.0")], "# TYPE a counter\na_total 1\n# EOF\n") });
    let hang = get(std::future::pending::<()>);
    let router = Router::new().route("/metrics", get(metrics)).route("/open", open).route("/hang", hang);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let stop = CancellationToken::new();
    tokio::spawn(server::serve(listener, router, Limits::default(), None, stop.clone()));
    (url, stop)
}

fn settings(urls: &[String]) -> String {
    let mut text =
        "[prometheus-scrape]\ndatabase = 'Scraped'\nscrape-interval = 1\nscrape-timeout = 5\ndisable-discovery = true\n".to_owned();
    for url in urls {
        text.push_str(&format!(
            "[[prometheus-scrape.static-scrape-target]]\nhost-regex='.*'\nurl='{url}'\nnamespace='ns'\npod='p'\ncontainer='c'\n"
        ));
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_stored_with_up_and_a_slow_target_delays_nobody() {
    let hits = Arc::new(AtomicUsize::new(0));
    let (url, stop) = target(Arc::clone(&hits)).await;
    let urls = [format!("{url}/metrics"), format!("{url}/open"), format!("{url}/hang"), format!("{url}/missing")];
    let collector = Collector::start("", &settings(&urls)).await;
    collector.until("adxmon_collector_scrapes_total{result=\"ok\"}", |n| n >= 4.0).await;
    collector.until("adxmon_collector_scrapes_total{result=\"failed\"}", |n| n >= 2.0).await;
    let (_, page) = collector.get("/debug/store").await;
    let accepted = |table: &str| {
        let line =
            page.lines().find(|l| l.trim_start().starts_with(&format!("Scraped.{table} "))).unwrap_or_else(|| panic!("{table} in\n{page}"));
        line.split_whitespace().find_map(|word| word.parse::<usize>().ok()).unwrap()
    };
    assert!(accepted("RequestsTotal") >= SAMPLES && accepted("RequestsTotal").is_multiple_of(SAMPLES));
    assert!(accepted("ATotal") >= 1);
    // One `up` per finished scrape, of whichever result.
    assert!(accepted("Up") >= 4);
    assert_eq!(accepted("ScrapeDurationSeconds"), accepted("Up"));
    assert_eq!(accepted("ScrapeSamplesScraped"), accepted("Up"));
    collector.stop().await;
    let after = hits.load(Ordering::Relaxed);
    assert!(after >= 2);
    stop.cancel();
}
