//! Joins by hash of the key values. Null keys match null keys.

use std::collections::{HashMap, HashSet};

use super::prepare::prepare;
use super::{Row, Rows, RunContext, RunError, nothing};
use crate::eval::eval;
use crate::tree::{Expr, JoinKind};
use crate::types::Column;
use crate::value::{Key, Value};

pub(super) fn join(left: Rows, right: Rows, kind: JoinKind, on: &[(Expr, Expr)], ctx: &mut RunContext<'_>) -> Result<Vec<Row>, RunError> {
    let mut left_keys = Vec::new();
    let mut right_keys = Vec::new();
    for (l, r) in on {
        left_keys.push(prepare(l, ctx)?);
        right_keys.push(prepare(r, ctx)?);
    }
    let left_hashes = hashes(&left.rows, &left_keys, ctx);
    let right_hashes = hashes(&right.rows, &right_keys, ctx);
    if kind == JoinKind::InnerUnique {
        let mut seen = HashSet::new();
        let firsts: Vec<bool> = left_hashes.iter().map(|key| seen.insert(key.clone())).collect();
        let keep = |items: Vec<Row>| items.into_iter().zip(&firsts).filter(|(_, first)| **first).map(|(row, _)| row).collect();
        let hashes = left_hashes.into_iter().zip(&firsts).filter(|(_, first)| **first).map(|(key, _)| key).collect();
        return pairs(Rows::new(left.columns, keep(left.rows)), hashes, &right, &right_hashes, JoinKind::Inner, ctx);
    }
    pairs(left, left_hashes, &right, &right_hashes, kind, ctx)
}

fn hashes(rows: &[Row], keys: &[Expr], ctx: &mut RunContext<'_>) -> Vec<Vec<Key>> {
    rows.iter().map(|row| keys.iter().map(|key| eval(key, row, &mut ctx.eval).group_key()).collect()).collect()
}

fn pairs(
    left: Rows,
    left_hashes: Vec<Vec<Key>>,
    right: &Rows,
    right_hashes: &[Vec<Key>],
    kind: JoinKind,
    ctx: &mut RunContext<'_>,
) -> Result<Vec<Row>, RunError> {
    let mut matches: HashMap<&[Key], Vec<usize>> = HashMap::new();
    for (at, key) in right_hashes.iter().enumerate() {
        matches.entry(key).or_default().push(at);
    }
    let mut right_matched = vec![false; right.rows.len()];
    let mut out = Vec::new();
    let blank = |columns: &[Column]| columns.iter().map(|column| nothing(column.ty)).collect::<Vec<Value>>();
    for (row, key) in left.rows.into_iter().zip(&left_hashes) {
        let found = matches.get(key.as_slice()).map_or(&[][..], Vec::as_slice);
        found.iter().for_each(|at| right_matched[*at] = true);
        match kind {
            JoinKind::LeftSemi if !found.is_empty() => out.push(row),
            JoinKind::LeftAnti if found.is_empty() => out.push(row),
            JoinKind::LeftSemi | JoinKind::LeftAnti | JoinKind::RightSemi | JoinKind::RightAnti => {}
            JoinKind::LeftOuter | JoinKind::FullOuter if found.is_empty() => out.push(concat(row, blank(&right.columns))),
            _ => {
                ctx.check(out.len() + found.len())?;
                out.extend(found.iter().map(|at| concat(row.clone(), right.rows[*at].clone())));
            }
        }
    }
    let unmatched = right.rows.iter().zip(&right_matched).filter(|(_, matched)| !**matched).map(|(row, _)| row.clone());
    match kind {
        JoinKind::RightOuter | JoinKind::FullOuter => out.extend(unmatched.map(|row| concat(blank(&left.columns), row))),
        JoinKind::RightAnti => out.extend(unmatched),
        JoinKind::RightSemi => {
            out.extend(right.rows.iter().zip(&right_matched).filter(|(_, matched)| **matched).map(|(row, _)| row.clone()));
        }
        _ => {}
    }
    Ok(out)
}

fn concat(mut left: Row, right: Row) -> Row {
    left.extend(right);
    left
}
