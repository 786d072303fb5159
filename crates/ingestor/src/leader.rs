//! What one of the ingestors does for all, beside rules: looks for unused tables, and has Kusto keep counts of its tables.
//! And what each does for itself: compares its disk with its books.
//!
//! The leader is found by the lease that also decides who runs rules. Without a cluster it is the one with `--leader`, and
//! nobody where none has it. Every task runs for the first time one interval after the start.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use kusto::Client;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use rules::lease::Leader;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use wal::Store;

const COUNTS_PERIOD: Duration = Duration::from_secs(60);
const UNUSED_PERIOD: Duration = Duration::from_secs(12 * 3600);
const AUDIT_PERIOD: Duration = Duration::from_secs(300);
/// A table without rows is named when it was seen so often.
const UNUSED_TIMES: u32 = 3;
/// The disk may hold so much more or less than the books say.
const AUDIT_BYTES: u64 = 1 << 30;

/// Counts of series by table, if the database has the function `CountCardinality`.
const CARDINALITY: &str = ".set-or-append async AdxmonIngestorTableCardinalityCount <| CountCardinality";
const DETAILS: &str = ".set-or-append async AdxmonIngestorTableDetails <| .show tables details | extend PreciseTimeStamp = now() \
    | project PreciseTimeStamp, DatabaseName, TableName, TotalExtents, TotalExtentSize, TotalOriginalSize, TotalRowCount, HotExtents, \
    HotExtentSize, HotOriginalSize, HotRowCount, RetentionPolicy, CachingPolicy, ShardingPolicy, MergePolicy, IngestionBatchingPolicy, \
    MinExtentsCreationTime, MaxExtentsCreationTime, TableId";
const UNUSED: &str = ".show tables details | project TableName, TotalRowCount";

/// A database with its client.
pub(crate) struct Database {
    pub(crate) name: String,
    pub(crate) client: Client,
    /// Of metrics, not of logs.
    pub(crate) metrics: bool,
}

