//! The statements of `vectors/kusto/statements.json`, and the cuts of `vectors/partition/batching.json`.

use std::path::Path;

use ingestor::kql::{Column, create_functions, create_mapping, create_table, mapping_name, parse_header};
use ingestor::upload::plan::{Ended, FIRST_INFLATION, Limits, Plan};
use serde_json::Value;
use wal::{SegmentId, SegmentInfo, TableKey};

/// A file of the vectors.
fn vectors(file: &str) -> Value {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors")).join(file);
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&bytes).unwrap()
}

/// `(['A']:long, ['B']:string)` of an expected statement.
fn columns(statement: &str) -> Vec<Column> {
    let list = statement.split_once(" (").unwrap().1.trim_end_matches(')');
    let fields = list.split(", ").filter(|f| !f.is_empty());
    fields
        .map(|field| {
            let (name, kind) = field.split_once("']:").unwrap();
            Column { name: name.trim_start_matches("['").to_owned(), kind: kind.to_owned() }
        })
        .collect()
}

#[test]
fn tables_and_mappings() {
    let vectors = vectors("kusto/statements.json");
    for case in vectors["ensure"].as_array().unwrap() {
        let table = case["table"].as_str().unwrap();
        let statements = case["statements_in_order_each_sent_once"].as_array().unwrap();
        let columns = columns(statements[0].as_str().unwrap());
        assert_eq!(mapping_name(table, &columns), case["mapping_name"].as_str().unwrap());
        assert_eq!(create_table(table, &columns), statements[0].as_str().unwrap());
        assert_eq!(create_mapping(table, &columns), statements[1].as_str().unwrap());
    }
    let expected = vectors["metrics_uploader_startup_statements_without_bodies"].as_array().unwrap();
    // The first one asks for mappings, which are merged here without asking.
    for (statement, expected) in create_functions().iter().zip(&expected[1..]) {
        assert!(statement.starts_with(expected.as_str().unwrap()), "{statement}");
    }
}

/// Cases where everything is uploaded here agree in which segments share an upload. Not taken over:
/// the rule that makes every aged segment an upload of its own (a defect: a backlog loses batching),
/// and the order among tables, which is the oldest first here, so that none waits for ever.
#[test]
fn batches_of_one_table() {
    let vectors = vectors("partition/batching.json");
    let mut compared = 0;
    for case in vectors["cases"].as_array().unwrap() {
        let files = |queue: &str| -> Vec<Vec<String>> {
            let batches = case[queue].as_array().unwrap().iter();
            batches.map(|b| serde_json::from_value(b["files"].clone()).unwrap()).collect()
        };
        let segments = case["segments"].as_array().unwrap();
        let max_age = case["max_transfer_age_s"].as_u64().unwrap();
        let aged = segments.iter().any(|s| s["age_seconds"].as_u64().unwrap() >= max_age);
        let one_table = segments.iter().all(|s| s["prefix"] == segments[0]["prefix"]);
        if !files("transfer_queue").is_empty() || aged || !one_table || segments.is_empty() {
            continue;
        }
        let limits = Limits {
            max_segments: case["max_batch_segments"].as_u64().unwrap() as usize,
            // The reference counts stored bytes, and the plan CSV.
            max_bytes: case["min_upload_size"].as_u64().unwrap().min(case["max_transfer_size"].as_u64().unwrap()) * FIRST_INFLATION,
            concurrency: 1,
            gather: None,
        };
        assert_eq!(cuts(limits, segments), files("upload_queue"), "{}", case["name"]);
        compared += 1;
    }
    assert!(compared > 0);
}

/// The batches that the plan makes of segments of one table.
fn cuts(limits: Limits, segments: &[Value]) -> Vec<Vec<String>> {
    let table = TableKey::new("db", "T", "");
    let info = |s: &Value| {
        let file = s["file"].as_str().unwrap();
        let id = u64::from_str_radix(&file[file.len() - 20..file.len() - 4], 16).unwrap();
        SegmentInfo {
            id: SegmentId(id),
            table: table.clone(),
            number: id,
            digest: 0,
            bytes: s["size"].as_u64().unwrap(),
            rows: 1,
            created_ms: 0,
            path: file.into(),
            file_name: file.to_owned(),
        }
    };
    let mut plan = Plan::new(limits);
    plan.offer(segments.iter().map(info));
    let mut cuts = Vec::new();
    while plan.pending() > 0 {
        let batch = plan.start(0, || [0; 16]).remove(0);
        cuts.push(batch.segments.iter().map(|s| s.file_name.clone()).collect());
        plan.ended(&batch.table, &batch.id, Ended::Landed, 0);
        let gone: Vec<SegmentId> = batch.segments.iter().map(|s| s.id).collect();
        plan.closed(&batch.table, &batch.id, &gone, (&[], 0), false);
    }
    cuts
}

/// What a segment's first line says about its columns.
#[test]
fn headers_name_columns() {
    let vectors = vectors("hash/series_and_schema.json");
    for case in vectors["unmarshal_schema"].as_array().unwrap() {
        let text = case["input"].as_str().unwrap();
        let read = parse_header(text.lines().next().unwrap_or_default().as_bytes());
        assert_eq!(read.is_err(), case["error"].is_string(), "{text:?}: {read:?}");
        let Ok(columns) = read else { continue };
        let mapping: Vec<Value> = serde_json::from_str(case["mapping_json"].as_str().unwrap()).unwrap();
        let expected: Vec<_> = mapping.iter().map(|c| (c["Column"].as_str().unwrap(), c["DataType"].as_str().unwrap())).collect();
        let got: Vec<_> = columns.iter().map(|column| (column.name.as_str(), column.kind.as_str())).collect();
        assert_eq!(got, expected, "{text:?}");
    }
}
