//! The OpenTelemetry SDK for Python sends all three signals; KQL shows every attribute as it was set.

use serde_json::{Value, json};

use crate::support::{Up, eventually, python, run_client};

fn dynamic(value: &Value) -> Value {
    match value {
        Value::String(text) => serde_json::from_str(text).unwrap_or_else(|_| value.clone()),
        other => other.clone(),
    }
}

#[test]
fn logs_metrics_and_traces_of_the_sdk_arrive_whole_over_http() {
    let Some(python) = python() else { return };
    let up = Up::start(&["--no-host"]);
    let sent = run_client(&python, "otel.py", &[&up.otlp()]);
    everything_is_there(&up, &serde_json::from_str(&sent).unwrap(), "OTelLogs");
}

#[test]
fn logs_metrics_and_traces_of_the_sdk_arrive_whole_over_grpc() {
    let Some(python) = python() else { return };
    let up = Up::start(&["--no-host"]);
    let sent = run_client(&python, "otel.py", &[&up.otlp_grpc(), "grpc"]);
    everything_is_there(&up, &serde_json::from_str(&sent).unwrap(), "App");
}

/// `logs` is the table that the log record went to.
fn everything_is_there(up: &Up, sent: &Value, logs: &str) {
    let attributes = json!({ "text": "grüße, \"quoted\"", "flag": true, "whole": 42, "real": 1.5, "texts": ["a", "b"], "wholes": [1, 2], "flags": [true, false] });
    let log = eventually("the log record arrives", || {
        let rows = up.query(
            "Logs",
            &format!("{logs} | project Body.message, SeverityText, SeverityNumber, Attributes, Resource, TraceId, SpanId"),
        )?;
        rows.into_iter().next().ok_or_else(|| "no rows".to_owned())
    });
    assert_eq!(log[0], "a line, with a comma");
    assert_eq!((&log[1], &log[2]), (&json!("ERROR"), &json!(17)));
    let got = dynamic(&log[3]);
    for (key, value) in attributes.as_object().unwrap() {
        assert_eq!(&got[key], value, "log attribute {key} in {got}");
    }
    assert_eq!(dynamic(&log[4])["service.name"], "end-to-end");
    assert_eq!((&log[5], &log[6]), (&sent["trace_id"], &sent["span_id"]));

    let span = eventually("the span arrives", || {
        let rows = up.query("Logs", "OTELTraces | where SpanName == 'child' | project TraceID, SpanID, ParentID, SpanStatus, SpanKind, TraceAttributes, ResourceAttributes, Events, Links, Micros = (EndTime - StartTime) / 1microsecond")?;
        rows.into_iter().next().ok_or_else(|| "no rows".to_owned())
    });
    assert_eq!((&span[0], &span[1], &span[2]), (&sent["trace_id"], &sent["child_id"], &sent["span_id"]));
    assert!(span[3].as_str().unwrap().contains("ERROR"), "{span:?}");
    assert!(span[4].as_str().unwrap().contains("CLIENT"), "{span:?}");
    let got = dynamic(&span[5]);
    for (key, value) in attributes.as_object().unwrap() {
        assert_eq!(&got[key], value, "span attribute {key} in {got}");
    }
    assert_eq!(dynamic(&span[6])["service.name"], "end-to-end");
    let events = dynamic(&span[7]).to_string();
    assert!(events.contains("something happened"), "{events}");
    assert!(dynamic(&span[8]).to_string().contains(sent["trace_id"].as_str().unwrap()), "{span:?}");
    assert!(span[9].as_f64().unwrap() >= 0.0);

    let value = |query: &str, want: f64| {
        eventually(query, || {
            let rows = up.query("Metrics", query)?;
            match rows.first().and_then(|row| row[0].as_f64()) {
                Some(got) if (got - want).abs() < 1e-9 => Ok(()),
                got => Err(format!("{got:?}, expected {want}")),
            }
        });
    };
    value("RequestsTotal | where Labels.route == '/a' | summarize arg_max(Timestamp, Value) | project Value", 7.0);
    value("QueueLength | summarize arg_max(Timestamp, Value) | project Value", 3.0);
    value("LatencyCount | summarize arg_max(Timestamp, Value) | project Value", 4.0);
    value("LatencySum | summarize arg_max(Timestamp, Value) | project Value", 0.1 + 0.6 + 3.0 + 20.0);
    // Buckets are cumulative.
    value("LatencyBucket | where todouble(Labels.le) == 1 | summarize arg_max(Timestamp, Value) | project Value", 2.0);
    value("LatencyBucket | where Labels.le == '+Inf' | summarize arg_max(Timestamp, Value) | project Value", 4.0);
    value("Temperature | where Labels.place == 'room' | summarize arg_max(Timestamp, Value) | project Value", 21.5);
    // Of an exponential histogram, and of a counter whose exporter sends differences.
    value("SizesSum | summarize arg_max(Timestamp, Value) | project Value", 111.0);
    value("SizesBucket | where Labels.le == '+Inf' | summarize arg_max(Timestamp, Value) | project Value", 3.0);
    value("DeltaTotal | summarize arg_max(Timestamp, Value) | project Value", 5.0);
    // Resource attributes are labels too.
    value("QueueLength | where Labels['service.name'] == 'end-to-end' | summarize toreal(dcount(SeriesId))", 1.0);
}
