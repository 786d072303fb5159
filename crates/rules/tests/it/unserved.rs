//! Rules of databases that a process does not have, of each kind: the status says so, and no two processes contend for it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use crds::{
    Condition, Function, FunctionSpec, ManagementCommand, ManagementCommandSpec, MetricsExporter, MetricsExporterSpec, State, SummaryRule,
    SummaryRuleSpec, Transform, conditions,
};
use jiff::Timestamp;
use kusto::Kind;
use parking_lot::Mutex;
use rules::lease::Leader;
use rules::runner::Executor as _;
use rules::store::memory::MemoryStore;
use rules::store::{Key, Severity, Store as _};
use rules::unserved::{Catalogue, Named, Served, Unserved};
use serde_json::Value;

use crate::fake_kusto::{error, labels};
use crate::support::LateStore;

fn start() -> Timestamp {
    "2025-01-01T00:00:00Z".parse().unwrap()
}

fn after(seconds: u64) -> Timestamp {
    start() + Duration::from_secs(seconds)
}

fn key() -> Key {
    Key::new("default", "r")
}

/// A cluster that lists its databases; none while it is away.
#[derive(Debug, Clone)]
struct Cluster {
    databases: Arc<Mutex<Option<Vec<String>>>>,
    asked: Arc<Mutex<u64>>,
}

impl Cluster {
    fn with(databases: &[&str]) -> Self {
        let databases = databases.iter().map(|name| (*name).to_owned()).collect();
        Self { databases: Arc::new(Mutex::new(Some(databases))), asked: Arc::default() }
    }

    fn set(&self, databases: Option<&[&str]>) {
        *self.databases.lock() = databases.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
    }

    fn served(&self, component: &'static str, databases: &[&str]) -> Served {
        Served {
            component,
            way_out: "start one with --kusto-endpoints",
            databases: databases.iter().map(|name| (*name).to_owned()).collect(),
            clusters: BTreeMap::from([("https://c".to_owned(), Arc::new(self.clone()) as Arc<dyn Catalogue>)]),
        }
    }
}

#[async_trait]
impl Catalogue for Cluster {
    async fn databases(&self) -> Result<Vec<String>, kusto::Error> {
        *self.asked.lock() += 1;
        self.databases.lock().clone().ok_or_else(|| error(Kind::Transient, Some(503), "away"))
    }
}

fn summary(database: &str) -> SummaryRule {
    let spec = SummaryRuleSpec {
        database: database.to_owned(),
        table: "T".to_owned(),
        body: "X".to_owned(),
        interval: "1h".into(),
        ..SummaryRuleSpec::default()
    };
    named(SummaryRule::new("r", spec))
}

fn function(database: &str) -> Function {
    named(Function::new("r", FunctionSpec { database: database.to_owned(), body: "B".to_owned(), ..FunctionSpec::default() }))
}

fn command(database: &str) -> ManagementCommand {
    let spec = ManagementCommandSpec { database: database.to_owned(), body: ".x".to_owned(), ..ManagementCommandSpec::default() };
    named(ManagementCommand::new("r", spec))
}

fn exporter(database: &str) -> MetricsExporter {
    let transform = Transform { default_metric_name: "m".into(), value_columns: vec!["n".into()], ..Transform::default() };
    let (database, body, interval) = (database.to_owned(), "T".to_owned(), "5m".into());
    named(MetricsExporter::new("r", MetricsExporterSpec { database, body, interval, transform, ..MetricsExporterSpec::default() }))
}

fn owned_by(owner: &str, database: &str) -> SummaryRule {
    let mut rule = summary(database);
    rule.metadata.annotations = Some(BTreeMap::from([("adx-mon.azure.com/owner".to_owned(), owner.to_owned())]));
    rule
}

fn named<K: kube::Resource>(mut object: K) -> K {
    object.meta_mut().namespace = Some("default".to_owned());
    object
}

fn unserved<K: Named>(store: &Arc<MemoryStore<K>>, served: Served) -> Unserved<K> {
    Unserved::new(store.clone(), served, labels(&Value::Null))
}

fn told<K: Named>(store: &MemoryStore<K>) -> Option<Condition> {
    conditions::get(store.objects().get(&key())?.conditions(), K::CONDITION).cloned()
}

const MISSING: &str = "there is no database \"Gone\" on https://c, which has DB, gone2; this ingestor serves DB";

