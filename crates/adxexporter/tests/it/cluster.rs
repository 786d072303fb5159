//! Two replicas, and two deployments, on a real API server, with the rights that they need and no more.

use std::collections::BTreeMap;
use std::time::Duration;

use adxexporter::push::PushConfig;
use adxexporter::{Config, Rules, Running, start};
use crds::{MetricsExporter, SummaryRule, conditions};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::rbac::v1::PolicyRule;
use kube_client::api::{Api, PostParams};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::fake_kusto::{Answer, FakeKusto};
use crate::receiver::Receiver;

fn rule(group: &str, resource: &str, verbs: &[&str]) -> PolicyRule {
    PolicyRule {
        api_groups: Some(vec![group.to_owned()]),
        resources: Some(vec![resource.to_owned()]),
        verbs: verbs.iter().map(|verb| (*verb).to_owned()).collect(),
        ..PolicyRule::default()
    }
}

pub(crate) fn rights() -> Vec<PolicyRule> {
    let group = crds::GROUP;
    vec![
        rule(group, "metricsexporters", &["get", "list", "watch"]),
        rule(group, "metricsexporters/status", &["patch"]),
        rule(group, "summaryrules", &["get", "list", "watch", "patch"]),
        rule(group, "summaryrules/status", &["patch"]),
        rule("events.k8s.io", "events", &["create"]),
        rule("coordination.k8s.io", "leases", &["get", "create", "update"]),
    ]
}

fn exporter(name: &str) -> MetricsExporter {
    let spec = json!({"database": "Metrics", "interval": "24h", "body": name,
        "transform": {"valueColumns": ["n"], "timestampColumn": "at", "defaultMetricName": name}});
    let object = json!({"apiVersion": "adx-mon.azure.com/v1", "kind": "MetricsExporter", "metadata": {"name": name}, "spec": spec});
    serde_json::from_value(object).unwrap()
}

#[tokio::test]
async fn of_two_replicas_one_exports_and_the_other_takes_over() {
    let Some(server) = kube_testing::start(&["adxexporter"]).await else { return };
    server.install_crds().await.unwrap();
    server.grant("adxexporter", rights()).await.unwrap();
    let kusto = FakeKusto::start(|_| Answer::rows(&[("n", "long"), ("at", "datetime")], vec![json!([1, "2024-05-01T10:00:00Z"])])).await;
    let receiver = Receiver::start([]).await;
    let replica = async || -> (CancellationToken, Running) {
        let rules = Rules::Cluster { kubeconfig: Some(server.kubeconfig("adxexporter")), namespace: None };
        let databases = BTreeMap::from([("Metrics".to_owned(), kusto.client())]);
        let stop = CancellationToken::new();
        let config = Config::new(databases, PushConfig::new(&receiver.http_url()), rules);
        (stop.clone(), start(config, stop).await.unwrap())
    };
    let exporters: Api<MetricsExporter> = Api::namespaced(server.admin().await, "default");
    exporters.create(&PostParams::default(), &exporter("first")).await.unwrap();
    let (one, other) = (replica().await, replica().await);
    receiver.until_batches(1).await;
    exporters.create(&PostParams::default(), &exporter("second")).await.unwrap();
    receiver.until_batches(2).await;

    // Whichever of them leads: the one that is left does what comes next, and nothing again.
    one.0.cancel();
    one.1.finished().await.unwrap();
    exporters.create(&PostParams::default(), &exporter("third")).await.unwrap();
    receiver.until_batches(3).await;
    other.0.cancel();
    other.1.finished().await.unwrap();
    let asked: Vec<_> = kusto.asked().iter().map(|asked| asked.query.lines().last().unwrap().to_owned()).collect();
    assert_eq!(asked, ["first", "second", "third"]);
    for name in ["first", "second", "third"] {
        let status = exporters.get(name).await.unwrap().status.unwrap();
        assert_eq!((status.last_samples, status.last_window_end.is_some()), (1, true), "{name}");
    }
}

/// Each has a cluster of its own with a database of the same name, and a rule has one cursor.
#[tokio::test]
async fn of_two_deployments_one_runs_a_summary_rule() {
    let Some(server) = kube_testing::start(&["adxexporter"]).await else { return };
    server.install_crds().await.unwrap();
    server.grant("adxexporter", rights()).await.unwrap();
    let admin = server.admin().await;
    for name in ["one", "two"] {
        let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
        Api::all(admin.clone()).create(&PostParams::default(), &namespace).await.unwrap();
    }
    let rules: Api<SummaryRule> = Api::namespaced(admin, "default");
    let metadata = json!({"name": "r", "annotations": {"adx-mon.azure.com/owner": "adx-exporter"}});
    let spec = json!({"database": "Metrics", "table": "T", "interval": "24h", "body": "Src"});
    let rule = json!({"apiVersion": "adx-mon.azure.com/v1", "kind": "SummaryRule", "metadata": metadata, "spec": spec});
    rules.create(&PostParams::default(), &serde_json::from_value(rule).unwrap()).await.unwrap();
    let receiver = Receiver::start([]).await;
    let deployment = async |namespace: &str| {
        let kusto = FakeKusto::start(|_| Answer::rows(&[("n", "long")], vec![])).await;
        let rules = Rules::Cluster { kubeconfig: Some(server.kubeconfig("adxexporter")), namespace: Some(namespace.to_owned()) };
        let databases = BTreeMap::from([("Metrics".to_owned(), kusto.client())]);
        let stop = CancellationToken::new();
        let config = Config::new(databases, PushConfig::new(&receiver.http_url()), rules);
        (kusto, stop.clone(), start(config, stop).await.unwrap())
    };
    let condition = async |type_: &str| {
        let status = rules.get("r").await.unwrap().status?;
        conditions::get(&status.conditions, type_).map(|condition| condition.message.clone())
    };
    let (one, stop_one, running_one) = deployment("one").await;
    one.until_commanded(".set-or-append async T").await;
    assert_eq!(condition("Deployment").await.as_deref(), Some("one/adxexporter"));
    let (two, stop_two, running_two) = deployment("two").await;
    let left = async {
        loop {
            match condition("DeploymentConflict").await {
                Some(message) => return message,
                None => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    let left = tokio::time::timeout(Duration::from_secs(60), left).await.unwrap();
    assert!(left.starts_with("one/adxexporter runs this rule"), "{left}");
    for (stop, running) in [(stop_one, running_one), (stop_two, running_two)] {
        stop.cancel();
        running.finished().await.unwrap();
    }
    assert_eq!(two.commands(), [""; 0]);
}
