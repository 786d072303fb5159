//! Decisions without a cluster: the reference's vectors, the order, readiness.

use crds::conditions::Truth;
use crds::criteria::Labels;
use crds::{AdxCluster, Alerter, Collector, Ingestor};
use operator::reconcile::decide::{self, Step, Surroundings};
use operator::reconcile::{Origin, origin};
use operator::render::Settings;
use operator::status::{Pods, Verdict, installed};
use serde_json::{Value, json};

use crate::samples::{object, selector};

#[test]
fn clusters_are_decided_on_as_by_the_reference() {
    let vectors: Value = serde_json::from_str(include_str!("../../../../tests/vectors/control/adxcluster_reconcile.json")).unwrap();
    let mut seen = 0;
    for case in vectors["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let cluster: AdxCluster = object("ADXCluster", "c", case["spec"].clone());
        let labels = case["operatorLabels"].as_object().into_iter().flatten();
        let labels: Labels = labels.map(|(name, value)| (name.as_str(), value.as_str().unwrap())).collect();
        let (verdict, endpoint) = match decide::criteria(&cluster.spec.criteria_expression, &labels) {
            Some(verdict) => (verdict, String::new()),
            None => match origin(&cluster) {
                Origin::Exists(endpoint) => {
                    (Verdict::new(Truth::True, "ProvisioningSkipped", format!("Using existing endpoint {endpoint}")), endpoint)
                }
                Origin::Invalid(verdict) => (verdict, String::new()),
                other => panic!("{name}: {other:?}"),
            },
        };
        let expected = &case["expected"];
        let condition = &expected["conditions"][0];
        seen += 1;
        if name == "criteria became true later with same generation is stuck" {
            // Defect of the reference: the condition of a false expression is never looked at again.
            assert_eq!((verdict.reason, endpoint.as_str()), ("ProvisioningSkipped", "https://c"));
            continue;
        }
        assert_eq!(
            (verdict.status.as_str(), verdict.reason),
            (condition["status"].as_str().unwrap(), condition["reason"].as_str().unwrap()),
            "{name}"
        );
        if verdict.reason == "CriteriaExpressionError" {
            assert!(verdict.message.starts_with("cel typecheck: "), "{}", verdict.message);
        } else {
            assert_eq!(verdict.message, condition["message"].as_str().unwrap(), "{name}");
        }
        assert_eq!(endpoint, expected["endpoint"].as_str().unwrap(), "{name}");
    }
    assert_eq!(seen, 7);
}

fn cluster(name: &str, status: Option<(&str, &str)>, expression: &str) -> AdxCluster {
    let databases = json!([{"databaseName": format!("Db_{name}"), "telemetryType": "Metrics"}]);
    let spec =
        json!({"clusterName": name, "endpoint": format!("https://{name}"), "databases": databases, "criteriaExpression": expression});
    let mut cluster: AdxCluster = object("ADXCluster", name, spec);
    if let Some((status, reason)) = status {
        let verdict = Verdict::new(if status == "True" { Truth::True } else { Truth::Unknown }, "x", "details");
        let mut conditions = Vec::new();
        verdict.set("adxcluster.adx-mon.azure.com", Some(1), &mut conditions, jiff::Timestamp::UNIX_EPOCH);
        conditions[0].reason = reason.to_owned();
        cluster.status = Some(crds::AdxClusterStatus { conditions, ..Default::default() });
    }
    cluster
}

fn ingestor(status: Value) -> Ingestor {
    let mut ingestor: Ingestor = object("Ingestor", "ingestor", json!({"adxClusterSelector": selector()}));
    ingestor.status = serde_json::from_value(status).unwrap();
    ingestor
}

fn waits(step: Step) -> String {
    match step {
        Step::Stop(verdict) => format!("{} {}", verdict.reason, verdict.message),
        Step::Install(_) => "installs".to_owned(),
    }
}

fn settings() -> Settings {
    Settings { labels: [("region", "eastus")].into_iter().collect(), ..Settings::default() }
}

