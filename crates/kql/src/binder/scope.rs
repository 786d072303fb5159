//! Where names are looked up: `let` statements and parameters in an environment, columns in the row at hand.

use std::cell::RefCell;
use std::rc::Rc;

use super::entity::Entity;
use crate::ast;
use crate::tree::{Aggregate, Expr, Rel, RelOp};
use crate::types::Column;

/// Names bound so far: a list that later statements extend and functions capture.
#[derive(Clone, Default)]
pub(super) struct Env(Option<Rc<Frame>>);

struct Frame {
    name: String,
    binding: Binding,
    parent: Env,
}

impl Drop for Frame {
    /// Frees a long chain without recursion.
    fn drop(&mut self) {
        let mut next = self.parent.0.take();
        while let Some(mut frame) = next.and_then(Rc::into_inner) {
            next = frame.parent.0.take();
        }
    }
}

impl Env {
    /// This environment with one more name, which hides an equal one.
    pub(super) fn with(&self, name: impl Into<String>, binding: Binding) -> Env {
        Env(Some(Rc::new(Frame { name: name.into(), binding, parent: self.clone() })))
    }

    /// What a name stands for.
    pub(super) fn get(&self, name: &str) -> Option<&Binding> {
        let mut env = self;
        while let Some(frame) = &env.0 {
            if frame.name == name {
                return Some(&frame.binding);
            }
            env = &frame.parent;
        }
        None
    }

    /// Names of the views (`let name = view () { … }`) that match, oldest first: patterns of `union` find them.
    pub(super) fn views(&self, matches: impl Fn(&str) -> bool) -> Vec<String> {
        let mut names = Vec::new();
        let mut env = self;
        while let Some(frame) = &env.0 {
            let is_view = matches!(&frame.binding, Binding::Function(function) if function.view);
            if is_view && matches(&frame.name) && !names.contains(&frame.name) {
                names.push(frame.name.clone());
            }
            env = &frame.parent;
        }
        names.reverse();
        names
    }
}

/// What a name stands for.
#[derive(Clone)]
pub(super) enum Binding {
    /// A scalar expression. If it reads columns, they are those of the row scope of that number.
    Scalar(Expr, Option<usize>),
    /// A table.
    Table(Rc<Table>),
    /// A function.
    Function(Rc<Callable>),
    /// What `macro-expand` runs its sub-query for.
    Entity(Rc<Entity>),
    /// What `entity_group [...]` names.
    Group(Rc<Vec<Entity>>),
    /// A query parameter that got no value: an error once it is used.
    Missing,
}

/// A function with the names it sees.
pub(super) struct Callable {
    pub(super) parameters: Vec<ast::Parameter>,
    pub(super) body: Vec<ast::Statement>,
    pub(super) env: Env,
    /// `view`: wildcards of `union` find it.
    pub(super) view: bool,
}

/// A bound tabular expression.
#[derive(Clone)]
pub(super) struct Table {
    /// The plan.
    pub(super) rel: Rel,
    /// The name to show for it (`withsource=`, `$table`), when it has one.
    pub(super) name: Option<String>,
    /// How large the plan is.
    pub(super) size: Size,
}

impl Table {
    pub(super) fn new(columns: Vec<Column>, op: RelOp, size: Size) -> Table {
        Table { rel: Rel { columns, op }, name: None, size }
    }

    pub(super) fn columns(&self) -> &[Column] {
        &self.rel.columns
    }
}

/// How large a plan is: recursion goes as deep as it is high, inlining copies as much as it has operators.
#[derive(Clone, Copy)]
pub(super) struct Size {
    /// Longest path from the result to a source.
    pub(super) height: usize,
    /// Operators in all.
    pub(super) count: usize,
}

impl Size {
    /// One operator without input.
    pub(super) const LEAF: Size = Size { height: 1, count: 1 };

    /// Two plans side by side, as the inputs of a join.
    pub(super) fn beside(self, other: Size) -> Size {
        Size { height: self.height.max(other.height), count: self.count + other.count }
    }
}

impl std::ops::Add<usize> for Size {
    type Output = Size;

    /// That many operators on top.
    fn add(self, operators: usize) -> Size {
        Size { height: self.height + operators, count: self.count + operators }
    }
}

/// Either kind of expression.
pub(super) enum Bound {
    /// A scalar.
    Scalar(Expr),
    /// A table.
    Table(Box<Table>),
}

/// The row that scalar expressions are over.
#[derive(Clone, Copy)]
pub(super) struct Row<'c> {
    /// Columns, by position.
    pub(super) columns: &'c [Column],
    /// Columns of the right side while the condition of a join is bound; they come behind `columns`.
    pub(super) right: Option<&'c [Column]>,
    /// Whether the order of rows means something, so that window functions may be used.
    pub(super) serialized: bool,
    /// Names of the steps of `scan`; the state of each has `state_columns` behind `columns`.
    pub(super) steps: &'c [String],
    /// Columns of the state of a step.
    pub(super) state_columns: &'c [Column],
}

impl<'c> Row<'c> {
    pub(super) fn of(columns: &'c [Column], serialized: bool) -> Row<'c> {
        Row { columns, right: None, serialized, steps: &[], state_columns: &[] }
    }
}

/// Aggregates met while the expressions of `summarize` are bound.
#[derive(Default)]
pub(super) struct Collector {
    /// Position of the first aggregate in the output of the summarize.
    pub(super) first: usize,
    /// Grouping keys, which are in the output too.
    pub(super) keys: Vec<Expr>,
    /// The aggregates.
    pub(super) found: Vec<Aggregate>,
}

impl Collector {
    /// Adds an aggregate and gives its position in the output.
    pub(super) fn push(&mut self, aggregate: Aggregate) -> usize {
        self.found.push(aggregate);
        self.first + self.found.len() - 1
    }
}

/// Everything that the meaning of a scalar expression depends on.
#[derive(Clone, Copy)]
pub(super) struct Cx<'c> {
    /// Names.
    pub(super) env: &'c Env,
    /// The row, if there is one.
    pub(super) row: Option<Row<'c>>,
    /// Number of the row scope; parameters of functions may hold columns of it.
    pub(super) scope: usize,
    /// Name of the operator, for messages.
    pub(super) operator: &'c str,
    /// Set where aggregates are allowed.
    pub(super) aggregates: Option<&'c RefCell<Collector>>,
}

impl<'c> Cx<'c> {
    /// A context without a row: constants, `let`, functions.
    pub(super) fn constant(env: &'c Env, operator: &'c str) -> Cx<'c> {
        Cx { env, row: None, scope: 0, operator, aggregates: None }
    }

    /// The same row, but aggregates are not allowed: their own arguments.
    pub(super) fn without_aggregates(self) -> Cx<'c> {
        Cx { aggregates: None, ..self }
    }
}

/// Whether the rows have an order that window functions may use.
pub(super) fn is_serialized(rel: &Rel) -> bool {
    match &rel.op {
        RelOp::Sort(..) | RelOp::Serialize(_) | RelOp::Range { .. } | RelOp::Scan(_) | RelOp::GetSchema(_) => true,
        RelOp::Filter(input, _) | RelOp::Project(input, _) | RelOp::Take(input, _) => is_serialized(input),
        RelOp::MvExpand(expand) => is_serialized(&expand.input),
        RelOp::Parse(parse) => is_serialized(&parse.input),
        RelOp::ParseKv(parse) => is_serialized(&parse.input),
        RelOp::Materialize(shared) => is_serialized(shared),
        _ => false,
    }
}
