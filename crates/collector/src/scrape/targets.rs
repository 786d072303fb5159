//! From the annotations of pods and Services to targets.
//!
//! | annotation | |
//! |---|---|
//! | `adx-mon/scrape` | `true`: scrape this |
//! | `adx-mon/scheme`, `adx-mon/path` | `http` and `/metrics` by default |
//! | `adx-mon/port` | number or name of one port; all declared ones by default |
//! | `adx-mon/targets` | `path:port,…`; instead of port and path |
//! | `adx-mon/scrape-interval` | `15`, `15s`, `1m`; that of the source by default |
//! | `adx-mon/tls` | of https: `skip-verify` (default), `cluster-ca`, `verify` (authorities of the system) |
//! | `adx-mon/scrape-token` | `true`: send the service account's token, over https with a certificate that is verified |
//!
//! The token is not given to whoever asks for it without a certificate: else any author of a pod had it.
//!
//! A Service makes targets of the pods behind it (its selector) that run on this node, so that every pod is scraped once, by
//! its own collector, and no EndpointSlice has to be followed. A pod with an `adx-mon/scrape` of its own, whatever it says,
//! is left to it.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::config::{ScrapeTarget, TlsMode};
use crate::pods::{Container, ContainerKind, Map, Pod, PortRef, Service};

/// Targets that one pod may have; who declares more names those that count.
const MAX_PER_POD: usize = 64;

/// What annotations ask for.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Found {
    pub(super) targets: Vec<ScrapeTarget>,
    pub(super) dropped: Vec<Dropped>,
}

/// What is asked for and is not scraped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Dropped {
    /// `pod` or `service`.
    pub(super) kind: &'static str,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) reason: String,
}

/// Targets of an annotated pod.
pub(super) fn of_pod(pod: &Pod) -> Found {
    let mut found = Found::default();
    let mut drop = |reason: String| {
        let (namespace, name) = (pod.namespace.to_string(), pod.name.to_string());
        found.dropped.push(Dropped { kind: "pod", namespace, name, reason });
    };
    if !asks(&pod.annotations) {
        return found;
    }
    let (wishes, address) = match (Wishes::read(&pod.annotations, &mut drop), address(pod)) {
        (Ok(wishes), Ok(address)) => (wishes, address),
        (Err(reason), _) | (_, Err(reason)) => {
            drop(reason);
            return found;
        }
    };
    let ports = pod_ports(pod, &wishes, &mut drop);
    found.targets = wishes.targets(pod, address, ports, &mut drop);
    found
}

/// Targets of an annotated Service among the pods of this node.
pub(super) fn of_service<'p>(service: &Service, pods: impl Iterator<Item = &'p Pod>) -> Found {
    let mut found = Found::default();
    let mut drop = |reason: String| {
        let (namespace, name) = (service.namespace.to_string(), service.name.to_string());
        found.dropped.push(Dropped { kind: "service", namespace, name, reason });
    };
    if !asks(&service.annotations) {
        return found;
    }
    let wishes = match Wishes::read(&service.annotations, &mut drop) {
        Ok(wishes) => wishes,
        Err(reason) => {
            drop(reason);
            return found;
        }
    };
    if service.selector.is_empty() {
        drop("it has no selector, so its pods are not known; use a static target".to_owned());
    }
    let ports = service_ports(service, &wishes, &mut drop);
    for pod in pods.filter(|pod| is_behind(pod, service)) {
        // One that is ending or not there yet comes and goes without a word.
        let Ok(address) = address(pod) else { continue };
        let ports = ports.iter().filter_map(|(target, path)| Some((resolve(pod, target)?, path.clone()))).collect();
        found.targets.extend(wishes.targets(pod, address, ports, &mut drop));
    }
    found
}

fn is_behind(pod: &Pod, service: &Service) -> bool {
    !service.selector.is_empty()
        && pod.namespace == service.namespace
        && service.selector.iter().all(|(name, value)| pod.labels.get(name) == Some(value))
        && annotation(&pod.annotations, "scrape").is_none()
}

