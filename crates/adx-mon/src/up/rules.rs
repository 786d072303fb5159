//! The rules of `up --rules`: the same YAML as in a cluster, read from a folder, run against the Kusto at hand, with their
//! state in the data folder.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use adxexporter::push::PushConfig;
use anyhow::{Context as _, Result};
use axum::Json;
use axum::routing::get;
use crds::{AlertRule, Function, ManagementCommand, MetricsExporter, SummaryRule, criteria};
use kusto::QueryOptions;
use prometheus_client::registry::Registry;
use rules::clock::SystemClock;
use rules::function::Functions;
use rules::lease::Leader;
use rules::management_command::ManagementCommands;
use rules::store::files::{FileStore, Folder};
use rules::store::{Object, Objects, Store};
use rules::summary::operations::Kusto;
use rules::summary::{Owner, Runner};
use rules::target::{self, Deployment, Target};
use rules::unserved::{Served, Unserved};
use rules::{runner, summary};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::data_dir::DataDir;
use super::{LOGS, METRICS, Ports};

const WAY_OUT: &str = "rules of `up` are about Metrics and Logs";
/// How long alerts wait for the first data.
const FIRST_DATA: Duration = Duration::from_secs(60);

/// Rules that run.
pub(super) struct Rules {
    alerter: JoinHandle<Result<()>>,
    exporter: adxexporter::Running,
    others: TaskTracker,
    stop: CancellationToken,
    /// Answers `/rules` and `/rules/metrics`.
    pub(super) router: axum::Router,
    /// How many rules there are.
    pub(super) count: usize,
}

/// The rules of one kind.
struct Kinds {
    alerts: Arc<FileStore<AlertRule>>,
    exporters: Arc<FileStore<MetricsExporter>>,
    functions: Arc<FileStore<Function>>,
    commands: Arc<FileStore<ManagementCommand>>,
    summaries: Arc<FileStore<SummaryRule>>,
}

impl Kinds {
    async fn of(folder: &Folder) -> Kinds {
        Kinds {
            alerts: Arc::new(folder.store().await),
            exporters: Arc::new(folder.store().await),
            functions: Arc::new(folder.store().await),
            commands: Arc::new(folder.store().await),
            summaries: Arc::new(folder.store().await),
        }
    }

    /// All rules, with their status.
    fn list(&self) -> Vec<Value> {
        let mut list = Vec::new();
        described(&self.alerts.objects(), &mut list);
        described(&self.exporters.objects(), &mut list);
        described(&self.functions.objects(), &mut list);
        described(&self.commands.objects(), &mut list);
        described(&self.summaries.objects(), &mut list);
        list
    }
}

fn described<K: Object>(objects: &Objects<K>, list: &mut Vec<Value>) {
    for (key, object) in objects.snapshot().iter() {
        let status = serde_json::to_value(&**object).map_or(Value::Null, |mut object| object["status"].take());
        list.push(json!({ "kind": K::kind(&()), "namespace": key.namespace, "name": key.name, "status": status }));
    }
}

impl Rules {
    /// Reads the rules of `path`, a folder or a file, and starts to run those that are meant for these labels.
    pub(super) async fn start(path: &Path, labels: BTreeMap<String, String>, ports: &Ports, data_dir: &DataDir) -> Result<Rules> {
        let folder = Folder::open(path, &data_dir.folder("rules")?)?;
        let kinds = Arc::new(Kinds::of(&folder).await);
        let count = kinds.list().len();
        let mut mistakes: Vec<String> = folder.errors().iter().map(ToString::to_string).collect();
        if count == 0 && mistakes.is_empty() {
            mistakes.push(format!("{} holds no rules: no YAML document of a kind that `adx-mon crds` lists", path.display()));
        }
        anyhow::ensure!(mistakes.is_empty(), "{}", mistakes.join("\n"));

        let stop = CancellationToken::new();
        let kusto = format!("http://{}", ports.kustd);
        let mut registry = Registry::default();
        let others = TaskTracker::new();
        let targets = [METRICS, LOGS].map(|database| anyhow::Ok(Target::new(database, client(&kusto)?)));
        let deployment = Deployment::new("adx-mon up", targets.into_iter().collect::<Result<Vec<_>>>()?);
        let applied = target::Metrics::default();
        applied.register(&mut registry);
        let clients = [METRICS, LOGS].map(|database| anyhow::Ok((database.to_owned(), client(&kusto)?)));
        let clients = clients.into_iter().collect::<Result<BTreeMap<_, _>>>()?;
        let served = Served::of("adx-mon up", WAY_OUT, &clients);
        let cluster: criteria::Labels = labels.clone().into_iter().collect();
        let mut executors: Vec<Box<dyn runner::Executor>> = vec![
            Box::new(Unserved::<Function>::new(kinds.functions.clone(), served.clone(), cluster.clone())),
            Box::new(Unserved::<ManagementCommand>::new(kinds.commands.clone(), served.clone(), cluster.clone())),
            Box::new(Unserved::<SummaryRule>::new(kinds.summaries.clone(), served, cluster.clone())),
        ];
        executors.extend(Functions::of_each_endpoint(kinds.functions.clone(), &deployment, &cluster, &applied));
        executors.extend(ManagementCommands::of_each_endpoint(kinds.commands.clone(), &deployment, &cluster, &applied));
        others.spawn(runner::run(executors, Leader::always(), Arc::new(SystemClock), stop.clone()));

        let rollups = summary::metrics::Metrics::default();
        rollups.register(&mut registry);
        let clusters = [METRICS, LOGS].map(|name| anyhow::Ok((name.to_owned(), Arc::new(client(&kusto)?) as Arc<dyn Kusto>)));
        let clusters = clusters.into_iter().collect::<Result<BTreeMap<_, _>>>()?;
        let summaries = Runner::new(kinds.summaries.clone(), clusters, &labels, Owner::Ingestor, Arc::new(SystemClock), rollups);
        others.spawn(summaries.run(Leader::always(), stop.clone()));
        others.close();

        let databases = [METRICS, LOGS].map(|name| anyhow::Ok((name.to_owned(), client(&kusto)?)));
        let databases = databases.into_iter().collect::<Result<BTreeMap<_, _>>>()?;
        let push = PushConfig { resource: labels.clone(), ..PushConfig::new(&format!("http://{}/v1/metrics", ports.otlp_http)) };
        let source = adxexporter::Rules::Stores { exporters: kinds.exporters.clone(), summary_rules: None, leader: Leader::always() };
        let exporter = adxexporter::Config { labels: labels.clone(), ..adxexporter::Config::new(databases, push, source) };
        let exporter = adxexporter::start(exporter, stop.clone()).await.context("starting the exporter of metrics")?;

        let config = alerter_config(labels, ports, &kusto, data_dir)?;
        let alerter = alerts(client(&kusto)?, config, surroundings(&kinds, &folder), stop.clone());
        let alerter = tokio::spawn(alerter);

        let listed = get(move || async move { Json(json!({ "rules": kinds.list(), "mistakes": mistakes_of(&folder) })) });
        let metrics = server::metrics_endpoint(Arc::new(registry));
        let router = axum::Router::new().route("/rules", listed).route("/rules/metrics", metrics);
        Ok(Rules { alerter, exporter, others, stop, router, count })
    }

