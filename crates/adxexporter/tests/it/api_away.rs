//! An exporter while the API server is away: it waits, and afterwards exports every window once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use adxexporter::push::PushConfig;
use adxexporter::{Config, Rules, start};
use crds::MetricsExporter;
use jiff::{SignedDuration, Timestamp};
use kube_client::api::{Api, PostParams};
use kube_testing::Way;
use rules::clock::{Clock as _, ManualClock};
use rules::lease::{self, Campaign, Timing, WhenUnreachable};
use rules::store::kubernetes::{KubernetesStore, Options, connect};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::cluster::rights;
use crate::fake_kusto::{Answer, FakeKusto};
use crate::receiver::Receiver;

const INTERVAL: SignedDuration = SignedDuration::from_mins(1);
const POLL: Duration = Duration::from_millis(20);

fn exporter(name: &str) -> MetricsExporter {
    let spec = json!({"database": "Metrics", "interval": "1m", "body": name,
        "transform": {"valueColumns": ["n"], "timestampColumn": "at", "defaultMetricName": name}});
    let object = json!({"apiVersion": "adx-mon.azure.com/v1", "kind": "MetricsExporter", "metadata": {"name": name}, "spec": spec});
    serde_json::from_value(object).unwrap()
}

fn one_row() -> Answer {
    Answer::rows(&[("n", "long"), ("at", "datetime")], vec![json!([1, "2024-05-01T10:00:00Z"])])
}

#[tokio::test]
async fn every_window_is_exported_once_after_the_api_server_was_away() {
    let Some(mut server) = kube_testing::start(&["adxexporter"]).await else { return };
    server.install_crds().await.unwrap();
    server.grant("adxexporter", rights()).await.unwrap();
    let exporters: Api<MetricsExporter> = Api::namespaced(server.admin().await, "default");
    let link = Arc::new(server.link().await.unwrap());
    let client = connect(Some(&link.kubeconfig(&server.kubeconfig("adxexporter")).unwrap())).await.unwrap().unwrap();
    let campaign = Campaign::start(
        client.clone(),
        lease::Options {
            namespace: "default".into(),
            name: "adxexporter".into(),
            holder: "one".into(),
            timing: Timing { valid: Duration::from_secs(3), renew_within: Duration::from_secs(2), retry: Duration::from_millis(100) },
            when_unreachable: WhenUnreachable::StepDown,
        },
    );
    let mut leader = campaign.leader();
    let options = Options { first_pause: POLL, longest_pause: POLL, ..Options::new("adxexporter") };
    let store = KubernetesStore::<MetricsExporter>::start(client, options);
    let rules = Rules::Stores { exporters: Arc::new(store), summary_rules: None, leader: leader.clone() };
    let (kusto, receiver) = (FakeKusto::start(|_| one_row()).await, Receiver::start([]).await);
    // Objects are made by the server's clock.
    let clock = ManualClock::new(Timestamp::now());
    let databases = BTreeMap::from([("Metrics".to_owned(), kusto.client())]);
    let config = Config { clock: Arc::new(clock.clone()), ..Config::new(databases, PushConfig::new(&receiver.http_url()), rules) };
    let stop = CancellationToken::new();
    let running = start(config, stop.clone()).await.unwrap();
    exporters.create(&PostParams::default(), &exporter("first")).await.unwrap();
    let first = exported(&exporters, &clock, "first", Timestamp::MIN).await;

    // While the next window is asked for the server goes away: it is exported, and no status can say so.
    let (cut, is_cut) = (link.clone(), Arc::new(AtomicBool::new(false)));
    let set = is_cut.clone();
    kusto.answer_with(move |_| {
        cut.set(Way::Cut);
        set.store(true, Ordering::Relaxed);
        one_row()
    });
    while !is_cut.load(Ordering::Relaxed) {
        clock.set(clock.now() + SignedDuration::from_secs(1));
        tokio::time::sleep(POLL).await;
    }
    while leader.is_leader() {
        leader.changed().await;
    }
    let before = kusto.asked().len();
    receiver.until_batches(before).await;

    // Three windows fall due, another exporter is made, and the server forgets what the watch was at.
    clock.set(clock.now() + INTERVAL * 3);
    exporters.create(&PostParams::default(), &exporter("second")).await.unwrap();
    server.restart().await.unwrap();
    assert_eq!(kusto.asked().len(), before, "nobody knows who leads");
    kusto.answer_with(|_| one_row());
    link.set(Way::Open);
    leader.elected().await;
    let end = exported(&exporters, &clock, "first", first + INTERVAL * 4).await;
    exported(&exporters, &clock, "second", Timestamp::MIN).await;
    stop.cancel();
    running.finished().await.unwrap();
    campaign.release().await;

    let asked = kusto.asked();
    let windows = asked.iter().zip(kusto.windows()).filter(|(asked, _)| asked.query.ends_with("first"));
    let starts: Vec<Timestamp> = windows.map(|(_, (start, _))| start.parse().unwrap()).collect();
    let expected: Vec<Timestamp> = (0..).map(|n| starts[0] + INTERVAL * n).take(starts.len()).collect();
    assert_eq!(starts, expected, "each once, in order");
    assert!(starts.last() >= Some(&(end - INTERVAL)));
    assert_eq!(receiver.got.lock().unwrap().len(), asked.len());
}

/// Moves time on until an exporter's status says that it has exported up to `end` or further, and returns that.
async fn exported(exporters: &Api<MetricsExporter>, clock: &ManualClock, name: &str, end: Timestamp) -> Timestamp {
    loop {
        let status = exporters.get(name).await.unwrap().status.filter(|status| status.last_samples > 0);
        match status.and_then(|status| status.last_window_end) {
            Some(reached) if reached.0 >= end => return reached.0,
            _ => clock.set(clock.now() + SignedDuration::from_secs(1)),
        }
        tokio::time::sleep(POLL).await;
    }
}
