//! The answers that were observed on a running reference collector, asked of a running collector of ours. Every
//! deviation is listed with its reason.

use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse};
use prost::Message;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE};
use reqwest::{Method, Response};
use serde_json::{Value, json};
use telemetry::client::{Series, remote_write_body};

use crate::support::{Collector, client, one_sample, vector};

const PROTOBUF: &str = "application/x-protobuf";

/// The configuration that the vectors name.
const OBSERVED: &str = "
[add-labels]
glob = 'g'
[[prometheus-remote-write]]
database = 'Metrics'
path = '/receive'
drop-metrics = ['^dropme$']
add-labels = { rw = 'x' }
[[otel-metric]]
database = 'Metrics'
path = '/v1/metrics'
[otel-log]
";

/// `google.rpc.Status`
#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

struct Answer {
    code: u16,
    content_type: String,
    body: Vec<u8>,
}

impl Answer {
    async fn of(response: Response) -> Answer {
        let content_type = response.headers().get(CONTENT_TYPE).map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default();
        Answer { code: response.status().as_u16(), content_type, body: response.bytes().await.unwrap().to_vec() }
    }

    fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    /// The message of the `google.rpc.Status` in the body.
    fn message(&self) -> String {
        Status::decode(&self.body[..]).unwrap().message
    }
}

async fn send(collector: &Collector, method: Method, path: &str, content_type: &str, body: Vec<u8>) -> Answer {
    let mut request = client().request(method, format!("{}{path}", collector.url)).body(body);
    if !content_type.is_empty() {
        request = request.header(CONTENT_TYPE, content_type);
    }
    Answer::of(request.send().await.unwrap()).await
}

fn routed_logs() -> Vec<u8> {
    let route = json!([{"key": "kusto.database", "value": {"stringValue": "L"}}, {"key": "kusto.table", "value": {"stringValue": "T"}}]);
    let request =
        json!({"resourceLogs": [{"scopeLogs": [{"logRecords": [{"timeUnixNano": "1700000000000000000", "attributes": route}]}]}]});
    protobuf_logs(&request)
}

fn protobuf_logs(request: &Value) -> Vec<u8> {
    serde_json::from_value::<ExportLogsServiceRequest>(numbered(request)).unwrap().encode_to_vec()
}

fn protobuf_metrics(request: &Value) -> Vec<u8> {
    serde_json::from_value::<ExportMetricsServiceRequest>(numbered(request)).unwrap().encode_to_vec()
}

/// The request with the names of enum values, which the OpenTelemetry crate does not read, as numbers.
fn numbered(request: &Value) -> Value {
    let names = [("SEVERITY_NUMBER_ERROR", "17"), ("AGGREGATION_TEMPORALITY_DELTA", "1"), ("AGGREGATION_TEMPORALITY_CUMULATIVE", "2")];
    let text = names.iter().fold(request.to_string(), |text, (name, number)| text.replace(&format!("\"{name}\""), number));
    serde_json::from_str(&text).unwrap()
}

fn snappy(body: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(body).unwrap()
}

/// The request that a case describes.
async fn observed(collector: &Collector, request: &str) -> Answer {
    let (method, rest) = request.split_once(' ').unwrap();
    let (path, what) = rest.split_once([' ', ',']).unwrap_or((rest, ""));
    let nameless = Series { labels: vec![("host".into(), "h".into())], samples: vec![(1, 1.0)] };
    let (content_type, body) = match (path, what.trim()) {
        ("/readyz" | "/nope" | "/v1/traces", "") => ("", Vec::new()),
        ("/receive", "valid snappy WriteRequest") => ("", one_sample("up", 1.0)),
        ("/receive", "all series dropped by filters") => ("", one_sample("dropme", 1.0)),
        ("/receive", "not snappy") => ("", b"not snappy".to_vec()),
        ("/receive", "snappy ok but invalid protobuf") => ("", snappy(&[0x0a, 0x7f, 1])),
        ("/receive", "empty body" | "(method is not checked)") | ("/v1/logs", "(method is not checked)") => ("", Vec::new()),
        ("/receive", "series without __name__") => ("", snappy(&remote_write_body(&[nameless]))),
        ("/v1/logs", "application/x-protobuf routed record") => (PROTOBUF, routed_logs()),
        ("/v1/logs", "gzip Content-Encoding (not decoded)") => return gzipped(collector).await,
        ("/v1/logs" | "/v1/metrics", "application/json") => ("application/json", b"{}".to_vec()),
        ("/v1/metrics", "application/x-protobuf valid") => (PROTOBUF, Vec::new()),
        ("/v1/metrics", "garbage protobuf") => (PROTOBUF, vec![0xff, 0xff]),
        other => panic!("{other:?} is not known to this test"),
    };
    send(collector, method.parse().unwrap(), path, content_type, body).await
}

async fn gzipped(collector: &Collector) -> Answer {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, &routed_logs()).unwrap();
    let request = client().post(format!("{}/v1/logs", collector.url)).header(CONTENT_TYPE, PROTOBUF).header(CONTENT_ENCODING, "gzip");
    Answer::of(request.body(gzip.finish().unwrap()).send().await.unwrap()).await
}

