//! Two deployments that serve the same objects, each with a database `DB` on a cluster of its own.

use std::sync::Arc;
use std::time::Duration;

use crds::{Condition, Function, FunctionSpec, FunctionStatus, ManagementCommand, ManagementCommandSpec, State, TargetStatus, conditions};
use jiff::Timestamp;
use kusto::Kind;
use rules::function::{FINALIZER, Functions};
use rules::lease::Leader;
use rules::management_command::ManagementCommands;
use rules::runner::Executor;
use rules::store::memory::MemoryStore;
use rules::store::{Key, Object, Store};
use rules::target::{Deployment, Metrics};
use serde_json::json;

use crate::fake_kusto::{FakeKusto, error, labels, only};

const BODY: &str = ".create-or-alter function Mine() { T }";

fn start() -> Timestamp {
    "2025-01-01T00:00:00Z".parse().unwrap()
}

fn key() -> Key {
    Key::new("default", "x")
}

fn function() -> Function {
    let mut function = Function::new("x", FunctionSpec { database: "DB".to_owned(), body: BODY.to_owned(), ..FunctionSpec::default() });
    function.metadata.namespace = Some("default".to_owned());
    function
}

fn command(scope: &str) -> ManagementCommand {
    let database = if scope == "Database" { "DB".to_owned() } else { String::new() };
    let spec = ManagementCommandSpec { body: ".x".to_owned(), scope: scope.to_owned(), database, ..ManagementCommandSpec::default() };
    let mut command = ManagementCommand::new("x", spec);
    command.metadata.namespace = Some("default".to_owned());
    command
}

/// One deployment and its cluster.
struct Fleet {
    kusto: Arc<FakeKusto>,
    executor: Box<dyn Executor>,
}

/// The deployment `name` in the region `name`, with an endpoint.
fn of_functions(store: &Arc<MemoryStore<Function>>, name: &str, endpoint: &str) -> Fleet {
    let kusto = FakeKusto::new();
    let deployment = Deployment::new(format!("{name}/ingestor"), vec![kusto.target_at("DB", endpoint)]);
    let labels = labels(&json!({"clusterLabels": {"region": name}}));
    Fleet { kusto, executor: only(Functions::of_each_endpoint(store.clone(), &deployment, &labels, &Metrics::default())) }
}

fn of_commands(store: &Arc<MemoryStore<ManagementCommand>>, name: &str, endpoint: &str) -> Fleet {
    let kusto = FakeKusto::new();
    let deployment = Deployment::new(format!("{name}/ingestor"), vec![kusto.target_at("DB", endpoint)]);
    let labels = labels(&json!({"clusterLabels": {"region": name}}));
    Fleet { kusto, executor: only(ManagementCommands::of_each_endpoint(store.clone(), &deployment, &labels, &Metrics::default())) }
}

fn two_of_functions(store: &Arc<MemoryStore<Function>>) -> [Fleet; 2] {
    [of_functions(store, "one", "https://one"), of_functions(store, "two", "https://two")]
}

fn two_of_commands(store: &Arc<MemoryStore<ManagementCommand>>) -> [Fleet; 2] {
    [of_commands(store, "one", "https://one"), of_commands(store, "two", "https://two")]
}

/// Ten passes of each in turn, an hour long. After the second all is at rest: nothing is written any more. Returns what the
/// clusters were told.
async fn settle<K: Object>(fleets: &mut [Fleet], store: &Arc<MemoryStore<K>>) -> Vec<Vec<String>> {
    let mut written = Vec::new();
    for pass in 0..10 {
        for fleet in fleets.iter_mut() {
            fleet.executor.pass(start() + Duration::from_secs(360 * pass), &Leader::always()).await;
        }
        let version = store.objects().get(&key()).map(|object| object.meta().resource_version.clone());
        written.push((store.status_writes(), version));
    }
    assert!(written[1..].iter().all(|after| *after == written[1]), "it does not rest: {written:?}");
    fleets.iter().map(|fleet| fleet.kusto.commands()).collect()
}

fn get(store: &Arc<MemoryStore<Function>>) -> (Arc<Function>, FunctionStatus) {
    let function = store.objects().get(&key()).unwrap();
    let status = function.status.clone().unwrap_or_default();
    (function, status)
}

fn condition(all: &[Condition], type_: &str) -> (String, String) {
    let condition = conditions::get(all, type_).unwrap();
    (condition.status.clone(), condition.message.clone())
}

fn reconciled(status: &FunctionStatus) -> (String, String) {
    condition(&status.conditions, "function.adx-mon.azure.com/Reconciled")
}

fn places(entries: &[TargetStatus]) -> Vec<(&str, State)> {
    entries.iter().map(|entry| (entry.endpoint.as_str(), entry.status)).collect()
}

fn applied(body: &str) -> Vec<String> {
    vec![format!(".execute database script with (ThrowOnErrors=true) <| {body}")]
}

