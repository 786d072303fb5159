//! `ADXCluster` with `spec.local`: kustd, the embedded Kusto, as a StatefulSet of one.

use crds::AdxCluster;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde_json::json;

use super::common::Owner;
use super::pod::{self, DATA, GROUP, Pod};
use super::{RenderError, Rendered, Settings};
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
    let mut names: Vec<&str> = cluster.spec.databases.iter().map(|database| database.database_name.as_str()).collect();
    let heartbeats = cluster.spec.federation.as_ref().map(|federation| federation.heartbeat_database.as_str());
    names.extend(heartbeats.filter(|name| !name.is_empty() && !names.contains(name)));
    let mut args = vec![format!("--data-dir={DATA}"), format!("--listen=0.0.0.0:{PORT}")];
    if !names.is_empty() {
        args.push(format!("--databases={}", names.join(",")));
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
