//! Targets of annotations against the reference's, and where ours are better.

use std::collections::HashMap;

use serde_json::Value;

use crate::config::{ScrapeTarget, TlsMode};
use crate::pods::{Container, ContainerKind, Map, Phase, Pod, Port, PortRef, Service, ServicePort};
use crate::scrape::targets::{Found, of_pod, of_service};

fn texts(value: &Value) -> Map {
    value.as_object().into_iter().flatten().map(|(name, value)| (name.as_str().into(), value.as_str().unwrap().into())).collect()
}

fn pod_of(case: &Value) -> Pod {
    let container = |container: &Value| {
        let port = |port: &Value| Port { name: port["name"].as_str().unwrap().into(), number: port["port"].as_u64().unwrap() as u16 };
        let probes = ["readiness_http_port", "liveness_http_port"].map(|probe| container[probe].as_str().map(PortRef::parse));
        Container {
            name: container["name"].as_str().unwrap().into(),
            ports: container["ports"].as_array().into_iter().flatten().map(port).collect(),
            probes: probes.into_iter().flatten().collect(),
            ..Container::default()
        }
    };
    Pod {
        namespace: "ns".into(),
        name: "pod".into(),
        ip: case["pod_ip"].as_str().unwrap().parse().ok(),
        phase: Phase::Running,
        annotations: texts(&case["annotations"]),
        containers: case["containers"].as_array().unwrap().iter().map(container).collect(),
        ..Pod::default()
    }
}

/// Container and URL of each target.
fn urls(found: &Found) -> Vec<(String, String)> {
    found.targets.iter().map(|target| (target.container.clone(), target.url.clone())).collect()
}

/// The defects that are beaten, by the name of the case.
fn better() -> HashMap<&'static str, Vec<(String, String)>> {
    let one = |container: &str, url: &str| vec![(container.to_owned(), url.to_owned())];
    HashMap::from([
        // A pod that declares no ports is scraped at the port that its annotation names.
        ("port annotation but container declares no ports", one("c", "http://1.2.3.4:9090/metrics")),
        // IPv6 addresses stand in brackets.
        ("ipv6 pod ip", one("a", "http://[fd00::1]:8080/metrics")),
    ])
}

#[test]
fn targets_agree_with_what_the_annotations_mean() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/collector/scrape_targets.json");
    let file: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let better = better();
    let (mut deviations, mut lost_by_the_reference) = (0, 0);
    for case in file["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let found = of_pod(&pod_of(case));
        let listed = |key: &str| -> Vec<(String, String)> {
            let text = |target: &Value, key: &str| target[key].as_str().unwrap().to_owned();
            case[key].as_array().unwrap().iter().map(|target| (text(target, "container"), text(target, "url"))).collect()
        };
        let computed = listed("computed_targets");
        lost_by_the_reference += computed.len() - listed("effective_targets_in_reference").len();
        let expected = better.get(name).inspect(|_| deviations += 1).unwrap_or(&computed);
        assert_eq!(&urls(&found), expected, "{name}");
        assert!(found.targets.iter().all(|target| (target.namespace.as_str(), target.pod.as_str()) == ("ns", "pod")));
        let asks = case["annotations"]["adx-mon/scrape"].as_str().is_some_and(|value| value.eq_ignore_ascii_case("true"));
        assert_eq!(
            expected.is_empty() && asks,
            found.targets.is_empty() && !found.dropped.is_empty(),
            "{name}: what is missing has a reason"
        );
    }
    assert_eq!(deviations, better.len());
    // The reference keeps one target of a pod: the last.
    assert_eq!(lost_by_the_reference, 4);
}

