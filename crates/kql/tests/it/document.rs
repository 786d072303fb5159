//! docs/kql.md says what is supported: its lists are those of the tables in the code, and its examples bind.
//!
//! `ADXMON_WRITE_DOCS=1 cargo test -p kql` writes the lists anew.

use std::collections::BTreeSet;
use std::ops::Range;

use kql::{BindOptions, EmptyCatalog, bind, language};

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/kql.md");

fn document() -> String {
    std::fs::read_to_string(DOCUMENT).unwrap()
}

/// Where the text below a heading stands, up to the next heading.
fn section_at(document: &str, heading: &str) -> Range<usize> {
    let mark = format!("\n## {heading}\n");
    let start = document.find(&mark).unwrap_or_else(|| panic!("no heading '{heading}'")) + mark.len();
    let end = document[start..].find("\n## ").map_or(document.len(), |end| start + end + 1);
    start..end
}

fn section<'d>(document: &'d str, heading: &str) -> &'d str {
    &document[section_at(document, heading)]
}

/// The list of a section as it must be: names in order, other names behind them.
fn list(names: impl Iterator<Item = (&'static str, &'static [&'static str])>) -> String {
    let entry = |(name, aliases): (&str, &[&str])| match aliases {
        [] => format!("`{name}`"),
        aliases => format!("`{name}` ({})", aliases.iter().map(|alias| format!("`{alias}`")).collect::<Vec<_>>().join(", ")),
    };
    let entries: BTreeSet<String> = names.map(entry).collect();
    entries.into_iter().collect::<Vec<_>>().join(", ") + ".\n"
}

/// The last paragraph of a section is its list.
fn check_list(heading: &str, wanted: &str) {
    let mut document = document();
    let section = section_at(&document, heading);
    let text = document[section.clone()].trim_end();
    let found = section.start + text.rfind("\n\n").map_or(0, |at| at + 2)..section.start + text.len();
    if document[found.clone()] == *wanted.trim_end() {
        return;
    }
    if std::env::var_os("ADXMON_WRITE_DOCS").is_some() {
        document.replace_range(found, wanted.trim_end());
        std::fs::write(DOCUMENT, document).unwrap();
        return;
    }
    panic!("the list below '{heading}' in docs/kql.md is not that of the code; ADXMON_WRITE_DOCS=1 writes it. It must be:\n{wanted}");
}

/// One test for all lists, since each may write the file.
#[test]
fn lists_are_those_of_the_code() {
    let plain = |names: Vec<&'static str>| list(names.into_iter().map(|name| (name, &[][..])));
    check_list("Scalar functions", &list(language::scalar_functions()));
    check_list("Functions of the language", &plain(language::language_functions().collect()));
    check_list("Operators in expressions", &plain(language::scalar_operators().collect()));
    check_list("Aggregates", &list(language::aggregate_functions()));
    check_list("Plugins of evaluate", &plain(language::plugins().collect()));
}

/// The rows of the table of a section: names in the first column, an example in the second.
fn examples(section: &str) -> Vec<(Vec<&str>, &str)> {
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.strip_suffix("` |")?.split_once(" | `"));
    rows.map(|(names, example)| (names.split(['`', ',', ' ']).filter(|name| !name.is_empty()).collect(), example)).collect()
}

#[test]
fn every_operator_has_an_example_that_binds() {
    let document = document();
    let rows = examples(section(&document, "Operators"));
    let mut names = BTreeSet::new();
    for (row, example) in rows {
        names.extend(row);
        // in a table of Markdown a bar is escaped
        let query = example.replace("\\|", "|");
        let options = BindOptions { database: "Db".into(), ..BindOptions::default() };
        if let Err(diagnostics) = bind(&query, &EmptyCatalog, &options) {
            // the columns of a plugin come from data, of which there is none here
            assert!(query.contains("evaluate"), "{query}: {diagnostics:?}");
        }
    }
    assert_eq!(names, language::operators().collect::<BTreeSet<_>>());
}

#[test]
fn what_is_not_listed_is_refused_by_name() {
    let document = document();
    let rows = examples(section(&document, "What is refused"));
    assert!(rows.len() > 5, "{rows:?}");
    for (names, query) in rows {
        let query = query.replace("\\|", "|");
        let options = BindOptions { database: "Db".into(), ..BindOptions::default() };
        let diagnostics = bind(&query, &EmptyCatalog, &options).expect_err(&query);
        let named = diagnostics.iter().any(|d| d.message.contains(names[0]) && d.span.end > d.span.start);
        assert!(named, "{query}: the error does not name '{}': {diagnostics:?}", names[0]);
    }
}
