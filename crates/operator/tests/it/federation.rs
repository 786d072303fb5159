//! Heartbeats, topology and what a hub runs: the reference's cases, and what must hold for any partitions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crds::{AdxCluster, ClusterRole, Federation};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use jiff::Timestamp;
use kusto::{Column, Table};
use operator::federation::access::{Call, Kusto};
use operator::federation::heartbeat::{self, DatabaseSchema, Heartbeat};
use operator::federation::hub::{Databases, Hub, federate};
use operator::federation::statements::{HubDatabase, LONGEST_SCRIPT, PREAMBLE, scripts, statements};
use operator::federation::topology::{Row, Topology, columns};
use operator::federation::{FEDERATION, Federations, Outcome, partition};
use parking_lot::Mutex;
use proptest::prelude::*;
use serde_json::{Value, json};

fn cases(text: &str) -> Vec<Value> {
    let mut vectors: Value = serde_json::from_str(text).unwrap();
    serde_json::from_value(vectors["cases"].take()).unwrap()
}

fn texts(value: &Value) -> Vec<String> {
    serde_json::from_value::<Option<Vec<String>>>(value.clone()).unwrap().unwrap_or_default()
}

#[test]
fn the_query_for_heartbeats_is_the_references() {
    for case in cases(include_str!("../../../../tests/vectors/control/federation_heartbeat_query.json")) {
        let ours = heartbeat::query(case["table"].as_str().unwrap(), case["ttl"].as_str().unwrap());
        match case["expected"]["error"].as_str() {
            Some(error) => assert_eq!(ours, Err(error.to_owned())),
            None => assert_eq!(ours.as_deref(), Ok(case["expected"]["query"].as_str().unwrap())),
        }
    }
    assert!(heartbeat::query("T", "-1h").unwrap_err().contains("not positive"));
}

#[test]
fn a_heartbeat_is_the_references() {
    for case in cases(include_str!("../../../../tests/vectors/control/federation_heartbeat_row.json")) {
        let text = |name: &str| case[name].as_str().unwrap();
        let time: Timestamp = text("timestamp").parse().unwrap();
        let heartbeat = Heartbeat { time, endpoint: text("endpoint"), schema: text("schema_json"), partitioning: text("partition_json") };
        // defect: the reference does not quote the table's name
        let ours = heartbeat.command(text("table")).replace("['Heartbeats']", "Heartbeats");
        assert_eq!(ours, text("expected"));
        // what the reference writes is read, with its null for no views
        let schema: Vec<DatabaseSchema> = serde_json::from_str(text("schema_json")).unwrap();
        assert_eq!((schema[0].database.as_str(), schema[0].views.len()), ("D", 0));
    }
}

#[test]
fn scripts_are_cut_as_the_references() {
    for case in cases(include_str!("../../../../tests/vectors/control/federation_script_split.json")) {
        let longest = usize::try_from(case["max_size"].as_u64().unwrap()).unwrap();
        let expected: Option<Vec<Vec<String>>> = serde_json::from_value(case["expected"].clone()).unwrap();
        assert_eq!(scripts(&texts(&case["statements"]), longest), expected.unwrap_or_default(), "{case}");
    }
}

