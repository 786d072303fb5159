//! OTLP logs: routing, the columns, and both encodings.

use crate::support::{Row, rows};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use prost::Message;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use telemetry::{Encoding, Lift, LogIntake, LogOptions, Outcome, RowSet};

const NOW: u64 = 1_700_000_009_000_000_000;

fn request(records: Value) -> Value {
    json!({"resourceLogs": [{
        "resource": {"attributes": [
            {"key": "service.name", "value": {"stringValue": "svc"}},
            {"key": "host.cpus", "value": {"intValue": "4"}},
            {"key": "Region", "value": {"stringValue": "east,us"}},
            {"key": "label.app", "value": {"stringValue": "hidden"}}]},
        "scopeLogs": [{"scope": {"name": "lib", "version": "3"}, "logRecords": records}],
    }]})
}

fn decode(options: &LogOptions, request: &Value) -> (Outcome, Vec<Row>) {
    let json = serde_json::to_vec(request).unwrap();
    let intake = LogIntake::new(options.clone());
    let mut from_json = RowSet::new();
    let outcome = intake.otlp_at(&json, Encoding::Json, NOW, &mut from_json).unwrap();
    let message: ExportLogsServiceRequest = serde_json::from_slice(&json).unwrap();
    let mut from_protobuf = RowSet::new();
    let other = intake.otlp_at(&message.encode_to_vec(), Encoding::Protobuf, NOW, &mut from_protobuf).unwrap();
    assert_eq!(outcome, other);
    assert_eq!(rows(&from_json), rows(&from_protobuf));
    (outcome, rows(&from_json))
}

fn routed() -> Value {
    json!([{"key": "kusto.database", "value": {"stringValue": "My-DB"}},
           {"key": "kusto.table", "value": {"stringValue": "My_Table"}}])
}

#[test]
fn every_column_is_filled() {
    let mut attributes = routed();
    attributes.as_array_mut().unwrap().extend([
        json!({"key": "n", "value": {"intValue": "3"}}),
        json!({"key": "adxmon_x", "value": {"stringValue": "hidden"}}),
        json!({"key": "n", "value": {"doubleValue": 2.5}}),
    ]);
    let record = json!({
        "timeUnixNano": "1700000000123456789", "observedTimeUnixNano": "1700000001000000000",
        "severityNumber": 17, "severityText": "ERROR, bad", "body": {"stringValue": "he said \"<hi>\",\nthen left"},
        "traceId": "5B8EFFF798038103D269B633813FC60C", "spanId": "eee19b7ec3c1b174", "flags": 1,
        "attributes": attributes,
    });
    let (outcome, rows) = decode(&LogOptions::default(), &request(json!([record])));
    assert_eq!((outcome.accepted, outcome.total()), (1, 1));
    let row = &rows[0];
    assert_eq!((row.database.as_str(), row.table.as_str()), ("MyDB", "MyTable"));
    let head = [
        "2023-11-14T22:13:20.123456789Z",
        "2023-11-14T22:13:21Z",
        "5b8efff798038103d269b633813fc60c",
        "eee19b7ec3c1b174",
        "ERROR, bad",
        "17",
    ];
    assert_eq!(row.fields[..6], head);
    assert_eq!(row.json("Body"), json!({"message": "he said \"<hi>\",\nthen left"}));
    assert_eq!(row.json("Resource"), json!({"service.name": "svc", "host.cpus": 4, "Region": "east,us"}));
    let expected = json!({"kusto.database": "My-DB", "kusto.table": "My_Table", "n": 2.5, "trace_flags": 1,
        "otel.scope.name": "lib", "otel.scope.version": "3"});
    assert_eq!(row.json("Attributes"), expected);
}

#[test]
fn bodies_keep_their_types() {
    let options = LogOptions { default_database: Some("Logs".into()), default_table: Some("OTelLogs".into()), ..LogOptions::default() };
    let any = json!({"kvlistValue": {"values": [
        {"key": "raw", "value": {"bytesValue": "aGk="}},
        {"key": "arr", "value": {"arrayValue": {"values": [{"intValue": 1}, {"boolValue": true}, {}]}}},
        {"key": "big", "value": {"intValue": "9007199254740993"}},
        {"key": "null", "value": {}},
        {"key": "map", "value": {"kvlistValue": {"values": []}}},
    ]}});
    let cases = [
        (any, json!({"raw": "aGk=", "arr": [1, true, null], "big": 9_007_199_254_740_993_i64, "map": {}})),
        (json!({"intValue": "42"}), json!({"message": 42})),
        (json!({"doubleValue": 0.5}), json!({"message": 0.5})),
        (json!({"arrayValue": {"values": [{"stringValue": "a,b"}]}}), json!({"message": ["a,b"]})),
        (json!({}), json!({})),
    ];
    for (body, expected) in cases {
        let (_, rows) = decode(&options, &request(json!([{"body": body}])));
        assert_eq!(rows[0].json("Body"), expected);
        assert_eq!((rows[0].table.as_str(), rows[0].get("Timestamp")), ("OTelLogs", "2023-11-14T22:13:29Z"));
        assert_eq!(rows[0].get("ObservedTimestamp"), "2023-11-14T22:13:29Z");
    }
}

