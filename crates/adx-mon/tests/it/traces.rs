//! `examples/traces/trace-tree.yaml`, created in kustd and run by its engine.

use serde_json::{Value, json};

use crate::functions::Kustd;

const EXAMPLE: &str = include_str!("../../../../examples/traces/trace-tree.yaml");

/// The command in the manifest, without the indentation that YAML takes away.
fn command() -> String {
    let (_, body) = EXAMPLE.split_once("  body: |\n").unwrap();
    body.lines().map(|line| line.strip_prefix("    ").unwrap_or(line)).collect::<Vec<_>>().join("\n")
}

/// A span: id, parent, name, second of its start and of its end.
type Span = (&'static str, &'static str, &'static str, u32, u32);

async fn kustd(spans: &[Span]) -> Kustd {
    let kustd = Kustd::start().await;
    let mgmt = "/v1/rest/mgmt";
    let columns = "TraceID:string, SpanID:string, ParentID:string, SpanName:string, SpanStatus:string, SpanKind:string, \
                   StartTime:datetime, EndTime:datetime, ResourceAttributes:dynamic, TraceAttributes:dynamic, Events:dynamic, Links:dynamic";
    kustd.rows(mgmt, &format!(".create table OTELTraces ({columns})")).await;
    let time = |second: &u32| format!("2024-01-02T03:04:{second:02}Z");
    let row = |(id, parent, name, start, end): &Span| {
        let (start, end) = (time(start), time(end));
        format!("t,{id},{parent},{name},STATUS_CODE_OK,SPAN_KIND_SERVER,{start},{end},\"{{\"\"service.name\"\":\"\"shop\"\"}}\",,,")
    };
    let mut rows: Vec<String> = spans.iter().map(row).collect();
    // Of another trace.
    rows.push(row(&("a", "", "elsewhere", 0, 1)).replacen("t,", "u,", 1));
    kustd.rows(mgmt, &format!(".ingest inline into table OTELTraces <|\n{}", rows.join("\n"))).await;
    kustd.rows(mgmt, &command()).await;
    kustd
}

async fn tree(spans: &[Span]) -> Value {
    kustd(spans).await.rows("/v1/rest/query", "trace_tree('t') | project Depth, Span, Problem, Path").await
}

#[tokio::test]
async fn a_trace_is_a_tree() {
    // Children before their parents, in the table and by the clock; siblings that start together; one that was sent twice.
    let spans = [
        ("e", "c", "sql 2", 30, 40),
        ("d", "c", "sql 1", 20, 25),
        ("b2", "a", "same time", 10, 20),
        ("b1", "a", "same time too", 10, 20),
        ("c", "a", "early", 5, 50),
        ("a", "", "GET /", 9, 59),
        ("d", "c", "sql 1", 20, 25),
    ];
    let wanted = json!([
        [0, "GET /", "", "GET /"],
        [1, "  early", "", "GET / > early"],
        [2, "    sql 1", "", "GET / > early > sql 1"],
        [2, "    sql 2", "", "GET / > early > sql 2"],
        [1, "  same time too", "", "GET / > same time too"],
        [1, "  same time", "", "GET / > same time"],
    ]);
    assert_eq!(tree(&spans).await, wanted);
}

#[tokio::test]
async fn spans_without_a_way_to_a_root_stand_at_the_root() {
    let spans = [
        ("a", "", "root", 0, 9),
        ("o", "gone", "orphan", 1, 2),
        ("p", "o", "of the orphan", 2, 3),
        ("s", "s", "own parent", 3, 4),
        ("x", "y", "cycle 1", 4, 5),
        ("y", "x", "cycle 2", 5, 6),
    ];
    let cycle = "in or below a cycle, or deeper than 32 levels";
    let wanted = json!([
        [0, "root", "", "root"],
        [0, "orphan", "the parent is missing", "orphan"],
        [1, "  of the orphan", "", "orphan > of the orphan"],
        [0, "own parent", cycle, "own parent"],
        [0, "cycle 1", cycle, "cycle 1"],
        [0, "cycle 2", cycle, "cycle 2"],
    ]);
    assert_eq!(tree(&spans).await, wanted);
}

#[tokio::test]
async fn what_the_tree_says_of_a_span() {
    let kustd = kustd(&[("a", "", "GET /", 1, 3)]).await;
    let row = kustd.rows("/v1/rest/query", "trace_tree('t') | project Duration, Service, SpanKind, SpanStatus, StartTime, SpanID").await;
    assert_eq!(row, json!([["00:00:02", "shop", "SPAN_KIND_SERVER", "STATUS_CODE_OK", "2024-01-02T03:04:01Z", "a"]]));
}
