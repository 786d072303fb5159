//! OTLP metrics in both encodings, metrics pages, label rules and our own samples.

use crate::support::{Row, rows};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use prost::Message;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use telemetry::rules::{MetricRules, MetricRulesConfig};
use telemetry::{Encoding, ExpositionFormat, MetricIntake, Outcome, RowSet, ScrapedPage};

fn intake() -> MetricIntake {
    MetricIntake::new("Metrics", MetricRules::default(), Vec::new())
}

/// A request of one resource (`service.name`) and scope (`lib` 1.2).
fn request(metrics: Value) -> Value {
    json!({"resourceMetrics": [{
        "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "svc"}},
                                    {"key": "host", "value": {"stringValue": "of the resource"}}]},
        "scopeMetrics": [{"scope": {"name": "lib", "version": "1.2"}, "metrics": metrics}],
    }]})
}

/// Decodes a JSON request, and the protobuf that an independent library makes of the same request.
fn decode(intake: impl Fn() -> MetricIntake, request: &Value) -> (Outcome, Vec<Row>) {
    let json = serde_json::to_vec(request).unwrap();
    let mut from_json = RowSet::new();
    let outcome = intake().otlp(&json, Encoding::Json, &mut from_json).unwrap();
    let message: ExportMetricsServiceRequest = serde_json::from_slice(&json).unwrap();
    let mut from_protobuf = RowSet::new();
    let other = intake().otlp(&message.encode_to_vec(), Encoding::Protobuf, &mut from_protobuf).unwrap();
    assert_eq!(outcome, other);
    assert_eq!(rows(&from_json), rows(&from_protobuf));
    (outcome, rows(&from_json))
}

fn point(attributes: Value, rest: Value) -> Value {
    let mut point = json!({"timeUnixNano": "1700000000123456789", "attributes": attributes});
    point.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
    point
}

/// `le` and value of the bucket rows.
fn buckets(rows: &[Row]) -> Vec<(String, f64)> {
    let buckets = rows.iter().filter(|row| row.table.ends_with("Bucket"));
    buckets.map(|row| (row.json("Labels")["le"].as_str().unwrap().to_owned(), row.real("Value"))).collect()
}

#[test]
fn attributes_of_all_kinds_become_plain_labels() {
    let attributes = json!([
        {"key": "s", "value": {"stringValue": "v\"<"}},
        {"key": "i", "value": {"intValue": "-5"}},
        {"key": "b", "value": {"boolValue": true}},
        {"key": "d", "value": {"doubleValue": 1.5}},
        {"key": "raw", "value": {"bytesValue": "aGk="}},
        {"key": "arr", "value": {"arrayValue": {"values": [{"stringValue": "x"}, {"intValue": "1"}]}}},
        {"key": "map", "value": {"kvlistValue": {"values": [{"key": "k", "value": {"doubleValue": 2.0}}]}}},
        {"key": "host", "value": {"stringValue": "of the point"}},
    ]);
    let metrics = json!([{"name": "g.int", "gauge": {"dataPoints": [point(attributes, json!({"asInt": "7"}))]}}]);
    let (outcome, rows) = decode(intake, &request(metrics));
    assert_eq!((outcome.accepted, outcome.total()), (1, 1));
    let row = &rows[0];
    assert_eq!((row.database.as_str(), row.table.as_str()), ("Metrics", "GInt"));
    assert_eq!(row.fields[0], "2023-11-14T22:13:20.123Z");
    assert_eq!(row.real("Value"), 7.0);
    let expected = json!({
        "s": "v\"<", "i": "-5", "b": "true", "d": "1.5", "raw": "aGk=", "arr": "[\"x\",1]", "map": "{\"k\":2}",
        "host": "of the point", "service.name": "svc", "otel_scope_name": "lib", "otel_scope_version": "1.2",
    });
    assert_eq!(row.json("Labels"), expected);
}

#[test]
fn reference_labels_leave_resource_and_scope_out() {
    let attributes = json!([{"key": "s", "value": {"stringValue": "v"}}]);
    let metrics = json!([{"name": "g", "gauge": {"dataPoints": [point(attributes, json!({"asDouble": 1.25}))]}}]);
    let (_, rows) = decode(|| intake().reference_labels(true), &request(metrics));
    assert_eq!(rows[0].json("Labels"), json!({"s": "v"}));
}

