//! The runner of summary rules while the API server is away: it waits, and afterwards every window is run once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crds::SummaryRule;
use jiff::{SignedDuration, Timestamp};
use kube_client::api::{Api, PostParams};
use kube_testing::Way;
use rules::clock::{Clock as _, ManualClock};
use rules::lease::{self, Campaign, Timing, WhenUnreachable};
use rules::store::kubernetes::{KubernetesStore, Options, connect};
use rules::summary::metrics::Metrics;
use rules::summary::operations::Kusto;
use rules::summary::{Owner, Runner};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::summary::Service;

const INTERVAL: SignedDuration = SignedDuration::from_mins(1);
const POLL: Duration = Duration::from_millis(20);

fn rule(name: &str) -> SummaryRule {
    let spec = json!({"database": "DB", "table": name, "interval": "1m", "body": "Src"});
    let object = json!({"apiVersion": "adx-mon.azure.com/v1", "kind": "SummaryRule", "metadata": {"name": name}, "spec": spec});
    serde_json::from_value(object).unwrap()
}

#[tokio::test]
async fn every_window_is_summarized_once_after_the_api_server_was_away() {
    let Some(mut server) = kube_testing::start(&[]).await else { return };
    server.install_crds().await.unwrap();
    let rules: Api<SummaryRule> = Api::namespaced(server.admin().await, "default");
    let link = Arc::new(server.link().await.unwrap());
    let client = connect(Some(&link.kubeconfig(&server.kubeconfig("admin")).unwrap())).await.unwrap().unwrap();
    let campaign = Campaign::start(
        client.clone(),
        lease::Options {
            namespace: "default".into(),
            name: "ingestor".into(),
            holder: "one".into(),
            timing: Timing { valid: Duration::from_secs(3), renew_within: Duration::from_secs(2), retry: Duration::from_millis(100) },
            when_unreachable: WhenUnreachable::StepDown,
        },
    );
    let mut leader = campaign.leader();
    let (service, kusto) = Service::start().await;
    // Objects are made by the server's clock.
    let clock = ManualClock::new(Timestamp::now());
    let options = Options { first_pause: POLL, longest_pause: POLL, ..Options::new("ingestor") };
    let store = Arc::new(KubernetesStore::<SummaryRule>::start(client, options));
    let clusters = BTreeMap::from([("DB".to_owned(), Arc::new(kusto) as Arc<dyn Kusto>)]);
    let runner = Runner::new(store, clusters, &BTreeMap::new(), Owner::Ingestor, Arc::new(clock.clone()), Metrics::default());
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(runner.run(leader.clone(), shutdown.clone()));
    rules.create(&PostParams::default(), &rule("first")).await.unwrap();
    let first = complete(&rules, &clock, "first", Timestamp::MIN).await;

    // While the next window is handed over the server goes away: it is on record that this was going to happen, and no more.
    let (cut, is_cut) = (link.clone(), Arc::new(AtomicBool::new(false)));
    let set = is_cut.clone();
    service.on_command(move || {
        cut.set(Way::Cut);
        set.store(true, Ordering::Relaxed);
    });
    while !is_cut.load(Ordering::Relaxed) {
        clock.set(clock.now() + SignedDuration::from_secs(1));
        tokio::time::sleep(POLL).await;
    }
    while leader.is_leader() {
        leader.changed().await;
    }
    let commands = service.commands();
    let unanswered = start(commands.last().unwrap());

    // Three more fall due, another rule is made, and the server forgets what the watch was at.
    clock.set(clock.now() + INTERVAL * 3);
    rules.create(&PostParams::default(), &rule("second")).await.unwrap();
    server.restart().await.unwrap();
    assert_eq!(service.commands(), commands, "nobody knows who leads");
    service.on_command(|| {});
    link.set(Way::Open);
    leader.elected().await;
    let end = complete(&rules, &clock, "first", first + INTERVAL * 4).await;
    complete(&rules, &clock, "second", Timestamp::MIN).await;
    shutdown.cancel();
    running.await.unwrap();
    campaign.release().await;

    // The window of which no answer was put on record is handed over again, with the tag by which Kusto knows it.
    let handed: Vec<(Timestamp, String)> = service
        .commands()
        .iter()
        .filter(|command| command.contains("async first "))
        .map(|command| (start(command), tag(command)))
        .collect();
    let again = handed.iter().filter(|(window, _)| *window == unanswered).count();
    assert_eq!(again, 2, "{handed:?}");
    let windows: BTreeMap<Timestamp, String> = handed.iter().cloned().collect();
    assert_eq!(handed.len(), windows.len() + 1, "no other window is handed over twice: {handed:?}");
    assert!(handed.iter().all(|(window, tag)| windows[window] == *tag), "{handed:?}");
    let starts: Vec<Timestamp> = windows.into_keys().collect();
    let expected: Vec<Timestamp> = (0..).map(|n| starts[0] + INTERVAL * n).take(starts.len()).collect();
    assert_eq!(starts, expected, "none is left out");
    assert!(starts.last() >= Some(&(end - INTERVAL)));
}

fn start(command: &str) -> Timestamp {
    command.split("_startTime=datetime(").nth(1).unwrap().split(')').next().unwrap().parse().unwrap()
}

fn tag(command: &str) -> String {
    command.split("ingestIfNotExists='").nth(1).unwrap().split('\'').next().unwrap().to_owned()
}

/// Moves time on until the rows up to `end` or further are in a rule's table, none of them late, and returns up to where.
async fn complete(rules: &Api<SummaryRule>, clock: &ManualClock, name: &str, end: Timestamp) -> Timestamp {
    loop {
        let status = rules.get(name).await.unwrap().status.filter(|status| status.backlog == 0);
        match status.and_then(|status| status.last_window_end) {
            Some(reached) if reached.0 >= end => return reached.0,
            _ => clock.set(clock.now() + SignedDuration::from_secs(1)),
        }
        tokio::time::sleep(POLL).await;
    }
}
