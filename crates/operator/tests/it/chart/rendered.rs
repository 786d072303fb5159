//! What Helm makes of the chart.

use std::collections::BTreeSet;

use clap::Parser as _;
use serde_json::{Value, json};

use super::{EXAMPLES, example, helm, key, render, yaml};

fn find<'a>(objects: &'a [Value], wanted: &str) -> &'a Value {
    objects.iter().find(|object| key(object) == wanted).unwrap_or_else(|| panic!("there is no {wanted}"))
}

fn keys(objects: &[Value]) -> BTreeSet<String> {
    objects.iter().map(key).collect()
}

#[test]
fn examples_render_to_valid_objects() {
    let values: Vec<Value> = EXAMPLES.iter().map(|name| example(name)).chain([json!({})]).collect();
    let Some(all) = render(&values) else { return };
    for (name, objects) in EXAMPLES.iter().chain(&["defaults"]).zip(all) {
        let objects = objects.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(keys(&objects).len(), objects.len(), "{name}: an object is there twice");
        for object in &objects {
            check(name, object);
        }
    }
}

fn check(name: &str, object: &Value) {
    let what = format!("{name}: {}", key(object));
    let kind = object["kind"].as_str().unwrap();
    let of_the_cluster = kind.starts_with("Cluster");
    assert_eq!(object["metadata"]["namespace"], if of_the_cluster { Value::Null } else { "mon".into() }, "{what}");
    for subject in object["subjects"].as_array().into_iter().flatten() {
        assert_eq!(subject["namespace"], "mon", "{what}");
    }
    assert_eq!(object["metadata"]["labels"]["app.kubernetes.io/part-of"], "adx-mon", "{what}");
    // Secrets are named, never made; and no ConfigMap has one.
    assert_ne!(kind, "Secret", "{what}");
    if kind == "ConfigMap" {
        let text = object["data"].to_string().to_lowercase();
        for word in ["password", "accountkey", "sharedaccess", "sig=", "client-secret", "bearer "] {
            assert!(!text.contains(word), "{what} has {word}");
        }
    }
    let template = &object["spec"]["template"];
    if !template.is_object() {
        return;
    }
    let labels = template["metadata"]["labels"].as_object().unwrap();
    let selector = object["spec"]["selector"]["matchLabels"].as_object().unwrap();
    assert!(!selector.is_empty() && selector.iter().all(|(name, value)| labels.get(name) == Some(value)), "{what}");
    let pod = &template["spec"];
    assert_eq!((&pod["securityContext"]["runAsNonRoot"], &pod["securityContext"]["runAsUser"]), (&json!(true), &json!(1000)), "{what}");
    for container in pod["containers"].as_array().unwrap() {
        assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true, "{what}");
        assert_eq!(container["securityContext"]["allowPrivilegeEscalation"], false, "{what}");
        assert_eq!(container["securityContext"]["capabilities"], json!({"drop": ["ALL"]}), "{what}");
        for field in ["readinessProbe", "livenessProbe"] {
            assert!(container[field].is_object(), "{what} has no {field}");
        }
        for field in ["requests", "limits"] {
            let resources = &container["resources"][field];
            assert!(resources["cpu"].is_string() && resources["memory"].is_string(), "{what}: {field}");
        }
    }
}

