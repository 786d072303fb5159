//! What an API server would refuse: an object against the structural schema of its CRD.

use regex::Regex;
use serde_json::{Number, Value};

/// A mistake: the path of the field, and what is wrong.
pub(super) type Mistake = (String, String);

/// Checks `value` against an OpenAPI v3 schema: types, unknown and missing fields, enums, patterns, and bounds of numbers and
/// of the lengths of texts, lists and objects. Unknown fields are mistakes, as with `kubectl apply`. CEL rules and formats
/// are not looked at: what they say is checked where the object is read.
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
        Value::Object(fields) => {
            check_length(path, fields.len(), "fields", (&schema["minProperties"], &schema["maxProperties"]), mistakes);
            check_fields(path, fields, schema, mistakes);
        }
        Value::Array(items) => {
            check_length(path, items.len(), "items", (&schema["minItems"], &schema["maxItems"]), mistakes);
            for (index, item) in items.iter().enumerate() {
                check(&format!("{path}[{index}]"), item, &schema["items"], mistakes);
            }
        }
        Value::String(text) => check_text(path, text, schema, mistakes),
        Value::Number(number) => check_number(path, number, schema, mistakes),
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
    check_length(path, text.chars().count(), "characters", (&schema["minLength"], &schema["maxLength"]), mistakes);
    let Some(pattern) = schema["pattern"].as_str() else { return };
    // An API server looks for the pattern anywhere in the text.
    if Regex::new(pattern).is_ok_and(|pattern| !pattern.is_match(text)) {
        mistakes.push((path.to_owned(), format!("is {text:?}, but must match {pattern}")));
    }
}

fn check_length(path: &str, length: usize, of: &str, (min, max): (&Value, &Value), mistakes: &mut Vec<Mistake>) {
    let length = u64::try_from(length).unwrap_or(u64::MAX);
    if min.as_u64().is_some_and(|min| length < min) || max.as_u64().is_some_and(|max| length > max) {
        let bounds = bounds(("at least", min), ("at most", max));
        mistakes.push((path.to_owned(), format!("has {length} {of}, but must have {bounds}")));
    }
}

fn check_number(path: &str, number: &Number, schema: &Value, mistakes: &mut Vec<Mistake>) {
    let Some(value) = number.as_f64() else { return };
    let (min, max) = (&schema["minimum"], &schema["maximum"]);
    let (above, below) = (schema["exclusiveMinimum"] == true, schema["exclusiveMaximum"] == true);
    let too_small = min.as_f64().is_some_and(|min| value < min || above && value == min);
    let too_large = max.as_f64().is_some_and(|max| value > max || below && value == max);
    if too_small || too_large {
        let words = (if above { "above" } else { "at least" }, if below { "below" } else { "at most" });
        let bounds = bounds((words.0, min), (words.1, max));
        mistakes.push((path.to_owned(), format!("is {number}, but must be {bounds}")));
    }
}

/// The bounds that there are, in words.
fn bounds(min: (&str, &Value), max: (&str, &Value)) -> String {
    // As a float a whole number is shown without a fraction.
    let words: Vec<String> = [min, max].iter().filter_map(|(word, n)| Some(format!("{word} {}", n.as_f64()?))).collect();
    words.join(" and ")
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn mistakes(value: Value, schema: Value) -> Vec<String> {
        let mut mistakes = Vec::new();
        check("f", &value, &schema, &mut mistakes);
        mistakes.into_iter().map(|(path, what)| format!("{path} {what}")).collect()
    }

    #[test]
    fn patterns_are_looked_for() {
        let word = json!({ "type": "string", "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$" });
        assert_eq!(mistakes(json!("Query_Failed"), word.clone()), [""; 0]);
        let found = mistakes(json!("two words"), word);
        assert_eq!(found, ["f is \"two words\", but must match ^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"]);
        assert_eq!(mistakes(json!("a 7 in it"), json!({ "type": "string", "pattern": "[0-9]" })), [""; 0]);
    }

    #[test]
    fn bounds_are_kept() {
        for (value, schema, expected) in [
            (json!(-1), json!({ "type": "integer", "minimum": 0.0 }), "f is -1, but must be at least 0"),
            (json!(6), json!({ "type": "integer", "minimum": 0, "maximum": 5 }), "f is 6, but must be at least 0 and at most 5"),
            (json!(0.0), json!({ "type": "number", "minimum": 0, "exclusiveMinimum": true }), "f is 0.0, but must be above 0"),
            (json!(5), json!({ "type": "number", "maximum": 5, "exclusiveMaximum": true }), "f is 5, but must be below 5"),
            (json!("é"), json!({ "type": "string", "minLength": 2 }), "f has 1 characters, but must have at least 2"),
            (
                json!("aéi"),
                json!({ "type": "string", "minLength": 1, "maxLength": 2 }),
                "f has 3 characters, but must have at least 1 and at most 2",
            ),
            (json!([]), json!({ "type": "array", "items": {}, "minItems": 1 }), "f has 0 items, but must have at least 1"),
            (json!([1, 2]), json!({ "type": "array", "items": {}, "maxItems": 1 }), "f has 2 items, but must have at most 1"),
            (
                json!({ "a": "x", "b": "y" }),
                json!({ "type": "object", "additionalProperties": { "type": "string" }, "maxProperties": 1 }),
                "f has 2 fields, but must have at most 1",
            ),
        ] {
            assert_eq!(mistakes(value, schema), [expected]);
        }
        assert_eq!(mistakes(json!(0), json!({ "type": "integer", "minimum": 0, "maximum": 0 })), [""; 0]);
        assert_eq!(mistakes(json!([1]), json!({ "type": "array", "items": {}, "minItems": 1, "maxItems": 1 })), [""; 0]);
    }

    /// A pattern that could not be read would let everything pass.
    #[test]
    fn all_patterns_of_the_rules_schema_can_be_read() {
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
        let mut found = Vec::new();
        patterns(&super::super::rule_schema(), &mut found);
        assert_eq!(found.len(), 2, "those of conditions: {found:?}");
        assert!(found.iter().all(|pattern| Regex::new(pattern).is_ok()), "{found:?}");
    }
}
