//! `sort`, `top`, `take`, `count`, `sample`.

use super::project::row_context;
use super::scope::{Cx, Env, Table};
use super::table::with_op;
use super::{Bind, Binder};
use crate::ast::{self, Name, Ordered};
use crate::diagnostic::Diagnostic;
use crate::tree::{RelOp, SortKey};
use crate::types::{Column, Type};

impl Binder<'_> {
    pub(super) fn sort(&mut self, input: Table, keys: &[Ordered], env: &Env) -> Bind<Table> {
        self.sorted(input, keys, env, "sort")
    }

    fn sorted(&mut self, input: Table, keys: &[Ordered], env: &Env, operator: &str) -> Bind<Table> {
        let scope = self.new_scope();
        let cx = row_context(&input, env, scope, operator);
        let keys = self.sort_keys(keys, &cx)?;
        Ok(with_op(input, Vec::new(), |rel| RelOp::Sort(rel, keys)))
    }

    /// Descending unless said otherwise; nulls last when descending, first when ascending.
    fn sort_keys(&mut self, keys: &[Ordered], cx: &Cx<'_>) -> Bind<Vec<SortKey>> {
        let mut bound = Vec::with_capacity(keys.len());
        for key in keys {
            let expr = self.scalar(&key.expr, cx)?;
            if expr.ty == Type::Dynamic {
                let message = format!("{}cannot order by a dynamic; cast it first", super::expr::prefix(cx.operator));
                return Err(Diagnostic::semantic("SEM0001", key.expr.span.clone(), message));
            }
            if super::expr::has_window(&expr) {
                return Err(Diagnostic::unsupported(key.expr.span.clone(), "a window function as sort key"));
            }
            let descending = key.descending.unwrap_or(true);
            bound.push(SortKey { expr, descending, nulls_first: key.nulls_first.unwrap_or(!descending) });
        }
        Ok(bound)
    }

    pub(super) fn top(&mut self, input: Table, count: &ast::Expr, by: &[Ordered], env: &Env) -> Bind<Table> {
        let count = self.count_constant(count, &Cx::constant(env, "top"))?;
        let sorted = self.sorted(input, by, env, "top")?;
        Ok(with_op(sorted, Vec::new(), |rel| RelOp::Take(rel, count)))
    }

    pub(super) fn take(&mut self, input: Table, count: &ast::Expr, env: &Env) -> Bind<Table> {
        let count = self.count_constant(count, &Cx::constant(env, "take"))?;
        Ok(with_op(input, Vec::new(), |rel| RelOp::Take(rel, count)))
    }

    pub(super) fn count(&mut self, input: Table, name: Option<&Name>) -> Table {
        let column = Column::new(name.map_or("Count", |n| n.text.as_str()), Type::Long);
        with_op(input, vec![column], RelOp::Count)
    }

    /// `sample n`, `sample-distinct n of column`
    pub(super) fn sample(&mut self, input: Table, count: &ast::Expr, of: Option<&ast::Expr>, env: &Env) -> Bind<Table> {
        let operator = if of.is_some() { "sample-distinct" } else { "sample" };
        let count = self.count_constant(count, &Cx::constant(env, operator))?;
        let Some(of) = of else {
            return Ok(with_op(input, Vec::new(), |input| RelOp::Sample { input, count, column: None }));
        };
        let projected = self.project(input, std::slice::from_ref(of), env, operator)?;
        Ok(with_op(projected, Vec::new(), |input| RelOp::Sample { input, count, column: Some(0) }))
    }
}