/// Defects of the reference that its cases freeze:
/// - a group is dropped and created, so that queries fail in between: ours is replaced in one command;
/// - names are not quoted;
/// - functions are validated, for which the hub asks the partitions;
/// - a partition with a table and a view of one name counts twice.
#[test]
fn groups_and_functions_are_the_references() {
    for case in cases(include_str!("../../../../tests/vectors/control/federation.json")) {
        let rows = case["heartbeat_rows"].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let rows: Vec<Row> = rows.iter().map(|row| Row { endpoint: text(&row["Endpoint"]), schema: text(&row["Schema"]) }).collect();
        let (topology, expected) = (Topology::new(&rows), &case["expected"]);
        assert_eq!(json!(topology.partitions), expected["endpoint_count"], "{case}");
        assert_eq!(json!(topology.left_out.len()), expected["parse_error_count"], "{case}");
        let theirs: BTreeMap<String, BTreeMap<String, BTreeSet<String>>> =
            serde_json::from_value(expected["table_endpoints"].clone()).unwrap();
        let tables = |database: &operator::federation::topology::DatabaseTopology| {
            database.tables.iter().map(|(name, table)| (name.clone(), table.endpoints.clone())).collect()
        };
        let ours: BTreeMap<String, BTreeMap<String, BTreeSet<String>>> =
            topology.databases.iter().map(|(name, database)| (name.clone(), tables(database))).collect();
        assert_eq!(ours, theirs, "{case}");
        for hub in texts(&case["hub_databases"]) {
            let theirs: Vec<String> = texts(&expected["entity_group_statements"][&hub])
                .into_iter()
                .filter(|statement| !statement.starts_with(".drop"))
                .map(|statement| statement.replace(".create ", ".create-or-alter "))
                .collect();
            assert_eq!(unquoted(&topology, &hub, "entity_group"), theirs, "{case}");
        }
        for (database, theirs) in expected["function_statements_sorted"].as_object().unwrap() {
            assert_eq!(unquoted(&topology, database, "function"), texts(theirs), "{case}");
        }
    }
}

/// What a hub's empty database gets of a kind, in the reference's words.
fn unquoted(topology: &Topology, database: &str, kind: &str) -> Vec<String> {
    let all = statements(database, &HubDatabase::default(), topology);
    let of_kind = all.into_iter().filter(|statement| statement.split(' ').nth(1) == Some(kind));
    of_kind.map(|statement| statement.replace("with (skipvalidation=true) ", "").replace("['", "").replace("']", "")).collect()
}

#[test]
fn columns_as_partitions_declare_them() {
    let column = |name: &str, ty: &str| (name.to_owned(), ty.to_owned());
    assert_eq!(columns("['a']:string, ['b c']:long,d:real"), Some(vec![column("a", "string"), column("b c", "long"), column("d", "real")]));
    assert_eq!(columns(""), Some(Vec::new()));
    for text in ["['a']:text", "a", "['a']", "['a':long", "['a;b']:long", "['a']:long, ['a']:real", ":long", "['a']:long) .drop table T"] {
        assert_eq!(columns(text), None, "{text}");
    }
}

/// A hub's database that does what it is told. It reads commands by itself, with the parser of KQL for what is in them.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model(HubDatabase);

impl Model {
    fn run(&mut self, statements: &[String]) {
        for statement in statements {
            self.run_one(statement);
        }
    }

    fn run_one(&mut self, statement: &str) {
        assert!(!statement.contains('\n'), "{statement}");
        let after = |prefix: &str| statement.strip_prefix(prefix);
        if let Some(rest) = after(".create-or-alter entity_group ") {
            let (name, rest) = name(rest);
            let inner = rest.strip_prefix(" (").and_then(|rest| rest.strip_suffix(')')).unwrap();
            let entities = kql::binder::parse_entities(inner).unwrap();
            self.0.groups.insert(name, entities.into_iter().map(|entity| entity.text).collect());
        } else if let Some(rest) = after(".create-merge table ") {
            let (name, rest) = name(rest);
            let inner = rest.strip_prefix(" (").and_then(|rest| rest.strip_suffix(')')).unwrap();
            let table = self.0.tables.entry(name).or_default();
            for column in columns(inner).unwrap() {
                assert!(!table.iter().any(|(known, _)| *known == column.0), "{statement}");
                table.push(column);
            }
        } else if let Some(rest) = after(".create-or-alter function with (skipvalidation=true) ") {
            let (name, rest) = name(rest);
            let body = rest.strip_prefix("() ").unwrap();
            let parsed = kql::parse(body.trim_start_matches('{').trim_end_matches('}'));
            assert!(parsed.diagnostics.is_empty() && parsed.statements.len() == 1, "{body}: {:?}", parsed.diagnostics);
            self.0.functions.insert(name, body.to_owned());
        } else if let Some(rest) = after(".drop function ") {
            let (name, rest) = name(rest);
            assert_eq!(rest, " ifexists");
            assert!(self.0.functions.remove(&name).is_some());
        } else if let Some(rest) = after(".drop entity_group ") {
            let (name, rest) = name(rest);
            assert_eq!(rest, "");
            assert!(self.0.groups.remove(&name).is_some());
        } else {
            panic!("{statement}");
        }
    }
}

