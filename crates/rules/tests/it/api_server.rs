//! The store on a real API server, with the rights that its documentation names and no more.

use std::collections::BTreeMap;
use std::time::Duration;

use crds::SummaryRule;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::events::v1::Event as KubernetesEvent;
use k8s_openapi::api::rbac::v1::PolicyRule;
use kube::CustomResourceExt as _;
use kube_client::Client;
use kube_client::api::{Api, ListParams, Patch, PatchParams, PostParams};
use rules::store::kubernetes::{KubernetesStore, Options, connect};
use rules::store::{Event, Key, Severity, Store as _};
use serde_json::{Value, json};

use crate::support::{Probe, probe, run, soon, until};

const OBJECTS: usize = 20;

fn rule(group: &str, resource: &str, verbs: &[&str]) -> PolicyRule {
    PolicyRule {
        api_groups: Some(vec![group.to_owned()]),
        resources: Some(vec![resource.to_owned()]),
        verbs: verbs.iter().map(|verb| (*verb).to_owned()).collect(),
        ..PolicyRule::default()
    }
}

/// How often the server was asked for probes, by verb.
async fn requests(admin: &Client) -> BTreeMap<String, u64> {
    let request = http::Request::get("/metrics").body(Vec::new()).unwrap();
    let text = admin.request_text(request).await.unwrap();
    let mut counts = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with("apiserver_request_total") && line.contains("resource=\"probes\"")) {
        let verb = line.split("verb=\"").nth(1).unwrap().split('"').next().unwrap();
        *counts.entry(verb.to_owned()).or_default() += line.rsplit(' ').next().unwrap().parse::<u64>().unwrap();
    }
    counts
}

#[tokio::test]
async fn a_store_on_a_real_server() {
    let Some(mut server) = kube_testing::start(&["tester"]).await else { return };
    server.install(vec![Probe::crd()]).await.unwrap();
    let rights = vec![
        rule("test.adx-mon.azure.com", "probes", &["get", "list", "watch", "patch"]),
        rule("test.adx-mon.azure.com", "probes/status", &["patch"]),
        rule("events.k8s.io", "events", &["create"]),
    ];
    server.grant("tester", rights).await.unwrap();
    let admin = server.admin().await;
    let probes: Api<Probe> = Api::namespaced(admin.clone(), "default");
    for number in 0..OBJECTS {
        probes.create(&PostParams::default(), &probe(&format!("p{number}"), "Metrics")).await.unwrap();
    }
    let client = connect(Some(&server.kubeconfig("tester"))).await.unwrap().unwrap();
    let pause = Duration::from_millis(50);
    let options = Options { first_pause: pause, longest_pause: pause, ..Options::new("tester") };
    let store = KubernetesStore::<Probe>::start(client.clone(), options.clone());
    let mut objects = store.objects();
    until(&mut objects, |map| map.len() == OBJECTS).await;

    // Requests follow changes.
    let before = requests(&admin).await;
    for number in 0..OBJECTS {
        let key = Key::new("default", format!("p{number}"));
        store.update_status(&key, &run).await.unwrap();
        store.update_status(&key, &|_| {}).await.unwrap();
    }
    let mut after = requests(&admin).await;
    for (verb, count) in &before {
        *after.get_mut(verb).unwrap() -= count;
    }
    after.retain(|_, count| *count > 0);
    assert_eq!(after, BTreeMap::from([("PATCH".to_owned(), OBJECTS as u64)]));

    // Two writers lose no update.
    let other = KubernetesStore::<Probe>::start(client.clone(), options);
    soon(other.objects().ready()).await;
    let key = Key::new("default", "p0");
    let count = async |store: &KubernetesStore<Probe>| {
        for _ in 0..10 {
            store.update_status(&key, &run).await.unwrap();
        }
    };
    tokio::join!(count(&store), count(&other));
    let written = probes.get("p0").await.unwrap();
    assert_eq!((written.status.as_ref().unwrap().runs, written.metadata.generation), (21, Some(1)));

    // Metadata and spec.
    let change = |probe: &mut Probe| {
        probe.spec.interval = Some("1h".to_owned());
        probe.metadata.finalizers = Some(vec!["adx-mon.azure.com/test".to_owned()]);
        run(probe);
    };
    store.update(&key, &change).await.unwrap();
    let written = probes.get("p0").await.unwrap();
    assert_eq!((written.spec.interval.as_deref(), written.status.as_ref().unwrap().runs), (Some("1h"), 21));
    assert_eq!(written.metadata.generation, Some(2));
    probes.delete("p0", &Default::default()).await.unwrap();
    until(&mut objects, |map| map[&key].metadata.deletion_timestamp.is_some()).await;
    store.update(&key, &|probe| probe.metadata.finalizers = None).await.unwrap();
    until(&mut objects, |map| !map.contains_key(&key)).await;

    // Events.
    let object = objects.get(&Key::new("default", "p1")).unwrap();
    let event = Event { severity: Severity::Warning, action: "Query".into(), reason: "QueryFailed".into(), note: "no such table".into() };
    store.event(&object, event).await;
    let events: Api<KubernetesEvent> = Api::namespaced(admin.clone(), "default");
    let events = events.list(&ListParams::default()).await.unwrap().items;
    let sent = events.iter().find(|event| event.reason.as_deref() == Some("QueryFailed")).unwrap();
    assert_eq!((sent.note.as_deref(), sent.regarding.as_ref().unwrap().name.as_deref()), (Some("no such table"), Some("p1")));

    // The server goes away and comes back.
    server.stop();
    let away = store.update_status(&Key::new("default", "p1"), &run).await.unwrap_err().to_string();
    assert!(away.starts_with("writing the status of Probe default/p1: ServiceError"), "{away}");
    assert_eq!(objects.snapshot().len(), OBJECTS - 1);
    server.restart().await.unwrap();
    store.update_status(&Key::new("default", "p1"), &run).await.unwrap();
    soon(async {
        while probes.create(&PostParams::default(), &probe("late", "Metrics")).await.is_err() {
            tokio::time::sleep(pause).await;
        }
    })
    .await;
    until(&mut objects, |map| map.contains_key(&Key::new("default", "late"))).await;
}

