//! The validation rules of the CRDs, run by `kube-cel` as an API server would: samples that it takes and refuses.

use serde_json::{Value, json};

/// What the rules of a kind say of a spec.
fn complaints(kind: &str, spec: &Value) -> Vec<String> {
    let crd = serde_json::to_value(crds::of_kind(kind).unwrap()).unwrap();
    let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let object = json!({ "spec": spec });
    let errors = kube_cel::validate(schema, &object, None).err();
    errors.into_iter().flat_map(|errors| errors.into_vec()).map(|error| error.to_string()).collect()
}

fn taken(kind: &str, spec: Value) {
    assert_eq!(complaints(kind, &spec), Vec::<String>::new(), "{kind} {spec}");
}

fn refused(kind: &str, spec: Value, why: &str) {
    let complaints = complaints(kind, &spec);
    assert!(complaints.iter().any(|complaint| complaint.contains(why)), "{kind} {spec}: {complaints:?}");
}

fn with(mut spec: Value, field: &str, value: &str) -> Value {
    spec[field] = value.into();
    spec
}

#[test]
fn intervals_are_durations_above_zero() {
    let summary = json!({"database": "DB", "table": "T", "body": "X"});
    let exporter = json!({"database": "DB", "body": "X", "transform": {"valueColumns": ["v"], "timestampColumn": "t"}});
    for (kind, spec) in [("AlertRule", json!({"database": "DB"})), ("SummaryRule", summary), ("MetricsExporter", exporter)] {
        for good in ["5m", "1h30m", "300ms", "1.5h"] {
            taken(kind, with(spec.clone(), "interval", good));
        }
        for bad in ["0s", "-5m"] {
            refused(kind, with(spec.clone(), "interval", bad), "interval must be a duration above zero");
        }
        // The rule itself fails on these, and the API server refuses an object whose rule fails.
        for bad in ["bogus", "1d", "5"] {
            assert_ne!(complaints(kind, &with(spec.clone(), "interval", bad)), Vec::<String>::new(), "{kind} {bad}");
        }
    }
    taken("AlertRule", json!({"database": "DB"}));
    taken("AlertRule", json!({"interval": ""}));
}

#[test]
fn delays_may_be_zero_or_empty() {
    let summary = json!({"database": "DB", "table": "T", "body": "X", "interval": "1h"});
    for (kind, field, spec) in [("AlertRule", "autoMitigateAfter", json!({})), ("SummaryRule", "ingestionDelay", summary)] {
        for good in ["", "0s", "10m"] {
            taken(kind, with(spec.clone(), field, good));
        }
        refused(kind, with(spec.clone(), field, "-1s"), "not below zero");
        assert_ne!(complaints(kind, &with(spec, field, "1d")), Vec::<String>::new(), "{kind}");
    }
}

/// Each sample also against what the executors go by, so that rule and code cannot drift apart.
#[test]
fn a_function_is_for_one_database_or_for_all() {
    for good in [
        json!({"body": "b", "database": "DB"}),
        json!({"body": "b", "database": "DB", "allDatabases": false}),
        json!({"body": "b", "database": "*"}),
        json!({"body": "b", "allDatabases": true}),
        json!({"body": "b", "allDatabases": true, "database": ""}),
        json!({"body": "b", "allDatabases": true, "database": "*"}),
    ] {
        serde_json::from_value::<crds::FunctionSpec>(good.clone()).unwrap().validate().unwrap();
        taken("Function", good);
    }
    for bad in [
        json!({"body": "b"}),
        json!({"body": "b", "database": ""}),
        json!({"body": "b", "allDatabases": false}),
        json!({"body": "b", "allDatabases": true, "database": "DB"}),
    ] {
        serde_json::from_value::<crds::FunctionSpec>(bad.clone()).unwrap().validate().unwrap_err();
        refused("Function", bad, "set either database or allDatabases: true");
    }
}

/// A database decides whatever the scope says, so objects that have both stay valid.
#[test]
fn scope_database_needs_a_database() {
    for good in [
        json!({"body": "b"}),
        json!({"body": "b", "scope": "Cluster"}),
        json!({"body": "b", "scope": "AllDatabases"}),
        json!({"body": "b", "scope": "Database", "database": "DB"}),
        json!({"body": "b", "scope": "Cluster", "database": "DB"}),
        json!({"body": "b", "database": "DB"}),
    ] {
        serde_json::from_value::<crds::ManagementCommandSpec>(good.clone()).unwrap().validate().unwrap();
        taken("ManagementCommand", good);
    }
    for bad in [json!({"body": "b", "scope": "Database"}), json!({"body": "b", "scope": "Database", "database": ""})] {
        serde_json::from_value::<crds::ManagementCommandSpec>(bad.clone()).unwrap().validate().unwrap_err();
        refused("ManagementCommand", bad, "scope Database needs a database");
    }
}
