//! The rules of ARCHITECTURE.md about who may depend on whom.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, PackageId};

const COMPONENTS: &[&str] = &["adxexporter", "alerter", "collector", "ingestor", "operator"];
/// The last one only to build the program for its tests.
const EMBEDS_THE_ENGINE: &[&str] = &["kustd", "adx-mon", "kill-testing"];
const NO_RUNTIME: &[&str] = &["wal", "telemetry", "kql", "logs"];

fn metadata() -> Metadata {
    MetadataCommand::new().manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml")).exec().unwrap()
}

/// Everything that a workspace package links, by name of the package.
fn linked(metadata: &Metadata) -> BTreeMap<String, BTreeSet<String>> {
    let resolve = metadata.resolve.as_ref().unwrap();
    let normal: BTreeMap<&PackageId, Vec<&PackageId>> = resolve
        .nodes
        .iter()
        .map(|node| {
            let links = node.deps.iter().filter(|dep| dep.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal));
            (&node.id, links.map(|dep| &dep.pkg).collect())
        })
        .collect();
    let name = |id: &PackageId| metadata[id].name.to_string();
    let reach = |start: &PackageId| {
        let mut seen = BTreeSet::new();
        let mut open = vec![start.clone()];
        while let Some(id) = open.pop() {
            for next in normal.get(&id).into_iter().flatten() {
                if seen.insert((*next).clone()) {
                    open.push((*next).clone());
                }
            }
        }
        seen.iter().map(name).collect::<BTreeSet<_>>()
    };
    metadata.workspace_members.iter().map(|id| (name(id), reach(id))).collect()
}

#[test]
fn only_kustd_links_the_engine() {
    for (package, linked) in linked(&metadata()) {
        let engine = linked.iter().find(|name| name.starts_with("datafusion") || name.starts_with("arrow") || *name == "parquet");
        if !EMBEDS_THE_ENGINE.contains(&package.as_str()) {
            assert_eq!(engine, None, "{package} must not link the query engine");
        }
    }
}

#[test]
fn core_crates_know_no_runtime_http_or_kubernetes() {
    let forbidden = ["tokio", "hyper", "axum", "reqwest", "kube", "k8s-openapi", "async-std", "smol"];
    let linked = linked(&metadata());
    for package in NO_RUNTIME {
        let found: Vec<_> = forbidden.iter().filter(|name| linked[*package].contains(**name)).collect();
        assert!(found.is_empty(), "{package} must not link {found:?}");
    }
}

#[test]
fn components_do_not_depend_on_each_other() {
    let linked = linked(&metadata());
    for package in COMPONENTS {
        let others: Vec<_> = COMPONENTS.iter().filter(|other| *other != package && linked[*package].contains(**other)).collect();
        assert!(others.is_empty(), "{package} must meet {others:?} over HTTP only");
    }
}

#[test]
fn one_tls_stack() {
    for package in metadata().packages {
        assert!(!["openssl-sys", "aws-lc-sys", "native-tls"].contains(&package.name.as_str()), "{} is a second TLS stack", package.name);
    }
}

#[test]
fn versions_and_features_are_named_once_with_a_reason() {
    let root = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml")).unwrap();
    let dependencies = root.split("[workspace.dependencies]").nth(1).unwrap().split("\n[").next().unwrap();
    let lines = dependencies.lines().filter(|line| !line.is_empty() && !line.starts_with('#') && !line.contains("path = "));
    for line in lines {
        assert!(line.contains(" # "), "a dependency without a reason: {line}");
    }
    let metadata = metadata();
    for id in &metadata.workspace_members {
        let manifest = std::fs::read_to_string(&metadata[id].manifest_path).unwrap();
        let versions: Vec<_> = manifest.lines().filter(|line| line.contains("version = \"") || line.contains("features = [")).collect();
        let own: Vec<_> = versions.iter().filter(|line| !line.trim_start().starts_with("default = ")).collect();
        assert!(own.is_empty(), "{} names versions or features of its own: {own:?}", metadata[id].name);
    }
}

#[test]
fn unsafe_code_is_only_where_it_is_listed() {
    let metadata = metadata();
    let architecture = std::fs::read_to_string(metadata.workspace_root.join("ARCHITECTURE.md")).unwrap();
    for id in &metadata.workspace_members {
        let folder = metadata[id].manifest_path.parent().unwrap().join("src");
        for file in rust_files(folder.as_std_path()) {
            let text = std::fs::read_to_string(&file).unwrap();
            let keyword = ["unsafe", " {"].concat();
            if text.contains(&keyword) || text.contains("allow(unsafe_code)") && !file.ends_with("architecture.rs") {
                let name = file.strip_prefix(metadata.workspace_root.as_std_path()).unwrap().display().to_string();
                assert!(architecture.contains(&name), "{name} has unsafe code and is not listed in ARCHITECTURE.md");
            }
        }
    }
}

fn rust_files(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}
