//! Queries of other clusters, and what becomes of a query when they fail.

use std::sync::Arc;

use datafusion::logical_expr::LogicalPlan;
use kql::Column;
use kql::rows::Rows;
use kql::tree::{Branches, Rel, RelOp, Remote};

use super::Planner;
use crate::engine::error::EngineError;
use crate::engine::source::Branch;

impl Planner {
    pub(super) fn remote(&self, remote: &Remote, columns: &[Column], branch: Option<Branch>) -> Result<LogicalPlan, EngineError> {
        let provider = self.source.remote(remote, columns, &self.limits, branch);
        let refused = || EngineError::invalid(format!("cluster '{}' cannot be asked here", remote.cluster));
        self.scan_provider(provider.ok_or_else(refused)?, self.table_name("remote"), columns)
    }

    /// A branch that has no rows when other clusters fail. One that is a single query streams; others run to the end first,
    /// so that a failure leaves nothing of them.
    pub(super) async fn best_effort(&self, input: &Rel, number: usize, branches: &Arc<Branches>) -> Result<LogicalPlan, EngineError> {
        let failed = self.failed.lock().entry(Arc::as_ptr(branches) as usize).or_default().clone();
        let branch = Branch::new(number, branches.count, failed);
        if let RelOp::Remote(remote) = &input.op {
            return self.remote(remote, &input.columns, Some(branch));
        }
        match self.stage(input).await {
            Ok(staged) => self.scan_staged(staged),
            Err(error) if error.is_remote() && branch.is_dispensable() => {
                self.limits.warnings.add(format!("macro-expand does without one of its entities: {error}"));
                self.scan_staged(self.stage_rows(&Rows::new(input.columns.clone(), Vec::new()))?)
            }
            Err(error) => Err(error),
        }
    }
}
