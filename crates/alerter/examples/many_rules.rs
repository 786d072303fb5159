//! Measures an alerter with many rules: how late each run is, what alerter and kustd use, how much is written.
//!
//! ```sh
//! cargo build --release -p kustd -p alerter
//! cargo run --release -p alerter --example many_rules -- target/release/kustd target/release/alerter
//! ```
//!
//! With `--kube` the rules are objects of an API server, whose requests are counted; otherwise they are files.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use axum::http::StatusCode;
use axum::routing::post;
use clap::Parser;
use crds::{AlertRule, AlertRuleSpec};
use jiff::Timestamp;
use kube_client::Client as KubeClient;
use kube_client::api::{Api, PostParams};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::Instant;

/// Rows of the table that every rule looks at.
const ROWS: usize = 10_000;
/// One rule of so many finds something.
const FIRES: usize = 100;
/// Between two looks at the table of rules: less than their interval, so that no run is missed.
const LOOK: Duration = Duration::from_secs(20);

/// Measures an alerter with many rules.
#[derive(Parser)]
struct Arguments {
    /// The program `kustd`.
    kustd: PathBuf,
    /// The program `alerter`.
    alerter: PathBuf,
    /// Rules, each with an interval of a minute.
    #[arg(long, default_value_t = 2000)]
    rules: usize,
    /// For how long.
    #[arg(long, default_value_t = 3)]
    minutes: u64,
    /// Rules from an API server instead of files.
    #[arg(long)]
    kube: bool,
}

/// Runs that were seen: rule and beginning, and how late it was in seconds.
type Runs = BTreeMap<(String, Timestamp), f64>;

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    server::install_crypto();
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name).display().to_string();
    let flags = ["--data-dir", &path("kustd"), "--listen", "127.0.0.1:0", "--databases", "Metrics"];
    let (kustd, kusto) = start(&arguments.kustd, &flags, "kustd is ready").await?;
    fill(&kusto).await?;

    let delivered = Arc::new(AtomicUsize::new(0));
    let receiver = receiver(delivered.clone()).await?;
    let server = match arguments.kube {
        true => Some(kube_testing::start(&[]).await.context("there is no API server")?),
        false => None,
    };
    let rules_from = match &server {
        Some(server) => {
            server.install_crds().await?;
            create(server.admin().await, arguments.rules).await?;
            ["--kubeconfig".to_owned(), server.kubeconfig("admin").display().to_string()]
        }
        None => {
            write(&folder.path().join("rules"), arguments.rules)?;
            ["--rules-dir".to_owned(), path("rules")]
        }
    };
    let (database, data) = (format!("Metrics=http://{kusto}"), path("alerter"));
    let mut flags = vec!["--kusto-endpoint", &database, "--alerter-address", &receiver, "--data-dir", &data];
    flags.extend(["--listen-address", "127.0.0.1", "--port", "0"]);
    flags.extend(rules_from.iter().map(String::as_str));
    let before = requests(server.as_ref()).await?;
    let kustd_before = cpu(&kustd)?;
    let (alerter, address) = start(&arguments.alerter, &flags, "alerter runs").await?;
    println!("{} rules, {ROWS} rows, {} minutes", arguments.rules, arguments.minutes);

    let (mut runs, mut failures) = (Runs::new(), BTreeSet::new());
    let (began, mut busy) = (Instant::now(), 0.0);
    for minute in 1..=arguments.minutes {
        while began.elapsed() < Duration::from_secs(60 * minute) {
            tokio::time::sleep(LOOK).await;
            look(&address, &mut runs, &mut failures).await?;
        }
        let now = cpu(&alerter)?;
        println!("minute {minute}: {:.1} seconds of CPU time for the alerter", now - busy);
        busy = now;
    }
    let elapsed = began.elapsed().as_secs_f64();
    report("all runs", runs.values().copied());
    report("runs after the first minute", began_after(&runs, Duration::from_secs(60)));
    println!("rules that ran: {}", runs.keys().map(|(rule, _)| rule).collect::<BTreeSet<_>>().len());
    failures.iter().take(5).for_each(|failure| println!("failed: {failure}"));
    println!("alerter: {:.1} % of a core, {} MB at most", cpu(&alerter)? / elapsed * 100.0, peak_mb(&alerter)?);
    println!("kustd: {:.1} % of a core", (cpu(&kustd)? - kustd_before) / elapsed * 100.0);
    println!("notifications delivered: {}", delivered.load(Ordering::Relaxed));
    let metrics = get(&address, "metrics").await?;
    metrics.lines().filter(|line| line.contains("status_writes") && !line.starts_with('#')).for_each(|line| println!("{line}"));
    for (request, count) in requests(server.as_ref()).await? {
        let more = count - before.get(&request).copied().unwrap_or(0.0);
        if more > 0.0 {
            println!("API server: {more} of {request}");
        }
    }
    Ok(())
}

/// Starts a program and waits for the line that says where it listens.
async fn start(program: &Path, flags: &[&str], ready: &str) -> Result<(Child, String)> {
    let mut command = Command::new(program);
    command.args(flags).env("LOG_LEVEL", "INFO").env_remove("KUBECONFIG").stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().with_context(|| format!("starting {}", program.display()))?;
    let mut lines = BufReader::new(child.stdout.take().context("no output")?).lines();
    loop {
        let line = lines.next_line().await?.with_context(|| format!("{} has ended", program.display()))?;
        if line.contains(ready) {
            let line: Value = serde_json::from_str(&line)?;
            let address = line["address"].as_str().with_context(|| format!("no address in {line}"))?.to_owned();
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return Ok((child, address));
        }
    }
}

