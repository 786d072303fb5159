//! What binding names, types and refuses.

use super::*;
use crate::catalog::{EmptyCatalog, StoredFunction, TableSchema};
use crate::diagnostic::DiagnosticKind;
use crate::tree::{JoinKind, RelOp};
use crate::types::Column;

/// A database with one table of samples, one of hosts, and the functions given.
struct Samples(Vec<StoredFunction>);

impl Catalog for Samples {
    fn table(&self, _database: Option<&str>, name: &str) -> Option<TableSchema> {
        self.tables(None, name).into_iter().next()
    }

    fn function(&self, _database: Option<&str>, name: &str) -> Option<StoredFunction> {
        self.0.iter().find(|f| f.name == name).cloned()
    }

    fn tables(&self, _database: Option<&str>, wildcard: &str) -> Vec<TableSchema> {
        let table = |name: &str, columns: &[(&str, Type)]| TableSchema {
            database: "Metrics".into(),
            name: name.into(),
            columns: columns.iter().map(|(name, ty)| Column::new(*name, *ty)).collect(),
        };
        let all = [
            table("Cpu", &[("Timestamp", Type::DateTime), ("SeriesId", Type::Long), ("Labels", Type::Dynamic), ("Value", Type::Real)]),
            table("CpuHosts", &[("host", Type::String), ("SeriesId", Type::Long), ("Value", Type::Long)]),
        ];
        all.into_iter().filter(|t| names::matches(wildcard, &t.name)).collect()
    }

    fn databases(&self) -> Vec<String> {
        vec!["Metrics".into()]
    }
}

fn options() -> BindOptions {
    BindOptions { now: 0, database: "Metrics".into(), ..BindOptions::default() }
}

fn bound(text: &str) -> Query {
    bind(text, &Samples(Vec::new()), &options()).unwrap_or_else(|e| panic!("{text}: {e:?}"))
}

/// Output columns as `name:type`.
fn columns(text: &str) -> String {
    let query = bound(text);
    let shown: Vec<String> = query.results[0].columns.iter().map(|c| format!("{}:{}", c.name, c.ty)).collect();
    shown.join(" ")
}

/// Output column names.
fn columns_named(text: &str) -> String {
    let query = bound(text);
    query.results[0].columns.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(" ")
}

/// The one diagnostic.
fn refused(text: &str) -> Diagnostic {
    match bind(text, &Samples(Vec::new()), &options()) {
        Ok(query) => panic!("{text} was accepted: {query:?}"),
        Err(mut all) => all.remove(0),
    }
}

#[test]
fn default_names() {
    for (text, names) in [
        ("print 1, x = 2, 3", "print_0 x print_2"),
        ("Cpu | project Value, Labels.a.b, tostring(Labels.pod), Value + 1", "Value Labels_a_b Labels_pod Column1"),
        ("Cpu | extend Value + 1, Value * 2", "Timestamp SeriesId Labels Value Column1 Column2"),
        ("Cpu | summarize count(), sum(Value), avg(Value) by bin(Timestamp, 1m)", "Timestamp count_ sum_Value avg_Value"),
        ("Cpu | summarize countif(Value > 1), countif(Value > 2)", "countif_ countif_1"),
        ("Cpu | summarize make_list(Value), make_set(Value)", "list_Value set_Value"),
        ("Cpu | summarize arg_max(Timestamp, *) by SeriesId", "SeriesId Timestamp Labels Value"),
        ("Cpu | summarize arg_max(Value, Timestamp), arg_min(Value, Timestamp)", "Value Timestamp Value1 Timestamp1"),
        ("Cpu | summarize take_any(Value)", "Value"),
        ("Cpu | summarize total = sum(Value) / count() by host = tostring(Labels.host)", "host total"),
        ("Cpu | count", "Count"),
        ("Cpu | distinct SeriesId", "SeriesId"),
        ("Cpu | make-series avg(Value) on Timestamp from datetime(2020) to now() step 1m by SeriesId", "SeriesId avg_Value Timestamp"),
        ("Cpu | top-nested 2 of SeriesId by sum(Value)", "SeriesId aggregated_SeriesId"),
        ("Cpu | getschema", "ColumnName ColumnOrdinal DataType ColumnType"),
    ] {
        assert_eq!(columns_named(text), names, "{text}");
    }
}

#[test]
fn types_follow_the_operators() {
    for (text, wanted) in [
        ("print a = 1, b = int(1), c = 1.5, d = 's', e = 1d, f = now()", "a:long b:int c:real d:string e:timespan f:datetime"),
        ("print a = int(1) + int(2), b = now() - 1d, c = now() - now()", "a:long b:datetime c:timespan"),
        ("print a = iff(true, 1, 2.0), b = dynamic([1])[0], c = int(null)", "a:real b:dynamic c:int"),
        ("range x from 1 to 5 step 1", "x:long"),
        ("range x from now() to now() step 1h", "x:datetime"),
        ("Cpu | project Labels.pod | getschema | project ColumnOrdinal", "ColumnOrdinal:int"),
        (
            "Cpu | parse tostring(Labels) with * 'a=' a:int ' ' b",
            "Timestamp:datetime SeriesId:long Labels:dynamic Value:real a:int b:string",
        ),
        ("Cpu | project Labels | mv-expand Labels to typeof(string)", "Labels:string"),
        ("print a = 1 | mv-expand with_itemindex=i x = dynamic([1])", "a:long x:dynamic i:long"),
    ] {
        assert_eq!(columns(text), wanted, "{text}");
    }
}

