//! Rows to points as the reference does it, and better where it loses whole batches.

use std::collections::BTreeMap;

use adxexporter::transform::{Plan, Point, Transform, metric_name};
use jiff::Timestamp;
use kusto::Column;
use serde_json::{Value, json};

use crate::vectors::cases;

const NOW: &str = "2024-06-01T00:00:00Z";

fn config(case: &Value) -> Transform {
    let config = &case["config"];
    let text = |key: &str| config[key].as_str().map(str::to_owned);
    let list = |key: &str| config[key].as_array().into_iter().flatten().map(|v| v.as_str().unwrap().to_owned()).collect();
    Transform {
        metric_name_column: text("metricNameColumn"),
        default_metric_name: text("defaultMetricName"),
        metric_name_prefix: text("metricNamePrefix").unwrap_or_default(),
        value_columns: list("valueColumns"),
        timestamp_column: text("timestampColumn").unwrap_or_default(),
        label_columns: list("labelColumns"),
    }
}

/// The vectors' rows of typed cells as a result: one type per column, as the service has it. A cell
/// that a row lacks, or that is null, is null.
fn result(case: &Value) -> (Vec<Column>, Vec<Vec<Value>>) {
    let rows = case["rows"].as_array().unwrap();
    let mut types: BTreeMap<&str, &str> = BTreeMap::new();
    for (name, cell) in rows.iter().flat_map(|row| row.as_object().unwrap()) {
        let ty = cell["type"].as_str().unwrap();
        let known = types.entry(name).or_insert(ty);
        if *known == "null" {
            *known = ty;
        }
    }
    // A column that is null throughout still has a type.
    let fallback = |name: &str| {
        if name == "value" {
            "real"
        } else if name == "ts" {
            "datetime"
        } else {
            "string"
        }
    };
    let columns =
        types.iter().map(|(name, ty)| Column { name: (*name).to_owned(), ty: if *ty == "null" { fallback(name) } else { ty }.to_owned() });
    let cells = |row: &Value| types.keys().map(|name| row[*name]["value"].clone()).collect();
    (columns.collect(), rows.iter().map(cells).collect())
}

/// What a run exports: the good rows' points, and what was refused.
fn export(case: &Value) -> (Vec<Point>, Vec<String>) {
    let (columns, rows) = result(case);
    if rows.is_empty() {
        return Default::default();
    }
    let plan = match Plan::new(&config(case), &columns) {
        Ok(plan) => plan,
        Err(error) => return (Vec::new(), vec![error.to_string()]),
    };
    let (mut points, mut errors) = (Vec::new(), Vec::new());
    for row in &rows {
        match plan.points(row, NOW.parse().unwrap()) {
            Ok(some) => points.extend(some),
            Err(error) => errors.push(error.to_string()),
        }
    }
    (points, errors)
}

fn shown(point: &Point) -> Value {
    let value = match point.value {
        value if value.is_nan() => json!("NaN"),
        value if value.is_infinite() => json!(if value > 0.0 { "+Inf" } else { "-Inf" }),
        value => json!(value),
    };
    let labels: BTreeMap<&str, &str> = point.labels.iter().map(|(k, v)| (&**k, v.as_str())).collect();
    json!({"name": &*point.name, "labels": labels, "time": point.time_ms, "value": value})
}

fn expected(metric: &Value) -> Value {
    let now: Timestamp = NOW.parse().unwrap();
    let time = if metric["timestamp_ms"] == "<now>" { json!(now.as_millisecond()) } else { metric["timestamp_ms"].clone() };
    let value = metric["value"].as_f64().map_or(metric["value"].clone(), |value| json!(value));
    json!({"name": metric["name"], "labels": metric["labels"], "time": time, "value": value})
}

