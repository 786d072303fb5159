//! Rules from a real API server, with the rights that they need and no more.

use std::time::Duration;

use crds::{Function, FunctionSpec, ManagementCommand, ManagementCommandSpec, State, SummaryRule, SummaryRuleSpec};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::rbac::v1::PolicyRule;
use kube_client::api::{Api, PostParams};
use serde_json::Value;

use crate::fake_kusto::{FakeKusto, Kind};
use crate::support::start;

fn right(group: &str, resources: &[&str], verbs: &[&str]) -> PolicyRule {
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let api_groups = Some(vec![group.to_owned()]);
    PolicyRule { api_groups, resources: Some(texts(resources)), verbs: texts(verbs), ..PolicyRule::default() }
}

#[tokio::test]
async fn the_leader_runs_the_rules_of_a_cluster() {
    let Some(server) = kube_testing::start(&["ingestor"]).await else { return };
    server.install_crds().await.unwrap();
    let rights = vec![
        right("adx-mon.azure.com", &["functions", "managementcommands", "summaryrules"], &["get", "list", "watch", "patch"]),
        right("adx-mon.azure.com", &["functions/status", "managementcommands/status", "summaryrules/status"], &["patch"]),
        right("events.k8s.io", &["events"], &["create"]),
        right("coordination.k8s.io", &["leases"], &["get", "create", "update"]),
    ];
    server.grant("ingestor", rights).await.unwrap();
    let admin = server.admin().await;
    let functions: Api<Function> = Api::namespaced(admin.clone(), "default");
    let body = ".create-or-alter function Recent() { Cpu | take 1 }";
    let spec = FunctionSpec {
        database: "Metrics".into(),
        body: body.into(),
        criteria_expression: "region == 'eastus'".into(),
        ..FunctionSpec::default()
    };
    functions.create(&PostParams::default(), &Function::new("recent", spec)).await.unwrap();

    let kusto = FakeKusto::start(Kind::Kustd).await;
    let dir = tempfile::tempdir().unwrap();
    let process = start(dir.path(), &[("Metrics", &kusto)], |config| {
        let labels = vec![("region".to_owned(), "eastus".to_owned())];
        let kubeconfig = Some(server.kubeconfig("ingestor"));
        config.cluster = Some(ingestor::Cluster { kubeconfig, labels, ..ingestor::Cluster::default() });
    })
    .await;
    let command = format!(".execute database script with (ThrowOnErrors=true) <| {body}");
    kusto.wait(|seen| seen.commands.contains(&command)).await;
    let applied = |function: &Function| function.status.as_ref().is_some_and(|status| status.status == State::Success);
    wait(async || applied(&functions.get("recent").await.unwrap())).await;

    // By watch: a command that comes later, and a function that goes.
    let commands: Api<ManagementCommand> = Api::namespaced(admin.clone(), "default");
    let spec = ManagementCommandSpec { scope: "Cluster".into(), body: ".show version".into(), ..ManagementCommandSpec::default() };
    commands.create(&PostParams::default(), &ManagementCommand::new("once", spec)).await.unwrap();
    let command = ".execute cluster script with (ThrowOnErrors = true) <|.show version";
    kusto.wait(|seen| seen.commands.iter().any(|seen| seen == command)).await;
    let summaries: Api<SummaryRule> = Api::namespaced(admin.clone(), "default");
    let spec: SummaryRuleSpec = serde_json::from_value(serde_json::json!({
        "database": "Metrics", "table": "Hourly", "interval": "1h",
        "body": "Cpu | where Timestamp between (_startTime .. _endTime) | summarize count()",
    }))
    .unwrap();
    summaries.create(&PostParams::default(), &SummaryRule::new("hourly", spec)).await.unwrap();
    kusto.wait(|seen| seen.commands.iter().any(|seen| seen.starts_with(".set-or-append async ") && seen.contains("Hourly"))).await;
    functions.delete("recent", &Default::default()).await.unwrap();
    kusto.wait(|seen| seen.commands.iter().any(|seen| seen == ".drop function ['Recent'] ifexists")).await;
    wait(async || functions.get_opt("recent").await.unwrap().is_none()).await;

    process.finish().await;
    let leases: Api<Lease> = Api::namespaced(admin, "default");
    let lease = serde_json::to_value(leases.get("ingestor").await.unwrap()).unwrap();
    assert_eq!(lease["spec"]["holderIdentity"], Value::from(""), "given back at the end");
}

async fn wait(reached: impl AsyncFn() -> bool) {
    let waiting = async {
        while !reached().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await.unwrap();
}
