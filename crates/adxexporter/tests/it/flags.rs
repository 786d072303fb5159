//! The command line and the program.

use std::process::{Command, Stdio};
use std::time::Duration;

use adxexporter::{Flags, Rules};
use azure_testing::Azure;
use clap::{CommandFactory as _, Parser as _};
use serde_json::json;

use crate::fake_kusto::{Answer, FakeKusto};
use crate::receiver::Receiver;

const PROGRAM: &str = env!("CARGO_BIN_EXE_adxexporter");
const OTLP: &str = "--otlp-endpoint=http://127.0.0.1:4318/v1/metrics";

fn parse(flags: &[&str]) -> Result<Flags, String> {
    Flags::try_parse_from(std::iter::once("adxexporter").chain(flags.iter().copied())).map_err(|error| error.to_string())
}

#[test]
fn lists_are_repeated_or_separated_by_commas_and_values_may_hold_an_equals_sign() {
    let flags = parse(&[
        OTLP,
        "--cluster-labels=region=eastus,query=a=b",
        "--cluster-labels=empty=",
        // The reference loses what follows the second `=`.
        "--kusto-endpoints=A=http://127.0.0.1:1,B=https://c.kusto.windows.net/?x=y",
        "--add-resource-attributes=region=west,team=a",
        "--metric-name-prefix=adx",
    ]);
    let config = flags.unwrap().config().unwrap();
    let pairs = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    assert_eq!(config.labels, pairs(&[("region", "eastus"), ("query", "a=b"), ("empty", "")]));
    assert_eq!(config.push.resource, pairs(&[("region", "west"), ("query", "a=b"), ("empty", ""), ("team", "a")]));
    let databases: Vec<_> = config.databases.iter().map(|(name, client)| format!("{name} {}", client.endpoint())).collect();
    assert_eq!(databases, ["A http://127.0.0.1:1", "B https://c.kusto.windows.net"]);
    assert_eq!((config.prefix.as_str(), config.listen.unwrap().to_string().as_str()), ("adx", "0.0.0.0:8081"));
    assert!(config.push.gzip && matches!(config.rules, Rules::Cluster { kubeconfig: None, .. }));
}

/// `--cluster-labels <CLUSTER_LABELS>` would say nothing of what is meant.
#[test]
fn the_help_says_how_each_value_is_written() {
    for argument in Flags::command().get_arguments().filter(|argument| argument.get_action().takes_values()) {
        let id = argument.get_id().as_str();
        let name = argument.get_value_names().and_then(|names| names.first()).unwrap_or_else(|| panic!("{id}")).to_string();
        assert_ne!(name, id.to_uppercase(), "--{id}");
    }
    let help = Flags::command().render_long_help().to_string();
    for part in ["--cluster-labels <KEY=VALUE>", "--kusto-endpoints <DATABASE=URL>", "--catch-up <DURATION>"] {
        assert!(help.contains(part), "{help}");
    }
}

#[test]
fn mistakes_name_the_flag_and_the_way_out() {
    for (flags, part) in [
        (&[][..], "--otlp-endpoint"),
        (&[OTLP, "--cluster-labels=region"], "write it as KEY=VALUE"),
        (&[OTLP, "--kusto-endpoints==http://x"], "write it as DATABASE=URL"),
        (&[OTLP, "--kusto-endpoints=A="], "write it as DATABASE=URL"),
        (&[OTLP, "--otlp-protocol=http/json"], "use http/protobuf or grpc"),
        (&[OTLP, "--health-probe-port=8081"], "write it as :8081"),
        (&[OTLP, "--catch-up=1d"], "write it like 5m or 24h"),
        (&[OTLP, "--max-queries=0"], "--max-queries"),
        (&[OTLP, "--rules-dir=rules"], "--data-dir"),
    ] {
        let error = parse(flags).unwrap_err();
        assert!(error.contains(part), "{flags:?}: {error}");
    }
    let twice = parse(&[OTLP, "--kusto-endpoints=A=http://a,A=http://b"]).unwrap().config();
    assert!(twice.err().unwrap().to_string().contains("database A twice"));
    let no_url = parse(&[OTLP, "--kusto-endpoints=A=cluster"]).unwrap().config();
    assert!(no_url.err().unwrap().to_string().contains("use https://host"));
}

#[test]
fn a_host_that_is_not_of_azure_gets_tokens_only_where_it_is_named() {
    let config = |more: &[&str]| parse(&[&[OTLP, "--kusto-endpoints=A=https://adx.example.com"], more].concat()).unwrap().config();
    let error = config(&[]).err().unwrap().to_string();
    assert!(error.contains("--kusto-trusted-hosts adx.example.com"), "{error}");
    assert!(config(&["--kusto-trusted-hosts=other.example.com,.example.com"]).is_ok());
    let error = parse(&[OTLP, "--kusto-trusted-hosts=https://adx.example.com"]).unwrap_err();
    assert!(error.contains("is no name of a host"), "{error}");
}

