//! `summarize`: keys, aggregates, and expressions over aggregates.

use std::cell::RefCell;

use super::aggregate::NamedAggregate;
use super::names::{self, Unique};
use super::project::{identity, row_context};
use super::scope::{Collector, Cx, Env, Table};
use super::{Bind, Binder};
use crate::ast::{self, ExprKind as Ast, Span};
use crate::diagnostic::Diagnostic;
use crate::tree::{Aggregate, Expr, ExprKind, Rel, RelOp};
use crate::types::Column;

/// A column of the output while its name may still change.
struct Output {
    name: Option<String>,
    explicit: bool,
    /// Over keys and aggregates.
    value: Expr,
}

impl Binder<'_> {
    pub(super) fn summarize(&mut self, input: Table, aggregates: &[ast::Expr], keys: &[ast::Expr], env: &Env, span: &Span) -> Bind<Table> {
        let scope = self.new_scope();
        let cx = row_context(&input, env, scope, "summarize");
        let (mut outputs, mut key_exprs) = (Vec::new(), Vec::new());
        for key in keys {
            let (name, explicit, value) = self.key(key, &cx)?;
            outputs.push(Output { name, explicit, value: Expr::column(key_exprs.len(), value.ty) });
            key_exprs.push(value);
        }
        let key_names: Vec<String> = outputs.iter().filter_map(|o| o.name.clone()).collect();
        let collector = RefCell::new(Collector { first: key_exprs.len(), keys: key_exprs.clone(), found: Vec::new() });
        for item in aggregates {
            self.aggregate_item(item, &key_names, &Cx { aggregates: Some(&collector), ..cx }, &mut outputs)?;
        }
        let found = collector.into_inner().found;
        let (input, key_exprs, found) = without_windows(input, key_exprs, found);
        name_outputs(outputs, span).map(|(columns, values)| build(input, key_exprs, found, columns, values))
    }

    /// A grouping key: name, whether the query gave it, value.
    pub(super) fn key(&mut self, key: &ast::Expr, cx: &Cx<'_>) -> Bind<(Option<String>, bool, Expr)> {
        match &key.kind {
            Ast::Assign(names, value) if names.len() == 1 => Ok((names.first().map(|n| n.text.clone()), true, self.scalar(value, cx)?)),
            _ => {
                let value = self.scalar(key, cx)?;
                // the name of a constant is not the name of a column
                let constant = matches!(key.kind, Ast::Name(_)) && !super::expr::reads_columns(&value);
                Ok((names::of(key).filter(|_| !constant), false, value))
            }
        }
    }

    fn aggregate_item(&mut self, item: &ast::Expr, keys: &[String], cx: &Cx<'_>, outputs: &mut Vec<Output>) -> Bind<()> {
        let (given, call): (&[ast::Name], &ast::Expr) = match &item.kind {
            Ast::Assign(names, value) => (names, value),
            _ => (&[], item),
        };
        if let Some(several) = self.several(call, keys, cx)? {
            for (index, NamedAggregate { name, aggregate }) in several.into_iter().enumerate() {
                let ty = aggregate.ty;
                let at = cx.aggregates.map(|collector| collector.borrow_mut().push(aggregate)).unwrap_or_default();
                let explicit = given.get(index);
                outputs.push(Output {
                    name: Some(explicit.map_or(name, |n| n.text.clone())),
                    explicit: explicit.is_some(),
                    value: Expr::column(at, ty),
                });
            }
            return Ok(());
        }
        if given.len() > 1 {
            return Err(Diagnostic::unsupported(item.span.clone(), "an assignment to several names of one aggregate"));
        }
        let value = self.scalar(call, cx)?;
        let explicit = given.first().map(|n| n.text.clone());
        outputs.push(Output { explicit: explicit.is_some(), name: explicit.or_else(|| names::of(call)), value });
        Ok(())
    }
}

/// Final names: given ones must differ, the others are made to.
fn name_outputs(outputs: Vec<Output>, span: &Span) -> Bind<(Vec<Column>, Vec<Expr>)> {
    let mut names = Unique::new();
    for output in outputs.iter().filter(|o| o.explicit) {
        if let Some(name) = &output.name
            && !names.take(name)
        {
            let message = format!("'summarize' operator: a column named '{name}' is already there");
            return Err(Diagnostic::semantic("SEM0034", span.clone(), message));
        }
    }
    Ok(outputs
        .into_iter()
        .map(|output| {
            let name = match output.name {
                Some(name) if output.explicit => name,
                wish => names.of(wish),
            };
            (Column::new(name, output.value.ty), output.value)
        })
        .unzip())
}

/// The summarize, and a projection behind it when an output is more than a key or an aggregate.
fn build(input: Table, keys: Vec<Expr>, aggregates: Vec<Aggregate>, columns: Vec<Column>, values: Vec<Expr>) -> Table {
    let plain = values.len() == keys.len() + aggregates.len()
        && values.iter().enumerate().all(|(at, value)| matches!(value.kind, ExprKind::Column(c) if c == at));
    let size = input.size + 2;
    let inner: Vec<Column> = if plain {
        columns.clone()
    } else {
        let types = keys.iter().map(|k| k.ty).chain(aggregates.iter().map(|a| a.ty));
        types.enumerate().map(|(at, ty)| Column::new(format!("${at}"), ty)).collect()
    };
    let summarize = RelOp::Summarize { input: Box::new(input.rel), keys, aggregates };
    if plain {
        return Table::new(columns, summarize, size);
    }
    Table::new(columns, RelOp::Project(Box::new(Rel { columns: inner, op: summarize }), values), size)
}

/// Window functions in keys and arguments are computed by a projection below, for which they are columns.
fn without_windows(input: Table, mut keys: Vec<Expr>, mut aggregates: Vec<Aggregate>) -> (Table, Vec<Expr>, Vec<Aggregate>) {
    let mut columns = input.columns().to_vec();
    let mut exprs = identity(&columns);
    let all = keys.iter_mut().chain(aggregates.iter_mut().flat_map(|a| a.args.iter_mut()));
    for expr in all.filter(|e| super::expr::has_window(e)) {
        columns.push(Column::new(format!("${}", columns.len()), expr.ty));
        let column = Expr::column(columns.len() - 1, expr.ty);
        exprs.push(std::mem::replace(expr, column));
    }
    if columns.len() == input.columns().len() {
        return (input, keys, aggregates);
    }
    let size = input.size + 1;
    (Table::new(columns, RelOp::Project(Box::new(input.rel), exprs), size), keys, aggregates)
}
