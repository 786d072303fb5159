//! `parse`, `parse-where`, `parse-kv`.

use super::expr::{find, prefix};
use super::project::row_context;
use super::scope::{Cx, Env, Table};
use super::{Bind, Binder};
use crate::ast::{self, ColumnDeclaration, ExprKind as Ast, OperatorOption};
use crate::diagnostic::Diagnostic;
use crate::tree::{Expr, Parse, ParseKind, ParseKv, ParsePiece, RelOp};
use crate::types::{Column, Type};
use crate::value::Value;

impl Binder<'_> {
    pub(super) fn parse(
        &mut self,
        input: Table,
        filter: bool,
        options: &[OperatorOption],
        source: &ast::Expr,
        pattern: &[ast::ParsePiece],
        env: &Env,
    ) -> Bind<Table> {
        let operator = if filter { "parse-where" } else { "parse" };
        let (kind, flags) = parse_kind(options, operator)?;
        let source = self.text_source(&input, source, env, operator)?;
        let mut output = Output::new(input.columns());
        let mut pieces = Vec::with_capacity(pattern.len());
        for piece in pattern {
            pieces.push(match piece {
                ast::ParsePiece::Skip => ParsePiece::Skip,
                ast::ParsePiece::Literal(literal) => match &literal.kind {
                    Ast::Literal(Value::String(text), _) => ParsePiece::Literal(text.to_string()),
                    _ => return Err(Diagnostic::unsupported(literal.span.clone(), "this part of a parse pattern")),
                },
                ast::ParsePiece::Capture(name, ty) => {
                    let ty = ty.unwrap_or(Type::String);
                    ParsePiece::Capture(output.put(&name.text, ty), ty)
                }
            });
        }
        let Output { columns, keep } = output;
        let size = input.size + 1;
        let plan = Parse { input: input.rel, source, kind, flags, pattern: pieces, filter, keep };
        Ok(Table::new(columns, RelOp::Parse(Box::new(plan)), size))
    }

    pub(super) fn parse_kv(
        &mut self,
        input: Table,
        source: &ast::Expr,
        keys: &[ColumnDeclaration],
        options: &[OperatorOption],
        env: &Env,
    ) -> Bind<Table> {
        let place = source.span.clone();
        let source = self.text_source(&input, source, env, "parse-kv")?;
        let mut output = Output::new(input.columns());
        let keys = keys.iter().map(|key| (key.name.text.clone(), output.put(&key.name.text, key.ty), key.ty)).collect();
        let Output { columns, keep } = output;
        let size = input.size + 1;
        let mut plan = ParseKv {
            input: input.rel,
            source,
            keys,
            keep,
            pair_delimiter: String::new(),
            kv_delimiter: String::new(),
            quotes: Vec::new(),
            escape: None,
            greedy: false,
            regex: None,
        };
        for option in options {
            self.parse_kv_option(&mut plan, option, env)?;
        }
        if plan.regex.is_none() && (plan.kv_delimiter.is_empty() || plan.pair_delimiter.is_empty()) {
            return Err(Diagnostic::unsupported(place, "parse-kv without pair_delimiter and kv_delimiter"));
        }
        Ok(Table::new(columns, RelOp::ParseKv(Box::new(plan)), size))
    }

    fn parse_kv_option(&mut self, plan: &mut ParseKv, option: &OperatorOption, env: &Env) -> Bind<()> {
        let value = self.constant(&option.value, &Cx::constant(env, "parse-kv"))?.0;
        let span = option.value.span.clone();
        let wrong = || Diagnostic::semantic("SEM0001", span.clone(), format!("parse-kv: wrong value of '{}'", option.name.text));
        match (option.name.text.as_str(), value) {
            ("greedy", Value::Bool(greedy)) => plan.greedy = greedy,
            (name, Value::String(text)) => match name {
                "pair_delimiter" => plan.pair_delimiter = text.to_string(),
                "kv_delimiter" => plan.kv_delimiter = text.to_string(),
                "regex" => plan.regex = Some(text.to_string()),
                "escape" => plan.escape = Some(single(&text).ok_or_else(wrong)?),
                "quote" => {
                    let mut chars = text.chars();
                    let open = chars.next().ok_or_else(wrong)?;
                    plan.quotes.push((open, chars.next().unwrap_or(open)));
                }
                _ => return Err(Diagnostic::unsupported(span, format!("the option '{name}' of parse-kv"))),
            },
            _ => return Err(wrong()),
        }
        Ok(())
    }

    /// The text that is parsed; other types are cast to string.
    fn text_source(&mut self, input: &Table, source: &ast::Expr, env: &Env, operator: &str) -> Bind<Expr> {
        let scope = self.new_scope();
        let cx = row_context(input, env, scope, operator);
        let value = self.scalar(source, &cx)?;
        if value.ty == Type::String { Ok(value) } else { self.operator_call("tostring", vec![value], &source.span) }
    }
}

fn single(text: &str) -> Option<char> {
    let mut chars = text.chars();
    chars.next().filter(|_| chars.next().is_none())
}

/// Columns while captures replace some and add others.
struct Output {
    columns: Vec<Column>,
    /// Kept columns: output position, input position.
    keep: Vec<(usize, usize)>,
}

impl Output {
    fn new(columns: &[Column]) -> Output {
        Output { columns: columns.to_vec(), keep: (0..columns.len()).map(|at| (at, at)).collect() }
    }

    /// The position of a captured column.
    fn put(&mut self, name: &str, ty: Type) -> usize {
        match find(&self.columns, name) {
            Some((at, _)) => {
                self.columns[at].ty = ty;
                self.keep.retain(|(to, _)| *to != at);
                at
            }
            None => {
                self.columns.push(Column::new(name, ty));
                self.columns.len() - 1
            }
        }
    }
}

fn parse_kind(options: &[OperatorOption], operator: &str) -> Bind<(ParseKind, String)> {
    let (mut kind, mut flags) = (ParseKind::Simple, String::new());
    for option in options {
        match (option.name.text.as_str(), &option.value.kind) {
            ("kind", Ast::Name(name)) if name == "simple" => kind = ParseKind::Simple,
            ("kind", Ast::Name(name)) if name == "relaxed" => kind = ParseKind::Relaxed,
            ("kind", Ast::Name(name)) if name == "regex" => kind = ParseKind::Regex,
            ("flags", Ast::Name(name)) => flags.clone_from(name),
            (name, _) => {
                let what = format!("{}this value of the option '{name}'", prefix(operator));
                return Err(Diagnostic::unsupported(option.value.span.clone(), what));
            }
        }
    }
    Ok((kind, flags))
}
