//! OTLP spans in both encodings.

use crate::support::{Row, rows};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use serde_json::{Value, json};
use telemetry::{Encoding, Outcome, RowSet, TraceIntake, TraceOptions};

fn decode(options: TraceOptions, spans: Value) -> (Outcome, Vec<Row>) {
    let request = json!({"resourceSpans": [{
        "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "svc"}}]},
        "scopeSpans": [{"scope": {"name": "lib"}, "spans": spans}],
    }]});
    let json = serde_json::to_vec(&request).unwrap();
    let intake = TraceIntake::new(options);
    let mut from_json = RowSet::new();
    let outcome = intake.otlp(&json, Encoding::Json, &mut from_json).unwrap();
    let message: ExportTraceServiceRequest = serde_json::from_slice(&json).unwrap();
    let mut from_protobuf = RowSet::new();
    let other = intake.otlp(&message.encode_to_vec(), Encoding::Protobuf, &mut from_protobuf).unwrap();
    assert_eq!(outcome, other);
    assert_eq!(rows(&from_json), rows(&from_protobuf));
    (outcome, rows(&from_json))
}

fn options() -> TraceOptions {
    TraceOptions { default_database: Some("Traces".into()), ..TraceOptions::default() }
}

#[test]
fn every_column_is_filled() {
    let span = json!({
        "traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b174", "parentSpanId": "eee19b7ec3c1b173",
        "traceState": "a=b", "name": "GET /x,\"y\"", "kind": 2, "startTimeUnixNano": "1700000000000000001",
        "endTimeUnixNano": "1700000001500000000", "attributes": [{"key": "code", "value": {"intValue": "200"}}],
        "status": {"code": 2, "message": "it broke"},
        "events": [{"timeUnixNano": "1700000001000000000", "name": "e",
            "attributes": [{"key": "k", "value": {"boolValue": true}}]}],
        "links": [{"traceId": "5b8efff798038103d269b633813fc60d", "spanId": "eee19b7ec3c1b175", "traceState": "c=d",
            "attributes": [{"key": "l", "value": {"stringValue": "v"}}]}],
    });
    let (outcome, rows) = decode(options(), json!([span]));
    assert_eq!((outcome.accepted, outcome.total()), (1, 1));
    let row = &rows[0];
    assert_eq!((row.database.as_str(), row.table.as_str()), ("Traces", "OTELTraces"));
    let columns = [
        "TraceID",
        "SpanID",
        "ParentID",
        "SpanName",
        "SpanStatus",
        "SpanKind",
        "StartTime",
        "EndTime",
        "ResourceAttributes",
        "TraceAttributes",
        "Events",
        "Links",
    ];
    assert_eq!(row.columns, columns);
    let head = [
        "5b8efff798038103d269b633813fc60c",
        "eee19b7ec3c1b174",
        "eee19b7ec3c1b173",
        "GET /x,\"y\"",
        "STATUS_CODE_ERROR",
        "SPAN_KIND_SERVER",
        "2023-11-14T22:13:20.000000001Z",
        "2023-11-14T22:13:21.5Z",
    ];
    assert_eq!(row.fields[..8], head);
    assert_eq!(row.json("ResourceAttributes"), json!({"service.name": "svc"}));
    let attributes = json!({"code": 200, "otel.scope.name": "lib", "otel.status_description": "it broke",
        "w3c.tracestate": "a=b"});
    assert_eq!(row.json("TraceAttributes"), attributes);
    let event = json!({"EventName": "e", "Timestamp": "2023-11-14T22:13:21Z", "EventAttributes": {"k": true}});
    assert_eq!(row.json("Events"), json!([event]));
    let link = json!({"TraceID": "5b8efff798038103d269b633813fc60d", "SpanID": "eee19b7ec3c1b175", "TraceState": "c=d",
        "SpanLinkAttributes": {"l": "v"}});
    assert_eq!(row.json("Links"), json!([link]));
}

#[test]
fn spans_are_routed_like_logs() {
    let to = json!([{"key": "kusto.database", "value": {"stringValue": "Other"}},
        {"key": "kusto.table", "value": {"stringValue": "Spans"}}]);
    let (_, rows) = decode(options(), json!([{"attributes": to, "name": "a"}, {"name": "b"}]));
    let tables: Vec<_> = rows.iter().map(|row| (row.database.as_str(), row.table.as_str())).collect();
    assert_eq!(tables, [("Other", "Spans"), ("Traces", "OTELTraces")]);
    let empty = [rows[1].get("TraceID"), rows[1].get("Events"), rows[1].get("Links"), rows[1].get("SpanKind")];
    assert_eq!(empty, ["", "[]", "[]", "SPAN_KIND_UNSPECIFIED"]);

    let (outcome, _) = decode(TraceOptions::default(), json!([{"name": "b"}]));
    assert_eq!((outcome.accepted, outcome.rejected), (0, 1), "no database");
}
