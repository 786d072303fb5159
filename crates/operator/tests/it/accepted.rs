//! What is rendered is what our programs take: their own command lines and the check of the collector's configuration.

use clap::Parser as _;
use operator::object::Object;
use serde_json::Value;

use crate::samples::{all, arguments, find};

fn workloads(component: &str) -> Vec<(&'static str, Object)> {
    let named = |object: &Object| object.body["spec"]["template"]["spec"]["containers"][0]["name"] == *component;
    let found: Vec<_> = all()
        .into_iter()
        .flat_map(|(name, rendered)| {
            rendered.workloads().filter(|object| named(object)).cloned().map(move |object| (name, object)).collect::<Vec<_>>()
        })
        .collect();
    assert!(found.len() >= 2, "{component}");
    found
}

#[test]
fn the_ingestor_takes_its_flags() {
    for (name, object) in workloads("ingestor") {
        let flags = ingestor::Flags::try_parse_from([vec!["ingestor".to_owned()], arguments(&object)].concat()).unwrap();
        let config = flags.config().unwrap();
        let databases = |endpoints: &[ingestor::Endpoint]| endpoints.iter().map(|e| e.database.clone()).collect::<Vec<_>>();
        assert_eq!(
            (databases(&config.metrics), databases(&config.logs)),
            (vec!["Metrics".to_owned()], vec!["Logs".to_owned(), "Traces".to_owned()])
        );
        let expected = match name {
            "ingestor, all" => 50 * (1 << 30) / 10 * 9,
            "ingestor, folder" => 20 << 30,
            _ => 20 * (1 << 30) / 10 * 9,
        };
        assert!(config.max_disk_bytes.abs_diff(expected) < 16, "{name} {}", config.max_disk_bytes);
        assert_eq!(config.region, "eastus");
    }
}

/// The reference leaves out `name=`, so that its alerter exits at the start, and passes neither region nor cloud.
#[test]
fn the_alerter_takes_its_flags() {
    for (_, object) in workloads("alerter") {
        let flags = alerter::Flags::try_parse_from([vec!["alerter".to_owned()], arguments(&object)].concat()).unwrap();
        let config = flags.run.config().unwrap();
        let expected = ["Logs", "Metrics", "Traces"].map(|name| (name.to_owned(), "https://adx.kusto.windows.net".to_owned()));
        assert_eq!(config.kusto_endpoints, expected.into());
        assert_eq!(config.alerter_address, "https://n.example");
        let labels: Vec<_> = config.labels().iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(labels, ["cloud=public", "environment=prod", "region=eastus"]);
    }
}

#[test]
fn the_exporter_takes_its_flags() {
    for (name, object) in workloads("adxexporter") {
        let flags = adxexporter::Flags::try_parse_from([vec!["adxexporter".to_owned()], arguments(&object)].concat()).unwrap();
        let expected =
            if name == "exporter" { "http://collector.mon.svc.cluster.local:4318/v1/metrics" } else { "http://otel:4318/v1/metrics" };
        assert_eq!(flags.otlp_endpoint, expected);
        flags.config().unwrap();
    }
}

/// Their command lines are no libraries: each flag must be a field of the arguments.
#[test]
fn kustd_and_collector_take_their_flags() {
    for (component, source) in [
        ("kustd", include_str!("../../../kustd/src/main.rs")),
        ("collector", include_str!("../../../collector/src/main.rs")),
        ("collector-events", include_str!("../../../collector/src/main.rs")),
    ] {
        for (_, object) in all()
            .into_iter()
            .flat_map(|(name, rendered)| rendered.workloads().cloned().map(move |object| (name, object)).collect::<Vec<_>>())
        {
            if object.body["spec"]["template"]["spec"]["containers"][0]["name"] != component {
                continue;
            }
            for argument in arguments(&object) {
                let flag = argument.strip_prefix("--").unwrap().split('=').next().unwrap().replace('-', "_");
                assert!(source.contains(&format!("\n    {flag}: ")), "{component} has no --{flag}");
            }
        }
    }
}

