//! The images, which are not built in any test: what their Dockerfile names exists, and what it makes is what is installed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::samples::all;

const DOCKERFILE: &str = include_str!("../../../../deploy/docker/Dockerfile");

fn root() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A stage: its name, what it begins with, and its instructions with their arguments.
type Stage = (String, String, Vec<(String, String)>);

fn stages() -> Vec<Stage> {
    let mut stages: Vec<Stage> = Vec::new();
    for line in DOCKERFILE.replace("\\\n", " ").lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (instruction, arguments) = line.split_once(' ').unwrap_or_else(|| panic!("{line} has no arguments"));
        if instruction == "FROM" {
            let (base, name) = arguments.split_once(" AS ").unwrap_or_else(|| panic!("{line} has no name"));
            stages.push((name.to_owned(), base.to_owned(), Vec::new()));
            continue;
        }
        assert!(["WORKDIR", "COPY", "ARG", "RUN", "USER", "ENTRYPOINT"].contains(&instruction), "{line}");
        stages.last_mut().unwrap().2.push((instruction.to_owned(), arguments.to_owned()));
    }
    stages
}

/// Image and command of every container that the operator installs, and of its own.
fn installed() -> BTreeMap<String, String> {
    let mut commands = BTreeMap::from([("operator".to_owned(), "/operator".to_owned())]);
    for (name, rendered) in all().into_iter().filter(|(name, _)| !name.contains(", all")) {
        for object in rendered.workloads() {
            let container = &object.body["spec"]["template"]["spec"]["containers"][0];
            let image = container["image"].as_str().unwrap();
            let image = image.strip_prefix("ghcr.io/azure/adx-mon/").and_then(|image| image.strip_suffix(":latest"));
            let command = container["command"][0].as_str().unwrap().to_owned();
            commands.insert(image.unwrap_or_else(|| panic!("{name}: {container}")).to_owned(), command);
        }
    }
    commands
}

#[test]
fn there_is_an_image_for_everything_that_is_installed() {
    let stages = stages();
    let mut entries = BTreeMap::new();
    for (name, base, instructions) in &stages[2..] {
        assert_eq!(base, "base", "{name}");
        let of = |wanted: &str| &instructions.iter().find(|(instruction, _)| instruction == wanted).unwrap().1;
        let (from, to) = of("COPY").strip_prefix("--from=build ").unwrap().split_once(' ').unwrap();
        assert_eq!(from, format!("/out/{name}"));
        assert_eq!(of("ENTRYPOINT"), &format!("[\"{to}\"]"), "{name}");
        entries.insert(name.clone(), to.to_owned());
    }
    assert_eq!(entries, installed());
}

#[test]
fn what_is_built_exists() {
    let stages = stages();
    let (name, base, build) = &stages[0];
    assert_eq!(name, "build");
    let manifest: toml::Table = std::fs::read_to_string(root().join("Cargo.toml")).unwrap().parse().unwrap();
    let rust = manifest["workspace"]["package"]["rust-version"].as_str().unwrap();
    assert_eq!(base, &format!("rust:{rust}-bookworm"), "the toolchain is not the one that the workspace asks for");
    let run = &build.iter().find(|(instruction, _)| instruction == "RUN").unwrap().1;
    assert!(run.contains("cargo build --locked --profile \"$PROFILE\""), "{run}");
    let words: Vec<&str> = run.split_whitespace().collect();
    let packages: BTreeSet<&str> = words.windows(2).filter(|pair| pair[0] == "-p" && pair[1] != "&&").map(|pair| pair[1]).collect();
    let copied = run.rsplit_once(" cp ").unwrap().1.split_whitespace().filter(|word| *word != "/out/");
    let copied: BTreeSet<&str> = copied.map(|path| path.rsplit('/').next().unwrap()).collect();
    let images: BTreeSet<String> = installed().into_keys().collect();
    assert_eq!(packages, images.iter().map(String::as_str).collect());
    assert_eq!(copied, packages);
    for package in packages {
        let manifest: toml::Table =
            std::fs::read_to_string(root().join("crates").join(package).join("Cargo.toml")).unwrap().parse().unwrap();
        assert_eq!(manifest["package"]["name"].as_str(), Some(package));
        let main = root().join("crates").join(package).join("src/main.rs");
        assert!(main.exists(), "{package} has no program");
    }
    let profile = build.iter().find(|(instruction, arguments)| instruction == "ARG" && arguments.starts_with("PROFILE=")).unwrap();
    let profiles = words.windows(2).filter(|pair| pair[0] == "--profile").map(|pair| pair[1]);
    for profile in profiles.filter(|profile| *profile != "\"$PROFILE\"").chain([profile.1.trim_start_matches("PROFILE=")]) {
        assert!(manifest["profile"].as_table().unwrap().contains_key(profile), "there is no profile {profile}");
    }
}

/// As its user, whose number is that of the pods; and with the chown that the collectors' pods begin with.
#[test]
fn nothing_runs_as_root() {
    let stages = stages();
    let (name, base, instructions) = &stages[1];
    assert_eq!((name.as_str(), base.as_str()), ("base", "debian:bookworm-slim"));
    let users: Vec<&(String, String)> = stages.iter().flat_map(|stage| &stage.2).filter(|(instruction, _)| instruction == "USER").collect();
    assert_eq!(users, [&("USER".to_owned(), "1000:3000".to_owned())]);
    assert_eq!(instructions.last().unwrap().0, "USER");
}
