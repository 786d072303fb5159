//! The roles that the operator binds are those of each component's own file.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::samples::all;

fn rules(text: &str) -> BTreeMap<String, Value> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).unwrap();
    let roles = documents.into_iter().filter(|document| ["ClusterRole", "Role"].contains(&document["kind"].as_str().unwrap()));
    roles
        .map(|role| {
            let name = role["metadata"]["name"].as_str().unwrap();
            let name = if role["kind"] == "Role" { format!("adx-mon:{name}-namespace") } else { name.to_owned() };
            (name, role["rules"].clone())
        })
        .collect()
}

fn files() -> BTreeMap<String, Value> {
    [
        include_str!("../../../../deploy/rbac/ingestor.yaml"),
        include_str!("../../../../deploy/rbac/alerter.yaml"),
        include_str!("../../../../deploy/rbac/adxexporter.yaml"),
        include_str!("../../../../deploy/rbac/collector.yaml"),
        include_str!("../../../../deploy/rbac/collector-node-metrics.yaml"),
        include_str!("../../../../deploy/rbac/collector-events.yaml"),
    ]
    .into_iter()
    .flat_map(rules)
    .collect()
}

#[test]
fn the_shipped_roles_are_those_of_the_components() {
    assert_eq!(rules(include_str!("../../../../deploy/rbac/operator-roles.yaml")), files());
}

#[test]
fn every_binding_is_to_a_role_that_is_shipped() {
    let shipped = files();
    let mut bound = std::collections::BTreeSet::new();
    for (_, rendered) in all() {
        for object in rendered.objects.iter().filter(|object| object.body["roleRef"].is_object()) {
            assert_eq!(object.body["roleRef"]["kind"], "ClusterRole");
            bound.insert(object.body["roleRef"]["name"].as_str().unwrap().to_owned());
        }
    }
    assert_eq!(bound, shipped.into_keys().collect());
}
