//! Update policies: what comes to a table also goes to others, at once and once.

use serde_json::json;

use crate::harness::Kustd;
use crate::storage::copy_tree;

fn policy(source: &str, query: &str, transactional: bool) -> String {
    format!(
        "@'[{{\"IsEnabled\":true,\"Source\":\"{source}\",\"Query\":\"{query}\",\"IsTransactional\":{transactional},\"PropagateIngestionProperties\":false}}]'"
    )
}

/// A table of raw rows, and one with a label as a column.
async fn lifting(folder: &std::path::Path) -> Kustd {
    let kustd = Kustd::start(folder).await;
    kustd
        .done(".create tables Raw (Timestamp:datetime, Labels:dynamic, Value:real), Lifted (Timestamp:datetime, Host:string, Value:real)")
        .await;
    let lift = ".create-or-alter function Lift () { Raw | where isnotempty(Labels.host) | project Timestamp, Host = tostring(Labels.host), Value }";
    kustd.done(lift).await;
    kustd.done(&format!(".alter table Lifted policy update {}", policy("Raw", "Lift()", true))).await;
    kustd
}

const ROWS: &str = "2024-05-01T00:00:00Z,\"{\"\"host\"\":\"\"a\"\"}\",1\n2024-05-01T00:00:01Z,\"{}\",2\n";

#[tokio::test]
async fn every_way_in_feeds_the_targets() {
    let folder = tempfile::tempdir().unwrap();
    let kustd = lifting(folder.path()).await;
    assert_eq!(kustd.ingest("Raw", "streamFormat=csv", ROWS).await.status, 200);
    kustd.done(&format!(".ingest inline into table Raw <| {ROWS}")).await;
    kustd.done(".set-or-append Raw <| print Timestamp = datetime(2024-05-01), Labels = dynamic({'host':'b'}), Value = 3.0").await;
    // each run sees the new rows alone: no row comes twice
    let lifted = kustd.query("Lifted | summarize count(), sum(Value) by Host | order by Host asc").await.rows();
    assert_eq!(lifted, [json!(["a", 2, 2.0]), json!(["b", 1, 3.0])]);
    assert_eq!(kustd.count("Raw").await, 5);
    let shown = kustd.done(".show table Lifted policy update | project PolicyName, todynamic(Policy)[0].Source").await;
    assert_eq!(shown, [json!(["UpdatePolicy", "Raw"])]);
    kustd.done(".delete table Lifted policy update").await;
    kustd.done(&format!(".ingest inline into table Raw <| {ROWS}")).await;
    assert_eq!(kustd.count("Lifted").await, 3);
    kustd.stop().await;
}

#[tokio::test]
async fn source_and_targets_survive_a_kill_together_and_once() {
    let (folder, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let kustd = lifting(folder.path()).await;
    for n in 0..10 {
        assert_eq!(kustd.ingest_batch("Raw", &format!("{n:04x}"), ROWS).await.status, 200);
    }
    // the files as they are now are what a kill would leave
    copy_tree(folder.path(), copy.path());
    kustd.stop().await;
    let after = Kustd::start(copy.path()).await;
    assert_eq!((after.count("Raw").await, after.count("Lifted").await), (20, 10));
    assert_eq!(after.ingest_batch("Raw", "0003", ROWS).await.status, 200);
    assert_eq!((after.count("Raw").await, after.count("Lifted").await), (20, 10), "a repeat feeds nothing");
    after.stop().await;
}

#[tokio::test]
async fn sealing_one_of_the_tables_leaves_the_other_in_the_journal() {
    let folder = tempfile::tempdir().unwrap();
    let kustd = Kustd::start_with(folder.path(), |options| options.seal_rows = 2).await;
    kustd.done(".create tables Raw (x:long), Odd (x:long)").await;
    kustd.done(&format!(".alter table Odd policy update {}", policy("Raw", "Raw | where x % 2 == 1", true))).await;
    assert_eq!(kustd.ingest("Raw", "streamFormat=csv", "1\n2\n").await.status, 200);
    kustd.until(".show table Raw extents | summarize sum(RowCount)", json!([2])).await;
    assert_eq!(kustd.done(".show table Odd extents").await.len(), 0);
    kustd.stop().await;
    let kustd = Kustd::start(folder.path()).await;
    assert_eq!((kustd.count("Raw").await, kustd.count("Odd").await), (2, 1));
    kustd.stop().await;
}

#[tokio::test]
async fn a_transactional_policy_fails_the_ingestion_and_another_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let kustd = Kustd::start(folder.path()).await;
    kustd.done(".create tables S (x:long), T (x:long), Skipped (x:long)").await;
    let failing = "S | where x !in (Skipped)";
    kustd.done(&format!(".alter table T policy update {}", policy("S", failing, true))).await;
    assert_eq!(kustd.ingest("S", "streamFormat=csv", "1\n").await.status, 200);
    // what the query needs is gone
    kustd.done(".drop table Skipped").await;
    for reply in [kustd.ingest("S", "streamFormat=csv", "10\n").await, kustd.command(".set-or-append S <| print x = 11").await] {
        let error = reply.error(400);
        assert!(error.contains("'T' over 'S'") && error.contains("'Skipped'"), "{error}");
    }
    assert_eq!((kustd.count("S").await, kustd.count("T").await), (1, 1));
    kustd.done(".create table Skipped (x:long)").await;
    kustd.done(&format!(".alter table T policy update {}", policy("S", failing, false))).await;
    kustd.done(".drop table Skipped").await;
    assert_eq!(kustd.ingest("S", "streamFormat=csv", "10\n").await.status, 200);
    assert_eq!((kustd.count("S").await, kustd.count("T").await), (2, 1));
    kustd.stop().await;
}