#[test]
fn project_family() {
    for (text, names) in [
        ("Cpu | project-away S*, Labels", "Timestamp Value"),
        ("Cpu | project-keep Value, Time*", "Timestamp Value"),
        ("Cpu | project-rename t = Timestamp", "t SeriesId Labels Value"),
        ("Cpu | project-reorder Value, *a*", "Value Timestamp Labels SeriesId"),
        ("Cpu | extend Value = 1, z = Value", "Timestamp SeriesId Labels Value z"),
        ("print where = 1, count = 2 | project by = where + count, ['a b'] = 1", "by a b"),
    ] {
        assert_eq!(columns_named(text), names, "{text}");
    }
}

#[test]
fn joins_number_the_names_that_collide() {
    let join = "Cpu | join kind=inner CpuHosts on SeriesId";
    assert_eq!(columns_named(join), "Timestamp SeriesId Labels Value host SeriesId1 Value1");
    assert_eq!(columns_named("Cpu | lookup CpuHosts on SeriesId"), "Timestamp SeriesId Labels Value host Value1");
    assert_eq!(columns_named("Cpu | join kind=rightanti CpuHosts on SeriesId"), "host SeriesId Value");
    let default = bound("Cpu | join CpuHosts on $left.SeriesId == $right.SeriesId");
    assert!(matches!(default.results[0].op, RelOp::Join { kind: JoinKind::InnerUnique, .. }));
    assert_eq!(refused("Cpu | join Nope on x").code, "SEM0100");
    assert_eq!(refused("Cpu | join CpuHosts on Labels").code, "SEM0100");
}

#[test]
fn unions_match_by_name_and_split_by_type() {
    let text = "union withsource=t Cpu, CpuHosts";
    assert_eq!(columns(text), "t:string Timestamp:datetime SeriesId:long Labels:dynamic Value_real:real host:string Value_long:long");
    assert_eq!(columns_named("union kind=inner Cpu*"), "SeriesId");
    assert_eq!(columns_named("union isfuzzy=true CpuHosts, Nope"), "host SeriesId Value");
}

#[test]
fn functions_are_inlined() {
    assert_eq!(columns_named("let f = (T: (Value: real), n: long = 2) { T | take n | project Value }; f(Cpu)"), "Value");
    assert_eq!(columns_named("let f = (x: long) { x * 2 }; CpuHosts | project y = f(Value)"), "y");
    assert_eq!(columns_named("let f = (x: string) { let u = toupper(x); u }; CpuHosts | project y = f(host)"), "y");
    let stored = StoredFunction {
        name: "latest".into(),
        parameters: "(T:(Timestamp:datetime), window:timespan=1m)".into(),
        body: "{ T | where Timestamp > now() - window | as Seen | order by Timestamp asc | extend p = prev(Value) }".into(),
        view: false,
    };
    let catalog = Samples(vec![stored]);
    let query = bind("Cpu | invoke latest(5m) | project p", &catalog, &options()).unwrap();
    assert_eq!(query.results[0].columns, [Column::new("p", Type::Real)]);
    let wrong = bind("CpuHosts | invoke latest()", &catalog, &options()).unwrap_err();
    assert!(wrong[0].message.contains("Timestamp"), "{wrong:?}");
    assert_eq!(wrong[0].span, 11..26);
}

#[test]
fn recursion_of_stored_functions_ends() {
    let forever = StoredFunction { name: "f".into(), parameters: "()".into(), body: "{ f() }".into(), view: false };
    let errors = bind("f()", &Samples(vec![forever]), &options()).unwrap_err();
    assert!(errors[0].message.contains("nested deeper"), "{errors:?}");
}

#[test]
fn doubling_lets_are_bounded() {
    let mut text = "let a0 = Cpu;".to_owned();
    for n in 1..40 {
        text.push_str(&format!("let a{n} = union a{0}, a{0};", n - 1));
    }
    text.push_str("a39");
    assert!(refused(&text).message.contains("operators"));
    let mut text = "let f0 = (x: long) { x };".to_owned();
    for n in 1..30 {
        text.push_str(&format!("let f{n} = (x: long) {{ f{0}(x) + f{0}(x) }};", n - 1));
    }
    text.push_str("CpuHosts | project f29(Value)");
    assert!(refused(&text).message.contains("too large"));
}

