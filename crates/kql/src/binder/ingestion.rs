//! `ingestion_time()`: a hidden column of stored tables, which is there while an operator of the pipe asks for it.

use super::project::identity;
use super::scope::{Cx, Table};
use super::table::with_op;
use super::{Bind, Binder};
use crate::ast::{self, ExprKind as Ast, Operator, OperatorKind as Op};
use crate::tree::{Expr, Rel, RelOp};
use crate::types::{Column, Type};
use crate::value::Value;

/// Name of the hidden column, in [`RelOp::Table`] too; no column of a user's can have it.
pub const INGESTION_TIME: &str = "$ingestion_time";
const FUNCTION: &str = "ingestion_time";

impl Binder<'_> {
    /// The value of the call: null where the rows are not those of a table.
    pub(super) fn ingestion_time(&self, expr: &ast::Expr, cx: &Cx<'_>) -> Bind<Expr> {
        let column = cx.row.and_then(|row| row.columns.iter().position(|column| column.name == INGESTION_TIME));
        match column {
            Some(index) => self.column(index, Type::DateTime, INGESTION_TIME, expr, cx),
            None => Ok(Expr::constant(Value::Null, Type::DateTime)),
        }
    }
}

/// How many of the operators have to be passed until none asks for the time of ingestion any more.
pub(super) fn asked_for(operators: &[Operator]) -> usize {
    operators.iter().rposition(operator_asks).map_or(0, |at| at + 1)
}

fn operator_asks(operator: &Operator) -> bool {
    let any = |exprs: &[ast::Expr]| exprs.iter().any(asks);
    let keys = |keys: &[ast::Ordered]| keys.iter().any(|key| asks(&key.expr));
    match &operator.kind {
        Op::Where(expr) => asks(expr),
        Op::Project(exprs) | Op::Extend(exprs) | Op::Distinct(exprs) | Op::Serialize(exprs) => any(exprs),
        Op::Summarize { aggregates, keys, .. } => any(aggregates) || any(keys),
        Op::Sort(by) | Op::Top { by, .. } => keys(by),
        _ => false,
    }
}

/// Whether a scalar expression has the call in it; a query inside of it has its own rows.
fn asks(expr: &ast::Expr) -> bool {
    match &expr.kind {
        Ast::Call(name, arguments) => name.text == FUNCTION || arguments.iter().any(|argument| asks(&argument.value)),
        Ast::Member(base, _) | Ast::Unary(_, base) | Ast::Assign(_, base) => asks(base),
        Ast::Index(left, right) | Ast::Binary(_, left, right) => asks(left) || asks(right),
        Ast::List(_, left, items) => asks(left) || items.iter().any(asks),
        Ast::Between(_, value, low, high) => asks(value) || asks(low) || asks(high),
        _ => false,
    }
}

/// The table with the hidden column, if its rows are those of a stored one.
pub(super) fn exposed(mut table: Table) -> Table {
    if let Some(rel) = with_hidden(&table.rel) {
        table.rel = rel;
    }
    table
}

/// The table without the hidden column.
pub(super) fn hidden(table: Table) -> Table {
    let Some(at) = table.columns().iter().position(|column| column.name == INGESTION_TIME) else { return table };
    let name = table.name.clone();
    let mut exprs = identity(table.columns());
    exprs.remove(at);
    let mut columns = table.columns().to_vec();
    columns.remove(at);
    let mut table = with_op(table, columns, |rel| RelOp::Project(rel, exprs));
    table.name = name;
    table
}

fn with_hidden(rel: &Rel) -> Option<Rel> {
    let mut columns = rel.columns.clone();
    columns.push(Column::new(INGESTION_TIME, Type::DateTime));
    let inner = |input: &Rel| with_hidden(input).map(Box::new);
    let op = match &rel.op {
        RelOp::Table { .. } => rel.op.clone(),
        RelOp::Filter(input, predicate) => RelOp::Filter(inner(input)?, predicate.clone()),
        RelOp::Take(input, count) => RelOp::Take(inner(input)?, *count),
        RelOp::Sort(input, keys) => RelOp::Sort(inner(input)?, keys.clone()),
        RelOp::Serialize(input) => RelOp::Serialize(inner(input)?),
        RelOp::Project(input, exprs) => {
            let below = inner(input)?;
            let mut exprs = exprs.clone();
            exprs.push(Expr::column(below.columns.len() - 1, Type::DateTime));
            RelOp::Project(below, exprs)
        }
        RelOp::Union(inputs) => RelOp::Union(inputs.iter().map(with_hidden).collect::<Option<_>>()?),
        _ => return None,
    };
    // a column of that name is there already
    (!rel.columns.iter().any(|column| column.name == INGESTION_TIME)).then_some(Rel { columns, op })
}
