//! What is sent to Kusto for a rule, and how people are shown it.
//!
//! A query gets three `let` lines in front, which bind the window and the region through query parameters; nothing of
//! them is pasted into the text that runs. A management command is sent as it stands. The *display query* is the same
//! text with the values in place of the parameters: it goes into links and summaries, and runs as it is.

use std::ops::Range;

use jiff::Timestamp;
use kql::lexer::{Token, TokenKind, tokenize};

/// The parameters of every query, in the order of their declaration: sorted, as Kusto's clients send them.
const PARAMETERS: [(&str, &str); 4] =
    [("ParamRegion", "string"), ("_adxmonEndTime", "datetime"), ("_adxmonRegion", "string"), ("_adxmonStartTime", "datetime")];

const LETS: &str = "\nlet _startTime = _adxmonStartTime;\nlet _endTime = _adxmonEndTime;\nlet _region = _adxmonRegion;\n";

/// The query of a rule, made ready for one window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// The text to run, without the declaration of its parameters.
    pub text: String,
    /// Values of the parameters as KQL literals; none for a management command.
    pub parameters: Vec<(String, String)>,
    /// Empty lines at the beginning of the rule's query, which are not sent.
    skipped: usize,
    window: (Timestamp, Timestamp),
    region: String,
}

impl Statement {
    /// Makes the statement that runs `query` over the window from `start` to `end`.
    #[must_use]
    pub fn new(query: &str, start: Timestamp, end: Timestamp, region: &str) -> Statement {
        if let Some(command) = management(query) {
            let text = command.to_owned();
            return Statement { text, parameters: Vec::new(), skipped: 0, window: (start, end), region: String::new() };
        }
        let skipped = query[..query.len() - query.trim_start().len()].matches('\n').count();
        let text = format!("{LETS}{}\n", query.trim());
        let region = kusto::text::quote_string(region);
        let mut statement = Statement { text, parameters: Vec::new(), skipped, window: (start, end), region };
        statement.parameters = PARAMETERS.iter().map(|(name, _)| ((*name).to_owned(), statement.value(name, false))).collect();
        statement
    }

    /// The text with literals in place of the parameters, for people.
    #[must_use]
    pub fn display(&self) -> String {
        match self.is_management() {
            true => self.text.clone(),
            false => substitute(&self.text, |name| self.value(name, true)),
        }
    }

    /// A parameter's value as a literal.
    fn value(&self, name: &str, shown: bool) -> String {
        match name {
            "_adxmonStartTime" => datetime(self.window.0, shown),
            "_adxmonEndTime" => datetime(self.window.1, shown),
            _ => self.region.clone(),
        }
    }

    /// Whether it goes to the management endpoint.
    #[must_use]
    pub fn is_management(&self) -> bool {
        self.parameters.is_empty()
    }

    /// The line of the rule's own query for a line of what is sent; none for lines that are not the rule's.
    #[must_use]
    pub fn line_of_query(&self, line: usize) -> Option<usize> {
        match self.is_management() {
            true => None,
            false => Some(line.checked_sub(LINES_BEFORE).filter(|line| *line > 0)? + self.skipped),
        }
    }

    /// The text with the declaration of its parameters, as it goes over the wire.
    #[must_use]
    pub fn sent(&self) -> String {
        match self.is_management() {
            true => self.text.clone(),
            false => format!("{}{}", declaration(), self.text),
        }
    }
}

/// The line that declares the parameters.
fn declaration() -> String {
    let list: Vec<String> = PARAMETERS.iter().map(|(name, ty)| format!("{name}:{ty}")).collect();
    format!("declare query_parameters({});", list.join(", "))
}

/// Lines that stand before the first line of the rule's query in what is sent.
const LINES_BEFORE: usize = 4;

/// The management command that `query` is, from its dot on, if it is one: white space and comments may stand before it.
#[must_use]
pub fn management(query: &str) -> Option<&str> {
    let mut rest = query.trim_start();
    while let Some(comment) = rest.strip_prefix("//") {
        rest = comment.find('\n').map_or("", |end| comment[end..].trim_start());
    }
    rest.starts_with('.').then_some(rest)
}

