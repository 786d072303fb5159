//! What CRDs say of values beyond their types: patterns of texts, how long these may be, and how large numbers.
//!
//! An API server refuses what is against it. Types, missing fields and words of a list are found when a resource is read.

use regex::Regex;
use serde_json::Value;

/// What is wrong with the spec of a resource of ours, each with the path of the field.
pub(crate) fn problems(kind: &str, spec: &Value) -> Vec<String> {
    let schema = crds::of_kind(kind).and_then(|crd| crd.spec.versions.into_iter().next()?.schema?.open_api_v3_schema);
    let schema = schema.and_then(|schema| serde_json::to_value(schema).ok()).unwrap_or_default();
    let mut problems = Vec::new();
    look("spec", spec, &schema["properties"]["spec"], &mut problems);
    problems
}

fn look(path: &str, value: &Value, schema: &Value, problems: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let of = schema["properties"].get(name).unwrap_or(&schema["additionalProperties"]);
                look(&format!("{path}.{name}"), value, of, problems);
            }
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(at, item)| look(&format!("{path}[{at}]"), item, &schema["items"], problems));
        }
        Value::String(text) => problems.extend(text_problem(text, schema).map(|problem| format!("{path}: {problem}"))),
        Value::Number(number) => {
            let number = number.as_f64().unwrap_or_default();
            if let Some(least) = schema["minimum"].as_f64().filter(|least| number < *least) {
                problems.push(format!("{path}: {number} is less than {least}"));
            }
            if let Some(most) = schema["maximum"].as_f64().filter(|most| number > *most) {
                problems.push(format!("{path}: {number} is more than {most}"));
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
}

fn text_problem(text: &str, schema: &Value) -> Option<String> {
    let length = text.chars().count() as u64;
    if let Some(least) = schema["minLength"].as_u64().filter(|least| length < *least) {
        return Some(format!("{text:?} is shorter than {least} characters"));
    }
    if let Some(most) = schema["maxLength"].as_u64().filter(|most| length > *most) {
        return Some(format!("{text:?} is longer than {most} characters"));
    }
    // An API server looks for the pattern anywhere in the text. Ours can all be read, which a test shows.
    let pattern = schema["pattern"].as_str()?;
    Regex::new(pattern).is_ok_and(|read| !read.is_match(text)).then(|| format!("{text:?} does not match {pattern}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn patterns(schema: &Value, found: &mut Vec<String>) {
        match schema {
            Value::Object(fields) => {
                found.extend(fields.get("pattern").and_then(Value::as_str).map(str::to_owned));
                fields.values().for_each(|inner| patterns(inner, found));
            }
            Value::Array(items) => items.iter().for_each(|inner| patterns(inner, found)),
            _ => {}
        }
    }

    /// One that could not be read would let everything pass.
    #[test]
    fn all_patterns_can_be_read() {
        let mut found = Vec::new();
        patterns(&serde_json::to_value(crds::all()).unwrap_or_default(), &mut found);
        assert!(found.len() > 7, "{found:?}");
        assert_eq!(found.iter().find(|pattern| Regex::new(pattern).is_err()), None);
    }

    #[test]
    fn what_an_api_server_refuses_is_found_with_its_path() {
        let database = |name: &str| json!({"clusterName": "c", "databases": [{"databaseName": name, "telemetryType": "Logs"}]});
        for (spec, expected) in [
            (json!({"clusterName": "my cluster"}), "spec.clusterName: \"my cluster\" does not match ^[a-zA-Z0-9-]+$"),
            (database("a-b"), "spec.databases[0].databaseName: \"a-b\" does not match ^[a-zA-Z0-9_]+$"),
            (database(""), "spec.databases[0].databaseName: \"\" is shorter than 1 characters"),
            (
                json!({"clusterName": "c", "federation": {"heartbeatTTL": "1d"}}),
                "spec.federation.heartbeatTTL: \"1d\" does not match ^(\\d+h)?(\\d+m)?(\\d+s)?$",
            ),
        ] {
            assert_eq!(problems("ADXCluster", &spec), [expected]);
        }
        assert!(problems("ADXCluster", &database(&"x".repeat(65)))[0].ends_with("is longer than 64 characters"));
        assert_eq!(problems("ADXCluster", &database("Logs_1")), [""; 0]);
        let rule = json!({"backfill": {"requestId": "r", "maxInFlight": 21}});
        assert_eq!(problems("SummaryRule", &rule), ["spec.backfill.maxInFlight: 21 is more than 20"]);
    }
}
