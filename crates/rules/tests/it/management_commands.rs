//! ManagementCommands: the vectors, and what the reference does wrong.

use std::sync::Arc;
use std::time::Duration;

use crds::criteria::Labels;
use crds::{ManagementCommand, ManagementCommandSpec, State};
use jiff::Timestamp;
use kusto::Kind;
use rules::lease::Leader;
use rules::management_command::ManagementCommands;
use rules::runner::Executor;
use rules::store::memory::MemoryStore;
use rules::store::{Key, Severity, Store};
use rules::target::{Deployment, Metrics, Target};
use serde_json::{Value, json};

use crate::fake_kusto::{FakeKusto, cases, error, labels, only, without_cel};
use crate::support::{FailingStore, LateStore, Running, until};

fn start() -> Timestamp {
    "2025-01-01T00:00:00Z".parse().unwrap()
}

fn key() -> Key {
    Key::new("default", "c")
}

fn command(spec: ManagementCommandSpec) -> ManagementCommand {
    let mut command = ManagementCommand::new("c", spec);
    command.metadata.namespace = Some("default".to_owned());
    command
}

fn scoped(scope: &str) -> ManagementCommand {
    command(ManagementCommandSpec { body: ".x".to_owned(), scope: scope.to_owned(), ..ManagementCommandSpec::default() })
}

fn executor(store: Arc<dyn Store<ManagementCommand>>, targets: Vec<Target>, labels: Labels) -> Box<dyn Executor> {
    only(ManagementCommands::of_each_endpoint(store, &Deployment::new("ns/one", targets), &labels, &Metrics::default()))
}

#[tokio::test]
async fn vectors() {
    let all = cases("management_command.json");
    assert_eq!(all.len(), 12);
    for case in &all {
        let name = case["name"].as_str().unwrap();
        let mut object = command(serde_json::from_value(case["spec"].clone()).unwrap());
        object.metadata.generation = case["generation"].as_i64();
        let kusto = FakeKusto::new();
        if case["kusto_error"] == true {
            kusto.answers(|_, _| Err(error(Kind::Permanent, None, "boom")));
        }
        let store = Arc::new(MemoryStore::new([object]));
        let mut commands = executor(store.clone(), vec![kusto.target("DB")], labels(case));
        commands.pass(start(), &Leader::always()).await;
        let expected = &case["expected"];
        assert_eq!(json!(kusto.commands()), expected["statements_first_run"], "{name}");
        // A run of the reference: ten minutes later.
        commands.pass(start() + Duration::from_secs(600), &Leader::always()).await;
        assert_eq!(json!(kusto.commands()), expected["statements_second_run"], "{name}");
        let conditions = store.objects().get(&key()).unwrap().status.clone().unwrap_or_default().conditions;
        let (criteria, owner): (Vec<_>, Vec<_>) = conditions.iter().partition(|condition| condition.type_.ends_with("/CriteriaMatch"));
        // Defect of the reference: criteria that do not match leave no trace.
        if name == "criteria false" {
            assert_eq!((criteria[0].status.as_str(), criteria[0].reason.as_str()), ("False", "CriteriaNotMatched"));
        }
        let theirs = expected["conditions"].as_array().unwrap();
        assert_eq!(owner.len(), theirs.len(), "{name}");
        for (ours, theirs) in owner.iter().zip(theirs) {
            let ours_of = (json!(ours.type_), json!(ours.status), json!(ours.reason), json!(ours.observed_generation));
            let theirs_of = ["type", "status", "reason", "observedGeneration"].map(|field| theirs[field].clone());
            assert_eq!(ours_of, theirs_of.into(), "{name}");
            let message = without_cel(theirs["message"].as_str().unwrap());
            let same = without_cel(&ours.message) == message || !message.is_empty() && ours.message.ends_with(message);
            assert!(same, "{name}: {}", ours.message);
        }
    }
}

#[tokio::test]
async fn all_databases_means_each_once() {
    let kusto = FakeKusto::new();
    kusto.answers(|database, _| if database == "B" { Err(error(Kind::Transient, Some(429), "busy")) } else { Ok(()) });
    let store = Arc::new(MemoryStore::new([scoped("AllDatabases")]));
    let targets = ["A", "B", "C"].map(|database| kusto.target(database)).to_vec();
    let mut commands = executor(store.clone(), targets, labels(&Value::Null));
    let next = commands.pass(start(), &Leader::always()).await.unwrap();
    let status = || store.objects().get(&key()).unwrap().status.clone().unwrap();
    let states: Vec<_> = status().targets.iter().map(|entry| (entry.target.clone(), entry.status)).collect();
    assert_eq!(states, [("A".to_owned(), State::Success), ("B".to_owned(), State::Failed), ("C".to_owned(), State::Success)]);
    assert_eq!(status().conditions[0].reason, "Failed");
    kusto.answers(|_, _| Ok(()));
    kusto.said();
    assert_eq!(commands.pass(next, &Leader::always()).await, None);
    assert_eq!(kusto.said().iter().map(|(database, _)| database.as_str()).collect::<Vec<_>>(), ["B"]);
    assert_eq!(status().conditions[0].reason, "Created");
    assert_eq!(commands.pass(next, &Leader::always()).await, None);
    assert_eq!(kusto.said(), []);
}

