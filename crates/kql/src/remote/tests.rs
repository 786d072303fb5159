//! A query over other clusters means what it means over the same tables here.

use std::collections::HashMap;

use proptest::prelude::*;

use crate::catalog::{Catalog, RemoteError, StoredFunction, TableSchema};
use crate::diagnostic::DiagnosticKind;
use crate::eval::EvalContext;
use crate::rows::{self, Row, Rows, RunContext, Tables};
use crate::tree::{Query, Rel, RelOp, Remote};
use crate::types::{Column, Type};
use crate::value::Value;
use crate::{BindOptions, Diagnostic, bind};

const NOW: i64 = 639_028_224_000_000_000;

/// Clusters `http://a` and `http://b` with a table each, which this cluster has as `A` and `B`; `http://gone` does not answer.
#[derive(Default)]
struct World {
    tables: HashMap<&'static str, Vec<Row>>,
    /// Set inside of a cluster: the only one that it knows.
    inside: Option<&'static str>,
}

fn columns() -> Vec<Column> {
    let columns = [
        ("t", Type::DateTime),
        ("d", Type::TimeSpan),
        ("n", Type::Long),
        ("i", Type::Int),
        ("x", Type::Real),
        ("s", Type::String),
        ("o'k", Type::Dynamic),
        ("b", Type::Bool),
    ];
    columns.into_iter().map(|(name, ty)| Column::new(name, ty)).collect()
}

impl World {
    fn options() -> BindOptions {
        BindOptions { now: NOW, database: "Db".into(), ..BindOptions::default() }
    }

    fn bind(&self, text: &str) -> Result<Query, Diagnostic> {
        bind(text, self, &Self::options()).map_err(|mut diagnostics| diagnostics.remove(0))
    }

    fn inside(&self, cluster: &str) -> Option<World> {
        let inside = match cluster {
            "http://a" => "A",
            "http://b" => "B",
            _ => return None,
        };
        Some(World { tables: self.tables.clone(), inside: Some(inside) })
    }

    /// The tree with the rows of other clusters in it.
    fn filled(&self, mut rel: Rel) -> Rel {
        if let RelOp::Remote(remote) = &rel.op {
            let rows = self.inside(&remote.cluster).unwrap().rows(&remote.query);
            assert_eq!(rows.columns, rel.columns, "{}", remote.query);
            return Rel { columns: rel.columns, op: RelOp::Values(rows.rows.into()) };
        }
        let inputs: Vec<Rel> = rows::inputs(&rel).into_iter().map(|input| self.filled(input.clone())).collect();
        match &mut rel.op {
            RelOp::Union(parts) => *parts = inputs,
            RelOp::Sort(input, _) => **input = inputs.into_iter().next().unwrap(),
            op => {
                for (slot, input) in super::input_of_mut(op).into_iter().zip(inputs) {
                    *slot = input;
                }
            }
        }
        if let RelOp::BestEffort { input, .. } = rel.op {
            return self.filled(*input);
        }
        rel
    }

    fn rows(&self, text: &str) -> Rows {
        let query = self.bind(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let rel = self.filled(query.results[0].clone());
        rows::run(&rel, &mut RunContext::new(self, EvalContext::new(NOW))).unwrap_or_else(|error| panic!("{text}: {error}"))
    }
}

impl Tables for World {
    fn scan(&self, _: &str, table: &str) -> Result<Rows, String> {
        let name = if table == "T" { self.inside.unwrap() } else { table };
        Ok(Rows::new(columns(), self.tables.get(name).cloned().unwrap_or_default()))
    }
}

impl Catalog for World {
    fn table(&self, _: Option<&str>, name: &str) -> Option<TableSchema> {
        let known = if self.inside.is_some() { name == "T" } else { matches!(name, "A" | "B") };
        known.then(|| TableSchema { database: "Db".into(), name: name.into(), columns: columns() })
    }

    fn function(&self, _: Option<&str>, name: &str) -> Option<StoredFunction> {
        // of the name of a table, which it reads
        let body = match name {
            "A" if self.inside.is_none() && self.tables.contains_key("hidden") => "{ A | take 0 }",
            "recent" if self.inside.is_some() => "{ T | where n > least }",
            _ => return None,
        };
        let parameters = if name == "recent" { "(least:long)" } else { "()" };
        Some(StoredFunction { name: name.into(), parameters: parameters.into(), body: body.into(), view: false })
    }

