//! What is changed of a cluster: the reference's vectors, and what it never changes.

use azure_arm::{Cluster, Database};
use crds::{AdxCluster, AppliedProvisionState};
use operator::azure::wanted::{Wanted, applied, change, retention};
use serde_json::{Value, json};

use super::world::spec;
use crate::samples::object;

fn wanted(spec: Value) -> Result<Wanted, String> {
    Wanted::of(&object::<AdxCluster>("ADXCluster", "adx", spec))
}

/// With what is in `provision` beside the least.
fn with(provision: Value) -> Wanted {
    let mut spec = json!({"clusterName": "c", "provision": {"subscriptionId": "s", "resourceGroup": "g", "location": "l", "skuName": "A", "tier": "S"}});
    for (name, value) in provision.as_object().unwrap() {
        spec["provision"][name] = value.clone();
    }
    wanted(spec).unwrap()
}

fn state(value: Value) -> AppliedProvisionState {
    serde_json::from_value(value).unwrap()
}

fn cluster(value: Value) -> Cluster {
    serde_json::from_value(value).unwrap()
}

#[test]
fn clusters_are_changed_as_by_the_reference() {
    let vectors: Value = serde_json::from_str(include_str!("../../../../../tests/vectors/control/adxcluster_update_diff.json")).unwrap();
    let mut seen = 0;
    for case in vectors["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let list = |part: &str| case[part]["identities"].as_array().cloned().unwrap_or_default();
        let desired = &case["desired"];
        let wanted = with(json!({"skuName": desired["sku"], "tier": desired["tier"], "userAssignedIdentities": list("desired")}));
        let before = &case["applied"];
        let before = state(json!({"skuName": before["sku"], "tier": before["tier"], "userAssignedIdentities": list("applied")}));
        let ids: serde_json::Map<String, Value> = list("actual").iter().map(|id| (id.as_str().unwrap().to_owned(), json!({}))).collect();
        let is = &case["actual"];
        let actual = cluster(json!({
            "sku": {"name": is["sku"], "tier": is["tier"]}, "identity": {"type": is["identity_type"], "userAssignedIdentities": ids},
        }));
        let write = change(&wanted, &before, &actual).write.unwrap_or_default();
        let expected = &case["expected"];
        seen += 1;
        if name == "no applied state (empty)" {
            // Defect of the reference: it neither changes the SKU nor, since it then takes it for applied, ever will.
            let sku = write.sku.unwrap();
            assert_eq!((sku.name.as_str(), sku.tier.as_str()), ("B", "Standard"));
            continue;
        }
        assert_eq!(write.sku.is_some(), expected["sku_update"] == true, "{name}");
        if let Some(sku) = write.sku {
            assert_eq!(json!({"name": sku.name, "tier": sku.tier}), expected["sku"], "{name}");
        }
        assert_eq!(write.identity.is_some(), expected["identity_update"] == true, "{name}");
        if let Some(identity) = write.identity {
            assert_eq!(identity.kind, expected["identity_type"].as_str().unwrap(), "{name}");
            let shall_be: Vec<&String> =
                identity.user_assigned_identities.iter().filter(|(_, id)| id.is_some()).map(|(id, _)| id).collect();
            assert_eq!(json!(shall_be), expected["identities"], "{name}");
        }
    }
    assert_eq!(seen, 10);
}

fn autoscaled(min: i64, max: i64) -> Value {
    json!({
        "sku": {"name": "a", "tier": "s", "capacity": 3},
        "properties": {"optimizedAutoscale": {"version": 1, "isEnabled": true, "minimum": min, "maximum": max}},
    })
}

