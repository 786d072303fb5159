//! Queries of other clusters: which operators run there instead of here, so that few rows have to travel.
//!
//! An operator on top of a [`Remote`] query becomes text at its end, if all of it has a text ([`text`]). One on top of a
//! union is done by each part as far as that means the same, and once more over what is left where it has to be.

pub(crate) mod text;

use crate::aggregates;
use crate::rows::contains_window;
use crate::tree::{Aggregate, Expr, Rel, RelOp, Remote};

/// Longest text of a query that operators are appended to.
const LONGEST: usize = 256 << 10;

/// The tree with its uppermost operator done by other clusters, as far as it can be.
pub(crate) fn pushed(rel: Rel) -> Rel {
    if !leads_out(&rel) {
        return rel;
    }
    let Rel { columns, mut op } = rel;
    let Some(slot) = input_of_mut(&mut op) else { return Rel { columns, op } };
    let below = std::mem::replace(slot, Rel { columns: Vec::new(), op: RelOp::Argument });
    // one operator of the text may be several of the tree
    let below = pushed(below);
    match below.op {
        RelOp::Remote(remote) => onto_remote(Rel { columns, op }, below.columns, remote),
        RelOp::BestEffort { input, branch, branches } => {
            let input = Box::new(pushed(on_top(&Rel { columns: columns.clone(), op }, *input)));
            Rel { columns, op: RelOp::BestEffort { input, branch, branches } }
        }
        RelOp::Union(parts) => onto_union(Rel { columns, op }, below.columns, parts),
        other => on_top(&Rel { columns, op }, Rel { columns: below.columns, op: other }),
    }
}

/// The input of an operator that others may do.
fn input_of(op: &RelOp) -> Option<&Rel> {
    match op {
        RelOp::Project(_, exprs) if exprs.iter().any(contains_window) => None,
        RelOp::Filter(_, predicate) if contains_window(predicate) => None,
        RelOp::Filter(input, _)
        | RelOp::Project(input, _)
        | RelOp::Take(input, _)
        | RelOp::Count(input)
        | RelOp::Distinct(input)
        | RelOp::Summarize { input, .. } => Some(input),
        _ => None,
    }
}

fn input_of_mut(op: &mut RelOp) -> Option<&mut Rel> {
    match op {
        RelOp::Filter(input, _)
        | RelOp::Project(input, _)
        | RelOp::Take(input, _)
        | RelOp::Count(input)
        | RelOp::Distinct(input)
        | RelOp::Summarize { input, .. } => Some(input),
        _ => None,
    }
}

/// Whether only operators that others may do are between the top and another cluster.
fn leads_out(rel: &Rel) -> bool {
    let mut at = rel;
    while let Some(input) = input_of(&at.op) {
        if reaches(input) {
            return true;
        }
        at = input;
    }
    false
}

/// Whether an operator on top could get to another cluster.
fn reaches(rel: &Rel) -> bool {
    match &rel.op {
        RelOp::Remote(_) => true,
        RelOp::BestEffort { input, .. } => reaches(input),
        RelOp::Union(parts) => parts.iter().any(reaches),
        _ => false,
    }
}

/// The operator over that input.
fn on_top(operator: &Rel, input: Rel) -> Rel {
    let mut operator = operator.clone();
    if let Some(slot) = input_of_mut(&mut operator.op) {
        *slot = input;
    }
    operator
}

fn onto_remote(operator: Rel, columns: Vec<crate::Column>, remote: Remote) -> Rel {
    match text::operator(&operator, &columns) {
        Some(appended) if remote.query.len() + appended.len() <= LONGEST => {
            let query = format!("{}{appended}", remote.query);
            Rel { columns: operator.columns, op: RelOp::Remote(Remote { query, ..remote }) }
        }
        _ => on_top(&operator, Rel { columns, op: RelOp::Remote(remote) }),
    }
}

fn onto_union(operator: Rel, columns: Vec<crate::Column>, parts: Vec<Rel>) -> Rel {
    let each = |operator: &Rel, parts: Vec<Rel>| {
        let parts = parts.into_iter().map(|part| pushed(on_top(operator, part))).collect();
        Rel { columns: operator.columns.clone(), op: RelOp::Union(parts) }
    };
    match &operator.op {
        RelOp::Filter(..) | RelOp::Project(..) => each(&operator, parts),
        RelOp::Take(..) | RelOp::Distinct(_) => {
            let inner = each(&operator, parts);
            on_top(&operator, inner)
        }
        RelOp::Count(_) => {
            let ty = operator.columns.first().map_or(crate::Type::Long, |column| column.ty);
            let inner = each(&operator, parts);
            let total = Aggregate { function: "sum", args: vec![Expr::column(0, ty)], ty };
            let op = RelOp::Summarize { input: Box::new(inner), keys: Vec::new(), aggregates: vec![total] };
            Rel { columns: operator.columns, op }
        }
        RelOp::Summarize { keys, aggregates, .. } => match totals(keys, aggregates) {
            Some((keys, aggregates)) => {
                let inner = each(&operator, parts);
                Rel { columns: operator.columns, op: RelOp::Summarize { input: Box::new(inner), keys, aggregates } }
            }
            None => on_top(&operator, Rel { columns, op: RelOp::Union(parts) }),
        },
        _ => on_top(&operator, Rel { columns, op: RelOp::Union(parts) }),
    }
}

/// What makes one result of the results of parts; none where an aggregate of the whole is not one of its parts.
fn totals(keys: &[Expr], aggregates: &[Aggregate]) -> Option<(Vec<Expr>, Vec<Aggregate>)> {
    let outer_keys = keys.iter().enumerate().map(|(at, key)| Expr::column(at, key.ty)).collect();
    let total = |(at, aggregate): (usize, &Aggregate)| {
        let function = match aggregate.function {
            "count" | "countif" | "sum" | "sumif" => "sum",
            "min" | "minif" => "min",
            "max" | "maxif" => "max",
            _ => return None,
        };
        let function = aggregates::lookup(function)?.name;
        Some(Aggregate { function, args: vec![Expr::column(keys.len() + at, aggregate.ty)], ty: aggregate.ty })
    };
    let aggregates = aggregates.iter().enumerate().map(total).collect::<Option<_>>()?;
    Some((outer_keys, aggregates))
}

#[cfg(test)]
mod tests;
