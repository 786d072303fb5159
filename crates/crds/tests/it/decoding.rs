//! Objects as they are stored: lenient where the reference is, and never a panic.

use crds::{AlertRule, AlertRuleSpec, CriteriaMap, FunctionStatus, ManagementCommandSpec, MetricsExporter, Scope, State, SummaryRule};
use serde_json::{Value, json};

use crate::cases;

#[test]
fn alert_rules_decode_as_the_reference_does() {
    let cases = cases("alertrule_spec_decoding");
    assert_eq!(cases.len(), 13);
    for case in cases {
        let text = case["spec_json"].as_str().unwrap();
        let spec: AlertRuleSpec = serde_json::from_str(text).unwrap();
        let expected = &case["expected"];
        if !expected["panic"].is_null() {
            // The defect: the reference crashes. Here the rule says what it lacks; a destination may come from the rows.
            let error = spec.validate().err().map(|error| error.to_string());
            let written: Value = serde_json::from_str(text).unwrap();
            let lacking = ["database", "query"].into_iter().find(|field| written.get(field).is_none());
            match (lacking, written["interval"].is_string()) {
                (Some(field), _) => assert_eq!(error, Some(format!("spec.{field}: is missing; set it"))),
                (None, false) => assert!(error.unwrap().starts_with("spec.interval: time: missing unit in duration \"5\""), "{text}"),
                (None, true) => assert_eq!((error, spec.destination.as_str()), (None, ""), "{text}"),
            }
            continue;
        }
        if let Some(error) = expected["error"].as_str() {
            assert_eq!(spec.interval.parse().unwrap_err().to_string(), error, "{text}");
            assert!(spec.validate().unwrap_err().to_string().starts_with(&format!("spec.interval: {error}")), "{text}");
            continue;
        }
        let decoded = &expected["decoded"];
        let seconds = |duration: &crds::GoDuration| duration.parse().unwrap().map_or(0, |duration| duration.as_secs());
        assert_eq!(seconds(&spec.interval), decoded["interval_s"].as_i64().unwrap(), "{text}");
        assert_eq!(seconds(&spec.auto_mitigate_after), decoded["autoMitigateAfter_s"].as_i64().unwrap(), "{text}");
        let criteria: Option<CriteriaMap> = serde_json::from_value(decoded["criteria"].clone()).unwrap();
        assert_eq!(spec.criteria, criteria.unwrap_or_default(), "{text}");
        for (field, value) in [
            ("database", &spec.database),
            ("query", &spec.query),
            ("destination", &spec.destination),
            ("criteriaExpression", &spec.criteria_expression),
        ] {
            assert_eq!(value, decoded[field].as_str().unwrap(), "{field} of {text}");
        }
    }
}

/// The reference looks at the first character only.
#[test]
fn white_space_does_not_hide_a_management_command() {
    let spec = |query: &str| AlertRuleSpec { query: query.to_owned(), ..AlertRuleSpec::default() };
    assert!(spec("\n  .show databases").is_management_command());
    assert!(!spec("T | where x == '.'").is_management_command());
}

/// Written back, an object is what it was: nothing is added that was not there.
#[test]
fn objects_survive_a_round_trip() {
    let rule = json!({
        "apiVersion": "adx-mon.azure.com/v1", "kind": "AlertRule", "metadata": {"name": "r", "namespace": "n"},
        "spec": {"database": "DB", "interval": "1h0m0s", "query": "T", "destination": "d", "criteria": {"region": ["a"]}},
    });
    let object: AlertRule = serde_json::from_value(rule.clone()).unwrap();
    assert_eq!(serde_json::to_value(object).unwrap(), rule);

    let rule = json!({
        "apiVersion": "adx-mon.azure.com/v1", "kind": "SummaryRule", "metadata": {"name": "r", "namespace": "n"},
        "spec": {
            "database": "DB", "table": "T", "body": "X", "interval": "15m",
            "backfill": {"requestId": "1", "startTime": "2026-01-01T00:00:00Z", "endTime": "2026-01-02T00:00:00Z", "maxInFlight": 0},
        },
        "status": {
            "backlog": 0, "failedWindowsTotal": 0,
            "backfill": {
                "requestId": "1", "phase": "Running", "observedGeneration": 1, "nextWindowStart": "2026-01-01T01:00:00Z",
                "submittedWindows": 1, "completedWindows": 0, "retriedWindows": 0,
                "activeOperations": [{"operationId": "op-1", "startTime": "2026-01-01T00:00:00Z", "endTime": "2026-01-01T00:59:59.9999999Z"}],
            },
        },
    });
    let object: SummaryRule = serde_json::from_value(rule.clone()).unwrap();
    assert_eq!(serde_json::to_value(object).unwrap(), rule);
}

/// One object that cannot be decoded would hide all others of its list.
#[test]
fn odd_values_in_a_status_do_not_hide_the_object() {
    let status: FunctionStatus =
        serde_json::from_value(json!({"observedGeneration": 0, "lastTimeReconciled": null, "status": ""})).unwrap();
    assert_eq!((status.status, status.last_time_reconciled), (State::Failed, None));
    let status: crds::BackfillStatus = serde_json::from_value(json!({"phase": "Paused"})).unwrap();
    assert_eq!(status.phase, None);
}