#[test]
fn query_parameters_are_literals() {
    let declare = "declare query_parameters(n: long = 3, name: string, at: datetime); print n, x = name, y = at";
    let mut with = options();
    with.parameters.insert("name".into(), "'a'".into());
    with.parameters.insert("at".into(), "datetime(2020-01-01)".into());
    let query = bind(declare, &EmptyCatalog, &with).unwrap();
    let types: Vec<Type> = query.results[0].columns.iter().map(|c| c.ty).collect();
    assert_eq!(types, [Type::Long, Type::String, Type::DateTime]);
    with.parameters.insert("at".into(), "nonsense | take 1".into());
    assert!(bind(declare, &EmptyCatalog, &with).is_err());
    assert!(refused(declare).message.contains("'name' has no value"));
}

#[test]
fn names_that_do_not_resolve_are_said_in_kustos_words() {
    for (text, code, message, place) in [
        ("Cpu | where x == 1", "SEM0100", "'where' operator: Failed to resolve column or scalar expression named 'x'", "x"),
        ("Nope | count", "SEM0100", "'count' operator: Failed to resolve table or column expression named 'Nope'", "Nope"),
        ("Nope", "SEM0100", "Failed to resolve table or column expression named 'Nope'", "Nope"),
        ("print nosuch(1)", "SEM0260", "Unknown function: 'nosuch'", "nosuch"),
        ("Cpu | project-away nope", "SEM0100", "'project-away' operator: Failed to resolve column named 'nope'", "nope"),
    ] {
        let diagnostic = refused(text);
        assert_eq!((diagnostic.code, diagnostic.message.as_str()), (code, message), "{text}");
        assert_eq!(&text[diagnostic.span.clone()], place, "{text}");
    }
}

#[test]
fn what_is_not_supported_is_named() {
    for (text, construct) in [
        ("Cpu | fork (count) (take 1)", "fork"),
        ("Cpu | facet by SeriesId", "facet"),
        ("externaldata(x: long)['http://x']", "externaldata"),
        ("Cpu | evaluate autocluster()", "autocluster"),
        ("Cpu | reduce by Labels", "reduce"),
        ("Cpu | make-graph a --> b", "make-graph"),
        ("find 'x'", "find"),
        ("declare pattern p = (a: string) { ('x') = { print 1 }; }; print 1", "pattern"),
    ] {
        let diagnostic = refused(text);
        assert_eq!(diagnostic.kind, DiagnosticKind::Unsupported, "{text}: {diagnostic:?}");
        assert!(diagnostic.message.contains(construct), "{text}: {}", diagnostic.message);
    }
}

#[test]
fn rules_of_kusto_are_kept() {
    for text in [
        "Cpu | extend p = prev(Value)",
        "Cpu | summarize Value",
        "Cpu | summarize sum(avg(Value))",
        "Cpu | where sum(Value) > 1",
        "Cpu | project a = 1, a = 2",
        "Cpu | where Timestamp",
        "Cpu | take Value",
        "Cpu | order by Labels",
        "Cpu | mv-expand Value",
        "print a = 1 b",
        "datatable(a: long, b: long)[1, 2, 3]",
        "range x from 1 to now() step 1",
        "let f = (x: long) { x }; print f()",
    ] {
        refused(text);
    }
}

#[test]
fn constants_are_folded_and_sub_queries_are_not() {
    let query = bound("print x = 1 + 2 * 3, y = toscalar(Cpu | summarize max(Value))");
    let RelOp::Project(_, exprs) = &query.results[0].op else { panic!("{query:?}") };
    assert!(matches!(exprs[0].kind, crate::tree::ExprKind::Const(Value::Long(7))));
    assert!(matches!(exprs[1].kind, crate::tree::ExprKind::ScalarSubquery(_)));
}

#[test]
fn rows_used_once_are_not_materialized() {
    let once = bound("Cpu | as A | take 1");
    assert!(!format!("{:?}", once.results).contains("Materialize"));
    let twice = bound("Cpu | as A | union A");
    assert!(format!("{:?}", twice.results).contains("Materialize"));
}

#[test]
fn render_becomes_json() {
    let query = bound("Cpu | render timechart with (title='x', ycolumns=Value)");
    let json: serde_json::Value = serde_json::from_str(&query.visualization.unwrap()).unwrap();
    assert_eq!(json["Visualization"], "timechart");
    assert_eq!(json["Title"], "x");
    assert_eq!(json["YColumns"][0], "Value");
}

#[test]
fn the_deepest_accepted_text_binds_on_a_small_stack() {
    let bodies = [
        |n: usize| format!("print {}1{}", "(".repeat(n), ")".repeat(n)),
        |n: usize| format!("print {}true{}", "not(".repeat(n), ")".repeat(n)),
        |n: usize| format!("CpuHosts | project x = 1{}", "+Value".repeat(n)),
        |n: usize| format!("Cpu{}", " | where Value > 1".repeat(n)),
        |n: usize| format!("print {}1{}", "toscalar(print ".repeat(n), ")".repeat(n)),
        |n: usize| format!("Cpu{}{}", " | join (Cpu".repeat(n), ") on SeriesId".repeat(n)),
    ];
    for body in bodies {
        // deeper and deeper until it is refused: it must come back every time
        let deepest = (1..).find(|n| bind(&body(n * 10), &Samples(Vec::new()), &options()).is_err()).unwrap_or(0) * 10;
        assert!(deepest > 30, "{} is refused", body(deepest));
    }
}
