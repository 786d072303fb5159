//! Scalar expressions: names, operators, paths into dynamic values, lists.

use std::sync::Arc;

use super::scope::{Binding, Bound, Cx, Row};
use super::{Bind, Binder, MAX_NODES};
use crate::ast::{self, ExprKind as Ast, Name, Span};
use crate::diagnostic::Diagnostic;
use crate::functions::{self, Arg};
use crate::tree::{Expr, ExprKind};
use crate::types::{Column, Type};
use crate::value::Value;

/// Highest expression that may be inlined into another.
const MAX_INLINED_HEIGHT: usize = 150;

impl Binder<'_> {
    /// A scalar expression; a table in its place is an error.
    pub(super) fn scalar(&mut self, expr: &ast::Expr, cx: &Cx<'_>) -> Bind<Expr> {
        match self.any(expr, cx)? {
            Bound::Scalar(value) => Ok(value),
            Bound::Table(_) => {
                let message = format!("{}a scalar expression is expected here, not a table", prefix(cx.operator));
                Err(Diagnostic::semantic("SEM0100", expr.span.clone(), message))
            }
        }
    }

    /// An expression of either kind.
    pub(super) fn any(&mut self, expr: &ast::Expr, cx: &Cx<'_>) -> Bind<Bound> {
        let value = match &expr.kind {
            Ast::Literal(value, ty) => Expr::constant(non_null_string(value, *ty), *ty),
            Ast::TypeOf(ty) => Expr::constant(Value::string(ty.name()), Type::String),
            Ast::Name(name) => return self.name(name, expr, cx),
            Ast::Member(base, member) => return self.member(base, member, expr, cx),
            Ast::Index(base, index) => self.index(base, index, expr, cx)?,
            Ast::Call(name, arguments) => return self.call(name, arguments, expr, cx),
            Ast::Unary(sign, operand) => self.unary(sign, operand, expr, cx)?,
            Ast::Binary(operator, left, right) if matches!(left.kind, Ast::Wildcard(_)) => {
                self.any_column(operator, right, cx, &expr.span)?
            }
            Ast::Binary(operator, left, right) => {
                let left = self.scalar(left, cx)?;
                let right = self.scalar(right, cx)?;
                self.operator_call(operator, vec![left, right], &expr.span)?
            }
            Ast::List(operator, left, items) => self.list(operator, left, items, expr, cx)?,
            Ast::Between(negated, value, low, high) => {
                let args = [value, low, high].map(|e| self.scalar(e, cx));
                let [value, low, high] = args;
                let operator = if *negated { "!between" } else { "between" };
                self.operator_call(operator, vec![value?, low?, high?], &expr.span)?
            }
            Ast::Pipe(source, operators) => return self.pipe(source, operators, cx).map(|t| Bound::Table(Box::new(t))),
            Ast::Source(operator) => return self.source(operator, cx.env).map(|t| Bound::Table(Box::new(t))),
            Ast::Wildcard(_) => return Err(self.misplaced("'*'", expr, cx)),
            Ast::Assign(..) => return Err(self.misplaced("an assignment", expr, cx)),
            Ast::Function(_) => return Err(Diagnostic::unsupported(expr.span.clone(), "a function as a value")),
            Ast::Block(statements) => return self.body(statements, cx.env, cx, &expr.span),
            Ast::EntityGroup(_) => return Err(self.misplaced("an entity group", expr, cx)),
            Ast::Error => return Err(self.misplaced("this text", expr, cx)),
        };
        Ok(Bound::Scalar(value))
    }

    fn misplaced(&self, what: &str, expr: &ast::Expr, cx: &Cx<'_>) -> Diagnostic {
        Diagnostic::semantic("SEM0001", expr.span.clone(), format!("{}{what} is not allowed here", prefix(cx.operator)))
    }

    fn name(&mut self, name: &str, expr: &ast::Expr, cx: &Cx<'_>) -> Bind<Bound> {
        if let Some(row) = &cx.row
            && let Some((index, ty)) = find(row.columns, name)
        {
            return self.column(index, ty, name, expr, cx).map(Bound::Scalar);
        }
        match cx.env.get(name).cloned() {
            Some(Binding::Scalar(value, scope)) => self.inline(value, scope, name, expr, cx).map(Bound::Scalar),
            Some(Binding::Table(table)) => {
                let mut table = (*table).clone();
                table.size.count += 1;
                self.check_size(&table, &expr.span)?;
                Ok(Bound::Table(Box::new(table)))
            }
            Some(Binding::Function(function)) => {
                let mut bound = self.invoke_callable(&function, name, None, &[], &expr.span, cx)?;
                if let (true, Bound::Table(table)) = (function.view, &mut bound) {
                    table.name = Some(name.to_owned());
                }
                Ok(bound)
            }
            Some(Binding::Entity(entity)) => self.entity_as_table(&entity, name, expr, cx),
            Some(Binding::Group(_)) => Err(self.misplaced("an entity group", expr, cx)),
            Some(Binding::Missing) => {
                let message = format!("query parameter '{name}' has no value");
                Err(Diagnostic::semantic("SEM0001", expr.span.clone(), message))
            }
            None => self.catalog_name(None, name, expr, cx),
        }
    }

    /// A column of the row. Beside aggregates only the keys are there.
    pub(super) fn column(&self, index: usize, ty: Type, name: &str, expr: &ast::Expr, cx: &Cx<'_>) -> Bind<Expr> {
        let Some(collector) = cx.aggregates else { return Ok(Expr::column(index, ty)) };
        let is_key = |key: &Expr| matches!(key.kind, ExprKind::Column(at) if at == index);
        match collector.borrow().keys.iter().position(is_key) {
            Some(at) => Ok(Expr::column(at, ty)),
            None => {
                let message = format!("{}the column '{name}' has to be inside an aggregate function", prefix(cx.operator));
                Err(Diagnostic::semantic("SEM0001", expr.span.clone(), message))
            }
        }
    }

    /// A copy of what a scalar name stands for.
    fn inline(&mut self, value: Expr, scope: Option<usize>, name: &str, expr: &ast::Expr, cx: &Cx<'_>) -> Bind<Expr> {
        if scope.is_some_and(|scope| scope != cx.scope) {
            let what = format!("a sub-query that reads a column of the row around it (parameter '{name}')");
            return Err(Diagnostic::unsupported(expr.span.clone(), what));
        }
        let (nodes, height) = measure(&value);
        self.nodes += nodes;
        if self.nodes > MAX_NODES || height > MAX_INLINED_HEIGHT {
            let message = format!("the expression '{name}' becomes too large when it is inlined");
            return Err(Diagnostic::semantic("SEM0001", expr.span.clone(), message));
        }
        Ok(value)
    }

    fn member(&mut self, base: &ast::Expr, member: &Name, expr: &ast::Expr, cx: &Cx<'_>) -> Bind<Bound> {
        if let Some(place) = self.place_of(base, cx)? {
            return self.member_of(&place, &member.text, expr, cx);
        }
        if let (Ast::Name(qualifier), Some(row)) = (&base.kind, &cx.row)
            && let Some(columns) = qualified(qualifier, row)
        {
            let (first, columns) = columns;
            let Some((index, ty)) = find(columns, &member.text) else {
                return Err(unresolved(&member.text, &member.span, cx));
            };
            return Ok(Bound::Scalar(Expr::column(first + index, ty)));
        }
        let base_value = self.scalar(base, cx)?;
        if base_value.ty != Type::Dynamic {
            let message = format!(
                "{}Path expression source must be of type dynamic, received a source of type {}: member '{}'",
                prefix(cx.operator),
                base_value.ty,
                member.text
            );
            return Err(Diagnostic::semantic("SEM0100", expr.span.clone(), message));
        }
        let key = Expr::constant(Value::string(&member.text), Type::String);
        self.operator_call("[]", vec![base_value, key], &expr.span).map(Bound::Scalar)
    }

    fn index(&mut self, base: &ast::Expr, index: &ast::Expr, expr: &ast::Expr, cx: &Cx<'_>) -> Bind<Expr> {
        let base = self.scalar(base, cx)?;
        let index = self.scalar(index, cx)?;
        self.operator_call("[]", vec![base, index], &expr.span)
    }

    fn unary(&mut self, sign: &str, operand: &ast::Expr, expr: &ast::Expr, cx: &Cx<'_>) -> Bind<Expr> {
        let operand = self.scalar(operand, cx)?;
        if sign == "pos" { Ok(operand) } else { self.operator_call("neg", vec![operand], &expr.span) }
    }

    fn list(&mut self, operator: &'static str, left: &ast::Expr, items: &[ast::Expr], expr: &ast::Expr, cx: &Cx<'_>) -> Bind<Expr> {
        let needle = self.scalar(left, cx)?;
        let mut args = vec![needle];
        for item in items {
            match self.any(item, cx)? {
                Bound::Scalar(value) => args.push(value),
                Bound::Table(table) if items.len() == 1 && matches!(operator, "has_any" | "has_all") => {
                    args.push(self.column_values(*table, &item.span)?);
                }
                Bound::Table(table) if items.len() == 1 && matches!(operator, "in" | "!in" | "in~" | "!in~") => {
                    let Some(needle) = args.pop() else { break };
                    return self.in_table(operator, needle, *table, expr);
                }
                Bound::Table(_) => {
                    let what = format!("a table among the values of '{operator}'");
                    return Err(Diagnostic::unsupported(item.span.clone(), what));
                }
            }
        }
        if args.len() == 1 {
            // an empty list contains nothing
            return Ok(Expr::constant(Value::Bool(operator.starts_with('!')), Type::Bool));
        }
        self.operator_call(operator, args, &expr.span)
    }

    /// The first column of a table as an array, for operators that take constants only: the table is run now.
    fn column_values(&mut self, table: super::Table, span: &Span) -> Bind<Expr> {
        if super::plugins::depends_on_argument(&table.rel) {
            return Err(Diagnostic::unsupported(span.clone(), "a table of a sub-query as list of terms"));
        }
        let rows = self.catalog.run(&table.rel).map_err(|why| Diagnostic::semantic("SEM0001", span.clone(), why))?;
        let values = rows.rows.iter().filter_map(|row| row.first()).map(Value::to_dynamic).collect();
        let array = crate::value::Dynamic::Array(Arc::new(values));
        Ok(Expr::constant(Value::Dynamic(array), Type::Dynamic))
    }

    fn in_table(&mut self, operator: &str, needle: Expr, table: super::Table, expr: &ast::Expr) -> Bind<Expr> {
        let Some(first) = table.columns().first() else {
            return Err(Diagnostic::semantic("SEM0001", expr.span.clone(), "the sub-query of 'in' has no columns"));
        };
        // the types have to be comparable, as for a list
        let sample = Expr { ty: first.ty, kind: ExprKind::Column(0) };
        self.operator_call("==", vec![Expr { ty: needle.ty, kind: ExprKind::Column(0) }, sample], &expr.span)?;
        let kind = ExprKind::InSubquery {
            needle: Box::new(needle),
            query: Arc::new(table.rel),
            negated: operator.starts_with('!'),
            case_insensitive: operator.ends_with('~'),
        };
        Ok(Expr { ty: Type::Bool, kind })
    }

    /// A call of an operator by its name.
    pub(super) fn operator_call(&mut self, name: &str, args: Vec<Expr>, span: &Span) -> Bind<Expr> {
        match functions::lookup(name) {
            Some(function) => self.resolved_call(function, args, span),
            None => Err(Diagnostic::unsupported(span.clone(), format!("the operator '{name}'"))),
        }
    }

    /// A call with its overload picked, arguments converted, and computed already when everything is constant.
    pub(super) fn resolved_call(&mut self, function: &'static functions::Function, args: Vec<Expr>, span: &Span) -> Bind<Expr> {
        let described: Vec<Arg<'_>> = args
            .iter()
            .map(|a| Arg { ty: a.ty, constant: if let ExprKind::Const(value) = &a.kind { Some(value) } else { None } })
            .collect();
        let resolved = (function.resolve)(&described)
            .map_err(|why| Diagnostic::semantic("SEM0021", span.clone(), format!("{}: {why}", described_function(function.name))))?;
        let mut converted = Vec::with_capacity(args.len());
        for (index, arg) in args.into_iter().enumerate() {
            let wanted = resolved.args.get(index).copied().unwrap_or(arg.ty);
            converted.push(self.convert(arg, wanted, span)?);
        }
        let call = Expr { ty: resolved.ty, kind: ExprKind::Call { function: function.name, args: converted } };
        Ok(self.folded(call, function.volatile))
    }

    /// The value of a call whose arguments are all constant.
    fn folded(&mut self, call: Expr, volatile: bool) -> Expr {
        let ExprKind::Call { args, function } = &call.kind else { return call };
        let volatile = volatile || self.any_time && matches!(*function, "now" | "ago");
        if volatile || !args.iter().all(|a| matches!(a.kind, ExprKind::Const(_))) {
            return call;
        }
        let value = crate::eval::eval(&call, &[], &mut self.eval);
        Expr::constant(non_null_string(&value, call.ty), call.ty)
    }

    /// Converts implicitly.
    pub(super) fn convert(&mut self, expr: Expr, ty: Type, span: &Span) -> Bind<Expr> {
        if let ExprKind::Const(Value::Null) = expr.kind {
            return Ok(Expr::constant(Value::null_of(ty), ty));
        }
        let Some(name) = functions::conversion(expr.ty, ty) else { return Ok(expr) };
        let Some(function) = functions::lookup(name) else {
            return Err(Diagnostic::unsupported(span.clone(), format!("the conversion of {} to {ty}", expr.ty)));
        };
        let call = Expr { ty, kind: ExprKind::Call { function: function.name, args: vec![expr] } };
        Ok(self.folded(call, function.volatile))
    }

    /// The value of an expression that has to be constant; sub-queries are run.
    pub(super) fn constant(&mut self, expr: &ast::Expr, cx: &Cx<'_>) -> Bind<(Value, Type)> {
        let outside = Cx { row: None, aggregates: None, ..*cx };
        let bound = self.scalar(expr, &outside)?;
        let value = self.constant_value(&bound).ok_or_else(|| {
            let message = format!("{}a constant is expected here", prefix(cx.operator));
            Diagnostic::semantic("SEM0039", expr.span.clone(), message)
        })?;
        // a sub-query that cannot be run does not know its place
        let value = value.map_err(|diagnostic| Diagnostic { span: expr.span.clone(), ..diagnostic })?;
        Ok((value, bound.ty))
    }

    /// The value of a bound expression without columns; None when it has some.
    pub(super) fn constant_value(&mut self, expr: &Expr) -> Option<Bind<Value>> {
        if let ExprKind::Const(value) = &expr.kind {
            return Some(Ok(value.clone()));
        }
        if reads_columns(expr) {
            return None;
        }
        let columns = vec![Column::new("value", expr.ty)];
        let one_row = crate::tree::Rel { columns: Vec::new(), op: crate::tree::RelOp::Values(Arc::new(vec![Vec::new()])) };
        let rel = crate::tree::Rel { columns, op: crate::tree::RelOp::Project(Box::new(one_row), vec![expr.clone()]) };
        let rows = match self.catalog.run(&rel) {
            Ok(rows) => rows,
            Err(why) => return Some(Err(Diagnostic::semantic("SEM0001", 0..0, why))),
        };
        Some(Ok(rows.rows.into_iter().next().and_then(|row| row.into_iter().next()).unwrap_or(Value::Null)))
    }

    /// A constant whole number that is not negative, such as the count of `take`.
    pub(super) fn count_constant(&mut self, expr: &ast::Expr, cx: &Cx<'_>) -> Bind<u64> {
        let number = match self.constant(expr, cx)?.0 {
            Value::Long(n) => u64::try_from(n).ok(),
            Value::Int(n) => u64::try_from(n).ok(),
            Value::Real(x) if x >= 0.0 && x < u64::MAX as f64 => Some(x as u64),
            _ => None,
        };
        number.ok_or_else(|| {
            let message = format!("{}a number of rows that is not negative is expected here", prefix(cx.operator));
            Diagnostic::semantic("SEM0001", expr.span.clone(), message)
        })
    }
}