#[test]
fn specs_say_what_keeps_them_from_running() {
    let exporter = |interval: &str, transform: Value| -> String {
        let object = json!({
            "apiVersion": "adx-mon.azure.com/v1", "kind": "MetricsExporter", "metadata": {},
            "spec": {"database": "DB", "body": "X", "interval": interval, "transform": transform},
        });
        let object: MetricsExporter = serde_json::from_value(object).unwrap();
        object.spec.validate().err().map(|error| error.to_string()).unwrap_or_default()
    };
    let transform = json!({"valueColumns": ["v"], "timestampColumn": "t", "defaultMetricName": "m"});
    assert_eq!(exporter("5m", transform.clone()), "");
    assert_eq!(exporter("0s", transform.clone()), "spec.interval: \"0s\" is not above zero");
    assert_eq!(exporter("", transform), "spec.interval: is missing; write it like 5m or 1h30m");
    let empty = exporter("5m", json!({"valueColumns": [], "timestampColumn": "t", "defaultMetricName": "m"}));
    assert_eq!(empty, "spec.transform.valueColumns: is empty; name the columns that hold values");
    let nameless = exporter("5m", json!({"valueColumns": ["v"], "timestampColumn": "t"}));
    assert_eq!(nameless, "spec.transform: has no name for the metric; set metricNameColumn or defaultMetricName");
}

/// Specification, section 4: a database decides; without one, no scope is the cluster; an unknown scope is an error.
#[test]
fn a_management_command_knows_its_scope() {
    let scope = |database: &str, scope: &str| {
        let spec = ManagementCommandSpec { database: database.to_owned(), scope: scope.to_owned(), ..ManagementCommandSpec::default() };
        spec.scope().map_err(|error| error.to_string())
    };
    assert_eq!(scope("DB", "Cluster"), Ok(Scope::Database));
    assert_eq!(scope("", ""), Ok(Scope::Cluster));
    assert_eq!(scope("", "AllDatabases"), Ok(Scope::AllDatabases));
    assert_eq!(scope("", "Database"), Err("spec.database: is missing; scope Database needs it".to_owned()));
    assert_eq!(scope("", "Everywhere"), Err("spec.scope: is \"Everywhere\"; it can be Database, AllDatabases or Cluster".to_owned()));
}

/// Go's clients write what is not set as `""` or `null`: both are read, and of what must be set the executors say so.
#[test]
fn what_go_writes_for_nothing_is_read() {
    let exporter = |transform: Value| -> MetricsExporter {
        let spec = json!({"database": "DB", "body": "X", "interval": "5m", "transform": transform});
        serde_json::from_value(json!({"apiVersion": "adx-mon.azure.com/v1", "kind": "MetricsExporter", "metadata": {}, "spec": spec}))
            .unwrap()
    };
    for timestamp in [json!(""), Value::Null] {
        let nothing = exporter(json!({"valueColumns": ["v"], "timestampColumn": timestamp, "defaultMetricName": "m",
            "metricNameColumn": timestamp, "metricNamePrefix": timestamp, "labelColumns": null}));
        assert_eq!(nothing.spec.validate(), Ok(()));
        assert_eq!((nothing.spec.transform.timestamp_column.as_str(), nothing.spec.transform.label_columns.len()), ("", 0));
        // Required by the schema, so that it is written back.
        assert_eq!(serde_json::to_value(&nothing).unwrap()["spec"]["transform"]["timestampColumn"], "");
    }
    let columns = exporter(json!({"valueColumns": null, "defaultMetricName": "m"})).spec.validate().unwrap_err().to_string();
    assert!(columns.starts_with("spec.transform.valueColumns: is empty"), "{columns}");
    let function =
        json!({"body": "B", "database": null, "allDatabases": true, "suspend": null, "criteriaExpression": null, "appliedEndpoint": null});
    assert_eq!(serde_json::from_value::<crds::FunctionSpec>(function).unwrap().validate(), Ok(()));
    let command = json!({"body": "B", "database": null, "scope": null, "criteriaExpression": null});
    assert_eq!(serde_json::from_value::<ManagementCommandSpec>(command).unwrap().scope(), Ok(Scope::Cluster));
    let rule = json!({"database": "DB", "table": "T", "body": "X", "interval": "1h", "ingestionDelay": null, "suspend": null,
        "name": null, "backfill": null, "criteria": null, "criteriaExpression": null});
    assert_eq!(serde_json::from_value::<crds::SummaryRuleSpec>(rule).unwrap().validate(), Ok(()));
    let rule = json!({"database": null, "query": null, "destination": null, "interval": null, "autoMitigateAfter": null, "criteria": null});
    assert!(serde_json::from_value::<AlertRuleSpec>(rule).unwrap().validate().is_err());
}