#[tokio::test]
async fn a_function_is_applied_once_by_each_and_then_all_rests() {
    let store = Arc::new(MemoryStore::new([function()]));
    let mut fleets = two_of_functions(&store);
    assert_eq!(settle(&mut fleets, &store).await, [applied(BODY), applied(BODY)]);
    let (function, status) = get(&store);
    assert_eq!((function.spec.applied_endpoint.as_str(), function.metadata.generation), ("https://one", Some(2)));
    assert_eq!(places(&status.databases), [("https://one", State::Success), ("https://two", State::Success)]);
    assert_eq!((status.status, status.observed_generation), (State::Success, 2));
    assert_eq!(reconciled(&status).1, "Function created at https://one, https://two");

    let edited = ".create-or-alter function Mine() { U }";
    store.update(&key(), &|function| edited.clone_into(&mut function.spec.body)).await.unwrap();
    // Whoever is first.
    fleets.reverse();
    assert_eq!(settle(&mut fleets, &store).await, [applied(edited), applied(edited)]);
    let (function, status) = get(&store);
    assert_eq!((function.spec.applied_endpoint.as_str(), function.metadata.generation), ("https://one", Some(3)));
    assert_eq!((status.status, status.observed_generation), (State::Success, 3));
}

#[tokio::test]
async fn what_one_cluster_refuses_the_other_gets() {
    let store = Arc::new(MemoryStore::new([function()]));
    let mut fleets = two_of_functions(&store);
    fleets[0].kusto.answers(|_, _| Err(error(Kind::Permanent, Some(400), "Syntax error: SYN0002")));
    assert_eq!(settle(&mut fleets, &store).await, [applied(BODY), applied(BODY)]);
    let (_, status) = get(&store);
    assert_eq!(places(&status.databases), [("https://one", State::PermanentFailure), ("https://two", State::Success)]);
    assert_eq!(status.status, State::PermanentFailure);
    assert_eq!(reconciled(&status), ("False".to_owned(), "running a command in DB: Syntax error: SYN0002".to_owned()));
}

#[tokio::test]
async fn a_deleted_function_is_dropped_by_each() {
    for first in [0, 1] {
        let store = Arc::new(MemoryStore::new([function()]));
        let mut fleets = two_of_functions(&store);
        settle(&mut fleets, &store).await;
        store.delete(&key());
        let now = get(&store).0.metadata.deletion_timestamp.clone().unwrap().0;
        let dropped = [".drop function ['Mine'] ifexists"];
        fleets[first].executor.pass(now, &Leader::always()).await;
        assert_eq!(fleets[first].kusto.commands(), dropped);
        assert_eq!(get(&store).1.databases.len(), 1, "the other's stays on record");
        fleets[1 - first].executor.pass(now, &Leader::always()).await;
        assert_eq!(fleets[1 - first].kusto.commands(), dropped);
        assert!(store.objects().get(&key()).is_none());
    }
}

#[tokio::test]
async fn a_deployment_that_is_no_more_holds_a_deleted_function_for_ten_minutes() {
    let store = Arc::new(MemoryStore::new([function()]));
    let mut fleets = two_of_functions(&store);
    settle(&mut fleets, &store).await;
    store.delete(&key());
    let now = get(&store).0.metadata.deletion_timestamp.clone().unwrap().0;
    let again = fleets[0].executor.pass(now, &Leader::always()).await;
    assert_eq!(again, Some(now + Duration::from_secs(600)));
    assert!(store.objects().get(&key()).is_some());
    fleets[0].executor.pass(again.unwrap(), &Leader::always()).await;
    assert!(store.objects().get(&key()).is_none());
    let (_, event) = store.events().pop().unwrap();
    assert_eq!(event.note, "what it created stays in DB of https://two: it could not be dropped there within ten minutes");
}

#[tokio::test]
async fn a_function_for_one_of_two_clusters_says_that_it_is_there() {
    for reversed in [false, true] {
        let mut object = function();
        object.spec.criteria_expression = "region == 'one'".to_owned();
        let store = Arc::new(MemoryStore::new([object]));
        let mut fleets = two_of_functions(&store);
        if reversed {
            fleets.reverse();
        }
        let mut told = settle(&mut fleets, &store).await;
        if reversed {
            told.reverse();
        }
        assert_eq!(told, [applied(BODY), vec![]]);
        let (function, status) = get(&store);
        assert_eq!((status.status, reconciled(&status).0.as_str()), (State::Success, "True"));
        assert_eq!(condition(&status.conditions, "function.adx-mon.azure.com/CriteriaMatch").0, "True");
        assert_eq!(function.metadata.finalizers, Some(vec![FINALIZER.to_owned()]));
    }
}

#[tokio::test]
async fn what_is_for_neither_is_said_once() {
    let mut object = function();
    object.spec.criteria_expression = "region == 'three'".to_owned();
    let store = Arc::new(MemoryStore::new([object]));
    assert_eq!(settle(&mut two_of_functions(&store), &store).await, [vec![""; 0], vec![]]);
    assert_eq!(reconciled(&get(&store).1).0, "False");
    let mut object = command("Database");
    object.spec.criteria_expression = "region == 'three'".to_owned();
    let store = Arc::new(MemoryStore::new([object]));
    assert_eq!(settle(&mut two_of_commands(&store), &store).await, [vec![""; 0], vec![]]);
}

