//! OTLP out of a buffer: the vectors, kinds, bounds, partial success. Retries of the client alone are shown by
//! adxexporter's tests, which push without a buffer.

use std::collections::BTreeMap;
use std::io::Read as _;

use exporters::otlp::{Bounds, OtlpMetrics, PushConfig};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::metrics::v1::{Exemplar, Metric, exemplar, metric};
use prost::Message as _;
use serde_json::Value;
use telemetry::export::ExportRows;
use telemetry::rules::{MetricRules, MetricRulesConfig};
use telemetry::{Encoding, MetricIntake, RowSet};

use crate::receivers::{Got, Receiver, Reply};
use crate::support::{Rig, sample, series, vector};

fn message(got: &Got) -> ExportMetricsServiceRequest {
    let mut body = Vec::new();
    match got.head.contains("content-encoding: gzip") {
        true => drop(flate2::read::GzDecoder::new(&got.body[..]).read_to_end(&mut body).unwrap()),
        false => body.clone_from(&got.body),
    }
    ExportMetricsServiceRequest::decode(body.as_slice()).unwrap()
}

fn metrics(got: &[Got]) -> Vec<Metric> {
    got.iter().flat_map(|got| message(got).resource_metrics.remove(0).scope_metrics.remove(0).metrics).collect()
}

fn strings(value: &Value) -> BTreeMap<String, String> {
    value.as_object().into_iter().flatten().map(|(k, v)| (k.clone(), v.as_str().unwrap().to_owned())).collect()
}

/// `exporters.json`: own filters, resource attributes, gauges. The reference never compresses; `compression = "none"` does the same.
#[tokio::test(flavor = "multi_thread")]
async fn the_request_is_that_of_the_vector() {
    let case = &vector("collector/exporters.json")["otlp_metric"];
    let config = &case["config"];
    let rules = MetricRules::compile(&MetricRulesConfig {
        drop_metrics: vec![config["drop-metrics"][0].as_str().unwrap().to_owned()],
        drop_labels: strings(&config["drop-labels"]),
        add_labels: strings(&config["add-labels"]),
        ..MetricRulesConfig::default()
    });
    let wanted: ExportMetricsServiceRequest = serde_json::from_value(case["request"].clone()).unwrap();
    for gzip in [false, true] {
        let (rig, receiver) = (Rig::new(), Receiver::start([]).await);
        let resource = strings(&config["add-resource-attributes"]);
        let client = OtlpMetrics::new(PushConfig { gzip, resource, ..PushConfig::new(&receiver.url) }, false).unwrap();
        let input: Vec<_> = case["input"].as_array().unwrap().iter().map(one_series).collect();
        let intake = MetricIntake::new("M", MetricRules::default(), Vec::new()).tap(rules.clone().unwrap());
        rig.keep_of(intake, &input).await;
        let _exporter = rig.start(client);
        let got = receiver.until_taken(1).await;
        assert_eq!(message(&got[0]), wanted);
        assert!(got[0].head.contains("content-type: application/x-protobuf\r\n"));
        rig.until("the count", |rig| rig.sent() == 2.0).await;
    }
}

fn one_series(case: &Value) -> telemetry::client::Series {
    let labels: Vec<(&str, &str)> =
        case["labels"].as_array().unwrap().iter().map(|l| (l[0].as_str().unwrap(), l[1].as_str().unwrap())).collect();
    let samples: Vec<(i64, f64)> =
        case["samples"].as_array().unwrap().iter().map(|s| (s[0].as_i64().unwrap(), s[1].as_f64().unwrap())).collect();
    series(&labels, &samples)
}

