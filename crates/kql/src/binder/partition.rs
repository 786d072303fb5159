//! `partition`, `top-nested`: work by group.

use super::expand::argument;
use super::expr::{find, prefix};
use super::names::{self, Unique};
use super::project::row_context;
use super::scope::{Cx, Env, Table};
use super::table::with_op;
use super::{Bind, Binder};
use crate::ast::{self, ExprKind as Ast, PartitionBody};
use crate::diagnostic::Diagnostic;
use crate::tree::{Expr, RelOp, TopNestedLevel};
use crate::types::{Column, Type};
use crate::value::Value;

impl Binder<'_> {
    pub(super) fn partition(&mut self, input: Table, key: &ast::Expr, body: &PartitionBody, env: &Env) -> Bind<Table> {
        let name = names::of(key).filter(|_| matches!(key.kind, Ast::Name(_)));
        let Some((at, _)) = name.as_deref().and_then(|name| find(input.columns(), name)) else {
            let message = format!("{}Failed to resolve column named '{}'", prefix("partition"), name.unwrap_or_default());
            return Err(Diagnostic::semantic("SEM0100", key.span.clone(), message));
        };
        let subquery = match body {
            PartitionBody::Operators(operators) => self.operators(argument(input.columns().to_vec()), operators, env)?,
            PartitionBody::Legacy(expr) => {
                return Err(Diagnostic::unsupported(expr.span.clone(), "partition with a sub-query in braces"));
            }
        };
        let size = input.size.beside(subquery.size) + 1;
        let columns = subquery.columns().to_vec();
        let op = RelOp::Partition { input: Box::new(input.rel), key: at, subquery: Box::new(subquery.rel) };
        Ok(Table::new(columns, op, size))
    }

    pub(super) fn top_nested(&mut self, input: Table, levels: &[ast::TopNestedLevel], env: &Env) -> Bind<Table> {
        let scope = self.new_scope();
        let cx = row_context(&input, env, scope, "top-nested");
        let mut names = Unique::new();
        let mut columns = Vec::new();
        let mut bound = Vec::with_capacity(levels.len());
        for level in levels {
            let count = match &level.count {
                Some(count) => Some(self.count_constant(count, &cx)?),
                None => None,
            };
            let (name, _, of) = self.key(&level.of, &cx)?;
            let name = names.of(name);
            let others = match &level.others {
                Some(others) => Some(self.others(others, of.ty, &cx)?),
                None => None,
            };
            let (given, _, by) = self.lone_aggregate(&level.by.expr, &cx)?;
            let by_name = names.name(&given.unwrap_or_else(|| format!("aggregated_{name}")));
            columns.push(Column::new(name, of.ty));
            columns.push(Column::new(by_name, by.ty));
            bound.push(TopNestedLevel { count, of, others, by, ascending: level.by.descending == Some(false) });
        }
        Ok(with_op(input, columns, |input| RelOp::TopNested { input, levels: bound }))
    }

    fn others(&mut self, others: &ast::Expr, ty: Type, cx: &Cx<'_>) -> Bind<Value> {
        let (value, from) = self.constant(others, cx)?;
        let converted = self.convert(Expr::constant(value, from), ty, &others.span)?;
        self.constant_value(&converted).unwrap_or(Ok(Value::Null))
    }
}
