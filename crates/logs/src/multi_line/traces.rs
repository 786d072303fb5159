//! Stack traces of Java, Python, Go and Node as state machines over lines: a line that no rule of the present state
//! takes is not of the trace. The states are those that detect-exceptions tools use.

use std::str::FromStr;

use regex::Regex;
use serde::{Deserialize, Serialize};

/// A language whose stack traces are known.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Language {
    /// Java and what runs on its machine; C# looks alike.
    Java,
    /// Python, chained exceptions included.
    Python,
    /// Go: panics, fatal errors, and all goroutines after them.
    Go,
    /// Node.js, and other engines with V8's traces.
    Node,
}

impl Language {
    /// The names that configurations use.
    pub const NAMES: [&'static str; 4] = ["java", "python", "go", "node"];
}

impl FromStr for Language {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "java" => Ok(Self::Java),
            "python" => Ok(Self::Python),
            "go" => Ok(Self::Go),
            "node" => Ok(Self::Node),
            _ => Err(format!("{name} is not a preset of multi-line; use one of {}", Self::NAMES.join(", "))),
        }
    }
}

/// Where in a trace the last line may have been: a set, because the traces of some languages begin alike.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(transparent)]
pub(super) struct States(u32);

impl States {
    /// In no trace.
    pub(super) const START: Self = Self(START);
}

const START: u32 = 1;
/// At the line that names the exception.
const JAVA_HEAD: u32 = 1 << 1;
/// At "nested exception is:".
const JAVA_NESTED: u32 = 1 << 2;
const JAVA_FRAMES: u32 = 1 << 3;
const PYTHON_FRAMES: u32 = 1 << 4;
/// At the line that names the exception: another trace may follow, which it caused.
const PYTHON_END: u32 = 1 << 5;
const PYTHON_GAP: u32 = 1 << 6;
const GO_HEAD: u32 = 1 << 7;
const GO_SIGNAL: u32 = 1 << 8;
/// Before a goroutine.
const GO_GAP: u32 = 1 << 9;
/// Before the function of a frame.
const GO_FUNCTION: u32 = 1 << 10;
/// Before the place of a frame.
const GO_PLACE: u32 = 1 << 11;
/// At the place in the source that an uncaught error shows first.
const NODE_PLACE: u32 = 1 << 12;
const NODE_SOURCE: u32 = 1 << 13;
const NODE_CARET: u32 = 1 << 14;
const NODE_HEAD: u32 = 1 << 15;
const NODE_FRAMES: u32 = 1 << 16;
/// Among the properties of the error, in braces after the frames.
const NODE_PROPERTIES: u32 = 1 << 17;

/// In one of the states `from`, a line that matches `pattern` leads to `to`.
struct Rule {
    from: u32,
    pattern: &'static str,
    to: u32,
}

const fn rule(from: u32, pattern: &'static str, to: u32) -> Rule {
    Rule { from, pattern, to }
}

const JAVA: &[Rule] = &[
    rule(START | JAVA_NESTED, r"(?:Exception|Error|Throwable)(?::|$)", JAVA_HEAD),
    rule(JAVA_HEAD, r"^\s*nested exception is:", JAVA_NESTED),
    rule(JAVA_HEAD, r"^\s*$", JAVA_HEAD),
    rule(JAVA_HEAD | JAVA_FRAMES, r"^\s+at ", JAVA_FRAMES),
    rule(JAVA_HEAD | JAVA_FRAMES, r"^\s*(?:Caused by|Suppressed):", JAVA_HEAD),
    rule(JAVA_HEAD | JAVA_FRAMES, r"^\s*\.\.\. \d+ (?:more|common frames omitted)", JAVA_FRAMES),
    rule(JAVA_HEAD | JAVA_FRAMES, r"^\s*--- End of (?:inner exception )?stack trace", JAVA_FRAMES),
];

