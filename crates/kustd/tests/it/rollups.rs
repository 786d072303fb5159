//! What rollups and rules use, over rows in memory and in extents.

use serde_json::{Value, json};

use crate::harness::Kustd;

#[tokio::test]
async fn the_time_of_ingestion_is_there_for_who_asks() {
    let folder = tempfile::tempdir().unwrap();
    let kustd = Kustd::start_with(folder.path(), |options| options.seal_rows = 2).await;
    kustd.done(".create table T (n:long, s:string)").await;
    kustd.done(".create function F () { T | where n > 0 }").await;
    kustd.done(".ingest inline into table T <| 1,a\n2,b").await;
    kustd.until(".show table T extents | summarize sum(RowCount)", json!([2])).await;
    kustd.advance(3600);
    kustd.done(".ingest inline into table T <| 3,a").await;
    for source in ["T", "F", "T | extend n = n * 1", "(T | order by n asc)"] {
        let new = kustd.query(&format!("{source} | where ingestion_time() > ago(30m)")).await;
        assert_eq!(new.rows(), [json!([3, "a"])], "{source}");
        assert_eq!(new.columns(), ["n", "s"], "{source}");
    }
    let shown = kustd.query("T | project n, ingestion_time() | order by n asc").await;
    assert_eq!(shown.columns(), ["n", "$IngestionTime"]);
    let (early, late) = ("2024-05-01T00:00:00Z", "2024-05-01T01:00:00Z");
    assert_eq!(shown.rows(), [json!([1, early]), json!([2, early]), json!([3, late])]);
    let latest = "T | summarize arg_max(ingestion_time(), *) by s | project s, n | order by s asc";
    assert_eq!(kustd.query(latest).await.rows(), [json!(["a", 3]), json!(["b", 2])]);
    assert_eq!(
        kustd.query("T | summarize count() by t = bin(ingestion_time(), 1h) | order by t asc").await.rows(),
        [json!([early, 2]), json!([late, 1])]
    );
    assert_eq!(kustd.query("union T, (T | take 0) | where ingestion_time() < ago(30m) | count").await.rows(), [json!([2])]);
    // other rows have none
    assert_eq!(kustd.query("T | summarize n = count() | extend t = ingestion_time()").await.rows(), [json!([3, null])]);
    assert_eq!(kustd.query("print t = ingestion_time()").await.rows(), [json!([null])]);
    kustd.stop().await;
    let kustd = Kustd::start(folder.path()).await;
    assert_eq!(kustd.query(&format!("T | where ingestion_time() == datetime({late}) | project n")).await.rows(), [json!([3])]);
    kustd.stop().await;
}

#[tokio::test]
async fn the_service_can_be_asked_for_in_queries() {
    let folder = tempfile::tempdir().unwrap();
    let kustd = Kustd::start(folder.path()).await;
    let host = kustd.address.trim_start_matches("http://").to_owned();
    assert_eq!(kustd.query("print current_cluster_endpoint()").await.rows(), [json!([host])]);
    assert_eq!(kustd.query("print x = current_principal_is_member_of('aadgroup=a@b.c', 'aaduser=d')").await.rows(), [json!([false])]);
    assert_eq!(kustd.query("print current_principal_is_member_of()").await.status, 400);
    kustd.stop().await;
}

/// Expected values by the definitions: percentiles are nearest ranks, dcount of few values is exact.
#[tokio::test]
async fn aggregates_over_extents_and_memory() {
    let folder = tempfile::tempdir().unwrap();
    let kustd = Kustd::start_with(folder.path(), |options| options.seal_rows = 50).await;
    kustd.done(".create tables A (t:datetime, n:long, k:string), B (n:long)").await;
    let csv = |range: std::ops::RangeInclusive<u32>| {
        range.map(|n| format!("2024-05-01T00:{:02}:00Z,{n},k{}\n", n % 60, n % 4)).collect::<String>()
    };
    assert_eq!(kustd.ingest("A", "streamFormat=csv", csv(1..=60)).await.status, 200);
    kustd.until(".show table A extents | summarize sum(RowCount)", json!([60])).await;
    assert_eq!(kustd.ingest("A", "streamFormat=csv", csv(61..=100)).await.status, 200);
    assert_eq!(kustd.ingest("B", "streamFormat=csv", "7\n8\n").await.status, 200);
    let one = async |query: &str| kustd.query(query).await.rows();
    let none: [Value; 0] = [];
    assert_eq!(one("A | summarize percentile(n, 50), percentiles(n, 5, 95, 99)").await, [json!([50, 5, 95, 99])]);
    let names = kustd.query("A | summarize percentile(n, 50), percentiles(n, 5, 95)").await.columns();
    assert_eq!(names, ["percentile_n_50", "percentile_n_5", "percentile_n_95"]);
    assert_eq!(one("A | summarize dcount(n), dcount(k)").await, [json!([100, 4])]);
    assert_eq!(one("A | summarize arg_max(n, k), arg_min(n, *)").await[0].as_array().unwrap()[..2], [json!(100), json!("k0")]);
    assert_eq!(
        one("A | summarize arg_max(n, *) by k | project k, n | order by k asc").await,
        [json!(["k0", 100]), json!(["k1", 97]), json!(["k2", 98]), json!(["k3", 99])]
    );
    assert_eq!(
        one("union withsource=from A, B | summarize count(), max(n) by from | order by from asc").await,
        [json!(["A", 100, 100]), json!(["B", 2, 8])]
    );
    let shared =
        "let m = materialize(A | summarize n = sum(n) by k); m | extend share = n * 100 / toscalar(m | summarize sum(n)) | order by k asc";
    assert_eq!(one(shared).await, [json!(["k0", 1300, 25]), json!(["k1", 1225, 24]), json!(["k2", 1250, 24]), json!(["k3", 1275, 25])]);
    assert_eq!(one("A | where n > 1000 | summarize arg_max(n, k) by t").await, none);
    kustd.stop().await;
}
