//! `criteriaExpression`: CEL over the labels, each a variable of type string.
//!
//! The `cel` crate parses and evaluates; [`super::check`] checks types and bounds the work before.

use std::thread;

use cel::common::ast::IdedExpr;
use cel::parser::PrattParser;
use cel::{Context, Value};

use super::check::{Fault, check};
use super::{Class, CriteriaError, Labels};

/// Longest expression, in bytes.
const LONGEST: usize = 8 * 1024;
/// Deepest nesting of brackets. The parser bounds other recursion but not this.
const DEEPEST: usize = 100;
/// Stack of an evaluation: `1+1+1...` is a tree as deep as it is long, and is taken down by recursion. What is not used
/// costs nothing.
const STACK: usize = 64 << 20;
/// Longest error, in characters: it goes into a condition.
const LONGEST_ERROR: usize = 1024;

/// Whether the expression is true for these labels.
pub(super) fn evaluate(text: &str, labels: &Labels) -> Result<bool, CriteriaError> {
    if text.len() > LONGEST {
        return Err(error(Class::Parse, &format!("the expression has {} bytes, more than {LONGEST}; make it shorter", text.len())));
    }
    if nesting(text) > DEEPEST {
        return Err(error(Class::Parse, &format!("brackets are nested more than {DEEPEST} deep; make the expression simpler")));
    }
    // A thread of its own has the stack, and if a crate panics against its promise, one rule fails and not the process.
    thread::scope(|scope| {
        let evaluation =
            thread::Builder::new().name("criteria".to_owned()).stack_size(STACK).spawn_scoped(scope, || evaluate_here(text, labels));
        match evaluation.map(thread::ScopedJoinHandle::join) {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(error(Class::Program, "the expression cannot be evaluated; write it another way")),
            Err(reason) => Err(error(Class::Program, &format!("cannot start a thread for the evaluation: {reason}"))),
        }
    })
}

/// How deep brackets are nested. Those inside of texts count too: no sane expression has a hundred.
fn nesting(text: &str) -> usize {
    let depths = text.bytes().scan(0_usize, |depth, byte| {
        match byte {
            b'(' | b'[' | b'{' => *depth += 1,
            b')' | b']' | b'}' => *depth = depth.saturating_sub(1),
            _ => {}
        }
        Some(*depth)
    });
    depths.max().unwrap_or(0)
}

fn evaluate_here(text: &str, labels: &Labels) -> Result<bool, CriteriaError> {
    let expression = parse(text)?;
    check(&expression, labels).map_err(|fault| match fault {
        Fault::Type(message) => error(Class::TypeCheck, &message),
        Fault::Limit(message) => error(Class::Program, &message),
    })?;
    let mut context = Context::default();
    for (name, value) in labels.variables() {
        context.add_variable_from_value(name, value);
    }
    match Value::resolve(&expression, &context) {
        Ok(Value::Bool(value)) => Ok(value),
        Ok(_) => Err(error(Class::Result, "non-bool value; the expression must be true or false")),
        Err(reason) => Err(error(Class::Eval, &reason.to_string())),
    }
}

fn parse(text: &str) -> Result<IdedExpr, CriteriaError> {
    PrattParser::new().parse(text).map_err(|errors| {
        let Some(first) = errors.errors.first() else { return error(Class::Parse, "not an expression") };
        error(Class::Parse, &format!("{}:{}: {}", first.pos.0, first.pos.1, first.msg))
    })
}

fn error(class: Class, message: &str) -> CriteriaError {
    CriteriaError { class, message: message.chars().take(LONGEST_ERROR).collect() }
}
