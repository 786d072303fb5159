//! Rules in files.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use rules::store::files::{FileStore, Folder};
use rules::store::{Key, Store as _};
use tempfile::TempDir;

use crate::support::{Probe, run};

struct Rules {
    files: TempDir,
    data: TempDir,
}

impl Rules {
    fn new() -> Self {
        Self { files: TempDir::new().unwrap(), data: TempDir::new().unwrap() }
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.files.path().join(name), text).unwrap();
    }

    async fn open(&self) -> FileStore<Probe> {
        open(self.files.path(), self.data.path()).await
    }
}

async fn open(files: &Path, data: &Path) -> FileStore<Probe> {
    Folder::open(files, data).unwrap().store::<Probe>().await
}

fn document(name: &str, spec: &str) -> String {
    format!("apiVersion: test.adx-mon.azure.com/v1\nkind: Probe\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n")
}

fn databases(store: &FileStore<Probe>) -> Vec<(String, String)> {
    store.objects().snapshot().iter().map(|(key, probe)| (key.to_string(), probe.spec.database.clone())).collect()
}

fn expected(databases: &[(&str, &str)]) -> Vec<(String, String)> {
    databases.iter().map(|(key, database)| ((*key).to_owned(), (*database).to_owned())).collect()
}

fn errors(store: &FileStore<Probe>) -> Vec<String> {
    let name = |error: &rules::store::files::FileError| {
        let file = error.file.file_name().unwrap().to_str().unwrap().to_owned();
        error.to_string().replace(error.file.to_str().unwrap(), &file)
    };
    store.folder().errors().iter().map(name).collect()
}

fn key(name: &str) -> Key {
    Key::new("default", name)
}

/// Regression: documents of a kind that was opened second were never shown, since their file had not changed.
#[tokio::test]
async fn kinds_of_one_file_are_shown_in_whatever_order_they_are_opened() {
    let rules = Rules::new();
    let document = |kind: &str, spec: &str| {
        format!("---\napiVersion: adx-mon.azure.com/v1\nkind: {kind}\nmetadata: {{name: a}}\nspec: {{database: DB, body: T, {spec}}}\n")
    };
    let summary_rule = document("SummaryRule", "table: T, interval: 1h");
    rules.write("rules.yaml", &format!("{}{summary_rule}", document("Function", "")));
    for functions_first in [true, false] {
        let data = TempDir::new().unwrap();
        let folder = Folder::open(rules.files.path(), data.path()).unwrap();
        if functions_first {
            folder.store::<crds::Function>().await;
        }
        let summary_rules = folder.store::<crds::SummaryRule>().await;
        let functions = folder.store::<crds::Function>().await;
        assert_eq!(folder.errors(), []);
        assert!(functions.objects().get(&key("a")).is_some() && summary_rules.objects().get(&key("a")).is_some(), "{functions_first}");
    }
}

#[tokio::test]
async fn documents_of_several_files_and_kinds() {
    let rules = Rules::new();
    let other = "apiVersion: adx-mon.azure.com/v1\nkind: SummaryRule\nmetadata: {name: hourly}\nspec: {}\n";
    let elsewhere = document("c", "database: C").replace("name: c", "name: c, namespace: team");
    rules.write("one.yaml", &format!("---\n{}---\n# nothing here\n---\n{other}---\n{elsewhere}", document("a", "database: A")));
    rules.write("two.yml", &document("b.with.dots", "database: B"));
    rules.write(
        "three.json",
        r#"{"apiVersion":"test.adx-mon.azure.com/v1","kind":"Probe","metadata":{"name":"d"},"spec":{"database":"D"}}"#,
    );
    rules.write(".hidden.yaml", "no: rule");
    rules.write("README.md", "no rule");
    let store = rules.open().await;
    assert_eq!(errors(&store), Vec::<String>::new());
    let wanted = [("default/a", "A"), ("default/b.with.dots", "B"), ("default/d", "D"), ("team/c", "C")];
    assert_eq!(databases(&store), expected(&wanted));
    let one_file = open(&rules.files.path().join("two.yml"), &rules.data.path().join("other")).await;
    assert_eq!(databases(&one_file), expected(&[("default/b.with.dots", "B")]));
}

#[tokio::test]
async fn an_object_read_from_a_server_can_be_put_in_a_file() {
    let rules = Rules::new();
    rules.write(
        "a.yaml",
        "apiVersion: test.adx-mon.azure.com/v1
kind: Probe
metadata:
  name: a
  uid: 1234
  resourceVersion: '99'
  generation: 7
  creationTimestamp: 2020-01-01T00:00:00Z
  labels: {team: x}
  managedFields: [{manager: kubectl}]
spec: {database: A}
status: {runs: 5}
",
    );
    let store = rules.open().await;
    let probe = store.objects().get(&key("a")).unwrap();
    assert_eq!((probe.metadata.generation, probe.status.clone()), (Some(1), None));
    assert_eq!(probe.metadata.labels.as_ref().unwrap()["team"], "x");
}

