//! `ADXCluster` with `spec.local`: kustd, the embedded Kusto, as a StatefulSet of one.

use crds::{AdxCluster, AdxClusterSpec};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde_json::json;

use super::common::Owner;
use super::pod::{self, DATA, GROUP, Pod};
use super::{RenderError, Rendered, Settings};
use crate::azure::wanted::policy_period;
use crate::object::{Object, Reference};

const PORT: u16 = 8080;
const COMPONENT: &str = "kustd";
/// Part of the volume that extents may fill; journals and what is being merged need room too.
const USABLE: f64 = 0.75;

/// URL within the cluster.
pub(crate) fn endpoint(name: &str, namespace: &str) -> String {
    format!("http://{name}.{namespace}.svc.cluster.local:{PORT}")
}

/// Objects of a cluster: none unless it is local.
///
/// # Errors
/// A spec that cannot be installed.
pub fn render(cluster: &AdxCluster, settings: &Settings) -> Result<Rendered, RenderError> {
    let owner = Owner::of(cluster)?;
    let Some(local) = &cluster.spec.local else {
        return Ok(Rendered { objects: Vec::new(), absent: all(&owner) });
    };
    let options = local.pods.clone().unwrap_or_default();
    let data = pod::data(&owner, COMPONENT, local.storage.as_ref(), "20Gi")?;
    let selector = owner.selector(COMPONENT);
    let meta = || owner.meta(&owner.name, COMPONENT);
    let databases = databases(&cluster.spec)?;
    let mut args = vec![format!("--data-dir={DATA}"), format!("--listen=0.0.0.0:{PORT}")];
    if !databases.is_empty() {
        args.push(format!("--databases={}", databases.join(",")));
    }
    if let Some(days) = cluster.spec.databases.iter().map(|database| database.retention_in_days).max().filter(|days| *days > 0) {
        args.push(format!("--retention={days}d"));
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a part of a u64")]
    args.extend(data.bytes.map(|bytes| format!("--max-bytes={}", (bytes as f64 * USABLE) as u64)));
    let tcp =
        |failures: u32| json!({"tcpSocket": {"port": "http"}, "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": failures});
    let pod = Pod {
        owner: &owner,
        component: COMPONENT,
        options: &options,
        account: &owner.name,
        image: settings.images.of(COMPONENT, &local.image),
        command: "/kustd",
        args,
        ports: json!([{"name": "http", "containerPort": PORT, "protocol": "TCP"}]),
        // It listens once its data are read.
        probes: json!({"readinessProbe": tcp(3), "livenessProbe": tcp(6), "startupProbe": tcp(60)}),
        resources: [["250m", "512Mi"], ["4", "4Gi"]],
        annotations: vec![("adx-mon/log-destination", "Logs:Kustd"), ("adx-mon/log-parsers", "json")],
        labels: Vec::new(),
        env: Vec::new(),
        volumes: data.volumes.into_iter().chain([json!({"name": "tmp", "emptyDir": {}})]).collect(),
        mounts: vec![data.mount, json!({"name": "tmp", "mountPath": "/tmp"})],
        init: None,
        tolerations: json!([]),
        affinity: None,
        grace: 60,
        security: json!({"fsGroup": GROUP, "fsGroupChangePolicy": "OnRootMismatch"}),
    };
    let mut template = pod.template();
    // It has no business with the API server.
    template["spec"]["automountServiceAccountToken"] = false.into();
    let mut spec = json!({
        "replicas": 1, "serviceName": owner.name, "selector": {"matchLabels": selector}, "template": template,
        "updateStrategy": {"type": "RollingUpdate"}, "podManagementPolicy": "OrderedReady",
    });
    if !data.claims.is_empty() {
        spec["volumeClaimTemplates"] = data.claims.into();
    }
    let objects = vec![
        Object::new::<ServiceAccount>(json!({"metadata": meta(), "automountServiceAccountToken": false}))?,
        Object::new::<Service>(json!({
            "metadata": meta(),
            "spec": {
                "type": "ClusterIP", "selector": selector,
                "ports": [{"name": "http", "port": PORT, "targetPort": PORT, "protocol": "TCP"}],
            },
        }))?,
        // Nobody has to sign in: only the namespace may ask.
        Object::new::<NetworkPolicy>(json!({
            "metadata": meta(),
            "spec": {
                "podSelector": {"matchLabels": selector}, "policyTypes": ["Ingress"],
                "ingress": [{"from": [{"podSelector": {}}], "ports": [{"port": PORT, "protocol": "TCP"}]}],
            },
        }))?,
        Object::new::<StatefulSet>(json!({"metadata": meta(), "spec": spec}))?,
    ];
    Ok(Rendered { objects, absent: Vec::new() })
}

/// What a cluster that is local no more leaves behind. Its volume stays.
fn all(owner: &Owner) -> Vec<Reference> {
    let (namespace, name) = (&owner.namespace, &owner.name);
    vec![
        Reference::to::<StatefulSet>(namespace, name),
        Reference::to::<NetworkPolicy>(namespace, name),
        Reference::to::<Service>(namespace, name),
        Reference::to::<ServiceAccount>(namespace, name),
    ]
}

/// Databases as kustd's flag has them, each with the age at which its rows go.
fn databases(spec: &AdxClusterSpec) -> Result<Vec<String>, RenderError> {
    let invalid = |problem| RenderError::Spec { field: "spec.databases", problem };
    let mut databases = Vec::new();
    for database in &spec.databases {
        let (name, days) = (&database.database_name, database.retention_in_days);
        databases.push(match policy_period(database).map_err(invalid)? {
            Some((_, period)) => format!("{name}={period}"),
            None if days > 0 => format!("{name}={days}d"),
            None => name.clone(),
        });
    }
    let heartbeats = spec.federation.as_ref().map(|federation| federation.heartbeat_database.as_str()).unwrap_or_default();
    if !heartbeats.is_empty() && !spec.databases.iter().any(|database| database.database_name == heartbeats) {
        databases.push(format!("{heartbeats}=30d"));
    }
    Ok(databases)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_database_keeps_its_rows_for_its_own_time() {
        let of = |databases: serde_json::Value| {
            let spec = json!({"clusterName": "c", "databases": databases, "federation": {"heartbeatDatabase": "Hub"}});
            super::databases(&serde_json::from_value(spec).unwrap_or_default()).map_err(|error| error.to_string())
        };
        let policy = r#"{"SoftDeletePeriod": "1.12:00:00"}"#;
        let databases = json!([
            {"databaseName": "Metrics", "telemetryType": "Metrics"},
            {"databaseName": "Logs", "telemetryType": "Logs", "retentionInDays": 90},
            {"databaseName": "Traces", "telemetryType": "Traces", "retentionInDays": 90, "retentionPolicy": policy},
        ]);
        assert_eq!(of(databases), Ok(["Metrics=30d", "Logs=90d", "Traces=1.12:00:00", "Hub=30d"].map(str::to_owned).to_vec()));
        let wrong = of(json!([{"databaseName": "Hub", "telemetryType": "Logs", "retentionPolicy": "90d"}])).unwrap_err();
        assert!(wrong.starts_with("spec.databases: retentionPolicy of database Hub"), "{wrong}");
    }
}
