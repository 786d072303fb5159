//! Databases that Functions and ManagementCommands are applied to, and when a failed attempt is repeated.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use crds::{Condition, State, TargetStatus, Time};
use jiff::Timestamp;
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use tokio::time::Instant;

use crate::backoff::{Backoff, random_unit};
use crate::store::Key;
use crate::window::after;

/// Names in a message.
const NAMES: usize = 10;

/// Runs management commands.
#[async_trait]
pub trait Management: Debug + Send + Sync {
    /// Runs a command in a database.
    async fn run(&self, database: &str, command: &str) -> Result<(), kusto::Error>;
}

#[async_trait]
impl Management for kusto::Client {
    async fn run(&self, database: &str, command: &str) -> Result<(), kusto::Error> {
        self.mgmt(database, command).await.map(drop)
    }
}

/// A database that this process looks after.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its name.
    pub database: String,
    /// URL of its cluster, as status shows it.
    pub endpoint: String,
    /// How to reach it.
    pub client: Arc<dyn Management>,
}

impl Target {
    /// A database behind a client.
    pub fn new(database: impl Into<String>, client: kusto::Client) -> Self {
        Self { database: database.into(), endpoint: client.endpoint().to_string(), client: Arc::new(client) }
    }
}

/// Replicas that share a Lease, and what they look after. Another deployment may serve the same objects with other clusters,
/// also in databases of the same name: what an object's status says of those is not its business.
#[derive(Debug, Clone)]
pub struct Deployment {
    pub(crate) name: String,
    pub(crate) targets: Arc<[Target]>,
}

impl Deployment {
    /// The one whose Lease has this namespace and name, or that is known by another name of its own.
    pub fn new(name: impl Into<String>, targets: Vec<Target>) -> Self {
        Self { name: name.into(), targets: targets.into() }
    }

    /// The targets of each endpoint. Each endpoint has an executor of its own, so that one that hangs holds up no other.
    pub(crate) fn by_endpoint(&self) -> Vec<Vec<Target>> {
        let mut endpoints: BTreeMap<&str, Vec<Target>> = BTreeMap::new();
        for target in self.targets.iter() {
            endpoints.entry(&target.endpoint).or_default().push(target.clone());
        }
        endpoints.into_values().collect()
    }

    /// Whether the entry is its own and about a place that it no longer has: it was given another endpoint.
    pub(crate) fn has_left(&self, entry: &TargetStatus) -> bool {
        let is_at = |target: &Target| target.endpoint == entry.endpoint && [&target.database, &target.endpoint].contains(&&entry.target);
        entry.deployment == self.name && !self.targets.iter().any(is_at)
    }

    /// The entry of an attempt.
    pub(crate) fn outcome(
        &self,
        target: &str,
        endpoint: &str,
        generation: i64,
        result: &Result<(), (State, String)>,
        now: Timestamp,
    ) -> TargetStatus {
        let (status, message) = match result {
            Ok(()) => (State::Success, String::new()),
            Err((state, message)) => (*state, message.clone()),
        };
        TargetStatus {
            target: target.to_owned(),
            endpoint: endpoint.to_owned(),
            deployment: self.name.clone(),
            status,
            observed_generation: generation,
            started: None,
            functions: Vec::new(),
            last_tried: Some(Time(now)),
            message,
        }
    }
}

/// Names places for a message.
pub(crate) fn names<'a>(places: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let places = places.into_iter().map(|(name, endpoint)| match name == endpoint {
        true => name.to_owned(),
        false => format!("{name} of {endpoint}"),
    });
    listed(&places.collect())
}

/// Names for a message, not too many.
pub(crate) fn listed(all: &BTreeSet<String>) -> String {
    let first = all.iter().take(NAMES).map(String::as_str).collect::<Vec<_>>().join(", ");
    match all.len() {
        0 => "none".to_owned(),
        1..=NAMES => first,
        more => format!("{first} and {} more", more - NAMES),
    }
}

/// `now` and the whole seconds since then.
pub(crate) fn later(now: Timestamp, since: Instant) -> Timestamp {
    after(now, Duration::from_secs(since.elapsed().as_secs()))
}

/// Counts of attempts, by kind and outcome.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    attempts: Family<[(&'static str, String); 2], Counter>,
}

impl Metrics {
    /// Adds the counters to a registry.
    pub fn register(&self, registry: &mut Registry) {
        let help = "Attempts to apply Functions and ManagementCommands to a database or cluster";
        registry.register("rules_applied", help, self.attempts.clone());
    }

