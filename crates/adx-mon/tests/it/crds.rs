//! `adx-mon crds`: what it prints is what the generator makes, as YAML that any reader takes.

use std::process::{Command, Output};

use serde_json::Value;

const KINDS: [&str; 9] =
    ["ADXCluster", "Alerter", "AlertRule", "Collector", "Function", "Ingestor", "ManagementCommand", "MetricsExporter", "SummaryRule"];

fn crds(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_adx-mon")).arg("crds").args(arguments).output().unwrap()
}

fn documents(arguments: &[&str]) -> Vec<Value> {
    let output = crds(arguments);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    serde_saphyr::from_multiple(std::str::from_utf8(&output.stdout).unwrap()).unwrap()
}

fn kind(document: &Value) -> &str {
    document["spec"]["names"]["kind"].as_str().unwrap()
}

#[test]
fn it_prints_the_nine_definitions() {
    let printed = documents(&[]);
    for document in &printed {
        assert_eq!((&document["apiVersion"], &document["kind"]), (&"apiextensions.k8s.io/v1".into(), &"CustomResourceDefinition".into()));
        assert_eq!(document["spec"]["group"], "adx-mon.azure.com");
    }
    let mut kinds: Vec<&str> = printed.iter().map(kind).collect();
    kinds.sort_by_key(|kind| kind.to_lowercase());
    assert_eq!(kinds, KINDS);
    let generated: Vec<Value> = crds::all().iter().map(|crd| serde_json::to_value(crd).unwrap()).collect();
    assert_eq!(printed, generated);
}

#[test]
fn one_kind_goes_by_any_of_its_names() {
    for name in ["SummaryRule", "summaryrules", "sr"] {
        let printed = documents(&["--kind", name]);
        assert_eq!((printed.len(), kind(&printed[0])), (1, "SummaryRule"), "{name}");
    }
    let output = crds(&["--kind", "Nosuch"]);
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.starts_with("error: there is no kind \"Nosuch\"; there are ADXCluster, "), "{error}");
}

#[test]
fn the_help_says_what_to_do_with_them() {
    let output = crds(&["--help"]);
    assert!(output.status.success());
    let help = String::from_utf8_lossy(&output.stdout);
    for part in ["kubectl apply -f -", "--kind <KIND>", "SummaryRule, summaryrules, sr"] {
        assert!(help.contains(part), "{help}");
    }
}

/// `adx-mon crds | head -1` is no error.
#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_adx-mon")).arg("crds").stdout(std::process::Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
}