/// What an OTLP source said of its metrics.
fn otlp_rows() -> ExportRows {
    let point = r#"{"timeUnixNano":"1000000","asDouble":1}"#;
    let metrics = format!(
        r#"[{{"name":"g","gauge":{{"dataPoints":[{point}]}}}},
            {{"name":"c","sum":{{"aggregationTemporality":2,"isMonotonic":true,"dataPoints":[{point},{point}]}}}},
            {{"name":"s","sum":{{"aggregationTemporality":2,"dataPoints":[{point}]}}}}]"#
    );
    let body = format!(r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":{metrics}}}]}}]}}"#);
    let intake = MetricIntake::new("M", MetricRules::default(), Vec::new()).tap(MetricRules::default());
    let mut rows = RowSet::new();
    intake.otlp(body.as_bytes(), Encoding::Json, &mut rows).unwrap();
    rows.take_exports().remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn totals_are_sums_when_asked_for_and_gauges_as_the_reference_otherwise() {
    for typed in [false, true] {
        let (rig, receiver) = (Rig::new(), Receiver::start([]).await);
        let _exporter = rig.start(OtlpMetrics::new(PushConfig::new(&receiver.url), typed).unwrap());
        rig.buffer.keep_samples(otlp_rows()).await;
        let got = metrics(&receiver.until_taken(1).await);
        let kind = |metric: &Metric| match metric.data.as_ref().unwrap() {
            metric::Data::Gauge(gauge) => ("gauge", gauge.data_points.len()),
            metric::Data::Sum(sum) if sum.is_monotonic && sum.aggregation_temporality == 2 => ("counter", sum.data_points.len()),
            metric::Data::Sum(sum) if sum.aggregation_temporality == 2 => ("sum", sum.data_points.len()),
            other => panic!("{other:?}"),
        };
        let kinds: Vec<_> = got.iter().map(|metric| (metric.name.as_str(), kind(metric))).collect();
        let wanted = if typed { ["gauge", "counter", "sum"] } else { ["gauge"; 3] };
        assert_eq!(kinds, [("g", (wanted[0], 1)), ("c", (wanted[1], 2)), ("s", (wanted[2], 1))]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_are_bounded_and_what_the_receiver_drops_is_counted() {
    let partial = ExportMetricsPartialSuccess { rejected_data_points: 3, error_message: "too old".to_owned() };
    let answer = ExportMetricsServiceResponse { partial_success: Some(partial) }.encode_to_vec();
    let receiver = Receiver::start([Reply::Answer(200, "content-type: application/x-protobuf\r\n", answer)]).await;
    let rig = Rig::new();
    let bounds = Bounds { points: 10, bytes: 1 << 20 };
    rig.keep(&(0..25).map(sample).collect::<Vec<_>>()).await;
    let _exporter = rig.start(OtlpMetrics::new(PushConfig { bounds, ..PushConfig::new(&receiver.url) }, false).unwrap());
    let got = receiver.until_taken(3).await;
    let points = |got: &Got| metrics(std::slice::from_ref(got)).iter().map(points).sum::<usize>();
    assert_eq!(got.iter().map(points).collect::<Vec<_>>(), [10, 10, 5]);
    rig.until("the counts", |rig| (rig.sent(), rig.failed()) == (22.0, 3.0)).await;
}

fn points(metric: &Metric) -> usize {
    let Some(metric::Data::Gauge(gauge)) = &metric.data else { panic!("{metric:?}") };
    gauge.data_points.len()
}

/// Those that came behind their sample find it as long as it is in the same batch; one without a sample cannot be sent.
#[tokio::test(flavor = "multi_thread")]
async fn exemplars_are_those_of_their_points() {
    let (rig, receiver) = (Rig::new(), Receiver::start([]).await);
    rig.keep_exemplars().await;
    let _exporter = rig.start(OtlpMetrics::new(PushConfig::new(&receiver.url), false).unwrap());
    let got = metrics(&receiver.until_taken(1).await);
    let [metric] = &got[..] else { panic!("{got:?}") };
    let Some(metric::Data::Gauge(gauge)) = &metric.data else { panic!("{metric:?}") };
    let facts: Vec<Vec<_>> = gauge
        .data_points
        .iter()
        .map(|point| {
            let fact = |exemplar: &Exemplar| {
                let key = exemplar.filtered_attributes.iter().map(|attribute| attribute.key.as_str()).collect::<String>();
                (exemplar.time_unix_nano, exemplar.value, exemplar.trace_id[0], key)
            };
            point.exemplars.iter().map(fact).collect()
        })
        .collect();
    let fact = |ms: u64, value| (ms * 1_000_000, Some(exemplar::Value::AsDouble(value)), 0x4b, "http.user".to_owned());
    assert_eq!(facts, [vec![fact(1, 0.5), fact(2, 0.25)], vec![]]);
    rig.until("the count", |rig| (rig.sent(), rig.metric("skipped_total{name=\"ex\"}")) == (2.0, 1.0)).await;
}

/// A stale marker becomes OTLP's flag.
#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_series_is_flagged() {
    let (rig, receiver) = (Rig::new(), Receiver::start([]).await);
    let _exporter = rig.start(OtlpMetrics::new(PushConfig::new(&receiver.url), false).unwrap());
    rig.keep(&[series(&[("__name__", "up")], &[(1, 1.0), (2, f64::from_bits(0x7ff0_0000_0000_0002))])]).await;
    let got = metrics(&receiver.until_taken(1).await);
    let Some(metric::Data::Gauge(gauge)) = &got[0].data else { panic!("{got:?}") };
    let flags: Vec<_> = gauge.data_points.iter().map(|point| (point.flags, point.value.is_some())).collect();
    assert_eq!(flags, [(0, true), (1, false)]);
}

/// The bearer token is read for every request, since tokens are renewed.
#[tokio::test(flavor = "multi_thread")]
async fn headers_and_the_token_of_the_moment_are_sent() {
    let (rig, receiver) = (Rig::new(), Receiver::start([]).await);
    let token = rig.dir.path().join("token");
    std::fs::write(&token, "first\n").unwrap();
    let mut config = PushConfig::new(&receiver.url);
    config.http.headers = [("X-Scope".to_owned(), "tenant".to_owned())].into();
    config.http.bearer_token_file = Some(token.clone());
    let _exporter = rig.start(OtlpMetrics::new(config, false).unwrap());
    rig.keep(&[sample(1)]).await;
    receiver.until_taken(1).await;
    std::fs::write(&token, "second").unwrap();
    rig.keep(&[sample(2)]).await;
    let got = receiver.until_taken(2).await;
    for (got, token) in got.iter().zip(["first", "second"]) {
        assert!(
            got.head.contains("x-scope: tenant\r\n") && got.head.contains(&format!("authorization: bearer {token}\r\n")),
            "{}",
            got.head
        );
    }
}
