//! Ingestor: a StatefulSet with a volume for each, a Service, rights, and how many may be away at a time.

use crds::{Ingestor, TelemetryType};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde_json::json;

use super::common::{Account, Owner};
use super::pod::{self, DATA, GROUP, Pod};
use super::{Kusto, RenderError, Rendered, Settings, endpoints};
use crate::object::{Object, Reference};

/// Port with TLS.
const PORT: u16 = 9090;
/// What programs and dashboards know it as.
const COMPONENT: &str = "ingestor";
/// Part of the volume that data may fill; the rest is for what a file system needs.
const USABLE: f64 = 0.9;
/// As in the reference, where data are in a folder of the node.
const DISK_USAGE: u64 = 20 << 30;

/// URL of the ingestors within the cluster.
pub fn endpoint(ingestor: &Ingestor) -> Option<String> {
    if !ingestor.spec.endpoint.is_empty() {
        return Some(ingestor.spec.endpoint.clone());
    }
    let meta = &ingestor.metadata;
    Some(format!("https://{}.{}.svc.cluster.local", meta.name.as_deref()?, meta.namespace.as_deref().unwrap_or("default")))
}

/// Objects of an Ingestor that sends to these clusters.
///
/// # Errors
/// A spec that cannot be installed.
pub fn render(ingestor: &Ingestor, clusters: &[Kusto], settings: &Settings) -> Result<Rendered, RenderError> {
    let owner = Owner::of(ingestor)?;
    let options = ingestor.spec.pods.clone().unwrap_or_default();
    let account = Account {
        owner: &owner,
        component: COMPONENT,
        name: &owner.name,
        identity: &options.identity_client_id,
        everywhere: &[("", "adx-mon:ingestor")],
        in_namespace: Some("adx-mon:ingestor-namespace"),
    };
    let mut objects = account.render()?;
    let selector = owner.selector(COMPONENT);
    let meta = |name: &str| owner.meta(name, COMPONENT);
    let ports = json!([{"name": "https", "port": 443, "targetPort": PORT, "protocol": "TCP"}]);
    objects.push(Object::new::<Service>(json!({
        "metadata": meta(&owner.name), "spec": {"type": "ClusterIP", "selector": selector, "ports": ports},
    }))?);
    let outside = format!("{}-external", owner.name);
    let mut absent = Vec::new();
    if ingestor.spec.expose_externally {
        let mut meta = meta(&outside);
        // The intake takes what it is sent: it is for the private network, unless its owner says otherwise.
        meta["annotations"] = json!({
            "service.beta.kubernetes.io/azure-load-balancer-internal": "true",
            "service.beta.kubernetes.io/aws-load-balancer-scheme": "internal",
            "networking.gke.io/load-balancer-type": "Internal",
        });
        objects.push(Object::new::<Service>(json!({
            "metadata": meta, "spec": {"type": "LoadBalancer", "selector": selector, "ports": ports},
        }))?);
    } else {
        absent.push(Reference::to::<Service>(&owner.namespace, outside));
    }
    objects.push(Object::new::<PodDisruptionBudget>(json!({
        "metadata": meta(&owner.name), "spec": {"maxUnavailable": 1, "selector": {"matchLabels": selector}},
    }))?);
    objects.push(stateful_set(ingestor, &owner, clusters, settings)?);
    Ok(Rendered { objects, absent })
}

fn stateful_set(ingestor: &Ingestor, owner: &Owner, clusters: &[Kusto], settings: &Settings) -> Result<Object, RenderError> {
    if ingestor.spec.replicas < 0 {
        let problem = format!("{} is below zero", ingestor.spec.replicas);
        return Err(RenderError::Spec { field: "spec.replicas", problem });
    }
    let options = ingestor.spec.pods.clone().unwrap_or_default();
    let data = pod::data(owner, COMPONENT, ingestor.spec.storage.as_ref(), "20Gi")?;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a part of a u64")]
    let usable = data.bytes.map_or(DISK_USAGE, |bytes| (bytes as f64 * USABLE) as u64);
    let mut args: Vec<String> = vec![
        format!("--storage-dir={DATA}"),
        "--max-segment-age=5s".to_owned(),
        format!("--max-disk-usage={usable}"),
        "--max-transfer-size=10485760".to_owned(),
        "--max-connections=1000".to_owned(),
        "--insecure-skip-verify".to_owned(),
        format!("--region={}", settings.region()),
    ];
    let metrics = endpoints(clusters, &[TelemetryType::Metrics])?;
    args.extend(metrics.iter().map(|endpoint| format!("--metrics-kusto-endpoints={endpoint}")));
    let logs = endpoints(clusters, &[TelemetryType::Logs, TelemetryType::Traces])?;
    args.extend(logs.iter().map(|endpoint| format!("--logs-kusto-endpoints={endpoint}")));
    args.extend(settings.label_flags("cluster-labels"));
    let selector = owner.selector(COMPONENT);
    let pod = Pod {
        owner,
        component: COMPONENT,
        options: &options,
        account: &owner.name,
        image: settings.images.of(COMPONENT, &ingestor.spec.image),
        command: "/ingestor",
        args,
        ports: json!([{"name": "https", "containerPort": PORT, "protocol": "TCP"}, {"name": "metrics", "containerPort": 9091, "protocol": "TCP"}]),
        probes: json!({
            "readinessProbe": pod::http_get("/readyz", "https", "HTTPS", 3),
            "livenessProbe": pod::http_get("/healthz", "metrics", "HTTP", 6),
            // The journal is read at the start.
            "startupProbe": pod::http_get("/healthz", "metrics", "HTTP", 60),
        }),
        resources: [["100m", "256Mi"], ["2", "2Gi"]],
        annotations: pod::observed("9091", "Logs:Ingestor"),
        // Ingestors find each other by this label.
        labels: vec![("app", "ingestor")],
        env: Vec::new(),
        volumes: data.volumes,
        mounts: vec![data.mount],
        init: None,
        tolerations: json!([{"key": "CriticalAddonsOnly", "operator": "Exists"}]),
        affinity: Some(pod::apart(&selector)),
        grace: 60,
        security: json!({"fsGroup": GROUP, "fsGroupChangePolicy": "OnRootMismatch"}),
    };
    let mut spec = json!({
        "replicas": ingestor.spec.replicas, "serviceName": owner.name, "selector": {"matchLabels": selector},
        "updateStrategy": {"type": "RollingUpdate"}, "podManagementPolicy": "OrderedReady", "template": pod.template(),
    });
    if !data.claims.is_empty() {
        spec["volumeClaimTemplates"] = data.claims.into();
    }
    Object::new::<StatefulSet>(json!({"metadata": owner.meta(&owner.name, COMPONENT), "spec": spec}))
}
