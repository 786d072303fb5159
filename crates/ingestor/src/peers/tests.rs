//! Owners, divisions and routes, against the vectors and by hand.

#![allow(clippy::unwrap_used)]

use serde_json::Value;
use transfer::machine::Route;
use wal::{SegmentId, SegmentInfo, TableKey};

use super::*;

fn vectors(file: &str) -> Value {
    let path = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/partition")).join(file);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn owners_are_those_of_the_reference() {
    let mut compared = 0;
    for case in vectors("owners.json")["cases"].as_array().unwrap() {
        let nodes: Vec<&str> = case["nodes"].as_array().unwrap().iter().map(|node| node.as_str().unwrap()).collect();
        for expected in case["owners"].as_array().unwrap() {
            let key = expected["key"].as_str().unwrap();
            let found = owner(key, nodes.iter().copied()).unwrap_or_default();
            assert_eq!(found, expected["owner"].as_str().unwrap(), "{key} {nodes:?}");
            // The order in which nodes are known has no influence.
            assert_eq!(owner(key, nodes.iter().rev().copied()).unwrap_or_default(), found);
            compared += 1;
        }
    }
    assert!(compared >= 60, "{compared}");
}

#[test]
fn a_node_that_goes_moves_its_own_tables_only() {
    let nodes = ["ingestor-0", "ingestor-1", "ingestor-2", "ingestor-3"];
    for table in 0..500 {
        let key = format!("Metrics_Table{table}_2cawzsrvl4mw4");
        let before = owner(&key, nodes).unwrap();
        let after = owner(&key, nodes.into_iter().filter(|node| *node != "ingestor-2")).unwrap();
        assert!(before == after || before == "ingestor-2");
    }
}

#[test]
fn tables_are_hashed_by_the_beginning_of_their_file_names() {
    assert_eq!(hash_key(&TableKey::new("Metrics", "Cpu", "")), "Metrics_Cpu");
    assert_eq!(hash_key(&TableKey::new("Metrics", "Cpu", "1yz3k")), "Metrics_Cpu_1yz3k");
}

const NOW: u64 = 1_760_000_000_000;

fn segment(id: u64, bytes: u64, age_ms: u64) -> SegmentInfo {
    SegmentInfo {
        id: SegmentId(id),
        table: TableKey::new("db", "A", ""),
        number: id,
        digest: 0,
        bytes,
        rows: 1,
        created_ms: NOW - age_ms,
        path: format!("{id:016x}").into(),
        file_name: format!("db_A_{id:016x}.wal"),
    }
}

/// Every case of a table that a peer owns: what is passed on is the same. What is uploaded is the same too; in how many
/// uploads is the plan's concern (`aged_segments_each_own_batch` is a defect: a backlog loses batching).
#[test]
fn what_is_passed_on_is_what_the_reference_passes_on() {
    let mut compared = 0;
    for case in vectors("batching.json")["cases"].as_array().unwrap() {
        let Some(owners) = case["owner_by_prefix"].as_object() else { continue };
        let mut segments: Vec<SegmentInfo> = Vec::new();
        for entry in case["segments"].as_array().unwrap() {
            assert!(owners.contains_key(entry["prefix"].as_str().unwrap()));
            let file = entry["file"].as_str().unwrap();
            let id = u64::from_str_radix(&file[file.len() - 20..file.len() - 4], 16).unwrap();
            segments.push(segment(id, entry["size"].as_u64().unwrap(), entry["age_seconds"].as_u64().unwrap() * 1000));
        }
        segments.sort_by_key(|segment| segment.id);
        let limits = Limits {
            max_segments: case["max_batch_segments"].as_u64().unwrap() as usize,
            max_bytes: case["max_transfer_size"].as_u64().unwrap().min(case["min_upload_size"].as_u64().unwrap()),
            max_age_ms: case["max_transfer_age_s"].as_u64().unwrap() * 1000,
        };
        let here = uploaded_here(&segments, limits, NOW);
        let healthy = case["unhealthy_peers"].is_null() && case["transfers_disabled"] == false;
        let passed_on: Vec<String> = segments[here..].iter().filter(|_| healthy).map(|s| s.file_name.clone()).collect();
        let queue = case["transfer_queue"].as_array().unwrap().iter();
        let expected: Vec<String> =
            queue.flat_map(|batch| batch["files"].as_array().unwrap()).map(|f| f.as_str().unwrap().to_owned()).collect();
        assert_eq!(passed_on, expected, "{}", case["name"]);
        compared += 1;
    }
    assert!(compared >= 8, "{compared}");
}

fn routing(members: &str, own: &str, started_ms: u64) -> Routing {
    let limits = Limits { max_segments: 25, max_bytes: 1000, max_age_ms: 90_000 };
    let (_, members) = watch::channel(parse(members).unwrap());
    Routing { own: own.to_owned(), members, limits, started_ms, arrivals: Arrivals::new(180_000, Arc::new(|| NOW - 5000)) }
}

const THREE: &str = "ingestor-0=http://0,ingestor-1=http://1,ingestor-2=http://2";

#[test]
fn a_segment_goes_to_the_owner_of_its_table_unless_it_is_large_old_or_came_that_way() {
    let table = TableKey::new("db", "A", "");
    let owner = owner("db_A", ["ingestor-0", "ingestor-1", "ingestor-2"]).unwrap();
    let other = ["ingestor-0", "ingestor-1", "ingestor-2"].into_iter().find(|name| *name != owner).unwrap();
    let of = |routing: &Routing, segment: SegmentInfo| routing.of_table(&table, &[segment], NOW).remove(0);

    let here = Route::Keep("its table is owned here");
    assert_eq!(of(&routing(THREE, owner, 0), segment(1, 10, 1000)), here);
    assert_eq!(of(&routing(&format!("{other}=http://x"), other, 0), segment(1, 10, 1000)), here, "alone");
    // Whoever is not among the members owns nothing.
    assert!(matches!(of(&routing(THREE, "ingestor-9", 0), segment(1, 10, 1000)), Route::To { .. }));

    let routing = routing(THREE, other, NOW - 60_000);
    let route = Route::To { endpoint: owner.into(), until: NOW - 1000 + 90_000 };
    assert_eq!(of(&routing, segment(1, 10, 1000)), route);
    assert_eq!(of(&routing, segment(1, 1000, 1000)), Route::Keep("there is much of it, or it is old"));
    assert_eq!(of(&routing, segment(1, 10, 90_001)), Route::Keep("there is much of it, or it is old"));
    assert_eq!(of(&routing, segment(1, 10, 60_001)), Route::Keep("it was here before the start"));
    // Rows of a peer came five seconds ago.
    drop(routing.arrivals.begin(vec![table.clone()]));
    assert_eq!(of(&routing, segment(1, 10, 5000)), Route::Keep("a peer sent it"));
    assert!(matches!(of(&routing, segment(1, 10, 4999)), Route::To { .. }));
}

/// Two that each take the other for the owner: what one passes to the other stays there.
#[test]
fn nothing_goes_back_and_forth_between_two_views() {
    let table = TableKey::new("db", "A", "");
    let one = routing("b=http://b,x=http://x", "a", 0);
    let two = routing("a=http://a", "b", 0);
    let sent = one.of_table(&table, &[segment(1, 10, 4000)], NOW).remove(0);
    assert!(matches!(sent, Route::To { .. }), "{sent:?}");
    drop(two.arrivals.begin(vec![table.clone()]));
    assert_eq!(two.of_table(&table, &[segment(7, 10, 6000)], NOW), [Route::Keep("a peer sent it")]);
}
