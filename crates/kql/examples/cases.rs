//! Binds and runs KQL cases in this process and compares with the recorded answers.
//!
//! `cargo run -p kql --example cases -- CASES.jsonl [--fails FILE] [--only TEXT]`. The comparison is that of the
//! acceptance script: names and order of columns, types, rows as a multiset unless the case is ordered, reals to 1e-6
//! (5 % for approximate ones), dynamic values as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};

use kql::eval::EvalContext;
use kql::rows::{self, NoTables, RunContext};
use kql::{BindOptions, EmptyCatalog, Type, Value};
use serde_json::Value as Json;

/// 2026-01-01T00:00:00Z
const NOW: i64 = 639_028_224_000_000_000;

enum Verdict {
    Pass,
    Wrong(String),
    Refused(String),
}

struct Answer {
    columns: Vec<String>,
    types: Vec<Type>,
    rows: Vec<Vec<Json>>,
}

fn main() {
    // deep plans recurse: give the run the stack that a server thread would have
    let worker = std::thread::Builder::new().stack_size(64 << 20).spawn(run_all);
    if let Ok(worker) = worker {
        let _ = worker.join();
    }
}

fn run_all() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let option = |name: &str| arguments.iter().position(|a| a == name).and_then(|at| arguments.get(at + 1)).cloned();
    let Some(path) = arguments.first() else {
        eprintln!("usage: cases CASES.jsonl [--fails FILE] [--only TEXT]");
        return;
    };
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            eprintln!("cannot read {path}: {error}");
            return;
        }
    };
    let only = option("--only");
    let mut fails = option("--fails").and_then(|path| std::fs::File::create(path).ok());
    let mut counts = [0usize; 3];
    let mut by_operator: BTreeMap<String, [usize; 3]> = BTreeMap::new();
    for line in text.lines() {
        let Ok(case) = serde_json::from_str::<Json>(line) else { continue };
        let query = case["query"].as_str().unwrap_or_default();
        if !case["authority"].as_str().is_some_and(|a| a.starts_with("emulator")) {
            continue;
        }
        if only.as_ref().is_some_and(|only| !query.contains(only.as_str()) && case["id"] != Json::String(only.clone())) {
            continue;
        }
        let verdict = catch_unwind(AssertUnwindSafe(|| judge(&case, query))).unwrap_or_else(|_| Verdict::Wrong("panic".to_owned()));
        let (index, kind, why) = match verdict {
            Verdict::Pass => (0, "pass", String::new()),
            Verdict::Wrong(why) => (1, "wrong", why),
            Verdict::Refused(why) => (2, "refused", why),
        };
        counts[index] += 1;
        for operator in case["operators"].as_array().into_iter().flatten().filter_map(Json::as_str) {
            by_operator.entry(operator.to_owned()).or_default()[index] += 1;
        }
        if index > 0
            && let Some(file) = &mut fails
        {
            let line = serde_json::json!({"kind": kind, "why": why, "query": query, "id": case["id"]});
            let _ = writeln!(file, "{line}");
        }
    }
    for (operator, [pass, wrong, refused]) in by_operator {
        println!("  {operator:18} pass {pass:4} wrong {wrong:4} refused {refused:4}");
    }
    let total = counts.iter().sum::<usize>().max(1);
    let share = |n: usize| 100.0 * n as f64 / total as f64;
    let [pass, wrong, refused] = counts.map(share);
    println!("pass {pass:.1} % wrong {wrong:.1} % refused {refused:.1} % of {total}");
}

fn judge(case: &Json, query: &str) -> Verdict {
    let answer = match run(query) {
        Ok(answer) => answer,
        Err(why) => return Verdict::Refused(why),
    };
    let tolerance = if case["approximate"] == Json::Bool(true) { 0.05 } else { 1e-6 };
    let expected = &case["expected"];
    let verdict = match case["form"].as_str() {
        Some("typed" | "typed-coarse") => compare(&answer, expected, case["ordered"] == Json::Bool(true), tolerance),
        _ => compare_literal(&answer, &expected["literal"], case["accessor"].as_str().unwrap_or(""), tolerance),
    };
    verdict.map_or_else(Verdict::Wrong, |()| Verdict::Pass)
}

