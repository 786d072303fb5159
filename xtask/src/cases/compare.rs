//! Compares a table of the v1 query endpoint with the recorded answer of a case.
//!
//! Reals agree to 1e-6 (approximate cases to 5 %), dynamic values as JSON, null and the empty string are the same where
//! the type cannot tell them apart; rows are a multiset unless the case is ordered.

use serde_json::Value;

/// Whether the table answers the case; otherwise what differs.
pub(super) fn compare(case: &Value, table: &Value) -> Result<(), String> {
    let tolerance = if case["approximate"] == true { 0.05 } else { 1e-6 };
    let columns: Vec<&str> = strings(&table["Columns"], "ColumnName");
    let types: Vec<&str> = strings(&table["Columns"], "ColumnType");
    let rows = rows(&table["Rows"])?;
    let expected = &case["expected"];
    if !matches!(case["form"].as_str(), Some("typed" | "typed-coarse")) {
        return literal(case, &columns, &types, &rows, tolerance);
    }
    let want_columns: Vec<&str> = expected["columns"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if columns != want_columns {
        return Err(format!("columns {columns:?}, expected {want_columns:?}"));
    }
    let want_types: Vec<&str> = expected["types"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let agrees = |(got, want): (&&str, &&str)| want.split('|').any(|want| want == *got || (want == "real" && *got == "double"));
    if types.len() != want_types.len() || !types.iter().zip(&want_types).all(agrees) {
        return Err(format!("types {types:?}, expected {want_types:?}"));
    }
    let canon = |row: &Vec<Value>| row.iter().zip(&want_types).map(|(value, ty)| typed(value, ty)).collect::<Vec<_>>();
    let got: Vec<Vec<Value>> = rows.iter().map(canon).collect();
    let want: Vec<Vec<Value>> = self::rows(&expected["rows"])?.iter().map(canon).collect();
    same_rows(&got, &want, case["ordered"] == true, tolerance)
}

fn strings<'v>(columns: &'v Value, field: &str) -> Vec<&'v str> {
    columns.as_array().into_iter().flatten().map(|column| column[field].as_str().unwrap_or_default()).collect()
}

fn rows(rows: &Value) -> Result<Vec<Vec<Value>>, String> {
    rows.as_array()
        .into_iter()
        .flatten()
        .map(|row| row.as_array().cloned().ok_or_else(|| format!("an error in place of a row: {row}")))
        .collect()
}

fn same_rows(got: &[Vec<Value>], want: &[Vec<Value>], ordered: bool, tolerance: f64) -> Result<(), String> {
    if got.len() != want.len() {
        return Err(format!("{} rows, expected {}", got.len(), want.len()));
    }
    let same = |a: &[Value], b: &[Value]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b, tolerance));
    if ordered {
        return match got.iter().zip(want).position(|(got, want)| !same(got, want)) {
            Some(at) => Err(format!("row {at}: {:?}, expected {:?}", got[at], want[at])),
            None => Ok(()),
        };
    }
    let mut rest: Vec<&Vec<Value>> = want.iter().collect();
    for row in got {
        match rest.iter().position(|want| same(row, want)) {
            Some(at) => drop(rest.remove(at)),
            None => return Err(format!("row not expected: {row:?}; left: {:?}", rest.first())),
        }
    }
    Ok(())
}

/// A cell in the form in which its type compares.
fn typed(value: &Value, ty: &str) -> Value {
    let first = ty.split('|').next().unwrap_or_default();
    match (first, value) {
        (_, Value::Null) => Value::Null,
        ("real" | "decimal" | "double" | "int" | "long", Value::String(text)) => number(text),
        ("datetime" | "timespan", Value::String(text)) => Value::String(instant(text).unwrap_or_else(|| text.clone())),
        ("dynamic", Value::String(text)) => loose(&serde_json::from_str(text).unwrap_or_else(|_| value.clone())),
        ("dynamic", _) => loose(value),
        ("bool", Value::Number(number)) => Value::Bool(number.as_i64() != Some(0)),
        ("guid", Value::String(text)) => Value::String(text.to_lowercase()),
        _ => value.clone(),
    }
}

fn number(text: &str) -> Value {
    match text.to_lowercase().as_str() {
        "nan" => "NaN".into(),
        "infinity" | "inf" | "+inf" => "Infinity".into(),
        "-infinity" | "-inf" => "-Infinity".into(),
        other => other.parse::<f64>().map_or_else(|_| Value::String(text.to_owned()), Value::from),
    }
}

