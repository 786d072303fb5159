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
