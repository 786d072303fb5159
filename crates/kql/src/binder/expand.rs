//! `mv-expand` and `mv-apply`.

use super::expr::{find, prefix};
use super::names;
use super::project::row_context;
use super::scope::{Cx, Env, Size, Table};
use super::{Bind, Binder};
use crate::ast::{self, ExprKind as Ast, OperatorOption, Span};
use crate::diagnostic::Diagnostic;
use crate::tree::{Expr, MvExpand, Rel, RelOp};
use crate::types::{Column, Type};

/// A bound expansion.
struct Expansion {
    plan: MvExpand,
    /// Output columns.
    columns: Vec<Column>,
    size: Size,
}

/// Options of both operators.
#[derive(Default)]
struct Options {
    item_index: Option<String>,
    bag_as_array: bool,
}

impl Binder<'_> {
    pub(super) fn mv_expand(&mut self, input: Table, spec: &ast::MvExpand, env: &Env, span: &Span) -> Bind<Table> {
        let Expansion { plan, columns, size } = self.expansion(input, spec, env, "mv-expand", span)?;
        Ok(Table::new(columns, RelOp::MvExpand(Box::new(plan)), size))
    }

    pub(super) fn mv_apply(
        &mut self,
        input: Table,
        spec: &ast::MvExpand,
        subquery: &[ast::Operator],
        env: &Env,
        span: &Span,
    ) -> Bind<Table> {
        let outer = input.columns().to_vec();
        let Expansion { plan, columns, size } = self.expansion(input, spec, env, "mv-apply", span)?;
        let replaced: Vec<usize> = plan.columns.iter().map(|(_, at, _)| *at).collect();
        let argument = argument(columns);
        let subquery = self.operators(argument, subquery, env)?;
        // what the sub-query lets through is not put in front a second time
        let keep: Vec<usize> =
            (0..outer.len()).filter(|at| !replaced.contains(at) && find(subquery.columns(), &outer[*at].name).is_none()).collect();
        let columns = keep.iter().map(|at| outer[*at].clone()).chain(subquery.columns().iter().cloned()).collect();
        let size = size.beside(subquery.size) + 1;
        let op = RelOp::MvApply { expand: Box::new(plan), subquery: Box::new(subquery.rel), keep };
        Ok(Table::new(columns, op, size))
    }

    fn expansion(&mut self, input: Table, spec: &ast::MvExpand, env: &Env, operator: &str, span: &Span) -> Bind<Expansion> {
        let options = options(&spec.options, operator)?;
        let limit = match &spec.limit {
            Some(limit) => Some(self.count_constant(limit, &Cx::constant(env, operator))?),
            None => None,
        };
        let scope = self.new_scope();
        let mut columns = input.columns().to_vec();
        let mut expanded: Vec<(Expr, usize, Type)> = Vec::new();
        {
            let cx = row_context(&input, env, scope, operator);
            for (item, ty) in &spec.items {
                let (name, value) = self.expanded_item(item, &cx)?;
                let ty = ty.unwrap_or(Type::Dynamic);
                let at = match find(&columns, &name) {
                    Some((at, _)) => {
                        columns[at].ty = ty;
                        at
                    }
                    None => {
                        columns.push(Column::new(name, ty));
                        columns.len() - 1
                    }
                };
                if expanded.iter().any(|(_, taken, _)| *taken == at) {
                    let message = format!("{}a column is expanded twice", prefix(operator));
                    return Err(Diagnostic::semantic("SEM0034", span.clone(), message));
                }
                expanded.push((value, at, ty));
            }
        }
        let item_index = options.item_index.map(|name| {
            columns.push(Column::new(name, Type::Long));
            columns.len() - 1
        });
        let keep = (0..input.columns().len()).filter(|at| !expanded.iter().any(|(_, taken, _)| taken == at)).map(|at| (at, at)).collect();
        let size = input.size + 1;
        let plan = MvExpand { input: input.rel, columns: expanded, keep, item_index, bag_as_array: options.bag_as_array, limit };
        Ok(Expansion { plan, columns, size })
    }

    fn expanded_item(&mut self, item: &ast::Expr, cx: &Cx<'_>) -> Bind<(String, Expr)> {
        let (name, value) = match &item.kind {
            Ast::Assign(names, value) if names.len() == 1 => (names.first().map(|n| n.text.clone()), &**value),
            _ => (names::of(item), item),
        };
        let bound = self.scalar(value, cx)?;
        if bound.ty != Type::Dynamic {
            let message = format!("{}expanded expressions are dynamic, this one is {}", prefix(cx.operator), bound.ty);
            return Err(Diagnostic::semantic("SEM0001", value.span.clone(), message));
        }
        let name = name.unwrap_or_else(|| "Column1".to_owned());
        Ok((name, bound))
    }
}

fn options(given: &[OperatorOption], operator: &str) -> Bind<Options> {
    let mut options = Options::default();
    for option in given {
        match (option.name.text.as_str(), &option.value.kind) {
            ("with_itemindex" | "itemindex", Ast::Name(name)) => options.item_index = Some(name.clone()),
            ("kind" | "bagexpansion", Ast::Name(kind)) if kind == "array" || kind == "bag" => {
                options.bag_as_array = kind == "array";
            }
            (name, _) if name.starts_with("hint.") => {}
            (name, _) => {
                let what = format!("this value of the option '{name}' of {operator}");
                return Err(Diagnostic::unsupported(option.value.span.clone(), what));
            }
        }
    }
    Ok(options)
}

/// The rows bound to a sub-query.
pub(super) fn argument(columns: Vec<Column>) -> Table {
    Table { rel: Rel { columns, op: RelOp::Argument }, name: None, size: Size::LEAF }
}
