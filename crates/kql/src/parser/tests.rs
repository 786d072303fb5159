//! What the parser accepts, refuses and where it points.

use super::*;

fn accepts(text: &str) {
    let parsed = parse(text);
    assert!(parsed.diagnostics.is_empty(), "{text}: {:?}", parsed.diagnostics);
}

/// The one diagnostic of a text, as (start, end, message).
fn refuses(text: &str) -> (usize, usize, String) {
    let parsed = parse(text);
    assert_eq!(parsed.diagnostics.len(), 1, "{text}: {:?}", parsed.diagnostics);
    let first = &parsed.diagnostics[0];
    (first.span.start, first.span.end, first.message.clone())
}

#[test]
fn statements_and_operators() {
    for text in [
        "",
        "T",
        "T;;",
        "set notruncation; T | take 5",
        "let a = 1; let f = (x: long, T: (*)) { T | where y > x }; f(a, T)",
        "let v = view () { T }; v",
        "declare query_parameters(a: string, b: long = 5); T | where x == a",
        "T | where a !in~ ('x', \"y\") and not(b has_any ('c')) or c !between (1 .. 5)",
        "T | summarize hint.strategy=shuffle count(), x = avg(y) by bin(t, 5m), z",
        "T | join kind=leftanti hint.remote=left (U | project a) on a, $left.b == $right.c",
        "T | mv-expand with_itemindex=i a = b to typeof(long), c limit 5",
        "T | make-series avg(a) default=0 on t from ago(1d) to now() step 1h by b, c",
        "T | make-series n = count() on t in range(1, 5, 1)",
        "T | partition hint.strategy=shuffle by h (as S | order by t asc | extend p = prev(v))",
        "T | parse kind=regex flags=Ui s with * 'a=' a:long ', b=' b *",
        "union withsource=src kind=outer A*, (B | take 1), database('d').C",
        "search in (T, U) 'x' and (a:'y' or b == 5)",
        "T | scan with_match_id=m declare (x: long = 0) with (step s1 output=none: a > 1 => x = a; step s2: true;)",
        "T | top-nested 3 of a with others='o' by sum(b) desc, top-nested of c by max(d)",
        "T | evaluate pivot(a, sum(b)) : (*, x: long)",
        "T | render timechart with (title='x', ycolumns=a, b)",
        "T | project ['a b'], d['x'].y[0], [\"from\"]",
        "T | extend where = 1, count = 2, by = 3 | project where, count, by",
        "T | project-away a*, *b, c | project-reorder z*, a desc, *",
        "print x = -1, datetime(2020-01-01) - 1d, dynamic({'a': [1, 2]}).a[0]",
        "range x from 1 to 10 step 1 | where x in ((range y from 1 to 3 step 1))",
    ] {
        accepts(text);
    }
}

#[test]
fn diagnostics_have_places() {
    assert_eq!(refuses("T | where"), (9, 9, "expected expression, found the end of the text".into()));
    assert_eq!(refuses("T | frobnicate x"), (4, 14, "'frobnicate' is not an operator".into()));
    assert_eq!(refuses("T | where (a"), (12, 12, "expected ')', found the end of the text".into()));
    assert_eq!(refuses("print datetime(x)").0, 6);
}

#[test]
fn an_error_leaves_the_other_statements() {
    let parsed = parse("let a = ; let b = 1; print b");
    assert_eq!(parsed.statements.len(), 2);
    assert_eq!(parsed.diagnostics.len(), 1);
}

#[test]
fn precedence() {
    fn show(expr: &Expr) -> String {
        match &expr.kind {
            ExprKind::Binary(op, a, b) => format!("({} {op} {})", show(a), show(b)),
            ExprKind::Unary(op, a) => format!("({op} {})", show(a)),
            ExprKind::Name(name) => name.clone(),
            other => format!("{other:?}"),
        }
    }
    for (text, tree) in [
        ("a or b and c", "(a or (b and c))"),
        ("a + b * c - d", "((a + (b * c)) - d)"),
        ("a == b + c", "(a == (b + c))"),
        ("a + b has c", "(a + (b has c))"),
        ("-a * b", "((neg a) * b)"),
        ("a < b == c", "((a < b) == c)"),
    ] {
        let parsed = parse(text);
        let Statement::Query(expr) = &parsed.statements[0] else { panic!("{text}") };
        assert_eq!(show(expr), tree, "{text}");
    }
}

#[test]
fn deep_input_is_an_error() {
    for text in [
        "(".repeat(100_000),
        format!("print {}1", "-".repeat(100_000)),
        format!("print 1{}", "+1".repeat(100_000)),
        format!("print x{}", ".a".repeat(100_000)),
        format!("print {}", "f(".repeat(100_000)),
        format!("print {}", "int(".repeat(100_000)),
        format!("T{}", " | take 1".repeat(100_000)),
        format!("print dynamic({})", "[".repeat(100_000)),
        "T | where a in (".repeat(100_000),
        "let f = () {".repeat(100_000),
        "T | mv-apply x on (".repeat(100_000),
    ] {
        assert!(!parse(&text).diagnostics.is_empty(), "{}", &text[..40]);
    }
}

#[test]
fn long_logical_chains_are_fine() {
    accepts(&format!("T | where a == 0{}", " or a == 1".repeat(20_000)));
}
