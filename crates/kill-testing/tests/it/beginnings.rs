//! Leaders that are killed before anything of a rule is on record: before they see it, or at its first run. Whoever leads next
//! begins with the window that was due when the rule was made.

use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use kube_client::Client;
use kube_client::api::{Api, PostParams};
use rules::store::Object;
use rustix::process::Signal;

use crate::alerters::{alert_rule, answered, expected_alerts};
use crate::files::{assert_exported, is_filled, last_start};
use crate::kusto::Kusto;
use crate::leader::{Start, assert_summarized, metrics_exporter, next_leader, start_exporter, start_ingestor, summary_rule};
use crate::program::{Program, soak_factor};
use crate::random::Random;
use crate::receivers::Receivers;

/// Interval of all rules in seconds; boundaries are multiples of it. Several windows fall due before somebody else leads.
const INTERVAL: u64 = 5;

/// When the leader is killed.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// Before it can see the rule.
    Unseen,
    /// While it runs the rule for the first time.
    FirstRun,
}

const MOMENTS: [Moment; 2] = [Moment::Unseen, Moment::FirstRun];

/// Two processes of which one leads, and what they work with.
struct Pair {
    _server: kube_testing::ApiServer,
    _folder: tempfile::TempDir,
    client: Client,
    leases: Api<Lease>,
    lease: &'static str,
    kusto: Kusto,
    receivers: Receivers,
    processes: [Program; 2],
    leads: usize,
    holder: String,
}

impl Pair {
    async fn start(lease: &'static str, seed: u64, start: Start) -> Option<Pair> {
        let server = kube_testing::start(&[]).await?;
        server.install_crds().await.unwrap();
        let (folder, client) = (tempfile::tempdir().unwrap(), server.admin().await);
        let (kusto, receivers) = (Kusto::start(seed).await, Receivers::start(seed + 1).await);
        let (kubeconfig, database) = (server.kubeconfig("admin"), format!("Metrics={}", kusto.url));
        let cluster = ["--kubeconfig", kubeconfig.to_str().unwrap()];
        let processes = [0, 1].map(|at| start(folder.path(), at, &cluster, &database, &receivers.url));
        let leases: Api<Lease> = Api::namespaced(client.clone(), "default");
        let (leads, holder) = next_leader(&leases, lease, "").await;
        Some(Pair { _server: server, _folder: folder, client, leases, lease, kusto, receivers, processes, leads, holder })
    }

    /// Makes a rule and kills the leader. Returns when the rule was made.
    async fn make<K: Object>(&mut self, rule: &K, moment: Moment, first_run: impl AsyncFnOnce(&Kusto)) -> Timestamp {
        let rules: Api<K> = Api::namespaced(self.client.clone(), "default");
        if let Moment::Unseen = moment {
            self.processes[self.leads].signal(Signal::STOP);
        }
        let made = rules.create(&PostParams::default(), rule).await.unwrap();
        if let Moment::FirstRun = moment {
            first_run(&self.kusto).await;
        }
        self.processes[self.leads].kill(async {}).await;
        (self.leads, self.holder) = next_leader(&self.leases, self.lease, &self.holder).await;
        made.meta().creation_timestamp.as_ref().unwrap().0
    }

    fn kills(&self) -> usize {
        self.processes.iter().map(|process| process.kills).sum()
    }
}

/// The name of the rule of a round, and when its leader is killed.
fn rounds(kind: &str) -> Vec<(String, Moment)> {
    let moments = MOMENTS.into_iter().cycle().take(MOMENTS.len() * soak_factor() as usize);
    moments.enumerate().map(|(round, moment)| (format!("{kind}{round}"), moment)).collect()
}

