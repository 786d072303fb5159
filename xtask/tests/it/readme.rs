//! The README's commands are commands that cargo accepts: packages, profiles and aliases by those names exist.

use std::path::Path;
use std::process::Command;

/// Lines of the README's shell blocks.
fn commands() -> Vec<String> {
    let text = std::fs::read_to_string(root().join("README.md")).unwrap();
    text.split("```sh\n").skip(1).flat_map(|block| block.split("```").next().unwrap().lines().map(str::to_owned)).collect()
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn cargo(args: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO")).args(args).current_dir(root()).env("RUSTC_BOOTSTRAP", "1").output().unwrap()
}

#[test]
fn what_the_readme_runs_can_be_built() {
    let mut seen = 0;
    for line in commands() {
        if let Some(rest) = line.strip_prefix("cargo run ") {
            let build = rest.split(" -- ").next().unwrap();
            // Resolves everything that a build would and prints its plan instead of building.
            let plan =
                [&["build"], &build.split(' ').collect::<Vec<_>>()[..], &["--offline", "-Z", "unstable-options", "--unit-graph"]].concat();
            let output = cargo(&plan);
            assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
            assert!(String::from_utf8_lossy(&output.stdout).contains("adx-mon"), "{line}");
            seen += 1;
        }
    }
    assert!(seen >= 2, "the README has no `cargo run` any more");
    assert!(commands().iter().any(|line| line == "cargo xtask test"), "the README has no test command");
}
