//! The recipes of docs/cookbook.md: a collector runs with each configuration, gets the input, and has the rows.

use std::path::{Path, PathBuf};

use reqwest::header::CONTENT_TYPE;
use serde_json::{Map, Value};
use tempfile::TempDir;

use crate::support::{Collector, client};

const PAGE: &str = include_str!("../../../../docs/cookbook.md");

fn example(name: &str) -> String {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/cookbook")).join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The collector of a recipe, which keeps its rows; `logs` is the folder of its log files.
async fn started(recipe: &str, logs: &Path) -> Collector {
    let configuration = example(&format!("{recipe}.toml"));
    assert!(PAGE.contains(&format!("```toml\n{configuration}```")), "the page shows another configuration than {recipe}.toml");
    collector::Config::from_toml(&configuration, "node-1").unwrap_or_else(|error| panic!("{recipe}: {error}"));
    let mut file: toml::Table = configuration.parse().unwrap();
    for ours in ["endpoint", "listen-addr", "storage-dir"] {
        file.remove(ours);
    }
    let text = toml::to_string(&file).unwrap().replace("/var/log/containers", &logs.display().to_string());
    Collector::start("", &text).await
}

async fn post(collector: &Collector, path: &str, input: &str) {
    let url = format!("{}{path}", collector.url);
    let response = client().post(url).header(CONTENT_TYPE, "application/json").body(example(input)).send().await.unwrap();
    assert_eq!(response.status(), 200, "{}", response.text().await.unwrap());
}

/// The rows in the store of a collector that has ended, by their columns.
pub(crate) fn rows(dir: &TempDir) -> Vec<Map<String, Value>> {
    let options = wal::Options { durability: wal::Durability::Process, ..wal::Options::new(dir.path()) };
    let (store, _) = wal::Store::open(options, wal::RealDisk::new(), 0).unwrap();
    store.seal_all().unwrap();
    let mut rows = Vec::new();
    for segment in store.sealed() {
        let name = wal::segment::FileName::parse(&segment.file_name).unwrap();
        let text = wal::segment::values(&store.read_segment(segment.id).unwrap(), false);
        let mut reader = csv::ReaderBuilder::new().from_reader(&text[..]);
        let header = reader.headers().unwrap().clone();
        let columns: Vec<(String, String)> =
            header.iter().map(|column| column.split_once(':').map(|(name, kind)| (name.to_owned(), kind.to_owned())).unwrap()).collect();
        // Every block begins with it.
        for record in reader.records().map(Result::unwrap).filter(|record| *record != header) {
            let value = |kind: &str, text: &str| match kind {
                "dynamic" => serde_json::from_str(text).unwrap(),
                "int" => Value::from(text.parse::<i64>().unwrap()),
                _ => Value::from(text),
            };
            let mut row: Map<String, Value> =
                columns.iter().zip(&record).map(|((name, kind), text)| (name.clone(), value(kind, text))).collect();
            row.insert("Database".to_owned(), name.database.to_string().into());
            row.insert("Table".to_owned(), name.table.to_string().into());
            rows.push(row);
        }
    }
    store.close();
    rows
}

/// Every row of a recipe is there, with the values that it names, and no other is.
fn compare(recipe: &str, dir: &TempDir) {
    let mut rows = rows(dir);
    for expected in example(&format!("{recipe}.rows")).lines() {
        let expected: Map<String, Value> = serde_json::from_str(expected).unwrap();
        let fits = |row: &Map<String, Value>| expected.iter().all(|(column, value)| row.get(column) == Some(value));
        let found = rows.iter().position(fits).unwrap_or_else(|| panic!("{recipe}: {expected:?}\nis not among\n{rows:#?}"));
        rows.remove(found);
    }
    assert!(rows.is_empty(), "{recipe}: {rows:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn traces() {
    let collector = started("traces", Path::new("/nowhere")).await;
    post(&collector, "/v1/traces", "traces.json").await;
    compare("traces", &collector.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_several_lines() {
    let logs = tempfile::tempdir().unwrap();
    std::fs::write(logs.path().join("shop-1.log"), example("multi-line.log")).unwrap();
    let collector = started("multi-line", logs.path()).await;
    collector.until("adxmon_ledger_rows{database=\"Logs\",state=\"accepted\"}", |rows| rows == 4.0).await;
    compare("multi-line", &collector.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn routing() {
    let collector = started("routing", Path::new("/nowhere")).await;
    post(&collector, "/v1/logs", "routing.json").await;
    compare("routing", &collector.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn lifting() {
    let collector = started("lifting", Path::new("/nowhere")).await;
    post(&collector, "/v1/metrics", "lifting.metrics.json").await;
    post(&collector, "/v1/logs", "lifting.logs.json").await;
    compare("lifting", &collector.stop().await);
}
