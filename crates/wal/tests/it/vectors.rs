//! The reference's files: what we read from them, and where we do better on purpose.

use std::path::Path;

use serde_json::Value;
use wal::segment::{self, FileName, NameError};

fn vectors() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors"))
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Readable blocks behind damage, which the reference never reaches: file and number of blocks.
const BEHIND_DAMAGE: [(&str, usize); 2] = [("crc_mismatch_middle.wal", 1), ("merged_with_torn_middle.wal", 4)];

#[test]
fn segments_read_as_the_reference_reads_them() {
    let dir = vectors();
    let dir = dir.join("wal");
    let manifest = json(&dir.join("manifest.json"));
    let mut seen = 0;
    for file in manifest["files"].as_array().unwrap() {
        let name = file["file"].as_str().unwrap();
        let image = std::fs::read(dir.join(name)).unwrap();
        assert_eq!(segment::is_segment(&image), file["is_segment"] == true, "{name}");
        if file["is_segment"] == false {
            let found = segment::verify(&image, true);
            assert!(found.good.is_empty() && !found.damaged.is_empty(), "{name}");
            continue;
        }
        check_blocks(name, &image, file);
        check_reader(name, &image, file);
        seen += 1;
    }
    assert!(seen >= 13);
}

fn check_blocks(name: &str, image: &[u8], file: &Value) {
    let mut value = Vec::new();
    let mut blocks = segment::blocks(image);
    for expected in file["blocks"].as_array().map(Vec::as_slice).unwrap_or_default() {
        let found = blocks.next().unwrap_or_else(|| panic!("{name}: a block is missing"));
        if expected["crc_ok"] != true {
            let damage = found.unwrap_err();
            assert_eq!(damage.offset as u64, expected["offset"].as_u64().unwrap(), "{name}");
            continue;
        }
        let block = found.unwrap();
        assert_eq!(block.offset as u64, expected["offset"].as_u64().unwrap(), "{name}");
        assert_eq!(block.payload().len() as u64, expected["length"].as_u64().unwrap(), "{name}");
        let decoded = block.decode(&mut value);
        if expected["decode_error"].is_string() {
            assert!(decoded.is_err(), "{name}");
            continue;
        }
        match (decoded.unwrap(), expected["sample_type"].as_u64()) {
            (Some(meta), Some(sample_type)) => {
                assert_eq!(u64::from(meta.sample_type), sample_type, "{name}");
                assert_eq!(u64::from(meta.rows), expected["sample_count"].as_u64().unwrap(), "{name}");
            }
            (None, None) => {}
            other => panic!("{name}: {other:?}"),
        }
        if let Some(text) = expected["value"].as_str() {
            assert_eq!(String::from_utf8_lossy(&value), text, "{name}");
        }
    }
}

/// Where the reference stops at damage we go on behind it: our text begins with its text.
fn check_reader(name: &str, image: &[u8], file: &Value) {
    let better = BEHIND_DAMAGE.iter().find(|(defect, _)| *defect == name);
    for (skip, field) in [(false, "reader_full"), (true, "reader_skip_first_line_of_each_block")] {
        let Some(expected) = file[field].as_str() else { continue };
        let ours = segment::values(image, skip);
        match better {
            None => assert_eq!(String::from_utf8_lossy(&ours), expected, "{name} {field}"),
            Some(_) => assert!(ours.starts_with(expected.as_bytes()) && ours.len() > expected.len(), "{name} {field}"),
        }
    }
    let reached = file["iterator"]["values"].as_array().map_or(0, Vec::len);
    let found = segment::verify(image, true);
    assert_eq!(found.blocks, reached + better.map_or(0, |(_, more)| *more), "{name}");
    // The reference appends stray bytes that hide later blocks, and blocks that are not S2; we keep only
    // what can be read.
    let appended = file["append"]["bytes_appended"].as_u64().unwrap();
    match name {
        "trailing_zeros.wal" | "trailing_partial_header.wal" | "crc_ok_not_s2.wal" => {
            assert!((found.good_bytes() as u64) < appended, "{name}");
        }
        _ if appended > 0 => assert_eq!(found.good_bytes() as u64, appended, "{name}"),
        _ => {}
    }
}

