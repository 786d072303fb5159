//! Alerter: a Deployment of one, with its account and rights.

use crds::Alerter;
use k8s_openapi::api::apps::v1::Deployment;
use serde_json::json;

use super::common::{Account, Owner};
use super::pod::{self, DATA, GROUP, Pod};
use super::{Kusto, RenderError, Rendered, Settings, endpoints};
use crate::object::Object;

const PORT: u16 = 8080;
const COMPONENT: &str = "alerter";

/// Objects of an Alerter whose rules query these clusters.
///
/// # Errors
/// A spec that cannot be installed.
pub fn render(alerter: &Alerter, clusters: &[Kusto], settings: &Settings) -> Result<Rendered, RenderError> {
    let owner = Owner::of(alerter)?;
    let options = alerter.spec.pods.clone().unwrap_or_default();
    let receiver = alerter.spec.notification_endpoint.trim();
    if !receiver.starts_with("http://") && !receiver.starts_with("https://") {
        let problem = format!("{receiver:?} is no URL; write it like https://receiver.example.com");
        return Err(RenderError::Spec { field: "spec.notificationEndpoint", problem });
    }
    let account = Account {
        owner: &owner,
        component: COMPONENT,
        name: &owner.name,
        identity: &options.identity_client_id,
        everywhere: &[("", "adx-mon:alerter")],
        in_namespace: Some("adx-mon:alerter-namespace"),
    };
    let mut objects = account.render()?;
    let mut args = vec![format!("--alerter-address={receiver}"), format!("--port={PORT}"), format!("--data-dir={DATA}")];
    args.extend(endpoints(clusters, &[])?.iter().map(|endpoint| format!("--kusto-endpoint={endpoint}")));
    args.push(format!("--region={}", settings.region()));
    args.extend(settings.labels.get("cloud").map(|cloud| format!("--cloud={cloud}")));
    args.extend(
        settings.label_flags("tag").into_iter().filter(|flag| !flag.starts_with("--tag=region=") && !flag.starts_with("--tag=cloud=")),
    );
    let pod = Pod {
        owner: &owner,
        component: COMPONENT,
        options: &options,
        account: &owner.name,
        image: settings.images.of(COMPONENT, &alerter.spec.image),
        command: "/alerter",
        args,
        ports: json!([{"name": "http", "containerPort": PORT, "protocol": "TCP"}]),
        probes: json!({
            "readinessProbe": pod::http_get("/readyz", "http", "HTTP", 3),
            "livenessProbe": pod::http_get("/healthz", "http", "HTTP", 6),
        }),
        resources: [["100m", "125Mi"], ["400m", "1400Mi"]],
        annotations: pod::observed("8080", "Logs:Alerter"),
        labels: vec![("app", "alerter")],
        env: Vec::new(),
        // How far rules have run is in ConfigMaps; what is lost here is run again.
        volumes: vec![json!({"name": "data", "emptyDir": {}})],
        mounts: vec![json!({"name": "data", "mountPath": DATA})],
        init: None,
        tolerations: json!([
            {"key": "agentpool", "operator": "Equal", "value": "infra", "effect": "NoSchedule"},
            {"key": "infra-nodepool", "operator": "Exists", "effect": "NoSchedule"},
        ]),
        affinity: None,
        grace: 90,
        security: json!({"fsGroup": GROUP}),
    };
    objects.push(Object::new::<Deployment>(json!({
        "metadata": owner.meta(&owner.name, COMPONENT),
        "spec": {
            "replicas": 1, "selector": {"matchLabels": owner.selector(COMPONENT)},
            // The next one waits for the lease, so that both may be there for a while.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": pod.template(),
        },
    }))?);
    Ok(Rendered { objects, absent: Vec::new() })
}
