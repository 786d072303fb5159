//! What a Function has created is dropped, and nothing else.

use std::sync::Arc;
use std::time::Duration;

use crds::{FunctionSpec, State};
use kusto::Kind;
use rules::function::FINALIZER;
use rules::lease::Leader;
use rules::store::Store;
use rules::store::memory::MemoryStore;
use serde_json::{Value, json};

use super::{executor, function, in_database, key, setup, start};
use crate::fake_kusto::{FakeKusto, error, labels};

pub(super) fn dropped(kusto: &FakeKusto) -> Vec<String> {
    let said = kusto.said().into_iter().filter(|(_, command)| command.starts_with(".drop"));
    said.map(|(database, command)| format!("{database}: {command}")).collect()
}

#[tokio::test]
async fn a_deleted_function_is_dropped() {
    let body = ".create-or-alter function Mine() { T }\n\n.create-or-alter function ['my view'] () { T }\n\n.create-or-alter function Shared() { T }";
    let other = in_database("g", ".create-or-alter function Shared() { T }");
    let mut setup = setup(&["DB"], vec![in_database("f", body), other]);
    setup.pass(0).await;
    assert_eq!(setup.get("f").metadata.finalizers, Some(vec![FINALIZER.to_owned()]));
    setup.kusto.said();
    setup.store.delete(&key("f"));
    setup.kusto.answers(|_, _| Err(error(Kind::Transient, Some(503), "busy")));
    assert!(setup.pass(1).await.is_some());
    assert!(setup.store.objects().get(&key("f")).is_some(), "not before it is dropped");
    setup.kusto.answers(|_, _| Ok(()));
    setup.kusto.said();
    setup.pass(60).await;
    assert_eq!(setup.kusto.commands(), [".drop function ['Mine'] ifexists", ".drop function ['my view'] ifexists"]);
    assert!(setup.store.objects().get(&key("f")).is_none());
}

#[tokio::test]
async fn a_drop_that_cannot_be_done_does_not_hold_the_object_for_ever() {
    let mut setup = setup(&["DB"], vec![in_database("f", ".create-or-alter function Mine() { T }")]);
    setup.pass(0).await;
    setup.store.delete(&key("f"));
    setup.kusto.answers(|_, _| Err(error(Kind::Transient, None, "connection refused")));
    let deleted = setup.get("f").metadata.deletion_timestamp.clone().unwrap().0;
    let after = |minutes: i64| deleted + jiff::SignedDuration::from_mins(minutes);
    setup.functions.pass(after(9), &Leader::always()).await;
    assert!(setup.store.objects().get(&key("f")).is_some());
    setup.functions.pass(after(11), &Leader::always()).await;
    assert!(setup.store.objects().get(&key("f")).is_none());
    let (_, event) = setup.store.events().pop().unwrap();
    assert_eq!(
        (event.reason.as_str(), event.note.as_str()),
        ("DropFailed", "Mine stays in DB of https://c: running a command in DB: connection refused")
    );
}

#[tokio::test]
async fn a_function_that_moves_to_another_database_leaves_nothing_behind() {
    let mut setup = setup(&["DB", "Other"], vec![in_database("f", ".create-or-alter function Mine() { T }")]);
    setup.pass(0).await;
    assert_eq!(setup.get("f").status.clone().unwrap().databases[0].functions, ["Mine"]);
    setup.store.update(&key("f"), &|function| function.spec.database = "Other".to_owned()).await.unwrap();
    // The new one comes before the old one goes.
    setup.kusto.said();
    setup.kusto.answers(|database, _| if database == "Other" { Err(error(Kind::Transient, Some(503), "busy")) } else { Ok(()) });
    let next = setup.pass(1).await.unwrap();
    assert_eq!(dropped(&setup.kusto), [""; 0]);
    setup.kusto.answers(|_, command| if command.starts_with(".drop") { Err(error(Kind::Transient, Some(429), "busy")) } else { Ok(()) });
    setup.pass_at(next).await;
    let next = setup.pass_at(next).await.expect("the drop is tried again");
    assert_eq!(dropped(&setup.kusto), ["DB: .drop function ['Mine'] ifexists"]);
    setup.kusto.answers(|_, _| Ok(()));
    assert_eq!(setup.pass_at(next).await, None);
    assert_eq!(dropped(&setup.kusto), ["DB: .drop function ['Mine'] ifexists"]);
    let status = setup.get("f").status.clone().unwrap();
    let there: Vec<_> = status.databases.iter().map(|entry| (entry.target.as_str(), entry.functions.as_slice())).collect();
    assert_eq!(there, [("Other", &["Mine".to_owned()][..])]);
    assert_eq!(status.status, State::Success);
    setup.pass_at(next).await;
    assert_eq!(setup.kusto.said(), [], "and that is all");
}

