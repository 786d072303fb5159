use prometheus_client::registry::Registry;
use telemetry::{MetricIntake, client};

use super::*;
use crate::config::{Config, file};

fn rules(toml: &str) -> Vec<TableLimit> {
    let file: file::File = toml::from_str(toml).unwrap();
    file.table_limit.iter().map(TableLimit::from).collect()
}

fn limits(toml: &str) -> Limits {
    let limits = Limits::new(Metrics::register(&mut Registry::default(), "", false));
    limits.follow(rules(toml), Instant::now());
    limits
}

/// One sample of each series of `metric`, as rows; `lifted` puts a newline into a column of its own.
fn rows(metric: &str, series: std::ops::Range<u32>) -> RowSet {
    let lift = telemetry::Lift { name: "host".to_owned(), column: None };
    let intake = MetricIntake::new("Metrics", Default::default(), vec![lift]);
    let series: Vec<_> = series
        .map(|i| client::Series {
            labels: vec![
                ("__name__".to_owned(), metric.to_owned()),
                ("host".to_owned(), format!("a,\"\nb{i}")),
                ("x".to_owned(), "y".to_owned()),
            ],
            samples: vec![(1_700_000_000_000, 1.0)],
        })
        .collect();
    let body = client::remote_write_body(&series);
    let mut rows = RowSet::new();
    intake.remote_write(&body, &mut rows).unwrap();
    rows
}

fn hosts(rows: &RowSet) -> Vec<String> {
    let tables = rows.by_table();
    let records = tables.iter().flat_map(|table| Records::new(&table.bytes)).map(|row| String::from_utf8_lossy(row).into_owned());
    let hosts: Vec<String> = records.map(|row| row.rsplit('b').next().unwrap().trim_end_matches(['"', '\n']).to_owned()).collect();
    assert_eq!(hosts.len() as u64, rows.rows(), "the number of rows is true");
    hosts
}

/// Applies and stores; the hosts that are left, and how many rows went.
fn apply(limits: &Limits, mut rows: RowSet, now: Instant) -> (Vec<String>, u64) {
    let applied = limits.apply(&mut rows, now);
    let dropped = applied.iter().map(Applied::dropped).sum();
    limits.stored(applied);
    (hosts(&rows), dropped)
}

fn names(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|i| i.to_string()).collect()
}

#[tokio::test]
async fn a_reload_forgets_nothing_of_tables_that_still_have_a_limit() {
    let limits = limits("[[table-limit]]\ntable = 'Wild'\nmax-series = 3\nmax-rows-per-second = 1\n");
    let start = Instant::now();
    assert_eq!(apply(&limits, rows("Wild", 0..5), start), (names(0..3), 2));
    limits.follow(rules("[[table-limit]]\nmax-series = 4\nmax-rows-per-second = 1\n"), start);
    assert_eq!(apply(&limits, rows("Wild", 2..9), start), (names(2..4), 5), "one more than before");
    // Of sixty rows that it may get at once it has had five.
    limits.follow(rules("[[table-limit]]\nmax-rows-per-second = 1\n"), start);
    assert_eq!(apply(&limits, rows("Wild", 0..100), start).1, 45);
    limits.follow(rules("[[table-limit]]\nmax-series = 4\n"), start);
    limits.follow(rules("[[table-limit]]\nmax-rows-per-second = 1\n"), start);
    assert_eq!(apply(&limits, rows("Wild", 0..100), start).1, 40, "it had no rate in between");
    limits.follow(Vec::new(), start);
    assert_eq!(apply(&limits, rows("Wild", 0..100), start).1, 0);
    limits.follow(rules("[[table-limit]]\nmax-series = 4\n"), start);
    assert_eq!(apply(&limits, rows("Wild", 50..60), start), (names(50..54), 6), "it had no limit in between");
}

#[tokio::test]
async fn series_beyond_the_limit_are_left_out_until_others_are_forgotten() {
    let limits = limits("[[table-limit]]\ntable = 'wild'\nmax-series = 3\n[[table-limit]]\nmax-rows-per-second = 1000\n");
    let start = Instant::now();
    assert_eq!(apply(&limits, rows("Wild", 0..2), start), (names(0..2), 0));
    // Of another table, which has another rule.
    assert_eq!(apply(&limits, rows("Tame", 0..50), start), (names(0..50), 0));
    // Table names keep their case: the rule above is about no table of metrics.
    assert_eq!(apply(&limits, rows("Wild", 0..50), start), (names(0..50), 0));
}

#[tokio::test]
async fn known_series_stay_while_new_ones_are_left_out() {
    let limits = limits("[[table-limit]]\ndatabase = 'Metrics'\ntable = 'Wild'\nmax-series = 3\n");
    let start = Instant::now();
    assert_eq!(apply(&limits, rows("wild", 0..5), start), (names(0..3), 2));
    assert_eq!(apply(&limits, rows("wild", 1..5), start), (names(1..3), 2));
    // After an hour, those that were seen at its end are still known.
    let later = start + Duration::from_secs(3500);
    assert_eq!(apply(&limits, rows("wild", 2..3), later), (names(2..3), 0));
    let hour = start + Duration::from_secs(3601);
    assert_eq!(apply(&limits, rows("wild", 4..9), hour), (names(4..6), 3));
    assert_eq!(apply(&limits, rows("wild", 2..3), hour), (names(2..3), 0));
    let labels = LimitedRows { database: "Metrics".to_owned(), table: "Wild".to_owned(), limit: "series" };
    assert_eq!(limits.metrics.limited_rows.get_or_create(&labels).get(), 7);
}

#[tokio::test]
async fn a_table_gets_its_rate_and_no_more() {
    let limits = limits("[[table-limit]]\nmax-rows-per-second = 2\n");
    let start = Instant::now();
    // A minute's worth at once, each table for itself.
    assert_eq!(apply(&limits, rows("a", 0..130), start), (names(0..120), 10));
    assert_eq!(apply(&limits, rows("b", 0..120), start), (names(0..120), 0));
    assert_eq!(apply(&limits, rows("a", 0..5), start), (names(0..0), 5));
    assert_eq!(apply(&limits, rows("a", 0..5), start + Duration::from_secs(2)), (names(0..4), 1));
    assert_eq!(apply(&limits, rows("a", 0..200), start + Duration::from_secs(3600)), (names(0..120), 80));
}

/// A sender that is told to come again does not use up its table's rate by that.
#[tokio::test]
async fn what_is_refused_does_not_count() {
    let limits = limits("[[table-limit]]\nmax-rows-per-second = 1\n");
    let now = Instant::now();
    for _ in 0..10 {
        let applied = limits.apply(&mut rows("a", 0..70), now);
        assert_eq!(applied.iter().map(Applied::dropped).sum::<u64>(), 10);
        limits.refused(applied);
    }
    assert_eq!(apply(&limits, rows("a", 0..60), now), (names(0..60), 0));
    let labels = LimitedRows { database: "Metrics".to_owned(), table: "A".to_owned(), limit: "rate" };
    assert_eq!(limits.metrics.limited_rows.get_or_create(&labels).get(), 0);
}

#[test]
fn a_limit_limits_something() {
    let error = Config::from_toml("[[table-limit]]\ntable = 'T'\n[[table-limit]]\nmax-series = -1\n", "h").unwrap_err().to_string();
    assert!(error.contains("line 1, column 1: table-limit.max-series or table-limit.max-rows-per-second must be set"), "{error}");
    assert!(error.contains("line 4, column 1: table-limit.max-series must be at least 0"), "{error}");
}
