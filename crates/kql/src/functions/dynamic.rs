//! Access into dynamic values: `[]`, `treepath`, `extract_json` and JSON text with sorted keys.

use super::Function;
use super::signature::{Arg, DYNAMIC, Param, Resolved, STR, constant_text, fixed, optional, wrong_count};
use crate::types::Type;
use crate::value::{Dynamic, Value};

pub(super) static FUNCTIONS: &[Function] = &[
    Function::new("[]", resolve_access, |_, a| access(&a[0], &a[1])),
    Function::new(
        "dynamic_to_json",
        |a| fixed(a, &[DYNAMIC], Type::String),
        |_, a| match &a[0] {
            Value::Null => Value::string("null"),
            value => Value::string(sorted(&value.to_dynamic()).to_json()),
        },
    ),
    Function::new("treepath", |a| fixed(a, &[DYNAMIC], Type::Dynamic), |_, a| treepath(&a[0])),
    Function::new("extract_json", resolve_extract_json, extract_json).alias(&["extractjson"]),
];

fn resolve_access(args: &[Arg<'_>]) -> Result<Resolved, String> {
    let [base, key] = args else {
        return Err(wrong_count(args.len(), 2, Some(2)));
    };
    if base.ty != Type::Dynamic {
        return Err(format!("a path can only go into dynamic, not {}", base.ty));
    }
    let key = match key.ty {
        ty @ (Type::String | Type::Dynamic) => ty,
        Type::Int | Type::Long => Type::Long,
        ty => return Err(format!("a path element must be a string or an integer, not {ty}")),
    };
    Ok(Resolved { ty: Type::Dynamic, args: vec![Type::Dynamic, key] })
}

/// A property of a bag or an element of an array, from the end when the index is negative; null if there is none.
fn access(base: &Value, key: &Value) -> Value {
    let Value::Dynamic(base) = base else {
        return Value::Null;
    };
    let found = match (base, key) {
        (Dynamic::Bag(bag), key) => key.as_str().and_then(|key| bag.get(key)),
        (Dynamic::Array(items), key) => key.as_long().and_then(|index| element(items, index)),
        _ => None,
    };
    found.map_or(Value::Null, |value| Value::dynamic(value.clone()))
}

fn element(items: &[Dynamic], index: i64) -> Option<&Dynamic> {
    let index = if index < 0 { index.checked_add(items.len() as i64)? } else { index };
    items.get(usize::try_from(index).ok()?)
}

/// The value with all bags in order of their keys.
fn sorted(value: &Dynamic) -> Dynamic {
    match value {
        Dynamic::Array(items) => Dynamic::array(items.iter().map(sorted).collect()),
        Dynamic::Bag(bag) => {
            let mut entries: Vec<_> = bag.iter().map(|(key, value)| (key.clone(), sorted(value))).collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            Dynamic::Bag(std::sync::Arc::new(entries.into_iter().collect()))
        }
        scalar => scalar.clone(),
    }
}

/// Paths of all leaves and inner nodes: `['a']`, `['a']['b']`, `['c'][0]`.
fn treepath(value: &Value) -> Value {
    fn walk(value: &Dynamic, path: &str, out: &mut Vec<Dynamic>) {
        match value {
            Dynamic::Bag(bag) => {
                for (key, item) in bag.iter() {
                    let path = format!("{path}['{key}']");
                    out.push(Dynamic::string(&path));
                    walk(item, &path, out);
                }
            }
            Dynamic::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    let path = format!("{path}[{index}]");
                    out.push(Dynamic::string(&path));
                    walk(item, &path, out);
                }
            }
            _ => {}
        }
    }
    let Value::Dynamic(root @ (Dynamic::Bag(_) | Dynamic::Array(_))) = value else {
        return Value::Null;
    };
    let mut out = Vec::new();
    walk(root, "", &mut out);
    Value::array(out)
}

fn resolve_extract_json(args: &[Arg<'_>]) -> Result<Resolved, String> {
    let ty = match args.len() {
        3 => constant_text(args, 2).and_then(Type::parse).ok_or("argument 3 must be typeof(a scalar type)")?,
        _ => Type::String,
    };
    if let Some(path) = constant_text(args, 0)
        && parse_path(path).is_none()
    {
        return Err(format!("argument 1: cannot read the path {path:?}"));
    }
    optional(args, &[STR, STR, Param::Constant], 2, ty)
}

fn extract_json(ctx: &mut crate::eval::EvalContext, args: &[Value]) -> Value {
    let ty = args.get(2).and_then(Value::as_str).and_then(Type::parse).unwrap_or(Type::String);
    let path = args[0].as_str().and_then(parse_path);
    let root = args[1].as_str().and_then(Dynamic::parse_json);
    let found =
        path.zip(root).map_or(Value::Null, |(path, root)| path.iter().fold(Value::dynamic(root), |value, step| access(&value, step)));
    if found.is_null() {
        return Value::null_of(ty);
    }
    match super::lookup(super::cast_name(ty)) {
        Some(cast) if ty != Type::Dynamic => (cast.eval)(ctx, &[found]),
        _ => found,
    }
}

/// Steps of `$.a.b[0]['c d']`: strings for properties, longs for indexes.
pub(super) fn parse_path(path: &str) -> Option<Vec<Value>> {
    let mut rest = path.trim().strip_prefix('$').unwrap_or(path.trim());
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if let Some(inner) = rest.strip_prefix('[') {
            let (step, behind) = bracket(inner)?;
            steps.push(step);
            rest = behind;
            continue;
        }
        rest = rest.strip_prefix('.').unwrap_or(rest);
        let end = rest.find(['.', '[']).unwrap_or(rest.len());
        if end == 0 {
            return None;
        }
        steps.push(Value::string(&rest[..end]));
        rest = &rest[end..];
    }
    Some(steps)
}

fn bracket(inner: &str) -> Option<(Value, &str)> {
    if let Some(quote) = inner.chars().next().filter(|c| matches!(c, '\'' | '"')) {
        let end = inner[1..].find(quote)? + 1;
        return Some((Value::string(&inner[1..end]), inner[end + 1..].strip_prefix(']')?));
    }
    let end = inner.find(']')?;
    let index: i64 = inner[..end].trim().parse().ok()?;
    Some((Value::Long(index), &inner[end + 1..]))
}
