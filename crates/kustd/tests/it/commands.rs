//! Management commands.

use serde_json::{Value, json};

use crate::harness::Kustd;

#[tokio::test]
async fn what_the_ingestor_sends_before_its_first_upload() {
    let folder = tempfile::tempdir().unwrap();
    let kustd = Kustd::start(folder.path()).await;
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/kusto/statements.json")).unwrap();
    let vectors: Value = serde_json::from_str(&text).unwrap();
    for case in vectors["ensure"].as_array().unwrap() {
        for statement in case["statements_in_order_each_sent_once"].as_array().unwrap() {
            let statement = statement.as_str().unwrap();
            assert_eq!(kustd.command(statement).await.status, 200, "{statement}");
        }
        let mapping =
            format!(".show table {} ingestion csv mapping '{}'", case["table"].as_str().unwrap(), case["mapping_name"].as_str().unwrap());
        assert_eq!(kustd.done(&mapping).await.len(), 1);
    }
    for statement in vectors["metrics_uploader_startup_statements_without_bodies"].as_array().unwrap() {
        let statement = statement.as_str().unwrap().replace(" Db ", " Metrics ");
        let statement = if statement.contains("function") { format!("{statement} {{ T }}") } else { statement };
        assert_eq!(kustd.command(&statement).await.status, 200, "{statement}");
    }
    let columns = kustd.done(".show table Cpu cslschema").await;
    assert_eq!(columns[0][1], "Timestamp:datetime,SeriesId:long,Labels:dynamic,Value:real,Host:string,Zone:string");
    assert_eq!(
        kustd.done(".show functions | project Name | order by Name asc").await,
        [json!(["prom_delta"]), json!(["prom_increase"]), json!(["prom_rate"])]
    );
    kustd.stop().await;
}

#[tokio::test]
async fn commands_go_on_with_query_operators() {
    let folder = tempfile::tempdir().unwrap();
    let kustd = Kustd::start(folder.path()).await;
    kustd.done(".create tables A (x:long), B (y:string)").await;
    assert_eq!(kustd.done(".show tables | where TableName == 'A' | count").await, [json!([1])]);
    assert_eq!(kustd.done(".show tables | project TableName | order by TableName asc").await, [json!(["A"]), json!(["B"])]);
    let error = kustd.command(".show tables | where Nope == 1").await;
    // the place is that in the whole text
    assert_eq!(error.json()["error"]["innererror"]["@pos"], 22);
    kustd.stop().await;
}

#[tokio::test]
async fn the_service_says_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let kustd = Kustd::start(folder.path()).await;
    let details = kustd.done(".show cluster details | project Name, IsAdmin").await;
    assert_eq!(details, [json!(["KustoPersonal", true])]);
    assert_eq!(kustd.done(".show version | project ServiceType").await, [json!(["kustd"])]);
    let databases = kustd.done(".show databases | project DatabaseName, IsCurrent | order by DatabaseName asc").await;
    assert_eq!(databases, [json!(["Metrics", true]), json!(["NetDefaultDB", false])]);
    kustd.stop().await;
}

#[tokio::test]
async fn columns_keep_their_rows_through_renames_and_drops() {
    let folder = tempfile::tempdir().unwrap();
    let kustd = Kustd::start(folder.path()).await;
    kustd.done(".create table T (a:long, b:string)").await;
    kustd.done(".ingest inline into table T <| 1,x\n2,y").await;
    kustd.done(".rename column T.a to n").await;
    kustd.done(".alter-merge table T (c:dynamic, s:string)").await;
    assert_eq!(kustd.query("T | order by n asc").await.rows(), [json!([1, "x", null, ""]), json!([2, "y", null, ""])]);
    kustd.done(".drop column T.b").await;
    kustd.done(".alter-merge table T (b:string)").await;
    // a column that comes back is a new one
    assert_eq!(kustd.query("T | where n == 1 | project b").await.rows(), [json!([""])]);
    kustd.done(".rename table T to U").await;
    assert_eq!(kustd.count("U").await, 2);
    assert!(kustd.command(".create-merge table U (n:string)").await.error(400).contains("of type long"));
    kustd.done(".drop table U").await;
    assert!(kustd.command(".drop table U").await.error(400).contains("'U'"));
    kustd.done(".drop table U ifexists").await;
    kustd.stop().await;
}

