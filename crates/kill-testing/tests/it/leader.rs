//! Two ingestors, or two exporters, on a real API server, of which the one that leads is killed.

use std::path::Path;
use std::time::Duration;

use crds::{MetricsExporter, SummaryRule};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube_client::Client;
use kube_client::api::{Api, PostParams};
use serde_json::json;
use tokio::time::Instant;

use crate::files::{assert_exported, is_filled, last_start};
use crate::kusto::{Kusto, State};
use crate::program::{PATIENCE, Program, torment_time};
use crate::random::Random;
use crate::receivers::Receivers;
use crate::windows::assert_every_window_once;

/// Name and table of a summary rule, and interval in seconds: what falls due while nobody leads can be caught up with by the
/// next leader, in its few seconds.
const RULES: [(&str, u64); 2] = [("fast", 8), ("slow", 20)];
/// The same of a MetricsExporter.
const EXPORT: (&str, u64) = ("exported", 8);

/// Which of two processes holds the lease `name`, and what it calls itself. A restarted one has another name.
async fn leader(leases: &Api<Lease>, name: &str) -> Option<(usize, String)> {
    let holder = leases.get_opt(name).await.unwrap()?.spec?.holder_identity.filter(|holder| !holder.is_empty())?;
    Some((usize::from(holder.starts_with(&format!("{name}-1"))), holder))
}