#[tokio::test]
async fn a_function_that_changes_its_name_leaves_nothing_behind() {
    let body =
        ".create-or-alter function Old() { T }\n\n.create-or-alter function Kept() { T }\n\n.create-or-alter function Shared() { T }";
    let other = in_database("g", ".create-or-alter function Shared() { T }");
    let mut setup = setup(&["DB"], vec![in_database("f", body), other]);
    setup.pass(0).await;
    let renamed = ".create-or-alter function New() { T }\n\n.create-or-alter function Kept() { T }";
    setup.store.update(&key("f"), &|function| function.spec.body = renamed.to_owned()).await.unwrap();
    setup.kusto.said();
    setup.pass(1).await;
    setup.pass(2).await;
    assert_eq!(dropped(&setup.kusto), ["DB: .drop function ['Old'] ifexists"]);
    assert_eq!(setup.get("f").status.clone().unwrap().databases[0].functions, ["Kept", "New"]);
    // What was given up is still dropped with the object, if a drop was due when it went.
    setup.store.delete(&key("f"));
    setup.pass(3).await;
    assert_eq!(dropped(&setup.kusto), ["DB: .drop function ['Kept'] ifexists", "DB: .drop function ['New'] ifexists"]);
}

#[tokio::test]
async fn a_function_of_another_cluster_keeps_nothing_here() {
    let mut elsewhere = in_database("g", ".create-or-alter function Mine() { T }");
    elsewhere.spec.criteria_expression = "region == 'westus'".to_owned();
    let mine = in_database("f", ".create-or-alter function Mine() { T }");
    let kusto = FakeKusto::new();
    let store = Arc::new(MemoryStore::new([mine, elsewhere]));
    let here = labels(&json!({"clusterLabels": {"region": "eastus"}}));
    let mut functions = executor(store.clone(), vec![kusto.target("DB")], here);
    functions.pass(start(), &Leader::always()).await;
    store.delete(&key("f"));
    functions.pass(start(), &Leader::always()).await;
    assert_eq!(dropped(&kusto), ["DB: .drop function ['Mine'] ifexists"]);
    assert!(store.objects().get(&key("f")).is_none());
}

#[tokio::test]
async fn each_process_drops_what_is_in_its_own_databases() {
    let spec = FunctionSpec { all_databases: true, body: ".create-or-alter function Mine() { T }".to_owned(), ..FunctionSpec::default() };
    let store = Arc::new(MemoryStore::new([function("f", spec)]));
    let (here, there) = (FakeKusto::new(), FakeKusto::new());
    let process = |kusto: &Arc<FakeKusto>, database: &str| executor(store.clone(), vec![kusto.target(database)], labels(&Value::Null));
    let (mut one, mut other) = (process(&here, "A"), process(&there, "B"));
    one.pass(start(), &Leader::always()).await;
    other.pass(start(), &Leader::always()).await;
    here.said();
    there.said();
    store.delete(&key("f"));
    let now = store.objects().get(&key("f")).unwrap().metadata.deletion_timestamp.clone().unwrap().0;
    let wait = one.pass(now, &Leader::always()).await;
    assert_eq!((dropped(&here).len(), dropped(&there).len()), (1, 0));
    assert_eq!(wait, Some(now + Duration::from_secs(600)), "the other one's is still there");
    other.pass(now, &Leader::always()).await;
    assert_eq!((dropped(&here).len(), dropped(&there).len()), (0, 1));
    assert!(store.objects().get(&key("f")).is_none());
}

#[tokio::test]
async fn what_nobody_drops_is_named_and_holds_the_object_for_ten_minutes() {
    let store = Arc::new(MemoryStore::new([in_database("f", ".create-or-alter function Mine() { T }")]));
    let kusto = FakeKusto::new();
    let process = |database: &str| executor(store.clone(), vec![kusto.target(database)], labels(&Value::Null));
    process("DB").pass(start(), &Leader::always()).await;
    kusto.said();
    store.delete(&key("f"));
    let now = store.objects().get(&key("f")).unwrap().metadata.deletion_timestamp.clone().unwrap().0;
    let mut other = process("Other");
    other.pass(now, &Leader::always()).await;
    assert!(store.objects().get(&key("f")).is_some());
    other.pass(now + Duration::from_secs(601), &Leader::always()).await;
    assert!(store.objects().get(&key("f")).is_none());
    assert_eq!(kusto.said(), []);
    let (_, event) = store.events().pop().unwrap();
    assert!(event.reason == "DropFailed" && event.note.starts_with("what it created stays in DB of https://c"), "{event:?}");
}

