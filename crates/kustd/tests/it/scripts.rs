//! Scripts of commands, as Functions, ManagementCommands and the federation send them.

use serde_json::{Value, json};

use crate::harness::Kustd;

const ABORTED: &str = "Kusto.Common.Svc.Exceptions.AdminCommandExecuteScriptAbortedException";

#[tokio::test]
async fn every_command_is_a_row() {
    let folder = tempfile::tempdir().unwrap();
    let kustd = Kustd::start(folder.path()).await;
    // the documentation's example, and what the federation makes
    let script = ".execute database script with (ContinueOnErrors=true)\n<|\n//\n// Create tables\n.create-merge table T(a:string, b:string)\n\
                  //\n// Apply policies\n.alter-merge table T policy retention softdelete = 10d\n//\n// Create functions\n\
                  .create-or-alter function\n  with (skipvalidation = \"true\")\n  SampleT1(myLimit: long) {\n    T | take myLimit\n}\n\n\
                  .create-or-alter function\n  with (skipvalidation = \"true\")\n  SampleT2(myLimit: long) {\n    T | take myLimit\n}\n.show tables\n";
    let reply = kustd.command(script).await;
    assert_eq!(reply.columns(), ["OperationId", "CommandType", "CommandText", "Result", "Reason"]);
    let rows = reply.rows();
    let results: Vec<&str> = rows.iter().map(|row| row[3].as_str().unwrap()).collect();
    assert_eq!(results, ["Completed", "Completed", "Completed", "Completed", "Skipped"], "{rows:?}");
    assert_eq!(rows[1][2], ".alter-merge table T policy retention softdelete = 10d");
    assert!(rows[2][2].as_str().unwrap().ends_with("T | take myLimit\n}"), "{}", rows[2][2]);
    assert_eq!(kustd.query("SampleT2(5) | count").await.rows(), [json!([0])]);
    let operation = format!(".show operations {} | project Operation, State", rows[0][0].as_str().unwrap());
    assert_eq!(kustd.done(&operation).await, [json!(["TableCreate", "Completed"])]);
    kustd.stop().await;
}

#[tokio::test]
async fn errors_stop_a_script_or_are_passed_over_or_thrown() {
    let folder = tempfile::tempdir().unwrap();
    let kustd = Kustd::start(folder.path()).await;
    let script = |with: &str, n: u8| {
        format!(".execute database script {with} <|\n.create table A{n} (x:long)\n.drop table Nope\n.create table B{n} (x:long)\n")
    };
    let results = |rows: &[Value]| rows.iter().map(|row| row[3].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    let rows = kustd.done(&script("", 1)).await;
    assert_eq!(results(&rows), ["Completed", "Failed"]);
    assert!(rows[1][4].as_str().unwrap().contains("'Nope'"));
    assert_eq!(results(&kustd.done(&script("with (ContinueOnErrors=true)", 2)).await), ["Completed", "Failed", "Completed"]);
    let thrown = kustd.command(&script("with (ThrowOnErrors = true)", 3)).await;
    assert_eq!(thrown.status, 400);
    assert_eq!(thrown.json()["error"]["@type"], ABORTED);
    assert_eq!(thrown.json()["error"]["@permanent"], true);
    // what ran before stays
    let tables = kustd.done(".show tables | project TableName | order by TableName asc").await;
    assert_eq!(tables, [json!(["A1"]), json!(["A2"]), json!(["A3"]), json!(["B2"])]);
    let both = kustd.command(&script("with (ContinueOnErrors=true, ThrowOnErrors=true)", 4)).await;
    assert!(both.error(400).contains("ContinueOnErrors or ThrowOnErrors"));
    kustd.stop().await;
}

/// The reference's test for a function that waits for its table: the text behind the last `'. Details: '`.
fn is_missing_table(error: &Value) -> bool {
    let message = error["error"]["@message"].as_str().unwrap();
    let details = message.rsplit_once("'. Details: '").map_or("", |(_, details)| details);
    error["error"]["@type"] == ABORTED
        && details.contains("Semantic error: SEM0100:")
        && ["Failed to resolve table expression named", "Failed to resolve table or column expression named"]
            .iter()
            .any(|text| details.contains(text))
}

#[tokio::test]
async fn a_function_that_misses_its_table_is_told_from_one_that_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let kustd = Kustd::start(folder.path()).await;
    let create = |body: &str| format!(".execute database script with (ThrowOnErrors=true) <| .create-or-alter function F () {{ {body} }}");
    for body in ["Later | where Value > 1", "union Later, (print 1)", "G() | join (Later | take 1) on Value"] {
        kustd.done(".create-or-alter function G () { print Value = 1 }").await;
        let refused = kustd.command(&create(body)).await;
        assert_eq!(refused.status, 400, "{body}");
        assert!(is_missing_table(&refused.json()), "{body}: {}", refused.text);
    }
    let wrong = kustd.command(&create("print x = 1 | where y == 1")).await.json();
    assert_eq!(wrong["error"]["@type"], ABORTED);
    assert!(!is_missing_table(&wrong), "{wrong}");
    let syntax = kustd.command(&create("print x = ")).await.json();
    assert!(syntax["error"]["@message"].as_str().unwrap().contains("Syntax error"), "{syntax}");
    assert_eq!(kustd.done(".show functions | project Name").await, [json!(["G"])]);
    kustd.done(".create table Later (Value:real)").await;
    kustd.done(&create("Later | where Value > 1")).await;
    assert_eq!(kustd.query("F | count").await.rows(), [json!([0])]);
    kustd.stop().await;
}

