//! Kernels of string predicates against constants: `has`, `contains`, `startswith`, `endswith` and their kin.
//!
//! A term is a maximal run of letters and digits. `has` wants the edge of a term only where the edge of the needle is
//! a letter or digit itself.

use std::borrow::Cow;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use datafusion::arrow::buffer::BooleanBuffer;
use kql::{Type, Value};

use super::kernel::{Call, Evaluation, Kernel, Selected, constant};
use crate::engine::error::EngineError;

/// The kernel for a string predicate with a constant needle.
pub(super) fn select<'a>(call: &Call<'a>) -> Option<Selected<'a>> {
    let (test, case_sensitive, negated) = parse(call.function)?;
    let (text, needle) = call.pair()?;
    let Value::String(needle) = constant(needle)? else { return None };
    if text.ty != Type::String || constant(text).is_some() {
        return None;
    }
    let needle = if case_sensitive { needle.to_string() } else { needle.to_lowercase() };
    Selected::new(Predicate { test, needle, case_sensitive, negated }, vec![text])
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Test {
    Equals,
    Contains,
    StartsWith,
    EndsWith,
    /// Whether a term has to begin at the needle's start, and to end at its end.
    Has {
        start: bool,
        end: bool,
    },
}

/// The test, whether case matters, whether it is negated.
fn parse(function: &str) -> Option<(Test, bool, bool)> {
    match function {
        "=~" => return Some((Test::Equals, false, false)),
        "!~" => return Some((Test::Equals, false, true)),
        _ => {}
    }
    let (negated, name) = function.strip_prefix('!').map_or((false, function), |name| (true, name));
    let (case_sensitive, name) = name.strip_suffix("_cs").map_or((false, name), |name| (true, name));
    let test = match name {
        "contains" => Test::Contains,
        "startswith" => Test::StartsWith,
        "endswith" => Test::EndsWith,
        "has" => Test::Has { start: true, end: true },
        "hasprefix" => Test::Has { start: true, end: false },
        "hassuffix" => Test::Has { start: false, end: true },
        _ => return None,
    };
    Some((test, case_sensitive, negated))
}

#[derive(Debug)]
struct Predicate {
    test: Test,
    /// In lower case unless case matters.
    needle: String,
    case_sensitive: bool,
    negated: bool,
}

impl Kernel for Predicate {
    fn run(&self, args: &[ArrayRef], _: &Evaluation) -> Result<ArrayRef, EngineError> {
        let texts = args[0].as_string::<i32>();
        let mut scratch = String::new();
        let holds = |row: usize| self.holds(texts.value(row), &mut scratch) != self.negated;
        let holds: BooleanBuffer = (0..texts.len()).map(holds).collect();
        Ok(Arc::new(BooleanArray::new(holds, None)))
    }
}

impl Predicate {
    fn holds(&self, text: &str, scratch: &mut String) -> bool {
        if self.case_sensitive {
            return self.matches(text);
        }
        if text.is_ascii() {
            scratch.clear();
            scratch.push_str(text);
            scratch.make_ascii_lowercase();
            return self.matches(scratch);
        }
        let folded: Cow<'_, str> = Cow::Owned(text.to_lowercase());
        self.matches(&folded)
    }

    fn matches(&self, text: &str) -> bool {
        let needle = self.needle.as_str();
        match self.test {
            Test::Equals => text == needle,
            Test::Contains => text.contains(needle),
            Test::StartsWith => text.starts_with(needle),
            Test::EndsWith => text.ends_with(needle),
            Test::Has { start, end } => has(text, needle, start, end),
        }
    }
}

fn has(text: &str, needle: &str, start: bool, end: bool) -> bool {
    let starts_in_term = start && needle.chars().next().is_some_and(char::is_alphanumeric);
    let ends_in_term = end && needle.chars().next_back().is_some_and(char::is_alphanumeric);
    let Some(step) = needle.chars().next().map(char::len_utf8) else { return true };
    let mut from = 0;
    while let Some(found) = text[from..].find(needle) {
        let at = from + found;
        let before = text[..at].chars().next_back().is_some_and(char::is_alphanumeric);
        let after = text[at + needle.len()..].chars().next().is_some_and(char::is_alphanumeric);
        let inside = (starts_in_term && before) || (ends_in_term && after);
        if !inside {
            return true;
        }
        from = at + step;
    }
    false
}
