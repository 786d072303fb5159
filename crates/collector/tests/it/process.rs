//! A whole collector: receivers into a real store, limits, restart, drain.

use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Collector, RECEIVERS, client, one_sample};

const ACCEPTED: &str = "adxmon_ledger_rows{database=\"Metrics\",state=\"accepted\"}";
const ON_DISK: &str = "adxmon_ledger_rows{database=\"Metrics\",state=\"on_disk\"}";

#[tokio::test(flavor = "multi_thread")]
async fn what_is_received_is_in_the_ledger_and_survives_a_restart() {
    let collector = Collector::start("", RECEIVERS).await;
    assert_eq!(collector.get("/readyz").await, (200, "status=ok backend=adx\n".to_owned()));
    assert_eq!(collector.get("/healthz").await.0, 200);
    assert_eq!(collector.get("/nope").await, (404, "404 page not found\n".to_owned()));
    assert_eq!(collector.write("up", 1.0).await, 202);
    assert_eq!(collector.write("dropme", 1.0).await, 202);
    assert_eq!(collector.metric("adxmon_collector_samples_stored_total").await, Some(1.0));
    assert_eq!(collector.metric("adxmon_ingestor_requests_received_total{path=\"/receive\",code=\"202\"}").await, Some(1.0));
    assert_eq!(collector.metric("adxmon_ingestor_requests_received_total{path=\"/receive\",code=\"204\"}").await, Some(1.0));
    let (_, page) = collector.get("/debug/store").await;
    assert!(page.contains("balanced") && page.contains("Metrics.Up"), "{page}");

    let dir = collector.stop().await;
    let collector = Collector::start_in(dir, "", RECEIVERS).await;
    assert_eq!(collector.metric(ACCEPTED).await, Some(1.0));
    assert_eq!(collector.metric(ON_DISK).await, Some(1.0));
    assert_eq!(collector.metric("adxmon_ledger_filtered_rows_total{database=\"Metrics\",reason=\"rules\"}").await, Some(1.0));
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_metrics_and_traces_arrive_in_json() {
    let collector = Collector::start("", RECEIVERS).await;
    let time = "1700000000000000000";
    let route = r#"[{"key":"kusto.database","value":{"stringValue":"Logs"}},{"key":"kusto.table","value":{"stringValue":"App"}}]"#;
    let log = format!(r#"{{"timeUnixNano":"{time}","body":{{"stringValue":"hi"}},"attributes":{route}}}"#);
    let bodies = [
        ("/v1/logs", format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{log}]}}]}}]}}"#)),
        (
            "/v1/metrics",
            format!(
                r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{"name":"g","gauge":{{"dataPoints":[{{"timeUnixNano":"{time}","asDouble":2}}]}}}}]}}]}}]}}"#
            ),
        ),
        (
            "/v1/traces",
            format!(
                r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{"traceId":"{}","spanId":"{}","name":"s","startTimeUnixNano":"{time}","endTimeUnixNano":"{time}"}}]}}]}}]}}"#,
                "0a".repeat(16),
                "0b".repeat(8)
            ),
        ),
    ];
    for (path, body) in bodies {
        let request = client().post(format!("{}{path}", collector.url)).header(CONTENT_TYPE, "application/json; charset=utf-8");
        let response = request.body(body).send().await.unwrap();
        assert_eq!((response.status().as_u16(), response.text().await.unwrap().as_str()), (200, "{}"), "{path}");
    }
    for database in ["Logs", "Metrics", "Traces"] {
        let name = format!("adxmon_ledger_rows{{database=\"{database}\",state=\"accepted\"}}");
        assert_eq!(collector.metric(&name).await, Some(1.0), "{database}");
    }
    let lost = r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"no destination"}}]}]}]}"#;
    let request = client().post(format!("{}/v1/logs", collector.url)).header(CONTENT_TYPE, "application/json").body(lost);
    assert_eq!(request.send().await.unwrap().status(), 400);
    for name in [
        "adxmon_collector_logs_keys{database=\"Logs\",table=\"App\"}",
        "adxmon_collector_logs_sent{source=\"otlp-logs\",sink=\"StoreSink\"}",
        "adxmon_collector_logs_dropped{source=\"otlp-logs\",stage=\"routing\"}",
        "adxmon_ingestor_invalid_logs_dropped",
        "adxmon_ingestor_requests_received_total{path=\"/v1/logs\",code=\"200\"}",
        "adxmon_ingestor_requests_received_total{path=\"/v1/logs\",code=\"400\"}",
        "adxmon_collector_metrics_requests_received_total{protocol=\"oltp/http\",code=\"200\",endpoint=\"/v1/metrics\"}",
    ] {
        assert_eq!(collector.metric(name).await, Some(1.0), "{name}");
    }
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn over_quota_is_429_with_retry_after() {
    // One journal file is more than this quota, so the first rows already fill it.
    let collector = Collector::start("max-database-disk-usage = 200", RECEIVERS).await;
    let mut refused = None;
    for i in 0..100 {
        let response = client().post(format!("{}/receive", collector.url)).body(one_sample("fill", f64::from(i))).send().await.unwrap();
        if response.status() != 202 {
            refused = Some(response);
            break;
        }
    }
    let refused = refused.expect("the quota was never reached");
    assert_eq!(refused.status(), 429);
    assert!(refused.headers().contains_key(RETRY_AFTER));
    assert!(refused.text().await.unwrap().starts_with("Overloaded. Retry later: database Metrics is over its quota"));
    // Reading goes on.
    assert_eq!(collector.get("/metrics").await.0, 200);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_number_of_tables_does_not_stop_the_others() {
    let collector = Collector::start("max-tables-per-database = 1", RECEIVERS).await;
    assert_eq!(collector.write("first", 1.0).await, 202);
    assert_eq!(collector.write("second", 1.0).await, 429);
    // The repetition is accepted without the new table's row, which is counted.
    assert_eq!(collector.write("second", 1.0).await, 202);
    assert_eq!(collector.write("first", 2.0).await, 202);
    assert_eq!(collector.metric(ACCEPTED).await, Some(2.0));
    let filtered = "adxmon_ledger_filtered_rows_total{database=\"Metrics\",reason=\"too-many-tables\"}";
    assert_eq!(collector.metric(filtered).await, Some(1.0));
    collector.stop().await;
}

/// Received, answered and counted, not stored; at the top of the file for all sources, in a source for that one.
#[tokio::test(flavor = "multi_thread")]
async fn disabled_forwarding_counts_and_discards() {
    let source = |path: &str, disabled: bool| {
        format!("[[prometheus-remote-write]]\ndatabase='Metrics'\npath='{path}'\ndisable-metrics-forwarding={disabled}\n")
    };
    let tables = source("/receive", true) + &source("/stored", false);
    for (top, discarded, stored) in [("", 1.0, 1.0), ("disable-metrics-forwarding = true", 2.0, 0.0)] {
        let collector = Collector::start(top, &tables).await;
        assert_eq!(collector.write("up", 1.0).await, 202);
        let response = client().post(format!("{}/stored", collector.url)).body(one_sample("up", 1.0)).send().await.unwrap();
        assert_eq!(response.status(), 202);
        let filtered = "adxmon_ledger_filtered_rows_total{database=\"Metrics\",reason=\"rules\"}";
        assert_eq!(collector.metric(filtered).await, Some(discarded));
        assert_eq!(collector.metric("adxmon_collector_samples_stored_total").await, Some(stored));
        assert_eq!(collector.metric(ACCEPTED).await.unwrap_or_default(), stored);
        collector.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn disabled_forwarding_discards_what_is_scraped() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let router = axum::Router::new().route("/", axum::routing::get(|| async { "a 1\nb 2\n" }));
    let stop = tokio_util::sync::CancellationToken::new();
    tokio::spawn(server::serve(listener, router, server::Limits::default(), None, stop.clone()));
    let tables = format!(
        "[prometheus-scrape]\ndatabase='Metrics'\nscrape-interval=1\ndisable-discovery=true\ndisable-metrics-forwarding=true\n\
         [[prometheus-scrape.static-scrape-target]]\nhost-regex='.*'\nurl='{url}'\nnamespace='n'\npod='p'\ncontainer='c'\n"
    );
    let collector = Collector::start("", &tables).await;
    // Two samples, and the four that tell of the scrape.
    collector.until("adxmon_ledger_filtered_rows_total{database=\"Metrics\",reason=\"rules\"}", |rows| rows >= 6.0).await;
    assert_eq!(collector.metric(ACCEPTED).await.unwrap_or_default(), 0.0);
    collector.stop().await;
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn clickhouse_is_refused_with_the_way_out() {
    let text = "storage-backend='clickhouse'\nstorage-dir='/nonexistent/x'\nlisten-addr='127.0.0.1:0'";
    let (config, _) = collector::Config::from_toml(text, "n").unwrap();
    let Err(error) = collector::start(config, tokio_util::sync::CancellationToken::new()).await else { panic!("started") };
    assert!(error.to_string().contains("set storage-backend = \"adx\""), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_a_clear_error() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let addr = taken.local_addr().unwrap();
    let text = format!("listen-addr='{addr}'\nstorage-dir='{}'", dir.path().display());
    let (config, _) = collector::Config::from_toml(&text, "n").unwrap();
    let Err(error) = collector::start(config, tokio_util::sync::CancellationToken::new()).await else { panic!("started") };
    assert!(format!("{error:#}").contains(&addr.to_string()), "{error:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn profiles_are_taken_where_they_are_asked_for_in_the_configuration() {
    let collector = Collector::start("enable-pprof = true", RECEIVERS).await;
    let (status, page) = collector.get("/debug/pprof/").await;
    assert!(status == 200 && page.contains("profile?seconds="), "{status}: {page}");
    assert_eq!(collector.get("/debug/pprof/profile?seconds=121").await.0, 400);
    let profile = crate::support::client().get(format!("{}/debug/pprof/profile?seconds=1", collector.url)).send().await.unwrap();
    assert_eq!(profile.status(), 200);
    assert_eq!(&profile.bytes().await.unwrap()[..2], b"\x1f\x8b", "gzip");
    collector.stop().await;
    let collector = Collector::start("", RECEIVERS).await;
    for path in ["/debug/pprof/", "/debug/pprof/profile"] {
        assert_eq!(collector.get(path).await.0, 404, "{path}");
    }
    collector.stop().await;
}

/// A sender whose request never ends, an ingestor that never answers: a pod has half a minute for both together.
#[tokio::test]
async fn the_end_is_in_time_whatever_hangs_and_loses_nothing() {
    // Connections are accepted by the kernel, and nobody reads.
    let ingestor = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("endpoint = 'http://{}'", ingestor.local_addr().unwrap());
    let collector = Collector::start(&endpoint, RECEIVERS).await;
    assert_eq!(collector.write("up", 1.0).await, 202);
    let mut sender = TcpStream::connect(collector.running().addr).await.unwrap();
    let head = b"POST /receive HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 100\r\n\r\n";
    sender.write_all(head).await.unwrap();
    let mut answer = [0; 25];
    sender.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 100 Continue\r\n\r\n", "its body is being read");

    tokio::time::pause();
    let began = tokio::time::Instant::now();
    let dir = collector.stop().await;
    assert_eq!(began.elapsed().as_secs(), 25);
    tokio::time::resume();
    let collector = Collector::start_in(dir, "", RECEIVERS).await;
    assert_eq!(collector.metric(ON_DISK).await, Some(1.0));
    collector.stop().await;
}
