//! Makes expressions ready to be lowered: runs their sub-queries, folds constants.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use kql::tree::{Expr, ExprKind, Rel, RelOp};
use kql::{Type, Value};

use super::{Planner, walk};
use crate::engine::error::EngineError;
use crate::engine::scalar;

impl Planner {
    /// The expression with sub-queries replaced by their results and constant calls by their values.
    pub(super) async fn prepare(&self, expr: &Expr) -> Result<Expr, EngineError> {
        let answered = if kql::rows::has_subquery(expr) { self.answer(expr).await? } else { expr.clone() };
        Ok(scalar::fold(&answered, &self.evaluation))
    }

    fn answer<'a>(&'a self, expr: &'a Expr) -> BoxFuture<'a, Result<Expr, EngineError>> {
        async move {
            let mut operands = Vec::new();
            for operand in walk::operands(expr) {
                operands.push(self.answer(operand).await?);
            }
            let kind = match &expr.kind {
                ExprKind::ScalarSubquery(query) => {
                    let first = self.first_column(query, Some(1)).await?.first().cloned();
                    ExprKind::Const(first.unwrap_or_else(|| Value::null_of(expr.ty)))
                }
                ExprKind::InSubquery { query, negated, case_insensitive, .. } => {
                    let values = self.first_column(query, None).await?;
                    let ty = query.columns.first().map_or(Type::String, |column| column.ty);
                    operands.extend(values.iter().map(|value| Expr::constant(value.clone(), ty)));
                    ExprKind::Call { function: membership(*negated, *case_insensitive), args: operands }
                }
                ExprKind::Call { function, .. } => ExprKind::Call { function, args: operands },
                ExprKind::Window { function, .. } => ExprKind::Window { function, args: operands },
                leaf @ (ExprKind::Const(_) | ExprKind::Column(_)) => leaf.clone(),
            };
            Ok(Expr { ty: expr.ty, kind })
        }
        .boxed()
    }

    /// The values of a sub-query's first column; run once, however often the query mentions it.
    async fn first_column(&self, query: &Arc<Rel>, limit: Option<u64>) -> Result<Arc<Vec<Value>>, EngineError> {
        // The query outlives the run, so the address names the tree.
        let address = Arc::as_ptr(query) as usize;
        if let Some(known) = self.answers.lock().get(&address) {
            return Ok(Arc::clone(known));
        }
        let rel = match limit {
            Some(count) => Rel { columns: query.columns.clone(), op: RelOp::Take(Box::new((**query).clone()), count) },
            None => (**query).clone(),
        };
        let (rows, _reserved) = self.rows(&rel).await?;
        let values = Arc::new(rows.rows.into_iter().filter_map(|row| row.into_iter().next()).collect::<Vec<_>>());
        self.answers.lock().insert(address, Arc::clone(&values));
        Ok(values)
    }

    /// An operator for [`kql::rows::apply`]: its expressions are prepared, and trees inside its sub-query that do not
    /// depend on the row at hand are run.
    pub(super) fn prepare_operator<'a>(&'a self, rel: &'a mut Rel) -> BoxFuture<'a, Result<(), EngineError>> {
        async move {
            for expr in walk::expressions_mut(&mut rel.op) {
                *expr = self.prepare(expr).await?;
            }
            if let Some(subquery) = walk::subquery_mut(&mut rel.op) {
                self.prepare_subquery(subquery).await?;
            }
            Ok(())
        }
        .boxed()
    }

    fn prepare_subquery<'a>(&'a self, rel: &'a mut Rel) -> BoxFuture<'a, Result<(), EngineError>> {
        async move {
            let independent = !walk::any(rel, &|op| matches!(op, RelOp::Argument));
            let reads = walk::any(rel, &|op| matches!(op, RelOp::Table { .. } | RelOp::Materialize(_)));
            if independent && reads {
                let (rows, reserved) = self.rows(rel).await?;
                self.keep(reserved);
                rel.op = RelOp::Values(Arc::new(rows.rows));
                return Ok(());
            }
            if let RelOp::Materialize(shared) = &rel.op {
                let mut own = (**shared).clone();
                self.prepare_subquery(&mut own).await?;
                rel.op = RelOp::Materialize(Arc::new(own));
                return Ok(());
            }
            self.prepare_operator(rel).await?;
            for input in walk::inputs_mut(&mut rel.op) {
                self.prepare_subquery(input).await?;
            }
            Ok(())
        }
        .boxed()
    }
}

fn membership(negated: bool, case_insensitive: bool) -> &'static str {
    match (negated, case_insensitive) {
        (false, false) => "in",
        (true, false) => "!in",
        (false, true) => "in~",
        (true, true) => "!in~",
    }
}