fn pod(annotations: &[(&str, &str)]) -> Pod {
    let port = |name: &str, number| Port { name: name.into(), number };
    let container = |name: &str, kind, ports| Container { name: name.into(), kind, ports, ..Container::default() };
    Pod {
        namespace: "ns".into(),
        name: "pod".into(),
        ip: Some("10.0.0.1".parse().unwrap()),
        phase: Phase::Running,
        labels: Map::from([("app".into(), "shop".into()), ("tier".into(), "web".into())]),
        annotations: annotations.iter().map(|(name, value)| (format!("adx-mon/{name}").into(), (*value).into())).collect(),
        containers: vec![
            container("init", ContainerKind::Init, vec![port("init", 1)]),
            container("web", ContainerKind::Regular, vec![port("http", 8080)]),
            container("debug", ContainerKind::Ephemeral, vec![port("debug", 2)]),
        ],
        ..Pod::default()
    }
}

fn found(annotations: &[(&str, &str)]) -> (Vec<ScrapeTarget>, Vec<String>) {
    let found = of_pod(&pod(&[&[("scrape", "true")], annotations].concat()));
    assert!(found.dropped.iter().all(|dropped| (dropped.kind, dropped.namespace.as_str(), dropped.name.as_str()) == ("pod", "ns", "pod")));
    (found.targets, found.dropped.into_iter().map(|dropped| dropped.reason).collect())
}

#[test]
fn completed_and_ending_pods_are_no_targets() {
    let mut pod = pod(&[("scrape", "true")]);
    let reason = |pod: &Pod| of_pod(pod).dropped.into_iter().map(|dropped| dropped.reason).collect::<Vec<_>>();
    assert_eq!(urls(&of_pod(&pod)), [("web".to_owned(), "http://10.0.0.1:8080/metrics".to_owned())]);
    for phase in [Phase::Succeeded, Phase::Failed] {
        pod.phase = phase;
        assert_eq!((of_pod(&pod).targets.len(), reason(&pod)), (0, vec!["it has completed".to_owned()]));
    }
    pod.phase = Phase::Running;
    pod.deleting = true;
    assert_eq!((of_pod(&pod).targets.len(), reason(&pod)), (0, vec!["it is being deleted".to_owned()]));
    pod.annotations.clear();
    assert_eq!(of_pod(&pod), Found::default(), "nobody asked");
}

#[test]
fn a_missing_slash_is_inserted() {
    assert_eq!(found(&[("path", "m?x=1")]).0[0].url, "http://10.0.0.1:8080/m?x=1");
    assert_eq!(found(&[("targets", "m:8080")]).0[0].url, "http://10.0.0.1:8080/m");
}

#[test]
fn what_cannot_be_is_dropped_with_a_reason() {
    for (annotation, value, wanted) in [
        ("scheme", "ftp", "neither http nor https"),
        ("tls", "maybe", "none of verify"),
        ("scrape-interval", "soon", "adx-mon/scrape-interval"),
        ("scrape-interval", "0", "not between a second and a day"),
        ("scrape-token", "true", "needs adx-mon/scheme https"),
        ("port", "9999", "port 9999 is none that its containers declare"),
        ("port", "nope", "port \"nope\" is none"),
        ("port", "init", "port \"init\" is none"),
    ] {
        let (targets, reasons) = found(&[(annotation, value)]);
        assert!(targets.is_empty() && reasons.len() == 1 && reasons[0].contains(wanted), "{annotation}={value}: {reasons:?}");
    }
    let (targets, reasons) = found(&[("targets", "8080")]);
    assert_eq!(targets.len(), 1, "a malformed list is ignored");
    assert!(reasons[0].contains("is ignored"), "{reasons:?}");
    let (targets, reasons) = found(&[("targets", "/a:http,/b:7")]);
    assert_eq!((targets.len(), reasons.as_slice()), (1, &["port 7 is none that its containers declare".to_owned()][..]));
}

