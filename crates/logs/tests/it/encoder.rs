//! Rows: those of records are those of the straight path of OTLP logs.

use std::collections::BTreeMap;
use std::sync::Arc;

use logs::{Batch, BatchCounts, Destination, Encoder, LineFormat, LineOptions, Map, NoRow, Parsers, Record, Value, otlp_records};
use proptest::prelude::*;
use serde_json::{Value as Json, json};
use telemetry::{Added, Encoding, Lift, LogIntake, LogOptions, RowSet};

use crate::support::{NOW, reader};

fn lift(name: &str) -> Lift {
    Lift { name: name.to_owned(), column: None }
}

fn settings() -> LogOptions {
    LogOptions {
        default_database: Some("De-fault".into()),
        default_table: Some("T".into()),
        add_attributes: BTreeMap::from([("region".into(), "west, us".into()), ("adxmon_pod".into(), "x".into())]),
        lift_resources: vec![lift("service.name"), lift("Lists"), lift("REGION"), lift("absent"), lift("cpus")],
    }
}

fn tables(rows: &RowSet) -> Vec<(String, String, String, u32, String)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let table = |t: &telemetry::TableRows| (t.database.to_string(), t.table.to_string(), text(&t.schema.header), t.rows, text(&t.bytes));
    rows.by_table().iter().map(table).collect()
}

/// Rows of a request by the straight path and by way of records, which must be equal.
fn both_ways(request: &Json, settings: &LogOptions) -> RowSet {
    let body = serde_json::to_vec(request).unwrap();
    let mut straight = RowSet::new();
    let outcome = LogIntake::new(settings.clone()).otlp_at(&body, Encoding::Json, NOW, &mut straight).unwrap();
    let encoder = Encoder::new(Added::new(settings.add_attributes.clone()), settings.lift_resources.clone());
    let mut batch = Batch::new(&encoder);
    let default = (settings.default_database.as_deref(), settings.default_table.as_deref());
    let read = otlp_records(&body, Encoding::Json, NOW, default, |record, _| {
        let _ = batch.record(&record);
    });
    let rejected = read.unwrap().rejected;
    let (rows, counts) = batch.finish();
    assert_eq!((counts.rows, counts.unrouted + rejected), (outcome.accepted, outcome.rejected));
    assert_eq!(tables(&rows), tables(&straight));
    rows
}

fn request(records: Json) -> Json {
    json!({"resourceLogs": [
        {"resource": {"attributes": [
            {"key": "service.name", "value": {"stringValue": "s\"v,c"}},
            {"key": "cpus", "value": {"intValue": "4"}},
            {"key": "lists", "value": {"arrayValue": {"values": [{"stringValue": ""}, {"doubleValue": 0.5}, {}]}}},
            {"key": "adxmon_x", "value": {"stringValue": "hidden"}}, {"key": "label.x", "value": {"stringValue": "hidden"}},
            {"key": "annotation.x", "value": {"stringValue": "hidden"}}, {"key": "none", "value": {}}]},
         "scopeLogs": [{"scope": {"name": "lib", "version": "3", "attributes": [{"key": "n", "value": {"intValue": 1}}]}, "logRecords": records}]},
        {"scopeLogs": [{"logRecords": records}]},
    ]})
}

