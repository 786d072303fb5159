//! `parse`, `parse-where` and `parse-kv`.

use regex::Regex;

use super::expand::cast;
use super::prepare::prepare;
use super::{Row, Rows, RunContext, RunError, nothing};
use crate::eval::{EvalContext, eval};
use crate::tree::{Expr, Parse, ParseKind, ParseKv, ParsePiece};
use crate::types::{Column, Type};
use crate::value::Value;

pub(super) fn parse(input: Rows, plan: &Parse, columns: &[Column], ctx: &mut RunContext<'_>) -> Result<Vec<Row>, RunError> {
    let step = ParseStep::new(plan, prepare(&plan.source, ctx)?, columns)?;
    Ok(input.rows.iter().filter_map(|row| step.row(row, &mut ctx.eval)).collect())
}

/// `parse` and `parse-where`, ready for any number of rows.
#[derive(Debug)]
pub(crate) struct ParseStep {
    source: Expr,
    kind: ParseKind,
    regex: Regex,
    captures: Vec<(usize, Type)>,
    filter: bool,
    keep: Vec<(usize, usize)>,
    nothing: Row,
}

impl ParseStep {
    /// `source` is the plan's, without sub-queries; `columns` are those of the output.
    pub(crate) fn new(plan: &Parse, source: Expr, columns: &[Column]) -> Result<Self, RunError> {
        let (regex, captures) = pattern(plan)?;
        let nothing = columns.iter().map(|column| nothing(column.ty)).collect();
        Ok(ParseStep { source, kind: plan.kind, regex, captures, filter: plan.filter, keep: plan.keep.clone(), nothing })
    }

    /// The output of a row; none when it does not match and rows that do not match are dropped.
    pub(crate) fn row(&self, row: &[Value], ctx: &mut EvalContext) -> Option<Row> {
        let text = text_of(eval(&self.source, row, ctx));
        let found = self.regex.captures(&text).and_then(|found| convert(self.kind, &self.captures, &found, ctx));
        if found.is_none() && self.filter {
            return None;
        }
        let mut result = kept(&self.nothing, &self.keep, row);
        for ((to, _), value) in self.captures.iter().zip(found.unwrap_or_default()) {
            result[*to] = value;
        }
        Some(result)
    }
}

fn kept(nothing: &Row, keep: &[(usize, usize)], row: &[Value]) -> Row {
    let mut result = nothing.clone();
    for (to, from) in keep {
        result[*to] = row[*from].clone();
    }
    result
}

fn text_of(value: Value) -> std::sync::Arc<str> {
    match value {
        Value::String(text) => text,
        other => other.to_text().into(),
    }
}

/// The captured texts in their types. None when the row counts as not matching: in the simple and regex kinds any
/// conversion that fails spoils the row, in the relaxed kind only its own column.
fn convert(kind: ParseKind, captures: &[(usize, Type)], found: &regex::Captures<'_>, ctx: &mut EvalContext) -> Option<Vec<Value>> {
    let mut values = Vec::with_capacity(captures.len());
    for (index, (_, ty)) in captures.iter().enumerate() {
        let text = found.name(&format!("capture{index}")).map_or("", |text| text.as_str());
        let value = cast(Value::String(text.into()), *ty, ctx);
        if value == Value::Null && *ty != Type::Dynamic && kind != ParseKind::Relaxed {
            return None;
        }
        values.push(value);
    }
    Some(values)
}

