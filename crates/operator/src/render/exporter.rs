//! adxexporter: a Deployment of one for a Collector, where MetricsExporters exist.

use crds::Collector;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::RoleBinding;
use serde_json::json;

use super::common::{Account, Owner, cluster_binding};
use super::pod::{self, Pod};
use super::{Kusto, RenderError, Rendered, Settings, endpoints};
use crate::object::{Object, Reference};

const PORT: u16 = 8081;
const COMPONENT: &str = "adxexporter";

/// Objects of the adxexporter beside a Collector; `clusters` none: there shall be none.
///
/// # Errors
/// A spec that cannot be installed.
pub fn render(collector: &Collector, clusters: Option<&[Kusto]>, settings: &Settings) -> Result<Rendered, RenderError> {
    let owner = Owner::of(collector)?;
    let name = format!("{}-exporter", owner.name);
    let Some(clusters) = clusters else {
        let absent = vec![
            Reference::to::<Deployment>(&owner.namespace, &name),
            Reference::to::<RoleBinding>(&owner.namespace, &name),
            cluster_binding(&owner, &name, ""),
            Reference::to::<ServiceAccount>(&owner.namespace, &name),
        ];
        return Ok(Rendered { objects: Vec::new(), absent });
    };
    let options = collector.spec.pods.clone().unwrap_or_default();
    let export = collector.spec.metrics_export.clone().unwrap_or_default();
    let account = Account {
        owner: &owner,
        component: COMPONENT,
        name: &name,
        identity: &options.identity_client_id,
        everywhere: &[("", "adx-mon:adxexporter")],
        in_namespace: Some("adx-mon:adxexporter-namespace"),
    };
    let mut objects = account.render()?;
    let own = format!("http://{}.{}.svc.cluster.local:4318/v1/metrics", owner.name, owner.namespace);
    let receiver = if export.otlp_endpoint.is_empty() { own } else { export.otlp_endpoint.clone() };
    let mut args =
        vec![format!("--otlp-endpoint={receiver}"), format!("--health-probe-port=:{PORT}"), format!("--namespace={}", owner.namespace)];
    args.extend(endpoints(clusters, &[])?.iter().map(|endpoint| format!("--kusto-endpoints={endpoint}")));
    args.extend(settings.label_flags("cluster-labels"));
    let mut options = options;
    // Those are the nodes' collectors'.
    options.tolerations = Vec::new();
    options.resources = None;
    let pod = Pod {
        owner: &owner,
        component: COMPONENT,
        options: &options,
        account: &name,
        image: settings.images.of(COMPONENT, &export.image),
        command: "/adxexporter",
        args,
        ports: json!([{"name": "http", "containerPort": PORT, "protocol": "TCP"}]),
        probes: json!({
            "readinessProbe": pod::http_get("/readyz", "http", "HTTP", 3),
            "livenessProbe": pod::http_get("/healthz", "http", "HTTP", 6),
        }),
        resources: [["50m", "64Mi"], ["500m", "512Mi"]],
        annotations: pod::observed("8081", "Logs:Adxexporter"),
        labels: Vec::new(),
        env: Vec::new(),
        volumes: Vec::new(),
        mounts: Vec::new(),
        init: None,
        tolerations: json!([]),
        affinity: None,
        grace: 30,
        security: json!({}),
    };
    objects.push(Object::new::<Deployment>(json!({
        "metadata": owner.meta(&name, COMPONENT),
        "spec": {
            "replicas": 1, "selector": {"matchLabels": owner.selector(COMPONENT)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": pod.template(),
        },
    }))?);
    Ok(Rendered { objects, absent: Vec::new() })
}