#[test]
fn the_worked_example_verifies() {
    let dir = vectors();
    let image = std::fs::read(dir.join("wal/tiny.wal")).unwrap();
    let found = segment::verify(&image, false);
    assert!(found.is_intact());
    assert_eq!((found.blocks, found.rows), (2, 2));
}

#[test]
fn file_names_parse_and_format() {
    let dir = vectors();
    let names = json(&dir.join("filename/filenames.json"));
    for case in names["decode"].as_array().unwrap() {
        let path = case["path"].as_str().unwrap();
        match (FileName::parse(path), case["error"].as_str()) {
            (Ok(name), None) => {
                assert_eq!(name.database, case["database"].as_str().unwrap(), "{path}");
                assert_eq!(name.table, case["table"].as_str().unwrap(), "{path}");
                assert_eq!(name.schema.as_deref().unwrap_or(""), case["schema"].as_str().unwrap(), "{path}");
                assert_eq!(name.epoch, case["epoch"].as_str().unwrap(), "{path}");
            }
            (Err(error), Some(expected)) => assert_eq!(error.to_string(), expected, "{path}"),
            other => panic!("{path}: {other:?}"),
        }
    }
    for case in names["encode"].as_array().unwrap() {
        let part = |field: &str| case[field].as_str().unwrap().to_owned();
        let name = FileName { database: part("database"), table: part("table"), schema: Some(part("schema")), epoch: part("epoch") };
        assert_eq!(name.to_string(), part("filename"));
    }
    assert_eq!(FileName::parse("Metrics_Cpu_123.csv"), Err(NameError::Extension));
}

#[test]
fn flake_ids_tell_their_time() {
    let dir = vectors();
    for case in json(&dir.join("filename/filenames.json"))["flake_id_to_time"].as_array().unwrap() {
        let id = case["id"].as_str().unwrap();
        let expected = case["created_at"].as_str().map(nanoseconds);
        assert_eq!(segment::created_ns(id), expected, "{id}");
    }
}

/// RFC 3339 in UTC to nanoseconds since 1970, by counting days.
fn nanoseconds(text: &str) -> i128 {
    let number = |range: std::ops::Range<usize>| text[range].parse::<i64>().unwrap();
    let (year, month, day) = (number(0..4), number(5..7), number(8..10));
    let leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let mut days: i64 = (1970..year).map(|year| if leap(year) { 366 } else { 365 }).sum();
    let lengths = [31, if leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    days += lengths[..month as usize - 1].iter().sum::<i64>() + day - 1;
    let seconds = days * 86400 + number(11..13) * 3600 + number(14..16) * 60 + number(17..19);
    let fraction = text[19..].trim_end_matches('Z').trim_start_matches('.');
    let nanos = format!("{fraction:0<9}").parse::<i128>().unwrap();
    i128::from(seconds) * 1_000_000_000 + nanos
}

/// Segments as the reference's collector wrote them: every block begins with the header, type and count are absent.
#[test]
fn segments_of_the_references_collector_are_read() {
    let dir = vectors();
    let dir = dir.join("collector/wal_samples");
    let decoded = json(&dir.join("decoded.json"));
    for (name, text) in decoded.as_object().unwrap() {
        let image = std::fs::read(dir.join(name)).unwrap();
        assert!(segment::is_segment(&image) && segment::verify(&image, true).is_intact(), "{name}");
        assert_eq!(String::from_utf8(segment::values(&image, false)).unwrap(), text.as_str().unwrap(), "{name}");
        let headers = text.as_str().unwrap().lines().filter(|line| line.starts_with("Timestamp:datetime,")).count() as u64;
        let lines = text.as_str().unwrap().lines().count() as u64;
        assert_eq!(segment::verify(&image, true).rows, lines - headers, "{name}");
        let parsed = FileName::parse(name).unwrap();
        assert_eq!(parsed.to_string(), *name);
    }
    assert_eq!(decoded.as_object().unwrap().len(), 3);
}
