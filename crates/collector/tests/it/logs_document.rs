//! The examples of docs/logs.md: each configuration is checked and run on the input that follows it.

use std::sync::Arc;

use collector::Config;
use logs::{LineOptions, LineReader, Map, MultiLineSettings, Parsers, Record, Transforms, otlp_records};
use serde::Deserialize;
use serde_json::{Value, json};
use telemetry::Encoding;

const DOCUMENT: &str = include_str!("../../../../docs/logs.md");
const NOW: u64 = 1_700_000_000_000_000_000;

/// The blocks of code that begin with three backquotes and a word, with that word.
fn blocks() -> Vec<(&'static str, &'static str)> {
    let fenced = DOCUMENT.split("\n```").skip(1).step_by(2);
    fenced.filter_map(|block| block.split_once('\n')).filter(|(kind, _)| !kind.is_empty()).collect()
}

#[test]
fn the_examples_of_the_document_do_what_it_says() {
    let blocks = blocks();
    let mut examples = 0;
    for block in blocks.chunks(3) {
        let [("toml", configuration), ("log", input), ("json", expected)] = block else { panic!("not an example: {block:?}") };
        Config::from_toml(&format!("storage-dir = '/x'\n{configuration}"), "node-1")
            .unwrap_or_else(|error| panic!("{error}\n{configuration}"));
        let table: toml::Table = configuration.parse().unwrap();
        let records = match table.get("host-log") {
            Some(source) => from_lines(&source[0], input),
            None => from_otlp(&table["otel-log"], input),
        };
        let expected: Vec<Value> = expected.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(records.len(), expected.len(), "{configuration}\n{records:?}");
        for (record, expected) in records.iter().map(shown).zip(expected) {
            for (column, value) in expected.as_object().unwrap() {
                assert_eq!(record[column], *value, "{column} of {record}\n{configuration}");
            }
        }
        examples += 1;
    }
    assert_eq!(examples, DOCUMENT.matches("```toml").count());
    assert!(examples >= 9);
}

fn transforms(source: &toml::Value) -> Transforms {
    let empty = toml::Value::Table(toml::Table::new());
    let list = source.get("transforms").and_then(toml::Value::as_array).into_iter().flatten();
    Transforms::new(list.map(|item| (item["name"].as_str().unwrap(), item.get("config").unwrap_or(&empty)))).unwrap()
}

fn from_lines(source: &toml::Value, input: &str) -> Vec<Record> {
    // A pod's lines are read as those of a file are; annotations are not in the configuration.
    let pod = source.get("static-pod-target").map(|targets| &targets[0]);
    let target = pod.unwrap_or_else(|| &source["file-target"][0]);
    let text = |key: &str| target.get(key).and_then(toml::Value::as_str).unwrap_or_default();
    let names = target.get("parsers").and_then(toml::Value::as_array).into_iter().flatten().filter_map(toml::Value::as_str);
    let parsers = Parsers::from_names(names).unwrap();
    let multi_line = target.get("multi-line").map(|rule| MultiLineSettings::deserialize(rule.clone()).unwrap().rule().unwrap());
    let format = if pod.is_some() { "kubernetes" } else { text("log-type") };
    let options = LineOptions { format: format.parse().unwrap(), multi_line: multi_line.map(Arc::new), ..LineOptions::default() };
    let (database, table) = text("destination").split_once(':').unwrap_or((text("database"), text("table")));
    let destination = logs::Destination::new(database, table);
    let mut reader = LineReader::new(Arc::new(options));
    let mut records = Vec::new();
    let resource = Arc::new(Map::new());
    for line in input.lines() {
        reader.push(line.as_bytes(), 0, NOW, |entry| records.push(entry.record(&parsers, &resource, destination.as_ref())));
    }
    reader.finish(NOW, |entry| records.push(entry.record(&parsers, &resource, destination.as_ref())));
    let mut transforms = transforms(source);
    records.retain_mut(|record| transforms.apply(record, NOW));
    records
}

fn from_otlp(source: &toml::Value, input: &str) -> Vec<Record> {
    let records: Vec<Value> = input.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let body = json!({"resourceLogs": [{"scopeLogs": [{"logRecords": records}]}]}).to_string();
    let default = (source["default-database"].as_str(), source["default-table"].as_str());
    let mut transforms = transforms(source);
    let mut kept = Vec::new();
    let outcome = otlp_records(body.as_bytes(), Encoding::Json, NOW, default, |mut record, _| {
        if transforms.apply(&mut record, NOW) {
            kept.push(record);
        }
    });
    assert_eq!(outcome.unwrap().rejected, 0);
    kept
}

/// A record by column.
fn shown(record: &Record) -> Value {
    let json = |map: &Map| serde_json::from_str::<Value>(&logs::Value::Map(map.clone()).to_text()).unwrap();
    let mut time = Vec::new();
    telemetry::text::timestamp(&mut time, (record.timestamp / 1_000_000_000).cast_signed(), (record.timestamp % 1_000_000_000) as u32);
    let destination = record.destination.as_ref().unwrap();
    json!({
        "Timestamp": String::from_utf8(time).unwrap(),
        "SeverityText": record.severity_text,
        "SeverityNumber": record.severity_number,
        "Body": json(&record.body),
        "Attributes": json(&record.attributes),
        "Resource": json(&record.resource),
        "Database": &**destination.database(),
        "Table": &**destination.table(),
    })
}
