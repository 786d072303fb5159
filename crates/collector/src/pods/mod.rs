//! The pods of this node, by a watch of the API server or by polling the kubelet; the Node itself; Services.
//!
//! Whoever needs pods takes a [`watch::Receiver`] of [`Pods`], a snapshot that never changes: discovery replaces it when
//! something did that is kept here. Only the parts of a pod that targets and logs are made of are kept. While the source is
//! away the last snapshot stays.

mod api;
mod kubelet;
mod node;
mod object;
mod services;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub(crate) use api::{Following, Problem, Source, follow_api};
pub(crate) use kubelet::Kubelet;
pub(crate) use node::{Node, start_node};
pub(crate) use object::PodObject;
#[cfg(test)]
pub(crate) use services::ServicePort;
pub(crate) use services::{Service, Services, start_services};

/// Texts by name.
pub(crate) type Map = BTreeMap<Box<str>, Box<str>>;

/// The pods of this node at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Pods {
    /// Whether the source was read at least once: before that, a pod that is missing may well be there.
    pub(crate) known: bool,
    /// By uid.
    pub(crate) by_uid: Arc<BTreeMap<Box<str>, Arc<Pod>>>,
}

/// What is used of a pod.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Pod {
    pub(crate) uid: Box<str>,
    pub(crate) namespace: Box<str>,
    pub(crate) name: Box<str>,
    /// Where it can be reached; none before it has started.
    pub(crate) ip: Option<IpAddr>,
    pub(crate) phase: Phase,
    /// Whether its deletion was asked for.
    pub(crate) deleting: bool,
    pub(crate) labels: Map,
    /// Without long values that are not ours: `last-applied-configuration` and the like.
    pub(crate) annotations: Map,
    /// Init containers, then regular, then ephemeral ones.
    pub(crate) containers: Vec<Container>,
}

/// `status.phase`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Phase {
    Pending,
    Running,
    Succeeded,
    Failed,
    /// The kubelet does not answer, or a phase that this version does not know.
    #[default]
    Unknown,
}

impl Phase {
    /// Whether all containers have ended and none will be started again.
    pub(crate) fn is_over(self) -> bool {
        matches!(self, Phase::Succeeded | Phase::Failed)
    }
}

/// What is used of a container.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Container {
    pub(crate) name: Box<str>,
    pub(crate) kind: ContainerKind,
    /// TCP ports that it declares.
    pub(crate) ports: Vec<Port>,
    /// Ports of the HTTP readiness and liveness probes, in this order.
    pub(crate) probes: Vec<PortRef>,
    /// `containerd://…`; none before it was made.
    pub(crate) id: Option<Box<str>>,
    /// The same of the instance that ended before this one was started.
    pub(crate) previous_id: Option<Box<str>>,
    pub(crate) restarts: u32,
    pub(crate) state: ContainerState,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum ContainerKind {
    Init,
    #[default]
    Regular,
    Ephemeral,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum ContainerState {
    #[default]
    Waiting,
    Running,
    Terminated,
}

/// A port that a container declares.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Port {
    /// May be empty.
    pub(crate) name: Box<str>,
    pub(crate) number: u16,
}

/// A port by number or by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PortRef {
    Number(u16),
    Name(Box<str>),
}

impl PortRef {
    /// What an annotation or a probe says.
    pub(crate) fn parse(text: &str) -> PortRef {
        text.parse().map_or_else(|_| PortRef::Name(text.into()), PortRef::Number)
    }
}

impl fmt::Display for PortRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PortRef::Number(number) => write!(f, "{number}"),
            PortRef::Name(name) => write!(f, "{name:?}"),
        }
    }
}

/// Where the pods come from.
pub(crate) enum PodSource {
    /// List and watch.
    Api(kube_client::Client),
    /// `kubelet-discovery`
    Kubelet(Kubelet),
}

/// Follows the pods of `node` until `stop`.
pub(crate) fn start(source: PodSource, node: &str, problem: Problem, stop: &CancellationToken) -> watch::Receiver<Pods> {
    let (publisher, receiver) = watch::channel(Pods::default());
    let node = node.to_owned();
    let following = async move {
        match source {
            PodSource::Api(client) => api::follow_pods(client, &node, &publisher, &problem).await,
            PodSource::Kubelet(kubelet) => kubelet::poll(&kubelet, &node, &publisher, &problem).await,
        }
    };
    let stop = stop.clone();
    tokio::spawn(async move { stop.run_until_cancelled(following).await });
    receiver
}

/// A pod as it is on the wire, if it runs on `node`.
#[cfg(test)]
pub(crate) fn read_pod(wire: serde_json::Value, node: &str) -> Option<Pod> {
    object::pod(serde_json::from_value(wire).ok()?, node)
}

/// Replaces the snapshot if anything in it changes.
fn publish(publisher: &watch::Sender<Pods>, change: impl FnOnce(&mut BTreeMap<Box<str>, Arc<Pod>>)) {
    publisher.send_if_modified(|pods| {
        let mut new = BTreeMap::clone(&pods.by_uid);
        change(&mut new);
        let modified = !pods.known || new != *pods.by_uid;
        if modified {
            *pods = Pods { known: true, by_uid: Arc::new(new) };
        }
        modified
    });
}
