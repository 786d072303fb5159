//! A Kubernetes event as a record.
//!
//! The body is the event as the API server has it (`Event` of core/v1), without `managedFields`, `kind`,
//! `apiVersion` and what is empty. What it is about becomes the resource, under the names of OpenTelemetry's receiver of
//! events.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Event, ObjectReference};
use logs::{Destination, Map, Record, Severity, Value};

/// The record of an event that was seen at `observed`, in nanoseconds since 1970.
pub(super) fn record(mut event: Event, destination: &Destination, observed: u64) -> Record {
    event.metadata.managed_fields = None;
    let severity = if event.type_.as_deref() == Some("Warning") { Severity::Warn } else { Severity::Info };
    let host = event.source.as_ref().and_then(|source| source.host.clone());
    let mut body = match serde_json::to_value(&event).map(value) {
        Ok(Some(Value::Map(body))) => body,
        _ => Map::new(),
    };
    // The same for every event.
    body.retain(|name, _| name != "apiVersion" && name != "kind");
    let mut record = Record {
        timestamp: timestamp(&event).unwrap_or(observed),
        observed,
        resource: Arc::new(resource(&event.involved_object, host)),
        body,
        destination: Some(destination.clone()),
        ..Record::default()
    };
    record.set_severity(severity);
    record
}

/// When it happened last, in nanoseconds since 1970. Which of its times an event has depends on who made it.
fn timestamp(event: &Event) -> Option<u64> {
    let series = event.series.as_ref().and_then(|series| series.last_observed_time.as_ref()).map(|time| time.0);
    let last = event.last_timestamp.as_ref().map(|time| time.0);
    let single = event.event_time.as_ref().map(|time| time.0);
    let first = event.first_timestamp.as_ref().or(event.metadata.creation_timestamp.as_ref()).map(|time| time.0);
    let time = [series, last, single].into_iter().flatten().max().or(first)?;
    u64::try_from(time.as_nanosecond()).ok()
}

fn resource(object: &ObjectReference, host: Option<String>) -> Map {
    let members = [
        ("k8s.namespace.name", object.namespace.clone()),
        ("k8s.object.kind", object.kind.clone()),
        ("k8s.object.name", object.name.clone()),
        ("k8s.object.uid", object.uid.clone()),
        ("k8s.object.api_version", object.api_version.clone()),
        ("k8s.object.fieldpath", object.field_path.clone()),
        ("k8s.node.name", host),
    ];
    let known = members.into_iter().filter_map(|(name, value)| Some((name, value.filter(|value| !value.is_empty())?)));
    known.map(|(name, value)| (name.to_owned(), value.into())).collect()
}

/// None of what is empty.
fn value(json: serde_json::Value) -> Option<Value> {
    match json {
        serde_json::Value::Null => None,
        serde_json::Value::Bool(flag) => Some(flag.into()),
        serde_json::Value::Number(number) => number.as_i64().map(Value::Int).or_else(|| number.as_f64().map(Value::Float)),
        serde_json::Value::String(text) => (!text.is_empty()).then(|| text.into()),
        serde_json::Value::Array(items) => {
            let items: Vec<Value> = items.into_iter().filter_map(value).collect();
            (!items.is_empty()).then_some(Value::Array(items))
        }
        serde_json::Value::Object(members) => {
            let members: Map = members.into_iter().filter_map(|(name, member)| Some((name, value(member)?))).collect();
            (!members.is_empty()).then_some(Value::Map(members))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(event: serde_json::Value) -> Record {
        let destination = Destination::new("Logs", "Events").unwrap();
        record(serde_json::from_value(event).unwrap(), &destination, 7)
    }

    fn text(text: &str) -> Value {
        text.into()
    }

    /// As the kubelet of 1.20 makes them.
    #[test]
    fn an_event_of_core() {
        let record = of(json!({
            "metadata": {"name": "web.1", "namespace": "shop", "uid": "u1", "resourceVersion": "12", "managedFields": [{"manager": "kubelet"}]},
            "involvedObject": {"kind": "Pod", "namespace": "shop", "name": "web", "uid": "u2", "apiVersion": "v1", "fieldPath": "spec.containers{c}"},
            "reason": "BackOff", "message": "Back-off restarting", "type": "Warning", "count": 3,
            "source": {"component": "kubelet", "host": "node-1"}, "reportingComponent": "", "eventTime": null,
            "firstTimestamp": "2024-01-02T03:04:05Z", "lastTimestamp": "2024-01-02T03:05:05Z",
        }));
        assert_eq!((record.timestamp, record.observed), (1_704_164_705_000_000_000, 7));
        assert_eq!((record.severity_text.as_str(), record.severity_number), ("WARN", 13));
        let resource = [
            ("k8s.namespace.name", "shop"),
            ("k8s.node.name", "node-1"),
            ("k8s.object.api_version", "v1"),
            ("k8s.object.fieldpath", "spec.containers{c}"),
            ("k8s.object.kind", "Pod"),
            ("k8s.object.name", "web"),
            ("k8s.object.uid", "u2"),
        ];
        assert_eq!(*record.resource, resource.map(|(name, value)| (name.to_owned(), text(value))).into());
        let keys: Vec<&str> = record.body.keys().map(String::as_str).collect();
        let expected = ["count", "firstTimestamp", "involvedObject", "lastTimestamp", "message", "metadata", "reason", "source", "type"];
        assert_eq!(keys, expected);
        assert_eq!((&record.body["count"], &record.body["message"]), (&Value::Int(3), &text("Back-off restarting")));
        let metadata = [("name", "web.1"), ("namespace", "shop"), ("resourceVersion", "12"), ("uid", "u1")];
        assert_eq!(record.body["metadata"], Value::Map(metadata.map(|(name, value)| (name.to_owned(), text(value))).into()));
    }

    /// As `events.k8s.io` shows them in core/v1.
    #[test]
    fn times_and_severity_of_others() {
        let mut event = json!({"metadata": {"creationTimestamp": "2024-01-02T03:04:05Z"}, "involvedObject": {}, "type": "Normal"});
        let second = 1_704_164_645_000_000_000;
        let of_creation = of(event.clone());
        assert_eq!((of_creation.timestamp, of_creation.severity_text.as_str(), of_creation.severity_number), (second, "INFO", 9));
        assert!(of_creation.resource.is_empty());
        event["eventTime"] = json!("2024-01-02T03:04:06.000001Z");
        assert_eq!(of(event.clone()).timestamp, second + 1_000_001_000);
        event["series"] = json!({"count": 2, "lastObservedTime": "2024-01-02T03:04:07.5Z"});
        assert_eq!(of(event).timestamp, second + 2_500_000_000);
        assert_eq!(of(json!({"metadata": {}, "involvedObject": {}})).timestamp, 7);
    }
}
