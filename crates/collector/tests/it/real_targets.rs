//! Pages of Debian's Prometheus and node_exporter: what others write.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use telemetry::rules::MetricRules;
use telemetry::{ExpositionFormat, MetricIntake, PageProgress, Reading, RowSet, ScrapedPage, SeriesSet};

use crate::real_receivers::{Process, needed, start};
use crate::support::{Collector, client};

const PATIENCE: Duration = Duration::from_secs(60);
const FORMATS: [(&str, ExpositionFormat); 3] = [
    ("text/plain;version=0.0.4", ExpositionFormat::PrometheusText),
    ("application/openmetrics-text;version=1.0.0", ExpositionFormat::OpenMetrics),
    ("application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited", ExpositionFormat::Protobuf),
];

fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// URLs of the pages of both, and what keeps them running.
async fn peers(folder: &std::path::Path) -> Option<([String; 2], [Process; 2])> {
    let prometheus = needed(PathBuf::from("/usr/bin/prometheus"))?;
    let exporter = needed(PathBuf::from("/usr/bin/prometheus-node-exporter"))?;
    let (server, node) = (free_address(), free_address());
    let config = folder.join("prometheus.yml");
    let own =
        format!("global: {{scrape_interval: 1s}}\nscrape_configs: [{{job_name: self, static_configs: [{{targets: ['{server}']}}]}}]\n");
    std::fs::write(&config, own).unwrap();
    let processes = [
        start(
            Command::new(prometheus)
                .arg(format!("--config.file={}", config.display()))
                .arg(format!("--storage.tsdb.path={}", folder.join("tsdb").display()))
                .arg(format!("--web.listen-address={server}")),
        ),
        start(Command::new(exporter).arg(format!("--web.listen-address={node}"))),
    ];
    let urls = [server, node].map(|address| format!("http://{address}/metrics"));
    for url in &urls {
        let ready = async {
            while !client().get(url).send().await.is_ok_and(|answer| answer.status().is_success()) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, ready).await.unwrap_or_else(|_| panic!("{url} does not answer"));
    }
    Some((urls, processes))
}

/// Table and labels of every row of a page, and its series.
fn read(body: &[u8], format: ExpositionFormat) -> (BTreeSet<String>, SeriesSet) {
    let intake = MetricIntake::new("M", MetricRules::default(), Vec::new());
    let page = ScrapedPage { body, format, target_labels: &[], honor_labels: false, now_ms: 0 };
    let (mut rows, mut series) = (RowSet::new(), SeriesSet::default());
    assert_eq!(format.check_complete(body), Ok(()));
    let outcome = intake.scrape_part(&page, &mut PageProgress::default(), Reading::Noting(&mut series), u64::MAX, &mut rows);
    assert_eq!((outcome.rejected, outcome.filtered), (0, 0), "{format:?}: {:?}", outcome.first_error);
    series.finish();
    let mut names = BTreeSet::new();
    for table in rows.by_table() {
        let text = String::from_utf8(table.bytes).unwrap();
        // Timestamp,SeriesId,"Labels",Value
        names.extend(text.lines().map(|row| format!("{} {}", table.table, row.split_once(',').unwrap().1.rsplit_once(',').unwrap().0)));
    }
    (names, series)
}

/// Prometheus writes its page in three formats; the series, by name, labels and SeriesId, are the same in all.
#[tokio::test(flavor = "multi_thread")]
async fn three_formats_give_the_same_series() {
    let folder = tempfile::tempdir().unwrap();
    let Some((urls, _processes)) = peers(folder.path()).await else { return };
    for url in &urls {
        // Series that are counted for the first time by a request are not on its page; the second round has them all.
        let mut pages = Vec::new();
        for _round in 0..2 {
            pages.clear();
            for (accept, format) in FORMATS {
                let answer = client().get(url).header("accept", accept).send().await.unwrap();
                let content_type = answer.headers()["content-type"].to_str().unwrap().to_owned();
                let body = answer.bytes().await.unwrap();
                // Programs of that age have OpenMetrics only if they were told so, and answer with text otherwise.
                let said = ExpositionFormat::from_content_type(Some(&content_type));
                assert!(said == format || format == ExpositionFormat::OpenMetrics, "{url}: {content_type}");
                pages.push((said, body));
            }
        }
        let text = read(&pages[0].1, pages[0].0);
        assert!(text.0.len() > 200, "{url}: {} series", text.0.len());
        for (format, body) in &pages[1..] {
            let other = read(body, *format);
            // OpenMetrics names counters with _total, and floats in le as 1.0.
            if *format == ExpositionFormat::Protobuf {
                let differing: Vec<_> = text.0.symmetric_difference(&other.0).collect();
                assert!(differing.is_empty(), "{url} {format:?}: {differing:?}");
                assert!(!text.1.lost_any(&other.1) && !other.1.lost_any(&text.1));
            }
            assert!(other.0.len() >= text.0.len() * 9 / 10, "{url} {format:?}: {} series", other.0.len());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_and_node_exporter_are_scraped_in_all_formats() {
    let folder = tempfile::tempdir().unwrap();
    let Some((urls, _processes)) = peers(folder.path()).await else { return };
    for protobuf in [false, true] {
        let mut tables =
            format!("[prometheus-scrape]\ndatabase = 'Scraped'\nscrape-interval = 1\ndisable-discovery = true\nprotobuf = {protobuf}\n");
        for url in &urls {
            tables.push_str(&format!(
                "[[prometheus-scrape.static-scrape-target]]\nhost-regex = '.'\nurl = '{url}'\nnamespace = 'n'\npod = 'p'\ncontainer = 'c'\n"
            ));
        }
        let collector = Collector::start("", &tables).await;
        collector.until("adxmon_collector_scrapes_total{result=\"ok\"}", |scrapes| scrapes >= 4.0).await;
        let document: Value = serde_json::from_str(&collector.get("/targets?format=json").await.1).unwrap();
        for target in document["data"]["activeTargets"].as_array().unwrap() {
            assert_eq!((&target["health"], &target["badLines"]), (&"up".into(), &0.into()), "{target}");
            assert!(target["samples"].as_u64().unwrap() > 200, "{target}");
        }
        assert_eq!(document["data"]["activeTargets"].as_array().unwrap().len(), 2);
        let (_, page) = collector.get("/debug/store").await;
        let rows = |table: &str| page.lines().any(|line| line.trim_start().starts_with(&format!("Scraped.{table} ")));
        assert!(rows("NodeLoad1") && rows("PrometheusHttpRequestDurationSecondsBucket") && rows("Up"), "{page}");
        collector.stop().await;
    }
}
