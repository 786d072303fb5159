//! Streaming ingestion: formats, mappings, bad input, limits, repeats.

use std::io::Write as _;

use serde_json::json;

use crate::harness::Kustd;

async fn with_table(folder: &std::path::Path) -> Kustd {
    let kustd = Kustd::start(folder).await;
    let columns = "t:datetime, n:long, r:real, s:string, d:dynamic, b:bool, g:guid, p:timespan, i:int";
    kustd.done(&format!(".create table T ({columns})")).await;
    kustd
}

#[tokio::test]
async fn csv_with_quotes_and_values_that_do_not_fit() {
    let folder = tempfile::tempdir().unwrap();
    let kustd = with_table(folder.path()).await;
    let body = "2024-05-01T10:00:00.1234567Z,7,1.5,\"a,\"\"b\"\"\nc\",\"{\"\"k\"\": 1}\",true,74be27de-1e4e-49d9-b579-fe0b331d3642,1.00:00:00,5\n\
                nonsense,x,NaN,,not json,,,,5000000000\n";
    assert_eq!(kustd.ingest("T", "streamFormat=Csv", body).await.rows()[0][0], 2);
    let rows = kustd.query("T").await.rows();
    let good = json!(["2024-05-01T10:00:00.1234567Z", 7, 1.5, "a,\"b\"\nc", {"k": 1}, true, "74be27de-1e4e-49d9-b579-fe0b331d3642", "1.00:00:00", 5]);
    assert_eq!(rows[0], good);
    assert_eq!(rows[1], json!([null, null, "NaN", "", "not json", null, null, null, null]));
    kustd.stop().await;
}

#[tokio::test]
async fn mappings_by_ordinal_and_by_path() {
    let folder = tempfile::tempdir().unwrap();
    let kustd = with_table(folder.path()).await;
    let csv = r#"[{"Column":"n","DataType":"long","Properties":{"Ordinal":"1"}},{"Column":"s","Properties":{"ConstValue":"const"}}]"#;
    kustd.done(&format!(".create table T ingestion csv mapping 'c' '{csv}'")).await;
    assert_eq!(kustd.ingest("T", "streamFormat=csv&mappingName=c", "skipped,3\n").await.status, 200);
    let paths = r#"[{"column":"n","Properties":{"Path":"$.a.b[1]"}},{"column":"d","Properties":{"Path":"$"}},{"column":"t","Properties":{"Path":"$.ms","Transform":"DateTimeFromUnixMilliseconds"}}]"#;
    kustd.done(&format!(".create table T ingestion json mapping 'j' '{paths}'")).await;
    let body = "{\"a\":{\"b\":[1,4]},\"ms\":1714557600000}\n\n{\"a\":{\"b\":[1,5]}}\n";
    assert_eq!(kustd.ingest("T", "streamFormat=json&mappingName=j", body).await.status, 200);
    let array = "[{\"n\":6,\"s\":\"by name\"},{\"n\":7}] {\"n\":8}";
    assert_eq!(kustd.ingest("T", "streamFormat=MultiJSON", array).await.rows()[0][0], 3);
    let rows = kustd.query("T | order by n asc | project n, s, t, d").await.rows();
    assert_eq!(rows[0], json!([3, "const", null, null]));
    assert_eq!(rows[1], json!([4, "", "2024-05-01T10:00:00Z", {"a": {"b": [1, 4]}, "ms": 1714557600000i64}]));
    assert_eq!(rows[3], json!([6, "by name", null, null]));
    assert_eq!(rows.len(), 6);
    let missing = kustd.ingest("T", "streamFormat=json&mappingName=none", "{}").await;
    assert!(missing.error(400).contains("'none'"));
    kustd.stop().await;
}

#[tokio::test]
async fn other_separators_and_gzip() {
    let folder = tempfile::tempdir().unwrap();
    let kustd = with_table(folder.path()).await;
    for (format, row) in [("tsv", ",\t1"), ("psv", ",|2"), ("scsv", ",;3"), ("sohsv", ",\u{1}4")] {
        assert_eq!(kustd.ingest("T", &format!("streamFormat={format}"), row).await.status, 200, "{format}");
    }
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(b",5\n").unwrap();
    let address = format!("{}/v1/rest/ingest/Metrics/T?streamFormat=csv", kustd.address);
    let request = kustd.client.post(address).header("Content-Encoding", "gzip").body(gzip.finish().unwrap());
    assert_eq!(kustd.send(request).await.status, 200);
    assert_eq!(kustd.query("T | summarize sum(n)").await.rows(), [json!([15])]);
    kustd.stop().await;
}