/// The operator's pod is that of the kustomize base, with the settings of the values.
#[test]
fn the_operator_is_that_of_the_kustomize_base() {
    let values = json!({
        "clusterLabels": {"region": "eastus"}, "image": {"tag": "v7"},
        "operator": {"args": ["--pprof-bind-address=on"], "pods": {"identityClientId": "1-2", "imagePullSecrets": ["registry"]}},
    });
    let Some(objects) = render(&[json!({}), values]) else { return };
    let [plain, set] = [&objects[0], &objects[1]].map(|objects| objects.as_ref().unwrap());
    let base = yaml(include_str!("../../../../../deploy/kustomize/operator/operator.yaml")).remove(0);
    let pod = |object: &Value| {
        let mut pod = object["spec"]["template"]["spec"].clone();
        let container = pod["containers"][0].as_object_mut().unwrap();
        container.retain(|name, _| !["args", "env"].contains(&name.as_str()));
        pod
    };
    let (ours, theirs) = (pod(find(plain, "Deployment operator")), pod(&base));
    assert!(operator::apply::contains(&ours, &theirs), "{ours}\n{theirs}");
    assert_eq!(find(plain, "Deployment operator")["spec"]["replicas"], base["spec"]["replicas"]);

    let deployment = find(set, "Deployment operator");
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["image"], "ghcr.io/azure/adx-mon/operator:v7");
    let args: Vec<String> = serde_json::from_value(container["args"].clone()).unwrap();
    let flags = operator::Flags::try_parse_from([vec!["operator".to_owned()], args].concat()).unwrap();
    assert_eq!(flags.run.common.cluster_labels, [("region".to_owned(), "eastus".to_owned())]);
    assert_eq!((flags.run.common.image_prefix.as_str(), flags.run.common.image_tag.as_str()), ("ghcr.io/azure/adx-mon", "v7"));
    assert_eq!((flags.run.port, flags.run.pprof_bind_address.as_str()), (8080, "on"));
    assert_eq!(find(set, "ServiceAccount operator")["metadata"]["annotations"]["azure.workload.identity/client-id"], "1-2");
    assert_eq!(deployment["spec"]["template"]["metadata"]["labels"]["azure.workload.identity/use"], "true");
    assert_eq!(deployment["spec"]["template"]["spec"]["imagePullSecrets"], json!([{"name": "registry"}]));
}

#[test]
fn values_choose_what_there_is() {
    let values = [
        json!({}),
        json!({"rbac": {"roles": false}}),
        json!({"mode": "components"}),
        json!({"mode": "components", "rbac": {"roles": false}, "collector": {"enabled": true, "spec": {"ingestorEndpoint": "https://i"}}}),
        json!({"adxCluster": {"enabled": true, "spec": {"endpoint": "https://c"}}, "ingestor": {"enabled": true}}),
    ];
    let Some(all) = render(&values) else { return };
    let all: Vec<Vec<Value>> = all.into_iter().map(Result::unwrap).collect();
    let roles: BTreeSet<String> = keys(&yaml(include_str!("../../../../../deploy/rbac/operator-roles.yaml")));
    let operator = keys(&yaml(include_str!("../../../../../deploy/rbac/operator.yaml")));
    let more = ["Deployment operator", "PodDisruptionBudget operator"].map(str::to_owned);
    let operator: BTreeSet<String> = operator.into_iter().chain(more).collect();
    assert_eq!(keys(&all[0]), roles.union(&operator).cloned().collect());
    assert_eq!(keys(&all[1]), operator);
    assert_eq!(keys(&all[2]), roles);
    let collector = [
        "ServiceAccount collector",
        "ClusterRoleBinding mon:collector",
        "ClusterRoleBinding mon:collector:metrics",
        "ConfigMap collector-config",
        "Service collector",
        "DaemonSet collector",
    ];
    assert_eq!(keys(&all[3]), collector.map(str::to_owned).into());
    // The resources know each other by a label of the release.
    let cluster = find(&all[4], "ADXCluster adx");
    assert_eq!(
        (&cluster["spec"]["clusterName"], &cluster["metadata"]["labels"]["adx-mon.azure.com/release"]),
        (&json!("adx"), &json!("rel"))
    );
    assert_eq!(
        find(&all[4], "Ingestor ingestor")["spec"],
        json!({"adxClusterSelector": {"matchLabels": {"adx-mon.azure.com/release": "rel"}}})
    );
}