/// A quoted name at the beginning, and the rest.
fn name(text: &str) -> (String, &str) {
    let (name, rest) = text.strip_prefix("['").unwrap().split_once("']").unwrap();
    assert!(!name.contains(['\'', '\\']));
    (name.to_owned(), rest)
}

fn some_rows() -> impl Strategy<Value = Vec<Row>> {
    let name = || prop::sample::select(vec!["Logs", "Metrics", "My Db", "Ünï"]);
    let table = || prop::sample::select(vec!["Cpu", "Mem", "Ingestor Logs", "T-1", "V"]);
    let schema = (name(), prop::collection::btree_set(table(), 0..4), prop::collection::btree_set(table(), 0..2), any::<bool>());
    let database = schema.prop_map(|(database, tables, views, described)| {
        let declared = |table: &&str| (table.to_string(), format!("['{table} id']:long, ['Timestamp']:datetime"));
        let schemas: BTreeMap<String, String> = tables.iter().filter(|_| described).map(declared).collect();
        json!({"database": database, "tables": tables, "tableSchemas": schemas, "views": views})
    });
    let row = (prop::sample::select(vec!["https://a", "https://b", "http://c:8080"]), prop::collection::vec(database, 0..3));
    let row = row.prop_map(|(endpoint, schema)| Row { endpoint: endpoint.to_owned(), schema: json!(schema).to_string() });
    prop::collection::vec(row, 0..4)
}

proptest! {
    /// Whatever partitions come and go, the hub ends up as the last of them are, and then nothing is left to do; what others
    /// made stays.
    #[test]
    fn a_hub_becomes_what_its_partitions_are(rounds in prop::collection::vec(some_rows(), 1..5), hub in "Logs|Metrics|Hub") {
        let mut model = Model::default();
        model.0.functions.insert("mine".to_owned(), "{ print 1 }".to_owned());
        model.0.groups.insert("OtherSpoke".to_owned(), vec!["database('Here')".to_owned()]);
        let made_by_reference = "{ macro-expand isfuzzy=true best_effort=true LogsSpoke as X ( X.Old ) }";
        if hub == "Logs" {
            model.0.functions.insert("Old".to_owned(), made_by_reference.to_owned());
        }
        for rows in &rounds {
            let topology = Topology::new(rows);
            let before = model.clone();
            model.run(&statements(&hub, &model.0, &topology));
            prop_assert_eq!(statements(&hub, &model.0, &topology), Vec::<String>::new());
            if topology.partitions == 0 {
                prop_assert_eq!(&model, &before);
                continue;
            }
            let mut groups: BTreeMap<String, BTreeSet<String>> = BTreeMap::from([("OtherSpoke".to_owned(), BTreeSet::from(["database('Here')".to_owned()]))]);
            let mut functions = BTreeSet::from(["mine".to_owned()]);
            for row in rows {
                for schema in serde_json::from_str::<Vec<DatabaseSchema>>(&row.schema).unwrap() {
                    let entity = format!("cluster('{}').database('{}')", row.endpoint, schema.database);
                    groups.entry(format!("{}Spoke", schema.database)).or_default().insert(entity);
                    if schema.database == hub {
                        functions.extend(schema.tables.iter().chain(&schema.views).cloned());
                        for table in &schema.tables {
                            let known = &model.0.tables[table];
                            prop_assert!(known.iter().any(|(name, _)| name == "Timestamp"));
                        }
                    }
                }
            }
            let ours: BTreeMap<String, BTreeSet<String>> = model.0.groups.iter().map(|(name, all)| (name.clone(), all.iter().cloned().collect())).collect();
            prop_assert_eq!(ours, groups);
            prop_assert_eq!(model.0.functions.keys().cloned().collect::<BTreeSet<_>>(), functions);
        }
    }

    /// A partition may say anything: what a hub runs is still one command each, about that partition.
    #[test]
    fn no_heartbeat_becomes_another_command(endpoint in "https?://[a-z]{1,5}\\PC{0,12}|\\PC{0,20}", names in prop::collection::vec("\\PC{0,12}|[a-z'\\[\\]();|{}\"\\\\\n]{0,8}", 3)) {
        let schema = json!([{"database": names[0], "tables": [names[1]], "tableSchemas": {&names[1]: format!("['{}']:long", names[2])}, "views": [names[2]]}]);
        let topology = Topology::new(&[Row { endpoint, schema: schema.to_string() }]);
        let mut model = Model::default();
        model.run(&statements(&names[0], &HubDatabase::default(), &topology));
        prop_assert!(model.0.groups.len() <= 1 && model.0.functions.len() <= 2 && model.0.tables.len() <= 1);
    }

    #[test]
    fn no_script_is_too_long_and_none_loses_a_statement(statements in prop::collection::vec("[a-z]{1,40}", 0..30), longest in 70..200_usize) {
        let cut = scripts(&statements, longest);
        let all: Vec<String> = cut.iter().flatten().map(|piece| piece.trim_start_matches("//\n").trim_end().to_owned()).collect();
        prop_assert_eq!(&all, &statements);
        for script in &cut {
            let length = PREAMBLE.len() + script.iter().map(String::len).sum::<usize>();
            prop_assert!(length <= longest || script.len() == 1, "{:?}", script);
        }
        prop_assert_eq!(scripts(&statements, LONGEST_SCRIPT).len(), usize::from(!statements.is_empty()));
    }
}

