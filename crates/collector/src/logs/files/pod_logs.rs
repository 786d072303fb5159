//! Which logs of a pod are collected, and how.
//!
//! Annotations of the pod: `adx-mon/scrape: "true"` asks for it, `adx-mon/log-destination: database:table` says where to,
//! `adx-mon/log-parsers` how messages are parsed. A pod that does not ask may be chosen by the configuration.

use std::collections::BTreeMap;
use std::path::Path;

use logs::Parsers;

use crate::config::ChosenPod;
use crate::pods::{Container, Pod};

/// The log of one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PodLog {
    pub(super) file: String,
    pub(super) database: String,
    pub(super) table: String,
    pub(super) parsers: Vec<String>,
    pub(super) resource: BTreeMap<String, String>,
}

/// Annotations that transforms use.
const ROUTING: [&str; 2] = ["adx-mon/log-sources", "adx-mon/log-keys"];

/// The logs of a pod in `dir` that are collected: of all containers that were made, and of those that ran before them.
pub(super) fn logs(pod: &Pod, chosen: &[ChosenPod], dir: &Path) -> Vec<PodLog> {
    let annotation = |name: &str| pod.annotations.get(name).map(|value| value.trim());
    let chosen = chosen.iter().find(|chosen| fits(chosen, pod));
    if annotation("adx-mon/scrape") != Some("true") && chosen.is_none() {
        return Vec::new();
    }
    let own = annotation("adx-mon/log-destination").map(destination);
    let Some((database, table)) = own.unwrap_or_else(|| chosen.and_then(|chosen| destination(&chosen.destination))) else {
        return Vec::new();
    };
    let parsers = match annotation("adx-mon/log-parsers") {
        Some(list) => known(list.split(','), pod),
        None => known(chosen.into_iter().flat_map(|chosen| &chosen.parsers).map(String::as_str), pod),
    };
    let shared = resource(pod);
    let log = |container: &Container, id: &str| {
        let name = id.split_once("://").map_or(id, |(_, name)| name);
        let mut resource = shared.clone();
        resource.insert("container".to_owned(), container.name.to_string());
        resource.insert("containerID".to_owned(), id.to_owned());
        PodLog {
            file: format!("{}/{}_{}_{}-{name}.log", dir.display(), pod.name, pod.namespace, container.name),
            database: database.to_owned(),
            table: table.to_owned(),
            parsers: parsers.clone(),
            resource,
        }
    };
    let instances = |container: &Container| {
        let ids = [&container.previous_id, &container.id].into_iter().flatten();
        ids.map(|id| log(container, id)).collect::<Vec<_>>()
    };
    pod.containers.iter().flat_map(instances).collect()
}

fn fits(chosen: &ChosenPod, pod: &Pod) -> bool {
    let same = |wanted: &str, have: &str| wanted.is_empty() || wanted == have;
    let labelled = |(name, value): (&String, &String)| pod.labels.get(name.as_str()).is_some_and(|have| **have == **value);
    same(&chosen.namespace, &pod.namespace) && same(&chosen.name, &pod.name) && chosen.labels.iter().all(labelled)
}

fn destination(text: &str) -> Option<(&str, &str)> {
    let (database, table) = text.split_once(':')?;
    let (database, table) = (database.trim(), table.trim());
    (!database.is_empty() && !table.is_empty() && !table.contains(':')).then_some((database, table))
}

/// The parsers that there are; one that does not exist is no reason to lose the log.
fn known<'n>(names: impl Iterator<Item = &'n str>, pod: &Pod) -> Vec<String> {
    let mut known = Vec::new();
    for name in names.map(str::trim).filter(|name| !name.is_empty()) {
        match Parsers::from_names([name]) {
            Ok(_) => known.push(name.to_owned()),
            Err(error) => tracing::warn!(namespace = %pod.namespace, pod = %pod.name, error, "adx-mon/log-parsers: a parser is left out"),
        }
    }
    known
}

