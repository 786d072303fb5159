//! Functions with regular expressions (RE2 syntax, which the `regex` crate shares) and `countof`, `trim`.

use super::Function;
use super::signature::{Arg, DYNAMIC, LONG, Param, Resolved, STR, constant_text, fixed, optional, wrong_count};
use crate::eval::EvalContext;
use crate::types::Type;
use crate::value::{Dynamic, Value};

pub(super) static FUNCTIONS: &[Function] = &[
    Function::new(
        "matches regex",
        |a| pattern_at(fixed(a, &[STR, STR], Type::Bool), a, 1),
        |ctx, a| Value::Bool(ctx.regex(text(&a[1])).is_some_and(|regex| regex.is_match(text(&a[0])))),
    ),
    Function::new("extract", resolve_extract, extract),
    Function::new("extract_all", resolve_extract_all, extract_all),
    Function::new("replace_regex", |a| pattern_at(fixed(a, &[STR, STR, STR], Type::String), a, 1), replace_regex).alias(&["replace"]),
    Function::new(
        "trim",
        |a| pattern_at(fixed(a, &[STR, STR], Type::String), a, 0),
        |ctx, a| trim(ctx, text(&a[0]), text(&a[1]), true, true),
    ),
    Function::new(
        "trim_start",
        |a| pattern_at(fixed(a, &[STR, STR], Type::String), a, 0),
        |ctx, a| trim(ctx, text(&a[0]), text(&a[1]), true, false),
    ),
    Function::new(
        "trim_end",
        |a| pattern_at(fixed(a, &[STR, STR], Type::String), a, 0),
        |ctx, a| trim(ctx, text(&a[0]), text(&a[1]), false, true),
    ),
    Function::new("countof", |a| optional(a, &[STR, STR, STR], 2, Type::Long), countof),
    Function::new("indexof_regex", resolve_indexof_regex, indexof_regex),
    Function::new("regex_quote", |a| fixed(a, &[STR], Type::String), |_, a| Value::string(quote(text(&a[0])))),
];

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}

