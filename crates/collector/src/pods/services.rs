//! Services that are annotated to be scraped.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube_client::api::Api;
use kube_client::core::{ApiResource, GroupVersionKind, NotUsed, Object};
use kube_runtime::watcher::{self, Event};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Map, PortRef, Problem, follow_api, object};

/// The annotated Services of the cluster at one moment, by uid.
pub(crate) type Services = Arc<BTreeMap<Box<str>, Arc<Service>>>;

/// What is used of a Service.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Service {
    pub(crate) namespace: Box<str>,
    pub(crate) name: Box<str>,
    pub(crate) annotations: Map,
    /// Labels of the pods behind it; none behind one without.
    pub(crate) selector: Map,
    /// TCP ports.
    pub(crate) ports: Vec<ServicePort>,
}

/// A port of a Service.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ServicePort {
    /// May be empty.
    pub(crate) name: Box<str>,
    pub(crate) number: u16,
    /// The port of the pods behind it.
    pub(crate) target: PortRef,
}

type ServiceObject = Object<ServiceSpec, NotUsed>;

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default)]
struct ServiceSpec {
    selector: Option<BTreeMap<String, String>>,
    ports: Option<Vec<PortSpec>>,
}

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
struct PortSpec {
    name: Option<String>,
    port: i64,
    target_port: Option<IntOrString>,
    protocol: Option<String>,
}

/// Follows the Services until `stop`.
pub(crate) fn start_services(client: kube_client::Client, problem: Problem, stop: &CancellationToken) -> watch::Receiver<Services> {
    let (publisher, receiver) = watch::channel(Services::default());
    let stop = stop.clone();
    tokio::spawn(async move { stop.run_until_cancelled(follow(client, &publisher, &problem)).await });
    receiver
}

async fn follow(client: kube_client::Client, publisher: &watch::Sender<Services>, problem: &Problem) {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "Service"));
    let api: Api<ServiceObject> = Api::all_with(client, &resource);
    let mut listed = BTreeMap::new();
    follow_api(api, watcher::Config::default(), problem, |event| match event {
        Event::Init => listed.clear(),
        Event::InitApply(object) => {
            let uid = object.metadata.uid.clone().unwrap_or_default();
            if let Some(service) = service(object) {
                listed.insert(uid.into(), Arc::new(service));
            }
        }
        Event::InitDone => {
            let listed = std::mem::take(&mut listed);
            publish(publisher, |services| *services = listed);
        }
        Event::Apply(object) => {
            let uid = object.metadata.uid.clone().unwrap_or_default();
            match service(object) {
                Some(service) => publish(publisher, |services| drop(services.insert(uid.into(), Arc::new(service)))),
                None => publish(publisher, |services| drop(services.remove(uid.as_str()))),
            }
        }
        Event::Delete(object) => {
            let uid = object.metadata.uid.unwrap_or_default();
            publish(publisher, |services| drop(services.remove(uid.as_str())));
        }
    })
    .await;
}

fn publish(publisher: &watch::Sender<Services>, change: impl FnOnce(&mut BTreeMap<Box<str>, Arc<Service>>)) {
    publisher.send_if_modified(|services| {
        let mut new = BTreeMap::clone(services);
        change(&mut new);
        let modified = new != **services;
        if modified {
            *services = Arc::new(new);
        }
        modified
    });
}

/// The Service, if it has an annotation of ours. Most have none, and are not kept.
fn service(object: ServiceObject) -> Option<Service> {
    let (meta, spec) = (object.metadata, object.spec);
    let mut annotations = meta.annotations.unwrap_or_default();
    annotations.retain(|name, _| name.starts_with("adx-mon/"));
    if annotations.is_empty() {
        return None;
    }
    let is_tcp = |port: &PortSpec| port.protocol.as_deref().is_none_or(|protocol| protocol.is_empty() || protocol == "TCP");
    Some(Service {
        namespace: meta.namespace.unwrap_or_default().into(),
        name: meta.name.unwrap_or_default().into(),
        annotations: object::map(Some(annotations)),
        selector: object::map(spec.selector),
        ports: spec.ports.into_iter().flatten().filter(is_tcp).filter_map(port).collect(),
    })
}

fn port(port: PortSpec) -> Option<ServicePort> {
    let number = u16::try_from(port.port).ok()?;
    let target = match port.target_port {
        Some(IntOrString::Int(0)) | None => PortRef::Number(number),
        Some(IntOrString::Int(target)) => PortRef::Number(u16::try_from(target).ok()?),
        Some(IntOrString::String(text)) => PortRef::parse(&text),
    };
    Some(ServicePort { name: port.name.unwrap_or_default().into(), number, target })
}