#[test]
fn an_ingestor_waits_for_each_of_its_clusters() {
    let on = |clusters: Vec<AdxCluster>, status: Value| {
        let around = Surroundings { clusters, ..Surroundings::default() };
        waits(decide::ingestor(&ingestor(status), &around, &settings()))
    };
    let ready = |name: &str| cluster(name, Some(("True", "ProvisioningSkipped")), "");
    assert!(on(vec![], Value::Null).starts_with("NotReady waiting for an ADXCluster: none in this namespace"));
    assert_eq!(on(vec![cluster("a", None, "")], Value::Null), "NotReady waiting for ADXCluster a: it is not looked at yet");
    let creating = || cluster("b", Some(("Unknown", "Creating")), "");
    assert_eq!(on(vec![ready("a"), creating()], Value::Null), "NotReady waiting for ADXCluster b: Creating: details");
    assert_eq!(on(vec![ready("a"), ready("b")], Value::Null), "installs");
    // One that is for another cluster is nobody to wait for.
    assert_eq!(on(vec![ready("a"), cluster("c", None, "region == 'westus'")], Value::Null), "installs");
    // What is installed is looked after whatever happens to the clusters.
    assert_eq!(on(vec![ready("a"), creating()], json!({"observedGeneration": 1})), "installs");
}

#[test]
fn a_collector_waits_for_its_ingestor_and_an_alerter_for_both() {
    let collector = |spec: Value| object::<Collector>("Collector", "collector", spec);
    let on = |collector: &Collector, ingestors: Vec<Ingestor>| {
        let around = Surroundings { ingestors, ..Surroundings::default() };
        waits(decide::collector(collector, &around, &settings()))
    };
    assert!(on(&collector(json!({})), vec![]).starts_with("NotReady waiting for an Ingestor: there is none"));
    assert_eq!(on(&collector(json!({})), vec![ingestor(Value::Null)]), "NotReady waiting for Ingestor ingestor: none of its pods is ready");
    assert_eq!(on(&collector(json!({})), vec![ingestor(json!({"replicas": 3, "readyReplicas": 1}))]), "installs");
    assert_eq!(on(&collector(json!({"ingestorEndpoint": "https://elsewhere"})), vec![]), "installs");

    let alerter: Alerter = object("Alerter", "alerter", json!({"adxClusterSelector": selector(), "notificationEndpoint": "http://n"}));
    let on = |ingestors: Vec<Ingestor>, collectors: Vec<Collector>| {
        let clusters = vec![cluster("a", Some(("True", "ClusterReady")), "")];
        waits(decide::alerter(&alerter, &Surroundings { clusters, ingestors, collectors, exports: false }, &settings()))
    };
    assert_eq!(on(vec![], vec![]), "installs");
    assert_eq!(on(vec![ingestor(Value::Null)], vec![]), "NotReady waiting for Ingestor ingestor: none of its pods is ready");
    let ready = || ingestor(json!({"replicas": 1, "readyReplicas": 1}));
    assert_eq!(on(vec![ready()], vec![collector(json!({}))]), "NotReady waiting for Collector collector: none of its pods is ready");
    let elsewhere = json!({"criteriaExpression": "region == 'westus'"});
    assert_eq!(on(vec![ready()], vec![collector(elsewhere)]), "installs");
}

#[test]
fn pods_are_ready_when_all_are_as_the_spec_has_them() {
    let set = |generation: i64, status: Value| {
        Pods::of(&json!({"kind": "StatefulSet", "metadata": {"generation": generation}, "spec": {"replicas": 3}, "status": status}))
    };
    let status =
        |seen: i64, ready: i64, updated: i64| json!({"observedGeneration": seen, "readyReplicas": ready, "updatedReplicas": updated});
    assert_eq!(set(2, status(2, 3, 3)), Pods { wanted: 3, ready: 3, rolled_out: true });
    // Defect of the reference: a spec that is edited while it waits counts as ready without having been rolled out.
    assert!(!set(3, status(2, 3, 3)).rolled_out);
    assert!(!set(2, status(2, 3, 1)).rolled_out);
    assert!(!set(2, status(2, 2, 3)).rolled_out);
    assert!(!set(1, json!({})).rolled_out);
    let nodes = json!({"observedGeneration": 1, "desiredNumberScheduled": 2, "numberReady": 2, "updatedNumberScheduled": 2});
    let nodes = Pods::of(&json!({"kind": "DaemonSet", "metadata": {"generation": 1}, "spec": {}, "status": nodes}));
    assert_eq!(nodes, Pods { wanted: 2, ready: 2, rolled_out: true });
    let both = Pods::sum([nodes, set(2, status(2, 1, 3))]);
    assert_eq!((installed(both).reason, installed(nodes).reason), ("WaitForReady", "Ready"));
}
