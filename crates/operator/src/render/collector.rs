//! Collector: one on each node, a Service, and one of its own for the events of the cluster.

use crds::{Collector, PodOptions};
use k8s_openapi::api::apps::v1::{DaemonSet, StatefulSet};
use k8s_openapi::api::core::v1::{ConfigMap, Service, ServiceAccount};
use k8s_openapi::api::rbac::v1::RoleBinding;
use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_64;

use super::collector_config::{CollectorConfig, Role, collector_config};
use super::common::{Account, Owner, cluster_binding};
use super::pod::{self, DATA, GROUP, Pod, USER};
use super::{RenderError, Rendered, Settings};
use crate::object::{Object, Reference};

const COMPONENT: &str = "collector";
/// The one that stores events.
const EVENTS: &str = "collector-events";
/// Folder of the node where data wait until they are sent, as in the reference.
const FOLDER: &str = "/mnt/collector";

/// Objects of a Collector that sends to `endpoint`.
///
/// # Errors
/// A spec that cannot be installed.
pub fn render(collector: &Collector, endpoint: &str, settings: &Settings) -> Result<Rendered, RenderError> {
    let owner = Owner::of(collector)?;
    let options = collector.spec.pods.clone().unwrap_or_default();
    let account = Account {
        owner: &owner,
        component: COMPONENT,
        name: &owner.name,
        identity: &options.identity_client_id,
        everywhere: &[("", "adx-mon:collector"), ("metrics", "adx-mon:collector-node-metrics")],
        in_namespace: None,
    };
    let mut objects = account.render()?;
    let config = CollectorConfig {
        endpoint: endpoint.to_owned(),
        insecure_skip_verify: collector.spec.insecure_skip_verify,
        region: settings.region().to_owned(),
        namespace: owner.namespace.clone(),
        name: owner.name.clone(),
        role: Role::Node,
    };
    let text = collector_config(&config);
    let map = format!("{}-config", owner.name);
    objects.push(config_map(&owner, COMPONENT, &map, &text)?);
    let port = |name: &str, port: u16| json!({"name": name, "port": port, "targetPort": port, "protocol": "TCP"});
    objects.push(Object::new::<Service>(json!({
        "metadata": owner.meta(&owner.name, COMPONENT),
        "spec": {
            "type": "ClusterIP", "selector": owner.selector(COMPONENT),
            "ports": [port("http", 8080), port("otlp-grpc", 4317), port("otlp-http", 4318)],
        },
    }))?);
    objects.push(daemon_set(collector, &owner, &options, (&map, &text), settings)?);
    let mut absent = Vec::new();
    let events = format!("{}-events", owner.name);
    match &collector.spec.kubernetes_events {
        Some(_) => objects.extend(events_collector(collector, &owner, &options, config, settings)?),
        None => absent.extend([
            Reference::to::<StatefulSet>(&owner.namespace, &events),
            Reference::to::<ConfigMap>(&owner.namespace, format!("{events}-config")),
            Reference::to::<Service>(&owner.namespace, &events),
            Reference::to::<RoleBinding>(&owner.namespace, &events),
            cluster_binding(&owner, &events, ""),
            Reference::to::<ServiceAccount>(&owner.namespace, &events),
        ]),
    }
    Ok(Rendered { objects, absent })
}

fn config_map(owner: &Owner, component: &str, name: &str, text: &str) -> Result<Object, RenderError> {
    Object::new::<ConfigMap>(json!({"metadata": owner.meta(name, component), "data": {"config.toml": text}}))
}

/// The pod of a collector: those of nodes and the one of events differ in little.
fn base<'a>(collector: &Collector, owner: &'a Owner, component: &'a str, options: &'a PodOptions, settings: &Settings) -> Pod<'a> {
    Pod {
        owner,
        component,
        options,
        account: &owner.name,
        image: settings.images.of(COMPONENT, &collector.spec.image),
        command: "/collector",
        args: vec!["--config=/etc/config/config.toml".to_owned(), "--hostname=$(HOSTNAME)".to_owned()],
        ports: json!([]),
        probes: json!({
            "readinessProbe": pod::http_get("/readyz", "http", "HTTP", 3),
            "livenessProbe": pod::http_get("/healthz", "http", "HTTP", 6),
            "startupProbe": pod::http_get("/healthz", "http", "HTTP", 30),
        }),
        resources: [["50m", "100Mi"], ["500m", "2000Mi"]],
        annotations: pod::observed("8080", "Logs:Collector"),
        labels: vec![("adxmon", component)],
        env: vec![json!({"name": "HOSTNAME", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "spec.nodeName"}}})],
        volumes: Vec::new(),
        mounts: vec![json!({"name": "config", "mountPath": "/etc/config", "readOnly": true}), json!({"name": "data", "mountPath": DATA})],
        init: None,
        tolerations: json!([]),
        affinity: None,
        grace: 60,
        security: json!({}),
    }
}

/// Another configuration is another pod.
fn with_config(template: &mut Value, map: &str, text: &str) {
    template["metadata"]["annotations"]["adx-mon.azure.com/config"] = format!("{:016x}", xxh3_64(text.as_bytes())).into();
    let volume = json!({"name": "config", "configMap": {"name": map}});
    match &mut template["spec"]["volumes"] {
        Value::Array(volumes) => volumes.insert(0, volume),
        none => *none = json!([volume]),
    }
}

