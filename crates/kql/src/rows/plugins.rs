//! `evaluate` plugins whose columns depend on the data.
//!
//! - `bag_unpack(bag [, prefix [, columnsConflict [, ignoredProperties]]])`: a column for every property.
//! - `pivot`: the binder has summarized already, so the input is group columns, the pivot column, the value column;
//!   the output is the group columns and one column for every pivot value.
//! - `narrow()`: a row for every cell: Row, Column, Value.

use std::collections::{BTreeMap, HashMap};

use super::expand::cast;
use super::prepare::constant;
use super::{Row, Rows, RunContext, RunError, nothing};
use crate::tree::{Expr, ExprKind};
use crate::types::{Column, Type};
use crate::value::{Dynamic, Value};

pub(super) fn evaluate(
    input: Rows,
    plugin: &str,
    args: &[Expr],
    declared: Vec<Column>,
    ctx: &mut RunContext<'_>,
) -> Result<Rows, RunError> {
    match plugin {
        "bag_unpack" => bag_unpack(input, args, &declared, ctx),
        "pivot" => pivot(input, &declared, ctx),
        "narrow" => Ok(narrow(&input)),
        other => Err(RunError::Argument(format!("the plugin '{other}' is not supported"))),
    }
}

fn bag_unpack(input: Rows, args: &[Expr], declared: &[Column], ctx: &mut RunContext<'_>) -> Result<Rows, RunError> {
    let Some(ExprKind::Column(bag)) = args.first().map(|arg| &arg.kind) else {
        return Err(RunError::Argument("bag_unpack: the first argument must be a dynamic column".into()));
    };
    let text = |at: usize, ctx: &mut RunContext<'_>| args.get(at).map(|arg| constant(arg, ctx).map(|value| value.to_text())).transpose();
    let prefix = text(1, ctx)?.unwrap_or_default();
    let conflict = text(2, ctx)?.filter(|text| !text.is_empty()).unwrap_or_else(|| "error".to_owned());
    let ignored = match args.get(3).map(|arg| constant(arg, ctx)).transpose()? {
        Some(Value::Dynamic(Dynamic::Array(items))) => items.iter().map(|item| Value::from_dynamic(item.clone()).to_text()).collect(),
        _ => Vec::new(),
    };
    let mut found: BTreeMap<String, Option<Type>> = BTreeMap::new();
    for row in &input.rows {
        if let Value::Dynamic(Dynamic::Bag(properties)) = &row[*bag] {
            for (key, value) in properties.iter().filter(|(key, _)| !ignored.iter().any(|ignored| **ignored == ***key)) {
                let ty = found.entry(format!("{prefix}{key}")).or_default();
                *ty = merge(*ty, value);
            }
        }
    }
    let kept: Vec<usize> = (0..input.columns.len()).filter(|at| at != bag).collect();
    let mut columns: Vec<Column> = kept.iter().map(|at| input.columns[*at].clone()).collect();
    // Where the value of each output column comes from: a property, or a kept column.
    let mut sources: Vec<Source> = kept.iter().map(|at| Source::Column(*at)).collect();
    for (name, ty) in found {
        match columns.iter().position(|column| column.name == name) {
            Some(at) if conflict == "replace_source" => {
                columns[at].ty = ty.unwrap_or(Type::Dynamic);
                sources[at] = Source::Property(name);
            }
            Some(_) if conflict == "keep_source" => {}
            Some(_) => {
                return Err(RunError::Argument(format!(
                    "evaluate bag_unpack: the property '{name}' has the name of a column of the input; use columnsConflict"
                )));
            }
            None => {
                columns.push(Column::new(name.clone(), ty.unwrap_or(Type::Dynamic)));
                sources.push(Source::Property(name));
            }
        }
    }
    // A property with the name of the bag's column takes its place; the kept columns before it stay where they are.
    if let Some(at) = columns.iter().skip(kept.len()).position(|column| column.name == input.columns[*bag].name) {
        columns[*bag..=kept.len() + at].rotate_right(1);
        sources[*bag..=kept.len() + at].rotate_right(1);
    }
    let rows = input
        .rows
        .iter()
        .map(|row| {
            let cell = |(at, column): (usize, &Column), ctx: &mut RunContext<'_>| match (&sources[at], &row[*bag]) {
                (Source::Column(from), _) => row[*from].clone(),
                (Source::Property(name), Value::Dynamic(Dynamic::Bag(properties))) => properties
                    .get(name.strip_prefix(prefix.as_str()).unwrap_or(name))
                    .map_or_else(|| nothing(column.ty), |value| cast(Value::from_dynamic(value.clone()), column.ty, &mut ctx.eval)),
                _ => nothing(column.ty),
            };
            columns.iter().enumerate().map(|column| cell(column, ctx)).collect()
        })
        .collect();
    Ok(project_declared(Rows::new(columns, rows), declared, ctx))
}

