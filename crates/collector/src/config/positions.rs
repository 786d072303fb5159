//! Places in a TOML text, and the substitution of `$(HOSTNAME)` in its tree.
//!
//! A [`Place`] is the way to a value through tables and arrays, as a check knows it; a [`Position`] is a line and a
//! column, as a reader of the file does.

use std::borrow::Cow;
use std::ops::Range;

use serde_ignored::Path;
use toml::de::{DeArray, DeTable, DeValue};

/// A place in a text, counted from 1; columns are characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
}

/// The place of a byte offset.
pub(super) fn position(text: &str, offset: usize) -> Position {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |i| i + 1);
    Position { line: before.bytes().filter(|b| *b == b'\n').count() + 1, column: before[line_start..].chars().count() + 1 }
}

/// The way from the root of a file to a value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Place(Vec<Step>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
}

impl Place {
    /// The value of `key` in the table that this place is.
    pub(super) fn key(&self, key: &str) -> Place {
        self.step(Step::Key(key.to_owned()))
    }

    /// The item `index` of the array `key` in the table that this place is.
    pub(super) fn item(&self, key: &str, index: usize) -> Place {
        self.key(key).index(index)
    }

    /// The item `index` of the array that this place is.
    pub(super) fn index(&self, index: usize) -> Place {
        self.step(Step::Index(index))
    }

    fn step(&self, step: Step) -> Place {
        Place(self.0.iter().cloned().chain([step]).collect())
    }

    /// The byte offset in the text that `tree` was made of: of the key, or of the innermost table around it that the
    /// file has. None when the file has nothing of it.
    pub(super) fn offset(&self, tree: &DeTable<'_>) -> Option<usize> {
        let mut found = None;
        let mut node: Option<&DeValue<'_>> = None;
        for step in &self.0 {
            let (offset, next) = match step {
                Step::Key(key) => {
                    let Some((key, value)) = node.map_or(Some(tree), DeValue::as_table).and_then(|t| t.get_key_value(key.as_str())) else {
                        break;
                    };
                    (key.span().start, value.get_ref())
                }
                Step::Index(index) => {
                    let Some(item) = node.and_then(DeValue::as_array).and_then(|a| a.get(*index)) else { break };
                    (item.span().start, item.get_ref())
                }
            };
            found = Some(offset);
            node = Some(next);
        }
        found
    }
}

impl From<&Path<'_>> for Place {
    fn from(path: &Path<'_>) -> Self {
        match path {
            Path::Root => Place::default(),
            Path::Seq { parent, index } => Place::from(*parent).step(Step::Index(*index)),
            Path::Map { parent, key } => Place::from(*parent).key(key),
            Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => Place::from(*parent),
        }
    }
}

/// Takes out the value that stands at `span`, and returns where [`Place::offset`] has it.
pub(super) fn remove(table: &mut DeTable<'_>, span: &Range<usize>) -> Option<usize> {
    let found = table.iter().find(|(_, item)| item.span() == *span).map(|(key, _)| key.clone());
    if let Some(key) = found {
        table.remove(&key);
        return Some(key.span().start);
    }
    table.iter_mut().find_map(|(_, item)| remove_below(item.get_mut(), span))
}

fn remove_below(item: &mut DeValue<'_>, span: &Range<usize>) -> Option<usize> {
    match item {
        DeValue::Table(table) => remove(table, span),
        DeValue::Array(items) if items.iter().any(|item| item.span() == *span) => {
            let others = std::mem::replace(items, DeArray::new()).into_iter().filter(|item| item.span() != *span);
            *items = others.collect();
            Some(span.start)
        }
        DeValue::Array(items) => items.iter_mut().find_map(|item| remove_below(item.get_mut(), span)),
        _ => None,
    }
}

/// Replaces `variable` in every string value of `table`, except below a transform's `config`.
pub(super) fn substitute(table: &mut DeTable<'_>, variable: &str, value: &str) {
    for (key, item) in table.iter_mut() {
        let transforms = key.get_ref() == "transforms";
        substitute_value(item.get_mut(), variable, value, transforms);
    }
}

fn substitute_value(item: &mut DeValue<'_>, variable: &str, value: &str, transforms: bool) {
    match item {
        DeValue::String(text) if text.contains(variable) => *text = Cow::Owned(text.replace(variable, value)),
        DeValue::Array(items) => {
            for item in items.iter_mut() {
                substitute_value(item.get_mut(), variable, value, transforms);
            }
        }
        DeValue::Table(table) => {
            for (key, item) in table.iter_mut() {
                if transforms && key.get_ref() == "config" {
                    continue;
                }
                let transforms = key.get_ref() == "transforms";
                substitute_value(item.get_mut(), variable, value, transforms);
            }
        }
        _ => {}
    }
}
