//! Two alerters with one lease on a real API server, with the rights that we ship and no others, of which the one that leads
//! is killed, sometimes with its disk.

use std::collections::BTreeMap;
use std::time::Duration;

use crds::AlertRule;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Namespace;
use kube_client::Client;
use kube_client::api::{Api, PostParams};
use rules::window::Window;
use serde_json::json;
use tokio::time::Instant;

use crate::kusto::{Kusto, Query};
use crate::leader::next_leader;
use crate::program::{Program, torment_time};
use crate::random::Random;
use crate::receivers::Receivers;
use crate::windows::events;

/// Name, which is also that of the table that is queried, and interval in seconds.
const RULES: [(&str, u64); 2] = [("alertsfast", 2), ("alertsslow", 5)];
/// The namespace of the manifest.
const OURS: &str = "adx-mon";
const RIGHTS: &str = include_str!("../../../../deploy/rbac/alerter.yaml");

#[tokio::test(flavor = "multi_thread")]
async fn kills_of_the_leading_alerter_lose_no_alert() {
    let Some(server) = kube_testing::start(&[]).await else { return };
    server.install_crds().await.unwrap();
    let client = server.admin().await;
    let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": OURS}})).unwrap();
    Api::all(client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
    server.create(RIGHTS).await.unwrap();
    create_rules(&client).await;
    let (folder, kusto, receivers) = (tempfile::tempdir().unwrap(), Kusto::start(7).await, Receivers::start(8).await);
    let (kubeconfig, database) = (server.service_account(OURS, "alerter").await.unwrap(), format!("Metrics={}", kusto.url));
    let start = |at: usize| {
        let name = format!("alerter-{at}");
        let data = folder.path().join(&name);
        let place = ["--kubeconfig", kubeconfig.to_str().unwrap(), "--data-dir", data.to_str().unwrap(), "--port", "0"];
        // What comes together while nobody leads is sent too.
        let flags = ["--listen-address", "127.0.0.1", "--alerter-address", &receivers.url, "--max-notifications", "10000"];
        let arguments: Vec<&str> = place.into_iter().chain(flags).chain(["--kusto-endpoint", &database]).collect();
        Program::start(env!("CARGO_BIN_EXE_alerter-to-kill"), &folder.path().join(format!("{name}.log")), &arguments)
    };
    let mut alerters = [start(0), start(1)];
    kusto.until("every rule has begun", |state| RULES.iter().all(|(name, _)| state.queries.contains_key(*name))).await;
    wait_for_statuses(&client).await;
    let refused = forbidden(&client).await;

    let leases: Api<Lease> = Api::namespaced(client.clone(), OURS);
    let (mut random, until) = (Random::new(9), Instant::now() + torment_time());
    let (mut leads, mut holder) = next_leader(&leases, "alerter", "").await;
    kusto.trouble(true);
    receivers.trouble(true);
    let mut disks_lost = 0;
    while Instant::now() < until {
        tokio::time::sleep(random.milliseconds(0, 6000)).await;
        // Sometimes the other takes over while the old leader is away, sometimes while it starts.
        let pause = if random.percent(50) { Duration::ZERO } else { random.milliseconds(0, 10_000) };
        // Sometimes its disk goes with it.
        let disk = random.percent(30).then(|| folder.path().join(format!("alerter-{leads}")));
        let away = async {
            disk.iter().for_each(|disk| std::fs::remove_dir_all(disk).unwrap());
            disks_lost += usize::from(disk.is_some());
            tokio::time::sleep(pause).await;
        };
        alerters[leads].kill(away).await;
        (leads, holder) = next_leader(&leases, "alerter", &holder).await;
    }
    kusto.trouble(false);
    receivers.trouble(false);
    let end = Timestamp::now();
    // With the process ends whatever it was going to wait for because of the trouble.
    alerters[leads].kill(async {}).await;
    next_leader(&leases, "alerter", &holder).await;
    kusto
        .until("every window until the end of the trouble is done", |state| {
            RULES.iter().all(|(name, _)| answered(&state.queries[*name]).any(|window| window.end >= end))
        })
        .await;

    let lease = leases.get("alerter").await.unwrap().spec.unwrap();
    let leaders = 1 + usize::try_from(lease.lease_transitions.unwrap()).unwrap();
    let kills: usize = alerters.iter().map(|alerter| alerter.kills).sum();
    assert!(leaders > kills, "{leaders} leaders, {kills} kills");
    let alerts = expected_alerts(&kusto, &RULES.map(|(name, _)| name), end);
    receivers.until("every alert has arrived", |got| alerts.keys().all(|id| got.alerts.contains_key(id))).await;
    report_and_check(&alerts, &receivers, &kusto, leaders, kills, disks_lost);
    assert_eq!(forbidden(&client).await, refused, "requests that the rights do not allow");
}

/// No alert came more often than leaders and kills explain. Nobody may wait for anything while what arrived is looked at: who
/// brings more is held up until then, and with him a thread of the servers.
fn report_and_check(
    alerts: &BTreeMap<String, usize>,
    receivers: &Receivers,
    kusto: &Kusto,
    leaders: usize,
    kills: usize,
    disks_lost: usize,
) {
    let got = receivers.got();
    for (id, times_asked) in alerts {
        assert!(*times_asked <= leaders + kills, "{id} was found {times_asked} times by {leaders} leaders");
        let taken = &got.alerts[id];
        // Sent again: after a kill, or after an answer that said that it was not taken.
        let most = times_asked + kills + taken.denied;
        assert!(taken.times <= most, "{id} came {} times, found {times_asked} times, {} denied", taken.times, taken.denied);
    }
    let times: usize = alerts.keys().map(|id| got.alerts[id].times).sum();
    eprintln!(
        "{} alerts, {times} times taken, {leaders} leaders, {kills} kills, {disks_lost} disks lost, {} faults",
        alerts.len(),
        kusto.state().faults + got.faults
    );
}

async fn create_rules(client: &Client) {
    let rules: Api<AlertRule> = Api::namespaced(client.clone(), "default");
    for (name, interval) in RULES {
        rules.create(&PostParams::default(), &alert_rule(name, interval)).await.unwrap();
    }
}

/// One that asks a table of its own name, and alerts of every row.
pub(crate) fn alert_rule(name: &str, interval: u64) -> AlertRule {
    let query = format!("{name} | where Timestamp between (_startTime .. _endTime)");
    let spec = json!({"database": "Metrics", "interval": format!("{interval}s"), "query": query, "destination": name});
    AlertRule::new(name, serde_json::from_value(spec).unwrap())
}

/// Waits until the statuses say how far the rules are: whoever takes over before cursors were saved goes on from there.
async fn wait_for_statuses(client: &Client) {
    let rules: Api<AlertRule> = Api::namespaced(client.clone(), "default");
    for (name, _) in RULES {
        while rules.get(name).await.unwrap().status.is_none_or(|status| status.last_window_end.is_none()) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Windows whose query was answered.
pub(crate) fn answered(queries: &[Query]) -> impl Iterator<Item = Window> {
    queries.iter().filter(|query| query.answered).map(|query| query.window)
}

/// CorrelationIDs of all alerts from each rule's first window to `end`, with how often a query found each. Fails where no
/// query has looked.
pub(crate) fn expected_alerts(kusto: &Kusto, rules: &[&str], end: Timestamp) -> BTreeMap<String, usize> {
    let mut alerts = BTreeMap::new();
    for name in rules {
        let state = kusto.state();
        let mut windows: Vec<Window> = answered(&state.queries[*name]).collect();
        windows.sort();
        let mut covered = windows[0].start;
        for window in &windows {
            assert!(window.start <= covered, "{name}: no query looked at what came between {covered} and {}", window.start);
            covered = covered.max(window.end);
            for event in events(window) {
                *alerts.entry(format!("default/{name}://{event}")).or_default() += 1;
            }
        }
        assert!(covered >= end);
    }
    alerts
}

/// How many requests the API server has refused because the user lacks the right.
async fn forbidden(client: &Client) -> Vec<String> {
    let request = axum::http::Request::get("/metrics").body(Vec::new()).unwrap();
    let text = client.request_text(request).await.unwrap();
    let refused = |line: &&str| line.starts_with("apiserver_request_total{") && line.contains("code=\"403\"");
    text.lines().filter(refused).map(str::to_owned).collect()
}