#[tokio::test]
async fn bad_bodies_are_refused_whole_with_their_place() {
    let folder = tempfile::tempdir().unwrap();
    let kustd = with_table(folder.path()).await;
    let open = kustd.ingest("T", "streamFormat=csv", ",1\n,2,3,\"open\n").await;
    assert!(open.error(400).contains("row 2: the quoted field"), "{}", open.text);
    let invalid = kustd.ingest("T", "streamFormat=csv", b",1\n,2,,\xff\n".to_vec()).await;
    assert!(invalid.error(400).contains("row 2, column 's'"), "{}", invalid.text);
    let json = kustd.ingest("T", "streamFormat=json", "{\"n\":1}\n{\"n\":}\n").await;
    assert!(json.error(400).contains("row 2"), "{}", json.text);
    let deep = "[".repeat(100_000);
    assert_eq!(kustd.ingest("T", "streamFormat=multijson", deep.clone()).await.status, 400);
    assert_eq!(kustd.count("T").await, 0);
    // a deep value is kept as the text it is
    let deep = format!("{deep}{}", "]".repeat(100_000));
    assert_eq!(kustd.ingest("T", "streamFormat=csv", format!(",9,,,\"{deep}\"\n")).await.status, 200);
    assert_eq!(kustd.query("T | project strlen(tostring(d))").await.rows(), [json!([200_000])]);
    assert!(kustd.ingest("Nope", "streamFormat=csv", "1").await.error(400).contains("'Nope'"));
    assert!(kustd.ingest("T", "streamFormat=parquet", "1").await.error(400).contains("parquet"));
    let unknown = kustd.client.post(format!("{}/v1/rest/ingest/Nope/T", kustd.address)).body("1");
    assert!(kustd.send(unknown).await.error(400).contains("'Nope'"));
    kustd.stop().await;
}

#[tokio::test]
async fn bodies_over_the_limits_are_413() {
    let folder = tempfile::tempdir().unwrap();
    let kustd = with_table(folder.path()).await;
    assert_eq!(kustd.ingest("T", "streamFormat=csv", vec![b'1'; (20 << 20) + 1]).await.status, 413);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    for _ in 0..101 {
        gzip.write_all(&vec![b'1'; 1 << 20]).unwrap();
    }
    let address = format!("{}/v1/rest/ingest/Metrics/T?streamFormat=csv", kustd.address);
    let request = kustd.client.post(address).header("Content-Encoding", "gzip").body(gzip.finish().unwrap());
    assert_eq!(kustd.send(request).await.status, 413);
    kustd.stop().await;
}

#[tokio::test]
async fn too_much_in_memory_is_429_until_it_is_sealed() {
    let folder = tempfile::tempdir().unwrap();
    let kustd = Kustd::start_with(folder.path(), |options| options.memory_bytes = 1).await;
    kustd.done(".create table T (n:long)").await;
    let mut stored = 0;
    let refused = loop {
        let reply = kustd.ingest("T", "streamFormat=csv", "1\n").await;
        if reply.status != 200 {
            break reply;
        }
        stored += 1;
        assert!(stored < 10_000, "nothing was refused");
    };
    assert_eq!(refused.status, 429, "{}", refused.text);
    assert_eq!(refused.headers["retry-after"], "1");
    assert_eq!(refused.json()["error"]["@permanent"], false);
    // queries go on, and what was refused is not there
    assert_eq!(kustd.count("T").await, stored);
    kustd.until(".show table T extents | summarize sum(RowCount)", json!([stored])).await;
    assert_eq!(kustd.ingest("T", "streamFormat=csv", "1\n").await.status, 200);
    kustd.stop().await;
}

#[tokio::test]
async fn a_repeated_batch_stores_nothing_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let kustd = with_table(folder.path()).await;
    kustd.done(".create table U (t:datetime, n:long)").await;
    for _ in 0..2 {
        assert_eq!(kustd.ingest_batch("T", "00ff", ",1\n,2\n").await.status, 200);
    }
    // another table is another batch
    assert_eq!(kustd.ingest_batch("U", "00ff", ",1\n").await.status, 200);
    assert_eq!((kustd.count("T").await, kustd.count("U").await), (2, 1));
    kustd.stop().await;
    let kustd = Kustd::start(folder.path()).await;
    assert_eq!(kustd.ingest_batch("T", "00ff", ",1\n,2\n").await.status, 200);
    assert_eq!(kustd.count("T").await, 2);
    assert_eq!(kustd.ingest_batch("T", "xyz", ",1\n").await.status, 400);
    kustd.stop().await;
}