/// Where we differ from the reference: the case, its defect, what we export instead and how many rows
/// we refuse.
fn better(name: &str) -> Option<(&'static str, Vec<Value>, usize)> {
    let point = |name: &str, value: f64, region: &str| json!({"name": name, "labels": {"svc": "a", "region": region}, "time": 1_714_557_600_000_i64, "value": value});
    let good = point("requests_value", 1.5, "eastus");
    Some(match name {
        "decimal value unsupported" => ("decimals are numbers", vec![good], 0),
        "bool value unsupported" => ("booleans are 1 and 0", vec![point("requests_value", 1.0, "eastus")], 0),
        "null value second row" | "missing value col second row" => ("one bad row failed the batch", vec![good], 1),
        "one bad row fails all" => ("one bad row failed the batch", vec![good.clone(), good], 1),
        "label long errors" => ("labels that are no strings are written out", vec![point("requests_value", 1.5, "4")], 0),
        "label bool errors" => ("labels that are no strings are written out", vec![point("requests_value", 1.5, "true")], 0),
        "label guid errors" => {
            ("labels that are no strings are written out", vec![point("requests_value", 1.5, "9028e8b7-7350-4870-a0e7-ab3538049876")], 0)
        }
        "label datetime errors" => {
            ("labels that are no strings are written out", vec![point("requests_value", 1.5, "2024-05-01T10:00:00Z")], 0)
        }
        "name digit start" => ("a name started with a digit", vec![point("_5xx_value", 1.5, "eastus")], 0),
        "prefix digit start" => ("a name started with a digit", vec![point("_1team_requests_value", 1.5, "eastus")], 0),
        "ts pre epoch" => ("OTLP's times are unsigned: this one went out as a time in the year 2554", vec![], 1),
        _ => return None,
    })
}

#[test]
fn rows_become_the_points_of_the_vectors() {
    let mut differing = 0;
    for case in cases("kusto_to_metrics_transform.json") {
        let name = case["name"].as_str().unwrap();
        let (points, errors) = export(&case);
        let points: Vec<Value> = points.iter().map(shown).collect();
        if let Some((defect, wanted, refused)) = better(name) {
            differing += 1;
            assert_eq!((points, errors.len()), (wanted, refused), "{name}: {defect}");
            continue;
        }
        let outcome = &case["expected"];
        let metrics: Vec<Value> = outcome["metrics"].as_array().into_iter().flatten().map(expected).collect();
        assert_eq!(points, metrics, "{name}");
        let fails = !outcome["validate_error"].is_null() || !outcome["transform_error"].is_null();
        assert_eq!(!errors.is_empty(), fails, "{name}: {errors:?}");
    }
    assert_eq!(differing, 12, "a case that is listed as different is not in the file");
}

#[test]
fn names_are_those_of_the_vectors() {
    for case in cases("metric_name_normalisation.json") {
        let column = case["value_column"].as_str().unwrap();
        let name = metric_name(&[case["base"].as_str().unwrap(), column]).ok();
        assert_eq!(name.as_deref(), case["expected"]["metric_name"].as_str(), "{column:?}");
    }
}

#[test]
fn messages_name_the_column_and_the_way_out() {
    let columns = ["at", "n", "s"].map(|name| Column { name: name.into(), ty: if name == "s" { "dynamic" } else { "long" }.into() });
    let transform = |value: &str, time: &str| Transform {
        default_metric_name: Some("m".into()),
        value_columns: vec![value.into()],
        timestamp_column: time.into(),
        ..Transform::default()
    };
    let error = |transform| Plan::new(&transform, &columns).unwrap_err().to_string();
    assert_eq!(error(transform("N", "")), "value column \"N\" is not in the query's result, which has at, n, s");
    assert!(error(transform("s", "")).contains("todouble()"));
    assert!(error(transform("n", "at")).contains("of type long; use datetime"));
    let plan = Plan::new(&transform("n", ""), &columns).unwrap();
    let error = plan.points(&[Value::Null, Value::Null, Value::Null], Timestamp::UNIX_EPOCH).unwrap_err();
    assert_eq!(error.column, "n");
}