/// A table whose rows all lie behind the start of every window, so that every query reads all of them.
async fn fill(kusto: &str) -> Result<()> {
    let client = kusto::Client::new(&format!("http://{kusto}"))?;
    client.mgmt("Metrics", ".create table Metric (Timestamp: datetime, SeriesId: long, Labels: dynamic, Value: real)").await?;
    let rows = format!(
        ".set-or-append Metric <| range i from 1 to {ROWS} step 1 | project Timestamp = now() + 1h + i * 1s, SeriesId = i % 1000, \
         Labels = bag_pack('host', strcat('host-', i % 50), 'cpu', tostring(i % 16)), Value = todouble(i % 1000)"
    );
    client.mgmt("Metrics", &rows).await?;
    let count = client.query("Metrics", "Metric | count", &kusto::QueryOptions::default()).await?;
    ensure!(count.tables[0].rows[0][0] == ROWS, "the table has {:?} rows", count.tables[0].rows);
    Ok(())
}

fn rule(at: usize) -> AlertRule {
    // The largest values of hosts are 950 to 999.
    let limit = if at.is_multiple_of(FIRES) { 997 } else { 5000 };
    let query = format!(
        "Metric | where Timestamp > _startTime | summarize Most = max(Value) by Host = tostring(Labels.host) | where Most > {limit} \
         | project Title = strcat(Host, ' is hot'), Severity = 3, CorrelationId = Host, Most"
    );
    let spec =
        AlertRuleSpec { database: "Metrics".into(), interval: "1m".into(), destination: "team".into(), query, ..AlertRuleSpec::default() };
    AlertRule::new(&format!("rule-{at}"), spec)
}

fn write(folder: &Path, count: usize) -> Result<()> {
    std::fs::create_dir(folder)?;
    for at in 0..count {
        let mut rule = serde_json::to_value(rule(at))?;
        rule["metadata"]["namespace"] = "default".into();
        // JSON is YAML.
        std::fs::write(folder.join(format!("rule-{at}.yaml")), rule.to_string())?;
    }
    Ok(())
}

async fn create(client: KubeClient, count: usize) -> Result<()> {
    let api: Api<AlertRule> = Api::namespaced(client, "default");
    for at in 0..count {
        api.create(&PostParams::default(), &rule(at)).await?;
    }
    Ok(())
}

/// Takes every notification.
async fn receiver(delivered: Arc<AtomicUsize>) -> Result<String> {
    let take = move || async move {
        delivered.fetch_add(1, Ordering::Relaxed);
        StatusCode::CREATED
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, axum::Router::new().route("/alerts", post(take))).await });
    Ok(url)
}

async fn get(address: &str, path: &str) -> Result<String> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    Ok(client.get(format!("http://{address}/{path}")).send().await?.error_for_status()?.text().await?)
}

/// Takes down the last run of every rule.
async fn look(address: &str, runs: &mut Runs, failures: &mut BTreeSet<String>) -> Result<()> {
    let table: BTreeMap<String, Value> = serde_json::from_str(&get(address, "debug/rules").await?)?;
    for (rule, facts) in table {
        let last = &facts["last"];
        let (Some(began), Some(late)) = (last["began"].as_str(), last["lateSeconds"].as_f64()) else { continue };
        if last["message"] != "" {
            failures.insert(format!("{}: {}", last["outcome"], last["message"]));
        }
        runs.insert((rule, began.parse()?), late);
    }
    Ok(())
}

fn began_after(runs: &Runs, after: Duration) -> impl Iterator<Item = f64> {
    let first = runs.keys().map(|(_, began)| *began).min().unwrap_or_default();
    let start = first.saturating_add(after).unwrap_or(Timestamp::MAX);
    runs.iter().filter(move |((_, began), _)| *began > start).map(|(_, late)| *late)
}

fn report(what: &str, late: impl Iterator<Item = f64>) {
    let mut late: Vec<f64> = late.collect();
    late.sort_by(f64::total_cmp);
    let Some(last) = late.len().checked_sub(1) else { return println!("{what}: none") };
    let quantile = |q: f64| late[(last as f64 * q).round() as usize];
    println!(
        "{what}: {} runs, late by {:.3} s (p50), {:.3} s (p99), {:.3} s at most",
        late.len(),
        quantile(0.5),
        quantile(0.99),
        late[last]
    );
}

fn process(child: &Child) -> Result<procfs::process::Process> {
    Ok(procfs::process::Process::new(i32::try_from(child.id().context("the process has ended")?)?)?)
}

/// Seconds of CPU time.
fn cpu(child: &Child) -> Result<f64> {
    let stat = process(child)?.stat()?;
    Ok((stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64)
}

fn peak_mb(child: &Child) -> Result<u64> {
    Ok(process(child)?.status()?.vmhwm.context("no VmHWM")? / 1024)
}

/// Requests that the API server has counted, by verb and resource.
async fn requests(server: Option<&kube_testing::ApiServer>) -> Result<BTreeMap<String, f64>> {
    let Some(server) = server else { return Ok(BTreeMap::new()) };
    let request = http::Request::get("/metrics").body(Vec::new())?;
    let text = server.admin().await.request_text(request).await?;
    let mut counts: BTreeMap<String, f64> = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with("apiserver_request_total{")) {
        let label = |name: &str| line.split(&format!("{name}=\"")).nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default();
        if ["alertrules", "leases", "configmaps", "events"].contains(&label("resource")) {
            let request = format!("{} {} {} {}", label("verb"), label("resource"), label("subresource"), label("code"));
            *counts.entry(request).or_default() += line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()).unwrap_or(0.0);
        }
    }
    Ok(counts)
}
