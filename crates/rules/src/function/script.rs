//! Which functions a script declares, and in which order scripts must run.

use std::collections::{BTreeMap, BTreeSet};

use kql::lexer::{Token, TokenKind, tokenize};

use crate::store::Key;

/// The names of the functions that a script declares: by commands, each of which begins a line outside of brackets. What
/// comments and strings say declares nothing.
pub(super) fn declared(script: &str) -> Vec<String> {
    let (tokens, _) = tokenize(script);
    let mut names = Vec::new();
    let mut depth = 0usize;
    for (at, token) in tokens.iter().enumerate() {
        match token.kind {
            TokenKind::Punctuation("(" | "[" | "{") => depth += 1,
            TokenKind::Punctuation(")" | "]" | "}") => depth = depth.saturating_sub(1),
            TokenKind::Punctuation(".") if depth == 0 && begins_a_line(script, token) => {
                names.extend(declaration(script, &tokens[at + 1..]));
            }
            _ => {}
        }
    }
    names
}

fn begins_a_line(script: &str, token: &Token) -> bool {
    script[..token.span.start].rsplit(['\n', '\r']).next().is_none_or(|before| before.trim_start_matches('\u{feff}').trim().is_empty())
}

/// The name that a command declares: `create-or-alter function with (view=true) Name (`, in all its forms.
fn declaration(script: &str, command: &[Token]) -> Option<String> {
    let is = |at: usize, word: &str| command.get(at).is_some_and(|token| script[token.span.clone()].eq_ignore_ascii_case(word));
    let all = |words: &[&str]| words.iter().enumerate().all(|(at, word)| is(at, word));
    let mut at = match () {
        () if all(&["create", "-", "or", "-", "alter", "function"]) => 6,
        () if all(&["create", "function"]) || all(&["alter", "function"]) => 2,
        () => return None,
    };
    loop {
        if is(at, "ifnotexists") {
            at += 1;
        } else if is(at, "with") && is(at + 1, "(") {
            at = end_of_properties(command, at + 1)?;
        } else {
            break;
        }
    }
    let (name, next) = match &command.get(at)?.kind {
        TokenKind::Identifier => (script[command[at].span.clone()].to_owned(), at + 1),
        TokenKind::Punctuation("[") if is(at + 2, "]") => (text_of(command.get(at + 1)?)?.to_owned(), at + 3),
        _ => return None,
    };
    is(next, "(").then_some(name)
}

/// Past the parenthesis that closes the one at `open`.
fn end_of_properties(command: &[Token], open: usize) -> Option<usize> {
    let mut depth = 0usize;
    for (at, token) in command.iter().enumerate().skip(open) {
        match token.kind {
            TokenKind::Punctuation("(") => depth += 1,
            TokenKind::Punctuation(")") => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(at + 1);
        }
    }
    None
}

/// The names that a script mentions: words, and strings in brackets. Comments and other strings mention nothing.
fn mentioned(script: &str) -> BTreeSet<String> {
    let (tokens, _) = tokenize(script);
    let word = |token: &Token| matches!(token.kind, TokenKind::Identifier).then(|| script[token.span.clone()].to_owned());
    let in_brackets = tokens.windows(3).filter_map(|three| match (&three[0].kind, &three[2].kind) {
        (TokenKind::Punctuation("["), TokenKind::Punctuation("]")) => text_of(&three[1]).map(str::to_owned),
        _ => None,
    });
    tokens.iter().filter_map(word).chain(in_brackets).collect()
}

fn text_of(token: &Token) -> Option<&str> {
    match &token.kind {
        TokenKind::String(text) => Some(text),
        _ => None,
    }
}