/// What is wrong is said before anything is installed, with the name of the value.
#[test]
fn wrong_values_are_refused() {
    let local = json!({"enabled": true, "spec": {"local": {}, "databases": [{"databaseName": "M", "telemetryType": "Metrics"}]}});
    let cases = [
        (json!({"mode": "both"}), "mode"),
        (json!({"ingester": {}}), "ingester"),
        (json!({"ingestor": {"spec": {"replicsa": 3}}}), "replicsa"),
        (json!({"ingestor": {"spec": {"replicas": "3"}}}), "ingestor/spec/replicas"),
        (json!({"ingestor": {"name": "Ingestor"}}), "ingestor/name"),
        (json!({"adxCluster": {"spec": {"databases": [{"databaseName": "a b", "telemetryType": "Metrics"}]}}}), "databases/0/databaseName"),
        (json!({"adxCluster": {"spec": {"databases": [{"databaseName": "a", "telemetryType": "Metric"}]}}}), "databases/0/telemetryType"),
        (json!({"alerter": {"enabled": true}}), "notificationEndpoint"),
        (json!({"operator": {"pods": {"nodeSelector": {"a": 1}}}}), "operator/pods/nodeSelector/a"),
        (json!({"clusterLabels": {"region": "a,b"}}), "clusterLabels/region"),
        (json!({"mode": "components", "ingestor": {"enabled": true}}), "adxCluster.enabled"),
        (json!({"mode": "components", "collector": {"enabled": true}}), "collector.spec.ingestorEndpoint"),
        (
            json!({"mode": "components", "adxCluster": {"enabled": true, "spec": {"provision": {}}}, "ingestor": {"enabled": true}}),
            "mode components makes no clusters in Azure",
        ),
        (
            json!({"mode": "components", "adxCluster": {"enabled": true, "spec": {"endpoint": "https://c"}}, "ingestor": {"enabled": true}}),
            "adxCluster.spec.databases is empty",
        ),
        (json!({"mode": "components", "adxCluster": local, "exporter": {"enabled": true}}), "metricsExport.otlpEndpoint"),
        (
            json!({"mode": "components", "adxCluster": local, "ingestor": {"enabled": true, "spec": {"criteriaExpression": "a == 'b'"}}}),
            "ingestor.spec.criteriaExpression needs the operator",
        ),
        (
            json!({"mode": "components", "adxCluster": local, "ingestor": {"enabled": true, "spec": {"storage": {"size": "20GB"}}}}),
            "\"20GB\" is no size",
        ),
    ];
    let values: Vec<Value> = cases.iter().map(|(values, _)| values.clone()).collect();
    let Some(all) = render(&values) else { return };
    for ((values, part), rendered) in cases.iter().zip(all) {
        let error = rendered.map(|objects| keys(&objects)).expect_err(&values.to_string());
        assert!(error.contains(part), "{values}: {error}");
    }
}

#[test]
fn helm_finds_nothing_to_complain_of() {
    for name in EXAMPLES {
        let Some(report) = helm("lint", &json!({"values": example(name)})) else { return };
        let report = report.unwrap();
        assert_eq!(report["errors"], json!([]), "{name}: {report}");
        let bad: Vec<&Value> =
            report["messages"].as_array().unwrap().iter().filter(|message| message["severity"].as_i64() >= Some(2)).collect();
        assert!(bad.is_empty(), "{name}: {bad:?}");
    }
}

#[test]
fn the_notes_say_what_to_do_next() {
    let asked = EXAMPLES.map(|name| json!({"name": "rel", "namespace": "mon", "values": example(name)}));
    let Some(answers) = helm("render", &asked.to_vec().into()) else { return };
    let answers = answers.unwrap();
    let notes = |at: usize| answers[at]["files"]["adx-mon/templates/NOTES.txt"].as_str().unwrap();
    assert!(notes(0).contains("kubectl -n mon rollout status deployment/operator"), "{}", notes(0));
    assert!(notes(0).contains("kubectl -n mon port-forward service/adx 8080:8080"), "{}", notes(0));
    assert!(notes(2).starts_with("The components start: kubectl -n mon get pods"), "{}", notes(2));
}

/// Files and values that the page about installing names.
#[test]
fn the_page_names_what_there_is() {
    let page = include_str!("../../../../../docs/install.md");
    let root = super::folder().join("../../..");
    let is_path = |c: char| c.is_ascii_alphanumeric() || "/-_.".contains(c);
    let paths: BTreeSet<&str> =
        page.split(|c| !is_path(c)).map(|word| word.trim_end_matches('.')).filter(|word| word.starts_with("deploy/")).collect();
    assert!(paths.len() > 5, "{paths:?}");
    for path in paths {
        assert!(root.join(path).exists(), "there is no {path}");
    }
    let shown: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("| `examples/")?.split(".yaml`").next()).collect();
    assert_eq!(shown, EXAMPLES);
}