/// A new rule: others get a minute, then the status tells, once.
async fn a_missing_database_is_told<K: Named>(object: K) -> Arc<MemoryStore<K>> {
    let (cluster, store) = (Cluster::with(&["DB", "gone2"]), Arc::new(MemoryStore::new([object])));
    let mut executor = unserved(&store, cluster.served("ingestor", &["DB"]));
    assert_eq!(executor.pass(start(), &Leader::always()).await, Some(after(60)));
    assert_eq!((told(&store), *cluster.asked.lock()), (None, 0));
    assert_eq!(executor.pass(after(60), &Leader::always()).await, Some(after(360)));
    let condition = told(&store).unwrap();
    assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("False", "DatabaseNotFound"));
    assert_eq!((condition.message.as_str(), condition.observed_generation), (MISSING, Some(1)));
    let events = store.events();
    assert_eq!((events.len(), events[0].1.severity, events[0].1.reason.as_str()), (1, Severity::Warning, "DatabaseNotFound"));

    // Neither this process again nor another one, which serves something else.
    let writes = store.status_writes();
    let mut other = unserved(&store, cluster.served("ingestor", &["gone2"]));
    for minutes in 2..60 {
        executor.pass(after(60 * minutes), &Leader::always()).await;
        other.pass(after(60 * minutes), &Leader::always()).await;
    }
    assert_eq!((store.status_writes(), store.events().len()), (writes, 1));
    assert!(*cluster.asked.lock() < 30, "{} times", cluster.asked.lock());

    // Somebody creates it: the status says no longer that there is none.
    cluster.set(Some(&["DB", "Gone"]));
    for minutes in 60..70 {
        executor.pass(after(60 * minutes), &Leader::always()).await;
    }
    let condition = told(&store).unwrap();
    assert_eq!(condition.reason, "DatabaseNotConfigured");
    let message = "database \"Gone\" is on https://c, but no ingestor serves it; this one serves DB; start one with --kusto-endpoints";
    assert_eq!(condition.message, message);
    store
}

#[tokio::test]
async fn a_summary_rule_of_a_missing_database_says_so() {
    a_missing_database_is_told(summary("Gone")).await;
}

#[tokio::test]
async fn a_function_of_a_missing_database_says_so() {
    let store = a_missing_database_is_told(function("Gone")).await;
    let status = store.objects().get(&key()).unwrap().status.clone().unwrap();
    assert_eq!(status.status, State::Failed);
    assert!(status.error.starts_with("database \"Gone\" is on") && status.last_time_reconciled.is_some(), "{status:?}");
}

#[tokio::test]
async fn a_management_command_of_a_missing_database_says_so() {
    a_missing_database_is_told(command("Gone")).await;
}

#[tokio::test]
async fn a_metrics_exporter_of_a_missing_database_says_so() {
    let store = a_missing_database_is_told(exporter("Gone")).await;
    let conditions = store.objects().get(&key()).unwrap().status.clone().unwrap().conditions;
    let status = |type_: &str| conditions::get(&conditions, type_).map(|condition| (condition.status.as_str(), condition.reason.as_str()));
    assert_eq!(status("Completed"), Some(("False", "DatabaseNotConfigured")));
    assert_eq!(status("Failed"), Some(("True", "DatabaseNotConfigured")));
}

/// The reference leaves such a rule alone without a word.
#[tokio::test]
async fn a_summary_rule_of_an_unknown_owner_says_so() {
    // Whether its database is served or not.
    for database in ["DB", "Gone"] {
        let (cluster, store) = (Cluster::with(&["DB"]), Arc::new(MemoryStore::new([owned_by("adxexporter", database)])));
        let mut executor = unserved(&store, cluster.served("ingestor", &["DB"]));
        assert_eq!(executor.pass(start(), &Leader::always()).await, Some(after(60)));
        for minutes in 1..60 {
            executor.pass(after(60 * minutes), &Leader::always()).await;
        }
        let condition = told(&store).unwrap();
        assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("False", "OwnerUnknown"));
        let message = "nobody runs this rule: the annotation adx-mon.azure.com/owner is \"adxexporter\"; it can be \"ingestor\", as \
                       without it, or \"adx-exporter\"";
        assert_eq!((condition.message.as_str(), store.status_writes(), store.events().len()), (message, 1, 1));
        assert_eq!(*cluster.asked.lock(), 0);
    }
    // Adxexporter takes over what names it as the desired owner; what is suspended is to stand still.
    let mut desired = owned_by("somebody", "DB");
    desired.metadata.annotations.as_mut().unwrap().insert("adx-mon.azure.com/desired-owner".to_owned(), "adx-exporter".to_owned());
    let mut suspended = owned_by("somebody", "DB");
    suspended.spec.suspend = true;
    for rule in [desired, suspended] {
        let (cluster, store) = (Cluster::with(&["DB"]), Arc::new(MemoryStore::new([rule])));
        assert_eq!(unserved(&store, cluster.served("ingestor", &["DB"])).pass(start(), &Leader::always()).await, None);
    }
}

