//! The program itself: its command line, its exit codes, and that a kill loses nothing.

use std::path::Path;
use std::process::Stdio;

use azure_testing::Azure;
use serde_json::json;
use tokio::process::{Child, Command};

use crate::fake::{Answer, Kusto, Receiver, Reply};

fn alerter() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_alerter"));
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).env_remove("KUBECONFIG").env_remove("KUBERNETES_SERVICE_HOST");
    command
}

/// Exit code and what it said.
async fn run(arguments: &[&str]) -> (i32, String) {
    let output = alerter().args(arguments).output().await.unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(said).unwrap())
}

#[tokio::test]
async fn wrong_command_lines_name_the_flag() {
    for (arguments, code, said) in [
        (vec![], 1, "no kusto endpoints provided"),
        (vec!["--kusto-endpoint", "DB=http://127.0.0.1:1=x"], 1, "--kusto-endpoint \"DB=http://127.0.0.1:1=x\": write <name>=<value>"),
        (vec!["--kusto-endpoint", "DB=http://127.0.0.1:1", "--tag", "x"], 1, "--tag \"x\""),
        (
            vec!["--kusto-endpoint", "DB=http://127.0.0.1:1"],
            1,
            "there is no cluster: give --kubeconfig, or rules in files with --rules-dir",
        ),
        (vec!["--kusto-endpoint", "DB=https://c", "--auth-token", "a\u{1}b"], 1, "--auth-token"),
        (vec!["--nonsense"], 2, "--nonsense"),
        (vec!["lint"], 2, "--lint-dir"),
        (vec!["--help"], 0, "alerter lint --lint-dir ./rules --schema schema.kql"),
        (vec!["--version"], 0, "alerter "),
    ] {
        let (was, text) = run(&arguments).await;
        assert!(was == code && text.contains(said), "{arguments:?}: {was} {text}");
    }
}

const RULE: &str = "\
apiVersion: adx-mon.azure.com/v1
kind: AlertRule
metadata: {name: hot, namespace: ns}
spec:
  database: DB
  interval: 1h
  destination: team
  query: Cpu | where Timestamp between (_startTime .. _endTime) | project Title = Host, Severity = 1
";

#[tokio::test]
async fn lint_ends_with_a_code_for_pipelines() {
    let folder = tempfile::tempdir().unwrap();
    let (rules, schema) = (folder.path().join("rule.yaml"), folder.path().join("schema.kql"));
    std::fs::write(&rules, RULE).unwrap();
    std::fs::write(&schema, ".create table Cpu (Timestamp: datetime, Host: string)\n").unwrap();
    let (rules, schema) = (rules.to_str().unwrap(), schema.to_str().unwrap());
    assert_eq!(run(&["lint", "--lint-dir", rules, "--schema", schema]).await, (0, "1 rules, 0 errors, 0 warnings\n".to_owned()));
    std::fs::write(rules, RULE.replace("Title = Host", "Title = Name")).unwrap();
    let (code, said) = run(&["l", "--lint-dir", rules, "--schema", schema]).await;
    assert!(code == 1 && said.contains("rule.yaml:8: error: document 1, ns/hot: the query, line 1, column"), "{said}");
    // What cannot be checked is not well.
    std::fs::write(rules, "kind: SummaryRule\n").unwrap();
    let elsewhere = folder.path().join("empty");
    std::fs::create_dir(&elsewhere).unwrap();
    for (path, expected) in [
        (rules, "there is no AlertRule in "),
        (elsewhere.to_str().unwrap(), "its files *.yaml, *.yml and *.json were read, and those of its subfolders; each rule is a document"),
        ("/nowhere/at/all", "reading --lint-dir /nowhere/at/all: No such file"),
    ] {
        let (code, said) = run(&["lint", "--lint-dir", path]).await;
        assert!(code == 2 && said.contains(expected), "{path}: {code} {said}");
    }
    std::fs::write(rules, RULE).unwrap();
    let (code, said) = run(&["lint", "--lint-dir", rules, "--schema", "/nowhere/at/all"]).await;
    assert!(code == 2 && said.contains("reading --schema /nowhere/at/all"), "{code} {said}");
}

/// The whole way over TLS: a token of the machine's identity, for the schema and for the query of the rule.
#[tokio::test]
async fn a_managed_identity_opens_a_kusto_over_https() {
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("rule.yaml");
    std::fs::write(&rules, RULE).unwrap();
    let kusto = Kusto::start().await;
    let schema = json!({"Databases": {"DB": {"Name": "DB", "Tables": {"Cpu": {"Name": "Cpu", "OrderedColumns": [
        {"Name": "Timestamp", "CslType": "datetime"}, {"Name": "Host", "CslType": "string"},
    ]}}}}});
    kusto.answer("schema as json", Answer::Rows(vec![("DatabaseSchema", "string")], vec![vec![json!(schema.to_string())]]));
    let azure = Azure::before(&kusto.url).await;
    let endpoint = format!("DB={}", azure.kusto);
    let lint = async |flags: &[&str]| {
        let mut program = alerter();
        program.args(["lint", "--lint-dir", rules.to_str().unwrap(), "--kusto-endpoint", &endpoint]).args(flags);
        let output = program.envs(azure.environment()).env_remove("AZURE_CLIENT_ID").output().await.unwrap();
        (output.status.code().unwrap(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    };
    // Without the flag by the default chain, whose managed identity is that of the system.
    for (flags, parameter) in [(&["--auth-msi-id", "ID"][..], "&client_id=ID"), (&[], "")] {
        assert_eq!(lint(flags).await, (0, "1 rules, 0 errors, 0 warnings\n".to_owned()));
        let asked = azure.asked();
        let expected = format!("api-version=2018-02-01&resource=https%3A%2F%2Fkusto.kusto.windows.net{parameter}");
        assert_eq!(asked.last(), Some(&expected));
    }
    assert_eq!((azure.asked().len(), azure.refused().len(), kusto.asked("Cpu |").len()), (2, 0, 2));

    let (code, said) = lint(&["--auth-token", "HIDDEN"]).await;
    assert!(code == 2 && said.contains("has it ended") && !said.contains("HIDDEN"), "{said}");
    assert_eq!((azure.asked().len(), azure.refused()), (2, vec!["/v1/rest/mgmt".to_owned()]));
}

fn start(folder: &Path, kusto: &Kusto, receiver: &Receiver) -> Child {
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    alerter()
        .args(["--listen-address", "127.0.0.1", "--port", "0", "--kusto-endpoint", &format!("DB={}", kusto.url)])
        .args(["--rules-dir", &path("rules"), "--data-dir", &path("data"), "--alerter-address", &receiver.url])
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn a_kill_loses_no_alert_and_runs_no_window_twice() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("rules")).unwrap();
    std::fs::write(folder.path().join("rules/rule.yaml"), RULE).unwrap();
    let (kusto, receiver) = (Kusto::start().await, Receiver::start().await);
    kusto.alert("Cpu", "a");
    receiver.reply("", Reply::Status(500, Vec::new()));
    let mut child = start(folder.path(), &kusto, &receiver);
    receiver.came(1).await;
    child.kill().await.unwrap();
    receiver.reply("", Reply::Status(201, Vec::new()));
    let mut child = start(folder.path(), &kusto, &receiver);
    assert_eq!(receiver.taken(1).await[0].body["CorrelationID"], json!("ns/hot://a"));
    assert_eq!(kusto.asked("Cpu").len(), 1, "the window was done before the kill");
    child.kill().await.unwrap();
}