/// The vectors note that the reference ignores these filters on OTLP metrics. Filters see the names that are stored.
#[test]
fn filters_and_label_rules_apply() {
    let attributes = json!([{"key": "x", "value": {"stringValue": "y"}}, {"key": "keep", "value": {"stringValue": "z"}}]);
    let number = |name: &str| json!({"name": name, "gauge": {"dataPoints": [point(attributes.clone(), json!({"asInt": "1"}))]}});
    let histogram = json!({"name": "lat", "histogram": {"aggregationTemporality": 2, "dataPoints": [point(attributes.clone(),
        json!({"count": "1", "bucketCounts": ["1"], "explicitBounds": []}))]}});
    let body = request(json!([number("drop_me"), number("other"), histogram]));
    let stored = |config: MetricRulesConfig| {
        let rules = MetricRules::compile(&config).unwrap();
        let (outcome, rows) = decode(|| MetricIntake::new("M", rules.clone(), Vec::new()).reference_labels(true), &body);
        let rows: Vec<_> = rows.iter().map(|row| (row.table.clone(), row.json("Labels"))).collect();
        (outcome.accepted, outcome.filtered, rows)
    };
    let dropping = MetricRulesConfig {
        drop_metrics: vec!["^drop".into(), "_bucket$".into()],
        drop_labels: BTreeMap::from([("^other$".into(), "^x$".into())]),
        add_labels: BTreeMap::from([("keep".into(), "set".into())]),
        ..MetricRulesConfig::default()
    };
    let labels = |x: bool| if x { json!({"keep": "set", "x": "y"}) } else { json!({"keep": "set"}) };
    assert_eq!(stored(dropping), (2, 1, vec![("Other".to_owned(), labels(false)), ("LatCount".to_owned(), labels(true))]));
    let keeping = MetricRulesConfig {
        default_drop: true,
        keep_metrics: vec!["^other$".into()],
        keep_metrics_with_label_value: vec![("^le$".into(), "Inf".into())],
        ..MetricRulesConfig::default()
    };
    let (accepted, filtered, rows) = stored(keeping);
    let tables: Vec<_> = rows.iter().map(|row| row.0.as_str()).collect();
    assert_eq!((accepted, filtered, tables), (2, 1, vec!["Other", "LatBucket"]));
}

#[test]
fn histograms_are_cumulative() {
    let data = json!({"count": "6", "sum": 10.5, "bucketCounts": ["1", "2", "3"], "explicitBounds": [0.005, 2.5]});
    let metrics = json!([{"name": "lat", "histogram": {"aggregationTemporality": 2,
        "dataPoints": [point(json!([]), data)]}}]);
    let (outcome, rows) = decode(intake, &request(metrics));
    assert_eq!((outcome.accepted, outcome.total()), (1, 1), "a histogram is one item");
    assert_eq!(buckets(&rows), [("0.005000".into(), 1.0), ("2.500000".into(), 3.0), ("+Inf".into(), 6.0)]);
    let tables: Vec<_> = rows.iter().map(|row| (row.table.as_str(), row.get("Value"))).collect();
    assert_eq!(tables[..2], [("LatCount", "6"), ("LatSum", "10.5")]);
}

#[test]
fn bounds_that_six_decimals_would_change_are_written_in_full() {
    let data = json!({"count": "1", "bucketCounts": ["1", "0"], "explicitBounds": [1.5e-7]});
    let metrics = json!([{"name": "lat", "histogram": {"aggregationTemporality": 2,
        "dataPoints": [point(json!([]), data)]}}]);
    assert_eq!(buckets(&decode(intake, &request(metrics)).1)[0].0, "1.5e-7");
}

