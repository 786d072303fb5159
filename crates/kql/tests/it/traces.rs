//! `examples/traces/trace-tree.yaml`: a trace as a tree.

use kql::eval::EvalContext;
use kql::rows::{self, Rows, RunContext, Tables};
use kql::types::{Column, Type};
use kql::{BindOptions, Catalog, StoredFunction, TableSchema, Value, bind};

const EXAMPLE: &str = include_str!("../../../../examples/traces/trace-tree.yaml");

/// A span: id, parent, name, start and end in ticks.
type Span<'a> = (&'a str, &'a str, &'a str, i64, i64);

struct Traces(Vec<Vec<Value>>);

/// As `telemetry` makes the table.
fn columns() -> Vec<Column> {
    let text = ["TraceID", "SpanID", "ParentID", "SpanName", "SpanStatus", "SpanKind"].map(|name| (name, Type::String));
    let times = ["StartTime", "EndTime"].map(|name| (name, Type::DateTime));
    let dynamic = ["ResourceAttributes", "TraceAttributes", "Events", "Links"].map(|name| (name, Type::Dynamic));
    let columns = text.into_iter().chain(times).chain(dynamic);
    columns.map(|(name, ty)| Column { name: name.into(), ty }).collect()
}

impl Catalog for Traces {
    fn table(&self, _database: Option<&str>, name: &str) -> Option<TableSchema> {
        (name == "OTELTraces").then(|| TableSchema { database: "Traces".into(), name: name.into(), columns: columns() })
    }

    fn function(&self, _database: Option<&str>, name: &str) -> Option<StoredFunction> {
        let (_, text) = EXAMPLE.split_once(" trace_tree(traceId:string) ").unwrap();
        let parameters = "(traceId:string)".into();
        (name == "trace_tree").then(|| StoredFunction { name: name.into(), parameters, body: text.trim_end().into(), view: false })
    }

    fn tables(&self, _database: Option<&str>, _wildcard: &str) -> Vec<TableSchema> {
        Vec::new()
    }

    fn databases(&self) -> Vec<String> {
        vec!["Traces".into()]
    }
}

impl Tables for Traces {
    fn scan(&self, _database: &str, table: &str) -> Result<Rows, String> {
        assert_eq!(table, "OTELTraces");
        Ok(Rows::new(columns(), self.0.clone()))
    }
}

/// The tree of the trace `t`, a line for each span: name, problem and path.
fn tree(spans: &[Span<'_>]) -> Vec<String> {
    tree_of(spans.iter().map(|span| row("t", span)).collect(), "project strcat_delim('|', Depth, Span, Problem, Path)")
}

fn row(trace: &str, (id, parent, name, start, end): &Span<'_>) -> Vec<Value> {
    let text = [trace, id, parent, name, "STATUS_CODE_OK", "SPAN_KIND_SERVER"].map(|text| Value::String((*text).into()));
    let times = [start, end].map(|ticks| Value::DateTime(638_396_640_000_000_000 + ticks));
    text.into_iter().chain(times).chain([Value::Null, Value::Null, Value::Null, Value::Null]).collect()
}

fn tree_of(rows: Vec<Vec<Value>>, and_then: &str) -> Vec<String> {
    let traces = Traces(rows);
    let options = BindOptions { database: "Traces".into(), ..BindOptions::default() };
    let query = format!("trace_tree('t') | {and_then}");
    let bound = bind(&query, &traces, &options).unwrap_or_else(|errors| panic!("{errors:?}"));
    let mut context = RunContext::new(&traces, EvalContext::new(0));
    let rows = rows::run(&bound.results[0], &mut context).unwrap().rows;
    rows.iter().map(|row| row.iter().map(Value::to_text).collect::<Vec<_>>().join(",")).collect()
}

#[test]
fn spans_are_in_the_order_of_the_tree() {
    // Children before their parents, in the table and by the clock; siblings that start together; two roots.
    let spans = [
        ("e", "c", "sql 2", 30, 40),
        ("d", "c", "sql 1", 20, 25),
        ("b2", "a", "same time", 10, 20),
        ("b1", "a", "same time too", 10, 20),
        ("c", "a", "early", 5, 50),
        ("a", "", "GET /", 9, 60),
        ("z", "", "other root", 1, 2),
    ];
    let wanted = [
        "0|other root||other root",
        "0|GET /||GET /",
        "1|  early||GET / > early",
        "2|    sql 1||GET / > early > sql 1",
        "2|    sql 2||GET / > early > sql 2",
        "1|  same time too||GET / > same time too",
        "1|  same time||GET / > same time",
    ];
    assert_eq!(tree(&spans), wanted);
    let mut reversed = spans;
    reversed.reverse();
    assert_eq!(tree(&reversed), wanted);
}

#[test]
fn orphans_and_cycles_stand_at_the_root() {
    let spans = [
        ("a", "", "root", 0, 9),
        ("o", "gone", "orphan", 1, 2),
        ("p", "o", "of the orphan", 2, 3),
        ("s", "s", "own parent", 3, 4),
        ("x", "y", "cycle 1", 4, 5),
        ("y", "x", "cycle 2", 5, 6),
        ("w", "x", "below the cycle", 6, 7),
    ];
    let cycle = "in or below a cycle, or deeper than 32 levels";
    let wanted = [
        "0|root||root".to_owned(),
        "0|orphan|the parent is missing|orphan".to_owned(),
        "1|  of the orphan||orphan > of the orphan".to_owned(),
        format!("0|own parent|{cycle}|own parent"),
        format!("0|cycle 1|{cycle}|cycle 1"),
        format!("0|cycle 2|{cycle}|cycle 2"),
        format!("0|below the cycle|{cycle}|below the cycle"),
    ];
    assert_eq!(tree(&spans), wanted);
}

#[test]
fn a_chain_is_followed_for_32_levels() {
    let ids: Vec<String> = (0..34).map(|i| format!("s{i:02}")).collect();
    let parent = |i: usize| if i == 0 { "" } else { ids[i - 1].as_str() };
    let spans: Vec<Span<'_>> = (0..34).map(|i| (ids[i].as_str(), parent(i), ids[i].as_str(), i as i64, 99)).collect();
    let rows = tree(&spans);
    for (i, row) in rows.iter().take(32).enumerate() {
        assert_eq!(*row, format!("{i}|{}{}||{}", "  ".repeat(i), ids[i], ids[..=i].join(" > ")));
    }
    for (i, row) in rows.iter().enumerate().skip(32) {
        assert_eq!(*row, format!("0|{0}|in or below a cycle, or deeper than 32 levels|{0}", ids[i]));
    }
    assert_eq!(rows.len(), 34);
}

#[test]
fn each_span_of_the_trace_is_there_once() {
    let span = ("a", "", "root", 0, 15_000_000);
    let rows =
        vec![row("t", &span), row("t", &span), row("other", &("b", "a", "of another trace", 1, 2)), row("t", &("", "a", "no id", 1, 2))];
    assert_eq!(tree_of(rows, "project Span, Duration, SpanKind, ParentID"), ["root,00:00:01.5000000,SPAN_KIND_SERVER,"]);
    assert!(tree(&[]).is_empty());
}