/// What the reference's clients send for fields that are not set: nulls and zero durations. Their `""` is shown on the
/// schemas, since a server of version 1.20 takes every empty string for a null.
#[tokio::test]
async fn objects_with_what_go_sends_for_nothing_are_taken() {
    let Some(server) = kube_testing::start(&[]).await else { return };
    server.install_crds().await.unwrap();
    let admin = server.admin().await;
    let transform = json!({"valueColumns": ["v"], "timestampColumn": "t", "metricNameColumn": null, "metricNamePrefix": null,
        "defaultMetricName": "m", "labelColumns": null});
    let specs = [
        ("Function", json!({"database": null, "allDatabases": true, "body": "B", "suspend": null, "appliedEndpoint": null})),
        ("ManagementCommand", json!({"database": null, "scope": null, "body": "B", "criteriaExpression": null})),
        ("MetricsExporter", json!({"database": "DB", "body": "X", "interval": "5m0s", "transform": transform, "criteria": null})),
        ("AlertRule", json!({"database": null, "query": null, "interval": "5m0s", "autoMitigateAfter": "0s", "criteria": null})),
        ("SummaryRule", json!({"database": "DB", "table": "T", "body": "X", "interval": "1h0m0s", "ingestionDelay": null, "name": null})),
    ];
    for (kind, spec) in specs {
        let crd = crds::of_kind(kind).unwrap();
        let gvk = kube::core::GroupVersionKind::gvk(crds::GROUP, crds::VERSION, kind);
        let resource = kube::core::ApiResource::from_gvk_with_plural(&gvk, &crd.spec.names.plural);
        let api: Api<kube::core::DynamicObject> = Api::namespaced_with(admin.clone(), "default", &resource);
        let object = kube::core::DynamicObject::new("o", &resource).data(json!({"spec": spec}));
        let made = api.create(&PostParams::default(), &object).await;
        assert!(made.is_ok(), "{kind} {spec}: {made:?}");
    }
}

/// What `kubectl get summaryrules -o wide` prints: the server makes the table of the printer columns.
#[tokio::test]
async fn kubectl_shows_last_window_lag_and_backlog_of_summary_rules() {
    const HEALTH: &str = "summaryrule.adx-mon.azure.com";
    let Some(server) = kube_testing::start(&[]).await else { return };
    server.install_crds().await.unwrap();
    let admin = server.admin().await;
    let rules: Api<SummaryRule> = Api::namespaced(admin.clone(), "default");
    let spec = json!({"database": "DB", "table": "T", "body": "X", "interval": "1h"});
    rules.create(&PostParams::default(), &SummaryRule::new("r", serde_json::from_value(spec).unwrap())).await.unwrap();
    let end = Timestamp::from_second((Timestamp::now() - SignedDuration::from_mins(210)).as_second()).unwrap();
    let start = end - SignedDuration::from_hours(1);
    let health = json!({"type": HEALTH, "status": "False", "reason": "Failed", "message": "why", "lastTransitionTime": end});
    let status = json!({"lastWindowStart": start, "lastWindowEnd": end, "backlog": 2, "failedWindowsTotal": 1, "conditions": [health]});
    rules.patch_status("r", &PatchParams::default(), &Patch::Merge(json!({"status": status}))).await.unwrap();

    let request = http::Request::get("/apis/adx-mon.azure.com/v1/namespaces/default/summaryrules");
    let request = request.header("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io").body(Vec::new()).unwrap();
    let table: Value = admin.request(request).await.unwrap();
    let names = table["columnDefinitions"].as_array().unwrap().iter().map(|column| column["name"].as_str().unwrap());
    let shown: BTreeMap<&str, &Value> = names.zip(table["rows"][0]["cells"].as_array().unwrap()).collect();
    for (column, cell) in [
        ("Name", json!("r")),
        ("Database", json!("DB")),
        ("Table", json!("T")),
        ("Interval", json!("1h")),
        ("Last Window", json!(start)),
        ("Lag", json!("3h30m")),
        ("Backlog", json!(2)),
        ("Failed", json!(1)),
        ("OK", json!("False")),
        ("Message", json!("why")),
    ] {
        assert_eq!(*shown[column], cell, "{column} of {shown:?}");
    }
}
