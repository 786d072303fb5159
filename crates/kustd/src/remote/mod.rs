//! Other clusters: which may be asked, what columns their queries have, and their rows, as `macro-expand` and
//! `cluster("…")` want them.
//!
//! A cluster is asked over its REST protocol, without credentials and without following redirects, and only if its address
//! stands in an entity group or is allowed by the configuration: otherwise whoever may query could make this program send
//! requests to whatever it reaches. Each has its own deadline. One that does not even tell columns is not asked again for a while.

mod scan;
mod values;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use kql::catalog::RemoteError;
use kql::tree::Remote;
use kql::{Column, Type};
use kusto::{Client, Endpoint, QueryOptions, RetryPolicy};
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use tokio::sync::Semaphore;

pub(crate) use scan::RemoteScan;

use crate::catalog::Image;
use crate::engine::{self, QueryLimits};

/// Request option with the number of clusters that a query has come through.
pub(crate) const HOPS: &str = "adxmon_hops";
/// Most clusters that a query may come through: groups may name each other.
const MOST_HOPS: u32 = 3;
/// How long the columns of a query are believed.
const COLUMNS_HOLD: Duration = Duration::from_secs(30);
/// How long a cluster that failed is not asked for columns.
const AILING_HOLDS: Duration = Duration::from_secs(10);
/// How long a cluster may take to tell columns.
const COLUMNS_PATIENCE: Duration = Duration::from_secs(10);
/// Queries that may wait for columns at the same time: each keeps a thread.
const MOST_WAITING: usize = 64;
/// Queries whose columns are remembered, the longest text of one, and clusters with connections.
const MOST_REMEMBERED: usize = 1_000;
const LONGEST_REMEMBERED: usize = 4 << 10;
const MOST_CLIENTS: usize = 1_000;
/// What one query of another cluster may answer.
const MOST_ROWS: u64 = 5_000_000;
const MOST_BYTES: u64 = 256 << 20;

/// Which other clusters may be asked, and how patiently.
#[derive(Debug, Clone)]
pub struct RemoteSettings {
    /// Addresses that queries may name beside those in entity groups.
    pub allowed: Vec<String>,
    /// How long a cluster may take to answer a query.
    pub timeout: Duration,
}

impl Default for RemoteSettings {
    fn default() -> Self {
        RemoteSettings { allowed: Vec::new(), timeout: Duration::from_secs(30) }
    }
}

/// Counts for `/metrics`.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    queries: Counter,
    failures: Counter,
    skipped: Counter,
}

impl Metrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        for (name, help, counter) in [
            ("kustd_remote_queries", "Queries sent to other clusters", &self.queries),
            ("kustd_remote_failures", "Queries of other clusters that failed", &self.failures),
            ("kustd_remote_skipped", "Parts of answers that are missing since another cluster failed", &self.skipped),
        ] {
            registry.register(name, help, counter.clone());
        }
    }
}

/// The other clusters.
pub(crate) struct Clusters {
    allowed: Vec<Endpoint>,
    timeout: Duration,
    clients: Mutex<HashMap<String, Client>>,
    /// Columns of queries, and when they were told.
    columns: Mutex<HashMap<Remote, (Instant, Vec<Column>)>>,
    /// Clusters that failed, and when.
    ailing: Mutex<HashMap<String, Instant>>,
    waiting: Semaphore,
    pub(crate) metrics: Metrics,
}

impl Clusters {
    pub(crate) fn new(settings: &RemoteSettings) -> anyhow::Result<Clusters> {
        let read = |address: &String| Endpoint::parse(address).with_context(|| format!("reading the allowed cluster {address}"));
        Ok(Clusters {
            allowed: settings.allowed.iter().map(read).collect::<anyhow::Result<_>>()?,
            timeout: settings.timeout,
            clients: Mutex::default(),
            columns: Mutex::default(),
            ailing: Mutex::default(),
            waiting: Semaphore::new(MOST_WAITING),
            metrics: Metrics::default(),
        })
    }

    /// The address of a cluster by its name in a query. A name that is no address is this cluster.
    ///
    /// # Errors
    /// When it is the address of a cluster that may not be asked.
    pub(crate) fn resolve(&self, name: &str, image: &Image) -> Result<Option<String>, String> {
        if !name.contains("://") {
            return Ok(None);
        }
        let endpoint = Endpoint::parse(name).map_err(|error| error.message)?;
        let entities = || image.databases.values().flat_map(|database| database.entity_groups.values().flatten());
        let mut clusters = entities().filter_map(|entity| entity.cluster.as_deref());
        // mostly it is written as it is there
        let is_named = clusters.any(|other| other == name)
            || entities()
                .any(|entity| entity.cluster.as_deref().is_some_and(|other| Endpoint::parse(other).is_ok_and(|other| other == endpoint)));
        if is_named || self.allowed.contains(&endpoint) {
            return Ok(Some(endpoint.to_string()));
        }
        Err(format!("cluster '{endpoint}' may not be asked: it stands in no entity group, and --allowed-clusters does not name it"))
    }

