//! What an API server would refuse: an object against the structural schema of its CRD.

use serde_json::Value;

/// A mistake: the path of the field, and what is wrong.
pub(super) type Mistake = (String, String);

/// Checks `value` against an OpenAPI v3 schema: types, unknown and missing fields, enums, bounds and patterns. Unknown
/// fields are mistakes, as with `kubectl apply`.
pub(super) fn check(path: &str, value: &Value, schema: &Value, mistakes: &mut Vec<Mistake>) {
    if value.is_null() {
        // A server drops nulls of fields that have no default.
        return;
    }
    let wanted = schema["type"].as_str().unwrap_or_default();
    if !has_type(value, wanted) && schema["x-kubernetes-int-or-string"] != true {
        return mistakes.push((path.to_owned(), format!("must be of type {wanted}, but is {}", described(value))));
    }
    match value {
        Value::Object(fields) => check_fields(path, fields, schema, mistakes),
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                check(&format!("{path}[{index}]"), item, &schema["items"], mistakes);
            }
        }
        Value::String(text) => check_text(path, text, schema, mistakes),
        _ => {}
    }
    if let Some(allowed) = schema["enum"].as_array().filter(|allowed| !allowed.contains(value)) {
        let allowed: Vec<String> = allowed.iter().map(ToString::to_string).collect();
        mistakes.push((path.to_owned(), format!("is {value}, but must be one of {}", allowed.join(", "))));
    }
}

fn check_fields(path: &str, fields: &serde_json::Map<String, Value>, schema: &Value, mistakes: &mut Vec<Mistake>) {
    let at = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if fields.get(name).is_none_or(Value::is_null) {
            mistakes.push((at(name), "is missing".to_owned()));
        }
    }
    let (known, others) = (&schema["properties"], &schema["additionalProperties"]);
    for (name, value) in fields {
        match (known.get(name), others) {
            (Some(inner), _) => check(&at(name), value, inner, mistakes),
            (None, Value::Object(_)) => check(&at(name), value, others, mistakes),
            (None, Value::Bool(true)) => {}
            _ if schema["x-kubernetes-preserve-unknown-fields"] == true => {}
            _ => {
                let names: Vec<&str> = known.as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
                mistakes.push((at(name), format!("no such field; there are {}", names.join(", "))));
            }
        }
    }
}

fn check_text(path: &str, text: &str, schema: &Value, mistakes: &mut Vec<Mistake>) {
    let length = u64::try_from(text.chars().count()).unwrap_or(u64::MAX);
    if schema["maxLength"].as_u64().is_some_and(|max| length > max) || schema["minLength"].as_u64().is_some_and(|min| length < min) {
        let bounds = [("at least", &schema["minLength"]), ("at most", &schema["maxLength"])];
        let bounds: Vec<String> = bounds.iter().filter(|(_, n)| n.is_u64()).map(|(word, n)| format!("{word} {n}")).collect();
        mistakes.push((path.to_owned(), format!("has {length} characters, but must have {}", bounds.join(" and "))));
    }
}

fn has_type(value: &Value, wanted: &str) -> bool {
    match wanted {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        _ => true,
    }
}

fn described(value: &Value) -> String {
    match value {
        Value::Object(_) => "an object".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::String(text) => format!("the string {text:?}"),
        other => format!("{other}; put quotes around it if it is meant as text"),
    }
}