/// It may be somebody else's, who writes its status.
#[tokio::test]
async fn a_summary_rule_that_an_unknown_owner_runs_is_left_to_it() {
    let (cluster, store) = (Cluster::with(&["DB"]), Arc::new(MemoryStore::new([owned_by("somebody", "DB")])));
    let mut executor = unserved(&store, cluster.served("ingestor", &["DB"]));
    for hour in 0..24 {
        store.update_status(&key(), &|rule| write_status(rule, hour)).await.unwrap();
        for minute in 0..60 {
            executor.pass(after(3600 * hour + 60 * minute), &Leader::always()).await;
        }
    }
    assert_eq!((told(&store).unwrap().reason.as_str(), store.events().len()), ("Created", 0));
}

#[tokio::test]
async fn a_database_that_is_not_configured_is_said_by_an_event_once() {
    let (cluster, store) = (Cluster::with(&["DB", "There"]), Arc::new(MemoryStore::new([summary("There")])));
    let mut executor = unserved(&store, cluster.served("ingestor", &["DB"]));
    for minutes in 0..60 {
        executor.pass(after(60 * minutes), &Leader::always()).await;
    }
    assert_eq!((told(&store), store.status_writes()), (None, 0));
    let events = store.events();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].1.reason, "DatabaseNotConfigured");
    assert!(events[0].1.note.contains("\"There\" is on https://c, but no ingestor serves it"), "{events:?}");
}

#[tokio::test]
async fn what_another_process_runs_is_left_to_it() {
    let (cluster, store) = (Cluster::with(&["DB"]), Arc::new(MemoryStore::new([summary("Elsewhere")])));
    let mut executor = unserved(&store, cluster.served("ingestor", &["DB"]));
    let runs = |n: u64| {
        let store = store.clone();
        async move { store.update_status(&key(), &|rule| write_status(rule, n)).await.unwrap() }
    };
    runs(0).await;
    executor.pass(start(), &Leader::always()).await;
    // It writes once an hour, for a day.
    for hour in 1..24 {
        runs(hour).await;
        for minute in 0..60 {
            executor.pass(after(3600 * hour + 60 * minute), &Leader::always()).await;
        }
    }
    assert_eq!((told(&store).unwrap().reason, *cluster.asked.lock()), ("Created".to_owned(), 0));
    assert!(store.events().is_empty());
    // Then it is gone, for three intervals.
    let last = after(3600 * 23);
    executor.pass(last + Duration::from_secs(3 * 3600 - 1), &Leader::always()).await;
    assert_eq!(told(&store).unwrap().reason, "Created");
    executor.pass(last + Duration::from_secs(3 * 3600), &Leader::always()).await;
    assert_eq!(told(&store).unwrap().reason, "DatabaseNotFound");
}

/// Its endpoint was taken away from whoever ran it: each success was a write, and now there is none.
#[tokio::test]
async fn a_metrics_exporter_that_is_served_no_more_says_so() {
    let (cluster, store) = (Cluster::with(&["DB", "Elsewhere"]), Arc::new(MemoryStore::new([exporter("Elsewhere")])));
    let mut executor = unserved(&store, cluster.served("adxexporter", &["DB"]));
    let wrote = async |at: Timestamp, works: bool| {
        let change = |exporter: &mut MetricsExporter| {
            let (observed_generation, type_) = (exporter.metadata.generation, <MetricsExporter as Named>::CONDITION);
            let status = exporter.status.get_or_insert_default();
            status.last_window_end = Some(crds::Time(at));
            let (status_, reason) = if works { ("True", "ExecutionSuccessful") } else { ("False", "ExecutionFailed") };
            let status_ = conditions::Truth::from(status_ == "True");
            let desired = conditions::Desired { type_, status: status_, reason, message: "", observed_generation };
            conditions::set(&mut status.conditions, &desired, at);
        };
        store.update_status(&key(), &change).await.unwrap();
    };
    // Somebody else exports it every five minutes.
    for minutes in 0..120 {
        if minutes % 5 == 0 {
            wrote(after(60 * minutes), true).await;
        }
        executor.pass(after(60 * minutes), &Leader::always()).await;
    }
    // Since minute 115 nobody does.
    for (minutes, reason) in [(129, "ExecutionSuccessful"), (130, "DatabaseNotConfigured")] {
        executor.pass(after(60 * minutes), &Leader::always()).await;
        assert_eq!(told(&store).unwrap().reason, reason);
    }
    let message =
        "database \"Elsewhere\" is on https://c, but no adxexporter serves it; this one serves DB; start one with --kusto-endpoints";
    assert_eq!(told(&store).unwrap().message, message);
    assert_eq!(store.events().len(), 1);

    // Of one that fails elsewhere, again and again with the same words, nothing is known.
    wrote(after(60 * 140), false).await;
    for minutes in 140..2000 {
        executor.pass(after(60 * minutes), &Leader::always()).await;
    }
    assert_eq!(told(&store).unwrap().reason, "ExecutionFailed");
}

