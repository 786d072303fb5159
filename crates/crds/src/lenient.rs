//! Decoding that forgives what the reference forgives, so that one odd object does not stop the list it is in.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::CriteriaMap;

/// `criteria`: a value may be a string or a list of strings; anything else in it is dropped.
pub(crate) fn criteria<'de, D: Deserializer<'de>>(deserializer: D) -> Result<CriteriaMap, D::Error> {
    let Value::Object(map) = Value::deserialize(deserializer)? else { return Ok(CriteriaMap::new()) };
    let values = |value| match value {
        Value::String(text) => Some(vec![text]),
        Value::Array(items) => Some(items.into_iter().filter_map(text_of).collect()),
        _ => None,
    };
    Ok(map.into_iter().filter_map(|(key, value)| Some((key, values(value)?))).collect())
}

/// A text; anything that is not one counts as missing.
pub(crate) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(text_of(Value::deserialize(deserializer)?).unwrap_or_default())
}

/// A value of a status; one that cannot be read counts as missing, since the next run writes it anew.
pub(crate) fn or_default<'de, D: Deserializer<'de>, T: DeserializeOwned + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(serde_json::from_value(Value::deserialize(deserializer)?).unwrap_or_default())
}

/// A value that may be `null`, which Go's clients write for what is not set.
pub(crate) fn null<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

fn text_of(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        _ => None,
    }
}
