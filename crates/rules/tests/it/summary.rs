//! The runner of summary rules against a store in memory and a Kusto over HTTP.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use crds::{SummaryRule, SummaryRuleSpec, conditions};
use jiff::Timestamp;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use rules::clock::{Clock, ManualClock};
use rules::lease::{Baton, Leader};
use rules::store::{Key, Severity, Store};
use rules::summary::metrics::Metrics;
use rules::summary::operations::Kusto;
use rules::summary::{Owner, Runner};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::support::FailingStore;

mod deployments;

const HEALTH: &str = "summaryrule.adx-mon.azure.com";

/// Kusto over HTTP: takes async commands, and tells how they went.
#[derive(Clone, Default)]
pub(crate) struct Service {
    state: Arc<Mutex<ServiceState>>,
    asked: Arc<Notify>,
}

#[derive(Default)]
struct ServiceState {
    /// Statements in the order in which they came.
    commands: Vec<String>,
    polls: Vec<String>,
    /// Answers instead of the usual one: a status and a body.
    refusals: VecDeque<(u16, &'static str)>,
    /// Whether commands get no answer at all.
    silent: bool,
    /// State, ShouldRetry and Status of operations; `Completed` if nothing is said.
    operations: BTreeMap<String, (&'static str, f64, &'static str)>,
    /// What happens before a command is answered.
    on_command: Option<Box<dyn Fn() + Send>>,
}

impl Service {
    pub(crate) async fn start() -> (Service, kusto::Client) {
        let service = Service::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(answer).with_state(service.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let client = kusto::Client::builder(&url).retry(kusto::RetryPolicy::none()).build().unwrap();
        (service, client)
    }

    pub(crate) fn commands(&self) -> Vec<String> {
        self.state.lock().commands.clone()
    }

    /// Calls that from now on before it answers a command.
    pub(crate) fn on_command(&self, call: impl Fn() + Send + 'static) {
        self.state.lock().on_command = Some(Box::new(call));
    }
}

async fn answer(State(service): State<Service>, body: Bytes) -> Response {
    let body: Value = serde_json::from_slice(&body).unwrap();
    let csl = body["csl"].as_str().unwrap().to_owned();
    service.asked.notify_one();
    let silent = service.state.lock().silent && !csl.starts_with(".show");
    if silent {
        std::future::pending::<()>().await;
    }
    let mut state = service.state.lock();
    if csl.starts_with(".show operations") {
        let known = state.commands.len();
        let ids = (1..=known).map(|n| format!("op-{n}")).filter(|id| csl.contains(&format!("\"{id}\"")));
        let row = |id: String| {
            let (state, retry, status) = state.operations.get(&id).copied().unwrap_or(("Completed", 0.0, ""));
            json!([id, state, retry, status])
        };
        let rows: Vec<Value> = ids.map(row).collect();
        state.polls.push(csl);
        return table(&["OperationId", "State", "ShouldRetry", "Status"], rows.into());
    }
    if let Some((status, text)) = state.refusals.pop_front() {
        return (StatusCode::from_u16(status).unwrap(), text).into_response();
    }
    state.commands.push(csl);
    state.on_command.iter().for_each(|call| call());
    let id = format!("op-{}", state.commands.len());
    table(&["OperationId"], json!([[id]]))
}

fn table(columns: &[&str], rows: Value) -> Response {
    let columns: Vec<Value> = columns.iter().map(|name| json!({"ColumnName": name, "ColumnType": "string"})).collect();
    json!({"Tables": [{"TableName": "Table_0", "Columns": columns, "Rows": rows}]}).to_string().into_response()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn rule(name: &str, database: &str) -> SummaryRule {
    let spec = SummaryRuleSpec {
        database: database.to_owned(),
        table: "Dest".to_owned(),
        body: "Src\n| where Timestamp between (_startTime .. _endTime)".to_owned(),
        interval: "1h".into(),
        ..SummaryRuleSpec::default()
    };
    let mut rule = SummaryRule::new(name, spec);
    rule.metadata.namespace = Some("ns".to_owned());
    rule
}

struct Running {
    store: Arc<FailingStore<SummaryRule>>,
    clock: ManualClock,
    baton: Baton,
    shutdown: CancellationToken,
    registry: Registry,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    fn start(owner: Owner, rules: impl IntoIterator<Item = SummaryRule>, clusters: &[(&str, kusto::Client)]) -> Running {
        Running::of(owner, Arc::new(FailingStore::new(rules)), clusters)
    }

    fn of(owner: Owner, store: Arc<FailingStore<SummaryRule>>, clusters: &[(&str, kusto::Client)]) -> Running {
        Running::with(store, clusters, owner, |runner| runner)
    }

    fn with(
        store: Arc<FailingStore<SummaryRule>>,
        clusters: &[(&str, kusto::Client)],
        owner: Owner,
        named: impl Fn(Runner) -> Runner,
    ) -> Running {
        let clock = ManualClock::new(at("2024-01-01T10:17:00Z"));
        let clusters = clusters.iter().map(|(name, client)| ((*name).to_owned(), Arc::new(client.clone()) as Arc<dyn Kusto>)).collect();
        let labels = BTreeMap::from([("region".to_owned(), "eastus".to_owned())]);
        let (metrics, mut registry) = (Metrics::default(), Registry::default());
        metrics.register(&mut registry);
        let runner = Runner::new(store.clone(), clusters, &labels, owner, Arc::new(clock.clone()), metrics);
        let runner = named(runner);
        let (baton, leader) = Leader::told();
        baton.pass(true);
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(runner.run(leader, shutdown.clone()));
        Running { store, clock, baton, shutdown, registry, task }
    }

    fn rule(&self, name: &str) -> Arc<SummaryRule> {
        self.store.objects().get(&Key::new("ns", name)).unwrap()
    }

    fn condition(&self, name: &str, type_: &str) -> Option<(String, String)> {
        let rule = self.rule(name);
        let condition = conditions::get(&rule.status.as_ref()?.conditions, type_)?;
        Some((condition.status.clone(), condition.message.clone()))
    }

    /// Moves the clock on from deadline to deadline until something holds.
    async fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let wait = async {
            let mut objects = self.store.objects();
            while !holds() {
                tokio::select! {
                    biased;
                    () = objects.changed() => {}
                    deadline = self.clock.next_deadline() => {
                        if !holds() {
                            self.clock.set(deadline);
                            tokio::task::yield_now().await;
                        }
                    }
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(60), wait)
            .await
            .unwrap_or_else(|_| panic!("never: {what}; {:?}", self.store.objects().snapshot()));
    }

    /// How many windows had an outcome.
    fn windows(&self, outcome: &str) -> u64 {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        let start = format!("adxmon_summaryrule_windows_total{{outcome=\"{outcome}\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&start)).map_or(0, |count| count.parse().unwrap())
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
    }
}

#[tokio::test]
async fn a_window_goes_from_the_rule_to_the_table() {
    let (service, client) = Service::start().await;
    let running = Running::start(Owner::Ingestor, [rule("r", "DB"), rule("elsewhere", "Other")], &[("DB", client)]);
    let done = || running.rule("r").status.as_ref().is_some_and(|s| s.last_window_end.is_some() && s.backlog == 0);
    running.until("the first window is complete", done).await;
    let commands = service.commands();
    assert_eq!(commands.len(), 1);
    let uid = running.rule("r").metadata.uid.clone().unwrap();
    let tag = format!("adx-mon:{uid}:2024-01-01T09:00:00Z/2024-01-01T10:00:00Z");
    assert_eq!(
        commands[0],
        format!(
            ".set-or-append async Dest with (extend_schema=true, tags='[\"ingest-by:{tag}\"]', ingestIfNotExists='[\"{tag}\"]') <| \
             let _startTime=datetime(2024-01-01T09:00:00Z);\nlet _endTime=datetime(2024-01-01T09:59:59.9999999Z);\n\
             let _region=\"eastus\";\nSrc\n| where Timestamp between (_startTime .. _endTime)"
        )
    );
    let status = running.rule("r").status.clone().unwrap();
    assert_eq!(status.last_window_start.unwrap().0, at("2024-01-01T09:00:00Z"));
    assert_eq!(status.last_window_end.unwrap().0, at("2024-01-01T10:00:00Z"));
    assert_eq!(running.condition("r", HEALTH), Some(("True".to_owned(), String::new())));
    assert!(running.rule("elsewhere").status.is_none());
    // On record, submitted, complete: a write each, and none for what they cause.
    assert_eq!(running.store.inner.status_writes(), 3);
    running.stop().await;
}

#[tokio::test]
async fn one_query_asks_for_the_operations_of_all_rules() {
    let (service, client) = Service::start().await;
    let rules = (0..20).map(|n| rule(&format!("r{n}"), "DB"));
    let running = Running::start(Owner::Ingestor, rules, &[("DB", client)]);
    let objects = running.store.objects();
    let done = || objects.snapshot().values().all(|r| r.status.as_ref().is_some_and(|s| s.last_window_end.is_some()));
    running.until("all are complete", done).await;
    assert_eq!(service.commands().len(), 20);
    assert!(service.state.lock().polls.len() <= 3, "{}", service.state.lock().polls.len());
    running.stop().await;
}

#[tokio::test]
async fn a_mistake_is_told_with_its_place_in_the_body_and_others_go_on() {
    let (service, client) = Service::start().await;
    let refusal = r#"{"error":{"code":"General_BadRequest","@message":"Semantic error: SEM0100: no such column","@permanent":true,
        "innererror":{"code":"SEM0100","@line":5,"@pos":9}}}"#;
    service.state.lock().refusals.push_back((400, refusal));
    let running = Running::start(Owner::Ingestor, [rule("a", "DB"), rule("b", "DB")], &[("DB", client)]);
    let health = |name| running.condition(name, HEALTH);
    running.until("both have a health", || health("a").is_some() && health("b").is_some()).await;
    let told: Vec<String> = ["a", "b"].into_iter().filter_map(health).filter(|(s, _)| s == "False").map(|(_, m)| m).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("SEM0100") && told[0].contains("line 2, column 9 of the body"), "{}", told[0]);
    let events = running.store.inner.events();
    assert!(events.len() == 1 && events[0].1.reason == "SubmissionFailed" && events[0].1.note.contains("SEM0100"), "{events:?}");
    // The edit has it tried again at once, with the window of before.
    for name in ["a", "b"] {
        let mut edited = SummaryRule::clone(&running.rule(name));
        edited.spec.body.push_str(" | take 10");
        running.store.inner.apply(edited);
    }
    running.until("both are well", || ["a", "b"].iter().all(|name| health(name).is_some_and(|(s, _)| s == "True"))).await;
    let commands = service.commands();
    assert!(commands.iter().all(|c| c.contains("datetime(2024-01-01T09:00:00Z)")), "{commands:?}");
    running.stop().await;
}

#[tokio::test]
async fn a_service_in_trouble_is_left_alone_and_holds_up_no_other() {
    let (sick, sick_client) = Service::start().await;
    let (well, well_client) = Service::start().await;
    sick.state.lock().refusals.extend(std::iter::repeat_n((429, ""), 1000));
    let rules = (0..50).map(|n| rule(&format!("s{n}"), "Sick")).chain([rule("w", "Well")]);
    let running = Running::start(Owner::Ingestor, rules, &[("Sick", sick_client), ("Well", well_client)]);
    let health = |name: &str| running.condition(name, HEALTH);
    running.until("all have a health", || (0..50).all(|n| health(&format!("s{n}")).is_some()) && health("w").is_some()).await;
    assert_eq!(health("w").unwrap().0, "True");
    assert!((0..50).all(|n| health(&format!("s{n}")).unwrap().0 == "False"));
    let refused = 1000 - sick.state.lock().refusals.len();
    assert!(refused <= 16, "{refused} of 50 rules knocked at a door that is shut");
    sick.state.lock().refusals.clear();
    running.until("all are well", || (0..50).all(|n| health(&format!("s{n}")).unwrap().0 == "True")).await;
    assert_eq!((sick.commands().len(), well.commands().len()), (50, 1));
    assert_eq!(running.store.inner.events(), [], "an event for each rule would say no more");
    running.stop().await;
}

#[tokio::test]
async fn a_failed_window_is_told_and_comes_back() {
    let (service, client) = Service::start().await;
    service.state.lock().operations.insert("op-1".to_owned(), ("Failed", 0.0, "Query execution lacks memory"));
    let running = Running::start(Owner::Ingestor, [rule("r", "DB")], &[("DB", client)]);
    running.until("it failed", || running.rule("r").status.as_ref().is_some_and(|s| s.failed_windows_total == 1)).await;
    let failed = running.rule("r").status.clone().unwrap().failed_windows;
    assert_eq!(failed[0].start_time.0, at("2024-01-01T09:00:00Z"));
    assert!(failed[0].message.contains("lacks memory") && failed[0].retry_at.is_some(), "{failed:?}");
    running.until("an event tells of it", || !running.store.inner.events().is_empty()).await;
    let (_, event) = running.store.inner.events().remove(0);
    assert_eq!((event.severity, event.reason.as_str()), (Severity::Warning, "WindowFailed"));
    running.until("it is in the table", || running.rule("r").status.as_ref().is_some_and(|s| s.failed_windows.is_empty())).await;
    assert!(running.clock.now() >= at("2024-01-01T10:27:00Z"));
    assert_eq!(running.condition("r", HEALTH).unwrap().0, "True");
    running.stop().await;
}

#[tokio::test]
async fn only_the_leader_submits() {
    let (service, client) = Service::start().await;
    let running = Running::start(Owner::Ingestor, [rule("r", "DB")], &[("DB", client)]);
    running.until("the first window", || running.rule("r").status.as_ref().is_some_and(|s| s.last_window_end.is_some())).await;
    running.baton.pass(false);
    running.clock.set(at("2024-01-01T13:00:00Z"));
    running.store.inner.apply(rule("new", "DB"));
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    assert_eq!(service.commands().len(), 1);
    running.baton.pass(true);
    let done =
        || running.rule("r").status.as_ref().is_some_and(|s| s.last_window_end.as_ref().is_some_and(|t| t.0 >= at("2024-01-01T13:00:00Z")));
    running.until("the next windows", done).await;
    running.stop().await;
}

#[tokio::test]
async fn bad_rules_say_what_is_wrong_and_crash_nothing() {
    let (service, client) = Service::start().await;
    let mut zero = rule("zero", "DB");
    zero.spec.interval = "0s".into();
    let mut days = rule("days", "DB");
    days.spec.interval = "1d".into();
    let mut criteria = rule("criteria", "DB");
    criteria.spec.criteria_expression = "region == 1".to_owned();
    let mut garbage = rule("garbage", "DB");
    garbage.status = Some(
        serde_json::from_value(json!({"conditions": [{
        "type": "summaryrule.adx-mon.azure.com/OperationId", "status": "Unknown", "reason": "InProgress", "message": "{oops",
        "lastTransitionTime": "2024-01-01T00:00:00Z"}]}))
        .unwrap(),
    );
    let mut huge = rule("huge", "DB");
    huge.spec.body = "x".repeat(1 << 20);
    let running = Running::start(Owner::Ingestor, [zero, days, criteria, garbage, huge, rule("good", "DB")], &[("DB", client)]);
    let told = |name: &str, type_: &str, text: &str| running.condition(name, type_).is_some_and(|(s, m)| s == "False" && m.contains(text));
    running
        .until("all is told", || {
            told("zero", HEALTH, "spec.interval")
                && told("days", HEALTH, "unknown unit")
                && told("criteria", "Criteria", "cel typecheck")
                && told("garbage", HEALTH, "OperationId")
                && running.rule("good").status.as_ref().is_some_and(|s| s.last_window_end.is_some())
        })
        .await;
    assert!(service.commands().iter().any(|c| c.len() > 1 << 20));
    let mut events: Vec<(String, String)> = running.store.inner.events().into_iter().map(|(key, event)| (key.name, event.reason)).collect();
    events.sort();
    let event = |name: &str, reason: &str| (name.to_owned(), reason.to_owned());
    let mistakes = [("criteria", "CriteriaExpressionError"), ("days", "InvalidRule"), ("garbage", "Unreadable"), ("zero", "InvalidRule")];
    assert_eq!(events, mistakes.map(|(name, reason)| event(name, reason)));
    running.stop().await;
}

#[tokio::test]
async fn the_exporter_takes_over_what_is_idle_or_abandoned() {
    let (service, client) = Service::start().await;
    let mut named = rule("named", "DB");
    named.metadata.annotations = Some(BTreeMap::from([("adx-mon.azure.com/owner".to_owned(), "somebody".to_owned())]));
    let mut abandoned = rule("abandoned", "DB");
    abandoned.metadata.creation_timestamp = Some(crds::Time(at("2024-01-01T10:10:00Z")));
    let running = Running::start(Owner::Exporter, [named, abandoned], &[("DB", client)]);
    running.until("it is ours", || running.rule("abandoned").status.as_ref().is_some_and(|s| s.last_window_end.is_some())).await;
    assert!(running.clock.now() >= at("2024-01-01T10:20:00Z"));
    let annotations = running.rule("abandoned").metadata.annotations.clone().unwrap();
    assert_eq!(annotations["adx-mon.azure.com/owner"], "adx-exporter");
    assert_eq!(running.condition("abandoned", HEALTH).unwrap().1, "Rule submitted successfully");
    assert_eq!(running.condition("named", HEALTH), None);
    assert!(!service.commands().is_empty());
    running.stop().await;
}

#[tokio::test]
async fn a_suspended_rule_waits_and_makes_up_for_it() {
    let (service, client) = Service::start().await;
    let running = Running::start(Owner::Ingestor, [rule("r", "DB")], &[("DB", client)]);
    let end = || running.rule("r").status.as_ref().and_then(|s| s.last_window_end.clone()).map(|t| t.0);
    running.until("the first window", || end().is_some()).await;
    let suspend = |suspend: bool| {
        let mut edited = SummaryRule::clone(&running.rule("r"));
        edited.spec.suspend = suspend;
        running.store.inner.apply(edited);
    };
    suspend(true);
    running.until("the edit is seen", || running.rule("r").status.as_ref().unwrap().conditions[0].observed_generation == Some(2)).await;
    running.until("hours pass", || running.clock.now() >= at("2024-01-01T15:10:00Z")).await;
    assert_eq!(service.commands().len(), 1);
    suspend(false);
    running.until("it has caught up", || end() == Some(at("2024-01-01T15:00:00Z"))).await;
    assert_eq!(service.commands().len(), 6);
    running.stop().await;
}

/// A class of what a service can answer: the status and the metrics tell it, and the window comes back.
async fn a_refusal_is_told_and_the_window_comes_back(status: u16, body: &'static str, part: &str) {
    let (service, client) = Service::start().await;
    service.state.lock().refusals.push_back((status, body));
    let running = Running::start(Owner::Ingestor, [rule("r", "DB")], &[("DB", client)]);
    let told = || running.condition("r", HEALTH).is_some_and(|(status, _)| status == "False");
    running.until("it is told", told).await;
    let (_, message) = running.condition("r", HEALTH).unwrap();
    let start = "failed to submit window [2024-01-01T09:00:00Z, 2024-01-01T10:00:00Z) of DB.r: ";
    assert!(message.starts_with(start) && message.contains(part), "{message}");
    assert_eq!(running.condition("r", "Failed").unwrap().0, "True");
    assert_eq!((running.windows("refused"), running.windows("submitted")), (1, 0));
    let done = || running.rule("r").status.as_ref().is_some_and(|s| s.last_window_end.is_some());
    running.until("it is in the table", done).await;
    assert_eq!(running.rule("r").status.clone().unwrap().last_window_start.unwrap().0, at("2024-01-01T09:00:00Z"));
    assert_eq!((running.condition("r", HEALTH).unwrap().0, running.condition("r", "Failed").unwrap().0), ("True".into(), "False".into()));
    assert_eq!((running.windows("refused"), running.windows("submitted")), (1, 1));
    running.until("it is counted", || running.windows("completed") == 1).await;
    running.stop().await;
}

#[tokio::test]
async fn throttling_is_told_and_the_window_comes_back() {
    a_refusal_is_told_and_the_window_comes_back(429, "", "HTTP_429").await;
}

#[tokio::test]
async fn an_error_of_the_service_is_told_and_the_window_comes_back() {
    a_refusal_is_told_and_the_window_comes_back(500, "", "HTTP_500").await;
}

#[tokio::test]
async fn a_database_that_the_service_does_not_have_is_told_and_the_window_comes_back() {
    let body =
        r#"{"error":{"code":"BadRequest_EntityNotFound","@message":"Entity ID 'DB' of kind 'Database' was not found.","@permanent":true}}"#;
    a_refusal_is_told_and_the_window_comes_back(400, body, "Entity ID 'DB' of kind 'Database' was not found").await;
}

#[tokio::test]
async fn a_service_that_does_not_answer_is_told_and_the_window_comes_back() {
    let (service, client) = Service::start().await;
    service.state.lock().silent = true;
    let running = Running::start(Owner::Ingestor, [rule("r", "DB")], &[("DB", client)]);
    service.asked.notified().await;
    // The request is there: time runs on to its deadline.
    tokio::time::pause();
    let mut objects = running.store.objects();
    while running.condition("r", HEALTH).is_none_or(|(status, _)| status != "False") {
        objects.changed().await;
    }
    tokio::time::resume();
    service.state.lock().silent = false;
    let (_, message) = running.condition("r", HEALTH).unwrap();
    assert!(message.contains("DEADLINE") && message.contains("no answer within 120s"), "{message}");
    assert_eq!(running.windows("refused"), 1);
    let done = || running.rule("r").status.as_ref().is_some_and(|s| s.last_window_end.is_some());
    running.until("it is in the table", done).await;
    running.stop().await;
}

/// What another process said of a database that is served now: the first window comes at once, and the status is put right.
#[tokio::test]
async fn a_database_that_is_served_now_is_no_longer_missing() {
    let (service, client) = Service::start().await;
    let mut waiting = rule("r", "DB");
    waiting.metadata.generation = Some(1);
    waiting.status = Some(
        serde_json::from_value(json!({"conditions": [{"type": HEALTH, "status": "False", "reason": "DatabaseNotFound",
            "message": "there is no database", "observedGeneration": 1, "lastTransitionTime": "2024-01-01T10:16:00Z"}]}))
        .unwrap(),
    );
    let running = Running::start(Owner::Ingestor, [waiting], &[("DB", client)]);
    let done = || running.rule("r").status.as_ref().is_some_and(|s| s.last_window_end.is_some());
    running.until("the first window", done).await;
    assert_eq!(running.condition("r", HEALTH), Some(("True".to_owned(), String::new())));
    assert_eq!(service.commands().len(), 1);
    assert!(running.clock.now() < at("2024-01-01T10:20:00Z"), "{}", running.clock.now());
    running.stop().await;
}

#[tokio::test]
async fn no_window_is_begun_before_it_is_on_record_and_none_twice() {
    let (service, client) = Service::start().await;
    let store = Arc::new(FailingStore::new([rule("r", "DB")]));
    store.fail(true);
    let running = Running::of(Owner::Ingestor, store.clone(), &[("DB", client)]);
    // An hour in which no status can be written.
    running.until("an hour is over", || running.clock.now() >= at("2024-01-01T11:17:00Z")).await;
    assert_eq!(service.commands(), [""; 0]);
    store.fail(false);
    let done =
        || running.rule("r").status.as_ref().is_some_and(|s| s.last_window_end.as_ref().is_some_and(|t| t.0 >= at("2024-01-01T11:00:00Z")));
    running.until("the windows are in the table", done).await;
    let commands = service.commands();
    let starts: Vec<_> = commands.iter().map(|c| c.split("_startTime=datetime(").nth(1).unwrap().split(')').next().unwrap()).collect();
    let mut once = starts.clone();
    once.dedup();
    assert_eq!(starts, once);
    running.stop().await;
}

#[tokio::test]
async fn a_body_of_a_megabyte_is_submitted_and_others_go_on() {
    let (service, client) = Service::start().await;
    let mut big = rule("big", "DB");
    big.spec.body.push_str(&format!("\n// {}", "x".repeat(1 << 20)));
    let running = Running::start(Owner::Ingestor, [big, rule("small", "DB")], &[("DB", client)]);
    let done = |name| running.rule(name).status.as_ref().is_some_and(|s| s.last_window_end.is_some());
    running.until("both windows are complete", || done("big") && done("small")).await;
    let longest = service.commands().iter().map(String::len).max();
    assert!(longest > Some(1 << 20) && service.commands().len() == 2, "{longest:?}");
    running.stop().await;
}