#[tokio::test]
async fn a_cluster_means_once_for_each_cluster() {
    let (kusto, other) = (FakeKusto::new(), FakeKusto::new());
    let store = Arc::new(MemoryStore::new([scoped("Cluster")]));
    let targets = vec![kusto.target("A"), kusto.target("B"), other.target_at("Logs", "https://other")];
    for mut commands in
        ManagementCommands::of_each_endpoint(store.clone(), &Deployment::new("ns/one", targets), &labels(&Value::Null), &Metrics::default())
    {
        commands.pass(start(), &Leader::always()).await;
    }
    assert_eq!((kusto.said().len(), other.said().len()), (1, 1));
    let targets = store.objects().get(&key()).unwrap().status.clone().unwrap().targets;
    assert_eq!(targets.iter().map(|entry| entry.target.as_str()).collect::<Vec<_>>(), ["https://c", "https://other"]);
}

#[tokio::test]
async fn an_edit_runs_it_again() {
    let kusto = FakeKusto::new();
    let store = Arc::new(MemoryStore::new([scoped("Cluster")]));
    let mut commands = executor(store.clone(), vec![kusto.target("A")], labels(&Value::Null));
    commands.pass(start(), &Leader::always()).await;
    store.update(&key(), &|command| command.spec.body = ".y".to_owned()).await.unwrap();
    commands.pass(start(), &Leader::always()).await;
    let run = |body| format!(".execute cluster script with (ThrowOnErrors = true) <|{body}");
    assert_eq!(kusto.commands(), [run(".x"), run(".y")]);
}

fn run_of(body: &str) -> String {
    format!(".execute cluster script with (ThrowOnErrors = true) <|{body}")
}

fn minutes(count: u64) -> Timestamp {
    start() + Duration::from_secs(60 * count)
}

/// Runs what is due for an hour.
async fn an_hour(commands: &mut Box<dyn Executor>, from: Timestamp) -> Timestamp {
    let (mut now, end) = (from, from + Duration::from_secs(3600));
    let mut passes = 0;
    while now < end {
        now = commands.pass(now, &Leader::always()).await.unwrap_or(end);
        passes += 1;
    }
    assert!(passes > 1, "it comes back");
    now
}

#[tokio::test]
async fn a_command_runs_once_though_its_outcome_cannot_be_written_for_an_hour() {
    let kusto = FakeKusto::new();
    let store = Arc::new(FailingStore::new([scoped("Cluster")]));
    let mut commands = executor(store.clone(), vec![kusto.target("A")], labels(&Value::Null));
    // The server goes away while Kusto runs the command.
    let away = store.clone();
    kusto.answers(move |_, _| {
        away.fail(true);
        Ok(())
    });
    let now = an_hour(&mut commands, start()).await;
    assert_eq!(kusto.commands(), [run_of(".x")]);
    let status = || store.objects().get(&key()).unwrap().status.clone().unwrap();
    assert!(status().targets[0].started.is_some() && status().targets[0].status == State::Failed, "{:?}", status());
    store.fail(false);
    assert_eq!(commands.pass(now, &Leader::always()).await, None);
    assert_eq!((status().targets[0].status, &status().targets[0].started), (State::Success, &None));
    assert_eq!(status().conditions[0].reason, "Created");
    assert_eq!(kusto.commands(), [""; 0]);
}

#[tokio::test]
async fn a_command_is_not_run_before_its_status_can_be_written() {
    let kusto = FakeKusto::new();
    let store = Arc::new(FailingStore::new([scoped("Cluster")]));
    let mut commands = executor(store.clone(), vec![kusto.target("A")], labels(&Value::Null));
    store.fail(true);
    let now = an_hour(&mut commands, start()).await;
    assert_eq!(kusto.commands(), [""; 0]);
    store.fail(false);
    commands.pass(now, &Leader::always()).await;
    commands.pass(now, &Leader::always()).await;
    assert_eq!(kusto.commands(), [run_of(".x")]);
}

