//! IPv4 and IPv6 addresses and prefixes.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::Function;
use super::compare::candidates;
use super::signature::{Arg, LONG, Param, Resolved, STR, fixed, optional, variadic};
use crate::types::Type;
use crate::value::{Dynamic, Value};

pub(super) static FUNCTIONS: &[Function] = &[
    Function::new("parse_ipv4", |a| fixed(a, &[STR], Type::Long), |_, a| parse_ipv4(&a[0], None)),
    Function::new(
        "parse_ipv4_mask",
        |a| fixed(a, &[STR, LONG], Type::Long),
        |_, a| match a[1].as_long() {
            Some(mask) => parse_ipv4(&a[0], Some(mask)),
            None => Value::Null,
        },
    ),
    Function::new("format_ipv4", resolve_format, |_, a| Value::string(format_ipv4(a, false))),
    Function::new("format_ipv4_mask", resolve_format, |_, a| Value::string(format_ipv4(a, true))),
    Function::new("ipv4_compare", |a| resolve_pair(a, Type::Long), |_, a| compare_v4(a)),
    Function::new("ipv4_is_match", |a| resolve_pair(a, Type::Bool), |_, a| is_zero(&compare_v4(a))),
    Function::new("ipv4_is_in_range", |a| fixed(a, &[STR, STR], Type::Bool), |_, a| is_zero(&compare_v4(a))),
    Function::new("ipv4_is_in_any_range", resolve_any, |_, a| in_any(a, compare_v4)),
    Function::new(
        "ipv4_is_private",
        |a| fixed(a, &[STR], Type::Bool),
        |_, a| prefix_v4(text(&a[0])).map_or(Value::Null, |(address, _)| Value::Bool(Ipv4Addr::from(address).is_private())),
    ),
    Function::new(
        "ipv4_netmask_suffix",
        |a| fixed(a, &[STR], Type::Long),
        |_, a| prefix_v4(text(&a[0])).map_or(Value::Null, |(_, bits)| Value::Long(i64::from(bits))),
    ),
    Function::new("ipv4_range_to_cidr_list", |a| fixed(a, &[STR, STR], Type::Dynamic), |_, a| cidr_list(a)),
    Function::new(
        "parse_ipv6",
        |a| fixed(a, &[STR], Type::String),
        |_, a| Value::string(prefix_v6(text(&a[0])).map_or_else(String::new, |(v, bits)| full_v6(v & mask_v6(bits)))),
    ),
    Function::new("parse_ipv6_mask", |a| fixed(a, &[STR, LONG], Type::String), |_, a| parse_ipv6_mask(a)),
    Function::new("ipv6_compare", |a| resolve_pair(a, Type::Long), |_, a| compare_v6(a)),
    Function::new("ipv6_is_match", |a| resolve_pair(a, Type::Bool), |_, a| is_zero(&compare_v6(a))),
    Function::new("ipv6_is_in_range", |a| fixed(a, &[STR, STR], Type::Bool), |_, a| is_zero(&compare_v6(a))),
    Function::new("ipv6_is_in_any_range", resolve_any, |_, a| in_any(a, compare_v6)),
    Function::new("has_ipv4", |a| fixed(a, &[STR, STR], Type::Bool), |_, a| Value::Bool(has_address(a))),
    Function::new("has_any_ipv4", resolve_any, |_, a| Value::Bool(has_address(a))),
    Function::new("has_ipv4_prefix", |a| fixed(a, &[STR, STR], Type::Bool), |_, a| Value::Bool(has_prefix(a))),
    Function::new("has_any_ipv4_prefix", resolve_any, |_, a| Value::Bool(has_prefix(a))),
];