/// As `collector check` does.
#[test]
fn the_collector_takes_its_configuration() {
    let mut seen = 0;
    for (name, rendered) in all() {
        for object in rendered.objects.iter().filter(|object| object.reference.kind.resource.kind == "ConfigMap") {
            let text = object.body["data"]["config.toml"].as_str().unwrap();
            let (_, warnings) = collector::Config::from_toml(text, "node-1").unwrap_or_else(|error| panic!("{name}: {error}\n{text}"));
            assert!(warnings.is_empty(), "{name}: {warnings:?}");
            seen += 1;
        }
    }
    assert_eq!(seen, 3);
}

/// No text of a resource can break out of the configuration.
#[test]
fn texts_in_the_configuration_are_quoted() {
    use operator::render::{CollectorConfig, collector_config};
    let nasty = "a'b\"c\\d\n[x]\n\u{1}";
    let config = CollectorConfig {
        endpoint: format!("https://{nasty}"),
        insecure_skip_verify: true,
        region: nasty.to_owned(),
        namespace: nasty.to_owned(),
        name: nasty.to_owned(),
        role: operator::render::Role::Node,
    };
    let table: toml::Table = collector_config(&config).parse().unwrap();
    assert_eq!(table["region"].as_str(), Some(nasty));
    assert_eq!(table["add-labels"]["cluster"].as_str(), Some(nasty));
    assert_eq!(table["prometheus-scrape"]["static-scrape-target"][0]["pod"].as_str(), Some(nasty));
}

/// Today's practice, for every container of every workload.
#[test]
fn every_container_may_do_as_little_as_possible() {
    for (name, rendered) in all() {
        for object in rendered.workloads() {
            let pod = &object.body["spec"]["template"]["spec"];
            let what = format!("{name}: {}", object.reference);
            assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{what}");
            assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{what}");
            assert!(pod["hostNetwork"].is_null() && pod["hostPID"].is_null(), "{what}");
            let writable: Vec<&Value> =
                pod["containers"][0]["volumeMounts"].as_array().into_iter().flatten().filter(|mount| mount["readOnly"] != true).collect();
            assert!(
                writable.iter().all(|mount| ["/mnt/data", "/tmp"].contains(&mount["mountPath"].as_str().unwrap())),
                "{what}: {writable:?}"
            );
            for container in ["initContainers", "containers"].iter().flat_map(|list| pod[*list].as_array().into_iter().flatten()) {
                let security = &container["securityContext"];
                assert_eq!(security["allowPrivilegeEscalation"], false, "{what}");
                assert_eq!(security["readOnlyRootFilesystem"], true, "{what}");
                assert_eq!(security["capabilities"]["drop"][0], "ALL", "{what}");
                assert!(
                    container["resources"]["limits"]["memory"].is_string() && container["resources"]["requests"]["cpu"].is_string(),
                    "{what}"
                );
            }
            for probe in ["readinessProbe", "livenessProbe"] {
                assert!(pod["containers"][0][probe].is_object(), "{what} has no {probe}");
            }
            let init = pod["initContainers"].as_array().map_or(0, Vec::len);
            // The one exception, which makes a folder of the node that the others can write to.
            assert_eq!(init, usize::from(object.reference.kind.resource.kind == "DaemonSet"), "{what}");
        }
    }
}

/// Pods of two resources of a kind in one namespace are told from each other.
#[test]
fn selectors_are_those_of_one_resource() {
    for (name, rendered) in all() {
        for object in &rendered.objects {
            let spec = &object.body["spec"];
            let selector = match object.reference.kind.resource.kind.as_str() {
                "Service" => &spec["selector"],
                "StatefulSet" | "DaemonSet" | "Deployment" | "PodDisruptionBudget" => &spec["selector"]["matchLabels"],
                _ => continue,
            };
            assert!(selector["app.kubernetes.io/instance"].is_string(), "{name}: {}", object.reference);
            let labels = &spec["template"]["metadata"]["labels"];
            if labels.is_object() {
                assert!(selector.as_object().unwrap().iter().all(|(key, value)| labels[key] == *value), "{name}: {}", object.reference);
            }
        }
    }
    let sample = &all()[2].1;
    assert_eq!(
        find(sample, "Service", "ingestor").body["spec"]["selector"],
        find(sample, "StatefulSet", "ingestor").body["spec"]["selector"]["matchLabels"]
    );
}
