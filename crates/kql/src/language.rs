//! What is supported, as lists: for documentation and suggestions. Whatever is in none of them is refused by name.

use crate::{aggregates, binder, functions, parser};

/// Operators behind `|`, by every name that they have.
pub fn operators() -> impl Iterator<Item = &'static str> {
    parser::OPERATORS.into_iter()
}

/// Scalar functions of the library with their other names, without operators.
pub fn scalar_functions() -> impl Iterator<Item = (&'static str, &'static [&'static str])> {
    functions::all().filter(|f| !is_operator(f.name)).map(|f| (f.name, f.aliases))
}

/// Operators of scalar expressions.
pub fn scalar_operators() -> impl Iterator<Item = &'static str> {
    // two entries with a blank are the binder's own
    functions::all().map(|f| f.name).filter(|name| is_operator(name) && (!name.contains(' ') || *name == "matches regex"))
}

/// Functions whose arguments are not plain values: of tables, of rows in order, of columns by name.
pub fn language_functions() -> impl Iterator<Item = &'static str> {
    binder::LANGUAGE_FUNCTIONS.into_iter()
}

/// Aggregates of `summarize` with their other names.
pub fn aggregate_functions() -> impl Iterator<Item = (&'static str, &'static [&'static str])> {
    aggregates::all().map(|f| (f.name, f.aliases))
}

/// Plugins of `evaluate`.
pub fn plugins() -> impl Iterator<Item = &'static str> {
    binder::PLUGINS.into_iter()
}

/// Entries of the table of functions that are written between their operands.
fn is_operator(name: &str) -> bool {
    const WORDS: [&str; 16] = [
        "and",
        "or",
        "between",
        "in",
        "has",
        "has_cs",
        "hasprefix",
        "hasprefix_cs",
        "hassuffix",
        "hassuffix_cs",
        "contains",
        "contains_cs",
        "startswith",
        "startswith_cs",
        "endswith",
        "endswith_cs",
    ];
    let symbol = !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    symbol || WORDS.contains(&name) || matches!(name, "has_any" | "has_all")
}