#[tokio::test]
async fn a_run_whose_process_was_killed_is_told_of_and_not_repeated() {
    let (kusto, store) = (FakeKusto::new(), Arc::new(FailingStore::new([scoped("Cluster")])));
    let process = || executor(store.clone(), vec![kusto.target("A")], labels(&Value::Null));
    let away = store.clone();
    kusto.answers(move |_, _| {
        away.fail(true);
        Ok(())
    });
    process().pass(start(), &Leader::always()).await;
    store.fail(false);
    kusto.said();
    let mut next = process();
    // It may still run.
    assert_eq!(next.pass(minutes(1), &Leader::always()).await, Some(minutes(11)));
    assert!(store.inner.events().is_empty());
    assert_eq!(next.pass(minutes(11), &Leader::always()).await, None);
    next.pass(minutes(12), &Leader::always()).await;
    assert_eq!(kusto.commands(), [""; 0]);
    let status = store.objects().get(&key()).unwrap().status.clone().unwrap();
    assert_eq!((status.conditions[0].status.as_str(), status.conditions[0].reason.as_str()), ("False", "OutcomeUnknown"));
    assert_eq!(store.inner.events().len(), 1);

    kusto.answers(|_, _| Ok(()));
    store.update(&key(), &|command| command.spec.body = ".y".to_owned()).await.unwrap();
    next.pass(minutes(13), &Leader::always()).await;
    assert_eq!(kusto.commands(), [run_of(".y")]);
    assert_eq!(store.objects().get(&key()).unwrap().status.clone().unwrap().conditions[0].reason, "Created");
}

#[tokio::test]
async fn a_body_of_a_megabyte_is_run() {
    let kusto = FakeKusto::new();
    let mut big = scoped("Cluster");
    big.spec.body = format!(".x {}", "x".repeat(1 << 20));
    let store = Arc::new(MemoryStore::new([big]));
    let mut commands = executor(store.clone(), vec![kusto.target("A")], labels(&Value::Null));
    commands.pass(start(), &Leader::always()).await;
    assert!(kusto.commands()[0].len() > 1 << 20);
    assert_eq!(store.objects().get(&key()).unwrap().status.clone().unwrap().conditions[0].reason, "Created");
}

#[tokio::test]
async fn a_bad_command_says_where_and_others_run() {
    let kusto = FakeKusto::new();
    kusto.answers(|_, command| {
        let position = Some(kusto::Position { line: 1, column: 7 });
        let bad = kusto::Error { position, ..error(Kind::Permanent, Some(400), "Syntax error: SYN0002") };
        if command.ends_with(".bad") { Err(bad) } else { Ok(()) }
    });
    let mut bad = scoped("Cluster");
    bad.spec.body = ".bad".to_owned();
    let mut good = scoped("Cluster");
    good.metadata.name = Some("d".to_owned());
    let store = Arc::new(MemoryStore::new([bad, good]));
    let mut commands = executor(store.clone(), vec![kusto.target("A")], labels(&Value::Null));
    commands.pass(start(), &Leader::always()).await;
    let owner = |name: &str| store.objects().get(&Key::new("default", name)).unwrap().status.clone().unwrap().conditions[0].clone();
    assert_eq!(owner("c").message, "running a command in DB: Syntax error: SYN0002 [line:position=1:7]");
    assert_eq!(owner("d").reason, "Created");
}

/// Whoever leads next may not have heard of the run yet: the record decides, not what its watch shows.
#[tokio::test]
async fn a_leader_whose_watch_is_late_repeats_no_command() {
    for outcome_is_written in [true, false] {
        let (kusto, store) = (FakeKusto::new(), Arc::new(MemoryStore::new([scoped("Cluster")])));
        let late = Arc::new(LateStore::of(&store));
        let mut next = executor(late, vec![kusto.target("A")], labels(&Value::Null));
        if outcome_is_written {
            let mut first = executor(store.clone(), vec![kusto.target("A")], labels(&Value::Null));
            first.pass(start(), &Leader::always()).await;
        } else {
            let began = json!([{"target": "https://c", "endpoint": "https://c", "status": "Failed", "observedGeneration": 1, "message": "run 1 has begun",
                "started": "2025-01-01T00:00:00Z"}]);
            let began: Vec<crds::TargetStatus> = serde_json::from_value(began).unwrap();
            store.update_status(&key(), &|command| command.status.get_or_insert_default().targets.clone_from(&began)).await.unwrap();
        }
        let (ran, before) = (kusto.said().len(), store.objects().get(&key()).unwrap());
        assert_eq!(ran, usize::from(outcome_is_written));
        assert!(next.pass(start(), &Leader::always()).await.is_some(), "it looks again");
        assert_eq!(kusto.said(), []);
        assert_eq!(store.objects().get(&key()).unwrap().status, before.status);
    }
}

