//! The alerter while the API server is away: rules run on, and what was edited meanwhile is taken up afterwards.

use std::sync::Arc;
use std::time::Duration;

use alerter::in_cluster;
use crds::{AlertRule, AlertRuleStatus};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube_client::Client;
use kube_client::api::{Api, Patch, PatchParams, PostParams};
use kube_testing::{ApiServer, Way};
use rules::lease::{Leader, Timing};
use rules::store::kubernetes::{Options, connect};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::support::assert_touching;
use crate::world::{TICK, World, rule};

/// The namespace of the manifest.
const OURS: &str = "adx-mon";
const RIGHTS: &str = include_str!("../../../../deploy/rbac/alerter.yaml");
const POLL: Duration = Duration::from_millis(20);

/// A lease that runs out soon.
const TIMING: Timing = Timing { valid: Duration::from_secs(3), renew_within: Duration::from_secs(2), retry: Duration::from_millis(100) };

#[tokio::test]
async fn rules_run_on_while_the_api_server_is_away() {
    let Some(mut server) = kube_testing::start(&[]).await else { return };
    let rules = prepare(&server).await;
    let link = server.link().await.unwrap();
    let kubeconfig = link.kubeconfig(&server.service_account(OURS, "alerter").await.unwrap()).unwrap();
    let client = connect(Some(&kubeconfig)).await.unwrap().unwrap();
    let mut world = World::new().await;
    // Objects are made by the server's clock.
    world.clock.set(Timestamp::from_second(Timestamp::now().as_second() + 1).unwrap());
    world.kusto.alert("Hot", "a");
    rules.create(&PostParams::default(), &rule("hot", "Hot")).await.unwrap();
    let leader = start(&mut world, client).await;
    world.receiver.taken(1).await;
    status(&world, &rules, "hot", |status| status.status == "Success").await;

    // Every run at its time, and every alert delivered.
    link.set(Way::Cut);
    unconfirmed(&leader, true).await;
    for round in 2..=4 {
        world.advance(300);
        let asked = world.kusto.wait_for("Hot", round).await;
        assert_eq!(asked[round - 1].window.unwrap().1, world.now() - TICK);
        let taken = world.receiver.taken(round).await;
        assert_eq!(taken[round - 1].body["CorrelationID"], json!("ns/hot://a"));
    }
    metric(&world, "adxmon_alerter_leads_unconfirmed 1").await;

    // Meanwhile a rule is edited and another is made, and the server forgets what the watch was at.
    let edited = json!({"spec": {"query": "Cold | where Timestamp between (_startTime .. _endTime)"}});
    rules.patch("hot", &PatchParams::default(), &Patch::Merge(edited)).await.unwrap();
    rules.create(&PostParams::default(), &rule("new", "New")).await.unwrap();
    server.restart().await.unwrap();
    assert_eq!(world.kusto.asked("Cold").len() + world.kusto.asked("New").len(), 0);
    link.set(Way::Open);
    unconfirmed(&leader, false).await;
    assert!(leader.is_leader());
    world.kusto.wait_for("New", 1).await;
    world.advance(300);
    let cold = world.kusto.wait_for("Cold", 1).await;
    assert_touching(&[world.kusto.asked("Hot"), cold.clone()].concat(), &[]);
    assert!(lists(&server.admin().await).await > 0, "the watch was not resumed but began anew with a list");

    // What could not be written is made up for: the status, and how far the next alerter may go on from.
    let end = cold[0].window.unwrap().1 + TICK;
    status(&world, &rules, "hot", |status| status.last_window_end.as_ref().is_some_and(|time| time.0 >= end)).await;
    let maps: Api<ConfigMap> = Api::namespaced(server.admin().await, OURS);
    while maps.get_opt("alerter-checkpoint").await.unwrap().is_none_or(|map| saved(&map, "ns/hot") < Some(end)) {
        world.advance(1);
        tokio::time::sleep(POLL).await;
    }
    metric(&world, "adxmon_alerter_leads_unconfirmed 0").await;
    world.stop().await;
}

/// The kinds, the namespaces, and the rights that we ship.
async fn prepare(server: &ApiServer) -> Api<AlertRule> {
    server.install_crds().await.unwrap();
    let admin = server.admin().await;
    for name in [OURS, "ns"] {
        let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
        Api::all(admin.clone()).create(&PostParams::default(), &namespace).await.unwrap();
    }
    server.create(RIGHTS).await.unwrap();
    Api::namespaced(admin, "ns")
}

async fn start(world: &mut World, client: Client) -> Leader {
    let shutdown = CancellationToken::new();
    let options = Options { first_pause: POLL, longest_pause: POLL, ..Options::new("alerter") };
    let surroundings = in_cluster(client, options, TIMING, Arc::new(world.clock.clone()), shutdown.clone());
    let leader = surroundings.cluster.as_ref().unwrap().campaign.as_ref().unwrap().leader();
    world.start_in(surroundings, shutdown).await;
    leader
}

/// Waits until the API server has not answered for too long, or answers again.
async fn unconfirmed(leader: &Leader, unconfirmed: bool) {
    while leader.is_unconfirmed() != unconfirmed {
        assert!(leader.is_leader());
        tokio::time::sleep(POLL).await;
    }
}

/// Moves time on until the server has that status of a rule.
async fn status(world: &World, rules: &Api<AlertRule>, name: &str, is: impl Fn(&AlertRuleStatus) -> bool) {
    while !rules.get(name).await.unwrap().status.as_ref().is_some_and(&is) {
        world.clock.set(world.now() + SignedDuration::from_secs(1));
        tokio::time::sleep(POLL).await;
    }
}

async fn metric(world: &World, line: &str) {
    while !world.get("/metrics").await.lines().any(|given| given == line) {
        tokio::time::sleep(POLL).await;
    }
}

/// How often the server was asked for a list of rules since it was started.
async fn lists(admin: &Client) -> u64 {
    let request = http::Request::get("/metrics").body(Vec::new()).unwrap();
    let text = admin.request_text(request).await.unwrap();
    let lists = |line: &&str| {
        let labels = ["resource=\"alertrules\"", "verb=\"LIST\""];
        line.starts_with("apiserver_request_total{") && labels.iter().all(|label| line.contains(label))
    };
    text.lines().filter(lists).map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

/// Up to where a rule's windows are done by the checkpoint.
fn saved(map: &ConfigMap, rule: &str) -> Option<Timestamp> {
    let lines = map.data.as_ref()?.get("cursors")?.lines();
    lines.filter_map(|line| line.split_once(' ')).find(|(_, name)| *name == rule)?.0.parse().ok()
}