/// Waits until somebody else than `before` leads.
pub(crate) async fn next_leader(leases: &Api<Lease>, name: &str, before: &str) -> (usize, String) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match leader(leases, name).await {
            Some((at, holder)) if holder != before => return (at, holder),
            _ => assert!(Instant::now() < deadline, "nobody takes the lease of {before}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Who runs the rules.
struct Component {
    /// Its name, and that of its lease.
    name: &'static str,
    /// The annotation of the summary rules that it runs.
    owner: &'static str,
    /// Whether it runs MetricsExporters.
    exports: bool,
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_of_the_leading_ingestor_lose_no_window_and_repeat_none() {
    let component = Component { name: "ingestor", owner: "ingestor", exports: false };
    torment_leaders(&component, 5, start_ingestor).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_of_the_leading_exporter_lose_no_window_and_repeat_none() {
    let component = Component { name: "adxexporter", owner: "adx-exporter", exports: true };
    torment_leaders(&component, 10, start_exporter).await;
}

/// Starts a process, given a folder, its number, flags that lead to the API server, a database and a receiver of OTLP.
pub(crate) type Start = fn(&Path, usize, &[&str], &str, &str) -> Program;

pub(crate) fn start_ingestor(folder: &Path, at: usize, cluster: &[&str], database: &str, _: &str) -> Program {
    let name = format!("ingestor-{at}");
    let storage = folder.join(&name);
    let place = ["--hostname", &name, "--listen-plain", "127.0.0.1:0", "--listen-tls", "127.0.0.1:0"];
    let data = ["--storage-dir", storage.to_str().unwrap(), "--metrics-kusto-endpoints", database];
    let arguments: Vec<&str> = cluster.iter().copied().chain(place).chain(data).collect();
    Program::start(env!("CARGO_BIN_EXE_ingestor-to-kill"), &folder.join(format!("{name}.log")), &arguments)
}

pub(crate) fn start_exporter(folder: &Path, at: usize, cluster: &[&str], database: &str, receiver: &str) -> Program {
    let data = ["--kusto-endpoints", database, "--health-probe-port", "127.0.0.1:0"];
    let push = ["--otlp-endpoint", receiver, "--otlp-compression", "none"];
    let arguments: Vec<&str> = cluster.iter().copied().chain(data).chain(push).collect();
    Program::start(env!("CARGO_BIN_EXE_adxexporter-to-kill"), &folder.join(format!("adxexporter-{at}.log")), &arguments)
}

async fn torment_leaders(component: &Component, seed: u64, start: Start) {
    let Some(server) = kube_testing::start(&[]).await else { return };
    server.install_crds().await.unwrap();
    let (folder, kusto, client) = (tempfile::tempdir().unwrap(), Kusto::start(seed).await, server.admin().await);
    let receivers = Receivers::start(seed + 1).await;
    let leases: Api<Lease> = Api::namespaced(client.clone(), "default");
    create_rules(&client, component).await;
    let (kubeconfig, database) = (server.kubeconfig("admin"), format!("Metrics={}", kusto.url));
    let receiver = format!("{}/v1/metrics", receivers.url);
    let cluster = ["--kubeconfig", kubeconfig.to_str().unwrap(), "--namespace", "default"];
    let mut processes = [0, 1].map(|at| start(folder.path(), at, &cluster, &database, &receiver));
    let exports = component.exports.then_some(EXPORT);
    let begun = |state: &State| RULES.iter().all(|(name, _)| state.rows.contains_key(*name));
    let asked = |state: &State, end: Timestamp| exports.is_none_or(|(name, _)| last_start(state.queries.get(name)) >= Some(end));
    // From its second window on, a MetricsExporter is on record.
    let created = Timestamp::now();
    kusto.until("every rule has begun", |state| begun(state) && asked(state, created)).await;

    let (mut random, until) = (Random::new(seed + 2), Instant::now() + torment_time());
    let (mut leads, mut holder) = next_leader(&leases, component.name, "").await;
    kusto.trouble(true);
    receivers.trouble(true);
    while Instant::now() < until {
        tokio::time::sleep(random.milliseconds(0, 6000)).await;
        // Sometimes the other takes over while the old leader is away, sometimes while it starts.
        let pause = if random.percent(50) { Duration::ZERO } else { random.milliseconds(0, 10_000) };
        processes[leads].kill(tokio::time::sleep(pause)).await;
        (leads, holder) = next_leader(&leases, component.name, &holder).await;
    }
    kusto.trouble(false);
    receivers.trouble(false);
    let end = Timestamp::now();
    // With the process ends whatever it was going to wait for because of the trouble.
    processes[leads].kill(async {}).await;
    next_leader(&leases, component.name, &holder).await;
    let filled = |state: &State| RULES.iter().all(|(name, interval)| is_filled(&state.rows[*name], *interval, end));
    kusto.until("every window until the end of the trouble is done", |state| filled(state) && asked(state, end)).await;

    let kills: usize = processes.iter().map(|process| process.kills).sum();
    assert_summarized(&kusto, &RULES, kills);
    if let Some((name, interval)) = exports {
        let (state, got) = (kusto.state(), receivers.got());
        assert_exported(name, interval, &state, &got, kills + state.faults + got.faults);
    }
    let rules: Api<SummaryRule> = Api::namespaced(client, "default");
    for (name, _) in RULES {
        let status = rules.get(name).await.unwrap().status.unwrap();
        assert_eq!((status.failed_windows.len(), status.failed_windows_total), (0, 0), "{name}");
    }
    let lease = leases.get(component.name).await.unwrap().spec.unwrap();
    assert!(lease.lease_transitions >= i32::try_from(kills).ok(), "{lease:?}");
}

async fn create_rules(client: &Client, component: &Component) {
    let rules: Api<SummaryRule> = Api::namespaced(client.clone(), "default");
    for (name, interval) in RULES {
        rules.create(&PostParams::default(), &summary_rule(name, interval, component.owner)).await.unwrap();
    }
    if component.exports {
        let (name, interval) = EXPORT;
        let exporters = Api::namespaced(client.clone(), "default");
        exporters.create(&PostParams::default(), &metrics_exporter(name, interval)).await.unwrap();
    }
}

const BETWEEN: &str = "where Timestamp between (_startTime .. _endTime)";

/// A rule that fills a table of its own name.
pub(crate) fn summary_rule(name: &str, interval: u64, owner: &str) -> SummaryRule {
    let metadata = json!({"name": name, "annotations": {"adx-mon.azure.com/owner": owner}});
    let body = format!("{name} | {BETWEEN}");
    let spec = json!({"database": "Metrics", "table": name, "interval": format!("{interval}s"), "body": body});
    let rule = json!({"apiVersion": "adx-mon.azure.com/v1", "kind": "SummaryRule", "metadata": metadata, "spec": spec});
    serde_json::from_value(rule).unwrap()
}

/// One that asks a table of its own name.
pub(crate) fn metrics_exporter(name: &str, interval: u64) -> MetricsExporter {
    let body = format!("{name} | {BETWEEN} | summarize Count = count(), Sum = sum(N) | extend End = _endTime");
    let transform = json!({"defaultMetricName": name, "timestampColumn": "End", "valueColumns": ["Count", "Sum"]});
    let spec = json!({"database": "Metrics", "interval": format!("{interval}s"), "body": body, "transform": transform});
    MetricsExporter::new(name, serde_json::from_value(spec).unwrap())
}

/// Every window of the summary rules is in its table once.
pub(crate) fn assert_summarized(kusto: &Kusto, filled: &[(&str, u64)], kills: usize) {
    let state = kusto.state();
    for (name, interval) in filled {
        let (rows, submissions) = (&state.rows[*name], state.submissions[*name]);
        assert_every_window_once(name, rows, Duration::from_secs(*interval));
        let most = rows.len() + rules::summary::machine::MAX_IN_FLIGHT * (kills + 1) + state.faults;
        assert!(submissions <= most, "{name}: {submissions} commands for {} windows", rows.len());
        eprintln!("{name}: {} windows, {submissions} commands, {} faults, {kills} kills", rows.len(), state.faults);
    }
}
