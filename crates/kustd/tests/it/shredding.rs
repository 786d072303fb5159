//! Keys of log bodies that become columns when rows are sealed: the same answers before and after.

use std::path::Path;

use datafusion::parquet::file::reader::{FileReader as _, SerializedFileReader};
use serde_json::{Value, json};

use crate::harness::Kustd;

/// The body of row `n`: every tenth is text; of the objects, all have a message, some a level, few something rare.
fn body(n: u64) -> String {
    if n % 10 == 9 {
        return format!("\"text {n}\"");
    }
    let level = if n.is_multiple_of(2) { "warn" } else { "info" };
    let rare = if n.is_multiple_of(20) { format!(",\"rare\":{n}") } else { String::new() };
    format!("{{\"message\":\"request {n} \\u00e9\\n\",\"level\":\"{level}\",\"ctx\":{{\"id\":{n},\"level\":\"x\"}}{rare}}}")
}

fn csv(from: u64, to: u64) -> String {
    (from..to).map(|n| format!("2024-05-01T00:00:{:02}Z,{n},\"{}\"\n", n % 60, body(n).replace('"', "\"\""))).collect()
}

fn bodies(numbers: &[u64]) -> Vec<Value> {
    numbers.iter().map(|n| json!([*n, serde_json::from_str::<Value>(&body(*n)).unwrap()])).collect()
}

/// Queries over the first `rows` rows, a multiple of 20, with the answers that follow from [`body`].
async fn check(kustd: &Kustd, rows: u64, when: &str) {
    let message = |n: u64| format!("request {n} \u{e9}\n");
    let (texts, warnings, others) = (rows / 10, rows / 2, rows * 4 / 10);
    let cases = [
        ("Logs | where Body.message == 'request 7 \u{e9}\\n' | project n", vec![json!([7])]),
        ("Logs | where Body.level == 'warn' | count", vec![json!([warnings])]),
        (
            "Logs | summarize count() by level = tostring(Body.level) | order by level asc",
            vec![json!(["", texts]), json!(["info", others]), json!(["warn", warnings])],
        ),
        ("Logs | where isnull(Body.level) | summarize count(), countif(Body startswith 'text')", vec![json!([texts, texts])]),
        ("Logs | where n in (3, 9, 20) | order by n asc | project n, Body", bodies(&[3, 9, 20])),
        ("Logs | where Body.ctx.id == 20 | project n, tolong(Body.rare), tostring(Body.ctx.level)", vec![json!([20, 20, "x"])]),
        (
            "Logs | where Body.level == 'info' and n < 4 | order by n asc | project tostring(Body.message), n, Body.ctx",
            vec![json!([message(1), 1, {"id": 1, "level": "x"}]), json!([message(3), 3, {"id": 3, "level": "x"}])],
        ),
        ("Logs | project Body, n | where Body.level == 'warn' | summarize max(n)", vec![json!([rows - 2])]),
        ("Logs | top 1 by tolong(Body.ctx.id) desc | project n", vec![json!([rows - 2])]),
        ("Logs | where Body has '42' | project n", vec![json!([42])]),
        ("Logs | where Body.rare between (1 .. 50) | order by n asc | project n", vec![json!([20]), json!([40])]),
    ];
    for (query, expected) in cases {
        assert_eq!(kustd.query(query).await.rows(), expected, "{when}: {query}");
    }
}

/// Names of the columns of all extents.
fn stored_columns(folder: &Path) -> Vec<Vec<String>> {
    let extents = std::fs::read_dir(folder.join("extents/1")).unwrap();
    let columns = extents.map(|extent| {
        let reader = SerializedFileReader::new(std::fs::File::open(extent.unwrap().path()).unwrap()).unwrap();
        let schema = reader.metadata().file_metadata().schema().get_fields().to_vec();
        schema.iter().map(|field| field.name().to_owned()).collect()
    });
    columns.collect()
}

#[tokio::test]
async fn answers_are_the_same_before_and_after_keys_become_columns() {
    let folder = tempfile::tempdir().unwrap();
    let kustd = Kustd::start(folder.path()).await;
    kustd.done(".create table Logs (Timestamp:datetime, n:long, Body:dynamic)").await;
    // so many that they are no dictionary
    const ROWS: u64 = 10_000;
    kustd.ingest("Logs", "streamFormat=csv", csv(0, ROWS)).await;
    check(&kustd, ROWS, "in memory").await;
    kustd.stop().await;
    let kustd = Kustd::start_with(folder.path(), |options| options.seal_rows = ROWS).await;
    kustd.until(".show table Logs extents | summarize sum(RowCount)", json!([ROWS])).await;
    check(&kustd, ROWS, "sealed").await;
    let mut columns = stored_columns(folder.path());
    columns[0].sort_unstable();
    let all = ["$IngestionTime", "3.ctx", "3.level", "3.message", "Body", "Timestamp", "n"];
    assert_eq!(columns, [all], "'rare' is in one of twenty rows");
    kustd.ingest("Logs", "streamFormat=csv", csv(ROWS, ROWS + 20)).await;
    check(&kustd, ROWS + 20, "sealed, and in memory").await;
    kustd.stop().await;
    // few rows are a dictionary of documents, as all were before keys became columns
    let kustd = Kustd::start_with(folder.path(), |options| options.seal_rows = 1).await;
    kustd.until(".show table Logs extents | summarize sum(RowCount), count()", json!([ROWS + 20, 2])).await;
    check(&kustd, ROWS + 20, "with and without columns of keys").await;
    kustd.done(".rename column Logs.Body to Text").await;
    assert_eq!(kustd.query("Logs | where Text.level == 'warn' | count").await.rows(), [json!([(ROWS + 20) / 2])]);
    kustd.done(".drop column Logs.Text").await;
    assert_eq!(kustd.query("Logs | where n < 3 | project-away Timestamp | count").await.rows(), [json!([3])]);
    kustd.stop().await;
}
