//! Casts and tests of type and null.

use super::Function;
use super::signature::{Arg, Param, Resolved, STR, fixed, optional};
use crate::types::Type;
use crate::value::{Dynamic, Value, to_bool, to_datetime, to_decimal, to_dynamic, to_guid, to_int, to_long, to_real, to_timespan};

pub(super) static FUNCTIONS: &[Function] = &[
    Function::new("tobool", |a| cast(a, Type::Bool), |_, a| to_bool(&a[0])).alias(&["toboolean"]),
    Function::new("toint", |a| cast(a, Type::Int), |_, a| to_int(&a[0])),
    Function::new("tolong", |a| cast(a, Type::Long), |_, a| to_long(&a[0])),
    Function::new("toreal", |a| cast(a, Type::Real), |_, a| to_real(&a[0])).alias(&["todouble"]),
    Function::new("todecimal", |a| cast(a, Type::Decimal), |_, a| to_decimal(&a[0])),
    Function::new("tostring", |a| cast(a, Type::String), |_, a| to_string(&a[0])),
    Function::new("todatetime", |a| cast(a, Type::DateTime), |_, a| to_datetime(&a[0])),
    Function::new("totimespan", |a| cast(a, Type::TimeSpan), |_, a| to_timespan(&a[0])).alias(&["totime"]),
    Function::new("toguid", |a| cast(a, Type::Guid), |_, a| to_guid(&a[0])),
    Function::new("todynamic", |a| cast(a, Type::Dynamic), |_, a| to_dynamic(&a[0])).alias(&["parse_json", "parsejson", "toobject"]),
    Function::new("as dynamic", |a| cast(a, Type::Dynamic), |_, a| Value::dynamic(a[0].to_dynamic())),
    Function::new("isnull", |a| fixed(a, &[Param::Any], Type::Bool), |_, a| Value::Bool(a[0].is_null())),
    Function::new("isnotnull", |a| fixed(a, &[Param::Any], Type::Bool), |_, a| Value::Bool(!a[0].is_null())).alias(&["notnull"]),
    Function::new("isempty", |a| fixed(a, &[Param::Any], Type::Bool), |_, a| Value::Bool(is_empty(&a[0]))),
    Function::new("isnotempty", |a| fixed(a, &[Param::Any], Type::Bool), |_, a| Value::Bool(!is_empty(&a[0]))).alias(&["notempty"]),
    Function::new("gettype", resolve_gettype, |_, a| Value::string(get_type(a))),
    Function::new("isascii", |a| fixed(a, &[STR], Type::Bool), |_, a| Value::Bool(a[0].as_str().is_some_and(str::is_ascii))),
    Function::new("isutf8", |a| fixed(a, &[STR], Type::Bool), |_, _| Value::Bool(true)),
];

fn cast(args: &[Arg<'_>], ty: Type) -> Result<Resolved, String> {
    optional(args, &[Param::Any], 1, ty)
}

fn to_string(value: &Value) -> Value {
    match value {
        Value::String(_) => value.clone(),
        Value::Dynamic(Dynamic::String(text)) => Value::String(text.clone()),
        other => Value::string(other.to_text()),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) | Value::Dynamic(Dynamic::String(text)) => text.is_empty(),
        _ => false,
    }
}

/// Only for dynamic values: of others the binder knows the type.
fn resolve_gettype(args: &[Arg<'_>]) -> Result<Resolved, String> {
    fixed(args, &[Param::Any], Type::String)
}

fn get_type(args: &[Value]) -> &'static str {
    match &args[0] {
        Value::Null => "null",
        Value::Dynamic(Dynamic::Null) => "null",
        Value::Dynamic(Dynamic::Array(_)) => "array",
        Value::Dynamic(Dynamic::Bag(_)) => "dictionary",
        Value::Dynamic(Dynamic::Real(_)) => "double",
        Value::Dynamic(scalar) => scalar.to_value().ty().map_or("null", Type::name),
        scalar => scalar.ty().map_or("null", Type::name),
    }
}