/// Refuses a constant pattern that is not a regular expression.
fn pattern_at(resolved: Result<Resolved, String>, args: &[Arg<'_>], index: usize) -> Result<Resolved, String> {
    if let Some(pattern) = constant_text(args, index) {
        regex::Regex::new(pattern).map_err(|_| format!("argument {}: invalid regular expression {pattern:?}", index + 1))?;
    }
    resolved
}

fn resolve_extract(args: &[Arg<'_>]) -> Result<Resolved, String> {
    let ty = match args.len() {
        3 => Type::String,
        4 => constant_text(args, 3).and_then(Type::parse).ok_or("argument 4 must be typeof(a scalar type)")?,
        count => return Err(wrong_count(count, 3, Some(4))),
    };
    pattern_at(optional(args, &[STR, LONG, STR, Param::Constant], 3, ty), args, 0)
}

fn extract(ctx: &mut EvalContext, args: &[Value]) -> Value {
    let ty = args.get(3).and_then(Value::as_str).and_then(Type::parse).unwrap_or(Type::String);
    let group = args[1].as_long().and_then(|group| usize::try_from(group).ok());
    let found = group.and_then(|group| {
        let regex = ctx.regex(text(&args[0]))?;
        Some(regex.captures(text(&args[2]))?.get(group)?.as_str().to_owned())
    });
    let Some(found) = found else {
        return Value::null_of(ty);
    };
    let cast = super::lookup(super::cast_name(ty)).map(|cast| cast.eval);
    cast.map_or(Value::Null, |cast| cast(ctx, &[Value::string(found)]))
}

fn resolve_extract_all(args: &[Arg<'_>]) -> Result<Resolved, String> {
    let resolved = match args.len() {
        2 => fixed(args, &[STR, STR], Type::Dynamic),
        _ => fixed(args, &[STR, DYNAMIC, STR], Type::Dynamic),
    };
    if let Some(pattern) = constant_text(args, 0)
        && let Ok(regex) = regex::Regex::new(pattern)
        && !(1..=16).contains(&(regex.captures_len() - 1))
    {
        return Err("argument 1: the regular expression must have 1 to 16 capture groups".into());
    }
    pattern_at(resolved, args, 0)
}

fn extract_all(ctx: &mut EvalContext, args: &[Value]) -> Value {
    let Some(regex) = ctx.regex(text(&args[0])) else {
        return Value::Null;
    };
    let groups: Vec<usize> = match args {
        [_, list, _] => match list.as_array() {
            Some(list) => list.iter().filter_map(|item| group_number(&regex, item)).collect(),
            None => return Value::Null,
        },
        _ => (1..regex.captures_len()).collect(),
    };
    let source = text(&args[args.len() - 1]);
    let rows: Vec<Dynamic> = regex
        .captures_iter(source)
        .map(|captures| {
            let group = |index: &usize| Dynamic::string(captures.get(*index).map_or("", |found| found.as_str()));
            match &groups[..] {
                [one] => group(one),
                many => Dynamic::array(many.iter().map(group).collect()),
            }
        })
        .collect();
    if rows.is_empty() { Value::Null } else { Value::array(rows) }
}

fn group_number(regex: &regex::Regex, item: &Dynamic) -> Option<usize> {
    match item {
        Dynamic::Long(index) => usize::try_from(*index).ok().filter(|index| *index < regex.captures_len()),
        Dynamic::String(name) => regex.capture_names().position(|known| known == Some(name)),
        _ => None,
    }
}

/// Replaces all matches; `\1` in the rewrite stands for a group, `\0` for the match.
fn replace_regex(ctx: &mut EvalContext, args: &[Value]) -> Value {
    let Some(regex) = ctx.regex(text(&args[1])) else {
        return args[0].clone();
    };
    let rewrite = text(&args[2]);
    let replaced = regex.replace_all(text(&args[0]), |captures: &regex::Captures<'_>| expand(rewrite, captures));
    Value::string(replaced)
}

fn expand(rewrite: &str, captures: &regex::Captures<'_>) -> String {
    let mut out = String::new();
    let mut rest = rewrite.chars();
    while let Some(c) = rest.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match rest.next() {
            Some(digit) if digit.is_ascii_digit() => {
                let group = digit.to_digit(10).unwrap_or(0) as usize;
                out.push_str(captures.get(group).map_or("", |found| found.as_str()));
            }
            Some(other) => out.push(other),
            None => out.push('\\'),
        }
    }
    out
}

/// Cuts one match off an end.
fn trim(ctx: &mut EvalContext, pattern: &str, source: &str, start: bool, end: bool) -> Value {
    let mut rest = source;
    if start
        && let Some(regex) = ctx.regex(&format!("^(?:{pattern})"))
        && let Some(found) = regex.find(rest)
    {
        rest = &rest[found.end()..];
    }
    if end
        && let Some(regex) = ctx.regex(&format!("(?:{pattern})$"))
        && let Some(found) = regex.find(rest)
    {
        rest = &rest[..found.start()];
    }
    Value::string(rest)
}

/// Occurrences: overlapping ones for plain text, separate ones for a regex.
fn countof(ctx: &mut EvalContext, args: &[Value]) -> Value {
    let (source, search) = (text(&args[0]), text(&args[1]));
    match args.get(2).map_or("normal", text) {
        "regex" => ctx.regex(search).map_or(Value::Null, |regex| Value::Long(regex.find_iter(source).count() as i64)),
        "normal" if search.is_empty() => Value::Long(0),
        "normal" => Value::Long(source.char_indices().filter(|(at, _)| source[*at..].starts_with(search)).count() as i64),
        _ => Value::Null,
    }
}

fn resolve_indexof_regex(args: &[Arg<'_>]) -> Result<Resolved, String> {
    pattern_at(optional(args, &[Param::Text, Param::Text, LONG, LONG, LONG], 2, Type::Long), args, 1)
}

/// Position in characters of the n-th separate match inside a range; -1 if there is none.
fn indexof_regex(ctx: &mut EvalContext, args: &[Value]) -> Value {
    let number = |index: usize, default: i64| args.get(index).map_or(Some(default), Value::as_long);
    let (Some(start), Some(length), Some(occurrence)) = (number(2, 0), number(3, -1), number(4, 1)) else {
        return Value::Null;
    };
    let Some(regex) = ctx.regex(text(&args[1])) else {
        return Value::Null;
    };
    if start < 0 || length < -1 || occurrence < 1 {
        return Value::Null;
    }
    let source = text(&args[0]);
    let byte_of = |position: i64| {
        let skip = usize::try_from(position).unwrap_or(usize::MAX);
        source.char_indices().nth(skip).map_or(source.len(), |(at, _)| at)
    };
    let from = byte_of(start);
    let to = if length < 0 { source.len() } else { byte_of(start.saturating_add(length)) };
    let nth = usize::try_from(occurrence - 1).unwrap_or(usize::MAX);
    let found = regex.find_iter(&source[from..to]).nth(nth);
    Value::Long(found.map_or(-1, |found| source[..from + found.start()].chars().count() as i64))
}

/// Escapes what has a meaning in a regular expression.
fn quote(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    for c in source.chars() {
        if c.is_ascii() && !c.is_ascii_alphanumeric() && c != '_' {
            out.push('\\');
        }
        out.push(c);
    }
    out
}
