//! Two replicas on a real API server, with the rights that they need and no more.

use std::collections::BTreeMap;

use adxexporter::push::PushConfig;
use adxexporter::{Config, Rules, Running, start};
use crds::MetricsExporter;
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
    let group = crds::GROUP;
    let rights = vec![
        rule(group, "metricsexporters", &["get", "list", "watch"]),
        rule(group, "metricsexporters/status", &["patch"]),
        rule(group, "summaryrules", &["get", "list", "watch", "patch"]),
        rule(group, "summaryrules/status", &["patch"]),
        rule("events.k8s.io", "events", &["create"]),
        rule("coordination.k8s.io", "leases", &["get", "create", "update"]),
    ];
    server.grant("adxexporter", rights).await.unwrap();
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
