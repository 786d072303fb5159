//! Which functions a script declares, and in which order scripts must run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use regex::Regex;

use crate::store::Key;

/// `.create-or-alter function with (view=true) Name(`, in all its forms.
#[expect(clippy::unwrap_used, reason = "the pattern is a constant, which a test compiles")]
static DECLARATION: LazyLock<Regex> = LazyLock::new(|| {
    let pattern = r#"(?im)\.(?:create-or-alter|create|alter)\s+function\s+(?:ifnotexists\s+)?(?:with\s*\((?:[^()"']|"[^"]*"|'[^']*')*\)\s*)?(?:ifnotexists\s+)?(?:\[\s*(?:"([^"]+)"|'([^']+)')\s*\]|([A-Za-z_][\w-]*))\s*\("#;
    Regex::new(pattern).unwrap()
});

/// The names of the functions that a script declares.
pub(super) fn declared(script: &str) -> Vec<String> {
    let names = DECLARATION.captures_iter(script).filter_map(|found| (1..=3).find_map(|group| found.get(group)));
    names.map(|name| name.as_str().to_owned()).collect()
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
        let words = script.split(|c: char| !c.is_alphanumeric() && c != '_' && c != '-');
        let uses = words.filter_map(|word| owners.get(word)).flatten().copied().filter(|other| other != key);
        open.insert(key, uses.collect());
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
            (".alter function ['my func'] () { T }", vec!["my func"]),
            (".create-or-alter function A() { 1 }\n\n.create-or-alter function with (skipvalidation=true) B () { A() }", vec!["A", "B"]),
            ("T | take 1", vec![]),
        ];
        for (script, names) in cases {
            assert_eq!(declared(script), names, "{script}");
        }
    }

    #[test]
    fn what_is_used_comes_first() {
        let key = |name: &str| Key::new("default", name);
        let keys = ["a", "b", "c", "x", "y"].map(key);
        let scripts = [
            ".create-or-alter function A() { B() | join C() }",
            ".create-or-alter function B() { C() }",
            ".create-or-alter function C() { T }",
            ".create-or-alter function X() { Y() }",
            ".create-or-alter function Y() { X() }",
        ];
        let ordered = in_order(keys.iter().zip(scripts));
        assert_eq!(ordered, ["c", "b", "a", "x", "y"].map(key));
    }
}
