//! The command line, with the names and meanings of the reference.
//!
//! Differences, each on purpose: the value of `db=url` and `k=v` is everything after the first `=`; rules
//! may come from files; OTLP may go over gRPC; `--otlp-endpoint` may not be empty.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{ArgAction, Parser};
use kusto::{Client, TrustedHost};

use crate::push::{Protocol, PushConfig};
use crate::run::Config;
use crate::schedule::Bounds;
use crate::sources::Rules;

/// Shown below the flags.
const EXAMPLES: &str = "\
Lists are repeated or separated by commas; durations are written as 90s, 5m or 1h30m.

Examples:
  Without a cluster: exporters from YAML files, metrics to an OpenTelemetry collector on this machine:
    adxexporter --rules-dir ./rules --data-dir ./state \\
      --kusto-endpoints Metrics=http://127.0.0.1:8080 \\
      --otlp-endpoint http://127.0.0.1:4318/v1/metrics

  In a cluster, with labels that rules may name in criteria and, as _region, in KQL:
    adxexporter --kusto-endpoints Metrics=https://c.eastus.kusto.windows.net \\
      --otlp-endpoint http://otel-collector.monitoring:4318/v1/metrics \\
      --cluster-labels region=eastus,environment=prod

  An exporter:
    apiVersion: adx-mon.azure.com/v1
    kind: MetricsExporter
    metadata: {name: requests, namespace: default}
    spec:
      database: Metrics
      interval: 5m
      body: |
        Requests
        | where Timestamp between (_startTime .. _endTime)
        | summarize Count=count() by Service, Timestamp=bin(Timestamp, 1m)
      transform:
        defaultMetricName: requests
        timestampColumn: Timestamp
        valueColumns: [Count]
        labelColumns: [Service]

How it goes stands in each exporter's status (kubectl get metricsexporters), and for all of them:
    curl http://127.0.0.1:8081/readyz          whether it works, or why not
    curl http://127.0.0.1:8081/metrics         runs, rows, points, failures, lag

Several replicas may run: one of them works, another takes over when it is gone.
LOG_LEVEL (ERROR, WARN, INFO, DEBUG, TRACE) says how much is logged.";

/// Exports the results of KQL queries as metrics over OTLP, on schedule; runs summary rules.
#[derive(Debug, Parser)]
#[command(name = "adxexporter", version, after_help = EXAMPLES)]
pub struct Flags {
    /// Labels of this cluster: for criteria, as variables in KQL, and as attributes of
    /// the metrics' resource.
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',', action = ArgAction::Append, value_parser = pair)]
    pub cluster_labels: Vec<(String, String)>,
    /// Databases. Rules of other databases do not run, which their status says. At https endpoints the default chain of Azure's
    /// credentials is used, as in docs/credentials.md.
    #[arg(long, value_name = "DATABASE=URL", value_delimiter = ',', action = ArgAction::Append, value_parser = endpoint)]
    pub kusto_endpoints: Vec<(String, String)>,
    /// Hosts that may see Azure tokens though they are no addresses of Kusto in Azure: `adx.example.com`, or `.example.com` for
    /// all below it.
    #[arg(long, value_name = "HOST", value_delimiter = ',', action = ArgAction::Append, env = "ADXMON_KUSTO_TRUSTED_HOSTS")]
    pub kusto_trusted_hosts: Vec<TrustedHost>,
    /// URL of the OTLP receiver, for HTTP with its path.
    #[arg(long, value_name = "URL")]
    pub otlp_endpoint: String,
    /// How metrics travel: http/protobuf or grpc.
    #[arg(long, value_name = "PROTOCOL", default_value_t, env = "OTEL_EXPORTER_OTLP_PROTOCOL")]
    pub otlp_protocol: Protocol,
    /// How they are compressed: gzip or none.
    #[arg(long, value_name = "METHOD", default_value = "gzip", value_parser = ["gzip", "none"], env = "OTEL_EXPORTER_OTLP_COMPRESSION")]
    pub otlp_compression: String,
    /// Attributes of the metrics' resource; they win over cluster labels.
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',', action = ArgAction::Append, value_parser = pair)]
    pub add_resource_attributes: Vec<(String, String)>,
    /// Put before every metric's name.
    #[arg(long, value_name = "PREFIX", default_value = "", hide_default_value = true)]
    pub metric_name_prefix: String,
    /// Address of /healthz, /readyz and /metrics; `:8081` is port 8081 of every address.
    #[arg(long, value_name = "ADDRESS", default_value = ":8081", value_parser = listen)]
    pub health_probe_port: SocketAddr,
    /// Kubeconfig file; without it that of the environment, or the pod's service account.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Folder of YAML files with rules, instead of a cluster.
    #[arg(long, value_name = "DIR", requires = "data_dir", conflicts_with = "kubeconfig")]
    pub rules_dir: Option<PathBuf>,
    /// Folder where the status of rules from files is kept.
    #[arg(long, value_name = "DIR", requires = "rules_dir")]
    pub data_dir: Option<PathBuf>,
    /// Namespace of the lease that replicas share; without it that of the kubeconfig or the pod.
    #[arg(long, value_name = "NAME", env = "POD_NAMESPACE")]
    pub namespace: Option<String>,
    /// How far back windows are caught up with after an outage; older ones are left out.
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = duration)]
    pub catch_up: Duration,
    /// Queries of a cluster at a time.
    #[arg(long, value_name = "COUNT", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..))]
    pub max_queries: u16,
}

