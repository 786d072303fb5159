//! The components that the operator installs: Ingestor, Alerter, Collector.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::pods::{PodOptions, Storage};

/// A set of ingestors: they take telemetry, keep it on disk and land it in Kusto.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "adx-mon.azure.com",
    version = "v1",
    kind = "Ingestor",
    plural = "ingestors",
    namespaced,
    status = "IngestorStatus",
    derive = "PartialEq",
    derive = "Default",
    category = "adx-mon",
    doc = "A set of ingestors: they take telemetry, keep it on disk and land it in Kusto.",
    printcolumn(name = "Replicas", type_ = "integer", json_path = ".spec.replicas"),
    printcolumn(name = "Available", type_ = "integer", json_path = ".status.readyReplicas"),
    printcolumn(name = "Image", type_ = "string", json_path = ".spec.image", priority = "1"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"ingestor.adx-mon.azure.com\")].reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct IngestorSpec {
    /// Container image. Empty: the one that belongs to the operator.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub image: String,
    /// How many ingestors.
    #[serde(default = "one")]
    pub replicas: i32,
    /// URL at which collectors reach the ingestors. Empty: the Service's.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub endpoint: String,
    /// Whether to make the ingestors reachable from outside the cluster: a Service of type LoadBalancer, in the cloud's
    /// private network.
    #[serde(default)]
    pub expose_externally: bool,
    /// Labels of the ADXClusters that the telemetry goes to.
    #[serde(rename = "adxClusterSelector")]
    #[schemars(extend("x-kubernetes-map-type" = "atomic"))]
    pub adx_cluster_selector: LabelSelector,
    /// A CEL expression over the cluster labels, each a variable of type string. The component is installed if it is true.
    #[serde(default, deserialize_with = "crate::lenient::text", skip_serializing_if = "String::is_empty")]
    pub criteria_expression: String,
    /// Written by the operator: the spec that it has installed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub applied_provision_state: String,
    /// Where they keep data that is not in Kusto yet. Absent: a volume of 20Gi each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<Storage>,
    /// Options of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<PodOptions>,
}

fn one() -> i32 {
    1
}

/// State of an Ingestor.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IngestorStatus {
    /// Generation of the spec that this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// How many pods there should be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// How many of them are ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_replicas: Option<i32>,
    /// State of this object: the installation, its readiness, its permissions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// An alerter: it runs AlertRules and sends notifications.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "adx-mon.azure.com",
    version = "v1",
    kind = "Alerter",
    plural = "alerters",
    namespaced,
    status = "AlerterStatus",
    derive = "PartialEq",
    derive = "Default",
    category = "adx-mon",
    doc = "An alerter: it runs AlertRules and sends notifications.",
    printcolumn(name = "Endpoint", type_ = "string", json_path = ".spec.notificationEndpoint"),
    printcolumn(name = "Image", type_ = "string", json_path = ".spec.image", priority = "1"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"alerter.adx-mon.azure.com\")].reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct AlerterSpec {
    /// Container image. Empty: the one that belongs to the operator.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub image: String,
    /// URL that notifications are sent to.
    #[schemars(extend("format" = "uri"))]
    pub notification_endpoint: String,
    /// Labels of the ADXClusters whose databases the rules query.
    #[serde(rename = "adxClusterSelector")]
    #[schemars(extend("x-kubernetes-map-type" = "atomic"))]
    pub adx_cluster_selector: LabelSelector,
    /// A CEL expression over the cluster labels, each a variable of type string. The component is installed if it is true.
    #[serde(default, deserialize_with = "crate::lenient::text", skip_serializing_if = "String::is_empty")]
    pub criteria_expression: String,
    /// Written by the operator: the spec that it has installed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub applied_provision_state: String,
    /// Options of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<PodOptions>,
}

/// State of an Alerter.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AlerterStatus {
    /// Generation of the spec that this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// How many pods there should be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// How many of them are ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_replicas: Option<i32>,
    /// State of this object: the installation, its readiness.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// Collectors, one on each node: they gather metrics and logs and send them to the ingestors.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "adx-mon.azure.com",
    version = "v1",
    kind = "Collector",
    plural = "collectors",
    namespaced,
    status = "CollectorStatus",
    derive = "PartialEq",
    derive = "Default",
    category = "adx-mon",
    doc = "Collectors, one on each node: they gather metrics and logs and send them to the ingestors.",
    printcolumn(name = "Endpoint", type_ = "string", json_path = ".spec.ingestorEndpoint"),
    printcolumn(name = "Image", type_ = "string", json_path = ".spec.image", priority = "1"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"collector.adx-mon.azure.com\")].reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct CollectorSpec {
    /// Container image. Empty: the one that belongs to the operator.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub image: String,
    /// URL of the ingestors. Empty: that of the Ingestor in the same namespace.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(extend("format" = "uri"))]
    pub ingestor_endpoint: String,
    /// A CEL expression over the cluster labels, each a variable of type string. The component is installed if it is true.
    #[serde(default, deserialize_with = "crate::lenient::text", skip_serializing_if = "String::is_empty")]
    pub criteria_expression: String,
    /// Accept any certificate of the ingestor. The ingestors that the operator installs make their own, so that nothing else
    /// will do for them.
    #[serde(default = "accept", rename = "insecureSkipVerify")]
    pub insecure_skip_verify: bool,
    /// Store the events of the cluster as logs. One collector does it beside those of the nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubernetes_events: Option<KubernetesEvents>,
    /// How MetricsExporters are run, where there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics_export: Option<MetricsExport>,
    /// Options of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<PodOptions>,
}

fn accept() -> bool {
    true
}

/// Where events of the cluster are stored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KubernetesEvents {
    /// Database. Empty: Logs.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub database: String,
    /// Table. Empty: KubernetesEvents.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub table: String,
    /// Namespaces whose events are stored. Empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
    /// Where events wait until they are sent. Absent: a volume of 1Gi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<Storage>,
}

/// How MetricsExporters are run: by an adxexporter that sends to this.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MetricsExport {
    /// Container image of adxexporter. Empty: the one that belongs to the operator.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub image: String,
    /// URL of the OTLP receiver, with its path. Empty: the collectors.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub otlp_endpoint: String,
    /// Labels of the ADXClusters whose databases the exporters query. Absent: all in the namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-map-type" = "atomic"))]
    pub adx_cluster_selector: Option<LabelSelector>,
}

/// State of a Collector.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CollectorStatus {
    /// Generation of the spec that this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// How many pods there should be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// How many of them are ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_replicas: Option<i32>,
    /// State of this object: the installation, its readiness.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
}