#[tokio::test]
async fn mistakes_are_named_and_cost_only_their_document() {
    let cases: &[(&str, &str)] = &[
        (&document("x", "database: A, intervall: 1h"), "bad.yaml, document 2, spec.intervall: no such field"),
        (&document("x", "database: [A]"), "bad.yaml, document 2, spec.database: invalid type: sequence, expected a string"),
        (&document("x", "interval: 1h"), "bad.yaml, document 2, spec: missing field `database`"),
        (&document("x", "database: A").replace("name: x", "name: x, lables: {}"), "bad.yaml, document 2, metadata.lables: no such field"),
        (&document("x", "database: A").replace("name: x", "labels: {}"), "bad.yaml, document 2, metadata.name: is missing or no string"),
        (&document("X_1", "database: A"), "bad.yaml, document 2, metadata.name: \"X_1\" is no name: a name has"),
        (
            &document("x", "database: A").replace("name: x", "name: x, namespace: a.b"),
            "bad.yaml, document 2, metadata.namespace: \"a.b\" is no namespace",
        ),
        (
            &document("x", "database: A").replace("Probe", "Prob"),
            "bad.yaml, document 2, kind: Prob of test.adx-mon.azure.com/v1 is no kind",
        ),
        (&document("x", "database: A").replace("kind: Probe", ""), "bad.yaml, document 2, kind: is missing or no string"),
        (&format!("{}extra: 1\n", document("x", "database: A")), "bad.yaml, document 2, extra: no such field"),
        (&document("x", "database: A, database: B"), "bad.yaml, document 2: not YAML: "),
        ("just text", "bad.yaml, document 2: a document is an object with"),
        ("a: [1", "bad.yaml, document 2: not YAML: "),
        (&document("good", "database: A"), "bad.yaml, document 2, metadata.name: Probe default/good is already in "),
    ];
    for (text, error) in cases {
        let rules = Rules::new();
        rules.write("bad.yaml", &format!("{}---\n{text}", document("good", "database: G")));
        rules.write("other.yaml", &document("other", "database: O"));
        let store = rules.open().await;
        let found = errors(&store);
        assert!(found.len() == 1 && found[0].starts_with(error), "{text}\ngives {found:?}\ninstead of {error}");
        assert_eq!(databases(&store), expected(&[("default/good", "G"), ("default/other", "O")]), "{text}");
    }
}

#[tokio::test]
async fn the_last_good_objects_of_a_file_stay_while_it_has_mistakes() {
    let rules = Rules::new();
    let good = format!("{}---\n{}---\n{}", document("a", "database: A"), document("b", "database: B"), document("c", "database: C"));
    rules.write("rules.yaml", &good);
    let store = rules.open().await;
    rules.write("rules.yaml", &format!("{}---\n{}", document("a", "database: A2"), document("b", "data: B2")));
    store.folder().reload().await;
    let wanted = expected(&[("default/a", "A2"), ("default/b", "B"), ("default/c", "C")]);
    assert_eq!(databases(&store), wanted);
    assert_eq!(errors(&store).len(), 1, "{:?}", errors(&store));
    drop(store);

    let store = rules.open().await;
    assert_eq!(databases(&store), wanted, "after a restart");
    rules.write("rules.yaml", "a: [");
    store.folder().reload().await;
    assert_eq!(databases(&store), wanted, "nothing of it can be read");

    rules.write("rules.yaml", &document("a", "database: A3"));
    store.folder().reload().await;
    assert_eq!(databases(&store), expected(&[("default/a", "A3")]));
    assert_eq!(errors(&store), Vec::<String>::new());
}

#[tokio::test]
async fn a_folder_that_is_away_ends_no_rule() {
    let rules = Rules::new();
    rules.write("a.yaml", &document("a", "database: A"));
    let store = rules.open().await;
    let away = rules.files.path().with_extension("away");
    fs::rename(rules.files.path(), &away).unwrap();
    store.folder().reload().await;
    assert_eq!(databases(&store), expected(&[("default/a", "A")]));
    assert!(!errors(&store).is_empty());
    fs::rename(&away, rules.files.path()).unwrap();
    store.folder().reload().await;
    assert_eq!(errors(&store), Vec::<String>::new());
}

#[tokio::test]
async fn changes_are_seen_without_being_told() {
    let rules = Rules::new();
    rules.write("a.yaml", &document("a", "database: A"));
    let store = rules.open().await;
    let mut objects = store.objects();
    objects.ready().await;
    // As many bytes as before, perhaps within the same tick of the file system's clock.
    rules.write("a.yaml", &document("a", "database: B"));
    objects.changed().await;
    assert_eq!(databases(&store), expected(&[("default/a", "B")]));
}

