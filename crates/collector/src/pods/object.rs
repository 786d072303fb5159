//! A pod as the API server and the kubelet send it, of which only the parts that are used are read.

use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube_client::core::{ApiResource, GroupVersionKind, Object};
use serde::{Deserialize, Serialize};

use super::{Container, ContainerKind, ContainerState, Map, Phase, Pod, Port, PortRef};

/// Longest annotation value that is kept; ours are kept whatever their length.
const MAX_ANNOTATION: usize = 4096;

/// A pod on the wire.
pub(crate) type PodObject = Object<PodSpec, PodStatus>;

/// How pods are asked for.
pub(super) fn resource() -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "Pod"))
}

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PodSpec {
    node_name: Option<String>,
    init_containers: Option<Vec<ContainerSpec>>,
    containers: Option<Vec<ContainerSpec>>,
    ephemeral_containers: Option<Vec<ContainerSpec>>,
}

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
struct ContainerSpec {
    name: String,
    ports: Option<Vec<PortSpec>>,
    readiness_probe: Option<Probe>,
    liveness_probe: Option<Probe>,
}

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
struct PortSpec {
    name: Option<String>,
    container_port: i64,
    protocol: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
struct Probe {
    http_get: Option<HttpGet>,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
struct HttpGet {
    port: IntOrString,
}

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PodStatus {
    phase: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    init_container_statuses: Option<Vec<ContainerStatus>>,
    container_statuses: Option<Vec<ContainerStatus>>,
    ephemeral_container_statuses: Option<Vec<ContainerStatus>>,
}

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
struct ContainerStatus {
    name: String,
    #[serde(rename = "containerID")]
    container_id: Option<String>,
    restart_count: i64,
    state: Option<State>,
    last_state: Option<LastState>,
}

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default)]
struct LastState {
    terminated: Option<Ended>,
}

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default)]
struct Ended {
    #[serde(rename = "containerID")]
    container_id: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default)]
struct State {
    running: Option<Nothing>,
    terminated: Option<Nothing>,
}

/// A table of which nothing but its presence is used.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
struct Nothing {}

/// The pod, if it runs on `node`.
pub(super) fn pod(object: PodObject, node: &str) -> Option<Pod> {
    if object.spec.node_name.as_deref() != Some(node) {
        return None;
    }
    let (meta, spec, status) = (object.metadata, object.spec, object.status.unwrap_or_default());
    let groups = [
        (ContainerKind::Init, spec.init_containers, status.init_container_statuses),
        (ContainerKind::Regular, spec.containers, status.container_statuses),
        (ContainerKind::Ephemeral, spec.ephemeral_containers, status.ephemeral_container_statuses),
    ];
    Some(Pod {
        uid: meta.uid.unwrap_or_default().into(),
        namespace: meta.namespace.unwrap_or_default().into(),
        name: meta.name.unwrap_or_default().into(),
        ip: status.pod_ip.and_then(|ip| ip.parse::<IpAddr>().ok()),
        phase: phase(status.phase.as_deref()),
        deleting: meta.deletion_timestamp.is_some(),
        labels: map(meta.labels),
        annotations: annotations(meta.annotations),
        containers: groups.into_iter().flat_map(|(kind, specs, statuses)| containers(kind, specs, statuses)).collect(),
    })
}

fn phase(text: Option<&str>) -> Phase {
    match text {
        Some("Pending") => Phase::Pending,
        Some("Running") => Phase::Running,
        Some("Succeeded") => Phase::Succeeded,
        Some("Failed") => Phase::Failed,
        _ => Phase::Unknown,
    }
}

/// Labels, or annotations of nodes.
pub(super) fn map(texts: Option<std::collections::BTreeMap<String, String>>) -> Map {
    texts.into_iter().flatten().map(|(name, value)| (name.into(), value.into())).collect()
}

fn annotations(texts: Option<std::collections::BTreeMap<String, String>>) -> Map {
    let mut texts = texts.unwrap_or_default();
    texts.retain(|name, value| value.len() <= MAX_ANNOTATION || name.starts_with("adx-mon/"));
    map(Some(texts))
}

fn containers(
    kind: ContainerKind,
    specs: Option<Vec<ContainerSpec>>,
    statuses: Option<Vec<ContainerStatus>>,
) -> impl Iterator<Item = Container> {
    let mut statuses = statuses.unwrap_or_default();
    specs.into_iter().flatten().map(move |spec| {
        let at = statuses.iter().position(|status| status.name == spec.name);
        let status = at.map(|at| statuses.swap_remove(at)).unwrap_or_default();
        container(kind, spec, status)
    })
}

fn container(kind: ContainerKind, spec: ContainerSpec, status: ContainerStatus) -> Container {
    let is_tcp = |port: &PortSpec| port.protocol.as_deref().is_none_or(|protocol| protocol.is_empty() || protocol == "TCP");
    let port = |port: PortSpec| {
        let number = u16::try_from(port.container_port).ok()?;
        Some(Port { name: port.name.unwrap_or_default().into(), number })
    };
    let probe = |probe: Probe| match probe.http_get?.port {
        IntOrString::Int(number) => u16::try_from(number).ok().map(PortRef::Number),
        IntOrString::String(text) => Some(PortRef::parse(&text)),
    };
    let state = status.state.unwrap_or_default();
    Container {
        name: spec.name.into(),
        kind,
        ports: spec.ports.into_iter().flatten().filter(is_tcp).filter_map(port).collect(),
        probes: [spec.readiness_probe, spec.liveness_probe].into_iter().flatten().filter_map(probe).collect(),
        id: status.container_id.filter(|id| !id.is_empty()).map(Into::into),
        previous_id: status
            .last_state
            .and_then(|last| last.terminated)
            .and_then(|ended| ended.container_id)
            .filter(|id| !id.is_empty())
            .map(Into::into),
        restarts: u32::try_from(status.restart_count).unwrap_or(0),
        state: match (state.running, state.terminated) {
            (Some(_), _) => ContainerState::Running,
            (None, Some(_)) => ContainerState::Terminated,
            (None, None) => ContainerState::Waiting,
        },
    }
}
