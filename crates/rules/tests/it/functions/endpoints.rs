//! Functions at two endpoints, of which one may hang.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crds::{Condition, Function, FunctionSpec, State, conditions};
use kusto::Kind;
use rules::function::{FINALIZER, Functions};
use rules::store::Store;
use rules::store::memory::MemoryStore;
use rules::target::{Deployment, Metrics};
use serde_json::Value;

use super::removal::dropped;
use super::{function, key, start};
use crate::fake_kusto::{FakeKusto, error, labels};
use crate::support::{Running, until};

fn everywhere(name: &str) -> Function {
    let body = format!(".create-or-alter function {name}() {{ T }}");
    function(name, FunctionSpec { all_databases: true, body, ..FunctionSpec::default() })
}

/// A cluster that takes commands and does not answer them, one that works, and functions for both.
struct TwoClusters {
    sick: Arc<FakeKusto>,
    well: Arc<FakeKusto>,
    store: Arc<MemoryStore<Function>>,
    running: Running,
}

impl TwoClusters {
    fn start(objects: Vec<Function>, sick_is_first: bool) -> Self {
        let (sick, well) = (FakeKusto::new(), FakeKusto::new());
        let store = Arc::new(MemoryStore::new(objects));
        let mut targets = vec![sick.target_at("Sick", "https://sick"), well.target_at("Well", "https://well")];
        if !sick_is_first {
            targets.reverse();
        }
        let executors =
            Functions::of_each_endpoint(store.clone(), &Deployment::new("ns/one", targets), &labels(&Value::Null), &Metrics::default());
        let running = Running::start(executors, start());
        Self { sick, well, store, running }
    }

    async fn until(&self, name: &str, wanted: impl Fn(Option<&Function>) -> bool) -> Option<Arc<Function>> {
        until(&mut self.store.objects(), |map| wanted(map.get(&key(name)).map(|function| &**function))).await;
        self.store.objects().get(&key(name))
    }

    async fn until_applied(&self, name: &str) {
        let applied = |function: Option<&Function>| {
            let Some(function) = function else { return false };
            let status = function.status.clone().unwrap_or_default();
            status.status == State::Success && Some(status.observed_generation) == function.metadata.generation
        };
        self.until(name, applied).await;
    }
}

fn reconciled(function: Option<&Function>) -> Option<Condition> {
    let status = function?.status.as_ref()?;
    conditions::get(&status.conditions, "function.adx-mon.azure.com/Reconciled").cloned()
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_hangs_holds_up_no_other() {
    for sick_is_first in [true, false] {
        let mut other = everywhere("b");
        (other.spec.all_databases, other.spec.database) = (false, "Well".to_owned());
        let clusters = TwoClusters::start(vec![everywhere("a"), other], sick_is_first);
        clusters.sick.hang(true);
        clusters.until_applied("b").await;
        // Not decided, and the status says what it waits for, and since when.
        let waits = |function: Option<&Function>| {
            let of_sick = |function: &Function| function.status.clone()?.databases.iter().find(|entry| entry.target == "Sick").cloned();
            function.and_then(of_sick).is_some_and(|entry| entry.started.is_some())
        };
        let waiting = clusters.until("a", waits).await.unwrap();
        let condition = reconciled(Some(&waiting)).unwrap();
        assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("Unknown", "KustoExecutionPending"));
        assert_eq!(condition.message, "waiting for Sick of https://sick");
        let status = waiting.status.clone().unwrap();
        assert_eq!((status.observed_generation, status.message.as_str()), (0, "waiting for Sick of https://sick"));
        let entry = |name: &str| status.databases.iter().find(|entry| entry.target == name).unwrap();
        assert_eq!((entry("Well").status, entry("Sick").status), (State::Success, State::Failed));
        assert_eq!(entry("Sick").message, "no answer from https://sick since 2025-01-01T00:00:00Z");

        clusters.sick.hang(false);
        clusters.until_applied("a").await;
        let condition = reconciled(clusters.store.objects().get(&key("a")).as_deref()).unwrap();
        assert_eq!(condition.message, "Function created at https://sick, https://well");
        // Nothing is repeated because another endpoint was done earlier or later.
        clusters.running.end().await;
        assert_eq!((clusters.sick.commands().len(), clusters.well.commands().len()), (1, 2), "{sick_is_first}");
    }
}

