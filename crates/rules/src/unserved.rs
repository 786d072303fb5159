//! Rules that nobody runs: those of databases that this process does not have, and those of an unknown owner.
//!
//! Another process may have them, so a rule is left alone for a while: whoever runs it writes its status. If nobody does,
//! the clusters of this process are asked which databases there are. A database that none of them has is told of in the
//! rule's own condition, with the reason [`NOT_FOUND`]. One that is there and that nobody was configured for is told of by
//! an event and in the log, once for each generation.
//!
//! A summary rule whose annotation names neither component is told so by the one that runs those without annotation, with
//! the reason [`OWNER_UNKNOWN`], after the same while: the owner may be somebody else's, who writes a status.
//!
//! Two processes never contend for a status: what another has written for this generation is replaced only after the
//! status has stood still for several intervals, and what says the same already is left as it is.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use crds::conditions;
use crds::criteria::Labels;
use jiff::Timestamp;

use crate::lease::Leader;
use crate::runner::Executor;
use crate::store::{Event, Key, Objects, Severity, Store};
use crate::target::listed;
use crate::window::after;

mod kinds;

pub use kinds::Named;

/// Reason of a condition: no cluster that this process knows has the database.
pub const NOT_FOUND: &str = "DatabaseNotFound";
/// Reason of an event: a cluster has the database, and no process was told to serve it.
pub const NOT_CONFIGURED: &str = "DatabaseNotConfigured";
/// Reason of a condition: the annotation names an owner that there is not.
pub const OWNER_UNKNOWN: &str = "OwnerUnknown";
/// The reasons with which this module tells of a rule.
pub(crate) const REASONS: [&str; 3] = [NOT_FOUND, NOT_CONFIGURED, OWNER_UNKNOWN];

/// How long others have to write a status before this process looks into it.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a rule that is told of is looked at again.
const AGAIN: Duration = Duration::from_secs(300);

/// Tells which databases there are.
#[async_trait]
pub trait Catalogue: fmt::Debug + Send + Sync {
    /// Names of the databases of its cluster, as far as this process may see them.
    async fn databases(&self) -> Result<Vec<String>, kusto::Error>;
}

#[async_trait]
impl Catalogue for kusto::Client {
    async fn databases(&self) -> Result<Vec<String>, kusto::Error> {
        // The name that Kusto gives to the database of commands that are about none.
        let table = self.mgmt("NetDefaultDB", ".show databases").await?;
        Ok((0..table.rows.len()).filter_map(|row| table.text(row, "DatabaseName").map(str::to_owned)).collect())
    }
}

/// What a process serves.
#[derive(Debug, Clone)]
pub struct Served {
    /// Its name in messages: `ingestor`.
    pub component: &'static str,
    /// What would make it serve another database, for messages: `--kusto-endpoints`.
    pub way_out: &'static str,
    /// Its databases.
    pub databases: Vec<String>,
    /// The clusters that have them, by URL.
    pub clusters: BTreeMap<String, Arc<dyn Catalogue>>,
}

impl Served {
    /// The databases of these clients.
    pub fn of<'a>(
        component: &'static str,
        way_out: &'static str,
        clients: impl IntoIterator<Item = (&'a String, &'a kusto::Client)>,
    ) -> Served {
        let mut served = Served { component, way_out, databases: Vec::new(), clusters: BTreeMap::new() };
        for (database, client) in clients {
            served.databases.push(database.clone());
            served.clusters.entry(client.endpoint().to_string()).or_insert_with(|| Arc::new(client.clone()));
        }
        served
    }
}

/// Tells of the rules of one kind that nobody runs.
pub struct Unserved<K> {
    store: Arc<dyn Store<K>>,
    objects: Objects<K>,
    served: Served,
    labels: Labels,
    seen: BTreeMap<Key, Seen>,
    /// What the clusters said last; nothing if one of them did not answer.
    listed: Option<(Timestamp, Option<Databases>)>,
}

/// What is known of one rule.
struct Seen {
    generation: i64,
    version: Option<String>,
    /// Since when the object is as it is.
    since: Timestamp,
    checked: Option<Timestamp>,
    told: Option<Verdict>,
}

/// Databases by name, each with the URL of a cluster that has it.
type Databases = BTreeMap<String, String>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    NotFound,
    NotConfigured,
    OwnerUnknown,
}

impl Verdict {
    fn reason(self) -> &'static str {
        match self {
            Verdict::NotFound => NOT_FOUND,
            Verdict::NotConfigured => NOT_CONFIGURED,
            Verdict::OwnerUnknown => OWNER_UNKNOWN,
        }
    }
}

impl<K: Named> Unserved<K> {
    /// Looks after the rules of `store` that `served` leaves out.
    pub fn new(store: Arc<dyn Store<K>>, served: Served, labels: Labels) -> Self {
        let objects = store.objects();
        Self { store, objects, served, labels, seen: BTreeMap::new(), listed: None }
    }

    /// Looks at one rule. Returns when to look again; never if somebody runs it, or should not.
    async fn look(&mut self, key: &Key, object: &K, now: Timestamp) -> Option<Timestamp> {
        let stray = self.is_ours(object).then(|| object.unknown_owner(self.served.component)).flatten();
        let database = self.unserved_database(object);
        if stray.is_none() && database.is_none() {
            // What becomes of it later is told of anew.
            self.seen.remove(key);
            return None;
        }
        let due = self.due(key, object, now);
        if due > now {
            return Some(due);
        }
        let (verdict, message) = match (stray, database) {
            (Some(message), _) => (Verdict::OwnerUnknown, message),
            (None, database) => {
                let database = database?.to_owned();
                let Some(databases) = self.databases(now).await else { return Some(after(now, PATIENCE)) };
                let verdict = if databases.contains_key(&database) { Verdict::NotConfigured } else { Verdict::NotFound };
                (verdict, self.message(&database, &databases))
            }
        };
        if let Some(seen) = self.seen.get_mut(key) {
            seen.checked = Some(now);
            if seen.told == Some(verdict) {
                return Some(after(now, AGAIN));
            }
            seen.told = Some(verdict);
        }
        self.tell(key, object, verdict, message, now).await;
        Some(after(now, AGAIN))
    }

