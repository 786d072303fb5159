//! The command line, with the names and meanings of the reference, and what it lacks: rules from files, a folder for what
//! must outlive the process, Alertmanager.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use azure::{Credentials, Identity, TokenSource};
use clap::{ArgAction, Args, Parser, Subcommand};
use kusto::TrustedHost;
use secrecy::{ExposeSecret as _, SecretString};

use crate::run::{Config, Deadlines};

/// Shown below the flags.
const EXAMPLES: &str = "\
Lists are repeated or separated by commas.

Examples:
  Rules in files, an embedded Kusto on this machine, alerts in the log:
    alerter --rules-dir ./rules --kusto-endpoint Metrics=http://127.0.0.1:8080

  In a cluster, with a receiver and Alertmanager:
    alerter --kusto-endpoint Metrics=https://c.region.kusto.windows.net --region eastus \\
      --alerter-address http://receiver:8080 --alertmanager-url http://alertmanager:9093

  Before rules are put into use:
    alerter lint --lint-dir ./rules --schema schema.kql

  Then:
    curl http://127.0.0.1:4023/debug/rules     of each rule the next run, the last outcome and the lag
    curl http://127.0.0.1:4023/metrics         the same for Prometheus

A rule's query runs once per interval over the time since its last success, at most an hour or three intervals. What Kusto
could not answer is asked again after seconds, then after pauses that grow up to the interval. Each row of an answer
becomes a notification: a POST of JSON to <alerter-address>/alerts. What the receiver does not take is kept in the data
folder and sent again, for up to a day; a restart or a kill loses nothing. Several replicas may run: one of them, which
holds the Lease, runs the rules. LOG_LEVEL (ERROR, WARN, INFO, DEBUG, TRACE) says how much is logged.";

/// Runs alert rules on schedule and delivers what they find.
#[derive(Debug, Parser)]
#[command(name = "alerter", version, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct Flags {
    /// What to do instead of running rules.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// How rules run.
    #[command(flatten)]
    pub run: RunFlags,
}

/// What else the program does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Checks rules in files: the manifest, criteria and intervals, the query against a schema, and its columns.
    #[command(alias = "l", after_help = LINT_EXAMPLES)]
    Lint(LintFlags),
}

const LINT_EXAMPLES: &str = "\
All mistakes are shown, each with file, line and document. With --kusto-endpoint each rule that is meant for these labels
also runs once, over one interval, and nothing is sent.

Exit code: 0 if all is well, also with warnings; 1 if there are mistakes; 2 if nothing could be checked, since the command
line is wrong, there are no rules, or a schema cannot be read.

Examples:
  alerter lint --lint-dir ./rules --schema schema.kql
  alerter lint --lint-dir ./rules --kusto-endpoint Metrics=http://127.0.0.1:8080 --region eastus

A schema is the answer of `.show database schema as json`, or a file of commands, one after another:
  .create table Cpu (Timestamp: datetime, Host: string, Value: real)
  .create-or-alter function Hot (limit: real) { Cpu | where Value > limit }
  .create-or-alter function with (view = true) CpuView () { Cpu | where Value > 50 }
  .create materialized-view Last on table Cpu { Cpu | summarize arg_max(Timestamp, *) by Host }";

