//! Scrapes of real HTTP servers into a sink that remembers, and targets against the vectors.

mod credentials;
mod document;
mod following;
mod target_vectors;

use std::sync::Mutex;
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect};
use axum::routing::get;
use futures::future::BoxFuture;
use server::{Limits, Marks, Refused};
use telemetry::RowSet;
use telemetry::export::{ExportSample, ExportSeries};
use telemetry::rules::{MetricRules, MetricRulesConfig};
use tokio::net::TcpListener;

use super::board::Health;
use super::*;
use crate::config::TlsMode;

/// Rows as `Table: row`, and what exporters are told as `name{label=value}=value`.
#[derive(Default)]
struct Recorder {
    rows: Mutex<Vec<String>>,
    told: Mutex<Vec<String>>,
    refuses: std::sync::atomic::AtomicBool,
    /// So many commits are refused for now.
    refusals: std::sync::atomic::AtomicUsize,
}

impl Sink for Recorder {
    fn commit_with_marks(&self, mut rows: RowSet, _filtered: u64, _marks: Marks) -> BoxFuture<'_, Result<(), Refused>> {
        let left = self.refusals.load(std::sync::atomic::Ordering::SeqCst);
        if left > 0 {
            self.refusals.store(left - 1, std::sync::atomic::Ordering::SeqCst);
            let refused = Refused::Overloaded { retry_after: Duration::from_millis(1), reason: "the disk is full".to_owned() };
            return Box::pin(std::future::ready(Err(refused)));
        }
        let mut told = self.told.lock().unwrap();
        for line in rows.take_exports().iter().flat_map(|export| export.bytes.split_inclusive(|byte| *byte == b'\n')) {
            let sample = ExportSample::read(line).unwrap();
            let series = ExportSeries::read(sample.series).unwrap();
            let labels: Vec<_> = series.labels.iter().filter(|(n, _)| n == "x").map(|(n, v)| format!("{n}={v}")).collect();
            let value = if telemetry::is_stale(sample.value.unwrap()) { "stale".to_owned() } else { sample.value.unwrap().to_string() };
            told.push(format!("{}{{{}}}={value}", series.metric, labels.join(",")));
        }
        let mut seen = self.rows.lock().unwrap();
        for table in rows.by_table() {
            let text = String::from_utf8(table.bytes).unwrap();
            seen.extend(text.lines().map(|row| format!("{}: {row}", table.table)));
        }
        Box::pin(std::future::ready(Ok(())))
    }

    fn ready(&self) -> Result<(), String> {
        if self.refuses.load(std::sync::atomic::Ordering::SeqCst) { Err("the disk is full".to_owned()) } else { Ok(()) }
    }
}

impl Recorder {
    /// The rows of a table.
    fn rows(&self, table: &str) -> Vec<String> {
        let prefix = format!("{table}: ");
        self.rows.lock().unwrap().iter().filter_map(|row| row.strip_prefix(&prefix)).map(str::to_owned).collect()
    }

    /// The value of the only row of a table.
    fn value(&self, table: &str) -> f64 {
        let rows = self.rows(table);
        assert_eq!(rows.len(), 1, "{table}: {rows:?}");
        rows[0].rsplit(',').next().unwrap().parse().unwrap()
    }

    /// What exporters were told since the last call, without durations.
    fn told(&self) -> Vec<String> {
        let told = std::mem::take(&mut *self.told.lock().unwrap());
        told.into_iter().filter(|line| !line.starts_with("scrape_duration_seconds{}=0")).collect()
    }
}

const OPEN_METRICS: (&str, &str) = ("content-type", "application/openmetrics-text; version=1.0.0");
const PROTOBUF: (&str, &str) =
    ("content-type", "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited");

async fn serve(router: Router) -> (String, CancellationToken) {
    server::install_crypto();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let stop = CancellationToken::new();
    tokio::spawn(server::serve(listener, router, Limits::default(), None, stop.clone()));
    (url, stop)
}