fn asks(annotations: &Map) -> bool {
    annotation(annotations, "scrape").is_some_and(|value| value.eq_ignore_ascii_case("true"))
}

/// The value of `adx-mon/<name>`; an empty one is none.
fn annotation<'a>(annotations: &'a Map, name: &str) -> Option<&'a str> {
    annotations.get(format!("adx-mon/{name}").as_str()).map(|value| &**value).filter(|value| !value.is_empty())
}

/// Where the pod can be scraped.
fn address(pod: &Pod) -> Result<IpAddr, String> {
    if pod.deleting {
        return Err("it is being deleted".to_owned());
    }
    if pod.phase.is_over() {
        return Err("it has completed".to_owned());
    }
    pod.ip.ok_or_else(|| "it has no address yet".to_owned())
}

/// The annotations but `adx-mon/scrape`.
struct Wishes {
    scheme: &'static str,
    /// Ports that were named, each with its path; all without.
    entries: Option<Vec<(PortRef, String)>>,
    path: String,
    interval: Option<Duration>,
    token: bool,
    tls: TlsMode,
}

impl Wishes {
    /// Reads them. What can be done without is dropped.
    fn read(annotations: &Map, drop: &mut impl FnMut(String)) -> Result<Wishes, String> {
        let get = |name| annotation(annotations, name);
        let scheme = match get("scheme").unwrap_or("http") {
            scheme if scheme.eq_ignore_ascii_case("http") => "http",
            scheme if scheme.eq_ignore_ascii_case("https") => "https",
            other => return Err(format!("adx-mon/scheme {other:?} is neither http nor https")),
        };
        let path = absolute(get("path").unwrap_or("/metrics"));
        let targets = get("targets").and_then(|text| {
            let targets = targets(text);
            if targets.is_none() {
                drop(format!("adx-mon/targets {text:?} is not of the form path:port,path:port and is ignored"));
            }
            targets
        });
        let entries = targets.or_else(|| Some(vec![(PortRef::parse(get("port")?), path.clone())]));
        let token = get("scrape-token").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let tls = match get("tls") {
            None if token => TlsMode::ClusterCa,
            None | Some("skip-verify") => TlsMode::Unverified,
            Some("cluster-ca") => TlsMode::ClusterCa,
            Some("verify") => TlsMode::System,
            Some(other) => return Err(format!("adx-mon/tls {other:?} is none of verify, cluster-ca, skip-verify")),
        };
        if token && (scheme != "https" || tls == TlsMode::Unverified) {
            return Err("adx-mon/scrape-token needs adx-mon/scheme https and adx-mon/tls cluster-ca or verify".to_owned());
        }
        let interval = get("scrape-interval").map(interval).transpose()?;
        Ok(Wishes { scheme, entries, path, interval, token, tls: if scheme == "https" { tls } else { TlsMode::Plain } })
    }

    /// The targets at `ports`, each with the name of its container and its path.
    fn targets(&self, pod: &Pod, ip: IpAddr, ports: Vec<((String, u16), String)>, drop: &mut impl FnMut(String)) -> Vec<ScrapeTarget> {
        let mut seen = BTreeSet::new();
        let mut targets = Vec::new();
        for ((container, port), path) in ports {
            let url = format!("{}://{}{path}", self.scheme, SocketAddr::new(ip, port));
            if crate::config::settings::http_url(&url).is_none() {
                drop(format!("{url} is no URL; check adx-mon/path"));
            } else if targets.len() == MAX_PER_POD {
                drop(format!("it has more than {MAX_PER_POD} targets; name those to scrape in adx-mon/targets"));
                break;
            } else if seen.insert(url.clone()) {
                targets.push(ScrapeTarget {
                    url,
                    namespace: pod.namespace.to_string(),
                    pod: pod.name.to_string(),
                    container,
                    interval: self.interval,
                    token: self.token,
                    tls: self.tls.clone(),
                });
            }
        }
        targets
    }
}

