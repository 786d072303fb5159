//! Safe building of KQL text: quoted strings, quoted names and literals.
//!
//! Every value that comes from outside passes through here on its way into a query or a command.
//! The quoting rules are those of the language reference: strings in double quotes know the
//! escapes `\\`, `\"`, `\n`, `\r`, `\t` and `\uXXXX`; a name in `['…']` follows the rules of a
//! string in single quotes.

use std::fmt::Write as _;
use std::time::Duration;

/// A string literal in double quotes.
///
/// ```
/// assert_eq!(kusto::text::quote_string("a\"b\\c"), r#""a\"b\\c""#);
/// ```
pub fn quote_string(value: &str) -> String {
    let mut out = String::with_capacity(value.len() + 2);
    out.push('"');
    escape_into(&mut out, value, '"');
    out.push('"');
    out
}

/// A string literal in single quotes, as commands want it around JSON.
pub fn quote_string_single(value: &str) -> String {
    let mut out = String::with_capacity(value.len() + 2);
    out.push('\'');
    escape_into(&mut out, value, '\'');
    out.push('\'');
    out
}

/// A name of a table, column, function or database in its bracketed form, `['name']`: valid for
/// every name, reserved words included.
///
/// ```
/// assert_eq!(kusto::text::quote_name("it's"), r"['it\'s']");
/// ```
pub fn quote_name(name: &str) -> String {
    format!("[{}]", quote_string_single(name))
}

/// A timespan literal in the protocol's text form, `[d.]hh:mm:ss[.fffffff]`.
///
/// ```
/// use std::time::Duration;
/// assert_eq!(kusto::text::timespan(Duration::from_secs(90_061)), "1.01:01:01");
/// assert_eq!(kusto::text::timespan(Duration::from_millis(1500)), "00:00:01.5000000");
/// ```
pub fn timespan(value: Duration) -> String {
    let seconds = value.as_secs();
    let mut out = String::new();
    if seconds >= 86_400 {
        let _ = write!(out, "{}.", seconds / 86_400);
    }
    let (hours, minutes) = (seconds / 3600 % 24, seconds / 60 % 60);
    let _ = write!(out, "{hours:02}:{minutes:02}:{:02}", seconds % 60);
    let ticks = value.subsec_nanos() / 100;
    if ticks != 0 {
        let _ = write!(out, ".{ticks:07}");
    }
    out
}

fn escape_into(out: &mut String, value: &str, quote: char) {
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            // Line and paragraph separators would end a line for some readers.
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') => {
                let mut units = [0u16; 2];
                for unit in c.encode_utf16(&mut units) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// An independent reader of string literals, written from the language reference.
    fn read_literal(text: &str, quote: char) -> Option<(String, String)> {
        let mut chars = text.chars();
        if chars.next()? != quote {
            return None;
        }
        let mut out = String::new();
        loop {
            match chars.next()? {
                '\\' => match chars.next()? {
                    'n' => out.push('\n'),
                    'r' => out.push('\r'),
                    't' => out.push('\t'),
                    'u' => {
                        let hex: String = chars.by_ref().take(4).collect();
                        out.push(char::from_u32(u32::from_str_radix(&hex, 16).ok()?)?);
                    }
                    c => out.push(c),
                },
                c if c == quote => return Some((out, chars.collect())),
                c => out.push(c),
            }
        }
    }

    proptest! {
        #[test]
        fn a_quoted_value_reads_back_and_nothing_escapes_from_it(value in any::<String>()) {
            prop_assert_eq!(read_literal(&quote_string(&value), '"'), Some((value.clone(), String::new())));
            let name = quote_name(&value);
            let inner = &name[1..name.len() - 1];
            prop_assert_eq!(read_literal(inner, '\''), Some((value, String::new())));
        }

        #[test]
        fn quoted_text_is_one_line(value in any::<String>()) {
            let breaks = quote_string(&value).contains(['\n', '\r', '\u{2028}', '\u{2029}']);
            prop_assert!(!breaks);
        }
    }
}
