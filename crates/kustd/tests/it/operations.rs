//! Asynchronous commands: their ids, their ends, restarts, and windows that are sent twice.

use serde_json::{Value, json};

use crate::harness::Kustd;
use crate::storage::copy_tree;

/// A query that is still at work when the test is done with it.
const LONG: &str = "range x from 1 to 1000000000000 step 1 | summarize sum(x)";

/// What adx-mon asks for each operation that it follows.
fn follow(id: &str) -> String {
    format!(
        ".show operations | where OperationId == \"{id}\" | summarize arg_max(LastUpdatedOn, OperationId, State, ShouldRetry, Status) \
         | project LastUpdatedOn, OperationId = tostring(OperationId), State, ShouldRetry = todouble(ShouldRetry), Status"
    )
}

async fn submit(kustd: &Kustd, command: &str) -> String {
    let reply = kustd.command(command).await;
    assert_eq!(reply.columns(), ["OperationId"]);
    let rows = reply.rows();
    assert_eq!(rows.len(), 1);
    rows[0][0].as_str().unwrap().to_owned()
}

/// The last four columns of [`follow`], once the operation has ended.
async fn end_of(kustd: &Kustd, id: &str) -> Value {
    for _ in 0..600 {
        let rows = kustd.done(&follow(id)).await;
        if rows[0][2] != "InProgress" {
            return rows[0].as_array().unwrap()[1..].to_vec().into();
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("operation {id} does not end");
}

#[tokio::test]
async fn a_rollup_window_as_summary_rules_send_it() {
    let folder = tempfile::tempdir().unwrap();
    let kustd = Kustd::start(folder.path()).await;
    kustd.done(".create table Cpu (Timestamp:datetime, Value:real)").await;
    kustd.done(".ingest inline into table Cpu <| 2024-05-01T00:10:00Z,1\n2024-05-01T00:20:00Z,3\n2024-05-01T01:10:00Z,5").await;
    let command = ".set-or-append async Hourly with (extend_schema=true) <| let _startTime=datetime(2024-05-01T00:00:00Z);\n\
                   let _endTime=datetime(2024-05-01T00:59:59.9999999Z);\nlet _region=\"eastus\";\n\
                   Cpu | where Timestamp between (_startTime .. _endTime) | summarize Value = avg(Value) by Hour = bin(Timestamp, 1h), Region = _region";
    let id = submit(&kustd, command).await;
    assert_eq!(end_of(&kustd, &id).await, json!([id, "Completed", 0.0, ""]));
    assert_eq!(kustd.query("Hourly").await.rows(), [json!(["2024-05-01T00:00:00Z", "eastus", 2.0])]);
    let shown = kustd.command(&format!(".show operations {id}")).await;
    assert_eq!(shown.columns()[..8], ["OperationId", "Operation", "NodeId", "StartedOn", "LastUpdatedOn", "Duration", "State", "Status"]);
    assert_eq!((shown.rows().len(), shown.rows()[0][1].as_str()), (1, Some("TableSetOrAppend")));
    // a later window has a column more
    let id = submit(&kustd, ".set-or-append async Hourly with (extend_schema=true) <| Cpu | summarize Value = max(Value), Samples = count() by Hour = bin(Timestamp, 1h), Region = ''").await;
    assert_eq!(end_of(&kustd, &id).await[1], "Completed");
    assert_eq!(
        kustd.query("Hourly | getschema | summarize make_list(ColumnName)").await.rows(),
        [json!([["Hour", "Region", "Value", "Samples"]])]
    );
    kustd.stop().await;
}

#[tokio::test]
async fn a_window_that_is_sent_twice_is_stored_once() {
    let folder = tempfile::tempdir().unwrap();
    let kustd = Kustd::start(folder.path()).await;
    let window = |name: &str| {
        format!(".set-or-append async R with (tags='[\"ingest-by:{name}\"]', ingestIfNotExists='[\"{name}\"]') <| print w = '{name}'")
    };
    for name in ["a", "b", "a", "a"] {
        let id = submit(&kustd, &window(name)).await;
        assert_eq!(end_of(&kustd, &id).await[1], "Completed");
    }
    assert_eq!(kustd.query("R | summarize count() by w | order by w asc").await.rows(), [json!(["a", 1]), json!(["b", 1])]);
    // and at the same time, and when the caller waits
    let command = window("c").replace("async ", "");
    let (first, second) = tokio::join!(kustd.command(&command), kustd.command(&command));
    assert_eq!(first.rows().len() + second.rows().len(), 1, "one of them stored something");
    assert_eq!(kustd.query("R | where w == 'c' | count").await.rows(), [json!([1])]);
    kustd.stop().await;
    let kustd = Kustd::start(folder.path()).await;
    kustd.done(&command).await;
    assert_eq!(kustd.count("R").await, 3);
    kustd.stop().await;
}

#[tokio::test]
async fn operations_of_a_kill_have_all_rows_or_none() {
    let (folder, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let kustd = Kustd::start(folder.path()).await;
    let done = submit(&kustd, ".set-or-append async Done <| range x from 1 to 10 step 1").await;
    assert_eq!(end_of(&kustd, &done).await[1], "Completed");
    let running = submit(&kustd, &format!(".set-or-append async Running <| {LONG}")).await;
    assert_eq!(kustd.done(&follow(&running)).await[0][2], "InProgress");
    // the files as they are now are what a kill would leave
    copy_tree(folder.path(), copy.path());
    kustd.stop().await;
    let after = Kustd::start(copy.path()).await;
    assert_eq!(end_of(&after, &done).await, json!([done, "Completed", 0.0, ""]));
    assert_eq!(after.count("Done").await, 10);
    let end = end_of(&after, &running).await;
    assert_eq!((end[1].as_str(), end[2].as_f64()), (Some("Failed"), Some(1.0)), "{end}");
    assert!(end[3].as_str().unwrap().contains("none of its rows are stored"));
    assert!(!after.done(".show tables | project TableName").await.contains(&json!(["Running"])));
    after.stop().await;
    // an orderly end says the same
    let kustd = Kustd::start(folder.path()).await;
    assert_eq!(end_of(&kustd, &running).await[2], 1.0);
    kustd.stop().await;
}

#[tokio::test]
async fn failures_say_why_and_whether_to_try_again() {
    let folder = tempfile::tempdir().unwrap();
    let kustd = Kustd::start(folder.path()).await;
    kustd.done(".create table T (x:long)").await;
    // what can be seen at once is answered at once, with its place
    let refused = kustd.command(".set-or-append async T <| Nope | take 1").await;
    assert!(refused.error(400).contains("SEM0100"), "{}", refused.text);
    assert!(kustd.command(".append async Missing <| print x = 1").await.error(400).contains("'Missing'"));
    assert!(kustd.command(".set-or-append async T <| .drop table T").await.error(400).contains("'.show'"));
    assert_eq!(kustd.done(".show operations | where Operation == 'TableSetOrAppend' and State == 'InProgress'").await.len(), 0);
    let id = submit(&kustd, ".set-or-append async T <| print x = 'text'").await;
    let end = end_of(&kustd, &id).await;
    assert_eq!((end[1].as_str(), end[2].as_f64()), (Some("Failed"), Some(0.0)), "{end}");
    assert!(end[3].as_str().unwrap().contains("of type string"), "{end}");
    assert_eq!(kustd.count("T").await, 0);
    assert!(kustd.command(".show operations nonsense").await.error(400).contains("no guid"));
    kustd.stop().await;
}

#[tokio::test]
async fn too_many_at_a_time_are_throttled() {
    let folder = tempfile::tempdir().unwrap();
    let kustd = Kustd::start(folder.path()).await;
    let command = format!(".set-or-append async T <| {LONG}");
    for _ in 0..102 {
        submit(&kustd, &command).await;
    }
    let id = submit(&kustd, &command).await;
    let end = end_of(&kustd, &id).await;
    assert_eq!((end[1].as_str(), end[2].as_f64()), (Some("Throttled"), Some(1.0)));
    // others are answered meanwhile
    assert_eq!(kustd.query("print 1").await.rows(), [json!([1])]);
    kustd.stop().await;
}

#[tokio::test]
async fn properties_are_known_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let kustd = Kustd::start(folder.path()).await;
    kustd.done(".set-or-append T with (distributed=true, folder='f', docstring='d') <| print x = 1").await;
    assert_eq!(kustd.done(".show tables | project Folder, DocString").await, [json!(["f", "d"])]);
    let refused = kustd.command(".set-or-append T with (creationTime='2020-01-01') <| print x = 1").await.error(400);
    assert!(refused.contains("'creationtime'") && refused.contains("ingestifnotexists"), "{refused}");
    assert!(kustd.command(".set-or-append T with (tags='drop-by:a') <| print x = 1").await.error(400).contains("JSON array"));
    assert!(kustd.command(".ingest inline into table T with (zipPattern='x') <| 1").await.error(400).contains("'zippattern'"));
    assert_eq!(kustd.count("T").await, 1);
    kustd.stop().await;
}

#[tokio::test]
async fn what_the_ingestor_measures_about_itself() {
    let folder = tempfile::tempdir().unwrap();
    let kustd = Kustd::start(folder.path()).await;
    kustd.done(".create tables Cpu (SeriesId:long, Labels:dynamic), Mem (SeriesId:long, Labels:dynamic)").await;
    kustd.done(".ingest inline into table Cpu <| 1,\"{}\"\n2,\"{}\"\n2,\"{}\"").await;
    kustd.done(".ingest inline into table Mem <| 7,\"{}\"").await;
    let function = ".create-or-alter function CountCardinality () { union withsource=table * \
                    | summarize Value = toreal(dcount(SeriesId)) by table \
                    | extend SeriesId = hash_xxhash64(table), Timestamp = bin(now(), 1m), Labels = bag_pack_columns(table) \
                    | project Timestamp, SeriesId, Labels, Value }";
    kustd.done(function).await;
    let id = submit(&kustd, ".set-or-append async AdxmonIngestorTableCardinalityCount <| CountCardinality").await;
    assert_eq!(end_of(&kustd, &id).await[1], "Completed");
    let counts = "AdxmonIngestorTableCardinalityCount | project tostring(Labels.table), Value | order by Labels_table asc";
    assert_eq!(kustd.query(counts).await.rows(), [json!(["Cpu", 2.0]), json!(["Mem", 1.0])]);
    let details = ".set-or-append async AdxmonIngestorTableDetails <| .show tables details | extend PreciseTimeStamp = now() | project \
                   PreciseTimeStamp, DatabaseName, TableName, TotalExtents, TotalExtentSize, TotalOriginalSize, TotalRowCount, HotExtents, \
                   HotExtentSize, HotOriginalSize, HotRowCount, RetentionPolicy, CachingPolicy, ShardingPolicy, MergePolicy, \
                   IngestionBatchingPolicy, MinExtentsCreationTime, MaxExtentsCreationTime, TableId";
    let id = submit(&kustd, details).await;
    assert_eq!(end_of(&kustd, &id).await[1], "Completed");
    let rows = "AdxmonIngestorTableDetails | where TableName in ('Cpu', 'Mem') | project TableName, TotalRowCount | order by TableName asc";
    assert_eq!(kustd.query(rows).await.rows(), [json!(["Cpu", 3]), json!(["Mem", 1])]);
    kustd.stop().await;
}
