//! Evaluates typed scalar expressions over one row.

use std::collections::HashMap;
use std::sync::Arc;

use regex::Regex;

use crate::functions::{self, Function};
use crate::tree::{Expr, ExprKind};
use crate::value::Value;

/// Compiled regexes kept per query; beyond that the cache starts over, so that patterns out of data stay bounded.
const MAX_REGEXES: usize = 256;

/// What an evaluation shares: the query's one time and caches.
#[derive(Debug)]
pub struct EvalContext {
    /// Ticks that `now()` gives, one value per query.
    pub now: i64,
    regexes: HashMap<Arc<str>, Option<Arc<Regex>>>,
    random: u64,
}

impl EvalContext {
    /// A context for a query that runs at that time (ticks).
    pub fn new(now: i64) -> EvalContext {
        let seed = uuid::Uuid::new_v4().as_u128();
        EvalContext { now, regexes: HashMap::new(), random: (seed as u64) ^ ((seed >> 64) as u64) }
    }

    /// The compiled regex of a pattern; None when it is not one. Shared, because a cloned `Regex` has to warm up anew.
    pub(crate) fn regex(&mut self, pattern: &str) -> Option<Arc<Regex>> {
        if let Some(known) = self.regexes.get(pattern) {
            return known.clone();
        }
        if self.regexes.len() >= MAX_REGEXES {
            self.regexes.clear();
        }
        let compiled = Regex::new(pattern).ok().map(Arc::new);
        self.regexes.insert(Arc::from(pattern), compiled.clone());
        compiled
    }

    /// The next 64 random bits (SplitMix64); not for secrets.
    pub(crate) fn random_bits(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.random;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }
}

/// Evaluates an expression over a row.
///
/// Sub-queries and window functions never get here: the caller has replaced them by constants and columns. If one
/// does, or a column is missing, the result is null.
pub fn eval(expr: &Expr, row: &[Value], ctx: &mut EvalContext) -> Value {
    match &expr.kind {
        ExprKind::Const(value) => value.clone(),
        ExprKind::Column(index) => row.get(*index).cloned().unwrap_or(Value::Null),
        ExprKind::Call { function, args } => match functions::lookup(function) {
            Some(entry) => call(entry, args, row, ctx),
            None => Value::Null,
        },
        ExprKind::Window { .. } | ExprKind::ScalarSubquery(_) | ExprKind::InSubquery { .. } => Value::Null,
    }
}

fn call(function: &Function, args: &[Expr], row: &[Value], ctx: &mut EvalContext) -> Value {
    match function.name {
        "iff" if args.len() == 3 => {
            let taken = if functions::is_true(&eval(&args[0], row, ctx)) { 1 } else { 2 };
            eval(&args[taken], row, ctx)
        }
        "case" => eval_case(args, row, ctx),
        "coalesce" => eval_coalesce(args, row, ctx),
        "and" => eval_until(function, args, row, ctx, false),
        "or" => eval_until(function, args, row, ctx, true),
        _ => {
            // The common arities stay on the stack.
            match args {
                [a] => {
                    let values = [eval(a, row, ctx)];
                    (function.eval)(ctx, &values)
                }
                [a, b] => {
                    let values = [eval(a, row, ctx), eval(b, row, ctx)];
                    (function.eval)(ctx, &values)
                }
                _ => {
                    let values: Vec<Value> = args.iter().map(|arg| eval(arg, row, ctx)).collect();
                    (function.eval)(ctx, &values)
                }
            }
        }
    }
}

fn eval_case(args: &[Expr], row: &[Value], ctx: &mut EvalContext) -> Value {
    let Some((last, pairs)) = args.split_last() else {
        return Value::Null;
    };
    for pair in pairs.chunks_exact(2) {
        if functions::is_true(&eval(&pair[0], row, ctx)) {
            return eval(&pair[1], row, ctx);
        }
    }
    eval(last, row, ctx)
}

fn eval_coalesce(args: &[Expr], row: &[Value], ctx: &mut EvalContext) -> Value {
    let mut value = Value::Null;
    for arg in args {
        value = eval(arg, row, ctx);
        if !functions::is_absent(&value) {
            break;
        }
    }
    value
}

/// `and` and `or`: stops at the value that decides.
fn eval_until(function: &Function, args: &[Expr], row: &[Value], ctx: &mut EvalContext, decides: bool) -> Value {
    let mut values = Vec::with_capacity(args.len());
    for arg in args {
        let value = eval(arg, row, ctx);
        if value == Value::Bool(decides) {
            return value;
        }
        values.push(value);
    }
    (function.eval)(ctx, &values)
}