fn resource(pod: &Pod) -> BTreeMap<String, String> {
    let routing = ROUTING.iter().filter_map(|name| Some(((*name).to_owned(), pod.annotations.get(*name)?.to_string())));
    let mut resource: BTreeMap<String, String> = routing.collect();
    let others = pod.annotations.iter().filter(|(name, _)| !name.starts_with("adx-mon/"));
    resource.extend(others.map(|(name, value)| (format!("annotation.{name}"), value.to_string())));
    resource.extend(pod.labels.iter().map(|(name, value)| (format!("label.{name}"), value.to_string())));
    resource.insert("pod".to_owned(), pod.name.to_string());
    resource.insert("namespace".to_owned(), pod.namespace.to_string());
    resource
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const PATH: &str = "/var/log/containers";

    fn map(value: &Value) -> crate::pods::Map {
        let entries = value.as_object().into_iter().flatten();
        entries.map(|(name, value)| (name.as_str().into(), value.as_str().unwrap().into())).collect()
    }

    fn containers() -> Vec<Container> {
        let container = |name: &str, id: Option<&str>| Container { name: name.into(), id: id.map(Into::into), ..Container::default() };
        vec![container("init", Some("containerd://aaa")), container("main", Some("containerd://bbb")), container("side", None)]
    }

    fn pod(value: &Value) -> Pod {
        let text = |key: &str| value[key].as_str().unwrap().into();
        Pod {
            namespace: text("namespace"),
            name: text("name"),
            labels: map(&value["labels"]),
            annotations: map(&value["annotations"]),
            containers: containers(),
            ..Pod::default()
        }
    }

    fn chosen(value: &Value) -> ChosenPod {
        let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
        ChosenPod {
            namespace: text("Namespace"),
            name: text("Name"),
            labels: map(&value["Labels"]).into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
            destination: text("Destination"),
            parsers: value["Parsers"].as_array().into_iter().flatten().map(|name| name.as_str().unwrap().to_owned()).collect(),
        }
    }

    /// Vectors, but for two defects that they freeze: spaces between parsers, and one unknown parser, lose all of a pod's
    /// logs in the reference.
    #[test]
    fn logs_of_pods_are_those_of_the_reference_and_parsers_lose_none() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/collector/pod_log_targets.json");
        let cases: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        assert!(cases.len() > 10);
        for case in cases {
            let name = case["name"].as_str().unwrap();
            if case["pod"]["node"] != case["collector_node"] {
                // Pods of other nodes are left out by discovery.
                continue;
            }
            assert_eq!(
                case["pod"]["containers"], "init(init, containerd://aaa), main(containerd://bbb), side(no container id yet)",
                "{name}"
            );
            let chosen: Vec<ChosenPod> = case["static_pod_targets"].as_array().into_iter().flatten().map(chosen).collect();
            let found = logs(&pod(&case["pod"]), &chosen, Path::new(PATH));
            let beaten: &[&str] = match name {
                "parsers with space are invalid -> pod ignored" => &["json", "klog"],
                "unknown parser -> pod ignored" => &[],
                _ => {
                    let expected = case["targets"].as_array().unwrap();
                    assert_eq!(found.len(), expected.len(), "{name}");
                    for (found, expected) in found.iter().zip(expected) {
                        let resource = serde_json::to_value(&found.resource).unwrap();
                        assert_eq!(found.file, expected["file"], "{name}");
                        assert_eq!(found.database, expected["database"], "{name}");
                        assert_eq!(found.table, expected["table"], "{name}");
                        assert_eq!(serde_json::to_value(&found.parsers).unwrap(), expected["parsers"], "{name}");
                        assert_eq!(resource, expected["resources"], "{name}");
                    }
                    continue;
                }
            };
            assert_eq!(found.len(), 2, "{name}");
            assert!(found.iter().all(|log| log.parsers == beaten), "{name}");
        }
    }

    /// The reference leaves out what a container wrote before it was started again.
    #[test]
    fn the_instance_before_a_restart_is_collected_first() {
        let annotations = serde_json::json!({"adx-mon/scrape": "true", "adx-mon/log-destination": "Logs: App "});
        let main = Container {
            name: "main".into(),
            id: Some("containerd://new".into()),
            previous_id: Some("containerd://old".into()),
            ..Container::default()
        };
        let pod =
            Pod { namespace: "ns".into(), name: "p".into(), annotations: map(&annotations), containers: vec![main], ..Pod::default() };
        let files: Vec<String> = logs(&pod, &[], Path::new(PATH)).into_iter().map(|log| log.file).collect();
        assert_eq!(files, ["/var/log/containers/p_ns_main-old.log", "/var/log/containers/p_ns_main-new.log"]);
    }
}