/// Where the first window of a schedule begins that was made then.
fn beginning(made: Timestamp) -> Timestamp {
    let interval = INTERVAL as i64;
    Timestamp::from_second((made.as_second().div_euclid(interval) - 1) * interval).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ingestor_that_is_killed_before_a_rule_is_on_record_loses_no_window() {
    let Some(mut pair) = Pair::start("ingestor", 11, start_ingestor).await else { return };
    summary_rules(&mut pair, "ingestor").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exporter_that_is_killed_before_a_rule_is_on_record_loses_no_window() {
    let Some(mut pair) = Pair::start("adxexporter", 13, |folder, at, cluster, database, receiver| {
        start_exporter(folder, at, cluster, database, &format!("{receiver}/v1/metrics"))
    })
    .await
    else {
        return;
    };
    summary_rules(&mut pair, "adx-exporter").await;
    let mut made = Vec::new();
    for (name, moment) in rounds("export") {
        // Its first query is not answered while the leader lives: nothing is on record.
        pair.kusto.hold(&name, true);
        let asked = async |kusto: &Kusto| kusto.until("it is asked", |state| state.queries.contains_key(&name)).await;
        let at = pair.make(&metrics_exporter(&name, INTERVAL), moment, asked).await;
        pair.kusto.hold(&name, false);
        made.push((name, at));
    }
    let end = Timestamp::now();
    pair.kusto.until("every window is done", |state| made.iter().all(|(name, _)| last_start(state.queries.get(name)) >= Some(end))).await;
    let (state, got) = (pair.kusto.state(), pair.receivers.got());
    for (name, at) in &made {
        let first = state.queries[name].iter().map(|query| query.window.start).min();
        assert_eq!(first, Some(beginning(*at)), "{name}, made {at}");
        assert_exported(name, INTERVAL, &state, &got, pair.kills());
    }
}

/// A window is on record before it is submitted: the leader is killed about when it would be.
async fn summary_rules(pair: &mut Pair, owner: &str) {
    let (mut random, mut made) = (Random::new(15), Vec::new());
    for (name, moment) in rounds("sum") {
        let pause = random.milliseconds(0, 200);
        let wait = async |_: &Kusto| tokio::time::sleep(pause).await;
        let at = pair.make(&summary_rule(&name, INTERVAL, owner), moment, wait).await;
        made.push((name, at));
    }
    let end = Timestamp::now();
    let filled = |rows: Option<&Vec<_>>| rows.is_some_and(|rows| is_filled(rows, INTERVAL, end));
    pair.kusto.until("every window is done", |state| made.iter().all(|(name, _)| filled(state.rows.get(name)))).await;
    for (name, at) in &made {
        assert_summarized(&pair.kusto, &[(name, INTERVAL)], pair.kills());
        let first = pair.kusto.state().rows[name].iter().map(|window| window.start).min();
        assert_eq!(first, Some(beginning(*at)), "{name}, made {at}");
    }
}

fn start_alerter(folder: &Path, at: usize, cluster: &[&str], database: &str, receiver: &str) -> Program {
    let name = format!("alerter-{at}");
    let data = folder.join(&name);
    let place = ["--data-dir", data.to_str().unwrap(), "--listen-address", "127.0.0.1", "--port", "0"];
    // What comes together while nobody leads is sent too.
    let work = ["--kusto-endpoint", database, "--alerter-address", receiver, "--max-notifications", "10000"];
    let arguments: Vec<&str> = cluster.iter().copied().chain(place).chain(work).collect();
    Program::start(env!("CARGO_BIN_EXE_alerter-to-kill"), &folder.join(format!("{name}.log")), &arguments)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alerter_that_is_killed_before_a_rule_is_on_record_loses_no_alert() {
    let Some(mut pair) = Pair::start("alerter", 17, start_alerter).await else { return };
    let mut made = Vec::new();
    for (name, moment) in rounds("alert") {
        pair.kusto.hold(&name, true);
        let asked = async |kusto: &Kusto| kusto.until("it is asked", |state| state.queries.contains_key(&name)).await;
        let at = pair.make(&alert_rule(&name, INTERVAL), moment, asked).await;
        pair.kusto.hold(&name, false);
        made.push((name, at));
    }
    let end = Timestamp::now();
    let done = |queries: Option<&Vec<_>>| queries.is_some_and(|queries| answered(queries).any(|window| window.end >= end));
    pair.kusto.until("every window is done", |state| made.iter().all(|(name, _)| done(state.queries.get(name)))).await;
    for (name, at) in &made {
        let first = answered(&pair.kusto.state().queries[name]).map(|window| window.start).min();
        assert!(first <= Some(*at - SignedDuration::from_secs(INTERVAL as i64)), "{name}, made {at}, begins {first:?}");
        let alerts = expected_alerts(&pair.kusto, &[name], end);
        assert!(!alerts.is_empty());
        pair.receivers.until("every alert has arrived", |got| alerts.keys().all(|id| got.alerts.contains_key(id))).await;
    }
}
