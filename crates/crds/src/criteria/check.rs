//! The check before evaluation: every expression has a type, and its work has a bound.
//!
//! The `cel` crate has no type checker, and would answer `region == 1` with false and `true || nosuch == 'a'` with true.
//! Rules are written once and run on every cluster, so a mistake must show everywhere. The bound is an upper estimate of
//! steps from the sizes of labels and literals: comprehensions in comprehensions multiply, and `x + x` doubles.

use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, SelectExpr, operators};

use super::Labels;
use super::types::{NoResult, Type, result_of};

/// Most steps that an evaluation may take. A second, at worst.
const MOST_STEPS: u64 = 1_000_000;
/// What compiling a regular expression may cost, in steps.
const REGEX_STEPS: u64 = 20_000;
/// Deepest nesting. The parser allows about as much; this keeps our own recursion bounded whatever it does.
const DEEPEST: usize = 200;

/// Most parts of a dotted name.
const MOST_PARTS: usize = 32;

/// What is wrong with an expression.
#[derive(Debug, PartialEq)]
pub(super) enum Fault {
    /// It has no type.
    Type(String),
    /// It may take too long.
    Limit(String),
}

/// Checks an expression over these labels.
pub(super) fn check(expression: &IdedExpr, labels: &Labels) -> Result<(), Fault> {
    let mut checker = Checker { labels, locals: Vec::new(), depth: 0 };
    let value = checker.expression(expression)?;
    if value.steps > MOST_STEPS {
        return Err(Fault::Limit(format!("the expression may take {} steps, more than {MOST_STEPS}; make it simpler", value.steps)));
    }
    Ok(())
}

/// What is known of a value: its type, an upper bound of its size, and of the steps to get it.
#[derive(Clone, Debug)]
struct Known {
    type_: Type,
    /// Bytes of a string, entries of a list or map.
    len: u64,
    /// Weight of the greatest entry.
    item: u64,
    steps: u64,
}

impl Known {
    fn scalar(type_: Type) -> Self {
        Self { type_, len: 0, item: 0, steps: 1 }
    }

    fn text(type_: Type, len: usize) -> Self {
        Self { type_, len: len as u64, item: 1, steps: 1 }
    }

    fn weight(&self) -> u64 {
        self.len.saturating_mul(self.item).saturating_add(1)
    }

    /// An entry of this list or map. What an entry holds itself is only known by its weight.
    fn entry(&self, type_: Type) -> Self {
        let item = match type_ {
            Type::List(_) | Type::Map(..) | Type::Dyn | Type::Unbound => self.item,
            _ => 1,
        };
        Self { type_, len: self.item, item, steps: 1 }
    }
}

struct Checker<'a> {
    labels: &'a Labels,
    /// Variables of the comprehensions around, innermost last.
    locals: Vec<(String, Known)>,
    depth: usize,
}

