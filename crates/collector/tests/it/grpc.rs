//! OTLP over gRPC: the port of a source, and the listener for all signals.

use collector::Config;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use prost::Message;
use serde_json::{Value, json};

use crate::support::{Collector, RECEIVERS};

const METRICS: &str = "opentelemetry.proto.collector.metrics.v1.MetricsService";
const LOGS: &str = "opentelemetry.proto.collector.logs.v1.LogsService";
const TRACES: &str = "opentelemetry.proto.collector.trace.v1.TraceService";

/// Calls a service with a frame written by hand; the status of the call.
async fn call(addr: std::net::SocketAddr, service: &str, message: Vec<u8>) -> String {
    server::install_crypto();
    let client = reqwest::Client::builder().http2_prior_knowledge().no_proxy().build().unwrap();
    let frame = [&[0][..], &u32::try_from(message.len()).unwrap().to_be_bytes(), &message].concat();
    let request = client.post(format!("http://{addr}/{service}/Export")).header("content-type", "application/grpc").body(frame);
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    // A status in the headers is a failure; that of a success is in the trailers.
    response.headers().get("grpc-status").map_or("0".to_owned(), |status| status.to_str().unwrap().to_owned())
}

fn message<T: Message + serde::de::DeserializeOwned>(value: Value) -> Vec<u8> {
    serde_json::from_value::<T>(value).unwrap().encode_to_vec()
}

fn gauge(name: &str) -> Vec<u8> {
    let point = json!({ "timeUnixNano": "1700000000000000000", "startTimeUnixNano": "0", "asDouble": 1.5, "attributes": [], "exemplars": [], "flags": 0 });
    let metric = json!({ "name": name, "description": "", "unit": "", "metadata": [], "gauge": { "dataPoints": [point] } });
    let scope = json!({ "metrics": [metric], "schemaUrl": "" });
    message::<ExportMetricsServiceRequest>(json!({ "resourceMetrics": [{ "scopeMetrics": [scope], "schemaUrl": "" }] }))
}

async fn start() -> Collector {
    let sources = "
[[otel-metric]]
database = 'Other'
grpc-port = 1
drop-metrics = ['^dropme$']
";
    Collector::start_with("otlp-grpc-listen-addr = '127.0.0.1:0'", &format!("{sources}{RECEIVERS}"), |config: &mut Config| {
        // The test's own port is any that is free.
        config.metrics.iter_mut().for_each(|endpoint| endpoint.grpc_port = endpoint.grpc_port.map(|_| 0));
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_of_metrics_has_its_port_and_all_signals_have_theirs() {
    let collector = start().await;
    let port = collector.running().grpc_ports[0];
    let all = collector.running().otlp_grpc.unwrap();

    assert_eq!(call(port, METRICS, gauge("from_port")).await, "0");
    assert_eq!(call(port, METRICS, gauge("dropme")).await, "0");
    assert_eq!(call(port, LOGS, Vec::new()).await, "12", "a port of metrics takes no logs");
    // The entry with the path /v1/metrics goes before the first one.
    assert_eq!(call(all, METRICS, gauge("from_all")).await, "0");
    let attribute = |key: &str, value: &str| json!({ "key": key, "value": { "stringValue": value } });
    let routed = [attribute("kusto.database", "Logs"), attribute("kusto.table", "App")];
    let record = json!({ "timeUnixNano": "1", "observedTimeUnixNano": "1", "severityNumber": 0, "severityText": "", "body": { "stringValue": "x" },
        "attributes": routed, "droppedAttributesCount": 0, "flags": 0, "traceId": "", "spanId": "", "eventName": "" });
    let logs = json!({ "resourceLogs": [{ "scopeLogs": [{ "logRecords": [record], "schemaUrl": "" }], "schemaUrl": "" }] });
    assert_eq!(call(all, LOGS, message::<ExportLogsServiceRequest>(logs)).await, "0");
    assert_eq!(call(all, LOGS, Vec::new()).await, "3", "no logs to process");
    assert_eq!(call(all, TRACES, Vec::new()).await, "0");

    let count = async |name: String| collector.metric(&name).await.unwrap_or(0.0);
    let metrics = async |endpoint: u16, code: &str| {
        count(format!(
            "adxmon_collector_metrics_requests_received_total{{protocol=\"oltp/grpc\",code=\"{code}\",endpoint=\":{endpoint}\"}}"
        ))
        .await
    };
    assert_eq!((metrics(0, "ok").await, metrics(0, "unimplemented").await), (3.0, 0.0));
    let requests =
        async |code: &str| count(format!("adxmon_ingestor_requests_received_total{{path=\"/{LOGS}/Export\",code=\"{code}\"}}")).await;
    assert_eq!((requests("ok").await, requests("invalid_argument").await), (1.0, 1.0));
    assert_eq!(collector.metric("adxmon_collector_samples_stored_total").await, Some(2.0));

    // What went where is in the names of the segments.
    let (_, page) = collector.get("/debug/store").await;
    for table in ["Other", "FromPort", "Metrics", "FromAll", "Logs", "App"] {
        assert!(page.contains(table), "{table} in {page}");
    }
    collector.stop().await;
}
