//! `operator render`: files in, objects or mistakes out.

use operator::manifest::{Resources, yaml};
use operator::render::Settings;
use serde_json::Value;

use crate::samples::{resources, settings};

const LAPTOP: &str = include_str!("laptop.yaml");

#[test]
fn a_file_with_all_of_a_laptop_renders_to_all_objects() {
    let rendered = resources(LAPTOP).render(&Settings::default()).unwrap();
    let text = yaml(&rendered).unwrap();
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    let names: Vec<String> =
        documents.iter().map(|d| format!("{} {}", d["kind"].as_str().unwrap(), d["metadata"]["name"].as_str().unwrap())).collect();
    let expected = [
        "ServiceAccount adx",
        "Service adx",
        "NetworkPolicy adx",
        "StatefulSet adx",
        "ServiceAccount ingestor",
        "RoleBinding ingestor",
        "ClusterRoleBinding mon:ingestor",
        "Service ingestor",
        "PodDisruptionBudget ingestor",
        "StatefulSet ingestor",
        "ServiceAccount collector",
        "ClusterRoleBinding mon:collector",
        "ClusterRoleBinding mon:collector:metrics",
        "ConfigMap collector-config",
        "Service collector",
        "DaemonSet collector",
        "ServiceAccount collector-exporter",
        "RoleBinding collector-exporter",
        "ClusterRoleBinding mon:collector-exporter",
        "Deployment collector-exporter",
        "ServiceAccount alerter",
        "RoleBinding alerter",
        "ClusterRoleBinding mon:alerter",
        "Deployment alerter",
    ];
    assert_eq!(names, expected);
    assert!(text.contains("--metrics-kusto-endpoints=Metrics=http://adx.mon.svc.cluster.local:8080"), "{text}");
    assert!(text.contains("endpoint = \"https://ingestor.mon.svc.cluster.local\""), "{text}");
    // Nobody waits for what is not in a cluster: no object names an owner that is not there.
    assert!(!text.contains("ownerReferences"));
}

