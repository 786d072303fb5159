//! `addattributes`: sets values of the resource.

use serde::Deserialize;

use super::config::{self, TransformError};
use super::resource::ResourceChange;
use crate::record::Record;
use crate::value::{Map, Value};

#[derive(Deserialize)]
struct Settings {
    #[serde(rename = "ResourceValues", default)]
    resource_values: toml::Table,
}

#[derive(Clone, Debug)]
pub(super) struct AddAttributes {
    values: Map,
    resource: ResourceChange,
}

impl AddAttributes {
    pub(super) fn new(config: &toml::Value) -> Result<Self, Vec<TransformError>> {
        let read = config::read(config, &["ResourceValues"]);
        let missing = config.get("ResourceValues").is_none();
        let missing = missing.then(|| TransformError::at_config("ResourceValues is required: a table of keys and values"));
        let Settings { resource_values } = match read {
            Ok(settings) => settings,
            Err(errors) => return Err(missing.into_iter().chain(errors).collect()),
        };
        let mut errors: Vec<TransformError> = missing.into_iter().collect();
        let mut values = Map::new();
        for (key, value) in resource_values {
            match scalar(&value) {
                Some(value) => {
                    values.insert(key, value);
                }
                None => errors.push(TransformError::at_key("ResourceValues", format!("{key} must be a string, number or bool"))),
            }
        }
        if errors.is_empty() { Ok(Self { values, resource: ResourceChange::default() }) } else { Err(errors) }
    }

    pub(super) fn apply(&mut self, record: &mut Record) {
        let values = &self.values;
        self.resource.apply(&mut record.resource, |resource| resource.extend(values.clone()));
    }
}

/// A value of a configuration that is one value.
pub(super) fn scalar(value: &toml::Value) -> Option<Value> {
    Some(match value {
        toml::Value::String(text) => Value::from(text.as_str()),
        toml::Value::Integer(number) => Value::Int(*number),
        toml::Value::Float(number) => Value::Float(*number),
        toml::Value::Boolean(flag) => Value::Bool(*flag),
        _ => return None,
    })
}
