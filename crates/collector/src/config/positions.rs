//! Places in a TOML text, and the substitution of `$(HOSTNAME)` in its tree.

use std::borrow::Cow;

use serde_ignored::Path;
use toml::de::{DeTable, DeValue};

/// A place in a text, counted from 1; columns are characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

/// The byte offset of the key at `path`.
pub(super) fn find(tree: &DeTable<'_>, path: &Path<'_>) -> Option<usize> {
    let mut steps = Vec::new();
    collect(path, &mut steps);
    let (last, parents) = steps.split_last()?;
    let mut node: Option<&DeValue<'_>> = None;
    for step in parents {
        node = Some(match step {
            Step::Key(key) => table(tree, node)?.get(*key)?.get_ref(),
            Step::Index(index) => node?.as_array()?.get(*index)?.get_ref(),
        });
    }
    match last {
        Step::Key(key) => Some(table(tree, node)?.get_key_value(*key)?.0.span().start),
        Step::Index(index) => Some(node?.as_array()?.get(*index)?.span().start),
    }
}

fn table<'a, 'i>(root: &'a DeTable<'i>, node: Option<&'a DeValue<'i>>) -> Option<&'a DeTable<'i>> {
    node.map_or(Some(root), DeValue::as_table)
}

enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

fn collect<'a>(path: &'a Path<'_>, steps: &mut Vec<Step<'a>>) {
    match path {
        Path::Root => {}
        Path::Seq { parent, index } => {
            collect(parent, steps);
            steps.push(Step::Index(*index));
        }
        Path::Map { parent, key } => {
            collect(parent, steps);
            steps.push(Step::Key(key));
        }
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => collect(parent, steps),
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