/// `path:port[,path:port…]`; none where an entry has not exactly one colon. Of one port the last counts.
fn targets(text: &str) -> Option<Vec<(PortRef, String)>> {
    let mut targets: Vec<(PortRef, String)> = Vec::new();
    for entry in text.split(',').map(str::trim) {
        let (path, port) = entry.split_once(':').filter(|(_, port)| !port.contains(':'))?;
        let (port, path) = (PortRef::parse(port.trim()), absolute(path.trim()));
        targets.retain(|(known, _)| *known != port);
        targets.push((port, path));
    }
    Some(targets)
}

fn absolute(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

/// Seconds, or a duration with units.
fn interval(text: &str) -> Result<Duration, String> {
    let interval = text.parse().map(Duration::from_secs).or_else(|_| humantime::parse_duration(text));
    let interval = interval.map_err(|error| format!("adx-mon/scrape-interval {text:?}: {error}"))?;
    if !(Duration::from_secs(1)..=Duration::from_secs(86_400)).contains(&interval) {
        return Err(format!("adx-mon/scrape-interval {text:?} is not between a second and a day"));
    }
    Ok(interval)
}

fn regular(pod: &Pod) -> impl Iterator<Item = &Container> {
    pod.containers.iter().filter(|container| container.kind == ContainerKind::Regular)
}

/// Container and number of each port to scrape, with the path.
fn pod_ports(pod: &Pod, wishes: &Wishes, drop: &mut impl FnMut(String)) -> Vec<((String, u16), String)> {
    let Some(entries) = &wishes.entries else {
        let all: Vec<_> = regular(pod)
            .flat_map(|container| container.ports.iter().map(|port| (container.name.to_string(), port.number)))
            .map(|at| (at, wishes.path.clone()))
            .collect();
        if all.is_empty() {
            drop("its containers declare no port; set adx-mon/port".to_owned());
        }
        return all;
    };
    let mut left: Vec<&(PortRef, String)> = entries.iter().collect();
    let mut ports = Vec::new();
    for container in regular(pod) {
        for port in &container.ports {
            let mut keys = vec![PortRef::Number(port.number)];
            keys.extend(container.probes.iter().cloned());
            keys.push(PortRef::Name(port.name.clone()));
            for key in keys {
                let Some(at) = left.iter().position(|(wanted, _)| *wanted == key) else { continue };
                let Some((_, number)) = resolve(pod, &key) else { continue };
                ports.push(((container.name.to_string(), number), left.remove(at).1.clone()));
            }
        }
    }
    let declares_none = regular(pod).all(|container| container.ports.is_empty());
    for (port, path) in left {
        match port {
            PortRef::Number(number) if declares_none => {
                let container = regular(pod).next().map(|container| container.name.to_string()).unwrap_or_default();
                ports.push(((container, *number), path.clone()));
            }
            port => drop(format!("port {port} is none that its containers declare")),
        }
    }
    ports
}

/// Ports of the pods behind a Service, with the path.
fn service_ports(service: &Service, wishes: &Wishes, drop: &mut impl FnMut(String)) -> Vec<(PortRef, String)> {
    let Some(entries) = &wishes.entries else {
        return service.ports.iter().map(|port| (port.target.clone(), wishes.path.clone())).collect();
    };
    let mut ports = Vec::new();
    for (wanted, path) in entries {
        let port = service.ports.iter().find(|port| match wanted {
            PortRef::Number(number) => port.number == *number,
            PortRef::Name(name) => port.name == *name,
        });
        match port {
            Some(port) => ports.push((port.target.clone(), path.clone())),
            None => drop(format!("port {wanted} is none of the Service's")),
        }
    }
    ports
}

/// Container and number of a port of the pod. A number need not be declared.
fn resolve(pod: &Pod, port: &PortRef) -> Option<(String, u16)> {
    let declared = |is_it: &dyn Fn(&crate::pods::Port) -> bool| {
        regular(pod).find_map(|container| Some((container.name.to_string(), container.ports.iter().find(|port| is_it(port))?.number)))
    };
    match port {
        PortRef::Name(name) => declared(&|port| port.name == *name),
        PortRef::Number(number) => {
            declared(&|port| port.number == *number).or_else(|| Some((regular(pod).next()?.name.to_string(), *number)))
        }
    }
}
