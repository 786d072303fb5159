//! The reference's vectors of metric rows, against the encoder itself: some give labels in an order, or without a
//! name, that no intake would pass on.

#![allow(clippy::unwrap_used)]

#[path = "../../tests/it/vector_files.rs"]
mod vector_files;

use super::series::{Encoder, Sample};
use crate::labels::Labels;
use crate::{Lift, MetricIntake, rules::MetricRules};
use serde_json::Value;
use vector_files::{vector_bytes, vectors};

/// Rows of `series` with our encoder, labels in the order given.
fn encode(labels: &[(Vec<u8>, Vec<u8>)], samples: &[(i64, f64)], lifts: &[String]) -> (Vec<u8>, MetricIntake) {
    let lifts = lifts.iter().map(|name| Lift { name: name.clone(), column: None }).collect();
    let intake = MetricIntake::new("Metrics", MetricRules::default(), lifts);
    let mut set = Labels::default();
    for (name, value) in labels {
        set.push_held(name, value);
    }
    let mut encoder = Encoder::default();
    encoder.labels(&set, &[], &intake.lifted);
    let mut rows = Vec::new();
    for &(timestamp_ms, value) in samples {
        encoder.row(&mut rows, Sample { timestamp_ms, value });
    }
    (rows, intake)
}

fn records(csv: &[u8]) -> Vec<Vec<String>> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(csv);
    reader.records().map(|record| record.unwrap().iter().map(str::to_owned).collect()).collect()
}

/// The reference rounds to nine decimals.
fn same_value(ours: &str, theirs: &str, exact: f64) -> bool {
    let (ours, theirs): (f64, f64) = (ours.parse().unwrap(), theirs.parse().unwrap());
    if exact.is_nan() {
        return ours.is_nan() && theirs.is_nan();
    }
    ours.to_bits() == exact.to_bits() && (theirs == exact || (theirs - exact).abs() <= 0.5e-9)
}

#[test]
fn csv_metrics_agree() {
    let file = vectors("csv/metrics.json");
    for case in file["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let labels: Vec<_> = list(&case["labels"]).iter().map(|l| (vector_bytes(&l["name"]), vector_bytes(&l["value"]))).collect();
        let samples: Vec<_> = list(&case["samples"])
            .iter()
            .map(|sample| {
                let bits = u64::from_str_radix(sample["value_bits_hex"].as_str().unwrap(), 16).unwrap();
                (sample["timestamp_ms"].as_i64().unwrap(), f64::from_bits(bits))
            })
            .collect();
        let lifts: Vec<_> = list(&case["lifted_labels"]).iter().map(|l| l.as_str().unwrap().to_owned()).collect();
        let (rows, intake) = encode(&labels, &samples, &lifts);
        check(name, &rows, &intake, &vector_bytes(&case["csv"]), &samples);
        if name != "lifted_not_in_header" {
            assert_eq!(&*intake.schema.hash, case["schema_hash_base36"].as_str().unwrap(), "{name}");
        }
    }
}

#[test]
fn collector_metrics_agree() {
    let file = vectors("collector/csv.json");
    for case in file["metrics"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let pair = |label: &Value| (vector_bytes(&label[0]), vector_bytes(&label[1]));
        let labels: Vec<_> = case["series"]["labels"].as_array().unwrap().iter().map(pair).collect();
        let number = |value: &Value| value.as_f64().unwrap_or_else(|| value.as_str().unwrap().parse().unwrap());
        let sample = |sample: &Value| (sample[0].as_i64().unwrap(), number(&sample[1]));
        let samples: Vec<_> = case["series"]["samples"].as_array().unwrap().iter().map(sample).collect();
        let lifts: Vec<_> = case["lift"].as_array().into_iter().flatten().map(|l| l.as_str().unwrap().to_owned()).collect();
        let (rows, intake) = encode(&labels, &samples, &lifts);
        check(name, &rows, &intake, &vector_bytes(&case["csv"]), &samples);
    }
}

fn check(name: &str, rows: &[u8], intake: &MetricIntake, csv: &[u8], samples: &[(i64, f64)]) {
    let header_end = memchr::memchr(b'\n', csv).unwrap() + 1;
    if name != "lifted_not_in_header" {
        assert_eq!(&*intake.schema.header, &csv[..header_end], "{name}");
    }
    if matches!(name, "lifted_value_not_quoted" | "lifted value with comma") {
        // Defect: the reference's row is not CSV. Ours is, and holds the value.
        let value = if name == "lifted_value_not_quoted" { "a,\"b" } else { "x,y" };
        assert_eq!(records(rows)[0].last().unwrap(), value);
        return;
    }
    let (ours, theirs) = (records(rows), records(&csv[header_end..]));
    assert_eq!(ours.len(), theirs.len(), "{name}");
    for ((ours, theirs), sample) in ours.iter().zip(&theirs).zip(samples) {
        let mut theirs = theirs.clone();
        match name {
            // Defect: the reference looks for lifted labels in one pass and so misses those out of order.
            "lifted_unsorted_labels" => (theirs[2], theirs[4]) = ("{}".into(), "h".into()),
            "lifted_first_and_last" => theirs[4] = "1".into(),
            _ => {}
        }
        assert_eq!(ours[..3], theirs[..3], "{name}");
        assert!(same_value(&ours[3], &theirs[3], sample.1), "{name}: {} {}", ours[3], theirs[3]);
        assert_eq!(ours[4..], theirs[4..], "{name}");
    }
}

/// Names that differ in what normalisation removes share a table, in one request, in the next, and in a set of rows that
/// holds tables already.
#[test]
fn each_table_stands_once_in_the_rows_of_a_request() {
    let intake = MetricIntake::new("M", MetricRules::default(), Vec::new());
    let series = |name: &str| crate::client::Series { labels: vec![("__name__".to_owned(), name.to_owned())], samples: vec![(0, 1.0)] };
    let body = crate::client::remote_write_body(&["a_b", "c", "aB", "c", "a_b"].map(series));
    let tables = |rows: &crate::RowSet| rows.tables().iter().map(|t| (t.table.to_string(), t.rows)).collect::<Vec<_>>();
    for _ in 0..2 {
        let mut rows = crate::RowSet::new();
        assert_eq!(intake.remote_write(&body, &mut rows).unwrap().accepted, 5);
        assert_eq!(tables(&rows), [("AB".to_owned(), 3), ("C".to_owned(), 2)]);
        assert_eq!(intake.remote_write(&body, &mut rows).unwrap().accepted, 5);
        assert_eq!(tables(&rows), [("AB".to_owned(), 6), ("C".to_owned(), 4)]);
        rows.clear();
        assert_eq!(intake.remote_write(&body, &mut rows).unwrap().accepted, 5);
        assert_eq!(tables(&rows), [("AB".to_owned(), 3), ("C".to_owned(), 2)]);
    }
}