/// Flags of running and of linting.
#[derive(Debug, Clone, Default, Args)]
pub struct CommonFlags {
    /// A database and its cluster, `<name>=<url>`. Rules name the database; case matters.
    #[arg(long, value_delimiter = ',', action = ArgAction::Append, value_name = "NAME=URL")]
    pub kusto_endpoint: Vec<String>,
    /// Hosts that may see Azure tokens though they are no addresses of Kusto in Azure: `adx.example.com`, or `.example.com` for
    /// all below it.
    #[arg(long, value_name = "HOST", value_delimiter = ',', action = ArgAction::Append, env = "ADXMON_KUSTO_TRUSTED_HOSTS")]
    pub kusto_trusted_hosts: Vec<TrustedHost>,
    /// Managed identity for https endpoints, by its client id or resource id. Without it and without a token: the default
    /// chain of Azure, as in docs/credentials.md.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub auth_msi_id: String,
    /// Bearer token for https endpoints, if there is no --auth-msi-id.
    #[arg(long, default_value = "", hide_default_value = true, env = "ALERTER_AUTH_TOKEN", hide_env_values = true)]
    pub auth_token: SecretString,
    /// The cloud: label `cloud` of criteria.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub cloud: String,
    /// The region: label `region` of criteria, and `_region` of queries.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub region: String,
    /// A label of criteria, `<key>=<value>`.
    #[arg(long, value_delimiter = ',', action = ArgAction::Append, value_name = "KEY=VALUE")]
    pub tag: Vec<String>,
    /// Rows of one run that become notifications; of the others one alert about the rule names the first 50.
    #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_notifications: u32,
}

/// Flags of running.
#[derive(Debug, Clone, Args)]
pub struct RunFlags {
    /// What linting needs too.
    #[command(flatten)]
    pub common: CommonFlags,
    /// Kubeconfig file of the cluster that holds the rules. Without it: KUBECONFIG, or the pod's own cluster.
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
    /// A folder or file of rules in YAML, instead of a cluster. Read again when it changes.
    #[arg(long, conflicts_with = "kubeconfig")]
    pub rules_dir: Option<PathBuf>,
    /// Folder of what must outlive the process: how far each rule has run, and notifications that nobody has taken yet. One
    /// alerter per folder. Default: adx-mon-alerter in the folder for temporary files. In a cluster that will do, and so will
    /// an emptyDir: if it is lost, the next alerter runs again what may not have been delivered. With --rules-dir it is the
    /// only copy: give a folder that survives a restart of the machine.
    #[arg(long)]
    pub data_dir: Option<PathBuf>,
    /// Port of the HTTP listener: /metrics, /healthz, /readyz, /debug/rules, and /alerts without --alerter-address.
    #[arg(long, default_value_t = 4023)]
    pub port: u16,
    /// Address that the listener binds to.
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED))]
    pub listen_address: IpAddr,
    /// Base URL of the receiver of notifications; /alerts is appended. Without it they are logged.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub alerter_address: String,
    /// Base URL of an Alertmanager that gets the alerts too (API v2).
    #[arg(long)]
    pub alertmanager_url: Option<String>,
    /// Queries at a time; 5 for zero and less. Those of rules whose last query took over ten seconds share half of them.
    #[arg(long, default_value_t = 10, allow_negative_numbers = true)]
    pub concurrency: i64,
    /// Take CPU profiles on request: /debug/pprof/profile?seconds=10.
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", action = ArgAction::Set, hide_default_value = true, hide_possible_values = true)]
    pub enable_pprof: bool,
}

/// Flags of linting.
#[derive(Debug, Clone, Args)]
pub struct LintFlags {
    /// What running needs too.
    #[command(flatten)]
    pub common: CommonFlags,
    /// The rules: a folder, with its subfolders, or a file.
    #[arg(long)]
    pub lint_dir: PathBuf,
    /// Tables and functions that the queries may use: the JSON of `.show database schema as json`, or KQL commands.
    #[arg(long)]
    pub schema: Option<PathBuf>,
}

impl CommonFlags {
    /// URLs by database.
    ///
    /// # Errors
    /// Where a flag is not `name=url`.
    pub fn endpoints(&self) -> anyhow::Result<BTreeMap<String, String>> {
        pairs("--kusto-endpoint", &self.kusto_endpoint)
    }

    /// Labels without region and cloud.
    ///
    /// # Errors
    /// Where a flag is not `key=value`.
    pub fn tags(&self) -> anyhow::Result<BTreeMap<String, String>> {
        pairs("--tag", &self.tag)
    }

