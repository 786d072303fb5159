//! Which logs of a pod are collected, and how.
//!
//! Annotations of the pod: `adx-mon/scrape: "true"` asks for it, `adx-mon/log-destination: database:table` says where to,
//! `adx-mon/log-parsers` how messages are parsed, `adx-mon/log-multi-line` (presets) or `adx-mon/log-first-line` (a regular
//! expression) which lines are one event. A pod that does not ask may be chosen by the configuration, which also says what
//! counts without an annotation. An annotation that cannot be used costs no log: it is told, and is as if it were not there.

use std::collections::{BTreeMap, BTreeSet};

use logs::{Language, MultiLineSettings, Parsers};

use crate::config::{ChosenPod, PodLines, PodLogs};
use crate::pods::{Container, Pod};

/// The log of one container.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PodLog {
    pub(super) file: String,
    pub(super) database: String,
    pub(super) table: String,
    pub(super) parsers: Vec<String>,
    pub(super) lines: PodLines,
    pub(super) resource: BTreeMap<String, String>,
}

/// What is wrong with an annotation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mistake {
    namespace: Box<str>,
    pod: Box<str>,
    annotation: &'static str,
    why: String,
}

impl Mistake {
    pub(super) fn tell(&self) {
        let Mistake { namespace, pod, annotation, why } = self;
        tracing::warn!(%namespace, %pod, annotation, why, "an annotation of a pod cannot be used, and counts as if it were not there");
    }
}

/// Annotations that transforms use.
const ROUTING: [&str; 2] = ["adx-mon/log-sources", "adx-mon/log-keys"];

const DESTINATION: &str = "adx-mon/log-destination";
const PARSERS: &str = "adx-mon/log-parsers";
const MULTI_LINE: &str = "adx-mon/log-multi-line";
const FIRST_LINE: &str = "adx-mon/log-first-line";