#[test]
fn exponential_histograms_become_buckets() {
    let data = json!({"count": "10", "sum": 20.0, "scale": 0, "zeroCount": "1",
        "positive": {"offset": 1, "bucketCounts": ["2", "0", "4"]}, "negative": {"offset": 0, "bucketCounts": ["3"]}});
    let metrics = json!([{"name": "eh", "exponentialHistogram": {"aggregationTemporality": 2,
        "dataPoints": [point(json!([]), data)]}}]);
    let (outcome, rows) = decode(intake, &request(metrics));
    assert_eq!((outcome.accepted, outcome.total()), (1, 1));
    let read: Vec<_> = buckets(&rows).into_iter().map(|(le, count)| (le.parse::<f64>().unwrap(), count)).collect();
    let expected = [(-1.0, 3.0), (0.0, 4.0), (4.0, 6.0), (8.0, 6.0), (16.0, 10.0), (f64::INFINITY, 10.0)];
    assert_eq!(read, expected);
}

fn delta(kind: &str, time: u64, data: Value) -> Value {
    let mut point = json!({"timeUnixNano": time.to_string()});
    point.as_object_mut().unwrap().extend(data.as_object().unwrap().clone());
    request(json!([{"name": "d", kind: {"aggregationTemporality": 1, "isMonotonic": true, "dataPoints": [point]}}]))
}

/// Sends one request after the other to one intake; answers with the rows of the last.
fn last_of(requests: &[Value]) -> (Outcome, Vec<Row>) {
    let intake = intake();
    let mut set = RowSet::new();
    let mut outcome = Outcome::default();
    for request in requests {
        set.clear();
        outcome = intake.otlp(&serde_json::to_vec(request).unwrap(), Encoding::Json, &mut set).unwrap();
    }
    (outcome, rows(&set))
}

#[test]
fn delta_sums_become_running_totals() {
    let one = delta("sum", 1_000_000_000, json!({"asInt": "3"}));
    let two = delta("sum", 2_000_000_000, json!({"asInt": "4"}));
    assert_eq!(last_of(std::slice::from_ref(&one)).1[0].real("Value"), 3.0);
    assert_eq!(last_of(&[one.clone(), two.clone()]).1[0].real("Value"), 7.0);
    assert_eq!(last_of(&[one.clone(), two.clone(), two.clone()]).1[0].real("Value"), 7.0, "a repeat adds nothing");
    let (outcome, rows) = last_of(&[two, one]);
    assert_eq!((outcome.rejected, rows.len()), (1, 0), "the past is refused");
}

#[test]
fn delta_histograms_become_running_totals() {
    let data = json!({"count": "3", "sum": 1.5, "bucketCounts": ["1", "2"], "explicitBounds": [1.0]});
    let at = |time: u64| delta("histogram", time, data.clone());
    assert_eq!(buckets(&last_of(&[at(1_000), at(2_000)]).1), [("1.000000".into(), 2.0), ("+Inf".into(), 6.0)]);

    // The second point is coarser (scale 0 against 1): its bucket (1, 2] joins (1, 1.41] and (1.41, 2].
    let fine = json!({"count": "2", "scale": 1, "positive": {"offset": 0, "bucketCounts": ["1", "1"]}});
    let coarse = json!({"count": "5", "scale": 0, "positive": {"offset": 0, "bucketCounts": ["5"]}});
    let kind = "exponentialHistogram";
    let read = buckets(&last_of(&[delta(kind, 1_000, fine), delta(kind, 2_000, coarse)]).1);
    assert_eq!(read, [("2.000000".into(), 7.0), ("+Inf".into(), 7.0)]);
}

/// As a stale marker, which tables get only where they are asked to.
#[test]
fn points_without_a_recorded_value_end_the_series() {
    let body = request(json!([{"name": "g", "gauge": {"dataPoints": [point(json!([]), json!({"flags": 1, "asDouble": 0.0}))]}}]));
    let (outcome, rows) = decode(intake, &body);
    assert_eq!((outcome.accepted, outcome.filtered, rows.len()), (0, 1, 0));
    assert_eq!(decode(|| intake().store_stale_markers(true), &body).1[0].get("Value"), "NaN");
    let mut set = RowSet::new();
    intake().tap(MetricRules::default()).otlp(&serde_json::to_vec(&body).unwrap(), Encoding::Json, &mut set).unwrap();
    let exported = set.take_exports().remove(0).bytes;
    let sample = telemetry::export::ExportSample::read(exported.strip_suffix(b"\n").unwrap()).unwrap();
    assert!(telemetry::is_stale(sample.value.unwrap()), "{:x}", sample.value.unwrap().to_bits());
}

