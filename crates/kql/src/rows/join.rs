//! Joins by hash of the key values. Null keys match null keys.
//!
//! The order of rows is the one that Kusto's answers show, though it promises none: `join` goes through the right rows
//! and gives the matching left ones from the last to the first, then the left rows without a match; `lookup` goes
//! through the left rows and gives the matching right ones from the last to the first.

use std::collections::{HashMap, HashSet};

use super::prepare::prepare;
use super::{Row, Rows, RunContext, RunError, nothing};
use crate::eval::eval;
use crate::tree::{Expr, JoinKind};
use crate::types::Column;
use crate::value::Key;

pub(super) fn join(
    left: Rows,
    right: Rows,
    kind: JoinKind,
    on: &[(Expr, Expr)],
    lookup: bool,
    ctx: &mut RunContext<'_>,
) -> Result<Vec<Row>, RunError> {
    let mut left_keys = Vec::new();
    let mut right_keys = Vec::new();
    for (l, r) in on {
        left_keys.push(prepare(l, ctx)?);
        right_keys.push(prepare(r, ctx)?);
    }
    let left_hashes = hashes(&left.rows, &left_keys, ctx);
    let right_hashes = hashes(&right.rows, &right_keys, ctx);
    let (left, left_hashes) = match kind {
        JoinKind::InnerUnique => first_of_each_key(left, left_hashes),
        _ => (left, left_hashes),
    };
    match kind {
        JoinKind::InnerUnique | JoinKind::Inner | JoinKind::LeftOuter | JoinKind::RightOuter | JoinKind::FullOuter if !lookup => {
            by_right(&left, &left_hashes, &right, &right_hashes, kind, ctx)
        }
        _ => by_left(left, &left_hashes, &right, &right_hashes, kind, ctx),
    }
}

fn first_of_each_key(left: Rows, hashes: Vec<Vec<Key>>) -> (Rows, Vec<Vec<Key>>) {
    let mut seen = HashSet::new();
    let kept = left.rows.into_iter().zip(hashes).filter(|(_, key)| seen.insert(key.clone()));
    let (rows, hashes) = kept.unzip();
    (Rows::new(left.columns, rows), hashes)
}

fn hashes(rows: &[Row], keys: &[Expr], ctx: &mut RunContext<'_>) -> Vec<Vec<Key>> {
    rows.iter().map(|row| keys.iter().map(|key| eval(key, row, &mut ctx.eval).group_key()).collect()).collect()
}

/// Places of the rows with each key.
fn places(hashes: &[Vec<Key>]) -> HashMap<&[Key], Vec<usize>> {
    let mut places: HashMap<&[Key], Vec<usize>> = HashMap::new();
    for (at, key) in hashes.iter().enumerate() {
        places.entry(key).or_default().push(at);
    }
    places
}

fn blank(columns: &[Column]) -> Row {
    columns.iter().map(|column| nothing(column.ty)).collect()
}

fn by_right(
    left: &Rows,
    left_hashes: &[Vec<Key>],
    right: &Rows,
    right_hashes: &[Vec<Key>],
    kind: JoinKind,
    ctx: &mut RunContext<'_>,
) -> Result<Vec<Row>, RunError> {
    let matches = places(left_hashes);
    let mut left_matched = vec![false; left.rows.len()];
    let mut out = Vec::new();
    for (row, key) in right.rows.iter().zip(right_hashes) {
        match matches.get(key.as_slice()) {
            Some(found) => {
                ctx.check(out.len() + found.len())?;
                for at in found.iter().rev() {
                    left_matched[*at] = true;
                    out.push(concat(left.rows[*at].clone(), row.clone()));
                }
            }
            None if matches!(kind, JoinKind::RightOuter | JoinKind::FullOuter) => out.push(concat(blank(&left.columns), row.clone())),
            None => {}
        }
    }
    if matches!(kind, JoinKind::LeftOuter | JoinKind::FullOuter) {
        let unmatched = left.rows.iter().zip(&left_matched).filter(|(_, matched)| !**matched);
        out.extend(unmatched.map(|(row, _)| concat(row.clone(), blank(&right.columns))));
    }
    Ok(out)
}

fn by_left(
    left: Rows,
    left_hashes: &[Vec<Key>],
    right: &Rows,
    right_hashes: &[Vec<Key>],
    kind: JoinKind,
    ctx: &mut RunContext<'_>,
) -> Result<Vec<Row>, RunError> {
    let matches = places(right_hashes);
    let mut right_matched = vec![false; right.rows.len()];
    let mut out = Vec::new();
    for (row, key) in left.rows.into_iter().zip(left_hashes) {
        let found = matches.get(key.as_slice()).map_or(&[][..], Vec::as_slice);
        found.iter().for_each(|at| right_matched[*at] = true);
        match kind {
            JoinKind::LeftSemi if !found.is_empty() => out.push(row),
            JoinKind::LeftAnti if found.is_empty() => out.push(row),
            JoinKind::LeftSemi | JoinKind::LeftAnti | JoinKind::RightSemi | JoinKind::RightAnti => {}
            JoinKind::LeftOuter if found.is_empty() => out.push(concat(row, blank(&right.columns))),
            _ => {
                ctx.check(out.len() + found.len())?;
                out.extend(found.iter().rev().map(|at| concat(row.clone(), right.rows[*at].clone())));
            }
        }
    }
    let wanted = match kind {
        JoinKind::RightAnti => Some(false),
        JoinKind::RightSemi => Some(true),
        _ => None,
    };
    let rows = right.rows.iter().zip(&right_matched).filter(|(_, matched)| Some(**matched) == wanted);
    out.extend(rows.map(|(row, _)| row.clone()));
    Ok(out)
}

fn concat(mut left: Row, right: Row) -> Row {
    left.extend(right);
    left
}