fn resolve_format(args: &[Arg<'_>]) -> Result<Resolved, String> {
    optional(args, &[Param::Any, LONG], 1, Type::String)
}

fn resolve_pair(args: &[Arg<'_>], ty: Type) -> Result<Resolved, String> {
    optional(args, &[STR, STR, LONG], 2, ty)
}

fn resolve_any(args: &[Arg<'_>]) -> Result<Resolved, String> {
    variadic(args, &[STR], Param::Any, 1, Type::Bool)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}

fn mask_v4(bits: u32) -> u32 {
    u32::MAX.checked_shl(32 - bits).unwrap_or(0)
}

fn mask_v6(bits: u32) -> u128 {
    u128::MAX.checked_shl(128 - bits).unwrap_or(0)
}

/// Address and prefix length of `a.b.c.d[/n]`.
fn prefix_v4(text: &str) -> Option<(u32, u32)> {
    let (address, bits) = match text.trim().split_once('/') {
        Some((address, bits)) => (address, bits.parse().ok().filter(|bits| *bits <= 32)?),
        None => (text.trim(), 32),
    };
    Some((u32::from(address.parse::<Ipv4Addr>().ok()?), bits))
}

/// Address and prefix length of an IPv6 prefix; IPv4 ones are taken as mapped.
fn prefix_v6(text: &str) -> Option<(u128, u32)> {
    if let Some((address, bits)) = prefix_v4(text) {
        return Some((u128::from(Ipv4Addr::from(address).to_ipv6_mapped()), bits + 96));
    }
    let (address, bits) = match text.trim().split_once('/') {
        Some((address, bits)) => (address, Some(bits)),
        None => (text.trim(), None),
    };
    let parsed: Ipv6Addr = address.parse().ok()?;
    let dotted = address.contains('.');
    let bits: u32 = match bits {
        None => 128,
        Some(bits) if dotted => bits.parse().ok().filter(|bits: &u32| *bits <= 32)? + 96,
        Some(bits) => bits.parse().ok().filter(|bits| *bits <= 128)?,
    };
    // `::a.b.c.d` is the old way to write a mapped address.
    let value = u128::from(parsed);
    let mapped = if dotted && value >> 32 == 0 { value | (0xffff << 32) } else { value };
    Some((mapped, bits))
}

fn parse_ipv4(value: &Value, mask: Option<i64>) -> Value {
    let parsed = prefix_v4(text(value)).and_then(|(address, bits)| {
        let limit = mask.map_or(Some(32), |mask| u32::try_from(mask).ok().filter(|mask| *mask <= 32))?;
        Some(address & mask_v4(bits.min(limit)))
    });
    parsed.map_or(Value::Null, |address| Value::Long(i64::from(address)))
}

fn format_ipv4(args: &[Value], with_mask: bool) -> String {
    let parsed = match &args[0] {
        Value::String(text) | Value::Dynamic(Dynamic::String(text)) => prefix_v4(text),
        number => number.as_long().and_then(|v| u32::try_from(v).ok()).map(|v| (v, 32)),
    };
    let limit = args.get(1).map_or(Some(32), |mask| mask.as_long().and_then(|mask| u32::try_from(mask).ok()).filter(|mask| *mask <= 32));
    let Some(((address, bits), limit)) = parsed.zip(limit) else {
        return String::new();
    };
    let bits = bits.min(limit);
    let address = Ipv4Addr::from(address & mask_v4(bits));
    if with_mask { format!("{address}/{bits}") } else { address.to_string() }
}

/// -1, 0 or 1 under the shortest of the prefixes; null if one cannot be read.
fn compare_v4(args: &[Value]) -> Value {
    let compared = (|| {
        let (a, a_bits) = prefix_v4(text(&args[0]))?;
        let (b, b_bits) = prefix_v4(text(&args[1]))?;
        let bits = limit(args, 32)?.min(a_bits).min(b_bits);
        Some((a & mask_v4(bits)).cmp(&(b & mask_v4(bits))) as i64)
    })();
    compared.map_or(Value::Null, Value::Long)
}

fn compare_v6(args: &[Value]) -> Value {
    let compared = (|| {
        let (a, a_bits) = prefix_v6(text(&args[0]))?;
        let (b, b_bits) = prefix_v6(text(&args[1]))?;
        let both_v4 = prefix_v4(text(&args[0])).is_some() && prefix_v4(text(&args[1])).is_some();
        let given = limit(args, 128)?;
        let given = if both_v4 && args.len() > 2 && given <= 32 { given + 96 } else { given };
        let bits = given.min(a_bits).min(b_bits);
        Some((a & mask_v6(bits)).cmp(&(b & mask_v6(bits))) as i64)
    })();
    compared.map_or(Value::Null, Value::Long)
}

fn limit(args: &[Value], most: u32) -> Option<u32> {
    match args.get(2) {
        None => Some(most),
        Some(bits) => u32::try_from(bits.as_long()?).ok().filter(|bits| *bits <= most),
    }
}

fn is_zero(value: &Value) -> Value {
    match value {
        Value::Long(order) => Value::Bool(*order == 0),
        _ => Value::Null,
    }
}

fn in_any(args: &[Value], compare: fn(&[Value]) -> Value) -> Value {
    let found = candidates(&args[1..]).any(|range| compare(&[args[0].clone(), range]) == Value::Long(0));
    Value::Bool(found)
}

fn full_v6(address: u128) -> String {
    let groups: Vec<String> = Ipv6Addr::from(address).segments().iter().map(|group| format!("{group:04x}")).collect();
    groups.join(":")
}

fn parse_ipv6_mask(args: &[Value]) -> Value {
    let parsed = prefix_v6(text(&args[0])).zip(args[1].as_long()).and_then(|((address, bits), mask)| {
        let mask = u32::try_from(mask).ok().filter(|mask| *mask <= 128)?;
        Some(full_v6(address & mask_v6(bits.min(mask))))
    });
    Value::string(parsed.unwrap_or_default())
}

/// The fewest prefixes that cover a range of addresses exactly.
fn cidr_list(args: &[Value]) -> Value {
    let (Some((first, _)), Some((last, _))) = (prefix_v4(text(&args[0])), prefix_v4(text(&args[1]))) else {
        return Value::Null;
    };
    let (mut at, last) = (u64::from(first), u64::from(last));
    let mut prefixes = Vec::new();
    while at <= last {
        let aligned = if at == 0 { 32 } else { at.trailing_zeros().min(32) };
        let fitting = 63 - (last - at + 1).leading_zeros();
        let size = aligned.min(fitting);
        let address = Ipv4Addr::from(u32::try_from(at).unwrap_or(u32::MAX));
        prefixes.push(Dynamic::string(format!("{address}/{}", 32 - size)));
        at += 1 << size;
    }
    Value::array(prefixes)
}

/// Addresses in a text: four numbers with dots that no letter or digit touches.
fn addresses(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '.').filter(|token| token.parse::<Ipv4Addr>().is_ok())
}

fn has_address(args: &[Value]) -> bool {
    let wanted: Vec<String> = candidates(&args[1..]).map(|value| value.to_text()).collect();
    addresses(text(&args[0])).any(|found| wanted.iter().any(|wanted| wanted == found))
}

/// A prefix is whole numbers: it ends with a dot, or is a whole address.
fn has_prefix(args: &[Value]) -> bool {
    let wanted: Vec<String> = candidates(&args[1..]).map(|value| value.to_text()).collect();
    addresses(text(&args[0]))
        .any(|found| wanted.iter().any(|wanted| found == wanted || (wanted.ends_with('.') && found.starts_with(wanted.as_str()))))
}