#[test]
fn records_without_a_destination_are_rejected() {
    let in_body = json!({"kvlistValue": {"values": [{"key": "kusto.table", "value": {"stringValue": "T"}},
        {"key": "kusto.database", "value": {"stringValue": "ignored"}}]}});
    let database = json!([{"key": "kusto.database", "value": {"stringValue": "D"}}]);
    let number = json!([{"key": "kusto.database", "value": {"intValue": 1}},
        {"key": "kusto.table", "value": {"stringValue": "T"}}]);
    let symbols = json!([{"key": "kusto.database", "value": {"stringValue": "D"}},
        {"key": "kusto.table", "value": {"stringValue": "---"}}]);
    let records = json!([{"attributes": database, "body": in_body}, {"body": {"stringValue": "x"}},
        {"attributes": number}, {"attributes": symbols}]);
    let (outcome, rows) = decode(&LogOptions::default(), &request(records));
    assert_eq!((outcome.accepted, outcome.rejected, outcome.unrouted), (1, 3, 3));
    assert_eq!((rows[0].database.as_str(), rows[0].table.as_str()), ("D", "T"));
    assert!(outcome.first_error.unwrap().contains("kusto.database"));
}

#[test]
fn resources_are_lifted_and_extended() {
    let lift = |name: &str| Lift { name: name.into(), column: None };
    // The last one is written in another case than the key.
    let options = LogOptions {
        add_attributes: BTreeMap::from([("service.name".into(), "set".into()), ("extra".into(), "x".into())]),
        lift_resources: vec![lift("host.cpus"), lift("absent"), lift("region")],
        ..LogOptions::default()
    };
    let (_, rows) = decode(&options, &request(json!([{"attributes": routed()}])));
    assert_eq!(rows[0].columns[9..], ["Absent", "HostCpus", "Region"]);
    assert_eq!(rows[0].fields[9..], ["", "4", "east,us"]);
    assert_eq!(rows[0].json("Resource"), json!({"service.name": "set", "extra": "x"}));
}

#[test]
fn an_unreadable_json_record_costs_only_itself() {
    let body = request(json!([{"attributes": routed(), "traceId": "xyz"}, {"attributes": routed()}, 7]));
    let mut set = RowSet::new();
    let intake = LogIntake::new(LogOptions::default());
    let outcome = intake.otlp(&serde_json::to_vec(&body).unwrap(), Encoding::Json, &mut set).unwrap();
    assert_eq!((outcome.accepted, outcome.rejected, outcome.unrouted), (1, 2, 0));
    assert!(outcome.first_error.unwrap().contains("traceId needs hexadecimal digits"));
}

#[test]
fn integers_that_do_not_fit_are_refused_and_the_widest_that_fit_are_kept() {
    let intake = LogIntake::new(LogOptions::default());
    let mut attributes = routed();
    attributes.as_array_mut().unwrap().push(json!({"key": "n", "value": {"intValue": i64::MIN.to_string()}}));
    attributes.as_array_mut().unwrap().push(json!({"key": "m", "value": {"intValue": i64::MAX}}));
    let bad = |field: &str, value: Value| json!({"attributes": routed(), field: value});
    let records = json!([
        {"attributes": attributes, "timeUnixNano": u64::MAX.to_string(), "severityNumber": -1},
        bad("timeUnixNano", json!("-1")),
        bad("timeUnixNano", json!("18446744073709551616")),
        bad("flags", json!(4_294_967_296_u64)),
        bad("severityNumber", json!(2_147_483_648_u64)),
        bad("body", json!({"intValue": "9223372036854775808"})),
        bad("body", json!({"intValue": 1.5})),
    ]);
    let mut set = RowSet::new();
    let outcome = intake.otlp(&serde_json::to_vec(&request(records)).unwrap(), Encoding::Json, &mut set).unwrap();
    assert_eq!((outcome.accepted, outcome.rejected), (1, 6), "{:?}", outcome.first_error);
    let row = &rows(&set)[0];
    assert_eq!((row.get("Timestamp"), row.get("SeverityNumber")), ("2554-07-21T23:34:33.709551615Z", "-1"));
    let attributes = row.json("Attributes");
    assert_eq!((&attributes["n"], &attributes["m"]), (&json!(i64::MIN), &json!(i64::MAX)));
}
