//! Types of CEL, and the overloads of its standard library ([`signatures.txt`](signatures.txt)).

use std::collections::HashMap;
use std::fmt;
use std::sync::LazyLock;

/// A type of CEL.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Type {
    /// Known when evaluated only; fits everything.
    Dyn,
    /// The element of an empty list: becomes what it is used as.
    Unbound,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Timestamp,
    Duration,
    /// The type of a type. Like cel-go, without saying of which.
    Meta,
    List(Box<Type>),
    Map(Box<Type>, Box<Type>),
    /// `A` (0) or `B` (1) in a signature.
    Param(usize),
}

impl Type {
    /// The one type that both are, if there is one.
    pub(super) fn unify(&self, other: &Self) -> Option<Self> {
        match (self, other) {
            (Self::Dyn, _) | (_, Self::Dyn) => Some(Self::Dyn),
            (Self::Unbound, type_) | (type_, Self::Unbound) => Some(type_.clone()),
            (Self::Null, nullable @ (Self::Timestamp | Self::Duration)) | (nullable @ (Self::Timestamp | Self::Duration), Self::Null) => {
                Some(nullable.clone())
            }
            (Self::List(a), Self::List(b)) => Some(Self::List(Box::new(a.unify(b)?))),
            (Self::Map(k, v), Self::Map(l, w)) => Some(Self::Map(Box::new(k.unify(l)?), Box::new(v.unify(w)?))),
            (a, b) => (a == b).then(|| a.clone()),
        }
    }

    /// The type of a list that holds both.
    pub(super) fn join(&self, other: &Self) -> Self {
        self.unify(other).unwrap_or(Self::Dyn)
    }

    /// The type that a name such as `string` stands for as a value, if it is one: always [`Type::Meta`].
    pub(super) fn is_name(name: &str) -> bool {
        matches!(name, "bool" | "bytes" | "double" | "int" | "list" | "map" | "null_type" | "string" | "type" | "uint")
            || matches!(name, "google.protobuf.Timestamp" | "google.protobuf.Duration")
    }

    /// Whether an argument of this type fits a parameter; binds `A` and `B`.
    fn fits(&self, parameter: &Self, bound: &mut [Self; 2]) -> bool {
        match (parameter, self) {
            (Self::Param(at), _) => match bound[*at].unify(self) {
                Some(type_) => {
                    bound[*at] = type_;
                    true
                }
                None => false,
            },
            (_, Self::Dyn | Self::Unbound) => true,
            (Self::List(parameter), Self::List(type_)) => type_.fits(parameter, bound),
            (Self::Map(key, value), Self::Map(k, v)) => k.fits(key, bound) && v.fits(value, bound),
            _ => self.unify(parameter).is_some(),
        }
    }

    /// The type with `A` and `B` filled in.
    fn filled(&self, bound: &[Self; 2]) -> Self {
        match self {
            Self::Param(at) if bound[*at] == Self::Unbound => Self::Dyn,
            Self::Param(at) => bound[*at].clone(),
            Self::List(item) => Self::List(Box::new(item.filled(bound))),
            Self::Map(key, value) => Self::Map(Box::new(key.filled(bound)), Box::new(value.filled(bound))),
            other => other.clone(),
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dyn | Self::Unbound => "dyn",
            Self::Null => "null",
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Uint => "uint",
            Self::Double => "double",
            Self::String => "string",
            Self::Bytes => "bytes",
            Self::Timestamp => "timestamp",
            Self::Duration => "duration",
            Self::Meta => "type",
            Self::List(item) => return write!(f, "list({item})"),
            Self::Map(key, value) => return write!(f, "map({key}, {value})"),
            Self::Param(0) => "A",
            Self::Param(_) => "B",
        })
    }
}

/// One way to call a function.
#[derive(Debug)]
struct Overload {
    member: bool,
    parameters: Vec<Type>,
    result: Type,
}

/// Why a call has no type.
#[derive(Debug, PartialEq)]
pub(super) enum NoResult {
    /// There is no such function.
    Undeclared,
    /// It does not take these arguments.
    NoOverload,
}

