//! An alerter in this process, with a clock that the test moves, rules in memory, and scripted services.

use std::collections::BTreeMap;
use std::sync::Arc;

use alerter::checkpoint::Checkpoint;
use alerter::{Cluster, Config, Deadlines, Running, Surroundings};
use crds::{AlertRule, AlertRuleSpec, AlertRuleStatus};
use jiff::{SignedDuration, Timestamp};
use rules::clock::{Clock as _, ManualClock};
use rules::store::memory::MemoryStore;
use rules::store::{Key, Store as _};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::fake::{Kusto, Receiver};

pub(crate) const START: &str = "2026-01-01T10:00:00Z";

pub(crate) struct World {
    pub(crate) kusto: Kusto,
    pub(crate) receiver: Receiver,
    pub(crate) store: Arc<MemoryStore<AlertRule>>,
    pub(crate) clock: ManualClock,
    pub(crate) config: Config,
    pub(crate) cluster: Option<(watch::Receiver<bool>, Arc<dyn Checkpoint>)>,
    _folder: tempfile::TempDir,
    running: Option<(Running, CancellationToken)>,
}

pub(crate) const TICK: SignedDuration = SignedDuration::from_nanos(100);

/// Status and reason of a condition of a rule.
pub(crate) fn condition(world: &World, name: &str, type_: &str) -> Option<(String, String)> {
    let status = world.status(name);
    status.conditions.iter().find(|c| c.type_ == type_).map(|c| (c.status.clone(), c.reason.clone()))
}

/// A rule that asks for `word` every five minutes.
pub(crate) fn rule(name: &str, word: &str) -> AlertRule {
    let spec = AlertRuleSpec {
        database: "DB".into(),
        interval: "5m".into(),
        query: format!("{word} | where Timestamp between (_startTime .. _endTime)"),
        destination: "team".into(),
        ..AlertRuleSpec::default()
    };
    let mut rule = AlertRule::new(name, spec);
    rule.metadata.namespace = Some("ns".into());
    rule
}

pub(crate) fn key(name: &str) -> Key {
    Key::new("ns", name)
}

impl World {
    pub(crate) async fn new() -> World {
        let (kusto, receiver) = (Kusto::start().await, Receiver::start().await);
        let folder = tempfile::tempdir().unwrap();
        let config = Config {
            listen: "127.0.0.1:0".parse().unwrap(),
            kusto_endpoints: BTreeMap::from([("DB".to_owned(), kusto.url.clone())]),
            credentials: None,
            trusted_hosts: Vec::new(),
            cloud: "public".into(),
            region: "eastus".into(),
            tags: BTreeMap::new(),
            alerter_address: receiver.url.clone(),
            alertmanager_url: None,
            concurrency: 10,
            max_notifications: 25,
            data_dir: folder.path().to_owned(),
            deadlines: Deadlines::default(),
            profiles: false,
        };
        let clock = ManualClock::new(START.parse().unwrap());
        World { kusto, receiver, store: Arc::default(), clock, config, cluster: None, _folder: folder, running: None }
    }

    pub(crate) async fn start(&mut self) {
        let shutdown = CancellationToken::new();
        let running = loop {
            let surroundings = Surroundings {
                store: self.store.clone(),
                clock: Arc::new(self.clock.clone()),
                cluster: self.cluster.clone().map(|(holds, checkpoint)| Cluster { holds, checkpoint, campaign: None }),
                problem: Arc::new(|| None),
            };
            match alerter::start(self.config.clone(), surroundings, shutdown.clone()).await {
                // the thread of the last process's state may still hold the file
                Err(error) if error.to_string().contains("in use by another process") => tokio::task::yield_now().await,
                other => break other.unwrap(),
            }
        };
        self.running = Some((running, shutdown));
    }

    /// Starts it on what a test has prepared instead of this world's store and cluster.
    pub(crate) async fn start_in(&mut self, surroundings: Surroundings, shutdown: CancellationToken) {
        let running = alerter::start(self.config.clone(), surroundings, shutdown.clone()).await.unwrap();
        self.running = Some((running, shutdown));
    }

    pub(crate) async fn stop(&mut self) {
        let (running, shutdown) = self.running.take().unwrap();
        shutdown.cancel();
        running.finished().await.unwrap();
    }

    pub(crate) async fn get(&self, path: &str) -> String {
        let address = self.running.as_ref().unwrap().0.address();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        client.get(format!("http://{address}{path}")).send().await.unwrap().text().await.unwrap()
    }

    pub(crate) fn advance(&self, seconds: i64) {
        self.clock.set(self.clock.now() + SignedDuration::from_secs(seconds));
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) fn status(&self, name: &str) -> AlertRuleStatus {
        self.store.objects().get(&key(name)).and_then(|rule| rule.status.clone()).unwrap_or_default()
    }

    /// Moves time on to whatever is due within a second, as often as it takes until `done`.
    pub(crate) async fn until(&self, done: impl Fn(&World) -> bool) {
        while !done(self) {
            let (now, next) = (self.now(), self.clock.next_deadline().await);
            // a sleeper that has been woken stays on the list until it runs
            if next > now && next <= now + SignedDuration::from_secs(1) {
                self.clock.set(next);
            }
            tokio::task::yield_now().await;
        }
    }

    /// Moves time on to every deadline before `earliest`; returns the first one from then on, which is to be no later than
    /// `latest`.
    pub(crate) async fn advance_to_deadline_within(&self, earliest: Timestamp, latest: Timestamp) -> Timestamp {
        loop {
            let (now, next) = (self.now(), self.clock.next_deadline().await);
            if (earliest..=latest).contains(&next) {
                return next;
            }
            if next > now && next < earliest {
                self.clock.set(next);
            }
            tokio::task::yield_now().await;
        }
    }
}