/// It was started with the wrong endpoint; what is there is not forgotten, and what failed there is no failure any more.
#[tokio::test]
async fn a_function_follows_an_endpoint_that_changes() {
    for failed in [false, true] {
        let store = Arc::new(MemoryStore::new([function()]));
        let mut old = of_functions(&store, "one", "https://old");
        if failed {
            old.kusto.answers(|_, _| Err(error(Kind::Permanent, Some(400), "no")));
        }
        settle(std::slice::from_mut(&mut old), &store).await;
        let new = of_functions(&store, "one", "https://new");
        assert_eq!(settle(&mut [new], &store).await, [applied(BODY)]);
        let (function, status) = get(&store);
        assert_eq!(function.spec.applied_endpoint, "https://new");
        assert_eq!(reconciled(&status), ("True".to_owned(), "Function created at https://new".to_owned()));
        // Whether Kusto has made it nobody knows.
        let there: Vec<_> = status.databases.iter().map(|entry| (entry.endpoint.as_str(), entry.functions.len())).collect();
        assert_eq!(there, [("https://old", 1), ("https://new", 1)]);
        // And back, where it is.
        assert_eq!(settle(&mut [old], &store).await, [vec![""; 0]]);
    }
}

#[tokio::test]
async fn a_command_runs_once_on_each_cluster() {
    for (scope, kind) in [("Database", "database"), ("AllDatabases", "database"), ("Cluster", "cluster")] {
        let store = Arc::new(MemoryStore::new([command(scope)]));
        let mut fleets = two_of_commands(&store);
        let run = |body| vec![format!(".execute {kind} script with (ThrowOnErrors = true) <|{body}")];
        assert_eq!(settle(&mut fleets, &store).await, [run(".x"), run(".x")], "{scope}");
        let status = store.objects().get(&key()).unwrap().status.clone().unwrap();
        assert_eq!(places(&status.targets), [("https://one", State::Success), ("https://two", State::Success)]);
        assert_eq!(condition(&status.conditions, "managementcommand.adx-mon.azure.com").0, "True");
        store.update(&key(), &|command| command.spec.body = ".y".to_owned()).await.unwrap();
        assert_eq!(settle(&mut fleets, &store).await, [run(".y"), run(".y")], "{scope}");
    }
}

#[tokio::test]
async fn a_command_that_fails_on_one_cluster_is_not_said_to_be_done() {
    let store = Arc::new(MemoryStore::new([command("Database")]));
    let mut fleets = two_of_commands(&store);
    fleets[0].kusto.answers(|_, _| Err(error(Kind::Permanent, Some(400), "no")));
    let mut again = None;
    for fleet in &mut fleets {
        again = again.or(fleet.executor.pass(start(), &Leader::always()).await);
    }
    let owner =
        || condition(&store.objects().get(&key()).unwrap().status.clone().unwrap().conditions, "managementcommand.adx-mon.azure.com");
    assert_eq!(owner(), ("False".to_owned(), "running a command in DB: no".to_owned()));
    fleets[0].kusto.answers(|_, _| Ok(()));
    fleets[0].executor.pass(again.unwrap(), &Leader::always()).await;
    assert_eq!(owner().0, "True");
    assert_eq!(fleets.map(|fleet| fleet.kusto.commands().len()), [2, 1]);
}

#[tokio::test]
async fn a_command_for_one_of_two_clusters_runs_there_and_says_so() {
    for reversed in [false, true] {
        let mut object = command("Database");
        object.spec.criteria_expression = "region == 'one'".to_owned();
        let store = Arc::new(MemoryStore::new([object]));
        let mut fleets = two_of_commands(&store);
        if reversed {
            fleets.reverse();
        }
        let told = settle(&mut fleets, &store).await;
        assert_eq!(told.iter().map(Vec::len).collect::<Vec<_>>(), if reversed { [0, 1] } else { [1, 0] });
        let status = store.objects().get(&key()).unwrap().status.clone().unwrap();
        assert!(status.conditions.iter().all(|condition| condition.status == "True"), "{status:?}");
    }
}

#[tokio::test]
async fn a_command_runs_at_an_endpoint_that_its_deployment_is_given_later() {
    for failed in [false, true] {
        let store = Arc::new(MemoryStore::new([command("Database")]));
        let mut old = of_commands(&store, "one", "https://old");
        if failed {
            old.kusto.answers(|_, _| Err(error(Kind::Permanent, Some(400), "no such host")));
        }
        old.executor.pass(start(), &Leader::always()).await;
        let new = of_commands(&store, "one", "https://new");
        assert_eq!(settle(&mut [new], &store).await[0].len(), 1);
        let status = store.objects().get(&key()).unwrap().status.clone().unwrap();
        assert_eq!(condition(&status.conditions, "managementcommand.adx-mon.azure.com").0, "True");
        // And back: it has run there at this generation, if it has.
        old.kusto.said();
        old.kusto.answers(|_, _| Ok(()));
        assert_eq!(settle(&mut [old], &store).await[0].len(), usize::from(failed));
    }
}