/// Datetimes and timespans with a fraction of exactly seven digits and no zone; None for any other text.
fn instant(text: &str) -> Option<String> {
    let body = text.strip_suffix('Z').unwrap_or(text).replace(' ', "T");
    let (whole, fraction) = match body.rsplit_once('.') {
        Some((whole, fraction)) if !fraction.contains(':') => (whole.to_owned(), fraction.to_owned()),
        _ => (body, String::new()),
    };
    let digits = |text: &str, separators: &[char]| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit() || separators.contains(&c));
    if fraction.len() > 9 || !(fraction.is_empty() || digits(&fraction, &[])) {
        return None;
    }
    let is_datetime = whole.len() == 19 && digits(&whole, &['-', 'T', ':']) && whole.contains('T');
    let clock = whole.trim_start_matches('-');
    let is_timespan = clock.matches(':').count() == 2 && digits(clock, &[':', '.']);
    if !is_datetime && !is_timespan {
        return None;
    }
    let fraction: String = fraction.chars().chain(std::iter::repeat('0')).take(7).collect();
    Some(format!("{whole}.{fraction}"))
}

/// A dynamic value with its numbers as doubles and its times in one form.
fn loose(value: &Value) -> Value {
    match value {
        Value::Number(number) => number.as_f64().map_or(Value::Null, Value::from),
        Value::String(text) => Value::String(instant(text).unwrap_or_else(|| text.clone())),
        Value::Array(items) => items.iter().map(loose).collect(),
        Value::Object(fields) => Value::Object(fields.iter().map(|(key, value)| (key.clone(), loose(value))).collect()),
        other => other.clone(),
    }
}

fn equal(a: &Value, b: &Value, tolerance: f64) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => {
            let (a, b) = (a.as_f64().unwrap_or(f64::NAN), b.as_f64().unwrap_or(f64::NAN));
            let scale = if tolerance < 1e-3 { 1f64.max(a.abs()).max(b.abs()) } else { a.abs().max(b.abs()) };
            a == b || (a - b).abs() <= tolerance * scale
        }
        (Value::Bool(flag), Value::Number(number)) | (Value::Number(number), Value::Bool(flag)) => {
            number.as_f64() == Some(f64::from(u8::from(*flag)))
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b, tolerance)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| equal(a, b, tolerance)))
        }
        _ => a == b,
    }
}

/// Whether the recorded answer of a parametrised test is one of its other parameters: text that begins with a name of the
/// query itself, that of an operator or of a column of its datatable, and so is KQL and no value.
pub(super) fn is_no_answer(case: &Value) -> bool {
    let (Some("param"), Some(text)) = (case["accessor"].as_str(), case["expected"]["literal"].as_str()) else { return false };
    let word: String = text.chars().take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-')).collect();
    let query = case["query"].as_str().unwrap_or_default();
    let declared = query.split_once("datatable(").and_then(|(_, rest)| rest.split_once(')')).map_or("", |(columns, _)| columns);
    let is_column = declared.split(',').filter_map(|column| column.split_once(':')).any(|(name, _)| name.trim() == word);
    is_column || case["operators"].as_array().into_iter().flatten().any(|operator| operator == word.as_str())
}

/// Answers recorded as a bare literal, whose shape depends on how it was read from the result.
fn literal(case: &Value, columns: &[&str], types: &[&str], rows: &[Vec<Value>], tolerance: f64) -> Result<(), String> {
    let want = loose(&case["expected"]["literal"]);
    let cell = |(value, ty): (&Value, &&str)| if *ty == "dynamic" { typed(value, "dynamic") } else { loose(value) };
    let all: Vec<Value> = rows.iter().map(|row| row.iter().zip(types).map(cell).collect()).collect();
    let first_row = all.first().cloned().unwrap_or(Value::Null);
    let first = |column: usize| first_row.get(column).cloned().unwrap_or(Value::Null);
    let got = match case["accessor"].as_str() {
        Some("_one" | "_json") => first(0),
        Some("row") => first_row.clone(),
        Some("_cols" | "names") => columns.iter().map(|name| Value::from(*name)).collect(),
        // how it was read is not recorded: the names of the columns, the first cells of the rows, or the rows
        Some("param") => match &want {
            Value::Array(names) if *names == columns => return Ok(()),
            Value::Array(rows) if rows.first().is_some_and(Value::is_array) => Value::Array(all),
            Value::Array(_) => all.iter().map(|row| row[0].clone()).collect(),
            _ => first(0),
        },
        _ => Value::Array(all),
    };
    // a dynamic value may be recorded as its text
    let is_dynamic = case["accessor"] == "_json" || types.first() == Some(&"dynamic");
    let want = match (case["accessor"].as_str(), &want) {
        (Some("_json"), Value::String(text)) | (Some("param"), Value::String(text)) if is_dynamic => {
            loose(&serde_json::from_str(text).unwrap_or_else(|_| want.clone()))
        }
        _ => want,
    };
    if equal(&got, &want, tolerance) || same_multiset(&got, &want) {
        return Ok(());
    }
    Err(format!("{got}, expected {want}"))
}

fn same_multiset(got: &Value, want: &Value) -> bool {
    let (Value::Array(got), Value::Array(want)) = (got, want) else { return false };
    let sorted = |items: &[Value]| {
        let mut texts: Vec<String> = items.iter().map(Value::to_string).collect();
        texts.sort();
        texts
    };
    sorted(got) == sorted(want)
}
