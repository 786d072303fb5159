//! The reference's objects against ours: every difference is named, with the reason.

use std::collections::{BTreeMap, BTreeSet};

use crds::{Alerter, Collector, Ingestor};
use operator::render::{self, Rendered, Settings};
use serde_json::{Value, json};

use crate::samples::kusto;

/// Kind, path, why ours is another. A path stands for what is below it.
const DIFFERENT: &[(&str, &str, &str)] = &[
    ("Namespace", "", "the resource is in it: there is nothing to make, and no right to make namespaces is needed"),
    ("Role", "", "the operator writes no roles, it binds the shipped ones"),
    ("ClusterRole", "", "the same"),
    ("RoleBinding", ".metadata.name", "named as the resource"),
    ("RoleBinding", ".roleRef", "to the shipped role"),
    ("ClusterRoleBinding", ".roleRef", "to the shipped role"),
    ("ClusterRoleBinding", ".metadata.labels", "one label for all that the operator makes"),
    ("ClusterRoleBinding collector:collector", ".metadata.name", "defect: collectors of two namespaces share the reference's binding"),
    ("Service", ".spec.selector", "defect: two Ingestors of a namespace share pods"),
    ("StatefulSet", ".spec.selector", "the same"),
    ("Deployment", ".spec.selector", "the same"),
    ("DaemonSet", ".spec.selector", "the same"),
    ("StatefulSet", ".spec.replicas", "defect: the reference renders 1 whatever spec.replicas says"),
    ("StatefulSet", ".spec.template.spec.affinity", "by our selector"),
    ("StatefulSet", ".spec.template.spec.containers[0].args", "90 % of the volume, and the region"),
    (
        "StatefulSet",
        ".spec.template.spec.containers[0].env",
        "defect: the reference passes unexpanded $ADX_URL and $CLIENT_ID; GODEBUG is Go's",
    ),
    ("StatefulSet", ".spec.template.spec.containers[0].ports", "the port of metrics and probes is named"),
    ("StatefulSet", ".spec.template.spec.containers[0].readinessProbe", "by the name of the port, with timeouts"),
    ("StatefulSet", ".spec.template.spec.containers[0].volumeMounts", "a claim instead of a folder; certificates are in the image"),
    ("StatefulSet", ".spec.template.spec.volumes", "a claim instead of a folder of the node, which a moved pod would not find"),
    ("StatefulSet", ".spec.template.spec.tolerations", "Kubernetes adds those of not-ready and unreachable nodes by itself"),
    ("Deployment", ".spec.progressDeadlineSeconds", "the server's default"),
    ("Deployment", ".spec.revisionHistoryLimit", "the server's default"),
    ("Deployment", ".spec.strategy", "the next alerter is there before the last one goes"),
    ("Deployment", ".spec.template.metadata.annotations", "defect: three of them are not what collectors read; port and path were missing"),
    ("Deployment", ".spec.template.metadata.creationTimestamp", "the server's"),
    ("Deployment", ".spec.template.spec.containers[0].args", "defect: --kusto-endpoint lacks name=, so that the reference's alerter exits"),
    ("Deployment", ".spec.template.spec.containers[0].command", "where our image has it"),
    ("Deployment", ".spec.template.spec.containers[0].env", "GODEBUG is Go's"),
    ("Deployment", ".spec.template.spec.containers[0].imagePullPolicy", "the server's default, by the tag"),
    ("Deployment", ".spec.template.spec.containers[0].terminationMessagePath", "the server's default"),
    ("Deployment", ".spec.template.spec.containers[0].terminationMessagePolicy", "the server's default"),
    ("Deployment", ".spec.template.spec.containers[0].volumeMounts", "certificates are in the image; a folder for the outbox"),
    ("Deployment", ".spec.template.spec.restartPolicy", "the server's default"),
    ("Deployment", ".spec.template.spec.securityContext.fsGroup", "the group of the user"),
    ("Deployment", ".spec.template.spec.serviceAccount", "deprecated name of serviceAccountName"),
    ("Deployment", ".spec.template.spec.terminationGracePeriodSeconds", "queries and deliveries under way are waited for"),
    ("Deployment", ".spec.template.spec.volumes", "as the mounts"),
    ("ConfigMap", ".data", "the settings are compared by the_collectors_configuration_has_what_the_references_has"),
    ("DaemonSet", ".spec.template.metadata.annotations.adx-mon/port", "defect: metrics are on 8080, not on 9091"),
    ("DaemonSet", ".spec.template.spec.containers[0].env", "GODEBUG is Go's"),
    ("DaemonSet", ".spec.template.spec.containers[0].securityContext", "the same user, for the whole pod; capabilities are dropped too"),
    ("DaemonSet", ".spec.template.spec.containers[0].volumeMounts", "certificates are in the image; read-only configuration"),
    ("DaemonSet", ".spec.template.spec.volumes", "as the mounts; the folder of the data is made where it is missing"),
    ("DaemonSet", ".spec.updateStrategy.rollingUpdate.maxSurge", "the server's default"),
];

fn cases() -> Vec<Value> {
    let text = include_str!("../../../../tests/vectors/control/operator_rendered_objects.json");
    let mut vectors: Value = serde_json::from_str(text).unwrap();
    serde_json::from_value(vectors["cases"].take()).unwrap()
}

