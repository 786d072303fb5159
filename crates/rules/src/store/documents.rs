//! Objects as JSON documents, whose status is compared and replaced apart from the rest.

use serde_json::{Map, Value};

use super::{Change, Object};

const STATUS: &str = "status";

/// The object with `change` applied to its status and to nothing else, if that changed anything.
pub(super) fn changed_status<K: Object>(old: &K, change: Change<'_, K>) -> serde_json::Result<Option<K>> {
    let mut new = old.clone();
    change(&mut new);
    let mut document = fields(old)?;
    let status = fields(&new)?.remove(STATUS).filter(|status| !status.is_null());
    if status.as_ref() == document.get(STATUS).filter(|status| !status.is_null()) {
        return Ok(None);
    }
    document.remove(STATUS);
    document.extend(status.map(|status| (STATUS.to_owned(), status)));
    serde_json::from_value(Value::Object(document)).map(Some)
}

/// The object with `change` applied to all but its status, if that changed anything.
pub(super) fn changed_object<K: Object>(old: &K, change: Change<'_, K>) -> serde_json::Result<Option<K>> {
    let mut new = old.clone();
    change(&mut new);
    let new = with_status_of(&new, old)?;
    Ok((fields(old)? != fields(&new)?).then_some(new))
}

/// `object` with the status of another.
pub(super) fn with_status_of<K: Object>(object: &K, other: &K) -> serde_json::Result<K> {
    let mut document = fields(object)?;
    document.remove(STATUS);
    document.extend(fields(other)?.remove_entry(STATUS));
    serde_json::from_value(Value::Object(document))
}

/// Whether both have the same spec.
pub(super) fn same_spec<K: Object>(one: &K, other: &K) -> bool {
    let spec = |object: &K| fields(object).ok().and_then(|mut fields| fields.remove("spec"));
    spec(one) == spec(other)
}

fn fields<K: Object>(object: &K) -> serde_json::Result<Map<String, Value>> {
    match serde_json::to_value(object)? {
        Value::Object(fields) => Ok(fields),
        other => Ok(Map::from_iter([("spec".to_owned(), other)])),
    }
}

/// The smallest JSON merge patch (RFC 7386) that makes `new` of `old`. Nulls count as absent: a merge patch cannot set one.
pub(super) fn merge_diff(old: &Value, new: &Value) -> Map<String, Value> {
    let empty = Map::new();
    let old = old.as_object().unwrap_or(&empty);
    let new = new.as_object().unwrap_or(&empty);
    let mut patch = Map::new();
    for (name, value) in new.iter().filter(|(_, value)| !value.is_null()) {
        match (old.get(name), value) {
            (Some(before), after) if before == after => {}
            (Some(before @ Value::Object(_)), after @ Value::Object(_)) => {
                let inner = merge_diff(before, after);
                if !inner.is_empty() {
                    patch.insert(name.clone(), Value::Object(inner));
                }
            }
            _ => {
                patch.insert(name.clone(), without_nulls(value));
            }
        }
    }
    for (name, _) in old.iter().filter(|(name, before)| !before.is_null() && new.get(*name).is_none_or(Value::is_null)) {
        patch.insert(name.clone(), Value::Null);
    }
    patch
}

/// Applies a JSON merge patch.
pub(super) fn merge(target: &mut Value, patch: &Map<String, Value>) {
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(fields) = target else { return };
    for (name, value) in patch {
        match value {
            Value::Null => drop(fields.remove(name)),
            Value::Object(inner) => merge(fields.entry(name.clone()).or_insert(Value::Null), inner),
            value => drop(fields.insert(name.clone(), value.clone())),
        }
    }
}

fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(name, value)| (name.clone(), without_nulls(value))).collect())
        }
        value => value.clone(),
    }
}

/// The object's status, if it has one.
pub(super) fn status_of<K: Object>(object: &K) -> serde_json::Result<Option<Value>> {
    Ok(fields(object)?.remove(STATUS).filter(|status| !status.is_null()))
}

/// The object but for its status.
pub(super) fn without_status<K: Object>(object: &K) -> serde_json::Result<Value> {
    let mut fields = fields(object)?;
    fields.remove(STATUS);
    Ok(Value::Object(fields))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![any::<bool>().prop_map(Value::from), (0..3).prop_map(Value::from), Just(json!(["a", 1]))];
        leaf.prop_recursive(3, 24, 4, |inner| prop::collection::btree_map("[a-d]", inner, 0..4).prop_map(|map| json!(map)))
    }

    fn object() -> impl Strategy<Value = Value> {
        prop::collection::btree_map("[a-d]", value(), 0..4).prop_map(|map| json!(map))
    }

    /// The pseudo-code of RFC 7386, section 2.
    fn merge_as_the_rfc_has_it(target: Value, patch: &Value) -> Value {
        let Value::Object(patch) = patch else { return patch.clone() };
        let mut target = if let Value::Object(target) = target { target } else { Map::new() };
        for (name, value) in patch {
            match value {
                Value::Null => drop(target.remove(name)),
                value => {
                    let merged = merge_as_the_rfc_has_it(target.remove(name).unwrap_or(Value::Null), value);
                    target.insert(name.clone(), merged);
                }
            }
        }
        Value::Object(target)
    }

    proptest! {
        #[test]
        fn a_diff_makes_the_new_of_the_old(old in object(), new in object()) {
            let patch = merge_diff(&old, &new);
            prop_assert_eq!(merge_as_the_rfc_has_it(old.clone(), &Value::Object(patch.clone())), new.clone());
            prop_assert_eq!(patch.is_empty(), old == new);
        }

        #[test]
        fn merging_is_the_rfcs(target in object(), before in object(), after in object()) {
            let patch = merge_diff(&before, &after);
            let mut merged = target.clone();
            merge(&mut merged, &patch);
            prop_assert_eq!(merged, merge_as_the_rfc_has_it(target, &Value::Object(patch)));
        }
    }

    #[test]
    fn a_null_counts_as_absent() {
        let patch = merge_diff(&json!({"a": 1, "b": null}), &json!({"a": null, "c": null, "d": {"e": null}}));
        assert_eq!(Value::Object(patch), json!({"a": null, "d": {}}));
    }
}