const PYTHON: &[Rule] = &[
    rule(START | PYTHON_END | PYTHON_GAP, r"Traceback \(most recent call last\):$", PYTHON_FRAMES),
    rule(PYTHON_FRAMES, r"^\s+\S", PYTHON_FRAMES),
    rule(PYTHON_FRAMES, r"^[\w.]+(?::|$)", PYTHON_END),
    rule(PYTHON_END | PYTHON_GAP, r"^$", PYTHON_GAP),
    rule(
        PYTHON_GAP,
        r"^(?:During handling of the above exception, another exception occurred|The above exception was the direct cause of the following exception):$",
        PYTHON_GAP,
    ),
];

const GO: &[Rule] = &[
    rule(START, r"\bpanic: |^fatal error: ", GO_HEAD),
    rule(START, r"http: panic serving ", GO_GAP),
    rule(GO_HEAD, r"^\s+\S", GO_HEAD),
    rule(GO_HEAD, r"^\[signal ", GO_SIGNAL),
    rule(GO_HEAD | GO_SIGNAL | GO_GAP | GO_FUNCTION, r"^$", GO_GAP),
    rule(GO_HEAD | GO_SIGNAL | GO_GAP, r"^goroutine \d+ .*\[[^\]]+\]:$", GO_FUNCTION),
    rule(GO_FUNCTION, r"^\S.*\)$|^created by ", GO_PLACE),
    rule(GO_FUNCTION, r"^\.\.\.(?:additional|\d+) frames elided", GO_FUNCTION),
    rule(GO_PLACE, r"^\s+\S", GO_FUNCTION),
    rule(GO_GAP | GO_FUNCTION, r"^exit status \d+$", START),
];

const NODE: &[Rule] = &[
    rule(START, r"^(?:node:\S+|(?:file:|[A-Za-z]:\\|/).*\.[cm]?[jt]sx?):\d+$", NODE_PLACE),
    rule(NODE_PLACE, r".", NODE_SOURCE),
    rule(NODE_SOURCE, r"^\s*\^+\s*$", NODE_CARET),
    rule(NODE_CARET, r"^$", NODE_CARET),
    rule(START | NODE_CARET, r"(?:Error|Exception)(?: \[\w+\])?(?::|$)", NODE_HEAD),
    rule(NODE_HEAD, r"^$", NODE_HEAD),
    rule(NODE_HEAD | NODE_FRAMES, r"^\s+at .*[^{]$", NODE_FRAMES),
    rule(NODE_HEAD | NODE_FRAMES, r"^\s+at .* \{$", NODE_PROPERTIES),
    rule(NODE_PROPERTIES, r"^\s+\S", NODE_PROPERTIES),
    rule(NODE_PROPERTIES, r"^\}$", START),
];

/// The rules of some languages.
#[derive(Debug)]
pub(super) struct Traces {
    rules: Vec<(u32, Regex, u32)>,
}

impl Traces {
    pub(super) fn new(languages: &[Language]) -> Self {
        let of = |language: &Language| match language {
            Language::Java => JAVA,
            Language::Python => PYTHON,
            Language::Go => GO,
            Language::Node => NODE,
        };
        let rules = languages.iter().flat_map(of);
        // Every pattern is compiled by a test.
        Self { rules: rules.filter_map(|rule| Some((rule.from, Regex::new(rule.pattern).ok()?, rule.to))).collect() }
    }

    /// The states after a line; `None` when no rule takes it.
    pub(super) fn next(&self, states: States, line: &str) -> Option<States> {
        let mut next = 0;
        for (from, pattern, to) in &self.rules {
            if from & states.0 != 0 && next & to != *to && pattern.is_match(line) {
                next |= to;
            }
        }
        (next != 0).then_some(States(next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pattern_compiles() {
        for rules in [JAVA, PYTHON, GO, NODE] {
            for rule in rules {
                assert!(Regex::new(rule.pattern).is_ok(), "{}", rule.pattern);
            }
        }
        let all = [Language::Java, Language::Python, Language::Go, Language::Node];
        assert_eq!(Traces::new(&all).rules.len(), JAVA.len() + PYTHON.len() + GO.len() + NODE.len());
    }

    #[test]
    fn every_name_is_a_language() {
        for name in Language::NAMES {
            assert!(name.parse::<Language>().is_ok(), "{name}");
        }
    }
}
