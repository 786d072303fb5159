//! Joins. Nulls match nulls; the default kind takes the first row of each key on the left; strings of a side without
//! a match are empty.

use datafusion::arrow::array::{ArrayRef, UInt64Array};
use datafusion::arrow::compute::take_record_batch;
use datafusion::common::{Column as PlanColumn, JoinType, NullEquality};
use datafusion::functions::core::expr_fn::coalesce;
use datafusion::logical_expr::{Expr as PlanExpr, LogicalPlan, LogicalPlanBuilder, col, lit};
use futures::TryStreamExt;
use kql::tree::{Expr, ExprKind, JoinKind, Rel, RelOp};
use kql::{Column, Type};

use super::fold::FirstRows;
use super::{Planner, column_of};
use crate::engine::error::EngineError;
use crate::engine::values::{arrow_type, column_name, dictionary_type};

impl Planner {
    pub(super) async fn join(&self, left: &Rel, right: &Rel, kind: JoinKind, on: &[(Expr, Expr)]) -> Result<LogicalPlan, EngineError> {
        let mut keys = (Vec::new(), Vec::new());
        for (of_left, of_right) in on {
            keys.0.push(self.prepare(of_left).await?);
            keys.1.push(self.prepare(of_right).await?);
        }
        let left_plan = if kind == JoinKind::InnerUnique && !is_unique(left, &keys.0) {
            self.first_rows(left, &keys.0).await?
        } else {
            self.plan(left).await?
        };
        let left_side = self.side("l", left_plan, &keys.0)?;
        let right_side = self.side("r", self.plan(right).await?, &keys.1)?;
        let joined = match on.len() {
            0 if matches!(kind, JoinKind::Inner | JoinKind::InnerUnique) => LogicalPlanBuilder::new(left_side).cross_join(right_side)?,
            count => {
                let names = |prefix: &str| (0..count).map(|key| key_column(prefix, key)).collect::<Vec<_>>();
                let on = (names("l"), names("r"));
                let equality = NullEquality::NullEqualsNull;
                LogicalPlanBuilder::new(left_side).join_detailed(right_side, join_type(kind), on, None, equality)?
            }
        };
        let mut outputs = Vec::new();
        if !matches!(kind, JoinKind::RightSemi | JoinKind::RightAnti) {
            outputs.extend(side_columns("l", &left.columns, matches!(kind, JoinKind::RightOuter | JoinKind::FullOuter)));
        }
        if !matches!(kind, JoinKind::LeftSemi | JoinKind::LeftAnti) {
            outputs.extend(side_columns("r", &right.columns, matches!(kind, JoinKind::LeftOuter | JoinKind::FullOuter)));
        }
        let schema = std::sync::Arc::clone(joined.schema());
        let outputs: Vec<PlanExpr> =
            outputs.into_iter().enumerate().map(|(index, output)| output.expr(&schema).alias(column_name(index))).collect();
        Ok(joined.project(outputs)?.build()?)
    }

    /// A side with its columns named by it, and its keys as columns.
    fn side(&self, prefix: &str, plan: LogicalPlan, keys: &[Expr]) -> Result<LogicalPlan, EngineError> {
        let width = plan.schema().fields().len();
        let mut exprs: Vec<PlanExpr> = (0..width).map(|index| column_of(&plan, index).alias(side_column(prefix, index))).collect();
        exprs.extend(keys.iter().enumerate().map(|(at, key)| self.lower_key(key, &plan).alias(key_name(prefix, at))));
        Ok(LogicalPlanBuilder::new(plan).project(exprs)?.build()?)
    }

    /// The first row of each key, in order, as a table in memory.
    async fn first_rows(&self, rel: &Rel, keys: &[Expr]) -> Result<LogicalPlan, EngineError> {
        let plan = self.plan(rel).await?;
        let width = rel.columns.len();
        let mut exprs: Vec<PlanExpr> = (0..width).map(|index| column_of(&plan, index)).collect();
        exprs.extend(keys.iter().enumerate().map(|(at, key)| self.lower_key(key, &plan).alias(key_name("k", at))));
        let plan = LogicalPlanBuilder::new(plan).project(exprs)?.build()?;
        let mut stream = self.execute(&plan).await?;
        let schema = std::sync::Arc::new(stream.schema().project(&(0..width).collect::<Vec<_>>())?);
        let held = self.reservation("left side of join");
        let mut first = FirstRows::new(keys)?;
        let mut batches = Vec::new();
        while let Some(batch) = stream.try_next().await? {
            let keys: Vec<ArrayRef> = batch.columns()[width..].to_vec();
            let rows: UInt64Array = first.of(&keys)?.into_iter().map(|row| row as u64).collect();
            if rows.is_empty() {
                continue;
            }
            let kept = take_record_batch(&batch.project(&(0..width).collect::<Vec<_>>())?, &rows)?;
            held.try_grow(kept.get_array_memory_size() + rows.len() * 64)?;
            batches.push(kept);
        }
        let staged = self.stage_batches(schema, batches, held)?;
        self.scan_staged(staged)
    }
}

fn join_type(kind: JoinKind) -> JoinType {
    match kind {
        JoinKind::InnerUnique | JoinKind::Inner => JoinType::Inner,
        JoinKind::LeftOuter => JoinType::Left,
        JoinKind::RightOuter => JoinType::Right,
        JoinKind::FullOuter => JoinType::Full,
        JoinKind::LeftSemi => JoinType::LeftSemi,
        JoinKind::RightSemi => JoinType::RightSemi,
        JoinKind::LeftAnti => JoinType::LeftAnti,
        JoinKind::RightAnti => JoinType::RightAnti,
    }
}

fn side_column(prefix: &str, index: usize) -> String {
    format!("{prefix}{index}")
}

fn key_name(prefix: &str, index: usize) -> String {
    format!("{prefix}key{index}")
}

fn key_column(prefix: &str, index: usize) -> PlanColumn {
    PlanColumn::new_unqualified(key_name(prefix, index))
}

struct Output {
    name: String,
    ty: Type,
    /// Whether rows without a match have nulls here.
    may_miss: bool,
}

impl Output {
    fn expr(&self, schema: &datafusion::common::DFSchema) -> PlanExpr {
        let column = col(&self.name);
        if !self.may_miss || self.ty != Type::String {
            return column;
        }
        let dictionary = schema.field_with_unqualified_name(&self.name).is_ok_and(|field| *field.data_type() == dictionary_type());
        let text = if dictionary { datafusion::logical_expr::cast(column, arrow_type(Type::String)) } else { column };
        coalesce(vec![text, lit("")])
    }
}

fn side_columns<'a>(prefix: &'a str, columns: &'a [Column], may_miss: bool) -> impl Iterator<Item = Output> + 'a {
    columns.iter().enumerate().map(move |(index, column)| Output { name: side_column(prefix, index), ty: column.ty, may_miss })
}

/// Whether each key occurs once anyway: the input is grouped by columns that are all among the keys.
fn is_unique(rel: &Rel, keys: &[Expr]) -> bool {
    let is_key = |column: usize| keys.iter().any(|key| matches!(key.kind, ExprKind::Column(index) if index == column));
    match &rel.op {
        RelOp::Summarize { keys: groups, .. } => (0..groups.len()).all(is_key),
        RelOp::Distinct(_) => (0..rel.columns.len()).all(is_key),
        _ => false,
    }
}