/// A target with a page for each case; answers with its URL.
async fn pages() -> (String, CancellationToken) {
    let text = "# HELP a help\na{x=\"1\"} 1\nbad{ 2\nb 3 1000\n";
    let open = "# TYPE c counter\nc_total 4 1.5 # {trace=\"t\"} 1\n# EOF\n";
    // MetricFamily{name: "g", type: GAUGE, metric: {gauge: {value: 5}}}
    let families = [&[18, 0x0a, 1, b'g', 0x18, 1, 0x22, 11, 0x12, 9, 0x09][..], &5f64.to_le_bytes()].concat();
    let protobuf = move |headers: HeaderMap| {
        let accept = headers["accept"].to_str().unwrap().to_owned();
        assert!(
            accept.starts_with("application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;"),
            "{accept}"
        );
        std::future::ready(([PROTOBUF], families.clone()))
    };
    serve(
        Router::new()
            .route("/text", get(move || async move { text }))
            .route("/open", get(move || async move { ([OPEN_METRICS], open) }))
            .route("/protobuf", get(protobuf))
            .route("/cut", get(|| async { ([OPEN_METRICS], "c_total 4\n") }))
            .route("/cut-protobuf", get(|| async { ([PROTOBUF], vec![40u8, 0x0a]) }))
            .route("/sick", get(|| async { StatusCode::INTERNAL_SERVER_ERROR.into_response() }))
            .route("/locked", get(|| async { StatusCode::UNAUTHORIZED.into_response() }))
            .route("/moved", get(|| async { Redirect::temporary("/text") }))
            .route("/circle", get(|| async { Redirect::temporary("/circle") }))
            .route("/large", get(|| async { "a 1\n".repeat(100_000) }))
            .route("/many", get(|| async { "# TYPE a gauge\na 1\n\n".repeat(11) }))
            .route("/hang", get(std::future::pending::<()>)),
    )
    .await
}

fn settings() -> ScrapeSettings {
    ScrapeSettings {
        database: "M".to_owned(),
        interval: Duration::from_secs(1),
        timeout: Duration::from_millis(500),
        rules: crate::config::RuleScope::default(),
        batch_samples: 5000,
        discard: false,
        exporters: Vec::new(),
        node_labels: crate::config::file::NodeLabels::default(),
        discovery: false,
        services: false,
        protobuf: true,
        max_page_bytes: 200_000,
        max_samples: 10,
        honor_labels: false,
        store_stale_markers: false,
        targets: Vec::new(),
    }
}

fn static_target(url: String) -> ScrapeTarget {
    ScrapeTarget { url, namespace: "ns".into(), pod: "p".into(), container: "c".into(), interval: None, token: false, tls: TlsMode::Plain }
}

fn scraper(settings: ScrapeSettings, sink: &Arc<Recorder>, tapped: bool) -> Scraper {
    let config = MetricRulesConfig { drop_metrics: vec!["^dropped".to_owned(), "^up$".to_owned()], ..MetricRulesConfig::default() };
    let mut intake = MetricIntake::new("M", MetricRules::compile(&config).unwrap(), Vec::new());
    if tapped {
        intake = intake.tap(MetricRules::default());
    }
    Scraper::new(settings, "n1".to_owned(), intake, Arc::clone(sink) as Arc<dyn Sink>, Arc::default())
}

/// Scrapes a page once; gives how the target is then and what was stored.
async fn scrape_with(settings: ScrapeSettings, page: &str) -> (board::Last, Arc<Recorder>) {
    let (url, stop) = pages().await;
    let sink = Arc::new(Recorder::default());
    let scraper = scraper(settings, &sink, false);
    let mut target = show(&scraper, static_target(format!("{url}{page}")));
    target.scrape_now(&scraper).await;
    stop.cancel();
    (target.status.get(), sink)
}

async fn scrape(page: &str) -> (board::Last, Arc<Recorder>) {
    scrape_with(settings(), page).await
}