fn mistakes(text: &str) -> Vec<String> {
    let mut resources = Resources::default();
    let mut mistakes: Vec<String> = resources.read("cr.yaml", text).iter().map(ToString::to_string).collect();
    if mistakes.is_empty() {
        mistakes.extend(resources.render(&settings()).err().into_iter().flatten().map(|mistake| mistake.to_string()));
    }
    mistakes
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let cluster = "apiVersion: adx-mon.azure.com/v1\nkind: ADXCluster\nmetadata: {name: adx, labels: {app: a}}\nspec:\n  clusterName: adx\n  local: {}\n";
    let with_database = format!("{cluster}  databases: [{{databaseName: M, telemetryType: Metrics}}]\n");
    let ingestor = |spec: &str| {
        format!("{with_database}---\napiVersion: adx-mon.azure.com/v1\nkind: Ingestor\nmetadata: {{name: ingestor}}\nspec: {spec}\n")
    };
    let alone = |kind: &str, name: &str, spec: &str| {
        format!("apiVersion: adx-mon.azure.com/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n")
    };
    for (text, expected) in [
        ("a: [", "cr.yaml: "),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: x}\n", "apiVersion is \"v1\""),
        (&alone("Ingestr", "x", "{}"), "document 1 (Ingestr x): kind \"Ingestr\" is unknown"),
        ("apiVersion: adx-mon.azure.com/v1\nkind: Ingestor\nmetadata: {}\n", "metadata.name is missing"),
        (&ingestor("{adxClusterSelector: {}, replica: 3}"), "document 2 (Ingestor ingestor): spec.replica: there is no such field"),
        (&ingestor("{adxClusterSelector: {}, pods: {resources: {limit: {}}}}"), "spec.pods.resources.limit: there is no such field"),
        (&ingestor("{adxClusterSelector: {}, replicas: many}"), "spec.replicas: invalid type: string \"many\""),
        (&ingestor("{}"), "missing field `adxClusterSelector`"),
        (&ingestor("{adxClusterSelector: {}, replicas: -1}"), "Ingestor ingestor: spec.replicas: -1 is below zero"),
        (&ingestor("{adxClusterSelector: {}, storage: {size: big}}"), "storage.size: \"big\" is no size of a volume"),
        (&ingestor("{adxClusterSelector: {matchLabels: {app: b}}}"), "matches no ADXCluster"),
        (&ingestor("{adxClusterSelector: {}, criteriaExpression: 'region =='}"), "spec.criteriaExpression: cel parse"),
        (&ingestor("{adxClusterSelector: {}}").replace("name: ingestor", "name: 1x"), "cannot be the name of a Service"),
        (&format!("{cluster}---\n{}", alone("Ingestor", "i", "{adxClusterSelector: {}}")), "(adx) have no databases"),
        (
            &format!("{with_database}---\n{}", alone("Alerter", "a", "{adxClusterSelector: {}, notificationEndpoint: nowhere}")),
            "spec.notificationEndpoint: \"nowhere\" is no URL",
        ),
        (&alone("Collector", "c", "{}"), "spec.ingestorEndpoint is empty"),
        (
            &cluster.replace("clusterName: adx", "clusterName: my adx"),
            "document 1 (ADXCluster adx): spec.clusterName: \"my adx\" does not match",
        ),
        (&with_database.replace("databaseName: M,", "databaseName: M-1,"), "spec.databases[0].databaseName: \"M-1\" does not match"),
    ] {
        let found = mistakes(text);
        assert!(found.len() == 1 && found[0].contains(expected), "{expected}: {found:#?}");
    }
    // Two clusters with one database: the reference sends it to both names.
    let two = format!("{with_database}---\n{}", ingestor("{adxClusterSelector: {}}").replacen("name: adx", "name: adx2", 1));
    assert!(mistakes(&two)[0].contains("database M is in the ADXClusters adx and adx2"), "{:?}", mistakes(&two));
}

#[test]
fn a_resource_that_is_not_meant_for_this_cluster_makes_nothing() {
    let text = LAPTOP.replace("  notificationEndpoint:", "  criteriaExpression: region == 'westus'\n  notificationEndpoint:");
    let rendered = resources(&text).render(&settings()).unwrap();
    let (name, alerter) = rendered.last().unwrap();
    assert_eq!((name.as_str(), alerter.objects.len()), ("Alerter alerter, which is not meant for this cluster", 0));
    assert!(yaml(&rendered).unwrap().ends_with("---\n# Alerter alerter, which is not meant for this cluster: no objects\n"));
}

/// What the page says first is what the other tests install.
#[test]
fn the_resources_of_the_page_are_the_laptops() {
    let page = include_str!("../../../../docs/operator.md");
    let block = page.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    let documents = |text: &str| serde_saphyr::from_multiple::<Value>(text).unwrap();
    assert_eq!(documents(block), documents(LAPTOP)[..4]);
}

/// The Deployment that we ship starts the program as it is, and may do as little as what it installs.
#[test]
fn the_shipped_deployment_fits_the_program() {
    use clap::Parser as _;
    let text = include_str!("../../../../deploy/kustomize/operator/operator.yaml");
    let body: Value = serde_saphyr::from_str(text).unwrap();
    let object = operator::object::Object::new::<k8s_openapi::api::apps::v1::Deployment>(body).unwrap();
    let flags = operator::Flags::try_parse_from([vec!["operator".to_owned()], crate::samples::arguments(&object)].concat()).unwrap();
    assert_eq!(flags.run.config().unwrap().listen.to_string(), "0.0.0.0:8080");
    let pod = &object.body["spec"]["template"]["spec"];
    assert_eq!((&pod["serviceAccountName"], &pod["securityContext"]["runAsNonRoot"]), (&Value::from("operator"), &Value::from(true)));
    assert_eq!(pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"], true);
}