fn write_status(rule: &mut SummaryRule, n: u64) {
    let observed_generation = rule.metadata.generation;
    let status = rule.status.get_or_insert_default();
    status.backlog = n as i64;
    let type_ = <SummaryRule as Named>::CONDITION;
    let desired = conditions::Desired { type_, status: conditions::Truth::True, reason: "Created", message: "", observed_generation };
    conditions::set(&mut status.conditions, &desired, after(3600 * n));
}

#[tokio::test]
async fn a_cluster_that_does_not_answer_proves_nothing() {
    let mut other = function("Gone");
    other.metadata.name = Some("other".to_owned());
    let (cluster, store) = (Cluster::with(&["DB"]), Arc::new(MemoryStore::new([function("Gone"), other])));
    cluster.set(None);
    let mut executor = unserved(&store, cluster.served("ingestor", &["DB"]));
    executor.pass(start(), &Leader::always()).await;
    assert_eq!(executor.pass(after(60), &Leader::always()).await, Some(after(120)));
    assert_eq!((told(&store), *cluster.asked.lock()), (None, 1), "once for all rules");
    cluster.set(Some(&["DB"]));
    executor.pass(after(120), &Leader::always()).await;
    assert_eq!(told(&store).unwrap().reason, "DatabaseNotFound");
}

#[tokio::test]
async fn a_name_in_another_case_is_hinted_at() {
    let (cluster, store) = (Cluster::with(&["DB"]), Arc::new(MemoryStore::new([command("db")])));
    let mut executor = unserved(&store, cluster.served("ingestor", &["DB"]));
    executor.pass(start(), &Leader::always()).await;
    executor.pass(after(60), &Leader::always()).await;
    let message = told(&store).unwrap().message;
    assert!(message.contains("; did you mean \"DB\"? (names are case-sensitive)"), "{message}");
    // Functions take any case.
    let store = Arc::new(MemoryStore::new([function("db")]));
    assert_eq!(unserved(&store, cluster.served("ingestor", &["DB"])).pass(start(), &Leader::always()).await, None);
}

#[tokio::test]
async fn rules_that_are_not_ones_own_are_left_alone() {
    let cluster = Cluster::with(&["DB"]);
    let looks_at = async |object: SummaryRule, component: &'static str| {
        let store = Arc::new(MemoryStore::new([object]));
        let mut executor = unserved(&store, cluster.served(component, &["DB"]));
        executor.pass(start(), &Leader::always()).await.is_some()
    };
    let owned = |owner: &str| owned_by(owner, "Gone");
    assert!(looks_at(summary("Gone"), "ingestor").await && looks_at(owned("adx-exporter"), "adxexporter").await);
    assert!(!looks_at(owned("adx-exporter"), "ingestor").await && !looks_at(summary("Gone"), "adxexporter").await);
    assert!(!looks_at(owned("somebody"), "adxexporter").await);
    let mut suspended = summary("Gone");
    suspended.spec.suspend = true;
    let mut elsewhere = summary("Gone");
    elsewhere.spec.criteria = BTreeMap::from([("region".to_owned(), vec!["westus".to_owned()])]);
    let mut expression = summary("Gone");
    expression.spec.criteria_expression = "1 == 2".to_owned();
    for rule in [suspended, elsewhere, expression, summary("DB")] {
        assert!(!looks_at(rule.clone(), "ingestor").await, "{rule:?}");
    }
}

/// A status that another process wrote meanwhile, which the watch does not show yet, stays.
#[tokio::test]
async fn what_was_written_meanwhile_stays() {
    let (cluster, store) = (Cluster::with(&["DB"]), Arc::new(MemoryStore::new([summary("Gone")])));
    let late = Arc::new(LateStore::of(&store));
    let mut executor = Unserved::<SummaryRule>::new(late, cluster.served("ingestor", &["DB"]), labels(&Value::Null));
    executor.pass(start(), &Leader::always()).await;
    store.update_status(&key(), &|rule| write_status(rule, 0)).await.unwrap();
    executor.pass(after(60), &Leader::always()).await;
    assert_eq!(*cluster.asked.lock(), 1);
    assert_eq!(told(&store).unwrap().reason, "Created");
}