type Answer = Result<Table, String>;
type Answers = dyn Fn(&Call) -> Option<Answer> + Send + Sync;

/// Clusters that answer as a test wants: nothing at all is a cluster that hangs.
struct Fake {
    answer: Box<Answers>,
    calls: Mutex<Vec<Call>>,
}

impl Fake {
    fn new(answer: impl Fn(&Call) -> Option<Answer> + Send + Sync + 'static) -> Fake {
        Fake { answer: Box::new(answer), calls: Mutex::default() }
    }

    /// What was asked of an endpoint with that beginning.
    fn asked(&self, endpoint: &str, text: &str) -> Vec<Call> {
        self.calls.lock().iter().filter(|call| call.endpoint == endpoint && call.text.starts_with(text)).cloned().collect()
    }
}

impl Kusto for Fake {
    fn ask(&self, call: Call) -> BoxFuture<'_, Result<Table, String>> {
        let answer = (self.answer)(&call);
        self.calls.lock().push(call);
        match answer {
            Some(answer) => std::future::ready(answer).boxed(),
            None => std::future::pending().boxed(),
        }
    }
}

fn table(columns: &[&str], rows: Value) -> Option<Answer> {
    let columns = columns.iter().map(|name| Column { name: (*name).to_owned(), ty: "string".to_owned() }).collect();
    Some(Ok(Table { name: String::new(), columns, rows: serde_json::from_value(rows).unwrap() }))
}

const SCHEMA: [&str; 4] = ["DatabaseName", "TableName", "ColumnName", "ColumnType"];