    /// Stops all of it; what is on its way is taken up at the next start.
    pub(super) async fn stop(self) -> Result<()> {
        self.stop.cancel();
        self.others.wait().await;
        self.exporter.finished().await.context("stopping the exporter of metrics")?;
        self.alerter.await.context("stopping the alerter")?
    }
}

/// Runs the alerter once there is data to ask for: on an empty Kusto the first run of each rule would report that its table
/// does not exist.
async fn alerts(kusto: kusto::Client, config: alerter::Config, surroundings: alerter::Surroundings, stop: CancellationToken) -> Result<()> {
    if stop.run_until_cancelled(tokio::time::timeout(FIRST_DATA, first_data(&kusto))).await.is_none() {
        return Ok(());
    }
    let run = async { alerter::start(config, surroundings, stop).await.context("starting the alerter")?.finished().await };
    run.await.inspect_err(|error| tracing::error!("alerts do not run: {error:#}"))
}

/// Returns when a second round of scrapes is in the database, so that all tables of the first one are.
async fn first_data(kusto: &kusto::Client) {
    const QUERY: &str = "Up | summarize Span = max(Timestamp) - min(Timestamp) | where Span > 8s";
    let mut looks = tokio::time::interval(Duration::from_millis(500));
    loop {
        looks.tick().await;
        let answer = kusto.query(METRICS, QUERY, &QueryOptions::default()).await;
        if answer.is_ok_and(|answer| answer.primary().is_some_and(|table| !table.rows.is_empty())) {
            return;
        }
    }
}

fn mistakes_of(folder: &Folder) -> Vec<String> {
    folder.errors().iter().map(ToString::to_string).collect()
}

fn client(kusto: &str) -> Result<kusto::Client> {
    Ok(kusto::Client::builder(kusto).application("adx-mon-up").build()?)
}

/// The labels `cloud` and `region` are settings of the alerter.
fn alerter_config(mut labels: BTreeMap<String, String>, ports: &Ports, kusto: &str, data_dir: &DataDir) -> Result<alerter::Config> {
    Ok(alerter::Config {
        listen: ports.alerter,
        kusto_endpoints: [METRICS, LOGS].map(|name| (name.to_owned(), kusto.to_owned())).into(),
        credentials: None,
        trusted_hosts: Vec::new(),
        cloud: labels.remove("cloud").unwrap_or_default(),
        region: labels.remove("region").unwrap_or_else(|| "local".to_owned()),
        tags: labels,
        alerter_address: String::new(),
        alertmanager_url: None,
        concurrency: 4,
        max_notifications: 25,
        data_dir: data_dir.folder("alerter")?,
        deadlines: alerter::Deadlines::default(),
        profiles: false,
    })
}

fn surroundings(kinds: &Kinds, folder: &Folder) -> alerter::Surroundings {
    let folder = folder.clone();
    alerter::Surroundings {
        store: kinds.alerts.clone(),
        clock: Arc::new(SystemClock),
        cluster: None,
        problem: Arc::new(move || folder.errors().first().map(ToString::to_string)),
    }
}