#[test]
fn histograms_and_summaries_without_a_recorded_value_end_too() {
    for (kind, tables) in [("exponentialHistogram", ["GBucket", "GCount", "GSum"]), ("summary", ["G", "GCount", "GSum"])] {
        let data = json!({"flags": 1, "quantileValues": [{"quantile": 0.5, "value": 0.0}]});
        let body = request(json!([{"name": "g", kind: {"dataPoints": [point(json!([]), data)]}}]));
        let (outcome, rows) = decode(intake, &body);
        assert_eq!((outcome.filtered, outcome.total(), rows.len()), (1, 1, 0), "{kind}");
        let (outcome, rows) = decode(|| intake().store_stale_markers(true), &body);
        assert_eq!((outcome.accepted, outcome.total()), (1, 1), "{kind}");
        let mut ended: Vec<_> = rows.iter().map(|row| (row.table.as_str(), row.get("Value"))).collect();
        ended.sort_unstable();
        assert_eq!(ended, tables.map(|table| (table, "NaN")), "{kind}");
    }
}

#[test]
fn unusable_metrics_and_points_cost_only_themselves() {
    let bad_histogram = json!({"count": "6", "bucketCounts": ["1", "2", "3"], "explicitBounds": [1.0]});
    let body = request(json!([
        {"name": "nodata"},
        {"name": "lat", "histogram": {"dataPoints": [point(json!([]), bad_histogram)]}},
        {"name": "g", "gauge": {"dataPoints": [point(json!([]), json!({"asInt": "1"}))]}},
    ]));
    let (outcome, rows) = decode(intake, &body);
    assert_eq!((outcome.accepted, outcome.rejected, rows.len()), (1, 2, 1));
    assert!(outcome.first_error.unwrap().contains("nodata"));

    let mut bad_json = body;
    bad_json["resourceMetrics"][0]["scopeMetrics"][0]["metrics"] = json!([{"name": "g", "gauge": {"dataPoints": [
        {"timeUnixNano": "soon", "asInt": 1}, {"timeUnixNano": 5, "asInt": 2}]}}]);
    let mut set = RowSet::new();
    let outcome = intake().otlp(&serde_json::to_vec(&bad_json).unwrap(), Encoding::Json, &mut set).unwrap();
    assert_eq!((outcome.accepted, outcome.rejected), (1, 1));
    assert!(outcome.first_error.unwrap().contains("timeUnixNano needs an integer"));
}

const NOW_MS: i64 = 1_700_000_000_000;

fn scrape(page: &str, format: ExpositionFormat, target: &[(&str, &str)]) -> (Outcome, Vec<Row>) {
    let target: Vec<_> = target.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let mut set = RowSet::new();
    let outcome = intake()
        .scrape(&ScrapedPage { body: page.as_bytes(), format, target_labels: &target, honor_labels: false, now_ms: NOW_MS }, &mut set);
    (outcome, rows(&set))
}

#[test]
fn a_page_with_target_labels() {
    let page = "# HELP m help\n# TYPE m counter\nm{job=\"theirs\",a=\"1\"} 5\nm{a=\"2\"} 6 1000\nbroken{\nup 1\r\n";
    let target = [("job", "ours"), ("adxmon_pod", "p")];
    let (outcome, rows) = scrape(page, ExpositionFormat::PrometheusText, &target);
    assert_eq!((outcome.accepted, outcome.rejected), (3, 1));
    assert_eq!(outcome.first_error.unwrap(), "line 5: no closing brace");
    assert_eq!(rows[0].json("Labels"), json!({"a": "1", "job": "ours", "exported_job": "theirs"}));
    assert_eq!(rows[0].get("Timestamp"), "2023-11-14T22:13:20Z");
    assert_eq!(rows[1].get("Timestamp"), "1970-01-01T00:00:01Z");
    assert_eq!(rows[2].table, "Up");
}

