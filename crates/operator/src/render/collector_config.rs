//! The collector's configuration: the reference's, with the receivers and checks that ours has.

use std::fmt::Write as _;

use toml::Value;

/// What a configuration depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectorConfig {
    /// URL of the ingestors.
    pub endpoint: String,
    /// Accept any certificate of theirs.
    pub insecure_skip_verify: bool,
    /// Region of the cluster.
    pub region: String,
    /// Namespace of the collectors.
    pub namespace: String,
    /// Their name.
    pub name: String,
    /// What it does.
    pub role: Role,
}

/// What a collector does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// Metrics and logs of its node, and what it is sent.
    Node,
    /// Events of the cluster.
    Events {
        /// Database of the events.
        database: String,
        /// Their table.
        table: String,
        /// Namespaces; empty: all.
        namespaces: Vec<String>,
    },
}

/// The configuration file.
pub fn collector_config(config: &CollectorConfig) -> String {
    let mut text = format!(
        "# Written by the operator: what is changed here is put back. Change the Collector instead.

# URL of the ingestors.
endpoint = {endpoint}
insecure-skip-verify = {skip}
region = {region}
listen-addr = ':8080'
{otlp}max-connections = 100
max-batch-size = 10000
storage-dir = '/mnt/data'

lift-labels = [
  {{ name = 'host' }},
  {{ name = 'cluster' }},
  {{ name = 'adxmon_pod', column = 'Pod' }},
  {{ name = 'adxmon_namespace', column = 'Namespace' }},
  {{ name = 'adxmon_container', column = 'Container' }},
]
lift-resources = [
  {{ name = 'host' }},
  {{ name = 'cluster' }},
  {{ name = 'adxmon_pod', column = 'Pod' }},
  {{ name = 'adxmon_namespace', column = 'Namespace' }},
  {{ name = 'adxmon_container', column = 'Container' }},
]

[add-labels]
host = '$(HOSTNAME)'
cluster = {region}
",
        endpoint = quoted(&config.endpoint),
        skip = config.insecure_skip_verify,
        region = quoted(&config.region),
        otlp = match config.role {
            Role::Node => "otlp-listen-addr = ':4318'\notlp-grpc-listen-addr = ':4317'\n",
            Role::Events { .. } => "",
        },
    );
    match &config.role {
        Role::Node => text.push_str(&node(config)),
        Role::Events { database, table, namespaces } => {
            let namespaces = Value::from(namespaces.clone());
            let _ = write!(
                text,
                "\n# Events of the cluster.\n[kubernetes-events]\ndatabase = {}\ntable = {}\nnamespaces = {namespaces}\n",
                quoted(database),
                quoted(table)
            );
        }
    }
    text
}

fn node(config: &CollectorConfig) -> String {
    let (namespace, name) = (quoted(&config.namespace), quoted(&config.name));
    format!(
        "
# Pods of this node whose annotations ask for it, and the node's own metrics.
[prometheus-scrape]
database = 'Metrics'
scrape-interval = 30
scrape-timeout = 25
static-scrape-target = [
  {{ host-regex = '.*', url = 'http://127.0.0.1:8080/metrics', namespace = {namespace}, pod = {name}, container = 'collector' }},
  # Kubelets sign their certificates themselves in most clusters.
  {{ host-regex = '.*', url = 'https://$(HOSTNAME):10250/metrics/cadvisor', namespace = 'kube-system', pod = 'kubelet', \
container = 'cadvisor', service-account-token = true, insecure-skip-verify = true }},
  {{ host-regex = '.*', url = 'https://$(HOSTNAME):10250/metrics/resource', namespace = 'kube-system', pod = 'kubelet', \
container = 'resource', service-account-token = true, insecure-skip-verify = true }},
]

[[prometheus-remote-write]]
database = 'Metrics'
path = '/receive'

[[otel-metric]]
database = 'Metrics'
path = '/v1/metrics'

# Records name their destination in the attributes kusto.database and kusto.table.
[otel-log]

# Logs of pods whose annotation adx-mon/log-destination asks for it, and of the kubelet.
[[host-log]]
journal-target = [
  {{ matches = ['_SYSTEMD_UNIT=kubelet.service'], database = 'Logs', table = 'Kubelet', parsers = ['json', 'klog'] }},
]
"
    )
}

/// A text of TOML, whatever is in it.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}
