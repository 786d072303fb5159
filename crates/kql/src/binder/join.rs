//! `join` and `lookup`.

use super::expr::find;
use super::names::Unique;
use super::project::pick;
use super::scope::{Cx, Env, Row, Table};
use super::{Bind, Binder};
use crate::ast::{self, ExprKind as Ast, OperatorOption, Span};
use crate::diagnostic::Diagnostic;
use crate::functions;
use crate::tree::{Expr, ExprKind, JoinKind, RelOp};
use crate::types::{Column, Type};

impl Binder<'_> {
    #[allow(clippy::too_many_arguments)]
    pub(super) fn join(
        &mut self,
        left: Table,
        lookup: bool,
        options: &[OperatorOption],
        right: &ast::Expr,
        on: &[ast::Expr],
        env: &Env,
        span: &Span,
    ) -> Bind<Table> {
        let operator = if lookup { "lookup" } else { "join" };
        let kind = join_kind(options, lookup)?;
        let right = self.table(right, &Cx::constant(env, operator))?;
        let mut keys = Vec::new();
        for condition in on {
            self.condition(condition, &left, &right, env, operator, &mut keys)?;
        }
        if keys.is_empty() {
            return Err(Diagnostic::semantic("SEM0001", span.clone(), format!("'{operator}' needs a condition")));
        }
        let mut dropped = Vec::new();
        if lookup {
            let position = |key: &Expr| column_inside(key);
            dropped = keys.iter().filter_map(|(_, right)| position(right)).map(|at| left.columns().len() + at).collect();
        }
        let columns = joined_columns(left.columns(), right.columns(), kind, &dropped);
        let kept: Vec<usize> = (0..columns.len()).filter(|at| !dropped.contains(at)).collect();
        let size = left.size.beside(right.size) + 1;
        let op = RelOp::Join { left: Box::new(left.rel), right: Box::new(right.rel), kind, on: keys, lookup };
        let joined = Table::new(columns, op, size);
        Ok(if dropped.is_empty() { joined } else { pick(joined, kept) })
    }

    /// One condition: a column that both sides have, or `$left.a == $right.b`, several joined by `and`.
    fn condition(
        &mut self,
        condition: &ast::Expr,
        left: &Table,
        right: &Table,
        env: &Env,
        operator: &str,
        keys: &mut Vec<(Expr, Expr)>,
    ) -> Bind<()> {
        match &condition.kind {
            Ast::Binary("and", a, b) => {
                self.condition(a, left, right, env, operator, keys)?;
                self.condition(b, left, right, env, operator, keys)
            }
            Ast::Name(name) => {
                let missing = |side: &str| {
                    let message = format!("'{operator}' operator: Failed to resolve column named '{name}' on the {side} side");
                    Diagnostic::semantic("SEM0100", condition.span.clone(), message)
                };
                let (a, a_type) = find(left.columns(), name).ok_or_else(|| missing("left"))?;
                let (b, b_type) = find(right.columns(), name).ok_or_else(|| missing("right"))?;
                keys.push(self.key_pair(Expr::column(a, a_type), Expr::column(b, b_type), &condition.span)?);
                Ok(())
            }
            Ast::Binary("==", a, b) => {
                let scope = self.new_scope();
                let row = Row { right: Some(right.columns()), ..Row::of(left.columns(), false) };
                let cx = Cx { env, row: Some(row), scope, operator, aggregates: None };
                let (a, b) = (self.scalar(a, &cx)?, self.scalar(b, &cx)?);
                let width = left.columns().len();
                let (a, b) = match (side(&a, width), side(&b, width)) {
                    (Some(Side::Left), Some(Side::Right)) => (a, shifted(b, width)),
                    (Some(Side::Right), Some(Side::Left)) => (b, shifted(a, width)),
                    _ => {
                        let message = format!("'{operator}' operator: a condition compares $left with $right");
                        return Err(Diagnostic::semantic("SEM0001", condition.span.clone(), message));
                    }
                };
                keys.push(self.key_pair(a, b, &condition.span)?);
                Ok(())
            }
            _ => Err(Diagnostic::unsupported(condition.span.clone(), "a join condition other than equality")),
        }
    }

    /// Key expressions of equal type.
    fn key_pair(&mut self, left: Expr, right: Expr, span: &Span) -> Bind<(Expr, Expr)> {
        let ty = match (left.ty, right.ty) {
            (Type::Dynamic, _) | (_, Type::Dynamic) => {
                let message = "join keys cannot be dynamic; cast them first";
                return Err(Diagnostic::semantic("SEM0001", span.clone(), message));
            }
            (a, b) if a == b => return Ok((left, right)),
            (a, b) if a.is_numeric() && b.is_numeric() => wider(a, b),
            (a, b) => {
                let message = format!("join keys have different types: {a} and {b}");
                return Err(Diagnostic::semantic("SEM0001", span.clone(), message));
            }
        };
        Ok((self.convert(left, ty, span)?, self.convert(right, ty, span)?))
    }
}