#[tokio::test]
async fn a_function_that_is_no_longer_meant_for_this_cluster_is_dropped() {
    let shared = in_database("g", ".create-or-alter function Shared() { T }");
    let body = ".create-or-alter function Mine() { T }\n.create-or-alter function Shared() { T }";
    let kusto = FakeKusto::new();
    let store = Arc::new(MemoryStore::new([in_database("f", body), shared]));
    let here = labels(&json!({"clusterLabels": {"region": "eastus"}}));
    let mut functions = executor(store.clone(), vec![kusto.target("DB")], here);
    functions.pass(start(), &Leader::always()).await;
    kusto.said();
    let edit = async |expression: &str| {
        let expression = expression.to_owned();
        store.update(&key("f"), &|function| function.spec.criteria_expression.clone_from(&expression)).await.unwrap();
    };
    // A mistake in the expression is no reason to drop anything.
    edit("region ==").await;
    functions.pass(start(), &Leader::always()).await;
    assert_eq!(kusto.said(), []);
    edit("region == 'westus'").await;
    kusto.answers(|_, _| Err(error(Kind::Transient, Some(503), "busy")));
    let next = functions.pass(start(), &Leader::always()).await.expect("the drop is tried again");
    kusto.said();
    kusto.answers(|_, _| Ok(()));
    functions.pass(next, &Leader::always()).await;
    assert_eq!(dropped(&kusto), ["DB: .drop function ['Mine'] ifexists"]);
    let after = store.objects().get(&key("f")).unwrap();
    let status = after.status.clone().unwrap();
    assert_eq!((status.databases.len(), status.reason.as_str()), (0, "CriteriaNotMatched"));
    assert_eq!(after.metadata.finalizers, Some(vec![]), "nothing is left to be dropped");
    functions.pass(next, &Leader::always()).await;
    assert_eq!(kusto.said(), [], "and that is all");
    edit("region == 'eastus'").await;
    functions.pass(next, &Leader::always()).await;
    assert_eq!((kusto.said().len(), store.objects().get(&key("f")).unwrap().status.clone().unwrap().status), (1, State::Success));
}

#[tokio::test]
async fn a_suspended_function_stays_as_it_is_until_it_is_deleted() {
    let mut setup = setup(&["DB"], vec![in_database("f", ".create-or-alter function Mine() { T }")]);
    setup.pass(0).await;
    setup.kusto.said();
    setup.store.update(&key("f"), &|function| function.spec.suspend = true).await.unwrap();
    setup.store.update(&key("f"), &|function| function.spec.criteria_expression = "1 == 2".to_owned()).await.unwrap();
    assert_eq!((setup.pass(1).await, setup.kusto.said()), (None, vec![]));
    setup.store.delete(&key("f"));
    setup.pass(2).await;
    assert_eq!(dropped(&setup.kusto), ["DB: .drop function ['Mine'] ifexists"]);
    assert!(setup.store.objects().get(&key("f")).is_none());
}

/// Whether Kusto has made it nobody knows, so it is dropped as if it had.
#[tokio::test]
async fn what_may_have_been_created_is_dropped_too() {
    let mut setup = setup(&["DB"], vec![in_database("f", ".create-or-alter function Mine() { T }")]);
    setup.kusto.answers(|_, _| Err(error(Kind::Transient, None, "no answer")));
    setup.pass(0).await;
    setup.kusto.said();
    setup.kusto.answers(|_, _| Ok(()));
    setup.store.delete(&key("f"));
    setup.pass(1).await;
    assert_eq!(dropped(&setup.kusto), ["DB: .drop function ['Mine'] ifexists"]);
}

#[tokio::test]
async fn what_a_function_only_mentions_is_not_dropped() {
    let body = "// .create-or-alter function Other() { T }\n.create-or-alter function Mine() { print '.create function Other() { T }' }";
    let mut setup = setup(&["DB"], vec![in_database("f", body)]);
    setup.pass(0).await;
    setup.store.delete(&key("f"));
    setup.pass(1).await;
    assert_eq!(dropped(&setup.kusto), ["DB: .drop function ['Mine'] ifexists"]);
}