#[tokio::test]
async fn a_page_of_text_is_stored_without_its_bad_lines() {
    for batch_samples in [1, 5000] {
        let (last, stored) = scrape_with(ScrapeSettings { batch_samples, ..settings() }, "/text").await;
        assert_eq!((last.health, last.error.as_deref(), last.samples, last.bad_lines), (Health::Up, None, 2, 1));
        assert_eq!(last.bad_line.as_deref(), Some("line 3: a label without ="));
        assert_eq!((stored.value("A"), stored.value("B"), stored.value("Up")), (1.0, 3.0, 1.0));
        assert_eq!((stored.value("ScrapeSamplesScraped"), stored.value("ScrapeSamplesPostMetricRelabeling")), (2.0, 2.0));
        assert!(stored.rows("B")[0].starts_with("1970-01-01T00:00:01Z,"), "an explicit time is kept");
        assert!(stored.rows("Up")[0].contains("\"\"job\"\":\"\"ns/c\"\""), "{:?}", stored.rows("Up"));
        // Samples without a time of their own and the report share the time of the scrape.
        let time = |row: &str| row.split(',').next().unwrap().to_owned();
        assert_eq!(time(&stored.rows("A")[0]), time(&stored.rows("Up")[0]));
    }
}

#[tokio::test]
async fn what_the_store_refuses_is_offered_until_the_next_scrape_is_due() {
    for (interval_ms, refusals, stored) in [(60_000, 5, true), (60_000, 1, true), (20, usize::MAX, false)] {
        let (url, stop) = pages().await;
        let sink = Arc::new(Recorder::default());
        sink.refusals.store(refusals, std::sync::atomic::Ordering::SeqCst);
        let interval = Duration::from_millis(interval_ms);
        let scraper = scraper(ScrapeSettings { batch_samples: 1, interval, ..settings() }, &sink, false);
        let mut target = show(&scraper, static_target(format!("{url}/text")));
        target.scrape_now(&scraper).await;
        let last = target.status.get();
        if stored {
            assert_eq!((last.health, last.error.as_deref(), last.samples, last.bad_lines), (Health::Up, None, 2, 1));
            assert_eq!((sink.value("A"), sink.value("B"), sink.value("Up")), (1.0, 3.0, 1.0), "each once");
        } else {
            assert_eq!(last.error.as_deref(), Some("the samples were not stored: the disk is full"));
            assert!(sink.rows.lock().unwrap().is_empty());
        }
        stop.cancel();
    }
}

#[tokio::test]
async fn pages_of_all_formats_are_stored() {
    let (last, stored) = scrape("/open").await;
    assert_eq!((last.health, stored.value("CTotal"), stored.value("Up")), (Health::Up, 4.0, 1.0));
    assert!(stored.rows("CTotal")[0].starts_with("1970-01-01T00:00:01.5Z,"));
    let (last, stored) = scrape("/protobuf").await;
    assert_eq!((last.health, stored.value("G"), stored.value("Up")), (Health::Up, 5.0, 1.0), "{last:?}");
    let (last, stored) = scrape("/moved").await;
    assert_eq!((last.health, stored.value("A")), (Health::Up, 1.0));
}

#[tokio::test]
async fn a_failed_scrape_is_down_and_stores_nothing_else() {
    for (page, why) in [
        ("/cut", "ends without # EOF"),
        ("/cut-protobuf", "ends within a message"),
        ("/sick", "answered 500"),
        ("/locked", "adx-mon/scrape-token"),
        ("/missing", "answered 404"),
        ("/circle", "too many redirects"),
        ("/large", "raise body-size-limit"),
        ("/many", "11 samples, sample-limit is 10"),
        ("/hang", "no answer within 0.5 s"),
    ] {
        let (last, stored) = scrape(page).await;
        assert_eq!((last.health, stored.value("Up"), stored.value("ScrapeSamplesScraped")), (Health::Down, 0.0, 0.0), "{page}");
        let error = last.error.unwrap();
        assert!(error.contains(why), "{page}: {error}");
        let duration = stored.value("ScrapeDurationSeconds");
        assert_eq!(duration >= 0.5, page == "/hang", "{page} took {duration} s; the timeout is 0.5 s");
        assert_eq!(stored.rows.lock().unwrap().len(), 4, "{page}");
    }
}