fn wider(a: Type, b: Type) -> Type {
    [Type::Decimal, Type::Real, Type::Long].into_iter().find(|ty| *ty == a || *ty == b).unwrap_or(Type::Int)
}

#[derive(PartialEq, Eq)]
enum Side {
    Left,
    Right,
}

/// The side whose columns an expression reads, if it is one.
fn side(expr: &Expr, width: usize) -> Option<Side> {
    match &expr.kind {
        ExprKind::Column(at) if *at < width => Some(Side::Left),
        ExprKind::Column(_) => Some(Side::Right),
        ExprKind::Call { args, .. } => {
            let mut sides = args.iter().filter_map(|arg| side(arg, width));
            let first = sides.next()?;
            sides.all(|other| other == first).then_some(first)
        }
        _ => None,
    }
}

/// An expression over the right side alone.
fn shifted(expr: Expr, width: usize) -> Expr {
    let kind = match expr.kind {
        ExprKind::Column(at) => ExprKind::Column(at.saturating_sub(width)),
        ExprKind::Call { function, args } => ExprKind::Call { function, args: args.into_iter().map(|arg| shifted(arg, width)).collect() },
        other => other,
    };
    Expr { ty: expr.ty, kind }
}

/// The column that a key is, also under a conversion.
fn column_inside(expr: &Expr) -> Option<usize> {
    match &expr.kind {
        ExprKind::Column(at) => Some(*at),
        ExprKind::Call { function, args } if functions::lookup(function).is_some() => match args.as_slice() {
            [only] => column_inside(only),
            _ => None,
        },
        _ => None,
    }
}

/// Left then right as the kind keeps them; a name of the right that is taken gets a number.
fn joined_columns(left: &[Column], right: &[Column], kind: JoinKind, dropped: &[usize]) -> Vec<Column> {
    match kind {
        JoinKind::LeftSemi | JoinKind::LeftAnti => return left.to_vec(),
        JoinKind::RightSemi | JoinKind::RightAnti => return right.to_vec(),
        _ => {}
    }
    let mut names = Unique::new();
    let mut columns = Vec::with_capacity(left.len() + right.len());
    for column in left {
        names.take(&column.name);
        columns.push(column.clone());
    }
    for (at, column) in right.iter().enumerate() {
        // a column that lookup drops takes no name
        let name = if dropped.contains(&(left.len() + at)) { column.name.clone() } else { names.name(&column.name) };
        columns.push(Column::new(name, column.ty));
    }
    columns
}

fn join_kind(options: &[OperatorOption], lookup: bool) -> Bind<JoinKind> {
    let mut kind = if lookup { JoinKind::LeftOuter } else { JoinKind::InnerUnique };
    for option in options.iter().filter(|o| o.name.text == "kind") {
        let name = if let Ast::Name(name) = &option.value.kind { name.as_str() } else { "" };
        kind = match name {
            "innerunique" if !lookup => JoinKind::InnerUnique,
            "inner" => JoinKind::Inner,
            "leftouter" => JoinKind::LeftOuter,
            "rightouter" if !lookup => JoinKind::RightOuter,
            "fullouter" if !lookup => JoinKind::FullOuter,
            "leftsemi" if !lookup => JoinKind::LeftSemi,
            "rightsemi" if !lookup => JoinKind::RightSemi,
            "leftanti" | "anti" | "leftantisemi" if !lookup => JoinKind::LeftAnti,
            "rightanti" | "rightantisemi" if !lookup => JoinKind::RightAnti,
            other => {
                let operator = if lookup { "lookup" } else { "join" };
                let message = format!("'{operator}' operator: unknown kind '{other}'");
                return Err(Diagnostic::semantic("SEM0001", option.value.span.clone(), message));
            }
        };
    }
    Ok(kind)
}
