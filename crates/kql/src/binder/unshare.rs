//! Takes away [`RelOp::Materialize`] where only one place reads the rows, so that an engine can stream them.

use std::sync::Arc;

use crate::tree::{Rel, RelOp};

/// The plan without needless materialization.
///
/// A plan that is shared belongs to all its readers, so nothing inside of it changes. Sub-queries of expressions are
/// left as they are: they are run to one value or list anyway.
pub(super) fn unshared(mut rel: Rel) -> Rel {
    while let RelOp::Materialize(shared) = rel.op {
        match Arc::try_unwrap(shared) {
            Ok(inner) => rel.op = inner.op,
            Err(shared) => {
                rel.op = RelOp::Materialize(shared);
                break;
            }
        }
    }
    for input in inputs(&mut rel.op) {
        let hole = Rel { columns: Vec::new(), op: RelOp::Argument };
        let taken = std::mem::replace(input, hole);
        *input = unshared(taken);
    }
    rel
}

/// What an operator reads, sub-queries included.
fn inputs(op: &mut RelOp) -> Vec<&mut Rel> {
    match op {
        RelOp::Table { .. } | RelOp::Remote(_) | RelOp::Values(_) | RelOp::Range { .. } | RelOp::Argument | RelOp::Materialize(_) => {
            Vec::new()
        }
        RelOp::Filter(input, _)
        | RelOp::Project(input, _)
        | RelOp::Summarize { input, .. }
        | RelOp::Distinct(input)
        | RelOp::Sort(input, _)
        | RelOp::Serialize(input)
        | RelOp::Take(input, _)
        | RelOp::Count(input)
        | RelOp::TopNested { input, .. }
        | RelOp::Sample { input, .. }
        | RelOp::Evaluate { input, .. }
        | RelOp::BestEffort { input, .. }
        | RelOp::GetSchema(input) => vec![input],
        RelOp::Partition { input, subquery, .. } => vec![input, subquery],
        RelOp::MvApply { expand, subquery, .. } => vec![&mut expand.input, subquery],
        RelOp::Join { left, right, .. } => vec![left, right],
        RelOp::Union(parts) => parts.iter_mut().collect(),
        RelOp::MvExpand(expand) => vec![&mut expand.input],
        RelOp::MakeSeries(series) => vec![&mut series.input],
        RelOp::Parse(parse) => vec![&mut parse.input],
        RelOp::ParseKv(parse) => vec![&mut parse.input],
        RelOp::Scan(scan) => vec![&mut scan.input],
    }
}