#[test]
fn rows_are_those_of_the_straight_path() {
    let deep = (0..30).fold(json!({"intValue": 1}), |inner, _| json!({"arrayValue": {"values": [inner]}}));
    let deep_map = (0..25).fold(json!({"intValue": 1}), |inner, _| json!({"kvlistValue": {"values": [{"key": "k", "value": inner}]}}));
    let records = json!([
        {"timeUnixNano": "1700000000123456789", "observedTimeUnixNano": "1700000001000000000", "severityNumber": 17,
         "severityText": "ERROR, bad", "body": {"stringValue": "he said \"<hi>\",\nthen \u{2028} left\u{0}"}, "eventName": "e", "flags": 257,
         "traceId": "5B8EFFF798038103D269B633813FC60C", "spanId": "eee19b7ec3c1b174",
         "attributes": [{"key": "n", "value": {"doubleValue": 2.5}}, {"key": "adxmon_y", "value": {"intValue": 1}},
                        {"key": "n", "value": {"intValue": "9007199254740993"}}, {"key": "kusto.table", "value": {"stringValue": "Other-1"}}]},
        {"timeUnixNano": "1700000000123", "body": {"kvlistValue": {"values": [
            {"key": "kusto.database", "value": {"stringValue": "DB"}}, {"key": "b", "value": {"bytesValue": "aGk="}},
            {"key": "nan", "value": {"doubleValue": "NaN"}}, {"key": "no", "value": {}}, {"key": "t", "value": {"boolValue": true}},
            {"key": "in", "value": {"arrayValue": {"values": [{}, {"doubleValue": "Infinity"}, {"kvlistValue": {}}]}}}]}}},
        {"body": {"arrayValue": {"values": []}}}, {"body": {"doubleValue": "NaN"}}, {"body": {"doubleValue": -0.0}}, {},
        {"body": deep}, {"body": deep_map}, {"attributes": [{"key": "deep", "value": deep_map}, {"key": "", "value": {"stringValue": ""}}]},
        {"attributes": [{"key": "kusto.database", "value": {"stringValue": "---"}}]},
    ]);
    let rows = both_ways(&request(records.clone()), &settings());
    assert_eq!(rows.rows(), 18, "all but the ones without a usable database");
    both_ways(&request(records), &LogOptions::default());
}

fn any_value() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        "\\PC{0,8}|[\"\\\\,\n\r\t<>&]{0,4}".prop_map(|text| json!({"stringValue": text})),
        any::<i64>().prop_map(|number| json!({"intValue": number.to_string()})),
        any::<f64>().prop_filter("JSON", |number| number.is_finite()).prop_map(|number| json!({"doubleValue": number})),
        any::<bool>().prop_map(|flag| json!({"boolValue": flag})),
        Just(json!({"bytesValue": "AAECAw=="})),
        Just(json!({})),
    ];
    leaf.prop_recursive(24, 40, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|values| json!({"arrayValue": {"values": values}})),
            prop::collection::vec(("[a-c]{0,2}", inner), 0..4).prop_map(|members| {
                let members: Vec<Json> = members.into_iter().map(|(key, value)| json!({"key": key, "value": value})).collect();
                json!({"kvlistValue": {"values": members}})
            }),
        ]
    })
}

proptest! {
    #[test]
    fn rows_of_any_values_are_those_of_the_straight_path(
        bodies in prop::collection::vec((any_value(), prop::collection::vec(("[a-d]|cpus|region|kusto.table", any_value()), 0..4)), 1..3)
    ) {
        let records = bodies.into_iter().map(|(body, attributes)| {
            let attributes: Vec<Json> = attributes.into_iter().map(|(key, value)| json!({"key": key, "value": value})).collect();
            json!({"body": body, "attributes": attributes, "timeUnixNano": "1"})
        });
        let records: Json = records.collect();
        both_ways(&request(records), &settings());
    }

    /// The short way of a line gives the row of its record.
    #[test]
    fn plain_lines_have_the_rows_of_their_records(message in "\\PC{0,40}|[\\x00-\\x7f]{0,20}", stream in "stdout|stderr") {
        let encoder = Encoder::new(Added::new(settings().add_attributes), settings().lift_resources);
        let destination = Destination::new("D", "T").unwrap();
        let resource = Arc::new(Map::from([("service.name".to_owned(), Value::from("svc")), ("z".to_owned(), Value::Int(1))]));
        let encoded = encoder.resource(&resource);
        for format in [LineFormat::Plain, LineFormat::Cri] {
            let line = if format == LineFormat::Cri { format!("2024-01-02T03:04:05.6Z {stream} F {message}") } else { message.clone() };
            let (mut short, mut long) = (Batch::new(&encoder), Batch::new(&encoder));
            let mut reader = reader(LineOptions { format, ..LineOptions::default() });
            reader.push(line.as_bytes(), 0, NOW, |entry| {
                short.line(&entry, &encoded, &destination).unwrap();
                long.record(&entry.record(&Parsers::default(), &resource, Some(&destination))).unwrap();
            });
            prop_assert_eq!(tables(short.rows()), tables(long.rows()));
            prop_assert_eq!(short.counts().rows, 1);
        }
    }
}

