//! Scrapes of real targets into a sink that remembers.

use std::sync::Mutex;

use axum::Router;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use futures::future::BoxFuture;
use server::{Limits, Marks, Refused};
use telemetry::rules::MetricRules;
use tokio::net::TcpListener;

use super::*;

/// Rows as `Table: row`.
#[derive(Default)]
struct Recorder(Mutex<Vec<String>>);

impl Sink for Recorder {
    fn commit_with_marks(&self, rows: RowSet, _filtered: u64, _marks: Marks) -> BoxFuture<'_, Result<(), Refused>> {
        let mut seen = self.0.lock().unwrap();
        for table in rows.into_tables() {
            let text = String::from_utf8(table.bytes).unwrap();
            seen.extend(text.lines().map(|row| format!("{}: {row}", table.table)));
        }
        Box::pin(std::future::ready(Ok(())))
    }

    fn ready(&self) -> Result<(), String> {
        Ok(())
    }
}

impl Recorder {
    /// The rows of a table.
    fn rows(&self, table: &str) -> Vec<String> {
        let prefix = format!("{table}: ");
        self.0.lock().unwrap().iter().filter_map(|row| row.strip_prefix(&prefix)).map(str::to_owned).collect()
    }

    /// The value of the only row of a table.
    fn value(&self, table: &str) -> f64 {
        let rows = self.rows(table);
        assert_eq!(rows.len(), 1, "{table}: {rows:?}");
        rows[0].rsplit(',').next().unwrap().parse().unwrap()
    }
}

const OPEN_METRICS: (&str, &str) = ("content-type", "application/openmetrics-text; version=1.0.0");

/// A target with a page for each case; answers with its URL.
async fn target() -> (String, CancellationToken) {
    let text = "# HELP a help\na{x=\"1\"} 1\nbad{ 2\nb 3 1000\n";
    let open = "# TYPE c counter\nc_total 4 1.5 # {trace=\"t\"} 1\n# EOF\n";
    let router = Router::new()
        .route("/text", get(move || async move { text }))
        .route("/open", get(move || async move { ([OPEN_METRICS], open) }))
        .route("/cut", get(|| async { ([OPEN_METRICS], "c_total 4\n") }))
        .route("/sick", get(|| async { StatusCode::INTERNAL_SERVER_ERROR.into_response() }))
        .route("/hang", get(std::future::pending::<()>));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let stop = CancellationToken::new();
    tokio::spawn(server::serve(listener, router, Limits::default(), None, stop.clone()));
    (url, stop)
}

/// Scrapes a page once; gives the result and what was stored.
async fn scrape(page: &str, batch_samples: usize) -> (&'static str, Arc<Recorder>) {
    server::install_crypto();
    let (url, stop) = target().await;
    let sink = Arc::new(Recorder::default());
    let settings = ScrapeSettings {
        database: "M".to_owned(),
        interval: Duration::from_secs(1),
        timeout: Duration::from_millis(500),
        rules: crate::config::RuleScope::default(),
        batch_samples,
        discard: false,
        exporters: Vec::new(),
        discovery: false,
        targets: Vec::new(),
    };
    let intake = MetricIntake::new("M", MetricRules::default(), Vec::new());
    let timeout = settings.timeout;
    let scraper = Scraper { settings, intake, sink: Arc::clone(&sink) as Arc<dyn Sink>, metrics: Arc::default() };
    let of = ScrapeTarget { url: format!("{url}{page}"), namespace: "ns".into(), pod: "p".into(), container: "c".into() };
    let result = scraper.scrape_now(&Target::new(of, timeout).unwrap()).await;
    stop.cancel();
    (result, sink)
}

#[tokio::test]
async fn a_page_of_text_is_stored_without_its_bad_lines() {
    for batch_samples in [1, 5000] {
        let (result, stored) = scrape("/text", batch_samples).await;
        assert_eq!(result, "ok");
        assert_eq!((stored.value("A"), stored.value("B"), stored.value("Up")), (1.0, 3.0, 1.0));
        assert_eq!(stored.value("ScrapeSamplesScraped"), 2.0);
        assert!(stored.rows("B")[0].starts_with("1970-01-01T00:00:01Z,"), "an explicit time is kept");
        assert!(stored.rows("Up")[0].contains("\"\"job\"\":\"\"ns/c\"\""), "{:?}", stored.rows("Up"));
        // Samples without a time of their own and the report share the time of the scrape.
        let time = |row: &str| row.split(',').next().unwrap().to_owned();
        assert_eq!(time(&stored.rows("A")[0]), time(&stored.rows("Up")[0]));
    }
}

#[tokio::test]
async fn a_page_of_open_metrics_is_stored() {
    let (result, stored) = scrape("/open", 1).await;
    assert_eq!((result, stored.value("CTotal"), stored.value("Up")), ("ok", 4.0, 1.0));
    assert!(stored.rows("CTotal")[0].starts_with("1970-01-01T00:00:01.5Z,"));
}

#[tokio::test]
async fn a_failed_scrape_is_down_and_stores_nothing_else() {
    for page in ["/cut", "/sick", "/missing", "/hang"] {
        let (result, stored) = scrape(page, 5000).await;
        assert_eq!((result, stored.value("Up"), stored.value("ScrapeSamplesScraped")), ("failed", 0.0, 0.0), "{page}");
        let duration = stored.value("ScrapeDurationSeconds");
        assert_eq!(duration >= 0.5, page == "/hang", "{page} took {duration} s; the timeout is 0.5 s");
        assert_eq!(stored.0.lock().unwrap().len(), 3, "{page}");
    }
}