#[test]
fn labels_of_a_page_may_win() {
    let target = [("job".to_owned(), "ours".to_owned()), ("pod".to_owned(), "p".to_owned())];
    let body = b"m{job=\"theirs\",a=\"1\"} 5\nm{a=\"2\"} 6\n";
    let format = ExpositionFormat::PrometheusText;
    let mut set = RowSet::new();
    intake().scrape(&ScrapedPage { body, format, target_labels: &target, honor_labels: true, now_ms: NOW_MS }, &mut set);
    let rows = rows(&set);
    assert_eq!(rows[0].json("Labels"), json!({"a": "1", "job": "theirs", "pod": "p"}));
    assert_eq!(rows[1].json("Labels"), json!({"a": "2", "job": "ours", "pod": "p"}));
}

/// The example exposition of the OpenMetrics 1.0 specification, shortened.
#[test]
fn an_openmetrics_page() {
    let page = concat!(
        "# TYPE acme_http_router_request_seconds summary\n",
        "# UNIT acme_http_router_request_seconds seconds\n",
        "acme_http_router_request_seconds_sum{path=\"/api/v1\",method=\"GET\"} 9036.32\n",
        "acme_http_router_request_seconds_created{path=\"/api/v1\",method=\"GET\"} 1605281325.0\n",
        "# TYPE foo counter\n",
        "foo_total 17.0 1520879607.789 # {id=\"counter-test\"} 5\n",
        "foo_bucket{le=\"1.0\"} 3 # {} 0.5 1.25\n",
        "{\"with.dots\",\"label name\"=\"v\"} 1\n",
        "# EOF\n",
        "after 1\n",
    );
    let (outcome, rows) = scrape(page, ExpositionFormat::OpenMetrics, &[]);
    assert_eq!((outcome.accepted, outcome.rejected), (5, 0), "{:?}", outcome.first_error);
    let foo = rows.iter().find(|row| row.table == "FooTotal").unwrap();
    assert_eq!((foo.get("Timestamp"), foo.real("Value")), ("2018-03-12T18:33:27.789Z", 17.0));
    let dots = rows.iter().find(|row| row.table == "WithDots").unwrap();
    assert_eq!(dots.json("Labels"), json!({"label name": "v"}));

    let (outcome, rows) = scrape("m 1\n", ExpositionFormat::OpenMetrics, &[]);
    assert_eq!((rows.len(), outcome.rejected), (1, 1));
    assert!(outcome.first_error.unwrap().contains("# EOF"));
}

#[test]
fn content_types_name_the_format() {
    let format = ExpositionFormat::from_content_type;
    assert_eq!(format(Some("application/openmetrics-text; version=1.0.0; charset=utf-8")), ExpositionFormat::OpenMetrics);
    assert_eq!(format(Some("text/plain; version=0.0.4")), ExpositionFormat::PrometheusText);
    assert_eq!(format(None), ExpositionFormat::PrometheusText);
}

#[test]
fn our_own_samples_pass_the_filters() {
    let config = MetricRulesConfig {
        default_drop: true,
        add_labels: BTreeMap::from([("cluster".into(), "c1".into())]),
        ..MetricRulesConfig::default()
    };
    let intake = MetricIntake::new("My-DB.1", MetricRules::compile(&config).unwrap(), Vec::new());
    let mut set = RowSet::new();
    intake.sample("up", &[("instance", "i"), ("cluster", "old")], 1_000, 0.0, &mut set);
    let rows = rows(&set);
    assert_eq!((rows[0].database.as_str(), rows[0].table.as_str(), rows[0].real("Value")), ("MyDB1", "Up", 0.0));
    assert_eq!(rows[0].json("Labels"), json!({"cluster": "c1", "instance": "i"}));
}

#[test]
fn a_bad_expression_is_named() {
    let config = MetricRulesConfig { drop_metrics: vec!["ok".into(), "(".into()], ..MetricRulesConfig::default() };
    let error = MetricRules::compile(&config).unwrap_err();
    assert_eq!((error.setting, error.pattern.as_str()), ("drop-metrics", "("));
}
