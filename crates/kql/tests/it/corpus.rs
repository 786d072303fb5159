//! The recorded cases: nearly all of them parse, and what binds has the columns and types that Kusto gave.

use std::path::PathBuf;

use kql::{BindOptions, DiagnosticKind, EmptyCatalog, bind, parse};
use serde_json::Value as Json;

/// The cases recorded from Microsoft's engine; None when the folder is not there and need not be.
fn cases() -> Option<Vec<Json>> {
    let folder = std::env::var_os("ADXMON_KQL_CASES")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/kql-cases")), PathBuf::from);
    let Ok(text) = std::fs::read_to_string(folder.join("cases.jsonl")) else {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "no KQL cases in {}", folder.display());
        eprintln!("skipped: no KQL cases in {}", folder.display());
        return None;
    };
    let all = text.lines().map(|line| serde_json::from_str(line).unwrap());
    Some(all.filter(|case: &Json| case["authority"].as_str().is_some_and(|a| a.starts_with("emulator"))).collect())
}

#[test]
fn at_least_95_percent_parse() {
    let Some(cases) = cases() else { return };
    let mut refused = Vec::new();
    for case in &cases {
        let text = case["query"].as_str().unwrap();
        if let Some(first) = parse(text).diagnostics.first() {
            refused.push(format!("{}: {first}", case["id"]));
        }
    }
    let share = 100.0 * (cases.len() - refused.len()) as f64 / cases.len() as f64;
    println!("{share:.1} % of {} cases parse", cases.len());
    assert!(share >= 95.0, "only {share:.1} % parse: {refused:#?}");
}

#[test]
fn bound_columns_are_those_recorded() {
    let Some(cases) = cases() else { return };
    let (mut bound, mut wrong, mut recorded) = (0usize, Vec::new(), 0usize);
    for case in &cases {
        let expected = &case["expected"];
        let Some(names) = expected["columns"].as_array() else { continue };
        recorded += 1;
        let options = BindOptions { now: 639_028_224_000_000_000, database: "Db".into(), ..BindOptions::default() };
        let text = case["query"].as_str().unwrap();
        let query = match bind(text, &EmptyCatalog, &options) {
            Ok(query) => query,
            Err(diagnostics) => {
                // a refusal says what it is about, in the text
                for diagnostic in diagnostics {
                    assert!(diagnostic.span.end <= text.len() && !diagnostic.message.is_empty());
                    assert!(diagnostic.kind != DiagnosticKind::Unsupported || diagnostic.message.ends_with("is not supported"));
                }
                continue;
            }
        };
        bound += 1;
        let types = expected["types"].as_array().cloned().unwrap_or_default();
        let columns = &query.results[0].columns;
        let same = columns.len() == names.len()
            && columns.iter().zip(names).all(|(c, name)| Some(c.name.as_str()) == name.as_str())
            && columns.iter().zip(&types).all(|(c, ty)| ty.as_str().is_some_and(|t| t.split('|').any(|t| t == c.ty.name())));
        if !same {
            wrong.push(format!("{}: {columns:?} expected {names:?} {types:?}", case["id"]));
        }
    }
    println!("{bound} of {recorded} cases bind, {} with other columns", wrong.len());
    assert!(wrong.len() * 100 <= bound, "columns differ: {wrong:#?}");
    assert!(bound * 100 >= recorded * 75, "only {bound} of {recorded} cases bind");
}
