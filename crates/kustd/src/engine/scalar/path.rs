//! Kernels of access into dynamics: `Labels.host`, `Resource["k8s"]["pod"]`, and `tostring` of it.
//!
//! They read JSON text without building the value: a visitor skips everything but the wanted key.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray, StringArray, StringBuilder};
use datafusion::arrow::buffer::BooleanBuffer;
use kql::tree::{Expr, ExprKind};
use kql::{Dynamic, Type, Value};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::kernel::{Call, Evaluation, Kernel, Selected, constant};
use crate::engine::error::EngineError;

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
            let (ExprKind::Call { function: "[]", args }, Value::String(value)) = (&accessed.kind, constant(value)?) else {
                return None;
            };
            let (base, keys) = path(args)?;
            let access = Access { keys, text: true };
            let kernel =
                TextEquals { access, only_string: only_a_string_reads(value), value: value.to_string(), negated: call.function == "!=" };
            Selected::new(kernel, vec![base])
        }
        "tostring" => {
            let arg = call.single()?;
            match &arg.kind {
                ExprKind::Call { function: "[]", args } => {
                    let (base, keys) = path(args)?;
                    Selected::new(Access { keys, text: true }, vec![base])
                }
                _ => None,
            }
        }
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

/// The JSON text of the value behind the keys; None when there is none, or null.
fn lookup<'a>(document: &'a str, keys: &[String]) -> Option<&'a str> {
    let mut json = document;
    for key in keys {
        // A document without the key's text has no such key, unless escapes hide it.
        if !json.contains(key.as_str()) && !json.contains('\\') {
            return None;
        }
        let mut reader = serde_json::Deserializer::from_str(json);
        let found = Find { key }.deserialize(&mut reader).ok()??;
        reader.end().ok()?;
        json = found.get();
    }
    (json != "null").then_some(json)
}

/// What `tostring` makes of a JSON value.
fn text_of(json: &str) -> Cow<'_, str> {
    if let Some(inner) = json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'))
        && !inner.contains('\\')
    {
        return Cow::Borrowed(inner);
    }
    Dynamic::parse_json(json).map_or(Cow::Borrowed(json), |value| Cow::Owned(value.to_text()))
}

/// Finds the value of one key in an object; the last one, if the key repeats.
struct Find<'k> {
    key: &'k str,
}

impl<'de> DeserializeSeed<'de> for Find<'_> {
    type Value = Option<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Find<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(matches) = map.next_key_seed(IsKey(self.key))? {
            if matches {
                found = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// Compares a key without copying it.
struct IsKey<'k>(&'k str);

impl<'de> DeserializeSeed<'de> for IsKey<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for IsKey<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<bool, E> {
        Ok(key == self.0)
    }
}