/// Where ours does the better thing: status and start of the body's text.
fn better(request: &str) -> Option<(u16, &'static str)> {
    Some(match request {
        // What and where, instead of two words.
        "POST /receive, not snappy" | "POST /receive, empty body" => (400, "snappy: corrupt input: "),
        "POST /receive, snappy ok but invalid protobuf" => (400, "reading protobuf at byte 2: "),
        // The sender's fault, so that it does not repeat the request; neighbours are stored.
        "POST /receive, series without __name__" => (400, "rejected 1 samples, stored 0; first: series without a metric name"),
        // Methods are checked.
        "GET /receive (method is not checked)" | "GET /v1/logs (method is not checked)" => (405, ""),
        // gzip and JSON are read.
        "POST /v1/logs gzip Content-Encoding (not decoded)" => (200, ""),
        "POST /v1/logs application/json" => (400, "{\"code\":3,\"message\":\"No logs to process.\"}"),
        "POST /v1/metrics application/json" => (200, "{}"),
        _ => return None,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_observed_answers_are_given() {
    let text = vector("collector/http_endpoints.json");
    let collector = Collector::start("", OBSERVED).await;
    let cases = serde_json::from_str::<Value>(&text).unwrap()["cases"].take();
    let mut deviations = 0;
    for case in cases.as_array().unwrap() {
        let request = case["request"].as_str().unwrap();
        let answer = observed(&collector, request).await;
        if let Some((code, start)) = better(request) {
            deviations += 1;
            assert_eq!(answer.code, code, "{request}");
            assert!(answer.text().starts_with(start), "{request}: {}", answer.text());
            continue;
        }
        assert_eq!(u64::from(answer.code), case["status"].as_u64().unwrap(), "{request}");
        if let Some(wanted) = case["content_type"].as_str() {
            assert_eq!(answer.content_type, wanted, "{request}");
        }
        if let Some(message) = case["status_message"].as_str() {
            assert!(answer.message().starts_with(message), "{request}: {}", answer.message());
        } else {
            let wanted = case["body"].as_str().filter(|text| !text.starts_with("<empty")).unwrap_or_default();
            assert_eq!(answer.text(), wanted, "{request}");
        }
        if let Some(code) = case["counter_code_label"].as_str() {
            let counter = format!("adxmon_ingestor_requests_received_total{{path=\"/receive\",code=\"{code}\"}}");
            assert_eq!(collector.metric(&counter).await, Some(1.0), "{request}");
        }
    }
    assert_eq!(deviations, 9, "every deviation is of a case in the vectors");
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn otlp_logs_are_answered_as_observed() {
    let text = vector("collector/otlp_logs.json");
    let collector = Collector::start("", OBSERVED).await;
    for case in serde_json::from_str::<Vec<Value>>(&text).unwrap() {
        let name = case["name"].as_str().unwrap();
        // Told in words: a panic, a client that goes away, a full store. Each has a test of its own.
        let Some(request) = case.get("request") else { continue };
        let body = protobuf_logs(request);
        let answer = send(&collector, Method::POST, "/v1/logs", case["content_type"].as_str().unwrap(), body.clone()).await;
        if matches!(name, "json content type" | "protobuf with charset") {
            // Both are read by ours: the first is protobuf called JSON, the second holds no record.
            assert_eq!(answer.code, 400, "{name}");
            continue;
        }
        assert_eq!(u64::from(answer.code), case["http_status"].as_u64().unwrap(), "{name}");
        assert_eq!(answer.content_type, case["response_content_type"].as_str().unwrap(), "{name}");
        if let Some(message) = case["status_message"].as_str() {
            assert!(answer.message().starts_with(message), "{name}: {}", answer.message());
            continue;
        }
        let mut wanted = case["response"]["partialSuccess"].clone();
        if wanted.is_object() {
            // The reference misspells the attributes' names.
            wanted["errorMessage"] = wanted["errorMessage"].as_str().unwrap().replace("kube.", "kusto.").into();
        }
        let partial = ExportLogsServiceResponse::decode(&answer.body[..]).unwrap().partial_success;
        let got = partial.map(|p| json!({"errorMessage": p.error_message, "rejectedLogRecords": p.rejected_log_records.to_string()}));
        assert_eq!(got.unwrap_or_default(), wanted, "{name}");
        // The same in JSON.
        let in_json = send(&collector, Method::POST, "/v1/logs", "application/json", request.to_string().into_bytes()).await;
        assert_eq!((in_json.code, in_json.content_type.as_str()), (200, "application/json"), "{name}");
        let in_json: Value = serde_json::from_slice(&in_json.body).unwrap();
        assert_eq!(in_json.get("partialSuccess").cloned().unwrap_or_default(), wanted, "{name}");
    }
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn otlp_metrics_are_answered_as_observed() {
    let text = vector("collector/otlp_metrics.json");
    let collector = Collector::start("", OBSERVED).await;
    for case in serde_json::from_str::<Vec<Value>>(&text).unwrap() {
        let name = case["name"].as_str().unwrap();
        if name == "unhealthy collector" {
            continue; // 429 in ours; see the tests of limits.
        }
        let request = &case["request"];
        let answer = send(&collector, Method::POST, "/v1/metrics", PROTOBUF, protobuf_metrics(request)).await;
        assert_eq!((answer.code, answer.content_type.as_str()), (200, PROTOBUF), "{name}");
        let partial = ExportMetricsServiceResponse::decode(&answer.body[..]).unwrap().partial_success;
        let wanted = match name {
            // A panic and a refusal of the whole request: ours rejects what cannot be used, and only that.
            "histogram bounds mismatch" => Some((1, "1 data points were not stored; first: histogram with 3 bucket counts for 1 bounds")),
            "metric without data" => Some((1, "1 data points were not stored; first: metric \"nodata\" has no data of a known type")),
            // Exponential histograms are converted.
            _ => None,
        };
        let got = partial.map(|p| (p.rejected_data_points, p.error_message));
        assert_eq!(got.as_ref().map(|(points, message)| (*points, message.as_str())), wanted, "{name}");
    }
    collector.stop().await;
}