#[tokio::test]
async fn functions_are_checked_as_far_as_their_arguments_are_known() {
    let folder = tempfile::tempdir().unwrap();
    let kustd = Kustd::start(folder.path()).await;
    for function in [
        "F (T:(x:long), n:long) { T | where x > n | take n }",
        "F (T:(*), column:string) { T | where column_ifexists(column, 0) > 1 }",
        "F (name:string) { table(name) }",
        "with (skipvalidation=true) F () { Nope }",
        "F () { union withsource=table * | summarize count() by table }",
    ] {
        kustd.done(&format!(".create-or-alter function {function}")).await;
    }
    let refused = kustd.command(".create-or-alter function\n  F (n:long) {\n  Nope | take n }").await;
    assert!(refused.error(400).contains("named 'Nope' [line:position=3:3]"), "{}", refused.text);
    assert!(kustd.command(".create-or-alter function F (T:(x:long)) { T | where y > 1 }").await.error(400).contains("'y'"));
    let unsupported = kustd.command(".create-or-alter function F () { print a = 1 | fork (count) (take 1) }").await;
    assert!(unsupported.error(400).contains("'fork' is not supported"), "{}", unsupported.text);
    kustd.stop().await;
}

#[tokio::test]
async fn cluster_scripts_are_about_the_cluster() {
    let folder = tempfile::tempdir().unwrap();
    let kustd = Kustd::start(folder.path()).await;
    let script = ".execute cluster script with (ThrowOnErrors = true) <|.alter cluster policy caching '{\"DataHotSpan\":\"3.00:00:00\"}'\n.create database D ifnotexists";
    assert_eq!(kustd.done(script).await.len(), 2);
    let shown = kustd.done(".show cluster policy caching | project Policy, EntityType").await;
    assert_eq!(shown, [json!([r#"{"DataHotSpan":"3.00:00:00"}"#, "Cluster"])]);
    let refused = kustd.command(".execute cluster script with (ThrowOnErrors=true) <| .create table T (x:long)").await;
    assert!(refused.error(400).contains(".execute database script"));
    for nested in [".execute database script <| .execute database script <| .show tables", ".execute database script <| print 1"] {
        assert_eq!(kustd.done(nested).await[0][3], "Failed", "{nested}");
    }
    kustd.stop().await;
    let kustd = Kustd::start(folder.path()).await;
    assert_eq!(kustd.done(".show cluster policy caching | project Policy").await, [json!([r#"{"DataHotSpan":"3.00:00:00"}"#])]);
    kustd.stop().await;
}

#[tokio::test]
async fn views_are_found_by_wildcards() {
    let folder = tempfile::tempdir().unwrap();
    let kustd = Kustd::start(folder.path()).await;
    kustd.done(".create tables Cpu (x:long), Mem (x:long)").await;
    kustd.done(".ingest inline into table Cpu <| 1").await;
    kustd.done(".create-or-alter function with (view=true) CpuView () { Cpu | project x = x + 10 }").await;
    kustd.done(".create-or-alter function CpuHidden () { Cpu }").await;
    // over everything, itself not included
    kustd.done(".create-or-alter function with (view=true) Everything () { union * | project x }").await;
    let found = kustd.query("union withsource=t Cpu* | project t, x | order by t asc").await.rows();
    assert_eq!(found, [json!(["Cpu", 1]), json!(["CpuView", 11])]);
    assert_eq!(kustd.query("union withsource=t * | summarize count() by t | order by t asc").await.rows().len(), 3);
    assert_eq!(kustd.query("search in (Cpu*) 11 | project x, ['$table']").await.rows(), [json!([11, "CpuView"])]);
    let kind = ".show function CpuView schema as json | project todynamic(Schema).FunctionKind";
    assert_eq!(kustd.done(kind).await, [json!(["ViewFunction"])]);
    assert!(kustd.command(".create-or-alter function with (view=true) V (n:long) { Cpu }").await.error(400).contains("view"));
    kustd.stop().await;
    let kustd = Kustd::start(folder.path()).await;
    assert_eq!(kustd.query("union withsource=t Cpu* | count").await.rows(), [json!([2])]);
    kustd.stop().await;
}
