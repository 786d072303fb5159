//! How the cluster is looked at, and its events.

use schemars::JsonSchema;
use serde::Deserialize;

use super::Map;

/// `[kubelet-discovery]`
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", default)]
pub struct KubeletDiscovery {
    /// Its name or address. Absent: the name of the node, or else 127.0.0.1.
    #[schemars(example = &"$(HOSTNAME)")]
    pub host: String,
    /// Port of the kubelet.
    #[schemars(extend("default" = 10_250))]
    pub port: i64,
    /// From one request to the next, in seconds.
    #[schemars(extend("default" = 10))]
    pub poll_interval: i64,
    /// Longest time of a request, in seconds.
    #[schemars(extend("default" = 9))]
    pub request_timeout: i64,
    /// A file with the bearer token; read for every request, since Kubernetes replaces it.
    #[schemars(extend("default" = "/var/run/secrets/kubernetes.io/serviceaccount/token"))]
    pub token_path: String,
    /// Authorities (PEM) of the kubelet's certificate; those of the system when there is no such file.
    #[schemars(extend("default" = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"))]
    pub ca_path: String,
}

/// `[metadata-watch]`
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", default)]
pub struct MetadataWatch {
    /// Follow labels and annotations of the node that the collector runs on. An empty table is enough.
    pub kubernetes_node: Option<Present>,
}

/// A table without keys: its presence is the setting.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
pub struct Present {}

/// `add-metadata-labels`
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", default)]
pub struct MetadataLabels {
    /// Of the node that the collector runs on; needs metadata-watch.kubernetes-node.
    pub kubernetes_node: Option<NodeLabels>,
}

/// `add-metadata-labels.kubernetes-node`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default)]
pub struct NodeLabels {
    /// Label of the node = name of the label here.
    #[schemars(example = Map::from([("topology.kubernetes.io/zone".to_owned(), "zone".to_owned())]))]
    pub labels: Map,
    /// Annotation of the node = name of the label here.
    #[schemars(example = Map::from([("example.org/owner".to_owned(), "owner".to_owned())]))]
    pub annotations: Map,
}

/// `[kubernetes-events]`
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", default)]
#[schemars(extend("required" = ["database", "table"]))]
pub struct KubernetesEvents {
    /// Database of the records.
    #[schemars(example = &"Logs")]
    pub database: String,
    /// Table of the records.
    #[schemars(example = &"KubernetesEvents")]
    pub table: String,
    /// Namespaces whose events are stored. Empty: all. Events of another choice are stored from the start of what the API
    /// server has, an hour usually.
    #[schemars(example = ["kube-system"])]
    pub namespaces: Vec<String>,
    /// Set on the resource of every record.
    #[schemars(example = super::example_labels())]
    pub add_attributes: Map,
    /// Names of exporters that get the records too.
    #[schemars(example = ["fluent"])]
    pub exporters: Vec<String>,
}
