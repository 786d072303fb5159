//! The components that the operator installs: Ingestor, Alerter, Collector.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
    /// Whether to make the ingestors reachable from outside the cluster. Not built.
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
}

fn one() -> i32 {
    1
}

/// State of an Ingestor.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IngestorStatus {
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
}

/// State of an Alerter.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AlerterStatus {
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
}

/// State of a Collector.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CollectorStatus {
    /// State of this object: the installation, its readiness.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
}