#[tokio::test]
async fn status_and_what_was_written_outlive_edits_and_restarts() {
    let rules = Rules::new();
    rules.write("a.yaml", &document("a", "database: A"));
    let store = rules.open().await;
    let born = store.objects().get(&key("a")).unwrap();
    store.update_status(&key("a"), &run).await.unwrap();
    store.update(&key("a"), &|probe| probe.spec.interval = Some("1h".to_owned())).await.unwrap();
    let written = store.objects().get(&key("a")).unwrap();
    assert_eq!((written.metadata.generation, written.status.as_ref().unwrap().runs), (Some(2), 1));
    drop(store);

    rules.write("a.yaml", &document("a", "database: A2"));
    let store = rules.open().await;
    let after = store.objects().get(&key("a")).unwrap();
    assert_eq!((after.spec.database.as_str(), after.spec.interval.as_deref()), ("A2", Some("1h")));
    assert_eq!((after.metadata.generation, after.status.as_ref().unwrap().runs), (Some(3), 1));
    assert_eq!(after.metadata.uid, born.metadata.uid);
    assert_eq!(after.metadata.creation_timestamp, born.metadata.creation_timestamp);
}

#[tokio::test]
async fn writing_what_is_there_writes_nothing() {
    let rules = Rules::new();
    rules.write("a.yaml", &document("a", "database: A"));
    let store = rules.open().await;
    let before = store.objects().get(&key("a")).unwrap();
    store.update_status(&key("a"), &|_| {}).await.unwrap();
    store.update(&key("a"), &|_| {}).await.unwrap();
    store.update_status(&key("gone"), &run).await.unwrap();
    assert_eq!(store.objects().get(&key("a")).unwrap().metadata.resource_version, before.metadata.resource_version);
}

#[tokio::test]
async fn a_rule_that_was_away_for_a_moment_remembers() {
    let rules = Rules::new();
    rules.write("a.yaml", &document("a", "database: A"));
    let store = rules.open().await;
    store.update_status(&key("a"), &run).await.unwrap();
    rules.write("a.yaml", "");
    store.folder().reload().await;
    assert_eq!(databases(&store), expected(&[]));
    rules.write("a.yaml", &document("a", "database: A"));
    store.folder().reload().await;
    assert_eq!(store.objects().get(&key("a")).unwrap().status.as_ref().unwrap().runs, 1);
}

#[tokio::test]
async fn a_finalizer_holds_an_object_whose_file_is_gone() {
    let rules = Rules::new();
    rules.write("a.yaml", &document("a", "database: A"));
    let store = rules.open().await;
    store.update(&key("a"), &|probe| probe.metadata.finalizers = Some(vec!["adx-mon.azure.com/test".to_owned()])).await.unwrap();
    fs::remove_file(rules.files.path().join("a.yaml")).unwrap();
    store.folder().reload().await;
    drop(store);
    let store = rules.open().await;
    assert!(store.objects().get(&key("a")).unwrap().metadata.deletion_timestamp.is_some());
    store.update(&key("a"), &|probe| probe.metadata.finalizers = None).await.unwrap();
    assert!(store.objects().get(&key("a")).is_none());
}

#[tokio::test]
async fn data_of_a_newer_version_is_left_alone() {
    let rules = Rules::new();
    drop(rules.open().await);
    let database = rusqlite::Connection::open(rules.data.path().join("rules.sqlite")).unwrap();
    database.pragma_update(None, "user_version", 99).unwrap();
    let refused = Folder::open(rules.files.path(), rules.data.path()).err().unwrap().to_string();
    assert!(refused.contains("rules.sqlite has layout 99, this program knows up to 1"), "{refused}");
}

/// Writes one status after another and says so after each, until it is killed.
#[test]
#[ignore = "started by a_written_status_survives_kill_9"]
fn child_that_writes() {
    let folder = std::env::var("RULES_TEST_FOLDER").unwrap();
    let folder = Path::new(&folder);
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let store = open(&folder.join("rules"), &folder.join("data")).await;
        loop {
            store.update_status(&key("a"), &run).await.unwrap();
            println!("runs {}", store.objects().get(&key("a")).unwrap().status.as_ref().unwrap().runs);
        }
    });
}

#[tokio::test]
async fn a_written_status_survives_kill_9() {
    let folder = TempDir::new().unwrap();
    fs::create_dir(folder.path().join("rules")).unwrap();
    fs::write(folder.path().join("rules/a.yaml"), document("a", "database: A")).unwrap();
    let mut acknowledged = 0;
    for round in 1..=5 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["files::child_that_writes", "--exact", "--ignored", "--nocapture"])
            .env("RULES_TEST_FOLDER", folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut runs = lines.filter_map(|line| line.split("runs ").nth(1)?.trim().parse::<u64>().ok());
        acknowledged = runs.nth(round * 3).unwrap();
        child.kill().unwrap();
        acknowledged = runs.last().unwrap_or(acknowledged);
        child.wait().unwrap();
        let store = open(&folder.path().join("rules"), &folder.path().join("data")).await;
        let found = store.objects().get(&key("a")).unwrap().status.as_ref().unwrap().runs;
        assert!(found == acknowledged || found == acknowledged + 1, "round {round}: {found} after {acknowledged}");
    }
    assert!(acknowledged > 5);
}