/// Filters do not hide a target: `up` passes them, and dropped samples count as scraped.
#[tokio::test]
async fn filters_apply_to_what_is_scraped_only() {
    let (url, stop) = serve(Router::new().route("/", get(|| async { "a 1\ndropped 1\ndropped 2\nup 7\n" }))).await;
    let sink = Arc::new(Recorder::default());
    let scraper = scraper(settings(), &sink, false);
    show(&scraper, static_target(url)).scrape_now(&scraper).await;
    assert_eq!((sink.value("Up"), sink.value("A"), sink.rows("Dropped").len()), (1.0, 1.0, 0));
    assert_eq!((sink.value("ScrapeSamplesScraped"), sink.value("ScrapeSamplesPostMetricRelabeling")), (4.0, 1.0));
    stop.cancel();
}

/// Prometheus' rules: a series is stale when it vanishes, when the scrape fails, and when the target is gone.
#[tokio::test]
async fn exporters_are_told_what_ends() {
    let page = Arc::new(Mutex::new("a{x=\"1\"} 1\na{x=\"2\"} 2\ntimed 3 1000\n"));
    let shown = Arc::clone(&page);
    let answer = move || {
        let text = *shown.lock().unwrap();
        async move { if text.is_empty() { StatusCode::BAD_GATEWAY.into_response() } else { text.into_response() } }
    };
    let (url, stop) = serve(Router::new().route("/", get(answer))).await;
    let sink = Arc::new(Recorder::default());
    let scraper = scraper(settings(), &sink, true);
    let mut target = show(&scraper, static_target(url));
    let report = |up: u8, samples: u8| {
        let post = format!("scrape_samples_post_metric_relabeling{{}}={samples}");
        [format!("up{{}}={up}"), format!("scrape_samples_scraped{{}}={samples}"), post]
    };
    let with = |lines: &[&str], report: [String; 3]| [lines.iter().map(|line| (*line).to_owned()).collect(), report.to_vec()].concat();

    target.scrape_now(&scraper).await;
    assert_eq!(sink.told(), with(&["a{x=1}=1", "a{x=2}=2", "timed{}=3"], report(1, 3)));
    target.scrape_now(&scraper).await;
    assert_eq!(sink.told(), with(&["a{x=1}=1", "a{x=2}=2", "timed{}=3"], report(1, 3)), "nothing has ended");
    *page.lock().unwrap() = "b 4\na{x=\"2\"} 5\n";
    target.scrape_now(&scraper).await;
    assert_eq!(sink.told(), with(&["b{}=4", "a{x=2}=5", "a{x=1}=stale"], report(1, 2)));
    *page.lock().unwrap() = "";
    target.scrape_now(&scraper).await;
    assert_eq!(sink.told(), with(&["b{}=stale", "a{x=2}=stale"], report(0, 0)));
    target.scrape_now(&scraper).await;
    assert_eq!(sink.told(), report(0, 0), "told once");
    *page.lock().unwrap() = "b 4\n";
    target.scrape_now(&scraper).await;
    assert_eq!(sink.told(), with(&["b{}=4"], report(1, 1)));

    let gone = CancellationToken::new();
    gone.cancel();
    target.run(&scraper, &gone, &CancellationToken::new()).await;
    let mut told = sink.told();
    told.sort();
    let ended = ["b", "scrape_duration_seconds", "scrape_samples_post_metric_relabeling", "scrape_samples_scraped", "up"];
    assert_eq!(told, ended.map(|name| format!("{name}{{}}=stale")));
    assert!(sink.rows.lock().unwrap().iter().all(|row| !row.contains("NaN")), "markers are no rows");
    stop.cancel();
}

/// Over a shutdown or a reload the series go on, so nothing is told.
#[tokio::test]
async fn the_end_of_the_collector_is_not_the_end_of_series() {
    let (url, stop) = serve(Router::new().route("/", get(|| async { "a 1\n" }))).await;
    let sink = Arc::new(Recorder::default());
    let scraper = scraper(settings(), &sink, true);
    let mut target = show(&scraper, static_target(url));
    target.scrape_now(&scraper).await;
    sink.told();
    let shutdown = CancellationToken::new();
    shutdown.cancel();
    target.run(&scraper, &CancellationToken::new(), &shutdown).await;
    assert_eq!(sink.told(), Vec::<String>::new());
    stop.cancel();
}
