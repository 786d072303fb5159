//! An expression compiled for arrays: a tree of kernels, with row evaluation where there is none.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Int32Type};
use kql::tree::{Expr, ExprKind};
use kql::{Type, Value, eval};

use super::dictionary::Dictionaries;
use super::kernel::{Call, Evaluation, Kernel, Selected};
use super::{arithmetic, compare, is_volatile, path, text};
use crate::engine::error::EngineError;
use crate::engine::values::{ColumnBuilder, ColumnReader, arrow_type, scalar_value};

/// A compiled expression.
#[derive(Debug)]
pub(super) struct Program {
    root: Node,
}

#[derive(Debug)]
struct Node {
    ty: Type,
    kind: NodeKind,
    /// The only column below, if it is only one and the result depends on nothing else.
    only_column: Option<usize>,
    dictionaries: Dictionaries,
}

#[derive(Debug)]
enum NodeKind {
    Column(usize),
    Const(Value),
    Kernel(Box<dyn Kernel>, Vec<Node>),
    /// Evaluated row by row; its columns are the results of the nodes.
    Rows(Expr, Vec<Node>),
}

impl Program {
    /// Compiles an expression; column `i` is the `i`-th array of [`Program::evaluate`].
    pub(super) fn compile(expr: &Expr) -> Program {
        Program { root: Node::compile(expr) }
    }

    /// The value for each of `rows` rows.
    pub(super) fn evaluate(&self, columns: &[ArrayRef], rows: usize, evaluation: &Evaluation) -> Result<ArrayRef, EngineError> {
        self.root.evaluate(&Input { columns, rows }, evaluation)
    }
}

struct Input<'a> {
    columns: &'a [ArrayRef],
    rows: usize,
}

impl Node {
    fn compile(expr: &Expr) -> Node {
        let kind = match &expr.kind {
            ExprKind::Column(index) => NodeKind::Column(*index),
            ExprKind::Const(value) => NodeKind::Const(value.clone()),
            _ => match select(expr) {
                Some(Selected { kernel, args }) => NodeKind::Kernel(kernel, args.into_iter().map(Node::compile).collect()),
                None => {
                    let mut inputs = Vec::new();
                    let expr = split(expr, &mut inputs);
                    NodeKind::Rows(expr, inputs)
                }
            },
        };
        let only_column = if is_volatile(expr) { None } else { only_column(&kind) };
        Node { ty: expr.ty, kind, only_column, dictionaries: Dictionaries::default() }
    }

    fn evaluate(&self, input: &Input<'_>, evaluation: &Evaluation) -> Result<ArrayRef, EngineError> {
        if let (Some(index), NodeKind::Kernel(..) | NodeKind::Rows(..)) = (self.only_column, &self.kind)
            && let Some(dictionary) = input.columns[index].as_dictionary_opt::<Int32Type>()
        {
            let distinct = |values: &ArrayRef| {
                let mut columns = input.columns.to_vec();
                columns[index] = Arc::clone(values);
                self.compute(&Input { columns: &columns, rows: values.len() }, evaluation)
            };
            return self.dictionaries.evaluate(dictionary, distinct);
        }
        self.compute(input, evaluation)
    }

    fn compute(&self, input: &Input<'_>, evaluation: &Evaluation) -> Result<ArrayRef, EngineError> {
        match &self.kind {
            NodeKind::Column(index) => plain(&input.columns[*index], self.ty),
            NodeKind::Const(value) => Ok(scalar_value(value, self.ty).to_array_of_size(input.rows)?),
            NodeKind::Kernel(kernel, args) => {
                let args = args.iter().map(|arg| arg.evaluate(input, evaluation)).collect::<Result<Vec<_>, _>>()?;
                kernel.run(&args, evaluation)
            }
            NodeKind::Rows(expr, nodes) => {
                let readers = nodes.iter().map(|node| node.reader(input, evaluation)).collect::<Result<Vec<_>, _>>()?;
                evaluate_rows(expr, readers, input.rows, evaluation)
            }
        }
    }

    fn reader(&self, input: &Input<'_>, evaluation: &Evaluation) -> Result<ColumnReader, EngineError> {
        match &self.kind {
            // A reader copes with dictionaries itself.
            NodeKind::Column(index) => ColumnReader::new(&input.columns[*index], self.ty),
            _ => ColumnReader::new(&self.evaluate(input, evaluation)?, self.ty),
        }
    }
}

fn only_column(kind: &NodeKind) -> Option<usize> {
    match kind {
        NodeKind::Column(index) => Some(*index),
        NodeKind::Const(_) => None,
        NodeKind::Kernel(_, nodes) | NodeKind::Rows(_, nodes) => {
            let mut columns = nodes.iter().filter(|node| !matches!(node.kind, NodeKind::Const(_))).map(|node| node.only_column);
            let first = columns.next()??;
            columns.all(|column| column == Some(first)).then_some(first)
        }
    }
}

/// The kernel for an expression, if it has one.
fn select(expr: &Expr) -> Option<Selected<'_>> {
    let ExprKind::Call { function, args } = &expr.kind else { return None };
    let call = Call { function, args, ty: expr.ty };
    compare::select(&call).or_else(|| arithmetic::select(&call)).or_else(|| path::select(&call)).or_else(|| text::select(&call))
}

/// The expression with everything that a kernel or a column gives replaced by a column of its own.
fn split(expr: &Expr, inputs: &mut Vec<Node>) -> Expr {
    match &expr.kind {
        ExprKind::Const(_) => expr.clone(),
        ExprKind::Call { function, args } if select(expr).is_none() => {
            let args = args.iter().map(|arg| split(arg, inputs)).collect();
            Expr { ty: expr.ty, kind: ExprKind::Call { function, args } }
        }
        ExprKind::Column(index) => {
            let known = inputs.iter().position(|node| matches!(node.kind, NodeKind::Column(other) if other == *index));
            let position = known.unwrap_or_else(|| {
                inputs.push(Node::compile(expr));
                inputs.len() - 1
            });
            Expr::column(position, expr.ty)
        }
        _ => {
            inputs.push(Node::compile(expr));
            Expr::column(inputs.len() - 1, expr.ty)
        }
    }
}

fn evaluate_rows(expr: &Expr, mut readers: Vec<ColumnReader>, rows: usize, evaluation: &Evaluation) -> Result<ArrayRef, EngineError> {
    let mut builder = ColumnBuilder::new(expr.ty);
    evaluation.with(|context| {
        let mut row = vec![Value::Null; readers.len()];
        for index in 0..rows {
            row.iter_mut().zip(&mut readers).for_each(|(value, reader)| *value = reader.value(index));
            builder.push(&eval::eval(expr, &row, context));
        }
    });
    builder.finish()
}

/// The array in the usual storage of its type, strings without nulls.
fn plain(array: &ArrayRef, ty: Type) -> Result<ArrayRef, EngineError> {
    let stored = if *array.data_type() == arrow_type(ty) { Arc::clone(array) } else { cast(array, &arrow_type(ty))? };
    if ty == Type::String && stored.null_count() > 0 && *stored.data_type() == DataType::Utf8 {
        return Ok(Arc::new(crate::engine::values::without_nulls(stored.as_string::<i32>().clone())));
    }
    Ok(stored)
}