#[tokio::test]
async fn chains_are_followed_and_circles_refused() {
    let folder = tempfile::tempdir().unwrap();
    let kustd = Kustd::start(folder.path()).await;
    kustd.done(".create tables A (x:long), B (x:long), C (x:long)").await;
    kustd.done(&format!(".alter table B policy update {}", policy("A", "A | project x = x * 2", true))).await;
    // a target of a target; it sees all of A and the new rows of B
    kustd.done(&format!(".alter table C policy update {}", policy("B", "B | extend x = x + 1", true))).await;
    for (table, source) in [("A", "C"), ("A", "B"), ("A", "A")] {
        let refused = kustd.command(&format!(".alter table {table} policy update {}", policy(source, source, true))).await;
        assert!(refused.error(400).contains("round for ever"), "{table} from {source}: {}", refused.text);
    }
    kustd.done(".ingest inline into table A <| 1\n2").await;
    kustd.done(".ingest inline into table A <| 3").await;
    assert_eq!(kustd.query("C | order by x asc").await.rows(), [json!([3]), json!([5]), json!([7])]);
    kustd.stop().await;
}

#[tokio::test]
async fn policies_that_cannot_work_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let kustd = Kustd::start(folder.path()).await;
    kustd.done(".create tables S (x:long), T (x:long, y:string)").await;
    for (policy, why) in [
        (policy("S", "S", true), "its query gives (x:long), the table has (x:long, y:string)"),
        (policy("S", "S | extend y = z", true), "'z'"),
        (policy("Missing", "S | extend y = ''", true), "'Missing'"),
        ("'{\"Source\":\"S\"}'".to_owned(), "array"),
        ("'[{\"Source\":\"S\",\"Query\":\"S\",\"Color\":1}]'".to_owned(), "Color"),
    ] {
        let refused = kustd.command(&format!(".alter table T policy update {policy}")).await;
        assert!(refused.error(400).contains(why), "{policy}: {}", refused.text);
    }
    assert_eq!(kustd.done(".show table T policy update | project Policy").await, [json!(["null"])]);
    kustd.stop().await;
}

#[tokio::test]
async fn tags_go_along_when_the_policy_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let kustd = Kustd::start(folder.path()).await;
    kustd.done(".create tables S (x:long), T (x:long), U (x:long)").await;
    for (table, propagate) in [("T", "true"), ("U", "false")] {
        let policy = policy("S", "S", true).replace("Properties\":false", &format!("Properties\":{propagate}"));
        kustd.done(&format!(".alter table {table} policy update {policy}")).await;
    }
    let command = ".set-or-append S with (tags='[\"ingest-by:a\"]', ingestIfNotExists='[\"a\"]') <| print x = 1";
    kustd.done(command).await;
    kustd.done(command).await;
    assert_eq!(kustd.query("union withsource=t S, T, U | summarize count() by t | order by t asc").await.rows().len(), 3);
    let tags = kustd.done(".show extents | project TableName, Tags | order by TableName asc").await;
    assert_eq!(tags, [json!(["S", "ingest-by:a"]), json!(["T", "ingest-by:a"]), json!(["U", ""])]);
    kustd.stop().await;
}