/// The reference sets it when it makes a cluster, and never again.
#[test]
fn a_changed_scale_is_applied() {
    let from_2_to_6 = || with(json!({"autoScale": true, "autoScaleMin": 2, "autoScaleMax": 6}));
    let known = |min, max| state(json!({"skuName": "A", "tier": "S", "autoScale": {"enabled": true, "minimum": min, "maximum": max}}));
    let none = AppliedProvisionState::default();
    let scale = |wanted: &Wanted, applied: &AppliedProvisionState, actual: Value| {
        let change = change(wanted, applied, &cluster(actual));
        let scale = change.write.and_then(|write| write.properties.optimized_autoscale);
        (scale.map(|scale| (scale.is_enabled, scale.minimum, scale.maximum)), change.by_hand)
    };
    assert_eq!(scale(&from_2_to_6(), &known(2, 6), autoscaled(2, 6)), (None, vec![]));
    assert_eq!(scale(&from_2_to_6(), &known(2, 4), autoscaled(2, 4)), (Some((true, 2, 6)), vec![]));
    assert_eq!(scale(&from_2_to_6(), &none, autoscaled(2, 4)), (Some((true, 2, 6)), vec![]));
    assert_eq!(scale(&from_2_to_6(), &known(2, 4), autoscaled(3, 9)), (None, vec!["autoScale is from 3 to 9".to_owned()]));
    let off = json!({"sku": {"name": "A", "tier": "S"}});
    assert_eq!(scale(&from_2_to_6(), &known(2, 6), off), (None, vec!["autoScale is off".to_owned()]));
    // Turned off in the spec; and never asked for in it.
    assert_eq!(scale(&with(json!({})), &known(2, 4), autoscaled(2, 4)), (Some((false, 2, 4)), vec![]));
    assert_eq!(scale(&with(json!({})), &none, autoscaled(2, 4)), (None, vec![]));
}

#[test]
fn a_number_of_machines_is_the_specs_only_where_the_load_does_not_decide() {
    let capacity = |wanted: &Wanted, applied: Option<i64>, actual: i64| {
        let before = state(json!({"skuName": "A", "tier": "S", "capacity": applied}));
        let change = change(wanted, &before, &cluster(json!({"sku": {"name": "A", "tier": "S", "capacity": actual}})));
        (change.write.and_then(|write| write.sku).and_then(|sku| sku.capacity), change.by_hand)
    };
    let four = with(json!({"capacity": 4}));
    assert_eq!(capacity(&four, Some(4), 4), (None, vec![]));
    assert_eq!(capacity(&four, Some(2), 2), (Some(4), vec![]));
    assert_eq!(capacity(&four, None, 2), (Some(4), vec![]));
    assert_eq!(capacity(&four, Some(2), 3), (None, vec!["capacity is 3".to_owned()]));
    assert_eq!(capacity(&with(json!({})), Some(2), 3), (None, vec![]));
    assert_eq!(capacity(&with(json!({"capacity": 4, "autoScale": true})), Some(2), 2).0, None);
    // Another size keeps the number.
    let write = change(&with(json!({"skuName": "B"})), &state(json!({"skuName": "A", "tier": "S"})), &cluster(autoscaled(2, 4))).write;
    assert_eq!(write.unwrap().sku.unwrap().capacity, Some(3));
}

/// The reference never applies it.
#[test]
fn data_is_never_deleted_unasked() {
    let decide = |period: &str, applied: Option<&str>, actual: Option<&str>| {
        let properties = json!({"softDeletePeriod": actual, "provisioningState": "Succeeded"});
        let database: Database = serde_json::from_value(json!({"name": "c/Logs", "properties": properties})).unwrap();
        let mut by_hand = Vec::new();
        (retention(period, applied.map(str::to_owned).as_ref(), &database, &mut by_hand), by_hand)
    };
    let left = |period: &str| (false, vec![format!("database Logs keeps its data {period}")]);
    // Equal, however it is written.
    assert_eq!(decide("P30D", None, Some("PT720H")), (false, vec![]));
    // The spec has changed.
    assert_eq!(decide("P30D", Some("P90D"), Some("P90D")), (true, vec![]));
    assert_eq!(decide("P90D", Some("P30D"), Some("P30D")), (true, vec![]));
    // There before: longer does no harm.
    assert_eq!(decide("P90D", None, Some("P30D")), (true, vec![]));
    assert_eq!(decide("P30D", None, Some("P365D")), left("P365D"));
    assert_eq!(decide("P30D", None, None), left("for ever"));
    // Changed by hand.
    assert_eq!(decide("P30D", Some("P30D"), Some("P7D")), left("P7D"));
    assert_eq!(decide("P30D", Some("P90D"), Some("a while")), left("a while"));
}

