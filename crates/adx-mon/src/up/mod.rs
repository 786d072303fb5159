//! `adx-mon up`: collector, ingestor and kustd in one process, talking HTTP over loopback as they do in production. With
//! `--rules`, alerter, exporter of metrics and the runners of the other rules as well.

mod data_dir;
mod ports;
mod rules;
mod welcome;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio_util::sync::CancellationToken;
use wal::Durability;

use crate::{host, progress};
use data_dir::DataDir;
pub(crate) use data_dir::user_data;
use ports::Ports;
use rules::Rules;

/// Databases of `up`: metrics and logs (with traces).
const METRICS: &str = "Metrics";
const LOGS: &str = "Logs";

/// Disk of the ingestor, whose Kusto is always at hand: small, so that its journal is small too.
const INGESTOR_DISK_BYTES: u64 = 2 << 30;

/// Options of `adx-mon up`.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// Folder for everything that is kept [default: adx-mon in the user's data folder]
    #[arg(long, env = "ADXMON_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Run the rules in the YAML files of this folder, or in this file: AlertRule, SummaryRule, MetricsExporter, Function
    /// and ManagementCommand, for the databases Metrics and Logs; changes are seen while it runs
    #[arg(long, value_name = "DIR")]
    rules: Option<PathBuf>,
    /// Labels of this cluster, for the criteria of rules and, as _region, in their KQL
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',', requires = "rules", value_parser = label)]
    cluster_labels: Vec<(String, String)>,
    /// Use ports N … N+6 instead of the usual ones; for tests and second instances
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=ports::HIGHEST_BASE))]
    port_base: Option<u16>,
    /// What an acknowledgement promises: `disk` survives a power cut, `process` a killed process
    #[arg(long, env = "ADXMON_DURABILITY", default_value = "disk")]
    durability: Durability,
    /// How long data is kept, for example 7d or 12h
    #[arg(long, default_value = "7d", value_parser = period)]
    keep: Duration,
    /// How much data is kept, in GiB; the oldest goes first
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..1_000_000))]
    keep_gib: u64,
    /// Do not collect this host's own metrics and logs
    #[arg(long)]
    no_host: bool,
}

fn period(text: &str) -> Result<Duration, String> {
    kustd::parse_period(text).ok_or_else(|| "that is no period of time such as 7d, 12h or 30m".to_owned())
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write it as KEY=VALUE".to_owned()),
    }
}

/// Starts everything, says how to use it, and runs until SIGINT or SIGTERM; then drains in the direction of the data.
pub(crate) async fn run(options: Options) -> Result<()> {
    server::init_logging();
    let stop = stop_signal()?;
    let ports = Ports::new(options.port_base);
    let data_dir = DataDir::open(options.data_dir.clone())?;
    ports.check(options.rules.is_some())?;
    let system = progress::shown("starting: reading back what is stored", System::start(&options, &ports, &data_dir)).await?;
    let rules = system.rules.as_ref().map(|rules| rules.count);
    print!("{}", welcome::text(&welcome::program(), &ports, data_dir.path(), system.host, rules));
    stop.await;
    let again = stop_signal()?;
    eprintln!("stopping: what was accepted is being stored; once more Ctrl-C to leave at once (nothing acknowledged is lost)");
    tokio::select! {
        result = progress::shown("storing what was accepted", system.stop()) => result,
        () = again => Ok(()),
    }
}

/// Completes at the next SIGINT or SIGTERM. Registered at once, so that a signal during start-up is not missed.
fn stop_signal() -> Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// The running parts, each with its own way to be told to stop.
struct System {
    kustd: (kustd::Running, CancellationToken),
    ingestor: (ingestor::Running, CancellationToken),
    collector: (collector::Running, CancellationToken),
    sources: CancellationToken,
    rules: Option<Rules>,
    /// Whether this host's own telemetry is collected.
    host: bool,
}

impl System {
    /// Starts from the end of the path, so that each part finds its next one.
    async fn start(options: &Options, ports: &Ports, data_dir: &DataDir) -> Result<System> {
        let host = !options.no_host && cfg!(target_os = "linux");
        let kustd = {
            let stop = CancellationToken::new();
            let config = kustd::Config {
                data_dir: data_dir.folder("kustd")?,
                listen: ports.kustd,
                durability: options.durability,
                databases: vec![METRICS.into(), LOGS.into()],
                retention: Some(options.keep),
                max_bytes: Some(options.keep_gib << 30),
                ingestion_storage: Vec::new(),
                remote: kustd::RemoteSettings::default(),
            };
            (kustd::start(config, stop.clone()).await.context("starting kustd")?, stop)
        };
        let ingestor = {
            let stop = CancellationToken::new();
            let config = ingestor_config(options, ports, data_dir.folder("ingestor")?);
            (ingestor::start(config, stop.clone()).await.context("starting the ingestor")?, stop)
        };
        let collector = {
            let stop = CancellationToken::new();
            let text = collector_config(options, ports, &data_dir.folder("collector")?, host);
            let (config, _) = collector::Config::from_toml(&text, "localhost").context("the collector's configuration")?;
            (collector::start(config, stop.clone()).await.context("starting the collector")?, stop)
        };
        let sources = CancellationToken::new();
        let rules = match &options.rules {
            Some(path) => {
                let labels = options.cluster_labels.iter().cloned().collect();
                Some(Rules::start(path, labels, ports, data_dir).await.context("starting the rules")?)
            }
            None => None,
        };
        let mut console = rules.as_ref().map_or_else(axum::Router::new, |rules| rules.router.clone());
        if host {
            console = console.route("/metrics", host_metrics());
        }
        serve_console(ports.console, console, sources.clone()).await?;
        if host {
            let logs = host::logs::HostLogs {
                url: format!("http://{}/v1/logs", ports.collector),
                state: data_dir.folder("host")?.join("positions.json"),
                folder: "/var/log".into(),
            };
            tokio::spawn(host::logs::run(logs, sources.clone()));
        }
        Ok(System { kustd, ingestor, collector, sources, rules, host })
    }