/// The regular expression of a pattern and what its captures are. Anchored at the end always, at the start unless the
/// kind is regex. Captures are lazy, so that each ends at the first place where the rest fits; those of the regex kind
/// are greedy (the flag `U` turns that round) and typed ones take text of their type only.
fn pattern(plan: &Parse) -> Result<(Regex, Vec<(usize, Type)>), RunError> {
    let is_regex = plan.kind == ParseKind::Regex;
    let any = if is_regex { ".*" } else { ".*?" };
    let mut captures = Vec::new();
    let mut text = String::new();
    for (at, piece) in plan.pattern.iter().enumerate() {
        match piece {
            ParsePiece::Literal(literal) if is_regex && Regex::new(literal).is_ok() => {
                text.push_str(&format!("(?:{literal})"));
            }
            ParsePiece::Literal(literal) => text.push_str(&regex::escape(literal)),
            ParsePiece::Skip => text.push_str(any),
            ParsePiece::Capture(to, ty) => {
                let shaped = is_regex || matches!(plan.pattern.get(at + 1), Some(ParsePiece::Skip | ParsePiece::Capture(..)));
                text.push_str(&format!("(?P<capture{}>{})", captures.len(), shape(*ty).filter(|_| shaped).unwrap_or(any)));
                captures.push((*to, *ty));
            }
        }
    }
    let start = if is_regex { "" } else { "^" };
    let flags: String = plan.flags.chars().filter(|flag| "imsU".contains(*flag)).collect();
    let flags = if flags.contains('s') { flags } else { flags + "s" };
    regex::RegexBuilder::new(&format!("(?{flags}){start}{text}$"))
        .size_limit(16 << 20)
        .build()
        .map(|regex| (regex, captures))
        .map_err(|error| RunError::Argument(format!("parse: the pattern is not a usable regular expression: {error}")))
}

/// What a typed capture takes when nothing literal ends it: the longest text of its type, perhaps none. None: any text.
fn shape(ty: Type) -> Option<&'static str> {
    Some(match ty {
        Type::Int | Type::Long => r"(?:[-+]?\d+)?",
        Type::Real | Type::Decimal => r"(?:[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)?",
        Type::Bool => r"(?:(?i:true|false|\d+))?",
        _ => return None,
    })
}

pub(super) fn parse_kv(input: Rows, plan: &ParseKv, columns: &[Column], ctx: &mut RunContext<'_>) -> Result<Vec<Row>, RunError> {
    let step = ParseKvStep::new(plan, prepare(&plan.source, ctx)?, columns)?;
    Ok(input.rows.iter().map(|row| step.row(plan, row, &mut ctx.eval)).collect())
}

/// `parse-kv`, ready for any number of rows.
#[derive(Debug)]
pub(crate) struct ParseKvStep {
    source: Expr,
    regex: Option<Regex>,
    nothing: Row,
}

impl ParseKvStep {
    /// `source` is the plan's, without sub-queries; `columns` are those of the output.
    pub(crate) fn new(plan: &ParseKv, source: Expr, columns: &[Column]) -> Result<Self, RunError> {
        let regex = plan
            .regex
            .as_deref()
            .map(Regex::new)
            .transpose()
            .map_err(|error| RunError::Argument(format!("parse-kv: the regular expression is not valid: {error}")))?;
        Ok(ParseKvStep { source, regex, nothing: columns.iter().map(|column| nothing(column.ty)).collect() })
    }

    /// The output of a row; `plan` is the one that this was made of.
    pub(crate) fn row(&self, plan: &ParseKv, row: &[Value], ctx: &mut EvalContext) -> Row {
        let text = text_of(eval(&self.source, row, ctx));
        let pairs = match &self.regex {
            Some(regex) => regex
                .captures_iter(&text)
                .filter_map(|found| Some((found.get(1)?.as_str().to_owned(), found.get(2)?.as_str().to_owned())))
                .collect(),
            None => split_pairs(&text, plan),
        };
        let mut result = kept(&self.nothing, &plan.keep, row);
        for (key, to, ty) in &plan.keys {
            if let Some((_, value)) = pairs.iter().find(|(name, _)| name == key) {
                result[*to] = cast(Value::String(value.as_str().into()), *ty, ctx);
            }
        }
        result
    }
}

