//! `mode: components` makes what the operator makes of the resources that `mode: operator` makes of the same values. What is
//! compared with is the operator's rendering, which has its own tests.

use std::collections::BTreeMap;

use crds::criteria::Labels;
use operator::manifest::{Resources, yaml};
use operator::render::{Images, Settings};
use serde_json::{Map, Value, json};

use super::{example, key, render};
use crate::samples::pods;

const EXPORTER: &str = "
apiVersion: adx-mon.azure.com/v1
kind: MetricsExporter
metadata: {name: any, namespace: mon}
spec: {database: Metrics, interval: 5m, body: T, transform: {timestampColumn: Timestamp, valueColumns: [Value]}}
";

/// Values with every option that both ways have, and with few.
fn all() -> Vec<(&'static str, Value)> {
    let databases = json!([
        {"databaseName": "Metrics", "telemetryType": "Metrics", "retentionInDays": 10},
        {"databaseName": "Logs", "telemetryType": "Logs", "retentionInDays": 90},
        {"databaseName": "Traces", "telemetryType": "Traces"},
    ]);
    let labels = json!({"region": "eastus", "cloud": "public", "environment": "prod"});
    let storage = json!({"size": "1.5Ti", "storageClassName": "fast"});
    let events = json!({"database": "Ops", "table": "Events", "namespaces": ["a", "b"], "storage": {"size": "2G"}});
    let export = json!({"image": "reg/exporter:1", "otlpEndpoint": "http://otel:4318/v1/metrics"});
    let federation = json!({"heartbeatDatabase": "Fleet", "heartbeatTable": "Beats"});
    let local = json!({"image": "reg/kustd:1", "storage": storage, "pods": pods()});
    let options = json!({
        "clusterLabels": labels, "image": {"prefix": "reg.example/adx/", "tag": "v7"},
        "adxCluster": {"enabled": true, "name": "kusto", "spec": {"local": local, "databases": databases, "federation": federation}},
        "ingestor": {"enabled": true, "name": "in", "spec": {
            "replicas": 3, "image": "reg/i:1", "exposeExternally": true, "storage": storage, "pods": pods(),
        }},
        "collector": {"enabled": true, "name": "out", "spec": {
            "image": "reg/c:1", "insecureSkipVerify": false, "kubernetesEvents": events, "metricsExport": export, "pods": pods(),
        }},
        "alerter": {"enabled": true, "name": "rules", "spec": {
            "image": "reg/a:1", "notificationEndpoint": "https://n.example", "pods": pods(),
        }},
        "exporter": {"enabled": true},
    });
    let folders = json!({
        "adxCluster": {"enabled": true, "spec": {"local": {"storage": {"hostPath": "/mnt/k"}}, "databases": databases}},
        "ingestor": {"enabled": true, "spec": {"replicas": 0, "endpoint": "https://in.example", "storage": {"hostPath": "/mnt/ingestor"}}},
        "collector": {"enabled": true, "spec": {"kubernetesEvents": {"storage": {"hostPath": "/mnt/e", "size": "3Gi"}}}},
    });
    let sized = json!({
        "adxCluster": {"enabled": true, "spec": {
            "local": {"storage": {"hostPath": "/mnt/k", "size": "100M"}},
            "databases": [{"databaseName": "M", "telemetryType": "Metrics", "retentionInDays": 0}],
        }},
        "ingestor": {"enabled": true, "spec": {"storage": {"hostPath": "/mnt/ingestor", "size": "7G"}}},
        "collector": {"enabled": true, "spec": {"ingestorEndpoint": "https://other.example"}},
    });
    vec![
        ("components", example("components")),
        ("laptop", example("laptop")),
        ("azure", example("azure")),
        ("all options", options),
        ("folders", folders),
        ("folders of a size", sized),
    ]
}

