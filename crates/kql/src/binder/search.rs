//! `search`: a filter over every column, with the table's name put in front of the rows as `$table`.

use super::project::row_context;
use super::scope::{Cx, Env, Table};
use super::table::with_op;
use super::union::unite;
use super::{Bind, Binder};
use crate::ast::{self, ExprKind as Ast, OperatorOption, Span};
use crate::diagnostic::Diagnostic;
use crate::tree::{Expr, RelOp};
use crate::types::Type;
use crate::value::Value;

impl Binder<'_> {
    pub(super) fn search(
        &mut self,
        input: Option<Table>,
        options: &[OperatorOption],
        tables: &[ast::Expr],
        predicate: &ast::Expr,
        env: &Env,
        span: &Span,
    ) -> Bind<Table> {
        let mut case_sensitive = false;
        for option in options {
            match (option.name.text.as_str(), &option.value.kind) {
                ("kind", Ast::Name(kind)) if kind == "case_sensitive" => case_sensitive = true,
                ("kind", Ast::Name(kind)) if matches!(kind.as_str(), "default" | "case_insensitive") => {}
                (name, _) if name.starts_with("hint.") => {}
                (name, _) => {
                    let what = format!("this value of the option '{name}' of search");
                    return Err(Diagnostic::unsupported(option.value.span.clone(), what));
                }
            }
        }
        let mut parts: Vec<Table> = input.into_iter().collect();
        for table in tables {
            parts.extend(self.operands(table, env, "search")?);
        }
        if parts.is_empty() {
            let all = ast::Expr { kind: Ast::Wildcard("*".to_owned()), span: span.clone(), height: 1 };
            parts = self.operands(&all, env, "search")?;
        }
        let mut found = Vec::with_capacity(parts.len());
        for part in parts {
            let scope = self.new_scope();
            let cx = row_context(&part, env, scope, "search");
            let condition = self.search_predicate(predicate, case_sensitive, &cx)?;
            let name = part.name.clone();
            let mut filtered = with_op(part, Vec::new(), |rel| RelOp::Filter(rel, condition));
            filtered.name = name;
            found.push(filtered);
        }
        Ok(unite(found, false, Some("$table"), "search_arg"))
    }

    /// A condition in which a literal alone is a term to find anywhere.
    fn search_predicate(&mut self, expr: &ast::Expr, case_sensitive: bool, cx: &Cx<'_>) -> Bind<Expr> {
        let span = &expr.span;
        match &expr.kind {
            Ast::Wildcard(all) if all == "*" => Ok(Expr::constant(Value::Bool(true), Type::Bool)),
            Ast::Literal(value, ty) if *ty != Type::Bool => {
                let term = value.to_text();
                self.anywhere(cx, span, |binder, column| binder.term(column, &term, case_sensitive, span))
            }
            Ast::Binary(operator @ ("and" | "or"), left, right) => {
                let left = self.search_predicate(left, case_sensitive, cx)?;
                let right = self.search_predicate(right, case_sensitive, cx)?;
                self.operator_call(operator, vec![left, right], span)
            }
            Ast::Call(name, arguments) if name.text == "not" && arguments.len() == 1 => {
                let inner = self.search_predicate(&arguments[0].value, case_sensitive, cx)?;
                self.operator_call("not", vec![inner], span)
            }
            Ast::Binary(":", column, term) => {
                let term = self.constant(term, cx)?.0.to_text();
                if matches!(column.kind, Ast::Wildcard(_)) {
                    return self.anywhere(cx, span, |binder, column| binder.term(column, &term, case_sensitive, span));
                }
                let column = self.scalar(column, cx)?;
                let text = self.text(column, span)?;
                self.term(text, &term, case_sensitive, span)
            }
            Ast::Binary(operator, left, right) if matches!(left.kind, Ast::Wildcard(_)) => self.any_column(operator, right, cx, span),
            _ => self.predicate(expr, cx),
        }
    }

    /// `* has "x"`: whether the operator holds for any column; a negated one has to hold for all.
    pub(super) fn any_column(&mut self, operator: &str, right: &ast::Expr, cx: &Cx<'_>, span: &Span) -> Bind<Expr> {
        let right = self.scalar(right, cx)?;
        let right = self.text(right, span)?;
        let plain = match operator {
            "!=" => "==",
            "!~" => "=~",
            other => other.strip_prefix('!').unwrap_or(other),
        };
        let found = self.anywhere(cx, span, |binder, column| binder.operator_call(plain, vec![column, right.clone()], span))?;
        if plain == operator { Ok(found) } else { self.operator_call("not", vec![found], span) }
    }

    /// Whether a test holds for the text of any column.
    fn anywhere(&mut self, cx: &Cx<'_>, span: &Span, mut test: impl FnMut(&mut Self, Expr) -> Bind<Expr>) -> Bind<Expr> {
        let columns = cx.row.map(|row| row.columns).unwrap_or_default();
        let mut any: Option<Expr> = None;
        // numbers with a fraction are not searched for terms
        let searched = columns.iter().enumerate().filter(|(_, c)| !matches!(c.ty, Type::Real | Type::Decimal));
        for (at, column) in searched {
            let text = self.text(Expr::column(at, column.ty), span)?;
            let one = test(self, text)?;
            any = Some(match any {
                Some(before) => self.operator_call("or", vec![before, one], span)?,
                None => one,
            });
        }
        Ok(any.unwrap_or_else(|| Expr::constant(Value::Bool(false), Type::Bool)))
    }

    fn text(&mut self, value: Expr, span: &Span) -> Bind<Expr> {
        if value.ty == Type::String { Ok(value) } else { self.operator_call("tostring", vec![value], span) }
    }

    /// A term, with `*` at its ends or inside.
    fn term(&mut self, text: Expr, term: &str, case_sensitive: bool, span: &Span) -> Bind<Expr> {
        let inner = term.trim_matches('*');
        if inner.is_empty() {
            return Ok(Expr::constant(Value::Bool(true), Type::Bool));
        }
        let suffix = |name: &str| if case_sensitive { format!("{name}_cs") } else { name.to_owned() };
        let string = |text: &str| Expr::constant(Value::string(text), Type::String);
        if inner.contains('*') {
            let parts: Vec<String> = inner.split('*').map(regex::escape).collect();
            let flags = if case_sensitive { "(?s)" } else { "(?is)" };
            let pattern = format!("{flags}{}", parts.join(".*"));
            return self.operator_call("matches regex", vec![text, string(&pattern)], span);
        }
        let operator = match (term.starts_with('*'), term.ends_with('*')) {
            (false, false) => "has",
            (false, true) => "hasprefix",
            (true, false) => "hassuffix",
            (true, true) => "contains",
        };
        self.operator_call(&suffix(operator), vec![text, string(inner)], span)
    }
}