fn ours(case: &Value) -> Option<Rendered> {
    let object = |kind: &str, name: &str, uid: &str| {
        let meta = json!({"name": name, "namespace": "mon", "uid": uid});
        json!({"apiVersion": "adx-mon.azure.com/v1", "kind": kind, "metadata": meta, "spec": case["input"]})
    };
    let mut adx = kusto("https://adx.kusto.windows.net");
    adx[0].databases.truncate(2);
    let settings = Settings::default();
    Some(match case["name"].as_str().unwrap() {
        "ingestor" => {
            let ingestor: Ingestor = serde_json::from_value(object("Ingestor", "ingestor", "uid-1")).unwrap();
            render::ingestor::render(&ingestor, &adx, &settings).unwrap()
        }
        "alerter" => {
            let alerter: Alerter = serde_json::from_value(object("Alerter", "alerter", "uid-2")).unwrap();
            render::alerter::render(&alerter, &adx, &settings).unwrap()
        }
        "collector (no region metadata)" => {
            let collector: Collector = serde_json::from_value(object("Collector", "collector", "uid-3")).unwrap();
            render::collector::render(&collector, &collector.spec.ingestor_endpoint, &settings).unwrap()
        }
        // What is not ready is waited for: tests of the reconcilers.
        "ingestor, ADXCluster not ready" => return None,
        other => panic!("{other}"),
    })
}

fn leaves(value: &Value, path: String, found: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| leaves(value, format!("{path}.{name}"), found)),
        Value::Array(items) => items.iter().enumerate().for_each(|(at, item)| leaves(item, format!("{path}[{at}]"), found)),
        leaf => drop(found.insert(path, leaf.clone())),
    }
}

#[test]
fn every_difference_to_the_reference_has_a_reason() {
    let (mut used, mut wrong, mut compared) = (BTreeSet::new(), Vec::new(), 0);
    for case in cases() {
        let Some(rendered) = ours(&case) else { continue };
        for theirs in case["expected"]["objects"].as_array().unwrap() {
            let (kind, name) = (theirs["kind"].as_str().unwrap(), theirs["metadata"]["name"].as_str().unwrap());
            let full = format!("{kind} {name}");
            let mut excused = |path: &str| {
                let fits = |(of, prefix, _): &&(&str, &str, &str)| (*of == kind || *of == full) && path.starts_with(prefix);
                let found = DIFFERENT.iter().find(fits);
                used.extend(found.map(|(of, prefix, _)| (*of, *prefix)));
                found.is_some()
            };
            let same_kind: Vec<_> = rendered.objects.iter().filter(|object| object.reference.kind.resource.kind == kind).collect();
            let exact = same_kind.iter().find(|object| object.reference.name == name);
            let Some(mine) = exact.or(same_kind.first()) else {
                if !excused("") {
                    wrong.push(format!("{full} is missing"));
                }
                continue;
            };
            let (mut expected, mut actual) = (BTreeMap::new(), BTreeMap::new());
            leaves(theirs, String::new(), &mut expected);
            leaves(&mine.body, String::new(), &mut actual);
            for (path, value) in expected {
                compared += 1;
                if actual.get(&path) != Some(&value) && !excused(&path) {
                    wrong.push(format!("{full} {path}: {value} there, {:?} here", actual.get(&path)));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(compared > 200, "{compared}");
    let unused: Vec<_> = DIFFERENT.iter().filter(|(of, prefix, _)| !used.contains(&(*of, *prefix))).collect();
    assert!(unused.is_empty(), "no difference any more: {unused:#?}");
}

#[test]
fn the_collectors_configuration_has_what_the_references_has() {
    // Accepted without effect (parsers are of targets, those of a host-log do nothing in the reference either), defaults, or what ours has found a better way for.
    let dropped = [
        ".host-log[0].parsers",
        ".otel-log.lift-attributes",
        ".wal-flush-interval-ms",
        ".drop-metrics",
        ".disable-metrics-forwarding",
        ".keep-metrics",
        ".default-drop-metrics",
        ".add-labels",
    ];
    let case = cases().into_iter().find(|case| case["name"] == "collector (no region metadata)").unwrap();
    let theirs = case["expected"]["objects"].as_array().unwrap().iter().find(|object| object["kind"] == "ConfigMap").unwrap();
    let rendered = ours(&case).unwrap();
    let mine = rendered.objects.iter().find(|object| object.reference.kind.resource.kind == "ConfigMap").unwrap();
    let parsed = |object: &Value| {
        let table: toml::Table = object["data"]["config.toml"].as_str().unwrap().parse().unwrap();
        let mut found = BTreeMap::new();
        leaves(&serde_json::to_value(table).unwrap(), String::new(), &mut found);
        found
    };
    let (theirs, mine) = (parsed(theirs), parsed(&mine.body));
    for (path, value) in theirs {
        // The page of its own metrics is on the listener's port.
        let own_metrics = path == ".prometheus-scrape.static-scrape-target[0].url";
        let excused =
            own_metrics || path != ".add-labels.host" && path != ".add-labels.cluster" && dropped.iter().any(|name| path.contains(name));
        assert!(mine.get(&path) == Some(&value) || excused, "{path}: {value} there, {:?} here", mine.get(&path));
    }
}