    pub(crate) fn count(&self, kind: &str, state: State) {
        self.attempts.get_or_create(&[("kind", kind.to_owned()), ("outcome", format!("{state:?}"))]).inc();
    }
}

/// When failed attempts are made again.
#[derive(Debug)]
pub(crate) struct Retries {
    pauses: Backoff,
    waiting: Mutex<Waiting>,
}

/// By object and target: the generation, how often it failed, and when it is tried again.
type Waiting = HashMap<(Key, String), (i64, u32, Timestamp)>;

impl Retries {
    pub(crate) fn new(first: Duration, longest: Duration) -> Self {
        Self { pauses: Backoff { first, longest }, waiting: Mutex::default() }
    }

    /// When this may be tried; none for now.
    pub(crate) fn wait(&self, key: &Key, target: &str, generation: i64, now: Timestamp) -> Option<Timestamp> {
        let (failed, _, until) = *self.waiting.lock().get(&(key.clone(), target.to_owned()))?;
        (failed == generation && until > now).then_some(until)
    }

    pub(crate) fn failed(&self, key: &Key, target: &str, generation: i64, now: Timestamp, asked: Option<Duration>) -> Timestamp {
        let mut waiting = self.waiting.lock();
        let entry = waiting.entry((key.clone(), target.to_owned())).or_insert((generation, 0, now));
        if entry.0 != generation {
            *entry = (generation, 0, now);
        }
        let pause = self.pauses.pause(entry.1, asked, random_unit());
        entry.1 += 1;
        entry.2 = now.checked_add(pause).unwrap_or(now);
        entry.2
    }

    pub(crate) fn succeeded(&self, key: &Key, target: &str) {
        self.waiting.lock().remove(&(key.clone(), target.to_owned()));
    }

    pub(crate) fn retain(&self, exists: impl Fn(&Key) -> bool) {
        self.waiting.lock().retain(|(key, _), _| exists(key));
    }
}

/// The entry of a target: a database at an endpoint, or a cluster.
pub(crate) fn entry<'a>(entries: &'a [TargetStatus], name: &str, endpoint: &str) -> Option<&'a TargetStatus> {
    entries.iter().find(|entry| entry.target == name && entry.endpoint == endpoint)
}

/// Sets the entry of a target.
pub(crate) fn set(entries: &mut Vec<TargetStatus>, entry: TargetStatus) {
    match entries.iter_mut().find(|present| present.target == entry.target && present.endpoint == entry.endpoint) {
        Some(present) => *present = entry,
        None => entries.push(entry),
    }
}

/// Whether a condition about criteria has to be written. Deployments with other labels say it in other words, so what one
/// has said of a generation stands: until one of them is meant, or the one that was meant is not any more.
pub(crate) fn is_news(said: Option<&Condition>, generation: i64, proceeds: bool, was_meant: bool) -> bool {
    match said.filter(|said| said.observed_generation == Some(generation)) {
        None => true,
        Some(said) if proceeds => said.status != "True",
        Some(said) => said.status == "True" && was_meant,
    }
}

/// Whether the database is not there, or not yet.
pub fn misses_the_database(error: &kusto::Error) -> bool {
    let says = |text| error.message.contains(text);
    error.code == "BadRequest_DatabaseNotExist" || error.code == "BadRequest_EntityNotFound" && says("of kind 'Database'")
}

/// A script that refers to a table, a column or a function that is not there yet: somebody may create it, so it is tried
/// again.
pub(crate) fn misses_what_may_come(error: &kusto::Error) -> bool {
    let detail = error.message.rsplit("'. Details: '").next().unwrap_or_default();
    detail.len() < error.message.len()
        && [
            ("SEM0100", "Failed to resolve table expression named"),
            ("SEM0100", "Failed to resolve table or column expression named"),
            ("SEM0260", "Unknown function"),
        ]
        .iter()
        .any(|(code, text)| detail.contains(&format!("Semantic error: {code}:")) && detail.contains(text))
}

/// The text for a status: the service's message with the position in the KQL, bounded.
pub(crate) fn describe(error: &kusto::Error) -> String {
    let mut text = error.message.clone();
    if let Some(position) = error.position
        && !text.contains("line:position")
    {
        text.push_str(&format!(" [line:position={}:{}]", position.line, position.column));
    }
    text.truncate(text.floor_char_boundary(1024));
    text
}