    /// Columns of queries; clusters are asked at the same time. It blocks.
    pub(crate) fn columns(self: &Arc<Self>, queries: &[Remote], limits: &QueryLimits) -> Vec<Result<Vec<Column>, RemoteError>> {
        limits.reaches_out.store(true, Ordering::Relaxed);
        let count = queries.len();
        let Ok(_waiting) = self.waiting.try_acquire() else {
            tracing::warn!(MOST_WAITING, "a query was refused, since too many wait for other clusters");
            let message = format!("{MOST_WAITING} queries wait for other clusters already: try again later");
            return vec![Err(RemoteError::Unavailable(message)); count];
        };
        let (clusters, queries, limits) = (self.clone(), queries.to_vec(), limits.clone());
        let asked = engine::wait(async move {
            let all = queries.iter().map(|query| clusters.columns_of(query, &limits));
            futures::future::join_all(all).await
        });
        asked.unwrap_or_else(|error| vec![Err(RemoteError::Unavailable(error.to_string())); count])
    }

    async fn columns_of(&self, query: &Remote, limits: &QueryLimits) -> Result<Vec<Column>, RemoteError> {
        if let Some((at, known)) = self.columns.lock().get(query)
            && at.elapsed() < COLUMNS_HOLD
        {
            return Ok(known.clone());
        }
        if let Some(since) = self.ailing.lock().get(&query.cluster).filter(|since| since.elapsed() < AILING_HOLDS) {
            let message = format!("cluster '{}' failed {} s ago and is left alone for a while", query.cluster, since.elapsed().as_secs());
            return Err(RemoteError::Unavailable(message));
        }
        let patience = COLUMNS_PATIENCE.min(self.timeout);
        let asked = self.ask(&Remote { query: format!("{} | take 0", query.query), ..query.clone() }, limits, patience).await;
        let rows = asked.map_err(|error| {
            // who has little time left learns nothing about the cluster
            self.failed(query, &error, !is_late(&error) || share_of(limits) >= patience);
            match error.kind {
                kusto::Kind::Permanent => RemoteError::Refused(error.to_string()),
                _ => RemoteError::Unavailable(error.to_string()),
            }
        })?;
        self.ailing.lock().remove(&query.cluster);
        let found = columns(rows.columns()).map_err(RemoteError::Refused)?;
        // that something does not exist is not remembered: it may come any time
        self.remember(query, &found);
        Ok(found)
    }

    fn remember(&self, query: &Remote, columns: &[Column]) {
        let mut known = self.columns.lock();
        if known.len() >= MOST_REMEMBERED {
            known.retain(|_, (at, _)| at.elapsed() < COLUMNS_HOLD);
        }
        if known.len() < MOST_REMEMBERED && query.query.len() <= LONGEST_REMEMBERED {
            known.insert(query.clone(), (Instant::now(), columns.to_vec()));
        }
    }

    /// Sends a query and waits for the beginning of the answer.
    async fn ask(&self, query: &Remote, limits: &QueryLimits, patience: Duration) -> Result<kusto::RowStream, kusto::Error> {
        let options = QueryOptions {
            timeout: patience.min(share_of(limits)),
            parameters: Vec::new(),
            options: vec![
                (HOPS.to_owned(), (limits.hops.saturating_add(1)).into()),
                ("request_readonly".to_owned(), true.into()),
                ("query_now".to_owned(), crate::text::datetime_text(limits.now).into()),
                ("truncationmaxrecords".to_owned(), MOST_ROWS.into()),
                ("truncationmaxsize".to_owned(), MOST_BYTES.into()),
            ],
        };
        self.metrics.queries.inc();
        let asked = async {
            if limits.hops >= MOST_HOPS {
                return Err(too_many_hops(query));
            }
            // the client waits longer than it says, so that the other side's own words arrive
            match tokio::time::timeout(options.timeout, self.client(&query.cluster)?.query_rows(&query.database, &query.query, &options))
                .await
            {
                Ok(answer) => answer,
                Err(_) => Err(late(query, options.timeout)),
            }
        };
        asked.await
    }

    /// The rows of a query failed. A long query says little about its cluster: the next one asks for columns again first.
    fn rows_failed(&self, query: &Remote, error: &kusto::Error) {
        self.columns.lock().retain(|known, _| known.cluster != query.cluster);
        self.failed(query, error, !is_late(error));
    }