fn daemon_set(
    collector: &Collector,
    owner: &Owner,
    options: &PodOptions,
    (map, text): (&str, &str),
    settings: &Settings,
) -> Result<Object, RenderError> {
    let mut pod = base(collector, owner, COMPONENT, options, settings);
    let port = |name: &str, port: u16| json!({"name": name, "containerPort": port, "protocol": "TCP"});
    pod.ports = json!([
        {"name": "http", "containerPort": 8080, "hostPort": 3100, "protocol": "TCP"}, port("otlp-grpc", 4317), port("otlp-http", 4318),
    ]);
    let logs = [("varlog", "/var/log"), ("runlog", "/run/log"), ("containers", "/var/lib/docker/containers")];
    pod.volumes = vec![json!({"name": "data", "hostPath": {"path": FOLDER, "type": "DirectoryOrCreate"}})];
    for (name, path) in logs {
        pod.volumes.push(json!({"name": name, "hostPath": {"path": path}}));
        pod.mounts.push(json!({"name": name, "mountPath": path, "readOnly": true}));
    }
    pod.volumes.push(json!({"name": "machine-id", "hostPath": {"path": "/etc/machine-id", "type": "File"}}));
    pod.mounts.push(json!({"name": "machine-id", "mountPath": "/etc/machine-id", "readOnly": true}));
    pod.tolerations = json!([
        {"key": "CriticalAddonsOnly", "operator": "Exists"},
        {"key": "node-role.kubernetes.io/control-plane", "operator": "Exists", "effect": "NoSchedule"},
        {"key": "node-role.kubernetes.io/master", "operator": "Exists", "effect": "NoSchedule"},
    ]);
    // Logs of containers belong to root and are readable by its group.
    pod.security = json!({"supplementalGroups": [0]});
    // The kubelet makes the folder for root. No other way leads to a folder that outlasts the pod and that others than root
    // may write to.
    let mut security = pod::container_security();
    security["runAsNonRoot"] = false.into();
    security["runAsUser"] = 0.into();
    security["capabilities"]["add"] = json!(["CHOWN"]);
    pod.init = Some(json!({
        "name": "storage", "image": pod.image, "command": ["/bin/chown", format!("{USER}:{GROUP}"), DATA],
        "volumeMounts": [{"name": "data", "mountPath": DATA}], "securityContext": security,
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"cpu": "100m", "memory": "64Mi"}},
    }));
    let mut template = pod.template();
    with_config(&mut template, map, text);
    Object::new::<DaemonSet>(json!({
        "metadata": owner.meta(&owner.name, COMPONENT),
        "spec": {
            "selector": {"matchLabels": owner.selector(COMPONENT)}, "template": template,
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "30%"}},
        },
    }))
}

/// A collector for events alone. Its store must outlast its pod, so that it is a StatefulSet.
fn events_collector(
    collector: &Collector,
    owner: &Owner,
    options: &PodOptions,
    config: CollectorConfig,
    settings: &Settings,
) -> Result<Vec<Object>, RenderError> {
    let events = collector.spec.kubernetes_events.clone().unwrap_or_default();
    let name = format!("{}-events", owner.name);
    let account = Account {
        owner,
        component: EVENTS,
        name: &name,
        identity: &options.identity_client_id,
        everywhere: &[("", "adx-mon:collector-events")],
        in_namespace: Some("adx-mon:collector-events-namespace"),
    };
    let mut objects = account.render()?;
    let or = |text: &str, default: &str| if text.is_empty() { default.to_owned() } else { text.to_owned() };
    let role = Role::Events {
        database: or(&events.database, "Logs"),
        table: or(&events.table, "KubernetesEvents"),
        namespaces: events.namespaces.clone(),
    };
    let text = collector_config(&CollectorConfig { role, name: name.clone(), ..config });
    let map = format!("{name}-config");
    objects.push(config_map(owner, EVENTS, &map, &text)?);
    let selector = owner.selector(EVENTS);
    objects.push(Object::new::<Service>(json!({
        "metadata": owner.meta(&name, EVENTS),
        "spec": {
            "type": "ClusterIP", "clusterIP": "None", "selector": selector,
            "ports": [{"name": "http", "port": 8080, "targetPort": 8080, "protocol": "TCP"}],
        },
    }))?);
    let data = pod::data(owner, EVENTS, events.storage.as_ref(), "1Gi")?;
    let options = PodOptions { tolerations: Vec::new(), resources: None, ..options.clone() };
    let mut pod = base(collector, owner, EVENTS, &options, settings);
    pod.account = &name;
    pod.ports = json!([{"name": "http", "containerPort": 8080, "protocol": "TCP"}]);
    pod.volumes = data.volumes;
    pod.security = json!({"fsGroup": GROUP, "fsGroupChangePolicy": "OnRootMismatch"});
    let mut template = pod.template();
    with_config(&mut template, &map, &text);
    let mut spec = json!({
        "replicas": 1, "serviceName": name, "selector": {"matchLabels": selector}, "template": template,
        "updateStrategy": {"type": "RollingUpdate"}, "podManagementPolicy": "OrderedReady",
    });
    if !data.claims.is_empty() {
        spec["volumeClaimTemplates"] = data.claims.into();
    }
    objects.push(Object::new::<StatefulSet>(json!({"metadata": owner.meta(&name, EVENTS), "spec": spec}))?);
    Ok(objects)
}
