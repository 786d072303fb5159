//! Aggregate functions of `summarize`: accumulators that take rows one by one.

mod argmax;
mod basic;
mod collect;
pub(crate) mod digest;
pub(crate) mod distinct;
mod quantile;
mod sketch;
mod spread;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::OnceLock;

use crate::functions::{Arg, Resolved};
use crate::types::Type;
use crate::value::Value;

/// The state of one aggregate over one group.
pub trait Accumulator: Send {
    /// Takes the arguments of one row.
    fn update(&mut self, args: &[Value]);
    /// The result over the rows taken.
    fn finish(&mut self) -> Value;
    /// Bytes held on the heap, roughly, for memory limits.
    fn size(&self) -> usize;
}

/// An aggregate function.
pub struct AggregateFunction {
    /// Canonical name.
    pub name: &'static str,
    /// Other names that Kusto accepts.
    pub aliases: &'static [&'static str],
    /// Picks the overload; the error says why there is none.
    pub resolve: fn(&[Arg<'_>]) -> Result<Resolved, String>,
    /// A fresh state; the types are those of the arguments after conversion.
    pub new: fn(&[Type]) -> Box<dyn Accumulator>,
}

impl AggregateFunction {
    const fn new(
        name: &'static str,
        resolve: fn(&[Arg<'_>]) -> Result<Resolved, String>,
        new: fn(&[Type]) -> Box<dyn Accumulator>,
    ) -> AggregateFunction {
        AggregateFunction { name, aliases: &[], resolve, new }
    }

    const fn alias(mut self, aliases: &'static [&'static str]) -> AggregateFunction {
        self.aliases = aliases;
        self
    }
}

static TABLES: &[&[AggregateFunction]] = &[
    argmax::AGGREGATES,
    basic::AGGREGATES,
    collect::AGGREGATES,
    distinct::AGGREGATES,
    quantile::AGGREGATES,
    sketch::AGGREGATES,
    spread::AGGREGATES,
];

/// The aggregate of that name or alias.
pub fn lookup(name: &str) -> Option<&'static AggregateFunction> {
    static BY_NAME: OnceLock<HashMap<&'static str, &'static AggregateFunction>> = OnceLock::new();
    BY_NAME
        .get_or_init(|| {
            let all = TABLES.iter().flat_map(|table| table.iter());
            all.flat_map(|f| std::iter::once(&f.name).chain(f.aliases).map(move |name| (*name, f))).collect()
        })
        .get(name)
        .copied()
}

/// All aggregates.
pub fn all() -> impl Iterator<Item = &'static AggregateFunction> {
    TABLES.iter().flat_map(|table| table.iter())
}