/// The tasks of the leader.
pub(crate) struct Tasks {
    databases: Vec<Database>,
    leader: Leader,
    metrics: Metrics,
    /// Commands that failed the last time, so that it is said once.
    failing: HashSet<(String, &'static str)>,
    /// How often in a row a table had no rows.
    empty: HashMap<(String, String), u32>,
}

type Labels = [(&'static str, String); 2];

#[derive(Clone, Default)]
struct Metrics {
    is_leader: Gauge,
    runs: Family<Labels, Counter>,
}

impl Tasks {
    pub(crate) fn new(databases: Vec<Database>, leader: Leader, registry: &mut Registry) -> Tasks {
        let metrics = Metrics::default();
        let r = registry.sub_registry_with_prefix("adxmon_ingestor");
        r.register("is_leader", "1 while this ingestor is the leader", metrics.is_leader.clone());
        r.register("leader_tasks", "Commands of the leader's tasks by result", metrics.runs.clone());
        Tasks { databases, leader, metrics, failing: HashSet::new(), empty: HashMap::new() }
    }

    /// Runs them until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let (mut counts, mut unused) = (interval(COUNTS_PERIOD), interval(UNUSED_PERIOD));
        loop {
            self.metrics.is_leader.set(i64::from(self.leader.is_leader()));
            let mut leader = self.leader.clone();
            let due = async {
                tokio::select! {
                    _ = counts.tick() => Some(false),
                    _ = unused.tick() => Some(true),
                    () = leader.changed() => None,
                }
            };
            let Some(due) = stop.run_until_cancelled(due).await else { return };
            let Some(look_for_unused) = due.filter(|_| self.leader.is_leader()) else { continue };
            let work = async {
                match look_for_unused {
                    true => self.name_unused().await,
                    false => self.keep_counts().await,
                }
            };
            if stop.run_until_cancelled(work).await.is_none() {
                return;
            }
        }
    }

    async fn keep_counts(&mut self) {
        for index in 0..self.databases.len() {
            if self.databases[index].metrics {
                self.command(index, "cardinality", CARDINALITY).await;
            }
            self.command(index, "details", DETAILS).await;
        }
    }

    async fn command(&mut self, index: usize, task: &'static str, csl: &str) -> Option<kusto::Table> {
        let Database { name, client, .. } = &self.databases[index];
        let answer = client.mgmt(name, csl).await;
        let result = if answer.is_ok() { "ok" } else { "failed" };
        self.metrics.runs.get_or_create(&[("task", task.to_owned()), ("result", result.to_owned())]).inc();
        match answer {
            Ok(table) => {
                self.failing.remove(&(name.clone(), task));
                Some(table)
            }
            Err(error) => {
                if self.failing.insert((name.clone(), task)) {
                    tracing::warn!(%error, database = name, task, "a task of the leader fails; it is tried again and said once");
                }
                None
            }
        }
    }

    /// Names tables of metrics that had no rows three times in a row. Nothing is dropped.
    async fn name_unused(&mut self) {
        for index in 0..self.databases.len() {
            if !self.databases[index].metrics {
                continue;
            }
            let Some(table) = self.command(index, "unused", UNUSED).await else { continue };
            let database = self.databases[index].name.clone();
            let (Some(names), Some(counts)) = (table.column("TableName"), table.column("TotalRowCount")) else { continue };
            let is_empty = |row: &&Vec<serde_json::Value>| row.get(counts).and_then(serde_json::Value::as_i64) == Some(0);
            let empty: HashSet<String> =
                table.rows.iter().filter(is_empty).filter_map(|row| Some(row.get(names)?.as_str()?.to_owned())).collect();
            self.empty.retain(|(of, name), _| *of != database || empty.contains(name));
            for name in empty {
                let times = self.empty.entry((database.clone(), name.clone())).or_default();
                *times += 1;
                if *times == UNUSED_TIMES {
                    tracing::info!(database, table = name, "a table has had no rows for a day: it can be dropped");
                }
            }
        }
    }
}

fn interval(period: Duration) -> tokio::time::Interval {
    let mut interval = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// Compares the files of a storage directory with what the store says that it holds, until `stop`.
pub(crate) async fn audit(store: Store, dir: PathBuf, difference: Gauge, stop: CancellationToken) {
    let mut period = interval(AUDIT_PERIOD);
    while stop.run_until_cancelled(period.tick()).await.is_some() {
        let walked = dir.clone();
        let Ok(found) = tokio::task::spawn_blocking(move || bytes_in(&walked)).await else { return };
        let booked = store.usage().total_bytes;
        difference.set(found as i64 - booked as i64);
        if found.abs_diff(booked) > AUDIT_BYTES {
            tracing::warn!(found, booked, dir = %dir.display(), "the storage directory holds other bytes than the store knows of");
        }
    }
}

/// Bytes of all files below a folder; what cannot be read counts nothing.
fn bytes_in(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let bytes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(data) if data.is_dir() => bytes_in(&entry.path()),
        Ok(data) => data.len(),
        Err(_) => 0,
    });
    bytes.sum()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use axum::extract::State;
    use axum::routing::post;
    use axum::{Json, Router};
    use http::StatusCode;
    use parking_lot::Mutex;
    use serde_json::{Value, json};

    use super::*;

    /// Commands by database, and the rows that tables have.
    #[derive(Clone, Default)]
    struct Service {
        seen: Arc<Mutex<Vec<(String, String)>>>,
        rows: Arc<Mutex<Vec<(&'static str, i64)>>>,
        down: Arc<Mutex<bool>>,
    }

    async fn command(State(service): State<Service>, Json(body): Json<Value>) -> (StatusCode, Json<Value>) {
        if *service.down.lock() {
            return (StatusCode::BAD_REQUEST, Json(json!({"error": {"code": "x", "@message": "no", "@permanent": true}})));
        }
        service.seen.lock().push((body["db"].as_str().unwrap().to_owned(), body["csl"].as_str().unwrap().to_owned()));
        let rows: Vec<Value> = service.rows.lock().iter().map(|(name, rows)| json!([name, rows])).collect();
        let columns = json!([{"ColumnName": "TableName", "ColumnType": "string"}, {"ColumnName": "TotalRowCount", "ColumnType": "long"}]);
        (StatusCode::OK, Json(json!({"Tables": [{"TableName": "Table_0", "Columns": columns, "Rows": rows}]})))
    }

    async fn tasks(service: &Service, registry: &mut Registry) -> Tasks {
        server::install_crypto();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().route("/v1/rest/mgmt", post(command)).with_state(service.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let database = |name: &str, metrics| Database { name: name.to_owned(), client: Client::builder(&url).build().unwrap(), metrics };
        Tasks::new(vec![database("Metrics", true), database("Logs", false)], Leader::always(), registry)
    }

    /// Commands and projection as the specification of the reference has them.
    #[tokio::test]
    async fn counts_of_all_tables_are_kept_and_series_are_counted_where_there_are_any() {
        let (service, mut registry) = (Service::default(), Registry::default());
        let mut tasks = tasks(&service, &mut registry).await;
        tasks.keep_counts().await;
        let seen = service.seen.lock().clone();
        assert_eq!(seen.iter().map(|(database, _)| database.as_str()).collect::<Vec<_>>(), ["Metrics", "Metrics", "Logs"]);
        assert_eq!(seen[0].1, ".set-or-append async AdxmonIngestorTableCardinalityCount <| CountCardinality");
        let details = &seen[1].1;
        let (head, columns) = details.split_once(" | project ").unwrap();
        assert_eq!(head, ".set-or-append async AdxmonIngestorTableDetails <| .show tables details | extend PreciseTimeStamp = now()");
        assert_eq!(columns.split(", ").count(), 19);
        assert!(
            columns.starts_with("PreciseTimeStamp, DatabaseName, TableName, TotalExtents,") && columns.ends_with(", TableId"),
            "{columns}"
        );
        assert_eq!(seen[2].1, *details);
    }

    #[tokio::test]
    async fn a_table_is_named_when_it_had_no_rows_three_times_in_a_row() {
        let (service, mut registry) = (Service::default(), Registry::default());
        let mut tasks = tasks(&service, &mut registry).await;
        let times = |tasks: &Tasks, table: &str| tasks.empty.get(&("Metrics".to_owned(), table.to_owned())).copied().unwrap_or(0);
        for (rows, expected) in [(0, 1), (0, 2), (7, 0), (0, 1), (0, 2), (0, 3)] {
            *service.rows.lock() = vec![("Cpu", rows), ("Used", 5)];
            tasks.name_unused().await;
            assert_eq!((times(&tasks, "Cpu"), times(&tasks, "Used")), (expected, 0));
        }
        // Only metrics are looked at, and nothing but looked at.
        let seen = service.seen.lock().clone();
        assert!(seen.len() == 6 && seen.iter().all(|(database, csl)| database == "Metrics" && csl == UNUSED), "{seen:?}");
    }

    #[tokio::test]
    async fn a_service_that_fails_is_counted_and_tried_again() {
        let (service, mut registry) = (Service::default(), Registry::default());
        let mut tasks = tasks(&service, &mut registry).await;
        *service.down.lock() = true;
        tasks.keep_counts().await;
        assert_eq!(tasks.failing.len(), 3);
        *service.down.lock() = false;
        tasks.keep_counts().await;
        assert!(tasks.failing.is_empty());
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in ["adxmon_ingestor_leader_tasks_total{task=\"details\",result=\"failed\"} 2", "{task=\"details\",result=\"ok\"} 2"] {
            assert!(text.contains(line), "{text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_not_the_leader_sends_nothing_and_the_first_time_is_one_interval_after_the_start() {
        let started = tokio::time::Instant::now();
        interval(COUNTS_PERIOD).tick().await;
        assert_eq!(started.elapsed(), COUNTS_PERIOD);
        let (service, mut registry) = (Service::default(), Registry::default());
        let mut tasks = tasks(&service, &mut registry).await;
        let (_baton, leader) = Leader::told();
        tasks.leader = leader;
        let stop = CancellationToken::new();
        let running = tokio::spawn(tasks.run(stop.clone()));
        tokio::time::sleep(3 * UNUSED_PERIOD).await;
        stop.cancel();
        running.await.unwrap();
        assert!(service.seen.lock().is_empty());
    }

    #[test]
    fn the_audit_counts_all_files() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("dead")).unwrap();
        std::fs::write(dir.path().join("a"), [0; 100]).unwrap();
        std::fs::write(dir.path().join("dead").join("b"), [0; 20]).unwrap();
        assert_eq!(bytes_in(dir.path()), 120);
        assert_eq!(bytes_in(&dir.path().join("none")), 0);
    }
}