    /// The database that the rule names, if this process should run it but does not have that.
    fn unserved_database<'a>(&self, object: &'a K) -> Option<&'a str> {
        let database = object.database(self.served.component)?;
        let served = self.served.databases.iter().any(|served| K::is_same(served, database));
        (!served && self.is_ours(object)).then_some(database)
    }

    fn is_ours(&self, object: &K) -> bool {
        object.meta().deletion_timestamp.is_none() && object.is_meant_for(&self.labels)
    }

    /// When the rule has been left to others for long enough.
    fn due(&mut self, key: &Key, object: &K, now: Timestamp) -> Timestamp {
        let (generation, version) = (object.meta().generation.unwrap_or_default(), object.meta().resource_version.clone());
        let fresh = || Seen { generation, version: version.clone(), since: now, checked: None, told: None };
        let seen = self.seen.entry(key.clone()).or_insert_with(fresh);
        if seen.generation != generation {
            *seen = fresh();
        } else if seen.version != version {
            (seen.version, seen.since) = (version, now);
        }
        let others = said(object).is_some_and(|reason| !REASONS.contains(&reason));
        let patience = match (others, object.silence()) {
            (false, _) => PATIENCE,
            (true, Some(silence)) => silence.max(10 * PATIENCE),
            (true, None) => return Timestamp::MAX,
        };
        let again = seen.checked.map_or(Timestamp::MIN, |checked| after(checked, AGAIN));
        after(seen.since, patience).max(again)
    }

    /// The databases of all clusters; nothing if one of them does not answer. Nobody is asked more than once a minute,
    /// however many rules want to know.
    async fn databases(&mut self, now: Timestamp) -> Option<Databases> {
        if let Some((at, databases)) = &self.listed
            && *at <= now
            && now < after(*at, PATIENCE)
        {
            return databases.clone();
        }
        let found = self.ask().await;
        self.listed = Some((now, found.clone()));
        found
    }

    async fn ask(&self) -> Option<Databases> {
        let mut found = Databases::new();
        for (url, cluster) in &self.served.clusters {
            match cluster.databases().await {
                Ok(names) => found.extend(names.into_iter().map(|name| (name, url.clone()))),
                Err(error) => {
                    tracing::warn!(cluster = url, %error, "whether the databases of some rules exist is not known");
                    return None;
                }
            }
        }
        Some(found)
    }

    fn message(&self, database: &str, databases: &Databases) -> String {
        let Served { component, way_out, databases: served, clusters } = &self.served;
        let served = names(served.iter());
        if let Some(url) = databases.get(database) {
            return format!("database {database:?} is on {url}, but no {component} serves it; this one serves {served}; {way_out}");
        }
        let similar = databases.keys().find(|name| name.eq_ignore_ascii_case(database));
        let hint = similar.map(|name| format!("; did you mean {name:?}? (names are case-sensitive)")).unwrap_or_default();
        let clusters = names(clusters.keys());
        let known = names(databases.keys());
        format!("there is no database {database:?} on {clusters}, which has {known}{hint}; this {component} serves {served}")
    }

    async fn tell(&self, key: &Key, object: &K, verdict: Verdict, message: String, now: Timestamp) {
        let stands = said(object);
        let generation = object.meta().generation.unwrap_or_default();
        match verdict {
            // Said before, here or by another process.
            verdict if stands == Some(verdict.reason()) => return,
            // Nobody has written yet: whoever is told to serve it finds the status of a new rule.
            Verdict::NotConfigured if stands.is_none() => {}
            _ => {
                let change = |fresh: &mut K| {
                    if fresh.meta().generation.unwrap_or_default() == generation && said(fresh) == stands {
                        fresh.tell(verdict.reason(), &message, now);
                    }
                };
                if let Err(error) = self.store.update_status(key, &change).await {
                    tracing::error!(%error, "a rule that nobody runs is not told so");
                }
            }
        }
        tracing::warn!(kind = %K::kind(&()), rule = %key, reason = verdict.reason(), "{message}");
        let (action, reason) = ("Run".to_owned(), verdict.reason().to_owned());
        self.store.event(object, Event { severity: Severity::Warning, action, reason, note: message }).await;
    }
}

/// The reason of the rule's own condition, if that is about its present generation.
fn said<K: Named>(object: &K) -> Option<&str> {
    let condition = conditions::get(object.conditions(), K::CONDITION)?;
    (condition.observed_generation == object.meta().generation).then_some(condition.reason.as_str())
}

/// Names for a message, not too many.
fn names<'a>(all: impl Iterator<Item = &'a String>) -> String {
    listed(&all.cloned().collect())
}

#[async_trait]
impl<K: Named> Executor for Unserved<K> {
    fn name(&self) -> &'static str {
        "rules that nobody runs"
    }

    async fn pass(&mut self, now: Timestamp, leader: &Leader) -> Option<Timestamp> {
        let snapshot = self.objects.snapshot();
        self.seen.retain(|key, _| snapshot.contains_key(key));
        let mut again = None;
        for (key, object) in snapshot.iter() {
            if !leader.is_leader() {
                break;
            }
            let next = self.look(key, object, now).await.filter(|next| *next < Timestamp::MAX);
            again = [again, next].into_iter().flatten().min();
        }
        again
    }

    async fn changed(&mut self) {
        self.objects.changed().await;
    }
}
