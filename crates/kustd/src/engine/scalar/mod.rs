//! Scalar expressions: a KQL expression becomes one DataFusion function over the columns that it reads.
//!
//! Inside, [`program::Program`] evaluates the whole expression over arrays: hot operations by kernels, the rest row by
//! row with [`kql::eval`], which is also the oracle that the kernels are tested against. An expression that reads one
//! dictionary column runs once per distinct value.

mod arithmetic;
mod compare;
mod dictionary;
mod kernel;
mod path;
mod program;
#[cfg(test)]
mod tests;
mod text;

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, Expr as PlanExpr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};
use kql::tree::{Expr, ExprKind};
use kql::{Type, eval, functions};

use self::program::Program;
use super::values::arrow_type;

pub(super) use self::compare::Comparison;
pub(super) use self::kernel::Evaluation;

/// Length up to which the text of an expression names it; longer ones are only equal to themselves.
const KEY_TEXT: usize = 4096;

/// Lowers an expression over an input whose column `i` is given by `columns[i]`.
///
/// The expression holds no sub-queries and no window functions any more.
pub(super) fn lower(expr: &Expr, columns: &dyn Fn(usize) -> PlanExpr, now: i64) -> PlanExpr {
    match &expr.kind {
        ExprKind::Column(index) => columns(*index),
        ExprKind::Const(value) => PlanExpr::Literal(super::values::scalar_value(value, expr.ty), None),
        _ => {
            let mut used = Vec::new();
            let expr = renumber(expr, &mut used);
            let args = used.into_iter().map(columns).collect();
            Arc::new(ScalarUDF::new_from_impl(KqlFunction::new(expr, now))).call(args)
        }
    }
}

/// A column in the usual storage: text without a dictionary, strings without nulls.
pub(super) fn plain_column(column: PlanExpr, ty: Type, now: i64) -> PlanExpr {
    Arc::new(ScalarUDF::new_from_impl(KqlFunction::new(Expr::column(0, ty), now))).call(vec![column])
}

/// Replaces calls of constants by their value, unless they differ from call to call.
pub(super) fn fold(expr: &Expr, evaluation: &Evaluation) -> Expr {
    let ExprKind::Call { function, args } = &expr.kind else { return expr.clone() };
    let args: Vec<Expr> = args.iter().map(|arg| fold(arg, evaluation)).collect();
    let constant = args.iter().all(|arg| matches!(arg.kind, ExprKind::Const(_)));
    let folded = Expr { ty: expr.ty, kind: ExprKind::Call { function, args } };
    if !constant || is_volatile(&folded) {
        return folded;
    }
    let value = evaluation.with(|ctx| eval::eval(&folded, &[], ctx));
    Expr::constant(value, expr.ty)
}

/// Whether two evaluations over the same row may differ (`rand`, `new_guid`).
pub(super) fn is_volatile(expr: &Expr) -> bool {
    match &expr.kind {
        ExprKind::Call { function, args } => {
            functions::lookup(function).is_some_and(|known| known.volatile) || args.iter().any(is_volatile)
        }
        _ => false,
    }
}

/// The expression with its columns numbered in order of first use; `used` collects which they were.
fn renumber(expr: &Expr, used: &mut Vec<usize>) -> Expr {
    let kind = match &expr.kind {
        ExprKind::Column(index) => {
            let position = used.iter().position(|known| known == index).unwrap_or_else(|| {
                used.push(*index);
                used.len() - 1
            });
            ExprKind::Column(position)
        }
        ExprKind::Call { function, args } => ExprKind::Call { function, args: args.iter().map(|arg| renumber(arg, used)).collect() },
        other => other.clone(),
    };
    Expr { ty: expr.ty, kind }
}

/// A KQL expression as a DataFusion function.
#[derive(Debug)]
struct KqlFunction {
    /// Unique among different expressions: DataFusion merges expressions of equal name.
    name: String,
    key: Key,
    ty: Type,
    signature: Signature,
    program: Program,
    evaluation: Evaluation,
}

/// Identity of an expression, so that DataFusion can recognise equal ones.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Key {
    Text(String),
    Unique(uuid::Uuid),
}

impl KqlFunction {
    fn new(expr: Expr, now: i64) -> Self {
        let text = format!("{expr:?}");
        let volatile = is_volatile(&expr);
        let key = if text.len() > KEY_TEXT || volatile { Key::Unique(uuid::Uuid::new_v4()) } else { Key::Text(text) };
        let mut hasher = std::hash::DefaultHasher::new();
        key.hash(&mut hasher);
        let volatility = if volatile { Volatility::Volatile } else { Volatility::Immutable };
        KqlFunction {
            name: format!("kql_{:016x}", hasher.finish()),
            key,
            ty: expr.ty,
            signature: Signature::new(TypeSignature::VariadicAny, volatility),
            program: Program::compile(&expr),
            evaluation: Evaluation::new(now),
        }
    }
}

impl PartialEq for KqlFunction {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for KqlFunction {}

impl Hash for KqlFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for KqlFunction {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(arrow_type(self.ty))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let arrays = args.args.into_iter().map(|arg| arg.into_array(rows)).collect::<Result<Vec<_>>>()?;
        Ok(ColumnarValue::Array(self.program.evaluate(&arrays, rows, &self.evaluation)?))
    }
}