/// Where the values of an output column of `bag_unpack` come from.
enum Source {
    /// That column of the input.
    Column(usize),
    /// The property behind an output column of that name.
    Property(String),
}

/// The type of a property that had `ty` so far and now shows `value`.
fn merge(ty: Option<Type>, value: &Dynamic) -> Option<Type> {
    let new = match value {
        Dynamic::Null => return ty,
        Dynamic::Bool(_) => Type::Bool,
        Dynamic::Long(_) => Type::Long,
        Dynamic::Real(_) | Dynamic::Decimal(_) => Type::Real,
        Dynamic::String(_) | Dynamic::Guid(_) => Type::String,
        Dynamic::DateTime(_) => Type::DateTime,
        Dynamic::TimeSpan(_) => Type::TimeSpan,
        Dynamic::Array(_) | Dynamic::Bag(_) => Type::Dynamic,
    };
    Some(match ty {
        None => new,
        Some(old) if old == new => new,
        Some(Type::Long | Type::Real) if matches!(new, Type::Long | Type::Real) => Type::Real,
        Some(_) => Type::Dynamic,
    })
}

fn pivot(input: Rows, declared: &[Column], ctx: &mut RunContext<'_>) -> Result<Rows, RunError> {
    let Some(groups) = input.columns.len().checked_sub(2) else {
        return Err(RunError::Argument("pivot: the input needs a pivot column and a value".into()));
    };
    let ty = input.columns[groups + 1].ty;
    let mut names: BTreeMap<String, usize> = input.rows.iter().map(|row| (row[groups].to_text(), 0)).collect();
    for (at, index) in names.values_mut().enumerate() {
        *index = groups + at;
    }
    let mut columns = input.columns[..groups].to_vec();
    columns.extend(names.keys().map(|name| Column::new(name.clone(), ty)));
    let empty = if matches!(ty, Type::Long | Type::Int) { Value::Long(0) } else { nothing(ty) };
    let mut index = HashMap::new();
    let mut rows: Vec<Row> = Vec::new();
    for row in input.rows {
        let key: Vec<_> = row[..groups].iter().map(Value::group_key).collect();
        let at = *index.entry(key).or_insert_with(|| {
            let mut fresh = row[..groups].to_vec();
            fresh.resize(columns.len(), empty.clone());
            rows.push(fresh);
            rows.len() - 1
        });
        rows[at][names[&row[groups].to_text()]] = row[groups + 1].clone();
    }
    Ok(project_declared(Rows::new(columns, rows), declared, ctx))
}

fn narrow(input: &Rows) -> Rows {
    let columns = vec![Column::new("Row", Type::Long), Column::new("Column", Type::String), Column::new("Value", Type::String)];
    let mut rows = Vec::new();
    for (number, row) in input.rows.iter().enumerate() {
        for (column, value) in input.columns.iter().zip(row) {
            rows.push(vec![Value::Long(number as i64), Value::String(column.name.as_str().into()), Value::String(value.to_text().into())]);
        }
    }
    Rows::new(columns, rows)
}

/// Brings the result to the columns that the plan promises; none promised: as it is.
fn project_declared(found: Rows, declared: &[Column], ctx: &mut RunContext<'_>) -> Rows {
    if declared.is_empty() || declared == found.columns {
        return found;
    }
    let at: Vec<Option<usize>> = declared.iter().map(|want| found.columns.iter().position(|have| have.name == want.name)).collect();
    let rows = found
        .rows
        .iter()
        .map(|row| {
            at.iter()
                .zip(declared)
                .map(|(at, want)| at.map_or_else(|| nothing(want.ty), |at| cast(row[at].clone(), want.ty, &mut ctx.eval)))
                .collect()
        })
        .collect();
    Rows::new(declared.to_vec(), rows)
}
