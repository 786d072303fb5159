//! Keys of dynamic columns that storage has as columns: `Body.message` of a stored table becomes a column of the table,
//! which the operators between the table and the expression carry along.

use kql::tree::{Expr, ExprKind, Rel, RelOp};
use kql::{Column, Type, Value};

use super::walk;
use crate::engine::source::{TableSource, key_field};

/// A key in a dynamic column of an operator's input.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Key {
    column: usize,
    key: String,
}

/// The tree, reading columns of keys where the source has them; its own columns stay the same.
pub(super) fn from_columns(rel: &Rel, source: &dyn TableSource) -> Rel {
    let mut rel = rel.clone();
    Rewrite { source }.whole(&mut rel);
    rel
}

struct Rewrite<'a> {
    source: &'a dyn TableSource,
}

impl Rewrite<'_> {
    /// Rewrites a tree whose columns must stay as they are.
    fn whole(&self, rel: &mut Rel) {
        let width = rel.columns.len();
        self.extend(rel, &[]);
        if rel.columns.len() > width {
            let columns = rel.columns[..width].to_vec();
            let exprs = columns.iter().enumerate().map(|(at, column)| Expr::column(at, column.ty)).collect();
            let input = std::mem::replace(rel, Rel { columns: Vec::new(), op: RelOp::Argument });
            *rel = Rel { columns, op: RelOp::Project(Box::new(input), exprs) };
        }
    }

    /// Rewrites a tree and appends columns for the wanted keys of its columns; the position of each that there is.
    fn extend(&self, rel: &mut Rel, wanted: &[Key]) -> Vec<Option<usize>> {
        match &mut rel.op {
            RelOp::Table { database, table } => {
                let schema = self.source.scan(database, table).filter(|_| !wanted.is_empty()).map(|provider| provider.schema());
                let mut position = |wanted: &Key| {
                    let column = rel.columns.get(wanted.column).filter(|column| column.ty == Type::Dynamic)?;
                    let name = key_field(&column.name, &wanted.key);
                    schema.as_ref()?.column_with_name(&name)?;
                    rel.columns.push(Column::new(name, Type::Dynamic));
                    Some(rel.columns.len() - 1)
                };
                wanted.iter().map(&mut position).collect()
            }
            RelOp::Filter(..) | RelOp::Sort(..) | RelOp::Serialize(_) | RelOp::Take(..) => {
                let (found, added) = self.operator(&mut rel.op, wanted);
                rel.columns.extend(added);
                found
            }
            RelOp::Project(..) => self.project(rel, wanted),
            RelOp::Summarize { .. } => {
                self.operator(&mut rel.op, &[]);
                vec![None; wanted.len()]
            }
            op => {
                walk::inputs_mut(op).into_iter().for_each(|input| self.whole(input));
                vec![None; wanted.len()]
            }
        }
    }

    /// An operator with one input that evaluates expressions over it: where the wanted keys of the input are, and the
    /// columns that were added to the input.
    fn operator(&self, op: &mut RelOp, wanted: &[Key]) -> (Vec<Option<usize>>, Vec<Column>) {
        let mut keys = wanted.to_vec();
        walk::expressions_mut(op).into_iter().for_each(|expr| collect(expr, &mut keys));
        let Some(input) = walk::inputs_mut(op).into_iter().next() else { return (vec![None; wanted.len()], Vec::new()) };
        let width = input.columns.len();
        let mut found = self.extend(input, &keys);
        let added = input.columns[width..].to_vec();
        walk::expressions_mut(op).into_iter().for_each(|expr| substitute(expr, &keys, &found));
        found.truncate(wanted.len());
        (found, added)
    }

    fn project(&self, rel: &mut Rel, wanted: &[Key]) -> Vec<Option<usize>> {
        let RelOp::Project(_, exprs) = &rel.op else { return vec![None; wanted.len()] };
        // a column that is handed on is one of the input's
        let below = |wanted: &Key| match exprs.get(wanted.column)?.kind {
            ExprKind::Column(column) => Some(Key { column, key: wanted.key.clone() }),
            _ => None,
        };
        let below: Vec<Option<Key>> = wanted.iter().map(below).collect();
        let keys: Vec<Key> = below.iter().flatten().cloned().collect();
        let mut found = self.operator(&mut rel.op, &keys).0.into_iter();
        let RelOp::Project(_, exprs) = &mut rel.op else { return vec![None; wanted.len()] };
        let mut position = |(below, wanted): (&Option<Key>, &Key)| {
            below.as_ref()?;
            let column = found.next()??;
            exprs.push(Expr::column(column, Type::Dynamic));
            rel.columns.push(Column::new(key_field(&rel.columns[wanted.column].name, &wanted.key), Type::Dynamic));
            Some(rel.columns.len() - 1)
        };
        below.iter().zip(wanted).map(&mut position).collect()
    }
}

/// The key that an expression reads from a column, if it is such an expression.
fn key_of(expr: &Expr) -> Option<Key> {
    let ExprKind::Call { function: "[]", args } = &expr.kind else { return None };
    match args.as_slice() {
        [Expr { ty: Type::Dynamic, kind: ExprKind::Column(column) }, Expr { kind: ExprKind::Const(Value::String(key)), .. }] => {
            Some(Key { column: *column, key: key.to_string() })
        }
        _ => None,
    }
}

fn collect(expr: &Expr, keys: &mut Vec<Key>) {
    match key_of(expr) {
        Some(key) if !keys.contains(&key) => keys.push(key),
        Some(_) => {}
        None => walk::operands(expr).into_iter().for_each(|operand| collect(operand, keys)),
    }
}

fn substitute(expr: &mut Expr, keys: &[Key], found: &[Option<usize>]) {
    let known = key_of(expr).and_then(|key| keys.iter().position(|other| *other == key));
    if let Some(column) = known.and_then(|known| found[known]) {
        *expr = Expr::column(column, Type::Dynamic);
        return;
    }
    walk::operands_mut(expr).into_iter().for_each(|operand| substitute(operand, keys, found));
}