/// Whatever the order, an endpoint that hangs holds up no other, and a restart repeats nothing anywhere.
#[tokio::test(start_paused = true)]
async fn an_endpoint_that_hangs_holds_up_no_other() {
    let (sick, well) = (FakeKusto::new(), FakeKusto::new());
    sick.hang(true);
    let mut other = scoped("Database");
    (other.metadata.name, other.spec.database) = (Some("d".to_owned()), "Well".to_owned());
    let store = Arc::new(MemoryStore::new([scoped("AllDatabases"), other]));
    let start_all = |now| {
        let targets = vec![sick.target_at("Sick", "https://sick"), well.target_at("Well", "https://well")];
        Running::start(
            ManagementCommands::of_each_endpoint(
                store.clone(),
                &Deployment::new("ns/one", targets),
                &labels(&Value::Null),
                &Metrics::default(),
            ),
            now,
        )
    };
    let owner = |object: &ManagementCommand| object.status.as_ref().and_then(|status| status.conditions.first().cloned());
    // Both have run where all is well, and their conditions say so.
    let reasons = async |wanted: [&str; 2]| {
        let is = |object: &ManagementCommand, reason: &str| {
            let there = object.status.iter().flat_map(|status| &status.targets).find(|entry| entry.target == "Well");
            there.is_some_and(|entry| entry.status == State::Success) && owner(object).is_some_and(|condition| condition.reason == reason)
        };
        until(&mut store.objects(), |map| map.values().zip(wanted).all(|(object, reason)| is(object, reason))).await;
    };
    let running = start_all(start());
    reasons(["Pending", "Created"]).await;
    let object = store.objects().get(&key()).unwrap();
    let condition = owner(&object).unwrap();
    assert_eq!((condition.status.as_str(), condition.message.as_str()), ("Unknown", "waiting for Sick of https://sick"));
    let targets = object.status.clone().unwrap().targets;
    let of_sick = targets.iter().find(|entry| entry.target == "Sick").unwrap();
    assert!(of_sick.started.is_some() && of_sick.message.ends_with("has begun; its outcome is not known yet"), "{of_sick:?}");
    running.end().await;

    // Nobody hears any more how it ends.
    sick.hang(false);
    let running = start_all(minutes(1));
    assert_eq!(running.clock.next_deadline().await, minutes(11));
    running.clock.set(minutes(11));
    reasons(["OutcomeUnknown", "Created"]).await;
    running.end().await;
    assert_eq!((sick.said().len(), well.said().len()), (1, 2));
    assert_eq!(store.events().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_command_that_hangs_holds_up_no_other_of_its_endpoint() {
    let kusto = FakeKusto::new();
    kusto.hang_on("Hangs");
    let command = |name: &str, body: &str| {
        let mut command = scoped("AllDatabases");
        (command.metadata.name, command.spec.body) = (Some(name.to_owned()), body.to_owned());
        command
    };
    let store = Arc::new(MemoryStore::new([command("a", ".alter table Hangs policy caching hot = 1d"), command("b", ".show tables")]));
    let deployment = Deployment::new("ns/one", vec![kusto.target("DB")]);
    let executors = ManagementCommands::of_each_endpoint(store.clone(), &deployment, &labels(&Value::Null), &Metrics::default());
    let running = Running::start(executors, start());
    let reasons = async |wanted: &[&str]| {
        let reason = |object: &ManagementCommand| Some(object.status.as_ref()?.conditions.first()?.reason.clone());
        until(&mut store.objects(), |map| {
            map.values().map(|object| reason(object)).eq(wanted.iter().map(|reason| Some((*reason).to_owned())))
        })
        .await;
    };
    reasons(&["Pending", "Created"]).await;
    // What comes meanwhile is run too.
    store.apply(command("c", ".show table T"));
    reasons(&["Pending", "Created", "Created"]).await;
    kusto.hang(false);
    reasons(&["Created"; 3]).await;
    running.end().await;
    assert_eq!(kusto.said().len(), 3, "each once");
}

/// One endpoint's failures, over and over, neither hide nor repeat that another's outcome is unknown.
#[tokio::test]
async fn an_unknown_outcome_stands_while_another_endpoint_fails() {
    let (killed, failing) = (FakeKusto::new(), FakeKusto::new());
    let mut object = scoped("AllDatabases");
    let began = json!({"targets": [{"target": "Killed", "endpoint": "https://killed", "status": "Failed", "observedGeneration": 1,
        "message": "run 1 has begun", "started": "2025-01-01T00:00:00Z"}]});
    object.status = serde_json::from_value(began).unwrap();
    let store = Arc::new(MemoryStore::new([object]));
    failing.answers(|_, _| Err(error(Kind::Transient, Some(503), "busy")));
    let targets = vec![killed.target_at("Killed", "https://killed"), failing.target_at("Failing", "https://failing")];
    let mut executors = ManagementCommands::of_each_endpoint(
        store.clone(),
        &Deployment::new("ns/one", targets),
        &labels(&Value::Null),
        &Metrics::default(),
    );
    for minute in 12..60 {
        for commands in &mut executors {
            commands.pass(minutes(minute), &Leader::always()).await;
        }
    }
    let owner = store.objects().get(&key()).unwrap().status.clone().unwrap().conditions[0].clone();
    assert_eq!(owner.reason, "OutcomeUnknown");
    assert!(owner.message.starts_with("Killed: begun at 2025-01-01T00:00:00Z by a process that ended"), "{}", owner.message);
    assert!(failing.said().len() > 5 && killed.said().is_empty());
    let told = store.events().iter().filter(|(_, event)| event.reason == "OutcomeUnknown").count();
    assert_eq!(told, 1);
}

/// Scope or criteria, and the reason of the event.
const MISTAKES: [(&str, &str, &str); 3] =
    [("Database", "", "ValidationFailed"), ("Everywhere", "", "ValidationFailed"), ("Cluster", "region ==", "CriteriaExpressionError")];

fn mistaken(scope: &str, expression: &str) -> ManagementCommand {
    let mut command = scoped(scope);
    expression.clone_into(&mut command.spec.criteria_expression);
    command
}

/// Of several endpoints, and of several deployments, one tells; and again of an edited one.
#[tokio::test]
async fn a_mistake_is_told_by_an_event_once_for_each_generation() {
    for (scope, expression, reason) in MISTAKES {
        let kusto = FakeKusto::new();
        let store = Arc::new(MemoryStore::new([mistaken(scope, expression)]));
        let deployment = |name: &str| {
            let targets = vec![kusto.target_at("DB", "https://a"), kusto.target_at("DB", "https://b")];
            let deployment = Deployment::new(format!("{name}/ingestor"), targets);
            ManagementCommands::of_each_endpoint(store.clone(), &deployment, &labels(&Value::Null), &Metrics::default())
        };
        let mut executors: Vec<Box<dyn Executor>> = ["one", "two"].into_iter().flat_map(deployment).collect();
        for generation in 1..=2 {
            for executor in &mut executors {
                assert_eq!(executor.pass(start(), &Leader::always()).await, None);
                assert_eq!(executor.pass(minutes(1), &Leader::always()).await, None);
            }
            let events = store.events();
            assert_eq!(events.len(), generation, "{scope}: {events:?}");
            let event = &events[generation - 1].1;
            let owner = store.objects().get(&key()).unwrap().status.clone().unwrap().conditions;
            let owner = owner.iter().find(|condition| condition.type_ == "managementcommand.adx-mon.azure.com").unwrap();
            assert_eq!((event.reason.as_str(), event.severity), (reason, Severity::Warning), "{scope}");
            assert_eq!(event.note, owner.message, "{scope}");
            store.update(&key(), &|command| command.spec.body = ".y".to_owned()).await.unwrap();
        }
        assert_eq!(kusto.said(), []);
    }
}

#[tokio::test]
async fn a_mistake_that_cannot_be_written_is_written_and_told_later() {
    for (scope, expression, reason) in MISTAKES {
        let store = Arc::new(FailingStore::new([mistaken(scope, expression)]));
        let mut commands = executor(store.clone(), vec![FakeKusto::new().target("A")], labels(&Value::Null));
        store.fail(true);
        let next = commands.pass(start(), &Leader::always()).await.expect("it comes back");
        assert_eq!(store.inner.events(), []);
        store.fail(false);
        assert_eq!(commands.pass(next, &Leader::always()).await, None);
        let told: Vec<String> = store.inner.events().into_iter().map(|(_, event)| event.reason).collect();
        assert_eq!(told, [reason], "{scope}");
    }
    // Those who only do not mean this cluster have no mistake.
    let store = Arc::new(FailingStore::new([mistaken("Cluster", "1 == 2")]));
    let mut commands = executor(store.clone(), vec![FakeKusto::new().target("A")], labels(&Value::Null));
    assert_eq!(commands.pass(start(), &Leader::always()).await, None);
    assert_eq!(store.inner.events(), []);
}
