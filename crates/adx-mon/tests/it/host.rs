//! What a newcomer sees: the host's own telemetry, through the queries that `up` prints.

use std::path::PathBuf;
use std::process::Command;

use crate::support::{Up, eventually};

fn run_query(up: &Up, args: &[&str]) -> (bool, String, String) {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_adx-mon"));
    let output = Command::new(program).arg("query").args(["--endpoint", &up.kustd()]).args(args).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn the_printed_queries_answer() {
    let up = Up::start(&[]);
    // Started by its path, it prints the path: a shell need not know the name.
    let program = format!("{} query ", env!("CARGO_BIN_EXE_adx-mon"));
    let printed = up.welcome.lines().filter_map(|line| line.trim().strip_prefix(program.as_str()));
    let queries: Vec<&str> = printed.filter_map(|line| line.split('"').nth(1)).collect();
    assert_eq!(queries.len(), 3, "{}", up.welcome);
    for query in queries {
        eventually(query, || {
            let (ok, out, err) = run_query(&up, &[query, "--format", "csv"]);
            if ok && out.lines().count() > 1 { Ok(()) } else { Err(format!("{out}{err}")) }
        });
    }
}

#[test]
fn query_formats_and_errors() {
    let up = Up::start(&["--no-host"]);
    let (ok, out, _) = run_query(&up, &["print a = 1, b = 'x,y'", "--format", "csv"]);
    assert!(ok);
    assert_eq!(out, "a,b\n1,\"x,y\"\n");
    let (ok, out, _) = run_query(&up, &["print a = dynamic({\"k\": [1, 2]})", "--format", "json"]);
    assert!(ok);
    assert_eq!(out, "{\"a\":{\"k\":[1,2]}}\n");
    let (ok, out, _) = run_query(&up, &[".show databases | project DatabaseName | order by DatabaseName asc", "--format", "csv"]);
    assert!(ok);
    assert_eq!(out, "DatabaseName\nLogs\nMetrics\nNetDefaultDB\n");
    // The error names the column, shows the line and points at the place.
    let (ok, _, err) = run_query(&up, &["print a = 1\n| where nosuch > 2"]);
    assert!(!ok);
    assert!(err.contains("nosuch") && err.contains("| where nosuch > 2") && err.contains("^^^^^^"), "{err}");
}

#[test]
fn a_second_instance_and_a_taken_port_are_clear_errors() {
    let up = Up::start(&["--no-host"]);
    let program = env!("CARGO_BIN_EXE_adx-mon");
    let data = up.folder.path().join("data");
    let output = Command::new(program).args(["up", "--data-dir"]).arg(&data).args(["--port-base", "1"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains("another adx-mon runs in"), "{text}");
    let port = up.kustd().rsplit(':').next().unwrap().to_owned();
    let other = tempfile::tempdir().unwrap();
    let output = Command::new(program).args(["up", "--data-dir"]).arg(other.path()).args(["--port-base", &port]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains("ports are taken") && text.contains(&port), "{text}");
}
