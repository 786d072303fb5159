//! What a kernel is, and the state that evaluation carries.

use std::fmt;

use datafusion::arrow::array::ArrayRef;
use kql::eval::EvalContext;
use kql::tree::{Expr, ExprKind};
use kql::{Type, Value, eval};
use parking_lot::Mutex;

use crate::engine::error::EngineError;

/// A vectorised operation over arrays of the usual storage, without dictionaries.
pub(super) trait Kernel: fmt::Debug + Send + Sync {
    /// The result for each row. All arrays are of one length.
    fn run(&self, args: &[ArrayRef], evaluation: &Evaluation) -> Result<ArrayRef, EngineError>;
}

/// Row evaluation state of one expression. Contexts cache compiled patterns, so they are reused; partitions that run
/// at the same time each take their own.
pub(in crate::engine) struct Evaluation {
    now: i64,
    idle: Mutex<Vec<EvalContext>>,
}

impl Evaluation {
    /// State for a query whose `now()` is that many ticks.
    pub(in crate::engine) fn new(now: i64) -> Self {
        Evaluation { now, idle: Mutex::new(Vec::new()) }
    }

    /// Lends a context.
    pub(in crate::engine) fn with<T>(&self, run: impl FnOnce(&mut EvalContext) -> T) -> T {
        let idle = self.idle.lock().pop();
        let mut context = idle.unwrap_or_else(|| EvalContext::new(self.now));
        let result = run(&mut context);
        self.idle.lock().push(context);
        result
    }
}

impl fmt::Debug for Evaluation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Evaluation").field("now", &self.now).finish_non_exhaustive()
    }
}

/// An operation to find a kernel for.
pub(super) struct Call<'a> {
    pub(super) function: &'static str,
    pub(super) args: &'a [Expr],
    /// Type of the result.
    pub(super) ty: Type,
}

/// A kernel with the arguments that it takes as arrays; constants are inside the kernel.
pub(super) struct Selected<'a> {
    pub(super) kernel: Box<dyn Kernel>,
    pub(super) args: Vec<&'a Expr>,
}

impl<'a> Selected<'a> {
    pub(super) fn new(kernel: impl Kernel + 'static, args: Vec<&'a Expr>) -> Option<Self> {
        Some(Selected { kernel: Box::new(kernel), args })
    }
}

impl<'a> Call<'a> {
    /// The two arguments of a binary operation.
    pub(super) fn pair(&self) -> Option<(&'a Expr, &'a Expr)> {
        match self.args {
            [left, right] => Some((left, right)),
            _ => None,
        }
    }

    /// The argument of a unary operation.
    pub(super) fn single(&self) -> Option<&'a Expr> {
        match self.args {
            [arg] => Some(arg),
            _ => None,
        }
    }

    /// What the row evaluator gives for these arguments: kernels ask it for corner cases instead of repeating them.
    pub(super) fn oracle(&self, values: &[Value]) -> Value {
        let args = values.iter().zip(self.args).map(|(value, arg)| Expr::constant(value.clone(), arg.ty)).collect();
        let call = Expr { ty: self.ty, kind: ExprKind::Call { function: self.function, args } };
        eval::eval(&call, &[], &mut EvalContext::new(0))
    }
}

/// The value of a constant.
pub(super) fn constant(expr: &Expr) -> Option<&Value> {
    match &expr.kind {
        ExprKind::Const(value) => Some(value),
        _ => None,
    }
}