fn run(query: &str) -> Result<Answer, String> {
    let options = BindOptions { now: NOW, database: "NetDefaultDB".into(), ..BindOptions::default() };
    let bound =
        kql::bind(query, &EmptyCatalog, &options).map_err(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))?;
    let rel = bound.results.first().ok_or("no result")?;
    let mut context = RunContext::new(&NoTables, EvalContext::new(NOW));
    let found = rows::run(rel, &mut context).map_err(|e| e.to_string())?;
    let types: Vec<Type> = found.columns.iter().map(|c| c.ty).collect();
    let rows = found.rows.iter().map(|row| row.iter().zip(&types).map(|(v, ty)| to_json(v, *ty)).collect()).collect();
    Ok(Answer { columns: found.columns.into_iter().map(|c| c.name).collect(), types, rows })
}

/// A value as the protocol encodes it.
fn to_json(value: &Value, ty: Type) -> Json {
    match value {
        Value::Null if ty == Type::String => Json::String(String::new()),
        Value::Null => Json::Null,
        Value::Bool(b) => Json::Bool(*b),
        Value::Int(n) => (*n).into(),
        Value::Long(n) => (*n).into(),
        Value::Real(x) if x.is_finite() => (*x).into(),
        Value::Real(x) if x.is_nan() => "NaN".into(),
        Value::Real(x) => if *x > 0.0 { "Infinity" } else { "-Infinity" }.into(),
        Value::Dynamic(inner) => serde_json::from_str(&inner.to_json()).unwrap_or(Json::Null),
        Value::String(text) => Json::String(text.to_string()),
        other => Json::String(other.to_text()),
    }
}

fn compare(answer: &Answer, expected: &Json, ordered: bool, tolerance: f64) -> Result<(), String> {
    let columns: Vec<&str> = strings(&expected["columns"]);
    if answer.columns != columns {
        return Err(format!("columns {:?} expected {columns:?}", answer.columns));
    }
    let types = strings(&expected["types"]);
    for (found, wanted) in answer.types.iter().zip(&types) {
        if !wanted.split('|').any(|w| w == found.name() || (w == "real" && found.name() == "double")) {
            return Err(format!("types {:?} expected {types:?}", answer.types));
        }
    }
    let canonical = |row: &[Json]| -> Vec<Json> { row.iter().zip(&types).map(|(v, ty)| canon(v, ty)).collect() };
    let want: Vec<Vec<Json>> =
        expected["rows"].as_array().into_iter().flatten().map(|r| canonical(r.as_array().map_or(&[], |v| v))).collect();
    let got: Vec<Vec<Json>> = answer.rows.iter().map(|r| canonical(r)).collect();
    if got.len() != want.len() {
        return Err(format!("{} rows, expected {}", got.len(), want.len()));
    }
    let same = |a: &[Json], b: &[Json]| a.len() == b.len() && a.iter().zip(b).all(|(x, y)| equal(x, y, tolerance));
    if ordered {
        return match got.iter().zip(&want).find(|(g, w)| !same(g, w)) {
            Some((g, w)) => Err(short(g, w)),
            None => Ok(()),
        };
    }
    let mut rest = want;
    for row in &got {
        match rest.iter().position(|w| same(row, w)) {
            Some(at) => drop(rest.remove(at)),
            None => return Err(short(row, rest.first().map_or(&[], |r| r))),
        }
    }
    Ok(())
}

fn short(got: &[Json], want: &[Json]) -> String {
    let mut text = String::new();
    let _ = write!(text, "row {} expected {}", Json::from(got.to_vec()), Json::from(want.to_vec()));
    text.chars().take(600).collect()
}

fn strings(list: &Json) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(Json::as_str).collect()
}

/// Brings times to ticks, numbers to doubles, JSON text to JSON.
fn canon(value: &Json, ty: &str) -> Json {
    let first = ty.split('|').next().unwrap_or(ty);
    match (first, value) {
        (_, Json::Null) => Json::Null,
        ("dynamic", Json::String(text)) => dynamic(&serde_json::from_str(text).unwrap_or_else(|_| value.clone())),
        ("dynamic", other) => dynamic(other),
        ("datetime" | "timespan", Json::String(_)) => dynamic(value),
        ("bool", Json::String(text)) => Json::Bool(text.eq_ignore_ascii_case("true")),
        ("real" | "decimal" | "double" | "int" | "long", Json::String(text)) => match text.as_str() {
            "NaN" | "nan" => "NaN".into(),
            "Infinity" | "inf" | "+inf" | "∞" => "Infinity".into(),
            "-Infinity" | "-inf" | "-∞" => "-Infinity".into(),
            number => number.parse::<f64>().map_or_else(|_| value.clone(), Json::from),
        },
        ("guid", Json::String(text)) => Json::String(text.to_lowercase()),
        _ => value.clone(),
    }
}