/// A partition of three databases, of which one hangs; hubs by their address.
fn partition_answer(call: &Call) -> Option<Answer> {
    match (call.endpoint.as_str(), call.database.as_str()) {
        ("https://good", _) if call.text.contains("top 1 by Timestamp") => {
            let before =
                json!([{"database": "Logs", "tables": ["Old"], "views": []}, {"database": "Hung", "tables": ["H"], "views": null}]);
            return table(&["Schema"], json!([[before.to_string()]]));
        }
        ("https://good", _) => return table(&["ExtentId"], json!([["e"]])),
        ("https://refuses", _) => return Some(Err("403: no".to_owned())),
        ("https://hangs", _) | (_, "Hung") => return None,
        _ => {}
    }
    let text = call.text.as_str();
    if text.starts_with(".show databases") {
        return table(&["DatabaseName"], json!([["NetDefaultDB"], ["Logs"], ["Hung"]]));
    }
    if text.starts_with(".show database [") {
        let rows = match call.database.as_str() {
            "Logs" => json!([
                ["Logs", "", "", ""],
                ["Logs", "T", "", ""],
                ["Logs", "T", "a", "System.String"],
                ["Logs", "T", "n", "System.Int64"]
            ]),
            _ => json!([[call.database, "", "", ""]]),
        };
        return table(&SCHEMA, rows);
    }
    if text.starts_with(".show functions") {
        let rows = if call.database == "Logs" { json!([["View"], ["f"], ["broken"]]) } else { json!([]) };
        return table(&["Name"], rows);
    }
    match text {
        _ if text.contains("['View']") => table(&["FunctionKind"], json!([["ViewFunction"]])),
        _ if text.contains("['f']") => table(&["FunctionKind"], json!([["Unknown"]])),
        _ => Some(Err("it does not bind".to_owned())),
    }
}

fn federation(targets: &[&str]) -> Federation {
    let target = |endpoint: &&str| json!({"endpoint": endpoint, "heartbeatDatabase": "Hub", "heartbeatTable": "Beats", "managedIdentityClientId": "id-1"});
    serde_json::from_value(json!({
        "federatedTargets": targets.iter().map(target).collect::<Vec<_>>(), "partitioning": {"geo": "EU"},
        "heartbeatDatabase": "Hub", "heartbeatTable": "Beats", "heartbeatTTL": "1h",
    }))
    .unwrap()
}

const NOW: &str = "2024-05-01T10:00:00Z";

#[tokio::test(start_paused = true)]
async fn a_hub_that_hangs_does_not_keep_others_from_being_told() {
    let kusto = Fake::new(partition_answer);
    let targets = federation(&["https://hangs", "https://refuses", "https://good"]);
    let outcome = partition::tell(&kusto, "https://own", &targets, NOW.parse().unwrap()).await;
    assert_eq!(outcome.done, 1);
    let failures = outcome.failures.join("\n");
    for said in ["hub https://hangs: no answer", "hub https://refuses: 403", "database Hung: no answer", "broken (it does not bind)"] {
        assert!(failures.contains(said), "{said}: {failures}");
    }
    let sent = &kusto.asked("https://good", ".ingest")[0];
    assert_eq!((sent.database.as_str(), sent.identity.as_deref()), ("Hub", Some("id-1")));
    let row = ".ingest inline into table ['Beats'] <| 2024-05-01T10:00:00Z,https://own,";
    // the database that hangs is told as it was before
    let schema = r#"[{"database":"Logs","tables":["T"],"tableSchemas":{"T":"['a']:string, ['n']:long"},"views":["View"]},{"database":"Hung","tables":["H"],"views":[]}]"#;
    let cell = |text: String| format!("\"{}\"", text.replace('"', "\"\""));
    assert_eq!(sent.text, format!("{row}{},{}", cell(schema.to_owned()), cell("{\"geo\":\"EU\"}".to_owned())));
    assert_eq!(outcome.verdict(ClusterRole::Partition).reason, "HeartbeatPartlyFailed");
}

