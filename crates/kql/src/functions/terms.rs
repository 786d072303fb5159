//! String operators: `has`, `contains`, `startswith`, `endswith`, `=~`, `in~` and their kin.
//!
//! A term is a maximal run of letters and digits; the underscore is not part of one. `has` wants a term boundary only at
//! an edge of the needle that is itself a letter or digit.

use std::borrow::Cow;

use super::Function;
use super::compare::candidates;
use super::signature::{Arg, DYNAMIC, LONG, Param, Resolved, STR, fixed, optional, variadic};
use crate::types::Type;
use crate::value::{Dynamic, Value};

pub(super) static FUNCTIONS: &[Function] = &[
    Function::new("=~", pair, |_, a| test(a, false, |x, y| x == y)),
    Function::new("!~", pair, |_, a| test_not(a, false, |x, y| x == y)),
    Function::new("contains", pair, |_, a| test(a, false, |x, y| x.contains(y))),
    Function::new("!contains", pair, |_, a| test_not(a, false, |x, y| x.contains(y))).alias(&["notcontains"]),
    Function::new("contains_cs", pair, |_, a| test(a, true, |x, y| x.contains(y))).alias(&["containscs"]),
    Function::new("!contains_cs", pair, |_, a| test_not(a, true, |x, y| x.contains(y))).alias(&["notcontainscs"]),
    Function::new("startswith", pair, |_, a| test(a, false, |x, y| x.starts_with(y))),
    Function::new("!startswith", pair, |_, a| test_not(a, false, |x, y| x.starts_with(y))),
    Function::new("startswith_cs", pair, |_, a| test(a, true, |x, y| x.starts_with(y))),
    Function::new("!startswith_cs", pair, |_, a| test_not(a, true, |x, y| x.starts_with(y))),
    Function::new("endswith", pair, |_, a| test(a, false, |x, y| x.ends_with(y))),
    Function::new("!endswith", pair, |_, a| test_not(a, false, |x, y| x.ends_with(y))),
    Function::new("endswith_cs", pair, |_, a| test(a, true, |x, y| x.ends_with(y))),
    Function::new("!endswith_cs", pair, |_, a| test_not(a, true, |x, y| x.ends_with(y))),
    Function::new("has", pair, |_, a| test(a, false, |x, y| has(x, y, BOTH))),
    Function::new("!has", pair, |_, a| test_not(a, false, |x, y| has(x, y, BOTH))),
    Function::new("has_cs", pair, |_, a| test(a, true, |x, y| has(x, y, BOTH))),
    Function::new("!has_cs", pair, |_, a| test_not(a, true, |x, y| has(x, y, BOTH))),
    Function::new("hasprefix", pair, |_, a| test(a, false, |x, y| has(x, y, START))),
    Function::new("!hasprefix", pair, |_, a| test_not(a, false, |x, y| has(x, y, START))),
    Function::new("hasprefix_cs", pair, |_, a| test(a, true, |x, y| has(x, y, START))),
    Function::new("!hasprefix_cs", pair, |_, a| test_not(a, true, |x, y| has(x, y, START))),
    Function::new("hassuffix", pair, |_, a| test(a, false, |x, y| has(x, y, END))),
    Function::new("!hassuffix", pair, |_, a| test_not(a, false, |x, y| has(x, y, END))),
    Function::new("hassuffix_cs", pair, |_, a| test(a, true, |x, y| has(x, y, END))),
    Function::new("!hassuffix_cs", pair, |_, a| test_not(a, true, |x, y| has(x, y, END))),
    Function::new("in~", list, |_, a| Value::Bool(in_folded(a))),
    Function::new("!in~", list, |_, a| Value::Bool(!in_folded(a))),
    Function::new("has_any", list, |_, a| Value::Bool(has_many(a, true))),
    Function::new("has_all", list, |_, a| Value::Bool(has_many(a, false))),
    Function::new("has_any_index", |a| fixed(a, &[STR, DYNAMIC], Type::Long), |_, a| has_any_index(a)),
    Function::new("indexof", resolve_indexof, |_, a| index_of(a)),
    Function::new("strcmp", |a| fixed(a, &[STR, STR], Type::Long), |_, a| Value::Long(text(&a[0]).cmp(text(&a[1])) as i64)),
];

/// Edges of the needle at which a term has to begin or end.
#[derive(Clone, Copy)]
struct Edges {
    start: bool,
    end: bool,
}

const BOTH: Edges = Edges { start: true, end: true };
const START: Edges = Edges { start: true, end: false };
const END: Edges = Edges { start: false, end: true };