    /// Stops in the direction of the data, so that each part can still hand on what it has.
    async fn stop(self) -> Result<()> {
        self.sources.cancel();
        if let Some(rules) = self.rules {
            rules.stop().await?;
        }
        self.collector.1.cancel();
        self.collector.0.finished().await.context("stopping the collector")?;
        self.ingestor.1.cancel();
        self.ingestor.0.finished().await.context("stopping the ingestor")?;
        self.kustd.1.cancel();
        self.kustd.0.finished().await.context("stopping kustd")
    }
}

fn ingestor_config(options: &Options, ports: &Ports, storage_dir: PathBuf) -> ingestor::Config {
    let endpoint = |database: &str| ingestor::Endpoint { database: database.to_owned(), url: format!("http://{}", ports.kustd) };
    ingestor::Config {
        durability: options.durability,
        listen_plain: ports.ingestor_plain,
        listen_tls: Some(ports.ingestor_tls),
        transfer_on_plain: true,
        metrics: vec![endpoint(METRICS)],
        logs: vec![endpoint(LOGS)],
        default_logs: Some((LOGS.to_owned(), "OTelLogs".to_owned())),
        max_segment_age: Duration::from_secs(1),
        max_disk_bytes: INGESTOR_DISK_BYTES,
        ..ingestor::Config::new(storage_dir)
    }
}

/// The collector is configured as a user would: with a file.
fn collector_config(options: &Options, ports: &Ports, storage_dir: &std::path::Path, host: bool) -> String {
    let quoted = |text: &str| toml_string(text);
    let mut targets = vec![
        (format!("http://{}/metrics", ports.collector), "collector"),
        (format!("http://{}/metrics", ports.ingestor_plain), "ingestor"),
        (format!("http://{}/metrics", ports.kustd), "kustd"),
    ];
    if host {
        targets.push((format!("http://{}/metrics", ports.console), "host"));
    }
    if options.rules.is_some() {
        targets.push((format!("http://{}/metrics", ports.alerter), "alerter"));
        targets.push((format!("http://{}/rules/metrics", ports.console), "rules"));
    }
    let targets: String = targets
        .iter()
        .map(|(url, name)| {
            format!(
                "[[prometheus-scrape.static-scrape-target]]\nhost-regex = \".*\"\nurl = {}\nnamespace = \"local\"\npod = {}\ncontainer = {}\n",
                quoted(url),
                quoted(name),
                quoted(name)
            )
        })
        .collect();
    let durability = match options.durability {
        Durability::Disk => "disk",
        Durability::Process => "process",
    };
    format!(
        "endpoint = \"http://{ingestor}\"\n\
         listen-addr = \"{listen}\"\n\
         otlp-listen-addr = \"{otlp}\"\n\
         otlp-grpc-listen-addr = \"{otlp_grpc}\"\n\
         storage-dir = {storage}\n\
         region = \"local\"\n\
         durability = \"{durability}\"\n\
         max-segment-age-seconds = 1\n\
         [[prometheus-remote-write]]\ndatabase = \"{METRICS}\"\npath = \"/api/v1/write\"\n\
         [[prometheus-remote-write]]\ndatabase = \"{METRICS}\"\npath = \"/receive\"\n\
         [[otel-metric]]\ndatabase = \"{METRICS}\"\npath = \"/v1/metrics\"\n\
         [otel-log]\ndefault-database = \"{LOGS}\"\ndefault-table = \"OTelLogs\"\n\
         [otel-trace]\ndatabase = \"{LOGS}\"\n\
         [prometheus-scrape]\ndatabase = \"{METRICS}\"\nscrape-interval = 10\nscrape-timeout = 5\ndisable-discovery = true\n\
         {targets}",
        ingestor = ports.ingestor_plain,
        listen = ports.collector,
        otlp = ports.otlp_http,
        otlp_grpc = ports.otlp_grpc,
        storage = quoted(&storage_dir.display().to_string()),
    )
}

fn toml_string(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn host_metrics() -> axum::routing::MethodRouter {
    let content_type = [("content-type", "text/plain; version=0.0.4; charset=utf-8")];
    axum::routing::get(move || async move { (content_type, host::metrics::exposition()) })
}

async fn serve_console(address: SocketAddr, router: axum::Router, shutdown: CancellationToken) -> Result<()> {
    let listener = tokio::net::TcpListener::bind(address).await.with_context(|| format!("opening {address}"))?;
    tokio::spawn(async move {
        if let Err(error) = server::serve(listener, router, server::Limits::default(), None, shutdown).await {
            tracing::warn!(%error, "{address} is not served any more");
        }
    });
    Ok(())
}
