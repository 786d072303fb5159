//! What of the chart is made from the code: `ADXMON_WRITE_DOCS=1 cargo nextest run -p operator chart::generated` writes it.

use serde_json::{Map, Value, json};

use super::folder;

/// Fields that the chart fills in.
const FILLED: [&str; 2] = ["clusterName", "adxClusterSelector"];

fn check(path: &str, wanted: &str) {
    let file = folder().join(path);
    if std::fs::read_to_string(&file).is_ok_and(|text| text == wanted) {
        return;
    }
    if std::env::var_os("ADXMON_WRITE_DOCS").is_some() {
        std::fs::write(&file, wanted).unwrap();
        return;
    }
    panic!("{} is not what the code makes: ADXMON_WRITE_DOCS=1 cargo nextest run -p operator chart::generated", file.display());
}

#[test]
fn the_crds_are_those_of_the_types() {
    check("crds/adx-mon.yaml", &crds::yaml(&crds::all()));
}

#[test]
fn the_rights_are_those_that_are_shipped() {
    check("files/rbac/operator.yaml", include_str!("../../../../../deploy/rbac/operator.yaml"));
    check("files/rbac/operator-roles.yaml", include_str!("../../../../../deploy/rbac/operator-roles.yaml"));
}

/// What a spec may be is what its CRD says, but strictly: a field that does not exist is a mistake.
#[test]
fn the_schema_of_the_values_is_that_of_the_crds() {
    let mut schema: Value = serde_json::from_str(include_str!("schema.json")).unwrap();
    for kind in ["ADXCluster", "Ingestor", "Collector", "Alerter"] {
        let mut spec = spec(kind);
        spec.as_object_mut().unwrap().remove("required");
        schema["definitions"][kind] = spec;
    }
    schema["definitions"]["pods"] = spec("Ingestor")["properties"]["pods"].clone();
    check("values.schema.json", &format!("{}\n", serde_json::to_string_pretty(&schema).unwrap()));
}

fn spec(kind: &str) -> Value {
    let crd = serde_json::to_value(crds::of_kind(kind).unwrap()).unwrap();
    let mut spec = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"].clone();
    strict(&mut spec);
    spec
}

fn strict(schema: &mut Value) {
    let Value::Object(fields) = schema else { return };
    fields.retain(|name, _| !name.starts_with("x-kubernetes") && name != "default");
    if let Some(Value::Object(properties)) = fields.get_mut("properties") {
        properties.remove("appliedProvisionState");
        properties.values_mut().for_each(strict);
        fields.insert("additionalProperties".to_owned(), false.into());
    } else if let Some(values) = fields.get_mut("additionalProperties") {
        strict(values);
    }
    if let Some(items) = fields.get_mut("items") {
        strict(items);
    }
    // Go writes whole numbers like others.
    if fields.get("type") == Some(&json!("integer")) {
        fields.remove("format");
    }
}

#[test]
fn what_the_chart_fills_in_is_required() {
    for (kind, field) in ["ADXCluster", "Ingestor"].into_iter().zip(FILLED) {
        assert!(spec(kind)["required"].as_array().unwrap().contains(&field.into()), "{kind}");
    }
    assert_eq!(spec("Collector")["required"], Value::Null);
    assert_eq!(spec("Alerter")["required"], json!(["adxClusterSelector", "notificationEndpoint"]));
    let _: Map<String, Value> = serde_json::from_value(spec("Alerter")["properties"].clone()).unwrap();
}
