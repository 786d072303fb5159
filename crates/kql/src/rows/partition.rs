//! Operators that treat groups of rows apart: `partition`, `top-nested`, `sample`.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::prepare::prepare;
use super::summarize::Ready;
use super::{Row, Rows, RunContext, RunError, run};
use crate::eval::eval;
use crate::tree::{Expr, Rel, TopNestedLevel};
use crate::value::{self, Key, Value};

pub(super) fn partition(input: Rows, key: usize, subquery: &Rel, ctx: &mut RunContext<'_>) -> Result<Vec<Row>, RunError> {
    let mut index: HashMap<Key, usize> = HashMap::new();
    let mut groups: Vec<Vec<Row>> = Vec::new();
    for row in input.rows {
        let at = *index.entry(row[key].group_key()).or_insert_with(|| {
            groups.push(Vec::new());
            groups.len() - 1
        });
        groups[at].push(row);
    }
    let mut out = Vec::new();
    for rows in groups {
        ctx.arguments.push(Arc::new(Rows::new(input.columns.clone(), rows)));
        let result = run(subquery, ctx);
        ctx.arguments.pop();
        out.append(&mut result?.rows);
        ctx.check(out.len())?;
    }
    Ok(out)
}

/// `sample n` takes the first rows: any rows do. `sample-distinct` takes the first distinct values of a column.
pub(super) fn sample(input: Rows, count: u64, column: Option<usize>) -> Vec<Row> {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    match column {
        None => input.rows.into_iter().take(count).collect(),
        Some(at) => {
            let mut seen = HashSet::new();
            let values = input.rows.into_iter().map(|row| row[at].clone());
            values.filter(|value| seen.insert(value.group_key())).take(count).map(|value| vec![value]).collect()
        }
    }
}

struct Level<'a> {
    plan: &'a TopNestedLevel,
    of: Expr,
    by: Ready,
}

pub(super) fn top_nested(input: &Rows, levels: &[TopNestedLevel], ctx: &mut RunContext<'_>) -> Result<Vec<Row>, RunError> {
    let mut ready = Vec::with_capacity(levels.len());
    for plan in levels {
        ready.push(Level { plan, of: prepare(&plan.of, ctx)?, by: Ready::new(&plan.by, ctx)? });
    }
    let rows: Vec<&Row> = input.rows.iter().collect();
    Ok(nested(&rows, &ready, ctx))
}

/// The hierarchy of the first level over `rows`, each of its groups followed by the levels below.
fn nested(rows: &[&Row], levels: &[Level<'_>], ctx: &mut RunContext<'_>) -> Vec<Row> {
    let Some((level, below)) = levels.split_first() else { return vec![Vec::new()] };
    let mut index: HashMap<Key, usize> = HashMap::new();
    let mut groups: Vec<(Value, Vec<&Row>)> = Vec::new();
    for row in rows {
        let of = eval(&level.of, row, &mut ctx.eval);
        let at = *index.entry(of.group_key()).or_insert_with(|| {
            groups.push((of, Vec::new()));
            groups.len() - 1
        });
        groups[at].1.push(row);
    }
    // Of groups that rank the same, Kusto has the one seen last in front.
    let mut ranked: Vec<(Value, Value, Vec<&Row>)> =
        groups.into_iter().rev().map(|(of, rows)| (aggregate(level, &rows, ctx), of, rows)).collect();
    ranked.sort_by(|(a, ..), (b, ..)| if level.plan.ascending { value::compare(a, b) } else { value::compare(b, a) });
    let keep = level.plan.count.map_or(ranked.len(), |count| ranked.len().min(usize::try_from(count).unwrap_or(usize::MAX)));
    let rest: Vec<&Row> = ranked.split_off(keep).into_iter().flat_map(|(.., rows)| rows).collect();
    let mut out = Vec::new();
    for (by, of, rows) in ranked {
        out.extend(nested(&rows, below, ctx).into_iter().map(|tail| [of.clone(), by.clone()].into_iter().chain(tail).collect::<Row>()));
    }
    if let Some(others) = &level.plan.others {
        let by = aggregate(level, &rest, ctx);
        let tails = others_below(&rest, below, ctx);
        out.push([others.clone(), by].into_iter().chain(tails).collect());
    }
    out
}

fn aggregate(level: &Level<'_>, rows: &[&Row], ctx: &mut RunContext<'_>) -> Value {
    let mut state = level.by.start();
    for row in rows {
        level.by.update(state.as_mut(), row, ctx);
    }
    state.finish()
}

/// Below an "others" row there are only "others".
fn others_below(rows: &[&Row], levels: &[Level<'_>], ctx: &mut RunContext<'_>) -> Row {
    levels.iter().flat_map(|level| [level.plan.others.clone().unwrap_or(Value::Null), aggregate(level, rows, ctx)]).collect()
}
