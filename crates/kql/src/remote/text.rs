//! Text of typed expressions and operators: KQL that binds to the same tree again.

use crate::aggregates;
use crate::tree::{Aggregate, Expr, ExprKind, Rel, RelOp};
use crate::types::{Column, Type};
use crate::value::{Value, format_datetime, format_real, format_timespan};

/// Aggregates whose call reads as their tree does.
const AGGREGATES: [&str; 20] = [
    "avg",
    "avgif",
    "count",
    "countif",
    "dcount",
    "dcountif",
    "make_bag",
    "make_list",
    "make_set",
    "max",
    "maxif",
    "min",
    "minif",
    "percentile",
    "stdev",
    "stdevif",
    "sum",
    "sumif",
    "variance",
    "varianceif",
];

/// ` | operator …` over a query with those columns; none if it cannot be said.
pub(super) fn operator(rel: &Rel, input: &[Column]) -> Option<String> {
    if rel.columns.is_empty() || !are_distinct(input) || !are_distinct(&rel.columns) {
        return None;
    }
    let assigned = |columns: &[Column], exprs: &[Expr]| {
        let one = |(column, value): (&Column, &Expr)| Some(format!("{}={}", name(&column.name), expr(value, input)?));
        columns.iter().zip(exprs).map(one).collect::<Option<Vec<_>>>()
    };
    Some(match &rel.op {
        RelOp::Filter(_, predicate) => format!(" | where {}", expr(predicate, input)?),
        RelOp::Project(_, exprs) if is_identity(exprs, input, &rel.columns) => String::new(),
        RelOp::Project(_, exprs) if !exprs.is_empty() => format!(" | project {}", assigned(&rel.columns, exprs)?.join(", ")),
        RelOp::Take(_, count) => format!(" | take {count}"),
        RelOp::Count(_) => format!(" | summarize {}=count()", name(&rel.columns.first()?.name)),
        RelOp::Distinct(_) if !input.is_empty() => {
            let names: Vec<String> = input.iter().map(|column| name(&column.name)).collect();
            format!(" | distinct {}", names.join(", "))
        }
        RelOp::Summarize { keys, aggregates, .. } => {
            let (by, of) = rel.columns.split_at_checked(keys.len())?;
            let calls = of.iter().zip(aggregates).map(|(column, call)| Some(format!("{}={}", name(&column.name), aggregate(call, input)?)));
            let calls = calls.collect::<Option<Vec<_>>>()?.join(", ");
            match assigned(by, keys)? {
                keys if keys.is_empty() => format!(" | summarize {calls}"),
                keys => format!(" | summarize {calls} by {}", keys.join(", ")),
            }
        }
        _ => return None,
    })
}

fn are_distinct(columns: &[Column]) -> bool {
    let mut names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
    names.sort_unstable();
    names.windows(2).all(|pair| pair[0] != pair[1]) && !names.iter().any(|name| name.is_empty() || name.starts_with('$'))
}

fn is_identity(exprs: &[Expr], input: &[Column], output: &[Column]) -> bool {
    let same = |(at, value): (usize, &Expr)| matches!(value.kind, ExprKind::Column(from) if from == at);
    input == output && exprs.len() == input.len() && exprs.iter().enumerate().all(same)
}

fn aggregate(call: &Aggregate, input: &[Column]) -> Option<String> {
    let function = aggregates::lookup(call.function)?.name;
    if !AGGREGATES.contains(&function) {
        return None;
    }
    Some(format!("{function}({})", exprs(&call.args, input)?))
}

fn exprs(values: &[Expr], input: &[Column]) -> Option<String> {
    Some(values.iter().map(|value| expr(value, input)).collect::<Option<Vec<_>>>()?.join(", "))
}

/// The text of an expression over those columns; none if it has none.
pub(crate) fn expr(value: &Expr, input: &[Column]) -> Option<String> {
    match &value.kind {
        ExprKind::Const(constant) => literal(constant, value.ty),
        ExprKind::Column(at) => input.get(*at).map(|column| name(&column.name)),
        ExprKind::Call { function, args } => call(function, args, input),
        ExprKind::Window { .. } | ExprKind::ScalarSubquery(_) | ExprKind::InSubquery { .. } => None,
    }
}

fn call(function: &str, args: &[Expr], input: &[Column]) -> Option<String> {
    let is_word = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let text = |value: &Expr| expr(value, input);
    Some(match (function, args) {
        ("neg", [operand]) => format!("(-({}))", text(operand)?),
        ("[]", [base, index]) => format!("{}[{}]", text(base)?, text(index)?),
        ("between" | "!between", [value, low, high]) => {
            format!("({} {function} ({} .. {}))", text(value)?, text(low)?, text(high)?)
        }
        ("in" | "!in" | "in~" | "!in~" | "has_any" | "has_all", [value, list @ ..]) if !list.is_empty() => {
            format!("({} {function} ({}))", text(value)?, exprs(list, input)?)
        }
        ("and" | "or", operands) => {
            let operands = operands.iter().map(text).collect::<Option<Vec<_>>>()?;
            format!("({})", operands.join(&format!(" {function} ")))
        }
        (_, [left, right]) if is_infix(function) => format!("({} {function} {})", text(left)?, text(right)?),
        _ if is_word(function) => format!("{function}({})", exprs(args, input)?),
        _ => return None,
    })
}

fn is_infix(function: &str) -> bool {
    const SYMBOLS: [&str; 13] = ["+", "-", "*", "/", "%", "==", "!=", "<", "<=", ">", ">=", "=~", "!~"];
    const WORDS: [&str; 10] =
        ["contains", "contains_cs", "startswith", "startswith_cs", "endswith", "endswith_cs", "has", "has_cs", "hasprefix", "hasprefix_cs"];
    let word = function.strip_prefix('!').unwrap_or(function);
    SYMBOLS.contains(&function) || WORDS.contains(&word) || matches!(word, "hassuffix" | "hassuffix_cs") || function == "matches regex"
}

fn literal(value: &Value, ty: Type) -> Option<String> {
    Some(match value {
        Value::Null if ty == Type::String => "\"\"".to_owned(),
        Value::Null => format!("{ty}(null)"),
        Value::Bool(v) => v.to_string(),
        Value::Int(v) => format!("int({v})"),
        Value::Long(v) => format!("long({v})"),
        Value::Real(v) if v.is_nan() => "real(nan)".to_owned(),
        Value::Real(v) => format!("real({})", format_real(*v)),
        Value::Decimal(v) => format!("decimal({v})"),
        Value::String(text) => quoted(text, '"'),
        Value::DateTime(ticks) => format!("datetime({})", format_datetime(*ticks)),
        Value::TimeSpan(ticks) => format!("timespan({})", format_timespan(*ticks)),
        Value::Guid(id) => format!("guid({})", uuid::Uuid::from_u128(*id)),
        Value::Dynamic(json) => format!("dynamic({})", json.to_json()),
    })
}

/// A name in its form that every name has: `['name']`.
pub(crate) fn name(name: &str) -> String {
    format!("[{}]", quoted(name, '\''))
}

/// A string literal.
pub(crate) fn quoted(text: &str, quote: char) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len() + 2);
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    // writing into a String does not fail
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
            c => out.push(c),
        }
    }
    out.push(quote);
    out
}
