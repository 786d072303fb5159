//! Overload resolution: which argument types a function takes, what they are converted to, what it returns.

use crate::types::Type;
use crate::value::Value;

/// An argument as the binder knows it.
#[derive(Debug, Clone, Copy)]
pub struct Arg<'a> {
    /// Its type.
    pub ty: Type,
    /// Its value, if it is constant. A `typeof(T)` argument is the constant string `T`.
    pub constant: Option<&'a Value>,
}

/// A resolved overload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// Type of the result.
    pub ty: Type,
    /// Type that each argument is to be converted to before the call, see [`conversion`].
    pub args: Vec<Type>,
}

/// The function that converts an argument implicitly; None when nothing needs to be done.
///
/// Conversion to dynamic wraps the value. It does not parse text as JSON, as `todynamic` does.
pub fn conversion(from: Type, to: Type) -> Option<&'static str> {
    match to {
        _ if from == to => None,
        Type::Dynamic => Some("as dynamic"),
        _ => Some(cast_name(to)),
    }
}

/// The function that casts to a type.
pub(super) fn cast_name(ty: Type) -> &'static str {
    match ty {
        Type::Bool => "tobool",
        Type::Int => "toint",
        Type::Long => "tolong",
        Type::Real => "toreal",
        Type::Decimal => "todecimal",
        Type::String => "tostring",
        Type::DateTime => "todatetime",
        Type::TimeSpan => "totimespan",
        Type::Guid => "toguid",
        Type::Dynamic => "todynamic",
    }
}

/// What a parameter accepts.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Param {
    /// Anything, as it is.
    Any,
    /// That type, or one that converts to it without loss; dynamic converts to everything.
    Is(Type),
    /// int, long, real or decimal, as it is; dynamic becomes real.
    Number,
    /// Anything, converted to text.
    Text,
    /// A `typeof(…)` or other constant string.
    Constant,
}

/// Shorthands for tables.
pub(crate) const BOOL: Param = Param::Is(Type::Bool);
pub(crate) const LONG: Param = Param::Is(Type::Long);
pub(crate) const REAL: Param = Param::Is(Type::Real);
pub(crate) const STR: Param = Param::Is(Type::String);
pub(crate) const DATETIME: Param = Param::Is(Type::DateTime);
pub(crate) const TIMESPAN: Param = Param::Is(Type::TimeSpan);
pub(crate) const GUID: Param = Param::Is(Type::Guid);
pub(crate) const DYNAMIC: Param = Param::Is(Type::Dynamic);

/// Resolves a fixed list of parameters.
pub(crate) fn fixed(args: &[Arg<'_>], params: &[Param], ty: Type) -> Result<Resolved, String> {
    optional(args, params, params.len(), ty)
}

/// Resolves a list of parameters of which only the first `required` must be there.
pub(crate) fn optional(args: &[Arg<'_>], params: &[Param], required: usize, ty: Type) -> Result<Resolved, String> {
    if args.len() < required || args.len() > params.len() {
        return Err(wrong_count(args.len(), required, Some(params.len())));
    }
    let types = args.iter().zip(params).enumerate().map(|(index, (arg, param))| accept(arg, *param, index));
    Ok(Resolved { ty, args: types.collect::<Result<_, _>>()? })
}

/// Resolves leading parameters and then at least `least` more of one kind.
pub(crate) fn variadic(args: &[Arg<'_>], first: &[Param], rest: Param, least: usize, ty: Type) -> Result<Resolved, String> {
    if args.len() < first.len() + least {
        return Err(wrong_count(args.len(), first.len() + least, None));
    }
    let params = first.iter().copied().chain(std::iter::repeat(rest));
    let types = args.iter().zip(params).enumerate().map(|(index, (arg, param))| accept(arg, param, index));
    Ok(Resolved { ty, args: types.collect::<Result<_, _>>()? })
}

/// The error for a wrong number of arguments.
pub(crate) fn wrong_count(got: usize, least: usize, most: Option<usize>) -> String {
    match most {
        Some(most) if most == least => format!("expected {least} argument(s), got {got}"),
        Some(most) => format!("expected {least} to {most} arguments, got {got}"),
        None => format!("expected at least {least} argument(s), got {got}"),
    }
}

fn accept(arg: &Arg<'_>, param: Param, index: usize) -> Result<Type, String> {
    let refused = |wanted: &str| Err(format!("argument {} must be {wanted}, not {}", index + 1, arg.ty));
    match param {
        Param::Any => Ok(arg.ty),
        Param::Text => Ok(Type::String),
        Param::Is(wanted) if converts(arg.ty, wanted) => Ok(wanted),
        Param::Is(wanted) => refused(wanted.name()),
        Param::Number if arg.ty.is_numeric() => Ok(arg.ty),
        Param::Number if arg.ty == Type::Dynamic => Ok(Type::Real),
        Param::Number => refused("a number"),
        Param::Constant if arg.constant.is_some() && arg.ty == Type::String => Ok(Type::String),
        Param::Constant => refused("a constant string"),
    }
}

/// Whether a value converts implicitly.
pub(crate) fn converts(from: Type, to: Type) -> bool {
    from == to
        || from == Type::Dynamic
        || matches!(
            (from, to),
            (Type::Int | Type::Bool, Type::Long)
                | (Type::Int | Type::Long | Type::Decimal, Type::Real)
                | (Type::Int | Type::Long, Type::Decimal)
        )
}

/// The type of a choice between values (`iff`, `coalesce`, `max_of`): equal types, the wider number, or dynamic when
/// one is dynamic.
pub(crate) fn common(types: impl IntoIterator<Item = Type>) -> Result<Type, String> {
    let mut types = types.into_iter();
    let first = types.next().ok_or("expected at least one value")?;
    types.try_fold(first, |a, b| match (a, b) {
        _ if a == b => Ok(a),
        _ if a.is_numeric() && b.is_numeric() => Ok(wider(a, b)),
        (Type::Dynamic, _) | (_, Type::Dynamic) => Ok(Type::Dynamic),
        _ => Err(format!("values of types {a} and {b} have no common type")),
    })
}

/// The wider of two numeric types.
pub(crate) fn wider(a: Type, b: Type) -> Type {
    let rank = |ty| match ty {
        Type::Int => 0,
        Type::Long => 1,
        Type::Real => 2,
        _ => 3,
    };
    if rank(a) >= rank(b) { a } else { b }
}

/// The constant text of an argument.
pub(crate) fn constant_text<'a>(args: &[Arg<'a>], index: usize) -> Option<&'a str> {
    args.get(index)?.constant?.as_str()
}