fn described_function(name: &str) -> String {
    if name.starts_with(|c: char| c.is_ascii_alphabetic()) { format!("{name}()") } else { format!("operator '{name}'") }
}

/// The columns that `$left`, `$right` or the name of a `scan` step stand for, and the position of the first.
fn qualified<'c>(qualifier: &str, row: &Row<'c>) -> Option<(usize, &'c [Column])> {
    if let Some(right) = row.right {
        return match qualifier {
            "$left" => Some((0, row.columns)),
            "$right" => Some((row.columns.len(), right)),
            _ => None,
        };
    }
    let step = row.steps.iter().position(|s| s == qualifier)?;
    Some((row.columns.len() + step * row.state_columns.len(), row.state_columns))
}

/// Position and type of a column.
pub(super) fn find(columns: &[Column], name: &str) -> Option<(usize, Type)> {
    columns.iter().position(|c| c.name == name).map(|index| (index, columns[index].ty))
}

/// `'where' operator: `, or nothing outside of operators.
pub(super) fn prefix(operator: &str) -> String {
    match operator {
        "" | "let" | "declare" => String::new(),
        _ => format!("'{operator}' operator: "),
    }
}

/// The error for a name that is neither column nor scalar; clients look for these words.
pub(super) fn unresolved(name: &str, span: &Span, cx: &Cx<'_>) -> Diagnostic {
    let what = if cx.row.is_some() { "column or scalar expression" } else { "table or column expression" };
    let message = format!("{}Failed to resolve {what} named '{name}'", prefix(cx.operator));
    Diagnostic::semantic("SEM0100", span.clone(), message)
}