/// A row as the reference documents it, written by hand.
#[test]
fn a_row_in_full() {
    let encoder = Encoder::new(Added::new(BTreeMap::from([("node".to_owned(), "n1".to_owned())])), vec![lift("pod")]);
    let mut batch = Batch::new(&encoder);
    let record = Record {
        timestamp: 1_704_164_645_600_000_000,
        observed: NOW,
        severity_text: "WARN".into(),
        severity_number: 13,
        trace_id: "5b8efff798038103d269b633813fc60c".into(),
        span_id: "eee19b7ec3c1b174".into(),
        body: Record::message("hi, \"you\""),
        attributes: Map::from([("big".to_owned(), Value::Uint(u64::MAX)), ("null".to_owned(), Value::Null)]),
        resource: Arc::new(Map::from([("pod".to_owned(), Value::from("web,1")), ("cpus".to_owned(), Value::Int(4))])),
        destination: Destination::new("My-DB", "My_Table"),
    };
    batch.record(&record).unwrap();
    let expected = "2024-01-02T03:04:05.6Z,2023-11-14T22:13:29Z,5b8efff798038103d269b633813fc60c,eee19b7ec3c1b174,WARN,13,\
                    \"{\"\"message\"\":\"\"hi, \\\"\"you\\\"\"\"\"}\",\"{\"\"cpus\"\":4,\"\"node\"\":\"\"n1\"\"}\",\
                    \"{\"\"big\"\":18446744073709551615,\"\"null\"\":null}\",\"web,1\"\n";
    let (database, table, _, rows, bytes) = tables(batch.rows()).remove(0);
    assert_eq!((database.as_str(), table.as_str(), rows, bytes.as_str()), ("MyDB", "MyTable", 1, expected));
}

#[test]
fn records_without_destination_are_counted() {
    let encoder = Encoder::new(Added::default(), Vec::new());
    let mut batch = Batch::new(&encoder);
    assert_eq!(batch.record(&Record::default()), Err(NoRow::Unrouted));
    assert_eq!(Destination::new("--", "T"), None);
    assert_eq!(batch.finish().1, BatchCounts { unrouted: 1, ..BatchCounts::default() });
}

/// The encoded resource is kept for the next record, but not for one whose resource was changed.
#[test]
fn a_changed_resource_is_encoded_anew() {
    let encoder = Encoder::new(Added::default(), Vec::new());
    let mut batch = Batch::new(&encoder);
    let mut record = Record { destination: Destination::new("D", "T"), ..Record::default() };
    for value in 0..2 {
        Arc::make_mut(&mut record.resource).insert("v".to_owned(), Value::Int(value));
        batch.record(&record).unwrap();
        batch.record(&record).unwrap();
    }
    let text = tables(batch.rows()).remove(0).4;
    let resources: Vec<&str> = text.lines().map(|line| if line.contains(":0}") { "0" } else { "1" }).collect();
    assert_eq!(resources, ["0", "0", "1", "1"]);
}

/// Labels of the node come and go while the collector runs.
#[test]
fn what_is_added_may_change() {
    let added = Added::new(BTreeMap::from([("fixed".to_owned(), "1".to_owned())]));
    let encoder = Encoder::new(added.clone(), Vec::new());
    let destination = Destination::new("D", "T").unwrap();
    let before = encoder.resource(&Map::new());
    assert!(encoder.is_current(&before));
    added.set(BTreeMap::from([("node".to_owned(), "n1".to_owned())]));
    assert!(!encoder.is_current(&before));
    let mut batch = Batch::new(&encoder);
    let mut reader = reader(LineOptions::default());
    reader.push(b"x", 0, NOW, |entry| batch.line(&entry, &encoder.resource(&Map::new()), &destination).unwrap());
    assert!(tables(batch.rows())[0].4.contains(r#""{""fixed"":""1"",""node"":""n1""}""#));
}
