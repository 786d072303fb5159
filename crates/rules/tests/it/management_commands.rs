//! ManagementCommands: the vectors, and what the reference does wrong.

use std::sync::Arc;
use std::time::Duration;

use crds::{ManagementCommand, ManagementCommandSpec, State};
use jiff::Timestamp;
use kusto::Kind;
use rules::lease::Leader;
use rules::management_command::ManagementCommands;
use rules::runner::Executor as _;
use rules::store::memory::MemoryStore;
use rules::store::{Key, Store as _};
use rules::target::Metrics;
use serde_json::{Value, json};

use crate::fake_kusto::{FakeKusto, cases, error, labels, without_cel};

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
        let mut commands = ManagementCommands::new(store.clone(), vec![kusto.target("DB")], labels(case), Metrics::default());
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
    let mut commands = ManagementCommands::new(store.clone(), targets, labels(&Value::Null), Metrics::default());
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
    let mut elsewhere = other.target("Logs");
    elsewhere.endpoint = "https://other".to_owned();
    let targets = vec![kusto.target("A"), kusto.target("B"), elsewhere];
    let mut commands = ManagementCommands::new(store.clone(), targets, labels(&Value::Null), Metrics::default());
    commands.pass(start(), &Leader::always()).await;
    assert_eq!((kusto.said().len(), other.said().len()), (1, 1));
    let targets = store.objects().get(&key()).unwrap().status.clone().unwrap().targets;
    assert_eq!(targets.iter().map(|entry| entry.target.as_str()).collect::<Vec<_>>(), ["https://c", "https://other"]);
}

#[tokio::test]
async fn an_edit_runs_it_again() {
    let kusto = FakeKusto::new();
    let store = Arc::new(MemoryStore::new([scoped("Cluster")]));
    let mut commands = ManagementCommands::new(store.clone(), vec![kusto.target("A")], labels(&Value::Null), Metrics::default());
    commands.pass(start(), &Leader::always()).await;
    store.update(&key(), &|command| command.spec.body = ".y".to_owned()).await.unwrap();
    commands.pass(start(), &Leader::always()).await;
    let run = |body| format!(".execute cluster script with (ThrowOnErrors = true) <|{body}");
    assert_eq!(kusto.commands(), [run(".x"), run(".y")]);
}