    /// A query failed: its cluster is left alone for a while if that `tells` of more than the query.
    fn failed(&self, query: &Remote, error: &kusto::Error, tells: bool) {
        self.metrics.failures.inc();
        if error.is_transient() && tells {
            let mut ailing = self.ailing.lock();
            ailing.retain(|_, since| since.elapsed() < AILING_HOLDS);
            ailing.insert(query.cluster.clone(), Instant::now());
        }
        tracing::warn!(cluster = query.cluster, database = query.database, %error, "a query of another cluster failed");
    }

    fn client(&self, cluster: &str) -> Result<Client, kusto::Error> {
        let mut clients = self.clients.lock();
        if let Some(client) = clients.get(cluster) {
            return Ok(client.clone());
        }
        let retry = RetryPolicy::none();
        let client = Client::builder(cluster).application("kustd").retry(retry).build()?;
        if clients.len() >= MOST_CLIENTS {
            clients.clear();
        }
        clients.insert(cluster.to_owned(), client.clone());
        Ok(client)
    }
}

/// Time of a query that one cluster may use: the rest is for the others, and for saying so.
fn share_of(limits: &QueryLimits) -> Duration {
    let left = limits.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    left.map_or(Duration::MAX, |left| left * 3 / 4)
}

fn too_many_hops(query: &Remote) -> kusto::Error {
    let message = format!(
        "the query came through {MOST_HOPS} clusters already and does not go on to '{}': do the entity groups name each other?",
        query.cluster
    );
    kusto::Error { kind: kusto::Kind::Permanent, ..error("TOO_MANY_HOPS", message) }
}

/// Code of an error after a deadline, here and in the client.
const LATE: &str = "DEADLINE";

fn is_late(error: &kusto::Error) -> bool {
    error.code == LATE
}

fn late(query: &Remote, patience: Duration) -> kusto::Error {
    error(LATE, format!("cluster '{}' did not answer within {patience:?}", query.cluster))
}

/// A failure on this side of a call, which may be repeated.
fn error(code: &str, message: String) -> kusto::Error {
    kusto::Error {
        kind: kusto::Kind::Transient,
        delivery: kusto::Delivery::Unknown,
        code: code.to_owned(),
        message,
        position: None,
        status: None,
        retry_after: None,
    }
}

fn columns(answer: &[kusto::Column]) -> Result<Vec<Column>, String> {
    let read = |column: &kusto::Column| match Type::parse(&column.ty) {
        Some(ty) => Ok(Column::new(&column.name, ty)),
        None => Err(format!("column '{}' has the unknown type '{}'", column.name, column.ty)),
    };
    match answer {
        [] => Err("its answer has no columns".to_owned()),
        some => some.iter().map(read).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_clusters_that_are_named_may_be_asked() {
        let settings = RemoteSettings { allowed: vec!["http://west:8080/".to_owned()], ..RemoteSettings::default() };
        let clusters = Clusters::new(&settings).unwrap();
        let mut image = Image::default();
        for (name, found) in [
            ("help", Ok(None)),
            ("http://west:8080", Ok(Some("http://west:8080"))),
            ("http://WEST:8080/some/path", Ok(Some("http://west:8080"))),
            ("http://west:8081", Err("--allowed-clusters")),
            ("https://west:8080", Err("--allowed-clusters")),
            ("http://169.254.169.254/metadata", Err("--allowed-clusters")),
            ("http://west:8080@evil", Err("password")),
            ("file:///etc/passwd", Err("http")),
        ] {
            match (clusters.resolve(name, &image), found) {
                (Ok(address), Ok(wanted)) => assert_eq!(address.as_deref(), wanted, "{name}"),
                (Err(why), Err(said)) => assert!(why.contains(said), "{name}: {why}"),
                (other, _) => panic!("{name}: {other:?}"),
            }
        }
        let mut database = crate::catalog::Database {
            id: 1,
            name: "Db".into(),
            created: 0,
            tables: Default::default(),
            functions: Default::default(),
            policies: Default::default(),
            entity_groups: Default::default(),
        };
        let east = kql::binder::parse_entities("cluster('http://east').database('D'), database('Here')").unwrap();
        database.entity_groups.insert("G".to_owned(), east);
        image.databases.insert("Db".into(), Arc::new(database));
        assert_eq!(clusters.resolve("http://east:80", &image), Ok(Some("http://east".to_owned())));
        assert!(Clusters::new(&RemoteSettings { allowed: vec!["west".to_owned()], ..RemoteSettings::default() }).is_err());
    }
}
