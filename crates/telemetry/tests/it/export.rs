//! What the taps of an intake give to exporters.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use serde_json::json;
use telemetry::client::{Series, remote_write_body};
use telemetry::export::{ExportSample, ExportSeries, SeriesKind};
use telemetry::rules::{MetricRules, MetricRulesConfig};
use telemetry::{Encoding, MetricIntake, RowSet};

type Exported = (ExportSeries, i64, f64);

fn read(set: &mut RowSet) -> Vec<Vec<Exported>> {
    let read = |line: &[u8]| {
        let sample = ExportSample::read(line).unwrap();
        (ExportSeries::read(sample.series).unwrap(), sample.timestamp_ms, sample.value.unwrap())
    };
    let taps = set.take_exports();
    let lines = |bytes: &[u8]| bytes.split_inclusive(|b| *b == b'\n').map(read).collect::<Vec<_>>();
    for tap in &taps {
        assert_eq!(lines(&tap.bytes).len(), tap.rows as usize);
    }
    taps.iter().map(|tap| lines(&tap.bytes)).collect()
}

/// What the only tap of `intake` takes of a remote-write body.
pub(crate) fn exported(intake: &MetricIntake, body: &[u8]) -> Vec<Exported> {
    let mut set = RowSet::new();
    intake.remote_write(body, &mut set).unwrap();
    read(&mut set).pop().unwrap_or_default()
}

fn rules(change: impl FnOnce(&mut MetricRulesConfig)) -> MetricRules {
    let mut config = MetricRulesConfig::default();
    change(&mut config);
    MetricRules::compile(&config).unwrap()
}

fn series(labels: &[(&str, &str)], samples: &[(i64, f64)]) -> Series {
    let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Series { labels, samples: samples.to_vec() }
}

#[test]
fn each_tap_filters_and_labels_on_top_of_the_source() {
    let source = rules(|rules| {
        rules.drop_metrics = vec!["^noise$".into()];
        rules.add_labels = [("cluster".into(), "c1".into())].into();
    });
    let only_cpu = rules(|rules| {
        rules.default_drop = true;
        rules.keep_metrics = vec!["^cpu".into()];
        rules.drop_labels = [("cpu".into(), "^host$".into())].into();
    });
    let relabelled = rules(|rules| rules.add_labels = [("cluster".into(), "other".into())].into());
    let intake = MetricIntake::new("Metrics", source, Vec::new()).tap(only_cpu).tap(relabelled);
    let body = remote_write_body(&[
        series(&[("__name__", "cpu.load"), ("host", "h"), ("mode", "a\tb")], &[(1, 1.5), (2, 2.5)]),
        series(&[("__name__", "mem"), ("adxmon_pod", "p")], &[(3, 3.0)]),
        series(&[("__name__", "noise")], &[(4, 4.0)]),
    ]);
    let mut set = RowSet::new();
    intake.remote_write(&body, &mut set).unwrap();
    assert_eq!(set.rows(), 3);
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let named = |metric: &str, labels: Vec<(String, String)>| ExportSeries { kind: SeriesKind::Unknown, metric: metric.to_owned(), labels };
    let first = named("cpu.load", vec![pair("cluster", "c1"), pair("mode", "a\tb")]);
    let cpu = named("cpu.load", vec![pair("host", "h"), pair("mode", "a\tb"), pair("cluster", "other")]);
    let mem = named("mem", vec![pair("cluster", "other")]);
    let wanted = [vec![(first.clone(), 1, 1.5), (first, 2, 2.5)], vec![(cpu.clone(), 1, 1.5), (cpu, 2, 2.5), (mem, 3, 3.0)]];
    assert_eq!(read(&mut set), wanted);
    // A set that is used again begins without the last request's.
    set.clear();
    assert!(set.take_exports().is_empty());
}

#[test]
fn a_stale_marker_stays_what_it_is() {
    let intake = MetricIntake::new("Metrics", MetricRules::default(), Vec::new()).tap(MetricRules::default());
    let stale = f64::from_bits(0x7ff0_0000_0000_0002);
    let exported = exported(&intake, &remote_write_body(&[series(&[("__name__", "up")], &[(1, stale)])]));
    assert_eq!(exported[0].2.to_bits(), 0x7ff0_0000_0000_0002);
}

#[test]
fn what_a_series_is_comes_from_otlp() {
    let point = json!({"timeUnixNano": "1000000", "asDouble": 1.0});
    let sum = |monotonic: bool| json!({"aggregationTemporality": 2, "isMonotonic": monotonic, "dataPoints": [point]});
    let metrics = json!([
        {"name": "g", "gauge": {"dataPoints": [point]}},
        {"name": "c", "sum": sum(true)},
        {"name": "s", "sum": sum(false)},
        {"name": "q", "summary": {"dataPoints": [{"timeUnixNano": "1000000", "count": "1", "sum": 1.0}]}},
    ]);
    let body = json!({"resourceMetrics": [{"scopeMetrics": [{"metrics": metrics}]}]});
    // The independent reader agrees that this is a request.
    serde_json::from_value::<ExportMetricsServiceRequest>(body.clone()).unwrap();
    let intake = MetricIntake::new("Metrics", MetricRules::default(), Vec::new()).tap(MetricRules::default());
    let mut set = RowSet::new();
    intake.otlp(body.to_string().as_bytes(), Encoding::Json, &mut set).unwrap();
    let kinds: Vec<_> = read(&mut set).remove(0).into_iter().map(|(series, ..)| (series.metric, series.kind)).collect();
    let wanted = [("g", SeriesKind::Gauge), ("c", SeriesKind::Counter), ("s", SeriesKind::Sum)].map(|(m, k)| (m.to_owned(), k));
    assert_eq!(kinds[..3], wanted);
    assert!(kinds.len() > 3 && kinds[3..].iter().all(|(_, kind)| *kind == SeriesKind::Unknown), "{kinds:?}");
}