#[tokio::test]
async fn functions_are_stored_and_called() {
    let folder = tempfile::tempdir().unwrap();
    let kustd = Kustd::start(folder.path()).await;
    kustd.done(".create-or-alter function with (folder='f', docstring='d') twice (x:long=2) { print y = x * 2 }").await;
    assert_eq!(kustd.query("twice(21)").await.rows(), [json!([42])]);
    let shown = kustd.done(".show function twice schema as json | project todynamic(Schema).InputParameters[0].Name").await;
    assert_eq!(shown, [json!(["x"])]);
    assert!(kustd.command(".create function twice () { print 1 }").await.error(400).contains("already exists"));
    kustd.done(".create function ifnotexists twice () { print 1 }").await;
    kustd.done(".drop function twice").await;
    assert_eq!(kustd.done(".show functions").await.len(), 0);
    kustd.stop().await;
}

#[tokio::test]
async fn tables_from_queries() {
    let folder = tempfile::tempdir().unwrap();
    let kustd = Kustd::start(folder.path()).await;
    let filled = kustd.done(".set-or-append T <| range x from 1 to 10 step 1 | extend s = tostring(x), d = pack('k', x)").await;
    assert_eq!(filled[0][5], 10);
    kustd.done(".append T <| range x from 11 to 12 step 1 | extend s = '', d = dynamic(null)").await;
    assert_eq!(kustd.query("T | summarize count(), sum(x), max(tolong(d.k))").await.rows(), [json!([12, 78, 10])]);
    kustd.done(".set-or-replace T with (tags='[\"drop-by:a\"]') <| print x = 5, s = 'only', d = dynamic([])").await;
    assert_eq!(kustd.query("T").await.rows(), [json!([5, "only", []])]);
    assert_eq!(kustd.done(".show table T extents | project RowCount, Tags").await, [json!([1, "drop-by:a"])]);
    assert!(kustd.command(".set T <| print x = 1").await.error(400).contains("already exists"));
    assert!(kustd.command(".append T <| print x = 'text'").await.error(400).contains("of type string"));
    kustd.done(".clear table T data").await;
    assert_eq!(kustd.count("T").await, 0);
    let operations = kustd.done(".show operations | summarize count() by State | order by State asc").await;
    assert_eq!(operations.len(), 2);
    kustd.stop().await;
}

#[tokio::test]
async fn policies_are_stored_and_shown() {
    let folder = tempfile::tempdir().unwrap();
    let kustd = Kustd::start(folder.path()).await;
    kustd.done(".create table T (a:long)").await;
    kustd.done(".alter-merge table T policy retention softdelete = 7d recoverability = disabled").await;
    kustd.done(".alter-merge table T policy retention softdelete = 3d").await;
    let shown = kustd.done(".show table T policy retention | project Policy").await;
    assert_eq!(shown, [json!([r#"{"SoftDeletePeriod":"3.00:00:00","Recoverability":"Disabled"}"#])]);
    kustd.done(".alter database Metrics policy ingestionbatching '{\"MaximumBatchingTimeSpan\":\"00:00:30\"}'").await;
    assert!(kustd.command(".alter table T policy retention '{}'").await.error(400).contains("SoftDeletePeriod"));
    kustd.done(".delete table T policy retention").await;
    assert_eq!(kustd.done(".show table T policy retention | project Policy").await, [json!(["null"])]);
    kustd.done(".clear database cache query_results").await;
    kustd.stop().await;
}

#[tokio::test]
async fn bad_names_and_unknown_commands_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let kustd = Kustd::start(folder.path()).await;
    for text in
        [".create table ['a/b'] (x:long)", ".create table [''] (x:long)", ".create database ['../x']", ".create table T (x:nothing)"]
    {
        assert_eq!(kustd.command(text).await.status, 400, "{text}");
    }
    assert!(kustd.command(".export async to csv <| print 1").await.error(400).contains(".export"));
    let read_only = json!({"db": "Metrics", "csl": ".create table T (x:long)", "properties": {"Options": {"request_readonly": true}}});
    assert!(kustd.post("/v1/rest/mgmt", read_only).await.error(400).contains("read-only"));
    kustd.stop().await;
}