/// The logs of a pod that are collected: of all containers that were made, and of those that ran before them. What is wrong
/// with its annotations is added to `mistakes`.
pub(super) fn logs(pod: &Pod, settings: &PodLogs, mistakes: &mut BTreeSet<Mistake>) -> Vec<PodLog> {
    let annotation = |name: &str| pod.annotations.get(name).map(|value| value.trim());
    let mut mistake = |annotation, why| {
        mistakes.insert(Mistake { namespace: pod.namespace.clone(), pod: pod.name.clone(), annotation, why });
    };
    let chosen = settings.chosen.iter().find(|chosen| fits(chosen, pod));
    if annotation("adx-mon/scrape") != Some("true") && chosen.is_none() {
        return Vec::new();
    }
    let own = annotation(DESTINATION).map(destination);
    if own == Some(None) {
        mistake(DESTINATION, "a destination is database:table: the log is not collected".to_owned());
    }
    let Some((database, table)) = own.unwrap_or_else(|| chosen.and_then(|chosen| destination(&chosen.destination))) else {
        return Vec::new();
    };
    let parsers = match annotation(PARSERS) {
        Some(list) => known(list.split(','), is_parser, |why| mistake(PARSERS, why)),
        // The configuration was checked.
        None => known(chosen.into_iter().flat_map(|chosen| &chosen.parsers).map(String::as_str), is_parser, drop),
    };
    let configured = [chosen.map(|chosen| &chosen.lines), Some(&settings.lines)];
    let lines = PodLines {
        multi_line: multi_line(pod, configured.into_iter().flatten().find_map(|lines| lines.multi_line.as_ref()), &mut mistake),
        max_bytes: configured.into_iter().flatten().find_map(|lines| lines.max_bytes),
    };
    let shared = resource(pod);
    let log = |container: &Container, id: &str| {
        let name = id.split_once("://").map_or(id, |(_, name)| name);
        let mut resource = shared.clone();
        resource.insert("container".to_owned(), container.name.to_string());
        resource.insert("containerID".to_owned(), id.to_owned());
        PodLog {
            file: format!("{}/{}_{}_{}-{name}.log", settings.dir.display(), pod.name, pod.namespace, container.name),
            database: database.to_owned(),
            table: table.to_owned(),
            parsers: parsers.clone(),
            lines: lines.clone(),
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

/// The names of a list that there are.
fn known<'n>(
    names: impl Iterator<Item = &'n str>,
    check: impl Fn(&str) -> Result<(), String>,
    mut mistake: impl FnMut(String),
) -> Vec<String> {
    let mut known = Vec::new();
    for name in names.map(str::trim).filter(|name| !name.is_empty()) {
        match check(name) {
            Ok(()) => known.push(name.to_owned()),
            Err(why) => mistake(why),
        }
    }
    known
}

fn is_parser(name: &str) -> Result<(), String> {
    Parsers::from_names([name]).map(drop)
}

/// How lines of one event are recognised: as the annotations say, which may be not at all, else as configured. What they do
/// not say, as how long an event waits, is as configured too.
fn multi_line(
    pod: &Pod,
    configured: Option<&MultiLineSettings>,
    mistake: &mut impl FnMut(&'static str, String),
) -> Option<MultiLineSettings> {
    // Not trimmed: a blank may be part of an expression.
    let first_line = pod.annotations.get(FIRST_LINE).filter(|pattern| !pattern.is_empty());
    let languages = pod.annotations.get(MULTI_LINE);
    if first_line.is_none() && languages.is_none() {
        return configured.cloned();
    }
    let list = languages.map_or("", |list| list.trim());
    let own = MultiLineSettings {
        first_line: first_line.map(|pattern| pattern.to_string()),
        presets: known(list.split(','), |name| name.parse::<Language>().map(drop), |why| mistake(MULTI_LINE, why)),
        ..configured.cloned().unwrap_or_default()
    };
    if own.first_line.is_none() && own.presets.is_empty() {
        return configured.filter(|_| !list.is_empty()).cloned();
    }
    match own.rule() {
        Ok(_) => Some(own),
        Err((key, why)) => {
            mistake(if key == "first-line" { FIRST_LINE } else { MULTI_LINE }, why);
            configured.cloned()
        }
    }
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

    fn settings(chosen: Vec<ChosenPod>) -> PodLogs {
        PodLogs { dir: "/var/log/containers".into(), chosen, lines: PodLines::default() }
    }

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
            lines: PodLines::default(),
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
            let found = logs(&pod(&case["pod"]), &settings(chosen), &mut BTreeSet::new());
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
        let logs = logs(&pod, &settings(Vec::new()), &mut BTreeSet::new());
        let files: Vec<String> = logs.into_iter().map(|log| log.file).collect();
        assert_eq!(files, ["/var/log/containers/p_ns_main-old.log", "/var/log/containers/p_ns_main-new.log"]);
    }

    fn presets(names: &[&str]) -> Option<MultiLineSettings> {
        let presets = names.iter().map(|name| (*name).to_owned()).collect();
        Some(MultiLineSettings { presets, max_lines: Some(7), ..Default::default() })
    }

    /// What lines of a pod with `annotations` are joined by, and the annotations that are told.
    fn rule(annotations: &[(&str, &str)], chosen: Option<&str>) -> (Option<MultiLineSettings>, Vec<&'static str>) {
        let mut all = map(&serde_json::json!({"adx-mon/scrape": "true", "adx-mon/log-destination": "Logs:App"}));
        all.extend(annotations.iter().map(|(name, value)| (Box::from(*name), Box::from(*value))));
        let pod = Pod { annotations: all, containers: containers(), ..Pod::default() };
        let lines = |name: Option<&str>| PodLines { multi_line: name.and_then(|name| presets(&[name])), max_bytes: None };
        let settings =
            PodLogs { lines: lines(Some("python")), ..settings(vec![ChosenPod { lines: lines(chosen), ..ChosenPod::default() }]) };
        let mut mistakes = BTreeSet::new();
        let found = logs(&pod, &settings, &mut mistakes);
        assert_eq!(found.len(), 2);
        (found[0].lines.multi_line.clone(), mistakes.into_iter().map(|mistake| mistake.annotation).collect())
    }

    #[test]
    fn annotations_say_which_lines_are_one_event() {
        let first_line = presets(&[]).map(|rule| MultiLineSettings { first_line: Some("^> ".to_owned()), ..rule });
        assert_eq!(rule(&[], None), (presets(&["python"]), vec![]));
        assert_eq!(rule(&[], Some("go")), (presets(&["go"]), vec![]));
        assert_eq!(rule(&[(MULTI_LINE, " java, node ")], Some("go")), (presets(&["java", "node"]), vec![]));
        assert_eq!(rule(&[(MULTI_LINE, " ")], Some("go")), (None, vec![]));
        assert_eq!(rule(&[(FIRST_LINE, "^> ")], Some("go")), (first_line, vec![]));
        // What is wrong is left out; with nothing left, the configuration counts.
        assert_eq!(rule(&[(MULTI_LINE, "jvaa,java")], None), (presets(&["java"]), vec![MULTI_LINE]));
        assert_eq!(rule(&[(MULTI_LINE, "jvaa")], None), (presets(&["python"]), vec![MULTI_LINE]));
        assert_eq!(rule(&[(FIRST_LINE, "(")], None), (presets(&["python"]), vec![FIRST_LINE]));
        assert_eq!(rule(&[(FIRST_LINE, "^a"), (MULTI_LINE, "java")], None), (presets(&["python"]), vec![MULTI_LINE]));
        assert_eq!(rule(&[(PARSERS, "json, jsno")], None).1, [PARSERS]);
        // Small to write, large to compile: one pod could take the memory of all.
        assert_eq!(rule(&[(FIRST_LINE, r"^(\w{50}){50}")], None), (presets(&["python"]), vec![FIRST_LINE]));
    }
}
