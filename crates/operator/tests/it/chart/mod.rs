//! The Helm chart: rendered by Helm's own engine, and compared with what the operator makes of the same settings.

mod cluster;
mod equal;
mod generated;
mod rendered;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

/// Names of the examples of the chart.
const EXAMPLES: [&str; 3] = ["laptop", "azure", "components"];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/helm/adx-mon")
}

/// The values of an example.
fn example(name: &str) -> Value {
    let text = std::fs::read_to_string(folder().join(format!("examples/{name}.yaml"))).unwrap();
    serde_saphyr::from_str(&text).unwrap()
}

/// What Helm answers; none where the Python with Helm's library is missing, which in CI is a failure.
fn helm(command: &str, asked: &Value) -> Option<Result<Value, String>> {
    let python = python()?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/chart/helm.py");
    let mut running = Command::new(python)
        .arg(script)
        .arg(folder())
        .arg(command)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    running.stdin.take().unwrap().write_all(asked.to_string().as_bytes()).unwrap();
    let ended = running.wait_with_output().unwrap();
    Some(match ended.status.success() {
        true => Ok(serde_json::from_slice(&ended.stdout).unwrap()),
        false => Err(String::from_utf8_lossy(&ended.stderr).into_owned()),
    })
}

fn python() -> Option<PathBuf> {
    let cache = || {
        let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
        Some(std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home)?.join("adx-mon/python"))
    };
    let python = std::env::var_os("ADXMON_PYTHON_VENV").map(PathBuf::from).or_else(cache)?.join("bin/python");
    if python.exists() {
        return Some(python);
    }
    assert!(!std::env::var("CI").is_ok_and(|ci| ci == "true"), "{} is missing", python.display());
    eprintln!("not run: the Python test environment is missing; `cargo xtask setup` installs it");
    None
}

/// The objects of a release `rel` in the namespace `mon` for each of several values, or what is wrong with them.
fn render(values: &[Value]) -> Option<Vec<Result<Vec<Value>, String>>> {
    let asked = values.iter().map(|values| json!({"name": "rel", "namespace": "mon", "values": values})).collect();
    let answers = helm("render", &asked)?.unwrap();
    let objects = |answer: &Value| match &answer["error"] {
        Value::String(error) => Err(error.clone()),
        _ => Ok(answer["files"].as_object().unwrap().iter().filter(|(file, _)| file.ends_with(".yaml")).flat_map(documents).collect()),
    };
    Some(answers.as_array().unwrap().iter().map(objects).collect())
}

fn documents((file, text): (&String, &Value)) -> Vec<Value> {
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(text.as_str().unwrap()).unwrap_or_else(|error| panic!("{file}: {error}\n{text}"));
    documents.into_iter().filter(|document| !document.is_null()).collect()
}

/// `Kind name`
fn key(object: &Value) -> String {
    format!("{} {}", object["kind"].as_str().unwrap(), object["metadata"]["name"].as_str().unwrap())
}

/// The documents of a text.
fn yaml(text: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(text).unwrap()
}