/// A datetime literal: ticks for Kusto, microseconds without trailing zeros for people.
fn datetime(time: Timestamp, shown: bool) -> String {
    let (unit, digits) = if shown { (1_000, 6) } else { (100, 7) };
    let utc = time.strftime("%Y-%m-%dT%H:%M:%S");
    let fraction = format!("{:0digits$}", time.subsec_nanosecond().unsigned_abs() / unit);
    let fraction = if shown { fraction.trim_end_matches('0') } else { &fraction };
    match fraction {
        "" => format!("datetime({utc}Z)"),
        fraction => format!("datetime({utc}.{fraction}Z)"),
    }
}

/// Replaces the parameters where they are used as values: not in strings, comments, longer names, properties (`x.p`),
/// nor where a name is given (`p = …`, `p: type`).
fn substitute(text: &str, value: impl Fn(&str) -> String) -> String {
    let (tokens, _) = tokenize(text);
    let mut out = String::with_capacity(text.len() + 128);
    let mut copied = 0;
    for (at, token) in tokens.iter().enumerate() {
        let name = &text[token.span.clone()];
        if is_use(&tokens, at) && PARAMETERS.iter().any(|(parameter, _)| *parameter == name) {
            out.push_str(&text[copied..token.span.start]);
            out.push_str(&value(name));
            copied = token.span.end;
        }
    }
    out.push_str(&text[copied..]);
    out
}

fn is_use(tokens: &[Token], at: usize) -> bool {
    let is = |at: Option<usize>, marks: &[&str]| {
        at.and_then(|at| tokens.get(at)).is_some_and(|t| matches!(t.kind, TokenKind::Punctuation(mark) if marks.contains(&mark)))
    };
    tokens[at].kind == TokenKind::Identifier && !is(at.checked_sub(1), &["."]) && !is(Some(at + 1), &["=", ":"])
}

/// Where in `query` the names stand that it uses.
pub(crate) fn names(query: &str) -> impl Iterator<Item = Range<usize>> {
    let (tokens, _) = tokenize(query);
    tokens.into_iter().filter(|token| token.kind == TokenKind::Identifier).map(|token| token.span)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn statement(query: &str) -> Statement {
        let end: Timestamp = "2024-05-01T10:00:00.1234567Z".parse().unwrap();
        Statement::new(query, end - jiff::SignedDuration::from_hours(1), end, "eastus")
    }

    #[test]
    fn parameters_travel_as_values_with_all_their_ticks() {
        let s = statement("T");
        let sent = s.sent();
        assert_eq!(
            sent.lines().next().unwrap(),
            "declare query_parameters(ParamRegion:string, _adxmonEndTime:datetime, _adxmonRegion:string, _adxmonStartTime:datetime);"
        );
        assert_eq!(sent.lines().nth(LINES_BEFORE).unwrap(), "T");
        assert_eq!((s.line_of_query(LINES_BEFORE), s.line_of_query(LINES_BEFORE + 1)), (None, Some(1)));
        assert_eq!(statement("\n \nT").line_of_query(LINES_BEFORE + 1), Some(3));
        let value = |name: &str| s.parameters.iter().find(|(n, _)| n == name).unwrap().1.clone();
        assert_eq!(value("_adxmonStartTime"), "datetime(2024-05-01T09:00:00.1234567Z)");
        assert_eq!(value("ParamRegion"), "\"eastus\"");
    }

    #[test]
    fn the_display_query_replaces_parameters_only_where_they_are_values() {
        let shown = |query: &str| statement(query).display().split_once("_region = \"eastus\";\n").unwrap().1.trim_end().to_owned();
        for (query, expected) in [
            ("T | where r in (ParamRegion)", "T | where r in (\"eastus\")"),
            ("T | where MyParamRegion == 1", "T | where MyParamRegion == 1"),
            ("T | where d.ParamRegion == 1 // ParamRegion", "T | where d.ParamRegion == 1 // ParamRegion"),
            ("T | extend ParamRegion = 1", "T | extend ParamRegion = 1"),
            ("let f = (ParamRegion: string) { T }; f('ParamRegion')", "let f = (ParamRegion: string) { T }; f('ParamRegion')"),
        ] {
            assert_eq!(shown(query), expected);
        }
    }

    #[test]
    fn commands_are_known_behind_white_space_and_comments() {
        for query in [".show tables", "  \n.show tables", "// what there is\n\t// more\n .show tables"] {
            let s = statement(query);
            assert_eq!((s.sent().as_str(), s.is_management()), (".show tables", true), "{query}");
        }
        for query in ["", "//", "// .show", "T", "1.5"] {
            assert_eq!(management(query), None, "{query}");
        }
    }
}
