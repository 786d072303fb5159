//! The binary `collector`: its commands, its metrics, and what a SIGTERM does.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::Query;
use axum::http::StatusCode;
use axum::routing::post;
use collector::Config;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use server::Limits;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::support::{RECEIVERS, client, one_sample};

fn collector() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_collector"));
    command.env_remove("COLLECTOR_STORAGE_BACKEND").env_remove("ADXMON_DURABILITY").env_remove("LOG_LEVEL");
    command
}

#[test]
fn the_printed_configuration_is_valid() {
    let printed = collector().arg("config").output().unwrap();
    assert!(printed.status.success());
    let (_, warnings) = Config::from_toml(&String::from_utf8(printed.stdout).unwrap(), "node-1").unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
}

#[test]
fn without_a_configuration_it_says_how_to_get_one() {
    let ended = collector().output().unwrap();
    assert!(!ended.status.success());
    let said = String::from_utf8(ended.stderr).unwrap();
    assert!(said.contains("--config is required; run `collector config`"), "{said}");
}

/// What `collector check` prints and how it ends.
fn check(toml: &str) -> (bool, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c.toml");
    std::fs::write(&file, toml).unwrap();
    let ended = collector().args(["check", "--hostname", "node-1", "-c"]).arg(&file).output().unwrap();
    assert_eq!(String::from_utf8(ended.stderr).unwrap(), "");
    let prefix = file.display().to_string();
    let said = String::from_utf8(ended.stdout).unwrap();
    (ended.status.success(), said.lines().map(|line| line.replace(&prefix, "F")).collect())
}

#[test]
fn check_names_every_mistake_with_its_place() {
    let (fine, said) = check("endpiont = 'http://i'\nmax-segment-size = -1\n[otel-log]\nexporters = ['none']\n");
    assert!(!fine);
    assert_eq!(
        said,
        [
            "F:1:1: error: unknown key endpiont; remove it or correct its name",
            "F:2:1: error: max-segment-size must be at least 0",
            "F:4:14: error: otel-log.exporters \"none\" not found",
            "F: the configuration is not valid; errors: 3",
        ]
    );
    let (fine, said) = check("endpoint = 'http://i'\nendpoint = 'http://j'\n");
    assert!(!fine && said[0].starts_with("F:2:1: error: toml: duplicate key"), "{said:?}");
}

#[test]
fn check_of_a_good_file_says_so() {
    assert_eq!(check("storage-dir = '/x'\nendpoint = 'http://i'\n"), (true, vec!["F: the configuration is valid; warnings: 0".to_owned()]));
    let (fine, said) = check("storage-dir = '/x'\n");
    assert!(fine && said[0].starts_with("F: warning: endpoint is empty"), "{said:?}");
    assert_eq!(said[1], "F: the configuration is valid; warnings: 1");
}

#[test]
fn an_explicitly_empty_backend_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c.toml");
    std::fs::write(&file, "listen-addr = '127.0.0.1:0'\nstorage-dir = '/nonexistent/x'\n").unwrap();
    let ended = collector().arg("--config").arg(&file).env("COLLECTOR_STORAGE_BACKEND", "").output().unwrap();
    assert!(!ended.status.success());
    let said = String::from_utf8(ended.stderr).unwrap();
    assert!(said.contains("storage-backend cannot be empty"), "{said}");
}

/// Names of segments and the rows in them, as an ingestor like the reference's was given them.
type Received = Arc<Mutex<Vec<(String, u64)>>>;