impl Checker<'_> {
    fn expression(&mut self, expression: &IdedExpr) -> Result<Known, Fault> {
        if self.depth == DEEPEST {
            return Err(Fault::Limit(format!("the expression is nested more than {DEEPEST} deep; make it simpler")));
        }
        self.depth += 1;
        let known = match &expression.expr {
            Expr::Literal(literal) => Ok(literal_type(literal)),
            Expr::Ident(name) => self.name(&[name]),
            Expr::Select(select) => self.select(select),
            Expr::Call(call) => self.call(call),
            Expr::List(list) => {
                self.entries(list.elements.iter()).map(|(item, known)| Known { type_: Type::List(Box::new(item)), ..known })
            }
            Expr::Map(map) => self.map(map.entries.iter().map(|entry| &entry.expr)),
            Expr::Comprehension(comprehension) => self.comprehension(comprehension),
            Expr::Struct(message) => Err(Fault::Type(format!("undeclared reference to type '{}'", message.type_name))),
            Expr::Unspecified => Err(Fault::Type("an expression is missing here".to_owned())),
        };
        self.depth -= 1;
        known
    }

    /// A name, whose parts are given without the dots: the longest label that it begins with, or a type.
    fn name(&self, parts: &[&str]) -> Result<Known, Fault> {
        let root = parts[0];
        if parts.len() > MOST_PARTS {
            return Err(Fault::Limit(format!("the name has more than {MOST_PARTS} parts; make it shorter")));
        }
        if let Some((_, local)) = self.locals.iter().rev().find(|(name, _)| name == root) {
            return parts[1..].iter().try_fold(local.clone(), |known, field| field_of(&known, field));
        }
        for end in (1..=parts.len()).rev() {
            let name = parts[..end].join(".");
            let name = name.strip_prefix('.').unwrap_or(&name);
            let known = match self.labels.variable(name) {
                Some(value) => Known::text(Type::String, value.len()),
                None if end == parts.len() && Type::is_name(name) => Known::scalar(Type::Meta),
                None => continue,
            };
            return parts[end..].iter().try_fold(known, |known, field| field_of(&known, field));
        }
        Err(Fault::Type(format!("undeclared reference to '{root}'; labels here: {}", self.labels.names())))
    }

    fn select(&mut self, select: &SelectExpr) -> Result<Known, Fault> {
        if !select.test
            && let Some(parts) = name_parts(select)
        {
            return self.name(&parts);
        }
        let operand = self.expression(&select.operand)?;
        let field = field_of(&operand, &select.field)?;
        let steps = operand.steps.saturating_add(1);
        Ok(if select.test { Known { steps, ..Known::scalar(Type::Bool) } } else { Known { steps, ..field } })
    }

    fn call(&mut self, call: &CallExpr) -> Result<Known, Fault> {
        let arguments = call.target.iter().map(Box::as_ref).chain(&call.args);
        let arguments = arguments.map(|argument| self.expression(argument)).collect::<Result<Vec<_>, _>>()?;
        let types: Vec<Type> = arguments.iter().map(|argument| argument.type_.clone()).collect();
        let type_ = result_of(&call.func_name, call.target.is_some(), &types).map_err(|reason| {
            let message = match reason {
                NoResult::Undeclared => format!("undeclared reference to '{}'", call.func_name),
                NoResult::NoOverload => {
                    let types: Vec<String> = types.iter().map(Type::to_string).collect();
                    format!("found no matching overload for '{}' applied to '({})'", call.func_name, types.join(", "))
                }
            };
            Fault::Type(message)
        })?;
        Ok(result(&call.func_name, type_, &arguments))
    }

    /// The common type of the entries of a list, and what is known of the list but its type.
    fn entries<'e>(&mut self, entries: impl Iterator<Item = &'e IdedExpr>) -> Result<(Type, Known), Fault> {
        let mut type_ = Type::Unbound;
        let mut all = Known::scalar(Type::Unbound);
        for entry in entries {
            let entry = self.expression(entry)?;
            type_ = type_.join(&entry.type_);
            all.len += 1;
            all.item = all.item.max(entry.weight());
            all.steps = all.steps.saturating_add(entry.steps).saturating_add(1);
        }
        Ok((type_, all))
    }

    fn map<'e>(&mut self, entries: impl Iterator<Item = &'e EntryExpr>) -> Result<Known, Fault> {
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        for entry in entries {
            let EntryExpr::MapEntry(entry) = entry else { return Err(Fault::Type("a map has no fields".to_owned())) };
            keys.push(&entry.key);
            values.push(&entry.value);
        }
        let (key, of_keys) = self.entries(keys.into_iter())?;
        let (value, of_values) = self.entries(values.into_iter())?;
        Ok(Known {
            type_: Type::Map(Box::new(key), Box::new(value)),
            len: of_keys.len,
            item: of_keys.item.saturating_add(of_values.item),
            steps: of_keys.steps.saturating_add(of_values.steps),
        })
    }

    fn comprehension(&mut self, comprehension: &ComprehensionExpr) -> Result<Known, Fault> {
        let range = self.expression(&comprehension.iter_range)?;
        let type_ = match &range.type_ {
            Type::List(item) => item.as_ref().clone(),
            Type::Map(key, _) => key.as_ref().clone(),
            Type::Dyn | Type::Unbound => Type::Dyn,
            other => return Err(Fault::Type(format!("'{other}' has no elements to go through; a list or map has"))),
        };
        let start = self.expression(&comprehension.accu_init)?;
        let depth = self.locals.len();
        self.locals.push((comprehension.accu_var.clone(), start.clone()));
        self.locals.push((comprehension.iter_var.clone(), range.entry(type_)));
        let condition = self.expression(&comprehension.loop_cond)?;
        let step = self.expression(&comprehension.loop_step)?;
        let Some(type_) = start.type_.unify(&step.type_) else {
            return Err(Fault::Type(format!("the parts of the comprehension are of types '{}' and '{}'", start.type_, step.type_)));
        };
        let times = range.len;
        // Only `map` and `filter` build something: a list that each step adds to.
        let built = Known { type_, len: start.len.max(step.len).saturating_mul(times), item: step.item, steps: 1 };
        let built_weight = built.weight();
        self.locals.truncate(depth);
        self.locals.push((comprehension.accu_var.clone(), built));
        let outcome = self.expression(&comprehension.result)?;
        self.locals.truncate(depth);
        let rounds = condition.steps.saturating_add(step.steps).saturating_add(1).saturating_mul(times);
        let steps = [range.steps, start.steps, rounds, built_weight].iter().fold(outcome.steps, |sum, part| sum.saturating_add(*part));
        Ok(Known { steps, ..outcome })
    }
}