/// In their order all the same, also while one hangs: what is new, what is edited, and what is to be tried again.
#[tokio::test(start_paused = true)]
async fn a_function_that_hangs_holds_up_no_other_of_its_endpoint() {
    let (kusto, names) = (FakeKusto::new(), ["a", "b", "c"]);
    kusto.hang_on("b()");
    let store = Arc::new(MemoryStore::new(names.map(everywhere)));
    let deployment = Deployment::new("ns/one", vec![kusto.target("DB")]);
    let executors = Functions::of_each_endpoint(store.clone(), &deployment, &labels(&Value::Null), &Metrics::default());
    let running = Running::start(executors, start());
    let applied = async |name: &str, generation: i64| {
        let is = |function: &Function| {
            function.status.as_ref().is_some_and(|status| status.status == State::Success && status.observed_generation >= generation)
        };
        until(&mut store.objects(), |map| map.get(&key(name)).is_some_and(|function| is(function))).await;
    };
    applied("c", 1).await;
    let hangs = store.objects().get(&key("b"));
    assert_eq!(reconciled(hangs.as_deref()).unwrap().reason, "KustoExecutionPending");
    let declared = |commands: Vec<String>| {
        let names = commands.into_iter().map(|command| command.split("function ").nth(1).unwrap()[..1].to_owned());
        names.collect::<Vec<_>>()
    };
    assert_eq!(declared(kusto.commands()), names);

    let edit = |function: &mut Function| function.spec.body.push_str("\n// edited");
    store.update(&key("a"), &edit).await.unwrap();
    let generation = store.objects().get(&key("a")).unwrap().metadata.generation.unwrap();
    applied("a", generation).await;
    let fails = AtomicBool::new(true);
    kusto.answers(move |_, _| if fails.swap(false, Ordering::Relaxed) { Err(error(Kind::Transient, None, "away")) } else { Ok(()) });
    store.apply(everywhere("d"));
    applied("d", 1).await;
    assert_eq!(declared(kusto.commands()), ["a", "d", "d"]);
    assert_eq!(reconciled(store.objects().get(&key("b")).as_deref()).unwrap().reason, "KustoExecutionPending");

    kusto.hang(false);
    applied("b", 1).await;
    running.end().await;
    assert_eq!(kusto.commands(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_hangs_keeps_a_deleted_function_until_it_is_dropped_there() {
    let clusters = TwoClusters::start(vec![everywhere("a")], true);
    clusters.until_applied("a").await;
    clusters.sick.said();
    clusters.well.said();
    clusters.sick.hang(true);
    clusters.store.delete(&key("a"));
    let left = clusters.until("a", |function| function.and_then(|f| f.status.as_ref()).is_some_and(|s| s.databases.len() == 1)).await;
    assert_eq!(left.unwrap().status.clone().unwrap().databases[0].target, "Sick");
    clusters.sick.hang(false);
    clusters.until("a", |function| function.is_none()).await;
    clusters.running.end().await;
    let drop = |database: &str| [format!("{database}: .drop function ['a'] ifexists")];
    assert_eq!((dropped(&clusters.sick), dropped(&clusters.well)), (drop("Sick").to_vec(), drop("Well").to_vec()));
}

#[tokio::test(start_paused = true)]
async fn a_function_stays_where_it_was_until_the_endpoint_it_moves_to_has_it() {
    let mut moving = everywhere("a");
    (moving.spec.all_databases, moving.spec.database) = (false, "Well".to_owned());
    let clusters = TwoClusters::start(vec![moving], true);
    clusters.until_applied("a").await;
    clusters.well.said();
    clusters.sick.hang(true);
    clusters.store.update(&key("a"), &|function| function.spec.database = "Sick".to_owned()).await.unwrap();
    clusters.until("a", |function| reconciled(function).is_some_and(|c| c.reason == "KustoExecutionPending")).await;
    assert_eq!(dropped(&clusters.well), [""; 0]);
    clusters.sick.hang(false);
    clusters.until("a", |function| function.and_then(|f| f.status.as_ref()).is_some_and(|s| s.databases.len() == 1)).await;
    assert_eq!(dropped(&clusters.well), ["Well: .drop function ['a'] ifexists"]);
}

/// Older versions keep no record of what is where.
#[tokio::test]
async fn what_an_older_version_has_created_is_dropped_in_every_database() {
    let mut old = everywhere("a");
    old.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
    old.metadata.generation = Some(1);
    old.status = Some(crds::FunctionStatus { status: State::Success, observed_generation: 1, ..Default::default() });
    old.metadata.deletion_timestamp = Some(crds::Time(start()));
    let clusters = TwoClusters::start(vec![old], true);
    clusters.until("a", |function| function.is_none()).await;
    clusters.running.end().await;
    assert_eq!((dropped(&clusters.sick).len(), dropped(&clusters.well).len()), (1, 1));
}