/// A null of type string is the empty string.
fn non_null_string(value: &Value, ty: Type) -> Value {
    if value.is_null() { Value::null_of(ty) } else { value.clone() }
}

/// Whether a column is read, or the rows are looked at otherwise.
pub(super) fn reads_columns(expr: &Expr) -> bool {
    match &expr.kind {
        ExprKind::Column(_) | ExprKind::Window { .. } => true,
        ExprKind::Const(_) | ExprKind::ScalarSubquery(_) => false,
        ExprKind::Call { args, .. } => args.iter().any(reads_columns),
        ExprKind::InSubquery { needle, .. } => reads_columns(needle),
    }
}

/// Whether a window function is used.
pub(super) fn has_window(expr: &Expr) -> bool {
    match &expr.kind {
        ExprKind::Window { .. } => true,
        ExprKind::Call { args, .. } => args.iter().any(has_window),
        ExprKind::InSubquery { needle, .. } => has_window(needle),
        ExprKind::Const(_) | ExprKind::Column(_) | ExprKind::ScalarSubquery(_) => false,
    }
}

/// Nodes and height.
fn measure(expr: &Expr) -> (usize, usize) {
    let below = |args: &[Expr]| args.iter().map(measure).fold((1, 0), |(nodes, height), (n, h)| (nodes + n, height.max(h)));
    let (nodes, height) = match &expr.kind {
        ExprKind::Call { args, .. } | ExprKind::Window { args, .. } => below(args),
        ExprKind::InSubquery { needle, .. } => below(std::slice::from_ref(needle)),
        ExprKind::Const(_) | ExprKind::Column(_) | ExprKind::ScalarSubquery(_) => (1, 0),
    };
    (nodes, height + 1)
}
