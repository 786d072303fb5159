//! Whatever the text, the front end answers: no panic, and diagnostics that lie inside the text.

use kql::{BindOptions, EmptyCatalog, bind, parse};
use proptest::prelude::*;

/// Words that steer random text into the grammar.
const WORDS: [&str; 48] = [
    "T",
    "x",
    "|",
    "where",
    "project",
    "extend",
    "summarize",
    "by",
    "join",
    "kind=inner",
    "on",
    "union",
    "let",
    "=",
    ";",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ",",
    "..",
    "==",
    "and",
    "or",
    "in",
    "between",
    "has",
    "'a'",
    "\"",
    "1",
    "1.5",
    "5m",
    "datetime(2020-01-01)",
    "dynamic({",
    "count()",
    "print",
    "range",
    "datatable",
    "mv-expand",
    "parse",
    "with",
    "*",
    "-",
    "evaluate",
    "toscalar",
    ":",
];

proptest! {
    #[test]
    fn any_text(text in any::<String>()) {
        check(&text);
    }

    #[test]
    fn any_words(words in prop::collection::vec(prop::sample::select(&WORDS[..]), 0..40)) {
        check(&words.join(" "));
        check(&words.concat());
    }
}

fn check(text: &str) {
    for diagnostic in parse(text).diagnostics {
        assert!(diagnostic.span.start <= diagnostic.span.end && diagnostic.span.end <= text.len(), "{diagnostic:?}");
        assert!(text.is_char_boundary(diagnostic.span.start) && text.is_char_boundary(diagnostic.span.end));
        diagnostic.position(text);
    }
    if let Err(diagnostics) = bind(text, &EmptyCatalog, &BindOptions::default()) {
        assert!(!diagnostics.is_empty());
    }
}