/// The scripts, those that declare a function before those that use it. Whatever depends on itself in a circle comes last.
pub(super) fn in_order<'a>(scripts: impl Iterator<Item = (&'a Key, &'a str)>) -> Vec<Key> {
    let scripts: Vec<(&Key, &str)> = scripts.collect();
    let mut owners: BTreeMap<String, BTreeSet<&Key>> = BTreeMap::new();
    for (key, script) in &scripts {
        for name in declared(script) {
            owners.entry(name).or_default().insert(key);
        }
    }
    let mut open: BTreeMap<&Key, BTreeSet<&Key>> = BTreeMap::new();
    for (key, script) in &scripts {
        let uses = mentioned(script).iter().filter_map(|name| owners.get(name)).flatten().copied().filter(|other| other != key).collect();
        open.insert(key, uses);
    }
    let mut ordered = Vec::with_capacity(scripts.len());
    while !open.is_empty() {
        let mut ready: Vec<&Key> =
            open.iter().filter(|(_, uses)| uses.iter().all(|used| !open.contains_key(used))).map(|(key, _)| *key).collect();
        if ready.is_empty() {
            ready = open.keys().copied().collect();
        }
        for key in ready {
            open.remove(key);
            ordered.push(key.clone());
        }
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_all_forms() {
        let cases = [
            (".create-or-alter function F() { T }", vec!["F"]),
            (".create function with (docstring='a (b)', folder=\"x\", view=true) F_2(x:long) { T }", vec!["F_2"]),
            (".create function ifnotexists F() { T }", vec!["F"]),
            (".create function with (folder = @'a\\') ifnotexists F(x:int = int(1)) { T }", vec!["F"]),
            (".alter function ['my func'] () { T }", vec!["my func"]),
            (".CREATE-OR-ALTER FUNCTION [\"it's\"]() { T }", vec!["it's"]),
            ("\u{feff}  .create-or-alter\n  function\n  with (skipvalidation=true)\n  F(\n  x: datetime) { T }", vec!["F"]),
            (".create-or-alter function A() { 1 }\n\n.create-or-alter function with (skipvalidation=true) B () { A() }", vec!["A", "B"]),
            (".create-or-alter function A() {\r\n  T\r\n}\r\n.create table X (a:long)\r\n.alter function B() { T }\r\n", vec!["A", "B"]),
            ("T | take 1", vec![]),
        ];
        for (script, names) in cases {
            assert_eq!(declared(script), names, "{script}");
        }
    }

    #[test]
    fn what_is_only_mentioned_is_not_declared() {
        let scripts = [
            "// .create-or-alter function Other() { T }\n",
            "// was:\n//\n// .create function Other() { T }\n",
            ".create-or-alter function F() {\n    // .create-or-alter function Other() { T }\n    T\n}",
            ".create-or-alter function F() { print '.create-or-alter function Other() { T }' }",
            ".create-or-alter function F() { print \"\\\".create function Other() { T }\" }",
            ".create-or-alter function F() { print @'it''s \\', @\"\n.create function Other() { T }\n\" }",
            ".create-or-alter function F() { print ```\n.create-or-alter function Other() { T }\n``` }",
            ".create-or-alter function F() { print ~~~\n.create-or-alter function Other() { T }\n~~~ }",
            ".create-or-alter function with (docstring = '.create function Other() {}') F() { T }",
            ".create-or-alter function F() {\n.create-or-alter function Other() { T }\n}",
            ".create-or-alter function F() { T } .create function Other() { T }",
        ];
        for script in scripts {
            let expected: &[&str] = if script.starts_with("//") { &[] } else { &["F"] };
            assert_eq!(declared(script), expected, "{script}");
        }
    }

    #[test]
    fn what_is_used_comes_first() {
        let key = |name: &str| Key::new("default", name);
        let keys = ["a", "b", "c", "x", "y"].map(key);
        let scripts = [
            ".create-or-alter function A() { B() | join ['the c']() }",
            ".create-or-alter function B() { ['the c']() }",
            // Neither makes a circle.
            ".create-or-alter function ['the c']() { print 'A' } // as B",
            ".create-or-alter function X() { Y() }",
            ".create-or-alter function Y() { X() }",
        ];
        let ordered = in_order(keys.iter().zip(scripts));
        assert_eq!(ordered, ["c", "b", "a", "x", "y"].map(key));
    }
}
