//! Resources that tests render.

use crds::{AdxCluster, Alerter, Collector, Ingestor};
use operator::manifest::Resources;
use operator::object::Object;
use operator::render::{Kusto, Rendered, Settings};
use serde_json::{Value, json};

pub(crate) fn object<K: serde::de::DeserializeOwned>(kind: &str, name: &str, spec: Value) -> K {
    let labels = json!({"app": "adx-mon"});
    let meta = json!({"name": name, "namespace": "mon", "uid": format!("uid-{name}"), "labels": labels, "generation": 1});
    serde_json::from_value(json!({"apiVersion": "adx-mon.azure.com/v1", "kind": kind, "metadata": meta, "spec": spec})).unwrap()
}

pub(crate) fn selector() -> Value {
    json!({"matchLabels": {"app": "adx-mon"}})
}

pub(crate) fn kusto(endpoint: &str) -> Vec<Kusto> {
    let database = |name: &str| serde_json::from_value(json!({"databaseName": name, "telemetryType": name})).unwrap();
    vec![Kusto { name: "adx".to_owned(), endpoint: endpoint.to_owned(), databases: ["Metrics", "Logs", "Traces"].map(database).to_vec() }]
}

pub(crate) fn settings() -> Settings {
    let labels = [("region", "eastus"), ("cloud", "public"), ("environment", "prod")].into_iter().collect();
    Settings { labels, ..Settings::default() }
}

/// All options of pods.
pub(crate) fn pods() -> Value {
    json!({
        "resources": {"requests": {"cpu": "200m"}, "limits": {"memory": "3Gi", "ephemeral-storage": "1Gi"}},
        "nodeSelector": {"pool": "monitoring"},
        "tolerations": [
            {"key": "dedicated", "operator": "Equal", "value": "monitoring", "effect": "NoSchedule"},
            {"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60},
        ],
        "priorityClassName": "system-cluster-critical", "imagePullSecrets": ["registry"], "labels": {"team": "observability"},
        "annotations": {"example.org/note": "x"}, "identityClientId": "11111111-2222-3333-4444-555555555555", "logLevel": "DEBUG",
    })
}

/// Each kind with nothing but what it must have, and with every option.
pub(crate) fn all() -> Vec<(&'static str, Rendered)> {
    let storage = json!({"size": "50Gi", "storageClassName": "fast"});
    let folder = json!({"hostPath": "/mnt/ingestor"});
    let databases = json!([
        {"databaseName": "Metrics", "telemetryType": "Metrics"},
        {"databaseName": "Logs", "telemetryType": "Logs", "retentionInDays": 90},
    ]);
    let cluster =
        |local: Value| object::<AdxCluster>("ADXCluster", "adx", json!({"clusterName": "adx", "databases": databases, "local": local}));
    let ingestor = |more: Value| object::<Ingestor>("Ingestor", "ingestor", with(json!({"adxClusterSelector": selector()}), more));
    let alerter = |more: Value| {
        object::<Alerter>(
            "Alerter",
            "alerter",
            with(json!({"adxClusterSelector": selector(), "notificationEndpoint": "https://n.example"}), more),
        )
    };
    let collector = |more: Value| object::<Collector>("Collector", "collector", more);
    let events = json!({"database": "Ops", "table": "Events", "namespaces": ["a", "b"], "storage": {"size": "2Gi"}});
    let export = json!({"image": "reg/exporter:1", "otlpEndpoint": "http://otel:4318/v1/metrics"});
    let (settings, adx, url) = (settings(), kusto("https://adx.kusto.windows.net"), "https://ingestor.mon.svc.cluster.local");
    use operator::render;
    vec![
        ("local", render::kustd::render(&cluster(json!({})), &settings).unwrap()),
        (
            "local, all",
            render::kustd::render(&cluster(json!({"image": "reg/kustd:1", "storage": storage, "pods": pods()})), &settings).unwrap(),
        ),
        ("ingestor", render::ingestor::render(&ingestor(json!({})), &adx, &settings).unwrap()),
        (
            "ingestor, all",
            render::ingestor::render(
                &ingestor(json!({"replicas": 3, "image": "reg/i:1", "exposeExternally": true, "storage": storage, "pods": pods()})),
                &adx,
                &settings,
            )
            .unwrap(),
        ),
        ("ingestor, folder", render::ingestor::render(&ingestor(json!({"storage": folder})), &adx, &settings).unwrap()),
        ("collector", render::collector::render(&collector(json!({})), url, &settings).unwrap()),
        (
            "collector, all",
            render::collector::render(
                &collector(json!({"image": "reg/c:1", "insecureSkipVerify": false, "kubernetesEvents": events, "pods": pods()})),
                url,
                &settings,
            )
            .unwrap(),
        ),
        ("exporter", render::exporter::render(&collector(json!({})), Some(&adx), &settings).unwrap()),
        (
            "exporter, all",
            render::exporter::render(&collector(json!({"metricsExport": export, "pods": pods()})), Some(&adx), &settings).unwrap(),
        ),
        ("alerter", render::alerter::render(&alerter(json!({})), &adx, &settings).unwrap()),
        ("alerter, all", render::alerter::render(&alerter(json!({"image": "reg/a:1", "pods": pods()})), &adx, &settings).unwrap()),
    ]
}

fn with(mut spec: Value, more: Value) -> Value {
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    spec
}

/// The object of a kind, by name.
pub(crate) fn find<'a>(rendered: &'a Rendered, kind: &str, name: &str) -> &'a Object {
    let found = rendered.objects.iter().find(|object| object.reference.kind.resource.kind == kind && object.reference.name == name);
    found.unwrap_or_else(|| panic!("there is no {kind} {name}"))
}

/// The arguments of a workload's container.
pub(crate) fn arguments(object: &Object) -> Vec<String> {
    serde_json::from_value(object.body["spec"]["template"]["spec"]["containers"][0]["args"].clone()).unwrap()
}

/// What files ask for.
pub(crate) fn resources(text: &str) -> Resources {
    let mut resources = Resources::default();
    assert_eq!(resources.read("test.yaml", text), []);
    resources
}