    fn tables(&self, _: Option<&str>, _: &str) -> Vec<TableSchema> {
        Vec::new()
    }

    fn databases(&self) -> Vec<String> {
        vec!["Db".into()]
    }

    fn entity_group(&self, name: &str) -> Result<Vec<String>, RemoteError> {
        let entity = |cluster| format!("cluster('http://{cluster}').database('Db')");
        match name {
            "Both" => Ok(vec![entity("a"), entity("b")]),
            "Three" => Ok(vec![entity("a"), entity("gone"), entity("b")]),
            "Gone" => Ok(vec![entity("gone")]),
            _ => Err(RemoteError::Refused("there is none".into())),
        }
    }

    fn cluster(&self, name: &str) -> Result<Option<String>, String> {
        match name {
            "http://evil" => Err("cluster 'http://evil' is not allowed".into()),
            _ => Ok(Some(name.to_owned())),
        }
    }

    fn remote_columns(&self, queries: &[Remote]) -> Vec<Result<Vec<Column>, RemoteError>> {
        let one = |query: &Remote| {
            let Some(inside) = self.inside(&query.cluster) else { return Err(RemoteError::Unavailable("no answer in 10 s".into())) };
            match inside.bind(&query.query) {
                Ok(bound) => Ok(bound.results[0].columns.clone()),
                Err(error) => Err(RemoteError::Refused(error.message)),
            }
        };
        queries.iter().map(one).collect()
    }
}

const T: &str = "cluster('http://a').database('Db').T";

/// The query that the other cluster gets, when it gets all of it.
fn sent(operators: &str) -> String {
    let query = World::default().bind(&format!("{T} {operators}")).unwrap_or_else(|error| panic!("{operators}: {error}"));
    match &query.results[0].op {
        RelOp::Remote(remote) => remote.query.clone(),
        other => panic!("{operators}: {other:?}"),
    }
}

/// What is sent binds to the tree that the same operators make of a table.
#[test]
fn operators_run_where_the_rows_are() {
    for operators in [
        "",
        "| where n == 7 and s has 'a\"b\\\\c' or not(b)",
        "| where t > ago(1h) and t between (datetime(2024-01-01) .. 1d) and d < 90s",
        "| where ['o\\'k'].pod in ('a', 'b') or ['o\\'k'].list[2] !in~ ('c') or s matches regex '^a.*$'",
        "| where s contains_cs 'a' and s !startswith 'b' and s has_any ('x', 'y') and s !hassuffix_cs 'z'",
        "| where x > -1.5 and x / 0.1 != real(inf) and isnan(x) == false and x == real(nan)",
        "| where i % 2 == 1 and -n < 3 and n !between (1 .. 3)",
        "| extend y = iff(b, 1, 2), z = case(n == 1, 'one', n == 2, 'two', 'many'), ts = bin(t, 5m)",
        "| extend j = dynamic({\"a\":[1,\"two\",null]}), g = guid(74be27de-1e4e-49d9-b579-fe0b331d3642), m = decimal(1.5)",
        "| extend q = strcat(s, '\\n', tostring(n)), u = coalesce(x, 0.0), r = long(null), e = datetime(null)",
        "| project n, renamed = s, twice = n * 2",
        "| project-away b, d | project-rename other = s | project-reorder other",
        "| summarize count(), sum(x), countif(n > 3), dcount(s), percentile(x, 95), make_list(s, 10) by s, bin(t, 1h)",
        "| summarize total = sum(n)",
        "| distinct s, n | take 5",
        "| count",
        "| where n > 1 | extend k = n + 1 | where k < 9 | summarize count() by k | where count_ > 1 | take 3",
    ] {
        let text = sent(operators);
        let inside = World { inside: Some("A"), ..World::default() };
        let there = inside.bind(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let here = inside.bind(&format!("T {operators}")).unwrap();
        let ours = format!("{:?}", here.results[0]).replace("Count(", "Summarized(");
        match operators {
            // said in another way
            "| count" | "| distinct s, n | take 5" => assert_eq!(there.results[0].columns, here.results[0].columns, "{text}"),
            _ => assert_eq!(format!("{:?}", there.results[0]), ours, "{text}"),
        }
    }
    assert_eq!(sent("| where n > 1"), "['T'] | where (['n'] > long(1))");
}

#[test]
fn what_has_no_text_runs_here_over_what_is_left() {
    let query = World::default().bind(&format!("{T} | where n > 1 | order by n asc | extend p = prev(n)")).unwrap();
    let text = format!("{:?}", query.results[0]);
    assert!(text.starts_with("Rel") && text.contains("Window") && text.contains("['T'] | where (['n'] > long(1))\""), "{text}");
}

#[test]
fn functions_of_other_clusters_get_their_arguments() {
    assert_eq!(sent_by("cluster('http://a').database('Db').recent(1 + 2)"), "['recent'](long(3))");
    assert_eq!(sent_by("macro-expand entity_group [cluster('http://a').database('Db')] as X (X.recent(5))"), "['recent'](long(5))");
}

fn sent_by(text: &str) -> String {
    let query = World::default().bind(text).unwrap();
    let mut rel = &query.results[0];
    while let Some(input) = rows::inputs(rel).first() {
        rel = input;
    }
    match &rel.op {
        RelOp::Remote(remote) => remote.query.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn forms_of_macro_expand() {
    let world = world(vec![row(1, "a"), row(2, "b")], vec![row(3, "c")]);
    let group = "entity_group [cluster('http://a').database('Db'), cluster('http://b').database('Db')]";
    for text in [
        format!("macro-expand {group} as X (X.T)"),
        format!("macro-expand kind=inner isfuzzy=true best_effort=true {group} as X (X.T)"),
        format!("let G = {group}; macro-expand G as X (let Least = 0; X.T | where n > Least)"),
        "macro-expand Both as X (X.T)".to_owned(),
        "macro-expand X in Both (X.T)".to_owned(),
        "macro-expand isfuzzy=true Three as X (X.T)".to_owned(),
        "macro-expand best_effort=true Three as X (X.T)".to_owned(),
        "macro-expand entity_group [cluster('http://a').database('Db').T, cluster('http://b').database('Db').T] as X (X)".to_owned(),
        "let f = () { macro-expand Both as X (X.T | extend c = X.$current_cluster_endpoint | where c startswith 'http') }; f | project-away c"
            .to_owned(),
    ] {
        let numbers: Vec<Value> = world.rows(&format!("{text} | project n")).rows.into_iter().map(|mut row| row.remove(0)).collect();
        assert_eq!(numbers, [1, 2, 3].map(Value::Long), "{text}");
    }
    let nested = "macro-expand Both as X (macro-expand Both as Y (X.T | join kind=inner (Y.T) on s))";
    assert!(world.bind(nested).is_ok());
}

#[test]
fn what_cannot_be_resolved_fails_the_query_unless_it_is_fuzzy() {
    let world = World::default();
    for (text, kind, said) in [
        ("macro-expand Three as X (X.T)", DiagnosticKind::Unavailable, "cluster('http://gone').database('Db')"),
        ("macro-expand isfuzzy=true Gone as X (X.T)", DiagnosticKind::Unavailable, "no answer in 10 s"),
        ("macro-expand Both as X (X.Missing)", DiagnosticKind::Semantic, "cluster 'http://a'"),
        ("macro-expand isfuzzy=true Both as X (X.Missing)", DiagnosticKind::Semantic, "no entity of the group"),
        ("macro-expand Nothing as X (X.T)", DiagnosticKind::Semantic, "entity group named 'Nothing'"),
        ("macro-expand Both as X (X)", DiagnosticKind::Semantic, "X.Table"),
        ("macro-expand Both as X (1)", DiagnosticKind::Semantic, "has to be a table"),
        ("macro-expand entity_group [A] as X (X)", DiagnosticKind::Unsupported, "neither a database"),
        ("macro-expand isfuzzy=2 Both as X (X.T)", DiagnosticKind::Unsupported, "isfuzzy"),
        ("cluster('http://evil').database('Db').T", DiagnosticKind::Semantic, "not allowed"),
        ("cluster('http://a').database('Db').Missing", DiagnosticKind::Semantic, "Missing"),
        ("A | macro-expand Both as X (X.T)", DiagnosticKind::Unsupported, "macro-expand"),
        ("macro-expand Both as X (X.T", DiagnosticKind::Syntax, "the end of the text"),
    ] {
        let error = world.bind(text).map(|query| panic!("{text}: {query:?}")).unwrap_err();
        assert_eq!(error.kind, kind, "{text}: {error}");
        assert!(error.message.contains(said), "{text}: {error}");
    }
}

/// Where nobody knows of groups, as in the lint of rules, that is no mistake of the query.
#[test]
fn a_group_may_be_unknown() {
    let errors = bind("macro-expand G as X (X.T)", &crate::EmptyCatalog, &World::options()).unwrap_err();
    assert_eq!(errors[0].kind, DiagnosticKind::Unavailable);
}

#[test]
fn a_function_hides_the_table_of_its_name_but_not_from_itself() {
    let mut world = world(vec![row(1, "a")], Vec::new());
    assert_eq!(world.rows("A").rows.len(), 1);
    world.tables.insert("hidden", Vec::new());
    assert_eq!(world.rows("A").rows.len(), 0);
    assert_eq!(world.rows("table('A')").rows.len(), 1);
}

fn world(a: Vec<Row>, b: Vec<Row>) -> World {
    World { tables: HashMap::from([("A", a), ("B", b)]), inside: None }
}

fn row(n: i64, s: &str) -> Row {
    let bag = crate::value::Dynamic::parse_json(&format!("{{\"pod\":\"{s}\"}}")).unwrap();
    vec![
        Value::DateTime(NOW - n * 36_000_000_000),
        Value::TimeSpan(n),
        Value::Long(n),
        Value::Int(i32::try_from(n % 3).unwrap()),
        if n % 5 == 0 { Value::Null } else { Value::Real(n as f64 / 4.0) },
        Value::string(s),
        Value::Dynamic(bag),
        Value::Bool(n % 2 == 0),
    ]
}

/// As text, in an order that does not depend on that of the rows.
fn sorted(rows: &Rows) -> Vec<String> {
    let mut texts: Vec<String> = rows.rows.iter().map(|row| format!("{row:?}")).collect();
    texts.sort();
    texts
}

fn some_rows() -> impl Strategy<Value = Vec<Row>> {
    prop::collection::vec((0..12i64, "[abc]{1,2}").prop_map(|(n, s)| row(n, &s)), 0..8)
}

fn operators() -> impl Strategy<Value = String> {
    let one = prop::sample::select(vec![
        "where n > 3",
        "where x < 2.0 or s has 'a'",
        "where ['o\\'k'].pod == 'b'",
        "extend n = n * 2, s = strcat(s, '!')",
        "project n, s, x, b, i, t, d, ['o\\'k']",
        "distinct n, s, x, b, i, t, d, ['o\\'k'] = tostring(['o\\'k'])",
        "summarize n = count(), x = sum(x), b = max(n) > 1, i = min(i), t = min(t), d = max(d), ['o\\'k'] = dynamic(1) by s",
        "summarize n = sum(n), s = tostring(countif(b == true)), x = max(x)",
        "summarize n = dcount(s), s = 'x', x = avg(x)",
        "order by n asc, s asc, x asc",
    ]);
    prop::collection::vec(one, 0..3).prop_map(|all| all.iter().map(|one| format!(" | {one}")).collect())
}

proptest! {
    /// The oracle is `union`, whose operators all run here.
    #[test]
    fn a_query_over_two_clusters_is_one_over_two_tables(a in some_rows(), b in some_rows(), operators in operators()) {
        let world = world(a, b);
        let there = format!("macro-expand isfuzzy=true best_effort=true Both as X (X.T){operators}");
        let here = format!("union A, B{operators}");
        if let Ok(bound) = world.bind(&here) {
            let (ours, theirs) = (world.rows(&here), world.rows(&there));
            prop_assert_eq!(&ours.columns, &bound.results[0].columns);
            prop_assert_eq!(&ours.columns, &theirs.columns);
            prop_assert_eq!(sorted(&ours), sorted(&theirs), "{}", operators);
            let (ours, theirs) = (world.rows(&format!("{here} | count")), world.rows(&format!("{there} | count")));
            prop_assert_eq!(ours.rows, theirs.rows);
        }
    }
}
