//! The public cases, run by the engine without its shortcut and by the row interpreter: same tables or same refusal.
//! Whether those tables are what Kusto answers is the business of `cargo xtask kql-cases`.

use std::path::PathBuf;
use std::sync::Arc;

use super::{Fixture, Stored, bind, canonical_table, engine_rows, interpreted, limits};

fn cases() -> Option<String> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/kql-cases");
    let folder = std::env::var_os("ADXMON_KQL_CASES").map_or_else(|| PathBuf::from(default), PathBuf::from);
    std::fs::read_to_string(folder.join("cases.jsonl")).ok()
}

#[test]
fn self_contained_queries_agree_with_the_row_interpreter() {
    let Some(cases) = cases() else {
        assert!(std::env::var_os("CI").is_none(), "the folder of KQL cases is missing; set ADXMON_KQL_CASES");
        eprintln!("skipped: the folder of KQL cases is missing");
        return;
    };
    let fixture = Fixture::new();
    let source = Arc::new(Stored(fixture.provider()));
    let (mut compared, mut failures) = (0, Vec::new());
    for line in cases.lines() {
        let case: serde_json::Value = serde_json::from_str(line).unwrap();
        let text = case["query"].as_str().unwrap();
        let unstable = ["nondeterministic", "approximate"].iter().any(|flag| case[flag] == true);
        let Ok(query) = bind(&fixture, text) else { continue };
        if unstable || text.contains("rand(") || text.contains("new_guid") {
            continue;
        }
        let Ok(expected) = interpreted(&query, &fixture) else { continue };
        compared += 1;
        let id = case["id"].as_str().unwrap();
        match engine_rows(&query, source.clone(), limits()) {
            Err(why) => failures.push(format!("{id} fails: {why}")),
            Ok(actual) => {
                let differ = expected.iter().zip(&actual).find(|(e, a)| canonical_table(e, false) != canonical_table(a, false));
                if let Some((expected, actual)) = differ {
                    let (e, a) = (canonical_table(expected, false), canonical_table(actual, false));
                    let at = e.iter().zip(&a).position(|(e, a)| e != a).unwrap_or(0);
                    let rows = (e.len(), a.len());
                    failures.push(format!("{id} differs: rows {rows:?}\n  expected {:?}\n  actual   {:?}", e.get(at), a.get(at)));
                }
            }
        }
    }
    eprintln!("{compared} cases compared");
    assert!(compared > 500, "only {compared} cases could be bound");
    assert!(failures.is_empty(), "{} of {compared} cases:\n{}", failures.len(), failures.join("\n"));
}
