//! Names of columns that a query does not name: Kusto makes them out of the expression.

use std::collections::HashSet;

use crate::ast::{Argument, Expr, ExprKind};
use crate::value::Value;

/// Functions whose result is named like their first argument.
const TRANSPARENT: [&str; 32] = [
    "bin",
    "floor",
    "bin_at",
    "bin_auto",
    "round",
    "tostring",
    "toint",
    "tolong",
    "todouble",
    "toreal",
    "todecimal",
    "tobool",
    "toboolean",
    "todatetime",
    "totimespan",
    "toguid",
    "todynamic",
    "parse_json",
    "prev",
    "next",
    "startofday",
    "startofweek",
    "startofmonth",
    "startofyear",
    "endofday",
    "endofweek",
    "endofmonth",
    "endofyear",
    "materialize",
    "toscalar",
    "datetime_local_to_utc",
    "datetime_utc_to_local",
];

/// Functions whose result has no name of its own even over a column.
const NAMELESS: [&str; 22] = [
    "tolower",
    "toupper",
    "not",
    "iff",
    "iif",
    "case",
    "coalesce",
    "strcat",
    "isnull",
    "isnotnull",
    "isempty",
    "isnotempty",
    "max_of",
    "min_of",
    "ago",
    "now",
    "pack",
    "pack_array",
    "bag_pack",
    "pack_all",
    "zip",
    "array_concat",
];

/// The name that an expression gives its column; None: it has none and gets `Column1` or `print_0`.
pub(super) fn of(expr: &Expr) -> Option<String> {
    match &expr.kind {
        ExprKind::Name(name) => Some(name.clone()),
        ExprKind::Member(base, member) => Some(match of(base) {
            Some(base) if !base.starts_with('$') => format!("{base}_{}", member.text),
            _ => member.text.clone(),
        }),
        ExprKind::Index(base, index) => {
            let base = of(base)?;
            match &index.kind {
                ExprKind::Literal(Value::String(key), _) => Some(format!("{base}_{key}")),
                ExprKind::Literal(Value::Long(at), _) => Some(format!("{base}_{at}")),
                _ => None,
            }
        }
        ExprKind::Call(name, arguments) => of_call(&name.text, arguments),
        _ => None,
    }
}

fn of_call(name: &str, arguments: &[Argument]) -> Option<String> {
    if crate::aggregates::lookup(name).is_some() && crate::functions::lookup(name).is_none() {
        return Some(of_aggregate(name, arguments));
    }
    if name == "ingestion_time" {
        return Some("$IngestionTime".to_owned());
    }
    let first = arguments.first().map(|a| &a.value);
    if TRANSPARENT.contains(&name) {
        return first.and_then(of);
    }
    if matches!(name, "array_sort_asc" | "array_sort_desc") {
        return first.and_then(of).map(|first| format!("{first}_sorted"));
    }
    if NAMELESS.contains(&name) || arguments.len() != 1 {
        return None;
    }
    let argument = first.filter(|e| matches!(e.kind, ExprKind::Name(_))).and_then(of)?;
    Some(format!("{name}_{argument}"))
}

/// The name of an aggregate's column: `sum_x`, `count_`, `list_x`, `percentile_x_95`.
pub(super) fn of_aggregate(function: &str, arguments: &[Argument]) -> String {
    let first = arguments.first().and_then(|a| of(&a.value)).unwrap_or_default();
    let second = || arguments.get(1).and_then(|a| of(&a.value)).unwrap_or_default();
    match function {
        "make_list" | "makelist" | "make_list_if" | "make_list_with_nulls" => format!("list_{first}"),
        "make_set" | "makeset" | "make_set_if" => format!("set_{first}"),
        "make_bag" | "make_dictionary" | "make_bag_if" => format!("bag_{first}"),
        "buildschema" => format!("schema_{first}"),
        "percentile" => {
            let percent = arguments.get(1).map(|a| constant_text(&a.value)).unwrap_or_default();
            format!("percentile_{first}_{percent}")
        }
        "percentilew" => {
            let percent = arguments.get(2).map(|a| constant_text(&a.value)).unwrap_or_default();
            format!("percentile_{first}_{percent}")
        }
        "percentiles" | "percentilesw" | "percentiles_array" | "percentilesw_array" => format!("percentiles_{first}"),
        "covariance" | "covariancep" | "covarianceif" | "covariancepif" => format!("{function}_{first}_{}", second()),
        "dcount_hll" | "any" => format!("{function}_{first}"),
        "take_any" | "anyif" | "take_anyif" => first,
        "argmax" | "argmin" | "arg_max" | "arg_min" => first,
        _ => format!("{function}_{first}"),
    }
}

/// A literal as part of a name: `99.9` is `99_9`.
pub(super) fn constant_text(expr: &Expr) -> String {
    let text = match &expr.kind {
        ExprKind::Literal(Value::Long(n), _) => n.to_string(),
        ExprKind::Literal(Value::Real(x), _) => x.to_string(),
        ExprKind::Name(name) => name.clone(),
        _ => String::new(),
    };
    text.replace('.', "_")
}

/// Hands out names, making them different: `x`, `x1`, `x2`; unnamed ones are `Column1`, `Column2`, ….
pub(super) struct Unique {
    taken: HashSet<String>,
    unnamed: usize,
}

impl Unique {
    pub(super) fn new() -> Unique {
        Unique { taken: HashSet::new(), unnamed: 0 }
    }

    /// Marks a name as taken; false when it was already.
    pub(super) fn take(&mut self, name: &str) -> bool {
        self.taken.insert(name.to_owned())
    }

    /// The name, or with a number behind it when it is taken.
    pub(super) fn name(&mut self, name: &str) -> String {
        let mut candidate = name.to_owned();
        let mut number = 0;
        while !self.taken.insert(candidate.clone()) {
            number += 1;
            candidate = format!("{name}{number}");
        }
        candidate
    }

    /// The name that is wished for, made unique, or the next `Column1`.
    pub(super) fn of(&mut self, wish: Option<String>) -> String {
        match wish {
            Some(name) => self.name(&name),
            None => self.unnamed(),
        }
    }

    /// The next `Column1`.
    pub(super) fn unnamed(&mut self) -> String {
        loop {
            self.unnamed += 1;
            let candidate = format!("Column{}", self.unnamed);
            if self.taken.insert(candidate.clone()) {
                return candidate;
            }
        }
    }
}

/// Whether a name matches a pattern in which `*` stands for any text.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or("");
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.len() >= last.len() && rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards() {
        for (pattern, name, wanted) in [
            ("*", "abc", true),
            ("a*", "abc", true),
            ("*c", "abc", true),
            ("a*c", "abc", true),
            ("a*b*c", "aXbYc", true),
            ("ab*bc", "abc", false),
            ("abc", "abc", true),
            ("abc", "abcd", false),
            ("b*", "abc", false),
        ] {
            assert_eq!(matches(pattern, name), wanted, "{pattern} {name}");
        }
    }

    #[test]
    fn names_are_made_unique() {
        let mut names = Unique::new();
        let made: Vec<String> = ["x", "x", "x1", "x"].iter().map(|n| names.name(n)).collect();
        assert_eq!(made, ["x", "x1", "x11", "x2"]);
        assert_eq!((names.unnamed(), names.unnamed()), ("Column1".into(), "Column2".into()));
    }
}