/// The size of a call's result, and the steps to get it.
fn result(function: &str, type_: Type, arguments: &[Known]) -> Known {
    let weights = arguments.iter().fold(0_u64, |sum, argument| sum.saturating_add(argument.weight()));
    let longest = arguments.iter().map(|argument| argument.len).max().unwrap_or(0);
    let heaviest = arguments.iter().map(|argument| argument.item).max().unwrap_or(0);
    let (len, item) = match (function, &type_) {
        (operators::ADD, _) => (arguments.iter().fold(0, |sum, argument| argument.len.saturating_add(sum)), heaviest),
        (operators::CONDITIONAL | "dyn" | "bytes", _) => (longest, heaviest),
        (operators::INDEX, _) => {
            let entry = arguments[0].entry(type_.clone());
            (entry.len, entry.item)
        }
        // The longest text of a number, time or duration.
        ("string", _) => (longest.max(64), 1),
        _ => (0, 0),
    };
    let own = match function {
        operators::LOGICAL_AND | operators::LOGICAL_OR | operators::LOGICAL_NOT | operators::NOT_STRICTLY_FALSE => 1,
        "matches" => weights.saturating_add(REGEX_STEPS),
        _ => weights,
    };
    let steps = arguments.iter().fold(own, |sum, argument| sum.saturating_add(argument.steps));
    Known { type_, len, item, steps }
}

fn literal_type(literal: &LiteralValue) -> Known {
    match literal {
        LiteralValue::Boolean(_) => Known::scalar(Type::Bool),
        LiteralValue::Bytes(bytes) => Known::text(Type::Bytes, bytes.inner().len()),
        LiteralValue::Double(_) => Known::scalar(Type::Double),
        LiteralValue::Int(_) => Known::scalar(Type::Int),
        LiteralValue::Null => Known::scalar(Type::Null),
        LiteralValue::String(text) => Known::text(Type::String, text.inner().len()),
        LiteralValue::UInt(_) => Known::scalar(Type::Uint),
    }
}

/// `a.b.c` as its parts, if it is a name.
fn name_parts(select: &SelectExpr) -> Option<Vec<&str>> {
    let mut parts = vec![select.field.as_str()];
    let mut operand = &select.operand.expr;
    loop {
        match operand {
            Expr::Ident(root) => {
                parts.push(root);
                parts.reverse();
                return Some(parts);
            }
            Expr::Select(select) if !select.test => {
                parts.push(&select.field);
                operand = &select.operand.expr;
            }
            _ => return None,
        }
    }
}

fn field_of(operand: &Known, field: &str) -> Result<Known, Fault> {
    match &operand.type_ {
        Type::Map(key, value) if key.unify(&Type::String).is_some() => Ok(operand.entry(value.as_ref().clone())),
        Type::Dyn | Type::Unbound => Ok(operand.entry(Type::Dyn)),
        other => Err(Fault::Type(format!("type '{other}' has no field '{field}'"))),
    }
}