static SIGNATURES: LazyLock<HashMap<&str, Vec<Overload>>> = LazyLock::new(|| {
    let lines = include_str!("signatures.txt").lines().filter(|line| !line.starts_with('#'));
    let mut functions: HashMap<&str, Vec<Overload>> = HashMap::new();
    for (names, overloads) in lines.filter_map(|line| line.split_once(": ")) {
        for name in names.split(' ') {
            functions.entry(name).or_default().extend(overloads.split("; ").filter_map(overload));
        }
    }
    functions
});

/// `string.(string) bool` or `(A, list(A)) bool`.
fn overload(text: &str) -> Option<Overload> {
    let (before, result) = text.rsplit_once(' ')?;
    let (receiver, parameters) = match before.split_once(".(") {
        Some((receiver, parameters)) => (Some(receiver), parameters.strip_suffix(')')?),
        None => (None, before.strip_prefix('(')?.strip_suffix(')')?),
    };
    let parameters = receiver.into_iter().chain(split(parameters)).map(type_of).collect::<Option<_>>()?;
    Some(Overload { member: receiver.is_some(), parameters, result: type_of(result)? })
}

/// Parts between the commas that stand outside of parentheses.
fn split(list: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, c) in list.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(list[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    if !list.is_empty() {
        parts.push(list[start..].trim());
    }
    parts
}

fn type_of(text: &str) -> Option<Type> {
    Some(match text {
        "A" => Type::Param(0),
        "B" => Type::Param(1),
        "dyn" => Type::Dyn,
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "timestamp" => Type::Timestamp,
        "duration" => Type::Duration,
        "type" => Type::Meta,
        _ => {
            let (name, inner) = text.strip_suffix(')')?.split_once('(')?;
            match (name, split(inner).as_slice()) {
                ("list", [item]) => Type::List(Box::new(type_of(item)?)),
                ("map", [key, value]) => Type::Map(Box::new(type_of(key)?), Box::new(type_of(value)?)),
                _ => return None,
            }
        }
    })
}

/// The type of a call's result. Of a call on a value, that value is the first argument. Overloads that fit with different
/// results, which `dyn` arguments can make, give `dyn`.
pub(super) fn result_of(function: &str, member: bool, arguments: &[Type]) -> Result<Type, NoResult> {
    let overloads = SIGNATURES.get(function).ok_or(NoResult::Undeclared)?;
    let mut result: Option<Type> = None;
    for overload in overloads.iter().filter(|overload| overload.member == member && overload.parameters.len() == arguments.len()) {
        let mut bound = [Type::Unbound, Type::Unbound];
        if arguments.iter().zip(&overload.parameters).all(|(argument, parameter)| argument.fits(parameter, &mut bound)) {
            let this = overload.result.filled(&bound);
            result = Some(match result {
                Some(other) if other != this => Type::Dyn,
                _ => this,
            });
        }
    }
    result.ok_or(NoResult::NoOverload)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The file has one line for each group of functions; none may be dropped because it cannot be read.
    #[test]
    fn every_signature_is_read() {
        let text = include_str!("signatures.txt");
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let expected: usize = lines
            .map(|line| {
                let (names, overloads) = line.split_once(": ").unwrap();
                names.split(' ').count() * overloads.split("; ").count()
            })
            .sum();
        assert_eq!(SIGNATURES.values().map(Vec::len).sum::<usize>(), expected);
    }

    #[test]
    fn parameters_bind_to_one_type() {
        let ints = Type::List(Box::new(Type::Int));
        let empty = Type::List(Box::new(Type::Unbound));
        assert_eq!(result_of("_+_", false, &[empty.clone(), ints.clone()]), Ok(ints.clone()));
        assert_eq!(result_of("@in", false, &[Type::String, empty]), Ok(Type::Bool));
        assert_eq!(result_of("@in", false, &[Type::String, ints.clone()]), Err(NoResult::NoOverload));
        assert_eq!(result_of("_[_]", false, &[ints, Type::Int]), Ok(Type::Int));
        assert_eq!(result_of("_+_", false, &[Type::Dyn, Type::Dyn]), Ok(Type::Dyn));
        assert_eq!(result_of("lowerAscii", true, &[Type::String]), Err(NoResult::Undeclared));
    }
}
