//! `up --rules` with the rules of `examples/rules`, as docs/rules.md tells it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Up, eventually, eventually_within};

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// Commands of the document's `console` blocks, each with what it prints.
fn commands(document: &str) -> Vec<(String, String)> {
    let mut commands: Vec<(String, String)> = Vec::new();
    let mut inside = false;
    for line in document.lines() {
        match (inside, line, line.strip_prefix("$ ")) {
            (false, "```console", _) => inside = true,
            (true, "```", _) => inside = false,
            (true, _, Some(command)) => commands.push((command.to_owned(), String::new())),
            (true, output, None) => {
                let last = commands.last_mut().expect("output without a command");
                last.1.push_str(output);
                last.1.push('\n');
            }
            _ => {}
        }
    }
    commands
}

/// The rules of the document: `yaml` blocks of objects.
fn documented_rules(document: &str) -> Vec<&str> {
    let blocks = document.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    blocks.filter(|block| block.starts_with("apiVersion: ")).collect()
}

/// Runs `adx-mon query --format csv "…"` against this system.
fn run(up: &Up, command: &str) -> Result<String, String> {
    let query = command.strip_prefix("adx-mon query --format csv \"").and_then(|rest| rest.strip_suffix('"'));
    let query = query.unwrap_or_else(|| panic!("the test knows no such command: {command}"));
    let output = Command::new(env!("CARGO_BIN_EXE_adx-mon")).args(["query", "--endpoint", &up.kustd(), "--format", "csv", query]).output();
    let output = output.unwrap();
    let (printed, error) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr).into_owned());
    if output.status.success() { Ok(printed) } else { Err(error) }
}

/// The status of a rule, as the console lists it.
fn status(up: &Up, name: &str) -> Value {
    let list: Value = serde_json::from_str(&up.get(&up.console("/rules")).unwrap()).unwrap();
    let rules = list["rules"].as_array().unwrap();
    rules.iter().find(|rule| rule["name"] == name).unwrap_or_else(|| panic!("no {name} in {list}"))["status"].clone()
}

#[test]
fn the_document_tells_what_happens() {
    if !cfg!(target_os = "linux") {
        return;
    }
    // an overlay of the examples with a rule that cannot run: the others must not mind
    let folder = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(repository("examples/rules")).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
    }
    let bad = "apiVersion: adx-mon.azure.com/v1\nkind: AlertRule\nmetadata: {name: bad}\n\
               spec: {database: Metrics, interval: 1m, query: 'NoSuchTable | project Title = \"x\", Severity = 1'}\n";
    std::fs::write(folder.path().join("bad.yaml"), bad).unwrap();

    let document = std::fs::read_to_string(repository("docs/rules.md")).unwrap();
    let documented = documented_rules(&document);
    assert_eq!(documented.len(), 1, "the document's rules");
    std::fs::write(folder.path().join("documented.yaml"), documented[0]).unwrap();
    let labels = document.split("--cluster-labels\n").nth(1).unwrap().split('`').next().unwrap();

    let rules = folder.path().to_str().unwrap();
    let up = Up::start(&["--durability", "process", "--rules", rules, "--cluster-labels", labels]);
    assert!(up.welcome.contains("7 rules run"), "{}", up.welcome);
    let commands = commands(&document);
    assert_eq!(commands.len(), 5, "the document's commands");
    for (command, expected) in &commands {
        // rules run once a minute, over the minute before
        eventually_within(Duration::from_secs(300), command, || match run(&up, command) {
            Ok(printed) if printed == *expected => Ok(()),
            Ok(printed) => Err(format!("it printed\n{printed}instead of\n{expected}")),
            Err(error) => Err(error),
        });
    }
    eventually("the alert is logged", || {
        let log = up.process.output();
        let alert = log.lines().find(|line| line.contains("Memory is "));
        alert.filter(|line| line.contains("on-call")).map(drop).ok_or_else(|| log.clone())
    });
    eventually("the bad rule says why", || {
        let status = status(&up, "bad");
        let message = status["message"].as_str().unwrap_or_default();
        if status["status"] == "Error" && message.contains("NoSuchTable") { Ok(()) } else { Err(status.to_string()) }
    });
    eventually("the function for tests is not applied, and says so", || {
        let status = status(&up, "for-tests");
        if status["reason"] == "CriteriaNotMatched" { Ok(()) } else { Err(status.to_string()) }
    });
    eventually("the backfill is complete", || {
        let status = status(&up, "rows-by-region");
        if status["backfill"]["phase"] == "Completed" { Ok(()) } else { Err(status.to_string()) }
    });
    for rule in ["memory-full", "cpu-seconds"] {
        eventually(rule, || match status(&up, rule) {
            status if status["status"] == "Success" => Ok(()),
            status => Err(status.to_string()),
        });
    }

    // a mistake in a file is listed, and what was good before goes on
    let rollup = folder.path().join("cpu-per-minute.yaml");
    std::fs::write(&rollup, "kind: SummaryRule\nspec: [").unwrap();
    eventually("the mistake is listed", || {
        let list: Value = serde_json::from_str(&up.get(&up.console("/rules")).unwrap()).unwrap();
        let mistakes = list["mistakes"].to_string();
        if mistakes.contains("cpu-per-minute.yaml") && list["rules"].as_array().unwrap().len() == 7 {
            Ok(())
        } else {
            Err(list.to_string())
        }
    });
}

#[test]
fn a_folder_without_rules_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let run = |path: &str| {
        let base = crate::support::free_ports(7).to_string();
        let mut command = Command::new(env!("CARGO_BIN_EXE_adx-mon"));
        command.args(["up", "--no-host", "--port-base", &base, "--rules", path, "--data-dir"]).arg(folder.path().join("data"));
        let output = command.output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let empty = folder.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    assert!(run(empty.to_str().unwrap()).contains("holds no rules"));
    assert!(run("/no/such/folder").contains("/no/such/folder"));
    let rule =
        json!({ "apiVersion": "adx-mon.azure.com/v1", "kind": "SummaryRule", "metadata": { "name": "r" }, "spec": { "table": "x" } });
    std::fs::write(empty.join("wrong.json"), rule.to_string()).unwrap();
    let error = run(empty.to_str().unwrap());
    assert!(error.contains("wrong.json, document 1") && error.contains("database"), "{error}");
}
