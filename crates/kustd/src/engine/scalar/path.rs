//! Kernels of access into dynamics: `Labels.host`, `Resource["k8s"]["pod"]`, and `tostring` of it.
//!
//! They read JSON text without building the value. A dynamic by itself is a path without keys: scans give keys that most
//! rows have as columns of their own.

use std::borrow::Cow;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray, StringArray, StringBuilder};
use datafusion::arrow::buffer::BooleanBuffer;
use kql::tree::{Expr, ExprKind};
use kql::{Type, Value};

use super::kernel::{Call, Evaluation, Kernel, Selected, constant};
use crate::engine::error::EngineError;
use crate::json::{lookup, text_of};

/// The kernel for a path of constant keys into a dynamic, or for the text of one.
pub(super) fn select<'a>(call: &Call<'a>) -> Option<Selected<'a>> {
    match call.function {
        "[]" => {
            let (base, keys) = path(call.args)?;
            Selected::new(Access { keys, text: false }, vec![base])
        }
        // A dynamic compared with a string is compared by its text.
        "==" | "!=" => {
            let (left, right) = call.pair()?;
            let (accessed, value) = if left.ty == Type::Dynamic { (left, right) } else { (right, left) };
            let Value::String(value) = constant(value)? else { return None };
            let (base, keys) = path_or_itself(accessed)?;
            let access = Access { keys, text: true };
            let kernel =
                TextEquals { access, only_string: only_a_string_reads(value), value: value.to_string(), negated: call.function == "!=" };
            Selected::new(kernel, vec![base])
        }
        "tostring" => {
            let (base, keys) = path_or_itself(call.single()?)?;
            Selected::new(Access { keys, text: true }, vec![base])
        }
        _ => None,
    }
}

/// The dynamic at the bottom of a chain of `[]`, which may be none, and the keys from there.
fn path_or_itself(expr: &Expr) -> Option<(&Expr, Vec<String>)> {
    match &expr.kind {
        ExprKind::Call { function: "[]", args } => path(args),
        ExprKind::Column(_) if expr.ty == Type::Dynamic => Some((expr, Vec::new())),
        _ => None,
    }
}

/// The dynamic at the bottom of a chain of `[]`, and the keys from there.
fn path(args: &[Expr]) -> Option<(&Expr, Vec<String>)> {
    let [base, key] = args else { return None };
    let key = match constant(key)? {
        Value::String(key) => key.to_string(),
        _ => return None,
    };
    if base.ty != Type::Dynamic {
        return None;
    }
    if let ExprKind::Call { function: "[]", args } = &base.kind
        && let Some((base, mut keys)) = path(args)
    {
        keys.push(key);
        return Some((base, keys));
    }
    Some((base, vec![key]))
}

#[derive(Debug)]
struct Access {
    keys: Vec<String>,
    /// Text as `tostring` gives it, instead of JSON.
    text: bool,
}

impl Kernel for Access {
    fn run(&self, args: &[ArrayRef], _: &Evaluation) -> Result<ArrayRef, EngineError> {
        let documents = args[0].as_string::<i32>();
        let mut found = StringBuilder::with_capacity(documents.len(), documents.len() * 8);
        for document in documents {
            let value = document.and_then(|document| lookup(document, &self.keys));
            match value {
                Some(json) if self.text => found.append_value(text_of(json)),
                Some(json) => found.append_value(json),
                None if self.text => found.append_value(""),
                None => found.append_null(),
            }
        }
        let found: StringArray = found.finish();
        Ok(Arc::new(found))
    }
}

#[derive(Debug)]
struct TextEquals {
    access: Access,
    value: String,
    /// Of all JSON values, only a string has that text.
    only_string: bool,
    negated: bool,
}

impl TextEquals {
    /// Whether the text is nowhere in the document, which is found out without reading its JSON.
    fn is_out_of_question(&self, document: &str) -> bool {
        self.only_string && !document.contains(&self.value) && !document.contains('\\')
    }
}

/// Whether a text that `tostring` gives can only be that of a JSON string: it is no number, truth value, list or bag.
fn only_a_string_reads(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic()) && !["true", "false"].iter().any(|word| text.eq_ignore_ascii_case(word))
}

impl Kernel for TextEquals {
    fn run(&self, args: &[ArrayRef], _: &Evaluation) -> Result<ArrayRef, EngineError> {
        let documents = args[0].as_string::<i32>();
        let holds = |document: Option<&str>| {
            let found =
                document.filter(|document| !self.is_out_of_question(document)).and_then(|document| lookup(document, &self.access.keys));
            (found.map_or(Cow::Borrowed(""), text_of) == self.value) != self.negated
        };
        let holds: BooleanBuffer = documents.iter().map(holds).collect();
        Ok(Arc::new(BooleanArray::new(holds, None)))
    }
}