/// The token goes to nobody who has no certificate that is checked.
#[test]
fn the_token_is_for_those_who_ask_and_prove_who_they_are() {
    let https = ("scheme", "https");
    let tls = |more: &[(&str, &str)]| {
        let (targets, reasons) = found(&[&[https], more].concat());
        targets.first().map(|target| (target.token, target.tls.clone())).ok_or(reasons)
    };
    assert_eq!(found(&[]).0[0].tls, TlsMode::Plain);
    assert_eq!(tls(&[]), Ok((false, TlsMode::Unverified)));
    assert_eq!(tls(&[("tls", "verify")]), Ok((false, TlsMode::System)));
    assert_eq!(tls(&[("scrape-token", "True")]), Ok((true, TlsMode::ClusterCa)));
    assert_eq!(tls(&[("scrape-token", "true"), ("tls", "verify")]), Ok((true, TlsMode::System)));
    assert!(tls(&[("scrape-token", "true"), ("tls", "skip-verify")]).is_err());
    assert_eq!(tls(&[("scrape-token", "false")]), Ok((false, TlsMode::Unverified)));
}

#[test]
fn intervals_are_seconds_or_durations() {
    for (text, seconds) in [("15", 15), ("15s", 15), ("1m 30s", 90)] {
        assert_eq!(found(&[("scrape-interval", text)]).0[0].interval, Some(std::time::Duration::from_secs(seconds)));
    }
    assert_eq!(found(&[]).0[0].interval, None);
}

#[test]
fn a_pod_has_a_bounded_number_of_targets() {
    let mut pod = pod(&[("scrape", "true")]);
    pod.containers[1].ports = (1..=200).map(|number| Port { name: "".into(), number }).collect();
    let found = of_pod(&pod);
    assert_eq!((found.targets.len(), found.dropped.len()), (64, 1));
}

fn service(annotations: &[(&str, &str)]) -> Service {
    let port = |name: &str, number, target| ServicePort { name: name.into(), number, target };
    Service {
        namespace: "ns".into(),
        name: "shop".into(),
        annotations: annotations.iter().map(|(name, value)| (format!("adx-mon/{name}").into(), (*value).into())).collect(),
        selector: Map::from([("app".into(), "shop".into())]),
        ports: vec![port("web", 80, PortRef::Name("http".into())), port("admin", 81, PortRef::Number(9000))],
    }
}

#[test]
fn a_service_makes_targets_of_the_pods_behind_it() {
    let scrape = ("scrape", "true");
    let mut other_namespace = pod(&[]);
    other_namespace.namespace = "elsewhere".into();
    let mut other_labels = pod(&[]);
    other_labels.labels.clear();
    let mut ended = pod(&[]);
    ended.phase = Phase::Succeeded;
    // One that speaks for itself is not scraped twice, and may say no.
    let pods = [pod(&[]), other_namespace, other_labels, ended, pod(&[scrape]), pod(&[("scrape", "false")])];
    let of = |service: &Service| {
        let found = of_service(service, pods.iter());
        let dropped: Vec<_> = found.dropped.iter().map(|dropped| (dropped.kind, dropped.name.clone(), dropped.reason.clone())).collect();
        (urls(&found), dropped)
    };
    let at = |url: &str| ("web".to_owned(), url.to_owned());
    assert_eq!(of(&service(&[])), (vec![], vec![]), "not annotated");
    let all = vec![at("http://10.0.0.1:8080/metrics"), at("http://10.0.0.1:9000/metrics")];
    assert_eq!(of(&service(&[scrape])), (all, vec![]));
    assert_eq!(of(&service(&[scrape, ("port", "80"), ("path", "/m")])), (vec![at("http://10.0.0.1:8080/m")], vec![]));
    assert_eq!(of(&service(&[scrape, ("port", "admin")])), (vec![at("http://10.0.0.1:9000/metrics")], vec![]));
    let listed = service(&[scrape, ("targets", "/a:web,/b:81"), ("scheme", "https")]);
    assert_eq!(of(&listed), (vec![at("https://10.0.0.1:8080/a"), at("https://10.0.0.1:9000/b")], vec![]));
    let (targets, dropped) = of(&service(&[scrape, ("port", "8080")]));
    assert_eq!((targets.len(), dropped), (0, vec![("service", "shop".to_owned(), "port 8080 is none of the Service's".to_owned())]));
    let mut headless = service(&[scrape]);
    headless.selector.clear();
    let (targets, dropped) = of(&headless);
    assert!(targets.is_empty() && dropped[0].2.contains("static target"), "{dropped:?}");
}