/// A hub with the databases Hub, Logs and Bad, which hangs; one partition has Logs and New.
fn hub_answer(call: &Call) -> Option<Answer> {
    let text = call.text.as_str();
    if call.database == "Bad" {
        return None;
    }
    if text.contains("arg_max(Timestamp, Schema)") {
        let schema = json!([{"database": "Logs", "tables": ["T"], "views": []}, {"database": "New", "tables": [], "views": []},
            {"database": "LOGS", "tables": [], "views": []}, {"database": "My Db", "tables": [], "views": []}]);
        return table(&["ClusterEndpoint", "Timestamp", "Schema"], json!([["https://a", NOW, schema], ["https://b", NOW, "no json"]]));
    }
    if text.starts_with(".show databases") {
        return table(&["DatabaseName"], json!([["Hub"], ["Logs"], ["Bad"], ["NetDefaultDB"]]));
    }
    if text.starts_with(".execute") {
        let rows = json!([
            ["1", "X", "//\n.create-or-alter …", "Completed", ""],
            ["2", "X", "//\n.create-merge table", "Failed", "too many tables"]
        ]);
        return table(&["OperationId", "CommandType", "CommandText", "Result", "Reason"], rows);
    }
    match text {
        _ if text.starts_with(".show database [") => table(&SCHEMA, json!([])),
        _ if text.starts_with(".show functions") => table(&["Name", "Body"], json!([])),
        _ if text.starts_with(".show entity_groups") => {
            table(&["Name", "Entities"], json!([["NewSpoke", "[\"cluster(\\\"https://a\\\").database(\\\"New\\\")\"]"]]))
        }
        _ => table(&[], json!([])),
    }
}

#[tokio::test(start_paused = true)]
async fn a_database_that_hangs_does_not_keep_others_from_what_they_need() {
    let kusto = Fake::new(hub_answer);
    for databases in [Databases::ByCommand, Databases::InAzure, Databases::ByHand] {
        kusto.calls.lock().clear();
        let hub = Hub { kusto: &kusto, endpoint: "https://hub", databases, now: NOW.parse().unwrap() };
        let outcome = federate(hub, &federation(&[])).await;
        assert_eq!(outcome.partitions, Some(1));
        let failures = outcome.failures.join("\n");
        for said in
            ["https://b: its schema cannot be read", "database Bad: no answer", "database Logs: .create-merge table: too many tables"]
        {
            assert!(failures.contains(said), "{said}: {failures}");
        }
        let by_command = databases == Databases::ByCommand;
        assert_eq!(failures.contains("database New is missing"), !by_command, "{failures}");
        assert_eq!(kusto.asked("https://hub", ".create database ['New']").len(), usize::from(by_command));
        // Azure makes what it can tell from what there is, and what it takes as a name
        let missing: &[&str] = if databases == Databases::InAzure { &["New"] } else { &[] };
        assert_eq!(outcome.missing, missing);
        if !by_command {
            for said in ["database LOGS is missing: make it in https://hub", "database My Db is missing: make it in https://hub"] {
                assert!(failures.contains(said), "{said}: {failures}");
            }
        }
        let read = kusto.calls.lock().iter().find(|call| call.text.contains("arg_max")).cloned().unwrap();
        assert_eq!(read.now, Some(NOW.parse().unwrap()));
        let script = kusto.asked("https://hub", PREAMBLE).into_iter().find(|call| call.database == "Logs").unwrap().text;
        // the group of New is there already, in the service's own writing
        assert!(script.contains("['LogsSpoke']") && script.contains("function") && !script.contains("['NewSpoke']"), "{script}");
        assert_eq!(outcome.verdict(ClusterRole::Federated).reason, "HubPartlyFailed");
    }
}

fn cluster(role: Option<&str>, generation: i64) -> AdxCluster {
    let mut spec = json!({"clusterName": "adx", "endpoint": "https://own", "databases": [], "federation": federation(&["https://good"])});
    if let Some(role) = role {
        spec["role"] = role.into();
    }
    let metadata = json!({"name": "adx", "namespace": "mon", "generation": generation});
    serde_json::from_value(json!({"apiVersion": "adx-mon.azure.com/v1", "kind": "ADXCluster", "metadata": metadata, "spec": spec})).unwrap()
}

