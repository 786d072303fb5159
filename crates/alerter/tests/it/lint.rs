//! `alerter lint`: every mistake of a folder at once, each with its line.

use alerter::lint::{Schema, check};
use alerter::{CommonFlags, LintFlags};
use serde_json::json;

use crate::fake::{Answer, Kusto};

const SCHEMA: &str = ".create table Cpu (Timestamp: datetime, Host: string, Value: real, Labels: dynamic)\n\
                      .create-or-alter function Hot (limit: real) { Cpu | where Value > limit }\n";

fn labels() -> crds::criteria::Labels {
    [("region", "eastus")].into_iter().collect()
}

fn lint(yaml: &str) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("rules.yaml"), yaml).unwrap();
    let report = check(folder.path(), Some(&Schema::read(SCHEMA).unwrap()), &labels());
    let prefix = format!("{}/", folder.path().display());
    let mut found: Vec<_> = report.findings.iter().map(|f| (f.line, f.to_string().replace(&prefix, ""))).collect();
    found.sort();
    found.into_iter().map(|(_, text)| text).collect()
}

const GOOD: &str = "\
# what is hot
apiVersion: adx-mon.azure.com/v1
kind: AlertRule
metadata:
  name: hot
  namespace: monitoring
spec:
  database: Metrics
  interval: 5m
  destination: team
  autoMitigateAfter: 1h
  criteria:
    region: [eastus, westus]
  criteriaExpression: region == 'eastus'
  query: |
    Hot(90.0)
    | where Timestamp between (_startTime .. _endTime)
    | summarize Value = max(Value) by Host
    | extend Title = strcat(Host, ' is hot in ', _region), Severity = 2
    // --- is no end of a document
    | project Title, Severity, Host, Value, CorrelationId = Host
";

#[test]
fn a_good_rule_has_nothing_to_be_said() {
    assert_eq!(lint(GOOD), [""; 0]);
    assert_eq!(lint("---\n---\n"), [""; 0]);
}

/// Of each mistake: the file, the line, the document, the rule and the way out.
#[test]
fn all_mistakes_are_found_at_once() {
    let yaml = format!(
        "{GOOD}---\n{}",
        r#"apiVersion: adx-mon.azure.com/v1
kind: AlertRule
metadata:
  name: Not_A_Name
  labels:
    team: 5
spec:
  database: 7
  interval: 1d
  autoMitigateAfter: -5m
  colour: red
  criteria:
    region: eastus
  criteriaExpression: nowhere == 'x'
  query: |

    Cpu
    | where Timestamp between (_startTime .. _endTime)
    | where Valeu > 1
---
apiVersion: adx-mon.azure.com/v1
kind: AlertRule
metadata: {name: hot, namespace: monitoring}
spec:
  database: Metrics
  interval: 0s
  query: Cpu | where Timestamp > ago(5m) | project title = Host, Title = Host
---
apiVersion: adx-mon.azure.com/v1
kind: AlertRule
metadata: {name: columns}
spec:
  database: Metrics
  interval: 5m
  query: "Cpu | where Timestamp between (_startTime .. _endTime) | project Title = Labels, Severity = Timestamp"
---
apiVersion: adx-mon.azure.com/v1
kind: SummaryRule
metadata: {name: other}
---
apiVersion: adx-mon.azure.com/v1
kind: alertRule
metadata: {name: case}
---
kind: [
"#
    );
    let found = lint(&yaml);
    let expected = [
        "rules.yaml:26: error: document 2, default/Not_A_Name: metadata.name: \"Not_A_Name\" is no name",
        "rules.yaml:28: error: document 2, default/Not_A_Name: metadata.labels.team: must be a string, but is 5",
        "rules.yaml:30: error: document 2, default/Not_A_Name: spec.database is missing",
        "rules.yaml:30: error: document 2, default/Not_A_Name: spec.database: must be of type string, but is 7",
        "rules.yaml:31: error: document 2, default/Not_A_Name: spec.interval: time: unknown unit \"d\"",
        "rules.yaml:32: error: document 2, default/Not_A_Name: spec.autoMitigateAfter: \"-5m\" is below zero",
        "rules.yaml:33: error: document 2, default/Not_A_Name: spec.colour: no such field; there are ",
        "rules.yaml:35: error: document 2, default/Not_A_Name: spec.criteria.region: must be of type array, but is the string \"eastus\"",
        "rules.yaml:36: error: document 2, default/Not_A_Name: spec.criteriaExpression: ",
        "rules.yaml:41: error: document 2, default/Not_A_Name: the query, line 4, column 9: Semantic error: SEM0100",
        "rules.yaml:45: error: document 3, monitoring/hot: monitoring/hot is there already, as document 1 of ",
        "rules.yaml:48: error: document 3, monitoring/hot: spec.interval: \"0s\" is not above zero",
        "rules.yaml:49: error: document 3, monitoring/hot: query results include multiple columns for reserved alert field \"Title\": title, Title",
        "rules.yaml:49: warning: document 3, monitoring/hot: the query uses neither _startTime nor _endTime",
        "rules.yaml:57: error: document 4, default/columns: column \"severity\": a datetime is no severity",
        "rules.yaml:57: error: document 4, default/columns: column \"title\" is dynamic",
        "rules.yaml:54: error: document 4, default/columns: nobody is told",
        "rules.yaml:60: warning: document 5: kind \"SummaryRule\" is not checked",
        "rules.yaml:64: error: document 6: there is no kind \"alertRule\": write AlertRule",
        "rules.yaml:67: error: document 7: this is no YAML",
    ];
    for expected in expected {
        assert!(found.iter().any(|text| text.starts_with(expected)), "{expected}\nis not among\n{}", found.join("\n"));
    }
    assert_eq!(found.len(), expected.len(), "{}", found.join("\n"));
}

#[test]
fn without_a_schema_queries_are_parsed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rule.yml");
    std::fs::write(&file, GOOD.replace("| summarize Value = max(Value) by Host", "| summarize (")).unwrap();
    let report = check(&file, None, &labels());
    assert_eq!((report.rules, report.findings.len(), report.is_clean()), (1, 1, false));
    // the operand is missed where the next line begins
    assert_eq!(report.findings[0].line, Some(19), "{}", report.findings[0]);
    std::fs::write(&file, GOOD).unwrap();
    assert!(check(&file, None, &labels()).is_clean());
}

