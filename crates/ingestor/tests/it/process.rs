//! The binary itself: its help, its refusals, and SIGTERM.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use azure_testing::Azure;
use serde_json::Value;

use crate::fake_kusto::{FakeKusto, Kind};
use crate::support::{NARROW, client, image};

pub(crate) fn ingestor(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ingestor"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ADXMON_") || name.starts_with("INGESTOR_")) {
        command.env_remove(name);
    }
    command.args(arguments);
    command
}

/// The flags of the reference.
const FLAGS: [&str; 28] = [
    "--kubeconfig",
    "--namespace",
    "--hostname",
    "--region",
    "--storage-dir",
    "--storage-backend",
    "--metrics-kusto-endpoints",
    "--logs-kusto-endpoints",
    "--cluster-labels",
    "--disable-peer-transfer",
    "--uploads",
    "--max-connections",
    "--max-segment-size",
    "--max-segment-age",
    "--max-transfer-size",
    "--max-transfer-age",
    "--max-disk-usage",
    "--max-segment-count",
    "--max-batch-segments",
    "--max-transfer-concurrency",
    "--partition-size",
    "--drop-prefix",
    "--enable-wal-fsync",
    "--slow-request-threshold",
    "--ca-cert",
    "--key",
    "--insecure-skip-verify",
    "--durability",
];

#[test]
fn the_help_names_every_flag_and_shows_how_to_begin() {
    let output = ingestor(&["--help"]).output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    for flag in FLAGS {
        let line = text.lines().position(|l| l.split_whitespace().any(|word| word.split('[').next() == Some(flag)));
        let line = line.unwrap_or_else(|| panic!("{flag} is not in the help"));
        let explained = text.lines().nth(line + 1).is_some_and(|l| l.trim().len() > 10);
        assert!(explained, "{flag} is not explained");
    }
    assert!(text.contains("ingestor --storage-dir") && text.contains("--metrics-kusto-endpoints Metrics=http"), "{text}");
}

#[test]
fn what_cannot_work_ends_with_the_reason() {
    for (arguments, part) in [
        (&[][..], "--storage-dir is required"),
        (&["--storage-dir=/x", "--storage-backend=clickhouse"][..], "not supported"),
        (&["--storage-dir=/x", "--max-segment-age=5"][..], "write it like 90s"),
    ] {
        let output = ingestor(arguments).output().unwrap();
        assert!(!output.status.success());
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains(part), "{arguments:?}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_uploads_what_is_here_and_ends_well() {
    let (dir, kusto) = (tempfile::tempdir().unwrap(), FakeKusto::start(Kind::Kustd).await);
    let storage = format!("--storage-dir={}", dir.path().display());
    let endpoint = format!("--metrics-kusto-endpoints=Metrics={}", kusto.url);
    let listen = ["--listen-plain=127.0.0.1:0", "--listen-tls=127.0.0.1:0"];
    let mut command = ingestor(&[&[storage.as_str(), endpoint.as_str()][..], &listen].concat());
    for cluster in ["KUBECONFIG", "KUBERNETES_SERVICE_HOST"] {
        command.env_remove(cluster);
    }
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    let (mut alone, mut without_cluster) = (false, false);
    let running = lines
        .by_ref()
        .inspect(|line| {
            alone |= line.to_string().contains("there are no peers: neither --peers nor");
            without_cluster |= line.to_string().contains("no rules are run: there is neither --kubeconfig nor");
        })
        .find(|line| line.to_string().contains("is running"));
    let running = running.unwrap();
    assert!(alone, "it is not said that there are no peers");
    assert!(without_cluster, "it is not said that no rules are run");
    let text = running.to_string();
    let port = text.split("127.0.0.1:").find_map(|part| part.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u16>().ok());
    let ports: Vec<u16> =
        text.split("127.0.0.1:").skip(1).filter_map(|part| part.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()).collect();
    assert!(port.is_some() && ports.len() == 2, "{text}");
    assert!(hand_in(&ports, "Cpu", 1).await);
    assert!(kusto.rows("Metrics.Cpu").is_empty());
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    let rest = tokio::task::spawn_blocking(move || (lines.count(), child.wait().unwrap()));
    let (_, status) = tokio::time::timeout(Duration::from_secs(60), rest).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(0));
    assert_eq!(kusto.rows("Metrics.Cpu"), ["t1,1"]);
}

/// An ingestor, a process that ends with its owner.
pub(crate) struct Started {
    child: Child,
    ports: Vec<u16>,
    /// The rest of its log: somebody has to read on.
    log: Option<JoinHandle<Vec<String>>>,
}

impl Started {
    /// Starts it on free ports and waits until it runs.
    pub(crate) fn new(command: &mut Command) -> Started {
        command.args(["--listen-plain=127.0.0.1:0", "--listen-tls=127.0.0.1:0"]).stdout(Stdio::piped());
        let mut child = command.env_remove("KUBECONFIG").env_remove("KUBERNETES_SERVICE_HOST").spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let line = lines.by_ref().find(|line| line.contains("is running")).unwrap();
        let port = |part: &str| part.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok();
        let ports = line.split("127.0.0.1:").skip(1).filter_map(port).collect();
        Started { child, ports, log: Some(std::thread::spawn(|| lines.collect())) }
    }

    /// Hands in a row with this number.
    pub(crate) async fn hand_in(&self, table: &str, number: usize) {
        assert!(hand_in(&self.ports, table, number).await);
    }

    /// SIGTERM, and the end, which must come soon.
    pub(crate) async fn end(mut self) -> (ExitStatus, Vec<String>) {
        assert!(Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap().success());
        let end = tokio::task::spawn_blocking(move || (self.child.wait().unwrap(), self.log.take().unwrap().join().unwrap()));
        tokio::time::timeout(Duration::from_secs(60), end).await.unwrap().unwrap()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Hands in a row at the one of these ports that speaks TLS.
async fn hand_in(ports: &[u16], table: &str, number: usize) -> bool {
    let mut taken = false;
    for port in ports {
        let url = format!("https://127.0.0.1:{port}/transfer?filename=Metrics_{table}_aaa_2f5d0c3e517e40{number:02x}.wal");
        if let Ok(answer) = client().post(url).body(image(NARROW, &format!("t{number},1\n"))).send().await {
            assert_eq!(answer.status(), 202);
            taken = true;
        }
    }
    taken
}

/// A token of the default chain opens a Kusto over TLS, for commands and rows.
#[tokio::test(flavor = "multi_thread")]
async fn rows_reach_a_kusto_over_https_with_an_azure_token() {
    let (dir, kusto) = (tempfile::tempdir().unwrap(), FakeKusto::start(Kind::Adx).await);
    let azure = Azure::before(&kusto.url).await;
    let storage = format!("--storage-dir={}", dir.path().display());
    let endpoint = format!("--metrics-kusto-endpoints=Metrics={}", azure.kusto);
    let process = Started::new(ingestor(&[&storage, &endpoint, "--ingestion=streaming"]).envs(azure.environment()));
    process.hand_in("Cpu", 1).await;
    let (status, log) = process.end().await;
    assert!(status.success());
    assert_eq!(kusto.rows("Metrics.Cpu"), ["t1,1"]);
    assert_eq!((azure.asked().len(), azure.refused()), (1, Vec::new()));
    assert!(!log.join("").contains("TOKEN-"), "{log:?}");
}