#[test]
fn help_names_every_flag_and_shows_how_to_begin() {
    let help = Command::new(PROGRAM).arg("--help").output().unwrap();
    let text = String::from_utf8(help.stdout).unwrap();
    for part in [
        "--cluster-labels",
        "--kusto-endpoints",
        "--otlp-endpoint",
        "--add-resource-attributes",
        "--metric-name-prefix",
        "--health-probe-port",
        "kind: MetricsExporter",
        "between (_startTime .. _endTime)",
        "LOG_LEVEL",
    ] {
        assert!(text.contains(part), "{part}");
    }
    assert!(Command::new(PROGRAM).arg("--version").output().unwrap().status.success());
}

#[test]
fn without_a_cluster_the_program_says_what_to_give() {
    let output = Command::new(PROGRAM)
        .args([OTLP, "--health-probe-port=127.0.0.1:0"])
        .env_remove("KUBECONFIG")
        .env_remove("KUBERNETES_SERVICE_HOST")
        .env("HOME", "/nonexistent")
        .output()
        .unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(error.starts_with("adxexporter: no cluster") && error.contains("--rules-dir"), "{error}");
}

fn rule(name: &str) -> String {
    let spec = json!({"database": "Metrics", "interval": "24h", "body": name,
        "transform": {"valueColumns": ["n"], "timestampColumn": "", "defaultMetricName": name}});
    let object = json!({"apiVersion": "adx-mon.azure.com/v1", "kind": "MetricsExporter", "metadata": {"name": name}, "spec": spec});
    format!("# JSON is YAML\n---\n{object}\n")
}

/// The program with rules in files, stopped as Kubernetes stops it, and started again.
#[tokio::test]
async fn the_program_exports_rules_from_files_and_remembers_what_it_did() {
    let dir = tempfile::tempdir().unwrap();
    let (rules, data) = (dir.path().join("rules"), dir.path().join("data"));
    std::fs::create_dir(&rules).unwrap();
    let kusto = FakeKusto::start(|_| Answer::rows(&[("n", "long")], vec![json!([1])])).await;
    let receiver = Receiver::start([]).await;
    let program = || {
        Command::new(PROGRAM)
            .args(["--rules-dir", rules.to_str().unwrap(), "--data-dir", data.to_str().unwrap()])
            .args(["--kusto-endpoints", &format!("Metrics={}", kusto.url), "--otlp-endpoint", &receiver.url])
            .args(["--otlp-protocol=grpc", "--health-probe-port=127.0.0.1:0"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    };
    let names = || kusto.asked().iter().map(|asked| asked.query.lines().last().unwrap().to_owned()).collect::<Vec<_>>();

    std::fs::write(rules.join("a.yaml"), rule("first")).unwrap();
    let running = program();
    receiver.until_batches(1).await;
    stop(running).await;
    std::fs::write(rules.join("b.yaml"), rule("second")).unwrap();
    let running = program();
    receiver.until_batches(2).await;
    stop(running).await;
    assert_eq!(names(), ["first", "second"]);
    let exported: Vec<_> = receiver.metrics().iter().map(|metric| metric.name.clone()).collect();
    assert_eq!(exported, ["first_n", "second_n"]);
}

/// A token of the default chain opens a Kusto over TLS.
#[tokio::test]
async fn the_program_shows_an_azure_token_to_a_kusto_over_https() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.yaml"), rule("first")).unwrap();
    let kusto = FakeKusto::start(|_| Answer::rows(&[("n", "long")], vec![json!([1])])).await;
    let receiver = Receiver::start([]).await;
    let azure = Azure::before(&kusto.url).await;
    let running = Command::new(PROGRAM)
        .args(["--rules-dir", dir.path().to_str().unwrap(), "--data-dir", dir.path().join("data").to_str().unwrap()])
        .args(["--kusto-endpoints", &format!("Metrics={}", azure.kusto), "--otlp-endpoint", &receiver.url])
        .args(["--otlp-protocol=grpc", "--health-probe-port=127.0.0.1:0"])
        .envs(azure.environment())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    receiver.until_batches(1).await;
    stop(running).await;
    assert_eq!((azure.asked().len(), azure.refused().len(), kusto.asked().len()), (1, 0, 1));
}

async fn stop(mut program: std::process::Child) {
    let asked = Command::new("kill").arg(program.id().to_string()).status().unwrap();
    assert!(asked.success());
    let ended = tokio::task::spawn_blocking(move || program.wait());
    let ended = tokio::time::timeout(Duration::from_secs(30), ended).await.unwrap().unwrap().unwrap();
    assert!(ended.success(), "{ended}");
}