fn pair(args: &[Arg<'_>]) -> Result<Resolved, String> {
    fixed(args, &[STR, STR], Type::Bool)
}

fn list(args: &[Arg<'_>]) -> Result<Resolved, String> {
    let mut resolved = variadic(args, &[STR], Param::Any, 1, Type::Bool)?;
    for (index, arg) in args.iter().enumerate().skip(1) {
        match arg.ty {
            Type::String | Type::Dynamic => {}
            // A null or a number among the candidates is taken as its text.
            _ => resolved.args[index] = Type::String,
        }
    }
    Ok(resolved)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}

fn test(args: &[Value], case_sensitive: bool, matches: fn(&str, &str) -> bool) -> Value {
    Value::Bool(holds(text(&args[0]), text(&args[1]), case_sensitive, matches))
}

fn test_not(args: &[Value], case_sensitive: bool, matches: fn(&str, &str) -> bool) -> Value {
    Value::Bool(!holds(text(&args[0]), text(&args[1]), case_sensitive, matches))
}

fn holds(haystack: &str, needle: &str, case_sensitive: bool, matches: fn(&str, &str) -> bool) -> bool {
    if case_sensitive { matches(haystack, needle) } else { matches(&fold(haystack), &fold(needle)) }
}

/// Lower case, for comparison without regard to case.
fn fold(text: &str) -> Cow<'_, str> {
    if text.bytes().all(|b| b.is_ascii() && !b.is_ascii_uppercase()) { Cow::Borrowed(text) } else { Cow::Owned(text.to_lowercase()) }
}

fn has(haystack: &str, needle: &str, edges: Edges) -> bool {
    let starts_in_term = edges.start && needle.chars().next().is_some_and(char::is_alphanumeric);
    let ends_in_term = edges.end && needle.chars().next_back().is_some_and(char::is_alphanumeric);
    let Some(step) = needle.chars().next().map(char::len_utf8) else {
        return true;
    };
    let mut from = 0;
    while let Some(found) = haystack[from..].find(needle) {
        let (start, end) = (from + found, from + found + needle.len());
        let begins = !starts_in_term || !haystack[..start].chars().next_back().is_some_and(char::is_alphanumeric);
        let ends = !ends_in_term || !haystack[end..].chars().next().is_some_and(char::is_alphanumeric);
        if begins && ends {
            return true;
        }
        from = start + step;
    }
    false
}

fn in_folded(args: &[Value]) -> bool {
    let needle = fold(text(&args[0]));
    candidates(&args[1..]).any(|candidate| fold(&candidate.to_text()) == needle)
}

/// Whether any, or else all, of the candidates are terms of the text.
fn has_many(args: &[Value], any: bool) -> bool {
    let haystack = fold(text(&args[0]));
    let mut found = candidates(&args[1..]).map(|candidate| has(&haystack, &fold(&candidate.to_text()), BOTH));
    if any { found.any(|f| f) } else { found.all(|f| f) }
}

fn has_any_index(args: &[Value]) -> Value {
    let haystack = fold(text(&args[0]));
    let Some(needles) = args[1].as_array() else {
        return Value::Long(-1);
    };
    let found = needles.iter().position(|needle| match needle {
        Dynamic::String(needle) => has(&haystack, &fold(needle), BOTH),
        other => has(&haystack, &fold(&other.to_text()), BOTH),
    });
    Value::Long(found.map_or(-1, |index| index as i64))
}

fn resolve_indexof(args: &[Arg<'_>]) -> Result<Resolved, String> {
    optional(args, &[Param::Text, Param::Text, LONG, LONG, LONG], 2, Type::Long)
}

/// Position in characters of the n-th occurrence that begins in a range; -1 if there is none.
fn index_of(args: &[Value]) -> Value {
    let (haystack, needle) = (text(&args[0]), text(&args[1]));
    let number = |index: usize, default: i64| args.get(index).map_or(Some(default), Value::as_long);
    let (Some(start), Some(length), Some(occurrence)) = (number(2, 0), number(3, -1), number(4, 1)) else {
        return Value::Null;
    };
    if needle.is_empty() || length < -1 || occurrence < 1 {
        return Value::Null;
    }
    let count = haystack.chars().count() as i64;
    let start = if start < 0 { (count + start).max(0) } else { start };
    let end = if length < 0 { count } else { start.saturating_add(length).min(count) };
    let mut seen = 0;
    for (position, (offset, _)) in haystack.char_indices().enumerate() {
        let position = position as i64;
        if position >= end {
            break;
        }
        if position >= start && haystack[offset..].starts_with(needle) {
            seen += 1;
            if seen == occurrence {
                return Value::Long(position);
            }
        }
    }
    Value::Long(-1)
}