impl Flags {
    /// Checks what clap did not.
    ///
    /// # Errors
    /// An endpoint that cannot be used.
    pub fn config(self) -> anyhow::Result<Config> {
        let labels: BTreeMap<String, String> = self.cluster_labels.into_iter().collect();
        let credentials = azure::Credentials::new().default_chain();
        let mut databases = BTreeMap::new();
        for (database, url) in self.kusto_endpoints {
            let client = Client::builder(&url).application("adx-mon-adxexporter").credentials(Arc::clone(&credentials));
            let client = client.trusted_hosts(&self.kusto_trusted_hosts).build()?;
            if databases.insert(database.clone(), client).is_some() {
                anyhow::bail!("--kusto-endpoints names database {database} twice; a database has one endpoint");
            }
        }
        let mut resource = labels.clone();
        resource.extend(self.add_resource_attributes);
        let gzip = self.otlp_compression == "gzip";
        let push = PushConfig { protocol: self.otlp_protocol, gzip, resource, ..PushConfig::new(&self.otlp_endpoint) };
        let rules = match (self.rules_dir, self.data_dir) {
            (Some(rules), Some(data)) => Rules::Files { rules, data },
            _ => Rules::Cluster { kubeconfig: self.kubeconfig, namespace: self.namespace.filter(|name| !name.is_empty()) },
        };
        let bounds = Bounds { catch_up: self.catch_up, queries: usize::from(self.max_queries), ..Bounds::default() };
        let config = Config::new(databases, push, rules);
        Ok(Config { labels, prefix: self.metric_name_prefix, listen: Some(self.health_probe_port), bounds, ..config })
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write it as KEY=VALUE".to_owned()),
    }
}

fn endpoint(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((database, url)) if !database.is_empty() && !url.is_empty() => Ok((database.to_owned(), url.to_owned())),
        _ => Err("write it as DATABASE=URL".to_owned()),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let parsed = crds::duration::parse(text).map_err(|error| format!("{error}; write it like 5m or 24h"))?;
    Duration::try_from(parsed).map_err(|_| "it is below zero".to_owned())
}

fn listen(text: &str) -> Result<SocketAddr, String> {
    let help = "write it as :8081 or 127.0.0.1:8081";
    match text.strip_prefix(':') {
        Some(port) => port.parse().map(|port| (Ipv4Addr::UNSPECIFIED, port).into()).map_err(|_| help.to_owned()),
        None => text.parse().map_err(|_| help.to_owned()),
    }
}