/// Functions and views of a schema file, in both of its forms, are known to queries; wildcards find views and no others.
#[test]
fn stored_functions_and_views_are_known() {
    let commands = ".create table Cpu (Timestamp: datetime, Host: string, Value: real)\n\
         .create-or-alter function with (folder = 'x', view = true) CpuHot () { Cpu | where Value > 90 | extend Hot = true }\n\
         .create-or-alter function CpuPlain () { Cpu | extend Plain = true }\n\
         .create async materialized-view with (backfill = true) Last on table Cpu\n{\n  Cpu | summarize arg_max(Timestamp, Value) by Host\n}\n";
    let column = |name: &str, ty: &str| json!({"Name": name, "CslType": ty});
    let cpu = [column("Timestamp", "datetime"), column("Host", "string"), column("Value", "real")];
    let function = |name: &str, body: &str, kind: &str| json!({"Name": name, "InputParameters": [], "Body": body, "FunctionKind": kind});
    let json = json!({"Databases": {"Metrics": {"Name": "Metrics",
    "Tables": {"Cpu": {"Name": "Cpu", "OrderedColumns": cpu}},
    "MaterializedViews": {"Last": {"Name": "Last", "OrderedColumns": cpu}},
    "Functions": {
        "CpuHot": function("CpuHot", "{ Cpu | where Value > 90 | extend Hot = true }", "ViewFunction"),
        "CpuPlain": function("CpuPlain", "{ Cpu | extend Plain = true }", "Unknown"),
    }}}});
    for schema in [commands.to_owned(), json.to_string()] {
        let schema = Schema::read(&schema).unwrap();
        for (query, wrong) in [
            ("CpuHot", None),
            ("CpuHot | extend X = Hot", None),
            ("CpuPlain | extend X = Plain", None),
            ("Last | extend X = Value", None),
            ("union Cpu* | extend X = Hot", None),
            ("union Cpu* | extend X = Plain", Some("Plain")),
            ("CpuCold", Some("CpuCold")),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let query = format!("{query} | where Timestamp between (_startTime .. _endTime) | project Title = Host, Severity = 2");
            let rule = format!(
                "apiVersion: adx-mon.azure.com/v1\nkind: AlertRule\nmetadata: {{name: a}}\n\
                 spec: {{database: Metrics, interval: 5m, destination: team, query: '{query}'}}\n"
            );
            std::fs::write(folder.path().join("rule.yaml"), rule).unwrap();
            let found: Vec<String> = check(folder.path(), Some(&schema), &labels()).findings.iter().map(ToString::to_string).collect();
            match wrong {
                None => assert_eq!(found, [""; 0], "{query}"),
                Some(name) => assert!(found.len() == 1 && found[0].contains(name), "{query}: {found:?}"),
            }
        }
    }
}

#[tokio::test]
async fn with_endpoints_rules_are_tried_out_and_nothing_is_hidden() {
    let kusto = Kusto::start().await;
    let schema = json!({"Databases": {"Metrics": {"Name": "Metrics", "Tables": {"Cpu": {"Name": "Cpu", "OrderedColumns": [
        {"Name": "Timestamp", "CslType": "datetime"}, {"Name": "Host", "CslType": "string"}, {"Name": "Value", "CslType": "real"}]}},
        "Functions": {"Hot": {"Name": "Hot", "InputParameters": [{"Name": "limit", "CslType": "real"}], "Body": "{ Cpu | where Value > limit }"}}}}});
    kusto.answer("schema as json", Answer::Rows(vec![("DatabaseSchema", "string")], vec![vec![json!(schema.to_string())]]));
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("rule.yaml"), GOOD).unwrap();
    let common = CommonFlags {
        kusto_endpoint: vec![format!("Metrics={}", kusto.url)],
        region: "eastus".into(),
        max_notifications: 25,
        ..CommonFlags::default()
    };
    let flags = LintFlags { common, lint_dir: folder.path().to_owned(), schema: None };
    assert!(alerter::lint::run(&flags).await.unwrap());
    assert_eq!(kusto.asked("is hot in").len(), 1);
    // Defect: the reference passes a rule whose run the service refuses or that is throttled.
    for answer in [
        Answer::Status(403, String::new()),
        Answer::Rows(vec![("Title", "string"), ("Severity", "int")], vec![vec![json!("t".repeat(151)), json!(1)]]),
        Answer::Rows(vec![("Title", "string"), ("Severity", "int")], vec![vec![json!("t"), json!(1)]; 26]),
    ] {
        kusto.answer("is hot in", answer);
        assert!(!alerter::lint::run(&flags).await.unwrap());
    }
    // elsewhere it would not run, so it is not tried
    let elsewhere = LintFlags { common: CommonFlags { region: "mars".into(), ..flags.common.clone() }, ..flags };
    assert!(alerter::lint::run(&elsewhere).await.unwrap());
    assert_eq!(kusto.asked("is hot in").len(), 4);
}