/// Splits `key=value` pairs; delimiters inside quotes do not count, the first pair of a key wins.
fn split_pairs(text: &str, plan: &ParseKv) -> Vec<(String, String)> {
    if plan.greedy {
        return split_greedy(text, plan);
    }
    let mut pairs = Vec::new();
    for piece in split_at_pairs(text, plan) {
        let parts = split_unquoted(piece, &plan.kv_delimiter, plan);
        if let Some((key, rest)) = parts.split_first().filter(|(_, rest)| !rest.is_empty()) {
            let start = rest[0].as_ptr() as usize - piece.as_ptr() as usize;
            pairs.push((unquote(key, plan), unquote(&piece[start..], plan)));
        }
    }
    pairs
}

/// Values run up to the last pair delimiter before the next key.
fn split_greedy(text: &str, plan: &ParseKv) -> Vec<(String, String)> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    for piece in split_unquoted(text, &plan.pair_delimiter, plan) {
        let parts = split_unquoted(piece, &plan.kv_delimiter, plan);
        match (parts.split_first(), pairs.last_mut()) {
            (Some((key, rest)), _) if !rest.is_empty() => {
                let start = rest[0].as_ptr() as usize - piece.as_ptr() as usize;
                pairs.push((unquote(key, plan), unquote(&piece[start..], plan)));
            }
            (_, Some((_, value))) => {
                value.push_str(&plan.pair_delimiter);
                value.push_str(piece);
            }
            _ => {}
        }
    }
    pairs
}

/// The pieces between pair delimiters. Blanks around the delimiter of key and value belong to it, also where a blank
/// is what stands between pairs.
fn split_at_pairs<'t>(text: &'t str, plan: &ParseKv) -> Vec<&'t str> {
    let (pair, kv) = (plan.pair_delimiter.as_str(), plan.kv_delimiter.as_str());
    let ambiguous = pair.trim().is_empty() && !kv.trim().is_empty();
    let inside = |at: usize| {
        let (before, after) = (text[..at].trim_end(), text[at..].trim_start());
        // an empty value ends at the next key
        let value = after.split_whitespace().next().filter(|word| !word.contains(kv));
        after.starts_with(kv) || before.ends_with(kv) && value.is_some()
    };
    split_unquoted_unless(text, pair, plan, |at| ambiguous && inside(at))
}

fn split_unquoted<'t>(text: &'t str, delimiter: &str, plan: &ParseKv) -> Vec<&'t str> {
    split_unquoted_unless(text, delimiter, plan, |_| false)
}

/// Splits at the delimiters outside quotes for whose place `passed_over` does not hold.
fn split_unquoted_unless<'t>(text: &'t str, delimiter: &str, plan: &ParseKv, passed_over: impl Fn(usize) -> bool) -> Vec<&'t str> {
    if delimiter.is_empty() {
        return vec![text];
    }
    let mut parts = Vec::new();
    let (mut start, mut at, mut closing) = (0, 0, None);
    while let Some(c) = text[at..].chars().next() {
        if Some(c) == plan.escape {
            at += c.len_utf8();
            at += text[at..].chars().next().map_or(0, char::len_utf8);
            continue;
        }
        if closing == Some(c) {
            closing = None;
        } else if closing.is_none() {
            if text[at..].starts_with(delimiter) && !passed_over(at) {
                parts.push(&text[start..at]);
                at += delimiter.len();
                start = at;
                continue;
            }
            closing = plan.quotes.iter().find(|(open, _)| *open == c).map(|(_, close)| *close);
        }
        at += c.len_utf8();
    }
    parts.push(&text[start..]);
    parts
}

fn unquote(text: &str, plan: &ParseKv) -> String {
    let text = text.trim();
    let inner = plan.quotes.iter().find_map(|(open, close)| {
        (text.len() >= open.len_utf8() + close.len_utf8()).then(|| text.strip_prefix(*open)?.strip_suffix(*close)).flatten()
    });
    let text = inner.unwrap_or(text);
    let Some(escape) = plan.escape else { return text.to_owned() };
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        out.push(if c == escape { chars.next().unwrap_or(c) } else { c });
    }
    out
}
