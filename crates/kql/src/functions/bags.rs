//! Functions over property bags.

use std::sync::Arc;

use indexmap::IndexMap;

use super::Function;
use super::dynamic::parse_path;
use super::signature::{Arg, DYNAMIC, Param, Resolved, STR, fixed, variadic};
use crate::types::Type;
use crate::value::{Dynamic, Value};

type Bag = IndexMap<Arc<str>, Dynamic>;

pub(super) static FUNCTIONS: &[Function] = &[
    Function::new("bag_pack", resolve_pack, |_, a| pack(a)).alias(&["pack", "pack_dictionary"]),
    Function::new(
        "bag_keys",
        |a| fixed(a, &[DYNAMIC], Type::Dynamic),
        |_, a| a[0].as_bag().map_or(Value::Null, |bag| Value::array(bag.keys().cloned().map(Dynamic::String).collect())),
    ),
    Function::new("bag_merge", |a| variadic(a, &[], DYNAMIC, 1, Type::Dynamic), |_, a| merge(a)),
    Function::new("bag_has_key", |a| fixed(a, &[DYNAMIC, STR], Type::Bool), |_, a| has_key(a)),
    Function::new("bag_remove_keys", |a| fixed(a, &[DYNAMIC, DYNAMIC], Type::Dynamic), |_, a| remove_keys(a)),
    Function::new("bag_set_key", |a| fixed(a, &[DYNAMIC, STR, Param::Any], Type::Dynamic), |_, a| set_key(a)),
    Function::new("bag_zip", |a| fixed(a, &[DYNAMIC, DYNAMIC], Type::Dynamic), |_, a| zip(a)),
];

fn bag(bag: Bag) -> Value {
    Value::Dynamic(Dynamic::Bag(Arc::new(bag)))
}

/// Alternating keys (any scalar, as text) and values.
fn resolve_pack(args: &[Arg<'_>]) -> Result<Resolved, String> {
    if args.is_empty() || !args.len().is_multiple_of(2) {
        return Err(format!("expected pairs of a key and a value, got {} arguments", args.len()));
    }
    let types = args.iter().enumerate().map(|(index, arg)| if index % 2 == 0 { Type::String } else { arg.ty });
    Ok(Resolved { ty: Type::Dynamic, args: types.collect() })
}

fn pack(args: &[Value]) -> Value {
    let pairs = args.chunks_exact(2);
    bag(pairs.map(|pair| (Arc::from(pair[0].as_str().unwrap_or("")), pair[1].to_dynamic())).collect())
}

/// The bag with the properties of all; of a property that several have, the first value.
fn merge(args: &[Value]) -> Value {
    let mut bags = args.iter().filter_map(Value::as_bag).peekable();
    if bags.peek().is_none() {
        return Value::Null;
    }
    let mut merged = Bag::new();
    for (key, value) in bags.flat_map(|bag| bag.iter()) {
        merged.entry(key.clone()).or_insert_with(|| value.clone());
    }
    bag(merged)
}

fn has_key(args: &[Value]) -> Value {
    let (Some(bag), Some(key)) = (args[0].as_bag(), args[1].as_str()) else {
        return Value::Bool(false);
    };
    if !key.starts_with('$') {
        return Value::Bool(bag.contains_key(key));
    }
    Value::Bool(parse_path(key).is_some_and(|path| exists(&Dynamic::Bag(bag.clone()), &path)))
}

fn exists(value: &Dynamic, path: &[Value]) -> bool {
    let Some((step, rest)) = path.split_first() else {
        return true;
    };
    let inner = match value {
        Dynamic::Bag(bag) => step.as_str().and_then(|key| bag.get(key)),
        Dynamic::Array(items) => step.as_long().and_then(|index| items.get(usize::try_from(index).ok()?)),
        _ => None,
    };
    inner.is_some_and(|inner| exists(inner, rest))
}

fn remove_keys(args: &[Value]) -> Value {
    let (Some(source), Some(keys)) = (args[0].as_bag(), args[1].as_array()) else {
        return Value::Null;
    };
    let mut result = Dynamic::Bag(source.clone());
    for key in keys.iter() {
        let Dynamic::String(key) = key else { continue };
        let path = if key.starts_with('$') { parse_path(key) } else { Some(vec![Value::String(key.clone())]) };
        if let Some(path) = path {
            result = without(&result, &path);
        }
    }
    Value::Dynamic(result)
}

fn without(value: &Dynamic, path: &[Value]) -> Dynamic {
    let (Dynamic::Bag(bag), Some((step, rest))) = (value, path.split_first()) else {
        return value.clone();
    };
    let Some((key, inner)) = step.as_str().and_then(|key| bag.get_key_value(key)) else {
        return value.clone();
    };
    let mut changed = Bag::clone(bag);
    if rest.is_empty() {
        changed.shift_remove(key);
    } else {
        changed.insert(key.clone(), without(inner, rest));
    }
    Dynamic::Bag(Arc::new(changed))
}

fn set_key(args: &[Value]) -> Value {
    let (Some(source), Some(key)) = (args[0].as_bag(), args[1].as_str()) else {
        return Value::Null;
    };
    let path = if key.starts_with('$') { parse_path(key) } else { Some(vec![Value::string(key)]) };
    let Some(path) = path else {
        return Value::Null;
    };
    let changed = with(Some(&Dynamic::Bag(source.clone())), &path, args[2].to_dynamic());
    changed.map_or(Value::Null, Value::Dynamic)
}

/// The value with a property set, bags on the way made; None where the way goes through something else. A property
/// that is set anew goes to the end.
fn with(value: Option<&Dynamic>, path: &[Value], new: Dynamic) -> Option<Dynamic> {
    let Some((step, rest)) = path.split_first() else {
        return Some(new);
    };
    let mut changed = match value {
        Some(Dynamic::Bag(bag)) => Bag::clone(bag),
        None => Bag::new(),
        Some(_) => return None,
    };
    let key: Arc<str> = Arc::from(step.as_str()?);
    let inner = with(changed.get(&key), rest, new)?;
    if rest.is_empty() {
        changed.shift_remove(&key);
    }
    changed.insert(key, inner);
    Some(Dynamic::Bag(Arc::new(changed)))
}

/// Pairs keys with values; keys that are not text are passed over, keys without a value get null.
fn zip(args: &[Value]) -> Value {
    let Some(keys) = args[0].as_array() else {
        return Value::Null;
    };
    let value_at = |index: usize| args[1].as_array().and_then(|values| values.get(index)).cloned();
    let pairs = keys.iter().enumerate().filter_map(|(index, key)| match key {
        Dynamic::String(key) => Some((key.clone(), value_at(index).unwrap_or(Dynamic::Null))),
        _ => None,
    });
    bag(pairs.collect())
}