#[test]
fn the_chart_makes_what_the_operator_makes() {
    let samples = all();
    let with_mode = |mode: &str| -> Vec<Value> {
        let mode = |values: &Value| {
            let mut values = values.clone();
            values["mode"] = mode.into();
            values
        };
        samples.iter().map(|(_, values)| mode(values)).collect()
    };
    let (Some(components), Some(resources)) = (render(&with_mode("components")), render(&with_mode("operator"))) else { return };
    for (((name, values), components), resources) in samples.iter().zip(components).zip(resources) {
        let ours = normal(components.unwrap_or_else(|error| panic!("{name}: {error}")));
        let theirs = normal(operator(&resources.unwrap(), values));
        assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>(), "{name}");
        for (key, ours) in &ours {
            let differences = differences(ours, &theirs[key], String::new());
            assert!(differences.is_empty(), "{name}: {key}:\n{}", differences.join("\n"));
        }
    }
}

/// What the operator makes of the resources among these objects.
fn operator(objects: &[Value], values: &Value) -> Vec<Value> {
    let mut resources = Resources::default();
    for object in objects.iter().filter(|object| object["apiVersion"] == "adx-mon.azure.com/v1") {
        assert_eq!(resources.read("chart", &object.to_string()), []);
    }
    if values["exporter"]["enabled"] == true {
        assert_eq!(resources.read("exporter", EXPORTER), []);
    }
    let labels: BTreeMap<String, String> = serde_json::from_value(values["clusterLabels"].clone()).unwrap_or_default();
    let labels: Labels = labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let image = |field: &str, default: &str| values["image"][field].as_str().unwrap_or(default).to_owned();
    let images = Images { prefix: image("prefix", "ghcr.io/azure/adx-mon"), tag: image("tag", "latest") };
    super::yaml(&yaml(&resources.render(&Settings { labels, images }).unwrap()).unwrap())
}

/// Without what says who made it.
fn normal(objects: Vec<Value>) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    for mut object in objects.into_iter().filter(|object| object.is_object() && object["kind"] != "ClusterRole") {
        for path in ["/metadata/labels", "/spec/template/metadata/labels"] {
            if let Some(Value::Object(labels)) = object.pointer_mut(path) {
                labels.retain(|name, _| {
                    !name.starts_with("adx-mon.azure.com/owner")
                        && !["app.kubernetes.io/managed-by", "helm.sh/chart"].contains(&name.as_str())
                });
            }
        }
        // Digests of the same text by different functions.
        if let Some(Value::Object(annotations)) = object.pointer_mut("/spec/template/metadata/annotations") {
            annotations.remove("adx-mon.azure.com/config");
        }
        if let Some(Value::String(text)) = object.pointer("/data/config.toml").cloned() {
            let table: toml::Table = text.parse().unwrap_or_else(|error| panic!("{error}\n{text}"));
            object["data"] = serde_json::to_value(table).unwrap();
        }
        if let Some(Value::Array(env)) = object.pointer_mut("/spec/template/spec/containers/0/env") {
            env.sort_by_key(|variable| variable["name"].to_string());
        }
        let twice = all.insert(key(&object), object);
        assert_eq!(twice, None);
    }
    all
}

fn differences(ours: &Value, theirs: &Value, path: String) -> Vec<String> {
    match (ours, theirs) {
        (Value::Object(a), Value::Object(b)) => {
            let none = Value::Null;
            let keys: Map<String, Value> = a.iter().chain(b).map(|(name, _)| (name.clone(), Value::Null)).collect();
            let of = |name: &String| differences(a.get(name).unwrap_or(&none), b.get(name).unwrap_or(&none), format!("{path}.{name}"));
            keys.keys().flat_map(of).collect()
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            a.iter().zip(b).enumerate().flat_map(|(at, (a, b))| differences(a, b, format!("{path}[{at}]"))).collect()
        }
        _ if ours == theirs => Vec::new(),
        _ => vec![format!("{path}: the chart has {ours}, the operator {theirs}")],
    }
}
