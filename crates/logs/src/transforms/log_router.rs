//! `logrouter`: destinations by the resource keys `adx-mon/log-sources` and `adx-mon/log-keys`, which pods have as
//! annotations.

use std::sync::Arc;

use serde::Deserialize;

use super::config::{self, TransformError};
use crate::record::{Destination, Record};
use crate::value::{Map, Value};

const SOURCES: &str = "adx-mon/log-sources";
const KEYS: &str = "adx-mon/log-keys";

/// The key of the body that sources are compared with.
const SOURCE: &str = "source";

#[derive(Deserialize)]
struct Settings {}

#[derive(Clone, Debug)]
pub(super) struct LogRouter {
    /// The routes of the last resource.
    last: Option<(Arc<Map>, Arc<[Route]>)>,
}

/// Records whose body has `value` under `key` go to `to`.
#[derive(Debug)]
struct Route {
    key: String,
    value: String,
    to: Option<Destination>,
}

impl LogRouter {
    pub(super) fn new(config: &toml::Value) -> Result<Self, Vec<TransformError>> {
        let Settings {} = config::read(config, &[])?;
        Ok(Self { last: None })
    }

    pub(super) fn apply(&mut self, record: &mut Record) {
        let routes = match &self.last {
            Some((resource, routes)) if Arc::ptr_eq(resource, &record.resource) => routes,
            _ => {
                let routes = routes(&record.resource);
                &self.last.insert((Arc::clone(&record.resource), routes)).1
            }
        };
        if let Some(route) = routes.iter().find(|route| route.matches(&record.body)) {
            record.destination.clone_from(&route.to);
        }
    }
}

/// The routes that a resource names: sources first, then keys. Parts of the wrong form are passed over.
fn routes(resource: &Map) -> Arc<[Route]> {
    let parts = |key: &str| resource.get(key).and_then(Value::as_str).unwrap_or_default().split(',');
    let fields = |part: &str| part.split(':').map(|field| field.trim().to_owned()).collect::<Vec<_>>();
    let mut routes = Vec::new();
    for part in parts(SOURCES) {
        if let [source, database, table] = &fields(part)[..] {
            routes.push(Route { key: SOURCE.to_owned(), value: source.clone(), to: Destination::new(database, table) });
        }
    }
    for part in parts(KEYS) {
        if let [key, value, database, table] = &fields(part)[..] {
            routes.push(Route { key: key.clone(), value: value.clone(), to: Destination::new(database, table) });
        }
    }
    routes.into()
}

impl Route {
    /// Whether the body has the value, in its text form. A key that is not there has the empty value.
    fn matches(&self, body: &Map) -> bool {
        match body.get(&self.key) {
            None => self.value.is_empty(),
            Some(value @ (Value::Int(_) | Value::Uint(_))) => {
                let number = value.to_text();
                number == self.value || number.parse().is_ok_and(|number| go_float(number) == self.value)
            }
            Some(Value::Float(number)) => go_float(*number) == self.value || Value::Float(*number).to_text() == self.value,
            Some(value) => value.to_text() == self.value,
        }
    }
}

/// A float as Go's `%v` writes it, because routes were written for a collector that holds every number of JSON as one:
/// `500`, but `1e+06`.
fn go_float(number: f64) -> String {
    let mut out = Vec::new();
    telemetry::text::go_float(&mut out, number);
    String::from_utf8_lossy(&out).into_owned()
}