    /// What https endpoints get: tokens of the managed identity, the bearer token, or those of the default chain.
    ///
    /// # Errors
    /// Where the token cannot be one.
    pub fn credentials(&self) -> anyhow::Result<Arc<dyn TokenSource>> {
        match (self.auth_msi_id.trim(), self.auth_token.expose_secret().trim()) {
            ("", "") => Ok(Credentials::new().default_chain()),
            ("", token) => azure::fixed_token(token).context("--auth-token"),
            (id, _) => Ok(Credentials::new().managed_identity(Identity::user(id))),
        }
    }
}

impl RunFlags {
    /// The configuration that the flags ask for.
    ///
    /// # Errors
    /// Where a flag cannot be used, naming it.
    pub fn config(&self) -> anyhow::Result<Config> {
        let kusto_endpoints = self.common.endpoints()?;
        ensure!(!kusto_endpoints.is_empty(), "no kusto endpoints provided: give --kusto-endpoint <database>=<url>");
        Ok(Config {
            listen: SocketAddr::new(self.listen_address, self.port),
            kusto_endpoints,
            credentials: Some(self.common.credentials()?),
            trusted_hosts: self.common.kusto_trusted_hosts.clone(),
            cloud: self.common.cloud.clone(),
            region: self.common.region.clone(),
            tags: self.common.tags()?,
            alerter_address: self.alerter_address.clone(),
            alertmanager_url: self.alertmanager_url.clone(),
            concurrency: usize::try_from(self.concurrency).ok().filter(|n| *n > 0).unwrap_or(5),
            max_notifications: usize::try_from(self.common.max_notifications).unwrap_or(usize::MAX),
            data_dir: self.data_dir.clone().unwrap_or_else(|| std::env::temp_dir().join("adx-mon-alerter")),
            deadlines: Deadlines::default(),
            profiles: self.enable_pprof,
        })
    }
}

/// `name=value` of each, with exactly one `=`.
fn pairs(flag: &str, values: &[String]) -> anyhow::Result<BTreeMap<String, String>> {
    let pair = |text: &String| {
        let parts: Vec<&str> = text.split('=').collect();
        match parts[..] {
            [name, value] if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
            _ => bail!("{flag} {text:?}: write <name>=<value> with exactly one \"=\""),
        }
    };
    values.iter().map(pair).collect::<anyhow::Result<_>>().context("reading the command line")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn no_debug_output_shows_the_token() {
        let flags = |more: &[&str]| {
            let base = ["--kusto-endpoint=DB=https://c.kusto.windows.net", "--auth-token=HIDDEN"];
            Flags::try_parse_from([more, &base].concat()).unwrap()
        };
        let run = flags(&["alerter"]);
        let lint = flags(&["alerter", "lint", "--lint-dir=rules"]);
        let config = run.run.config().unwrap();
        for shown in [format!("{run:?}"), format!("{run:#?}"), format!("{lint:?}"), format!("{config:?}")] {
            assert!(shown.contains("c.kusto.windows.net") && !shown.contains("HIDDEN"), "{shown}");
        }
        assert_eq!(run.run.common.auth_token.expose_secret(), "HIDDEN");
    }

    #[test]
    fn a_host_that_is_not_of_azure_gets_tokens_only_where_it_is_named() {
        let clients = |more: &[&str]| {
            let flags = Flags::try_parse_from([&["alerter", "--kusto-endpoint=DB=https://adx.example.com"], more].concat()).unwrap();
            flags.run.config().unwrap().clients()
        };
        let error = format!("{:#}", clients(&[]).unwrap_err());
        assert!(error.contains("--kusto-endpoint of database DB: ") && error.contains("--kusto-trusted-hosts adx.example.com"), "{error}");
        assert!(clients(&["--kusto-trusted-hosts=adx.example.com"]).is_ok());
    }
}
