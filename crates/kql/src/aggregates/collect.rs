//! `make_list`, `make_set`, `make_bag` and their forms with a condition or a limit.
//!
//! Typed nulls are left out of lists and sets, JSON nulls of a dynamic column are kept in lists. An array counts as its
//! elements.

use std::collections::HashSet;
use std::sync::Arc;

use indexmap::IndexMap;

use super::{Accumulator, AggregateFunction};
use crate::functions::is_true;
use crate::functions::signature::{Arg, BOOL, DYNAMIC, LONG, Param, Resolved, optional};
use crate::types::Type;
use crate::value::{Dynamic, Key, Value};

/// Elements that a list, set or bag holds unless a limit is given.
const DEFAULT_LIMIT: usize = 1_048_576;

pub(super) static AGGREGATES: &[AggregateFunction] = &[
    AggregateFunction::new("make_list", resolve, |t| list(t, false, false)).alias(&["makelist"]),
    AggregateFunction::new("make_list_if", resolve_if, |t| list(t, true, false)),
    AggregateFunction::new("make_list_with_nulls", |a| optional(a, &[Param::Any], 1, Type::Dynamic), |t| list(t, false, true)),
    AggregateFunction::new("make_set", resolve, |_| set(false)).alias(&["makeset"]),
    AggregateFunction::new("make_set_if", resolve_if, |_| set(true)),
    AggregateFunction::new("make_bag", |a| optional(a, &[DYNAMIC, LONG], 1, Type::Dynamic), |_| bag(false)).alias(&["make_dictionary"]),
    AggregateFunction::new("make_bag_if", |a| optional(a, &[DYNAMIC, BOOL, LONG], 2, Type::Dynamic), |_| bag(true)),
];

fn resolve(args: &[Arg<'_>]) -> Result<Resolved, String> {
    optional(args, &[Param::Any, LONG], 1, Type::Dynamic)
}

fn resolve_if(args: &[Arg<'_>]) -> Result<Resolved, String> {
    optional(args, &[Param::Any, BOOL, LONG], 2, Type::Dynamic)
}

/// Whether a row counts, and the limit it states.
fn admitted(args: &[Value], conditional: bool) -> Option<usize> {
    if conditional && !is_true(&args[1]) {
        return None;
    }
    let limit = args.get(1 + usize::from(conditional)).and_then(Value::as_long);
    Some(limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(DEFAULT_LIMIT).min(DEFAULT_LIMIT))
}

fn list(types: &[Type], conditional: bool, with_nulls: bool) -> Box<dyn Accumulator> {
    let keep_nulls = with_nulls || types.first() == Some(&Type::Dynamic);
    Box::new(List { items: Vec::new(), bytes: 0, conditional, keep_nulls })
}

struct List {
    items: Vec<Dynamic>,
    bytes: usize,
    conditional: bool,
    keep_nulls: bool,
}

impl Accumulator for List {
    fn update(&mut self, args: &[Value]) {
        let Some(limit) = admitted(args, self.conditional) else { return };
        match &args[0] {
            Value::Null if !self.keep_nulls => {}
            Value::Dynamic(Dynamic::Array(items)) => {
                let room = limit.saturating_sub(self.items.len());
                self.bytes += weight(&args[0]);
                self.items.extend(items.iter().take(room).cloned());
            }
            value if self.items.len() < limit => {
                self.bytes += weight(value);
                self.items.push(value.to_dynamic());
            }
            _ => {}
        }
    }

    fn finish(&mut self) -> Value {
        Value::array(std::mem::take(&mut self.items))
    }

    fn size(&self) -> usize {
        self.bytes
    }
}

/// Bytes that a kept element takes, roughly.
fn weight(value: &Value) -> usize {
    32 + match value {
        Value::String(text) | Value::Dynamic(Dynamic::String(text)) => text.len(),
        Value::Dynamic(Dynamic::Array(items)) => items.len() * 32,
        Value::Dynamic(Dynamic::Bag(bag)) => bag.len() * 64,
        _ => 0,
    }
}

fn set(conditional: bool) -> Box<dyn Accumulator> {
    Box::new(Set { items: Vec::new(), seen: HashSet::new(), bytes: 0, conditional })
}

/// Distinct values in order of first appearance.
struct Set {
    items: Vec<Dynamic>,
    seen: HashSet<Key>,
    bytes: usize,
    conditional: bool,
}

impl Set {
    fn insert(&mut self, item: &Dynamic, limit: usize) {
        if self.items.len() < limit && !matches!(item, Dynamic::Null) && self.seen.insert(item.group_key()) {
            self.bytes += 2 * weight(&item.to_value());
            self.items.push(item.clone());
        }
    }
}

impl Accumulator for Set {
    fn update(&mut self, args: &[Value]) {
        let Some(limit) = admitted(args, self.conditional) else { return };
        match &args[0] {
            Value::Dynamic(Dynamic::Array(items)) => items.iter().for_each(|item| self.insert(item, limit)),
            scalar => self.insert(&scalar.to_dynamic(), limit),
        }
    }

    fn finish(&mut self) -> Value {
        self.seen.clear();
        Value::array(std::mem::take(&mut self.items))
    }

    fn size(&self) -> usize {
        self.bytes
    }
}

fn bag(conditional: bool) -> Box<dyn Accumulator> {
    Box::new(Bag { properties: IndexMap::new(), bytes: 0, conditional })
}

/// The properties of all bags; of a property that several have, the first value.
struct Bag {
    properties: IndexMap<Arc<str>, Dynamic>,
    bytes: usize,
    conditional: bool,
}

impl Accumulator for Bag {
    fn update(&mut self, args: &[Value]) {
        let Some(limit) = admitted(args, self.conditional) else { return };
        let Some(bag) = args[0].as_bag() else { return };
        for (key, value) in bag.iter() {
            if self.properties.len() < limit && !self.properties.contains_key(key) {
                self.bytes += key.len() + 64;
                self.properties.insert(key.clone(), value.clone());
            }
        }
    }

    fn finish(&mut self) -> Value {
        Value::Dynamic(Dynamic::Bag(Arc::new(std::mem::take(&mut self.properties))))
    }

    fn size(&self) -> usize {
        self.bytes
    }
}