async fn ingestor(received: Received, stop: CancellationToken) -> String {
    let transfer = move |Query(query): Query<HashMap<String, String>>, body: Bytes| async move {
        let Some(name) = query.get("filename") else { return StatusCode::BAD_REQUEST };
        received.lock().unwrap().push((name.clone(), wal::segment::verify(&body, true).rows));
        StatusCode::ACCEPTED
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(server::serve(listener, Router::new().route("/transfer", post(transfer)), Limits::default(), None, stop));
    url
}

/// Starts the binary with a sender; gives its URL once it listens.
fn start(dir: &std::path::Path, endpoint: &str) -> (Child, String) {
    launch(dir, &format!("endpoint = '{endpoint}'\ndisable-gzip = true\n{RECEIVERS}"))
}

/// Starts the binary with a configuration; gives its URL once it listens.
pub(crate) fn launch(dir: &std::path::Path, configuration: &str) -> (Child, String) {
    let file = dir.join("c.toml");
    let top = format!("listen-addr = '127.0.0.1:0'\nstorage-dir = '{}'\n", dir.display());
    std::fs::write(&file, top + configuration).unwrap();
    let mut child =
        collector().arg("--config").arg(&file).env("METRICS_DEBUG", "1").stdout(Stdio::piped()).spawn().expect("the binary starts");
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let addr = loop {
        let line = lines.next().expect("it ended before it listened").unwrap();
        let line: Value = serde_json::from_str(&line).unwrap();
        if line["msg"] == "collector started" {
            break line["addr"].as_str().unwrap().to_owned();
        }
    };
    // It goes on logging; nobody may make it wait.
    std::thread::spawn(move || lines.for_each(drop));
    (child, format!("http://{addr}"))
}

async fn ended(mut child: Child) -> std::process::ExitStatus {
    let wait = tokio::task::spawn_blocking(move || child.wait().unwrap());
    tokio::time::timeout(Duration::from_secs(60), wait).await.expect("it did not end").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_sends_what_was_accepted_and_ends_with_success() {
    let (received, stop) = (Received::default(), CancellationToken::new());
    let dir = tempfile::tempdir().unwrap();
    let (child, url) = start(dir.path(), &ingestor(Arc::clone(&received), stop.clone()).await);
    for name in ["up", "up", "other_total", "dropme"] {
        let response = client().post(format!("{url}/receive")).body(one_sample(name, 1.0)).send().await.unwrap();
        assert_eq!(response.status(), 202);
    }
    the_reference_names_are_there(&client().get(format!("{url}/metrics")).send().await.unwrap().text().await.unwrap());
    // Segments are 30 seconds old before they are sent: what arrives now, the drain sent.
    assert!(received.lock().unwrap().is_empty());
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert!(ended(child).await.success());
    let mut got: Vec<(String, u64)> = received.lock().unwrap().clone();
    got.iter_mut().for_each(|(name, _)| *name = name.rsplitn(3, '_').last().unwrap().to_owned());
    got.sort();
    assert_eq!(got, [("Metrics_OtherTotal".to_owned(), 1), ("Metrics_Up".to_owned(), 2)]);
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_reads_the_file_again() {
    let dir = tempfile::tempdir().unwrap();
    let (child, url) = start(dir.path(), "");
    let file = dir.path().join("c.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let status = |path: &str| client().post(format!("{url}{path}")).body(one_sample("up", 1.0)).send();
    assert_eq!(status("/other").await.unwrap().status(), 404);
    std::fs::write(&file, format!("{text}\n[[prometheus-remote-write]]\ndatabase = 'Other'\npath = '/other'\n")).unwrap();
    kill_process(Pid::from_child(&child), Signal::HUP).unwrap();
    let reloaded = async {
        while status("/other").await.unwrap().status() != 202 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), reloaded).await.expect("the new path is served");
    assert_eq!(status("/receive").await.unwrap().status(), 202);
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert!(ended(child).await.success());
}

/// Collector spec §14; what appears with OTLP is asked for in the tests of a whole collector.
fn the_reference_names_are_there(page: &str) {
    let names = [
        "adxmon_collector_health_check{region=\"\"} 1",
        "adxmon_collector_samples_stored_total 3",
        "adxmon_collector_wal_segments_count ",
        "adxmon_collector_wal_segments_size_bytes ",
        "adxmon_collector_wal_segments_max_age_seconds ",
        "adxmon_ingestor_requests_received_total{path=\"/receive\",code=\"202\"} 3",
        "adxmon_ingestor_requests_received_total{path=\"/receive\",code=\"204\"} 1",
        "adxmon_ingestor_invalid_logs_dropped 0",
        "adxmon_ingestor_metrics_dropped_total{metric=\"dropme\"} 1",
        "adxmon_ingestor_active_connections ",
        "adxmon_ingestor_dropped_connections_total 0",
        "adxmon_ingestor_queue_size{queue=\"transfer\"} ",
    ];
    for name in names {
        assert!(page.lines().any(|line| line.starts_with(name)), "{name} in\n{page}");
    }
}
