//! Scalar functions and operators: one table, looked up by name; each entry resolves its overload and computes.

mod arrays;
mod bags;
mod binary;
mod bins;
mod casts;
mod compare;
mod conditional;
mod datetime;
mod distributions;
mod dynamic;
mod geo;
mod hashing;
mod math;
mod network;
mod operators;
mod parsing;
mod regexes;
mod series;
pub(crate) mod signature;
mod sketches;
mod statistics;
mod strings;
mod terms;
#[cfg(test)]
mod tests;
mod time_format;
mod units;

use std::collections::HashMap;
use std::sync::OnceLock;

pub(crate) use conditional::{is_absent, is_true};
pub use signature::{Arg, Resolved, conversion};

use crate::eval::EvalContext;
use crate::value::Value;

/// A scalar function or operator.
pub struct Function {
    /// Canonical name: operators as they are written.
    pub name: &'static str,
    /// Other names that Kusto accepts.
    pub aliases: &'static [&'static str],
    /// Picks the overload; the error says why there is none.
    pub resolve: fn(&[Arg<'_>]) -> Result<Resolved, String>,
    /// Computes; arguments have the types of [`Resolved::args`] or are null.
    pub eval: fn(&mut EvalContext, &[Value]) -> Value,
    /// Whether two calls with the same arguments can differ (`rand`, `new_guid`).
    pub volatile: bool,
}

impl Function {
    const fn new(
        name: &'static str,
        resolve: fn(&[Arg<'_>]) -> Result<Resolved, String>,
        eval: fn(&mut EvalContext, &[Value]) -> Value,
    ) -> Function {
        Function { name, aliases: &[], resolve, eval, volatile: false }
    }

    const fn alias(mut self, aliases: &'static [&'static str]) -> Function {
        self.aliases = aliases;
        self
    }

    const fn volatile(mut self) -> Function {
        self.volatile = true;
        self
    }
}

/// Tables of the modules.
static TABLES: &[&[Function]] = &[
    arrays::FUNCTIONS,
    bags::FUNCTIONS,
    binary::FUNCTIONS,
    bins::FUNCTIONS,
    casts::FUNCTIONS,
    compare::FUNCTIONS,
    conditional::FUNCTIONS,
    datetime::FUNCTIONS,
    distributions::FUNCTIONS,
    dynamic::FUNCTIONS,
    geo::FUNCTIONS,
    hashing::FUNCTIONS,
    math::FUNCTIONS,
    network::FUNCTIONS,
    operators::FUNCTIONS,
    parsing::FUNCTIONS,
    regexes::FUNCTIONS,
    series::FUNCTIONS,
    sketches::FUNCTIONS,
    strings::FUNCTIONS,
    terms::FUNCTIONS,
    time_format::FUNCTIONS,
    units::FUNCTIONS,
];

/// The function of that name or alias.
pub fn lookup(name: &str) -> Option<&'static Function> {
    static BY_NAME: OnceLock<HashMap<&'static str, &'static Function>> = OnceLock::new();
    BY_NAME
        .get_or_init(|| {
            let all = TABLES.iter().flat_map(|table| table.iter());
            all.flat_map(|f| std::iter::once(&f.name).chain(f.aliases).map(move |name| (*name, f))).collect()
        })
        .get(name)
        .copied()
}

/// All functions and operators.
pub fn all() -> impl Iterator<Item = &'static Function> {
    TABLES.iter().flat_map(|table| table.iter())
}

/// The function that casts to a type: `tolong` for long.
pub fn cast_name(ty: crate::types::Type) -> &'static str {
    signature::cast_name(ty)
}