#[test]
fn what_was_changed_by_hand_keeps_its_record_and_what_is_done_gets_one() {
    let wanted = with(json!({"skuName": "B", "capacity": 4, "userAssignedIdentities": ["i2"]}));
    let before = state(json!({"skuName": "A", "tier": "S", "capacity": 2, "userAssignedIdentities": ["i1"], "retention": {"Gone": "P1D"}}));
    let by_hand = cluster(json!({"sku": {"name": "M", "tier": "S", "capacity": 9}}));
    let after = applied(&wanted, &before, &by_hand, &[]);
    assert_eq!(
        (after.sku_name.as_str(), after.capacity, after.user_assigned_identities.as_slice()),
        ("A", Some(2), &["i2".to_owned()][..])
    );
    assert!(after.retention.is_empty());
    let done = cluster(json!({"sku": {"name": "B", "tier": "S", "capacity": 4}}));
    let after = applied(&wanted, &before, &done, &[]);
    assert_eq!((after.sku_name.as_str(), after.capacity), ("B", Some(4)));
    // Nothing more is to be done, and a hand's change back is the operator's again.
    assert_eq!(change(&wanted, &after, &done).write.and_then(|write| write.sku), None);
}

#[test]
fn a_spec_that_says_nothing_sensible_is_told_of() {
    let wrong = |edit: &dyn Fn(&mut Value)| {
        let mut spec = spec();
        edit(&mut spec);
        wanted(spec).unwrap_err()
    };
    let principal =
        |role: &str, database: &str| json!([{"principalId": "p", "principalType": "App", "role": role, "databaseName": database}]);
    for (edit, expected) in [
        (
            &(|spec: &mut Value| spec["provision"]["autoScaleMin"] = 7.into()) as &dyn Fn(&mut Value),
            "autoScaleMin 7 and autoScaleMax 6 are no range",
        ),
        (&|spec| spec["databases"][0]["retentionInDays"] = 0.into(), "retentionInDays 0 of database Metrics is not above 0"),
        (&|spec| spec["databases"][0]["retentionPolicy"] = "30d".into(), "retentionPolicy of database Metrics: "),
        (&|spec| spec["databases"][0]["retentionPolicy"] = r#"{"SoftDeletePeriod": "30"}"#.into(), ""),
        (&|spec| spec["databases"][0]["retentionPolicy"] = r#"{"SoftDeletePeriod": "1.25:00:00"}"#.into(), "\"1.25:00:00\" is no timespan"),
        (&|spec| spec["provision"]["principals"] = principal("Viewer", ""), "Viewer of p is no role of a cluster: name its databaseName"),
        (
            &|spec| spec["provision"]["principals"] = principal("AllDatabasesViewer", "Logs"),
            "is no role of a database: take databaseName away",
        ),
        (&|spec| spec["provision"]["principals"] = principal("Viewer", "Other"), "database Other, which is not in spec.databases"),
    ] {
        if expected.is_empty() {
            let mut spec = spec();
            edit(&mut spec);
            assert_eq!(wanted(spec).unwrap().databases[0].1, "P30D");
            continue;
        }
        let why = wrong(edit);
        assert!(why.contains(expected), "{why}");
    }
    let mut spec = spec();
    spec["databases"][0]["retentionPolicy"] = r#"{"SoftDeletePeriod": "365.06:00:00", "Recoverability": "Enabled"}"#.into();
    spec["federation"] = json!({"heartbeatDatabase": "Fleet"});
    let databases = wanted(spec).unwrap().databases;
    assert_eq!((databases[0].1.as_str(), databases[2].0.as_str()), ("P365DT6H0M0S", "Fleet"));
}
