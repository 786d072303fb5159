//! Installs what the tests need and is missing. Everything comes from the package registries through their clients.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::command::{self, exists, run_with};

/// Debian packages: (program to look for, package).
const DEBIAN: &[(&str, &str)] = &[
    ("/usr/bin/prometheus", "prometheus"),
    ("/usr/bin/prometheus-node-exporter", "prometheus-node-exporter"),
    ("/usr/bin/prometheus-alertmanager", "prometheus-alertmanager"),
    ("/usr/bin/etcd", "etcd-server"),
    ("/lib/systemd/systemd-journal-remote", "systemd-journal-remote"),
    ("/usr/bin/journalctl", "systemd"),
    ("/usr/bin/logger", "bsdutils"),
    ("/usr/bin/openssl", "openssl"),
];

/// Python packages of the client tests, pinned.
const PYTHON: &[&str] = &[
    "opentelemetry-sdk==1.45.0",
    "opentelemetry-exporter-otlp-proto-http==1.45.0",
    "opentelemetry-exporter-otlp-proto-grpc==1.45.0",
    "azure-kusto-data==6.0.4",
    "azure-kusto-ingest==6.0.4",
    "rotel==0.0.1a15",
    "msgpack==1.2.4",
    "helm-python-sdk==0.2.2",
];

/// Microsoft's emulator of Azure Storage, pinned.
const AZURITE: &str = "azurite@3.37.0";

/// Cargo tools: (arguments that show it is there, crate, version).
const CARGO: &[(&str, &str, &str)] = &[("nextest", "cargo-nextest", "0.9.143"), ("deny", "cargo-deny", "0.20.2")];

/// Installs whatever is missing.
pub(crate) fn run() -> Result<()> {
    debian()
        .and_then(|()| python())
        .and_then(|()| azurite())
        .and_then(|()| cargo())
        .and_then(|()| kube_apiserver())
        .context("installing what the tests need (docs/testing.md lists it)")
}

fn debian() -> Result<()> {
    let missing: Vec<&str> = DEBIAN.iter().filter(|(path, _)| !std::path::Path::new(path).exists()).map(|(_, package)| *package).collect();
    let mut missing = missing;
    if !exists("python3", &["-m", "venv", "--help"]) {
        missing.push("python3-venv");
    }
    if !exists("npm", &["--version"]) {
        missing.extend(["nodejs", "npm"]);
    }
    if missing.is_empty() {
        return Ok(());
    }
    if !exists("apt-get", &["--version"]) {
        bail!("these Debian packages are missing: {}; install them by hand on this system", missing.join(", "));
    }
    let (program, prefix): (&str, &[&str]) = if exists("sudo", &["-n", "true"]) { ("sudo", &["apt-get"]) } else { ("apt-get", &[]) };
    command::run(program, &[prefix, &["update", "-q"]].concat())?;
    // Services must not start by themselves: tests start their own on loopback.
    let install = [prefix, &["install", "-y", "-q", "--no-install-recommends"], &missing[..]].concat();
    run_with(program, &install, &[("DEBIAN_FRONTEND", "noninteractive"), ("RUNLEVEL", "1")])
}

/// The folder of the virtual environment that the client tests use.
pub(crate) fn venv() -> PathBuf {
    if let Some(folder) = std::env::var_os("ADXMON_PYTHON_VENV") {
        return folder.into();
    }
    cache().join("python")
}

/// Where what takes long to make is kept: the user's cache.
fn cache() -> PathBuf {
    let home = || std::env::var_os("HOME").map(PathBuf::from).unwrap_or_else(std::env::temp_dir).join(".cache");
    std::env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from).join("adx-mon")
}

/// No registry has a kube-apiserver to run, so it is built once per machine, unless one is named.
fn kube_apiserver() -> Result<()> {
    let folder = cache().join("kube");
    if std::env::var_os("ADXMON_KUBE_APISERVER").is_some() || folder.join("bin/kube-apiserver").exists() {
        return Ok(());
    }
    let folder = folder.to_str().context("the cache folder's name is not UTF-8")?;
    let otherwise = "building kube-apiserver needs Debian 12 or newer; elsewhere name one with ADXMON_KUBE_APISERVER";
    command::run("xtask/scripts/build-kube-apiserver", &[folder]).context(otherwise)
}

fn python() -> Result<()> {
    let venv = venv();
    let stamp = venv.join("installed.txt");
    let wanted = PYTHON.join("\n");
    if std::fs::read_to_string(&stamp).is_ok_and(|have| have == wanted) {
        return Ok(());
    }
    let folder = venv.to_str().context("the cache folder's name is not UTF-8")?;
    command::run("python3", &["-m", "venv", folder])?;
    let pip = format!("{folder}/bin/pip");
    command::run(&pip, &[&["install", "--quiet", "--disable-pip-version-check"], PYTHON].concat())?;
    std::fs::write(&stamp, wanted).with_context(|| format!("writing {}", stamp.display()))
}

fn azurite() -> Result<()> {
    let folder = cache().join("azurite");
    let stamp = folder.join("installed.txt");
    if std::fs::read_to_string(&stamp).is_ok_and(|have| have == AZURITE) {
        return Ok(());
    }
    std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let prefix = folder.to_str().context("the cache folder's name is not UTF-8")?;
    // none of the scripts of its dependencies is needed
    let install = ["install", "--prefix", prefix, "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error", AZURITE];
    command::run("npm", &install)?;
    std::fs::write(&stamp, AZURITE).with_context(|| format!("writing {}", stamp.display()))
}

fn cargo() -> Result<()> {
    for (subcommand, name, version) in CARGO {
        if !exists("cargo", &[subcommand, "--version"]) {
            // An unoptimised build is minutes faster and quick enough for what it does here.
            command::run("cargo", &["install", "--locked", "--debug", "--version", version, name])?;
        }
    }
    Ok(())
}