/// The reason that is told, once there is one.
async fn settled(federations: &Federations, cluster: &AdxCluster) -> (&'static str, Duration) {
    loop {
        let (verdict, again) = federations.look("mon/adx", cluster, "https://own").unwrap();
        match (verdict, again) {
            (Some(verdict), Some(again)) if again > Duration::from_secs(3) => return (verdict.reason, again),
            (_, again) => tokio::time::sleep(again.unwrap()).await,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn rounds_come_every_ten_minutes_and_sooner_after_failures_and_changes() {
    let kusto = Arc::new(Fake::new(|call| if call.database == "Hung" { table(&SCHEMA, json!([])) } else { partition_answer(call) }));
    let federations = Federations::new(kusto.clone(), Arc::new(|| NOW.parse().unwrap()));
    assert!(federations.look("mon/adx", &cluster(None, 1), "https://own").is_none());
    let told = || kusto.asked("https://good", ".ingest").len();
    // a function that cannot be read is a failure
    let (reason, again) = settled(&federations, &cluster(Some("Partition"), 1)).await;
    assert_eq!((reason, told()), ("HeartbeatPartlyFailed", 1));
    assert!(again <= Duration::from_secs(60), "{again:?}");
    settled(&federations, &cluster(Some("Partition"), 1)).await;
    assert_eq!(told(), 1);
    tokio::time::sleep(again).await;
    let (_, again) = settled(&federations, &cluster(Some("Partition"), 1)).await;
    assert_eq!(told(), 2);
    // what stays broken is tried less and less often
    assert!(again > Duration::from_secs(60) && again <= Duration::from_secs(120), "{again:?}");
    // a new spec does not wait
    let (_, again) = settled(&federations, &cluster(Some("Partition"), 2)).await;
    assert_eq!(told(), 3);
    assert!(again <= Duration::from_secs(60), "{again:?}");
    let mut bare = cluster(Some("Federated"), 3);
    bare.spec.federation = None;
    let (verdict, again) = federations.look("mon/adx", &bare, "https://own").unwrap();
    assert_eq!((verdict.unwrap().reason, again), ("FederationInvalid", None));
    assert_eq!(FEDERATION, "FederationReady");
}

/// What a hub in Azure lacks is known to who makes it, until the cluster is looked at anew.
#[tokio::test(start_paused = true)]
async fn what_a_hub_lacks_is_told_to_who_makes_it() {
    let federations = Federations::new(Arc::new(Fake::new(hub_answer)), Arc::new(|| NOW.parse().unwrap()));
    let mut hub = cluster(Some("Federated"), 1);
    hub.spec.provision = Some(serde_json::from_value(json!({})).unwrap());
    assert_eq!(settled(&federations, &hub).await.0, "HubPartlyFailed");
    assert_eq!(federations.missing("mon/adx"), ["New"]);
    federations.forget("mon/adx");
    assert_eq!(federations.missing("mon/adx"), Vec::<String>::new());
}

#[test]
fn conditions_say_what_is_wrong() {
    let outcome = |partitions, done, failures: &[&str]| Outcome {
        partitions,
        done,
        failures: failures.iter().map(|f| (*f).to_owned()).collect(),
        ..Outcome::default()
    };
    for (outcome, role, reason, said) in [
        (outcome(None, 2, &[]), ClusterRole::Partition, "HeartbeatSent", "2 hubs"),
        (outcome(None, 0, &["hub x: no"]), ClusterRole::Partition, "HeartbeatFailed", "hub x"),
        (outcome(Some(3), 0, &[]), ClusterRole::Federated, "HubReady", "3 partitions"),
        (outcome(Some(0), 0, &[]), ClusterRole::Federated, "NoHeartbeats", "stays as it is"),
        (outcome(None, 0, &["503"]), ClusterRole::Federated, "HubFailed", "503"),
        (outcome(Some(1), 1, &["a"; 7]), ClusterRole::Federated, "HubPartlyFailed", "and 2 more"),
    ] {
        let verdict = outcome.verdict(role);
        assert_eq!(verdict.reason, reason);
        assert!(verdict.message.contains(said), "{}", verdict.message);
    }
}