fn dynamic(value: &Json) -> Json {
    match value {
        Json::String(text) => time_text(text).unwrap_or_else(|| value.clone()),
        Json::Array(items) => items.iter().map(dynamic).collect(),
        Json::Object(map) => map.iter().map(|(k, v)| (k.clone(), dynamic(v))).collect(),
        other => other.clone(),
    }
}

/// Text that looks like a datetime or timespan, in one form.
fn time_text(text: &str) -> Option<Json> {
    let is_time = text.len() >= 8 && text.contains(':') && text.starts_with(|c: char| c.is_ascii_digit() || c == '-');
    if !is_time {
        return None;
    }
    if let Some(ticks) = kql::value::parse_timespan(text) {
        return Some(serde_json::json!({ "timespan": ticks }));
    }
    (text.as_bytes().get(4) == Some(&b'-')).then(|| kql::value::parse_datetime(text))?.map(|t| serde_json::json!({ "datetime": t }))
}

fn equal(a: &Json, b: &Json, tolerance: f64) -> bool {
    match (a, b) {
        (Json::Number(x), Json::Number(y)) => {
            let (x, y) = (x.as_f64().unwrap_or(f64::NAN), y.as_f64().unwrap_or(f64::NAN));
            let floor = if tolerance < 1e-3 { 1.0 } else { 0.0 };
            x == y || (x - y).abs() <= tolerance * x.abs().max(y.abs()).max(floor)
        }
        (Json::Bool(x), Json::Number(y)) | (Json::Number(y), Json::Bool(x)) => y.as_f64() == Some(f64::from(u8::from(*x))),
        (Json::Array(x), Json::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(x, y)| equal(x, y, tolerance)),
        (Json::Object(x), Json::Object(y)) => x.len() == y.len() && x.iter().all(|(k, v)| y.get(k).is_some_and(|w| equal(v, w, tolerance))),
        _ => a == b,
    }
}

/// Cases stated as a literal, whose shape depends on how the third party read it.
fn compare_literal(answer: &Answer, literal: &Json, accessor: &str, tolerance: f64) -> Result<(), String> {
    let want = dynamic(literal);
    let rows: Vec<Json> = answer
        .rows
        .iter()
        .map(|row| {
            let cells = row.iter().zip(&answer.types);
            cells.map(|(v, ty)| if *ty == Type::Dynamic { canon(v, "dynamic") } else { dynamic(v) }).collect()
        })
        .collect();
    let got = match accessor {
        "_one" | "_json" => rows.first().and_then(|r| r.get(0)).cloned().unwrap_or(Json::Null),
        "row" => rows.first().cloned().unwrap_or(Json::Null),
        "_cols" | "names" => answer.columns.iter().map(|c| Json::String(c.clone())).collect(),
        "param" if !literal.get(0).is_some_and(Json::is_array) => match literal {
            Json::Array(_) => rows.iter().map(|r| r.get(0).cloned().unwrap_or(Json::Null)).collect(),
            _ => rows.first().and_then(|r| r.get(0)).cloned().unwrap_or(Json::Null),
        },
        _ => Json::Array(rows),
    };
    let want = if accessor == "_json" { canon(literal, "dynamic") } else { want };
    if equal(&got, &want, tolerance) || same_members(&got, &want) {
        return Ok(());
    }
    Err(format!("{got} expected {want}").chars().take(400).collect())
}

fn same_members(a: &Json, b: &Json) -> bool {
    let sorted = |json: &Json| {
        let mut items: Vec<String> = json.as_array()?.iter().map(ToString::to_string).collect();
        items.sort();
        Some(items)
    };
    sorted(a).is_some() && sorted(a) == sorted(b)
}
