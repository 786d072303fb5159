//! Splits KQL text into tokens. Every byte that is not a token is white space, a comment or covered by a diagnostic.
//!
//! Keywords are plain identifiers: nearly all of them may be column names, so only the parser knows. Typed literals
//! (`datetime(…)`, `dynamic(…)`, `int(…)`) are one token with their raw content, since what stands inside is not KQL.

use std::ops::Range;

use crate::diagnostic::Diagnostic;
use crate::types::Type;
use crate::value::{TICKS_PER_DAY, TICKS_PER_SECOND};

/// A token.
#[derive(Debug, Clone, PartialEq)]
pub struct Token {
    /// What it is.
    pub kind: TokenKind,
    /// Bytes of the text.
    pub span: Range<usize>,
}

/// Kinds of token.
#[derive(Debug, Clone, PartialEq)]
pub enum TokenKind {
    /// A name or keyword; the text is in the span.
    Identifier,
    /// A string literal, unescaped.
    String(String),
    /// An integer literal.
    Long(i64),
    /// A literal with a point or an exponent.
    Real(f64),
    /// A timespan literal such as `5m`, in ticks.
    TimeSpan(i64),
    /// `type(raw)`: the type and where the raw content is.
    Typed(Type, Range<usize>),
    /// Punctuation.
    Punctuation(&'static str),
    /// Bytes that are no token; a diagnostic says why.
    Bad,
    /// The end of the text.
    End,
}

/// Longest first, so that the first match is the right one.
const PUNCTUATION: [&str; 36] = [
    "<|", "=>", "==", "=~", "!=", "!~", "<=", ">=", "<>", "..", "::", "(", ")", "[", "]", "{", "}", ",", ";", ":", "|", ".", "=", "<", ">",
    "+", "-", "*", "/", "%", "!", "~", "@", "?", "#", "&",
];

/// Suffixes of timespan literals and their ticks.
const UNITS: [(&str, f64); 29] = [
    ("d", TICKS_PER_DAY as f64),
    ("day", TICKS_PER_DAY as f64),
    ("days", TICKS_PER_DAY as f64),
    ("h", 3600.0 * TICKS_PER_SECOND as f64),
    ("hr", 3600.0 * TICKS_PER_SECOND as f64),
    ("hrs", 3600.0 * TICKS_PER_SECOND as f64),
    ("hour", 3600.0 * TICKS_PER_SECOND as f64),
    ("hours", 3600.0 * TICKS_PER_SECOND as f64),
    ("m", 60.0 * TICKS_PER_SECOND as f64),
    ("min", 60.0 * TICKS_PER_SECOND as f64),
    ("minute", 60.0 * TICKS_PER_SECOND as f64),
    ("minutes", 60.0 * TICKS_PER_SECOND as f64),
    ("s", TICKS_PER_SECOND as f64),
    ("sec", TICKS_PER_SECOND as f64),
    ("second", TICKS_PER_SECOND as f64),
    ("seconds", TICKS_PER_SECOND as f64),
    ("ms", 10_000.0),
    ("milli", 10_000.0),
    ("millis", 10_000.0),
    ("millisec", 10_000.0),
    ("millisecond", 10_000.0),
    ("milliseconds", 10_000.0),
    ("micro", 10.0),
    ("micros", 10.0),
    ("microsec", 10.0),
    ("microsecond", 10.0),
    ("microseconds", 10.0),
    ("tick", 1.0),
    ("ticks", 1.0),
];

/// Splits `text` into tokens, the last of which is [`TokenKind::End`], and the diagnostics of what is no token.
pub fn tokenize(text: &str) -> (Vec<Token>, Vec<Diagnostic>) {
    let mut lexer = Lexer { text, at: 0, diagnostics: Vec::new() };
    let mut tokens = Vec::with_capacity(text.len() / 4 + 1);
    while let Some(token) = lexer.next_token() {
        tokens.push(token);
    }
    tokens.push(Token { kind: TokenKind::End, span: text.len()..text.len() });
    (tokens, lexer.diagnostics)
}

/// The token at the start of `text`, if it is a good one; the end is none.
pub(crate) fn first_token(text: &str) -> Option<Token> {
    let mut lexer = Lexer { text, at: 0, diagnostics: Vec::new() };
    lexer.next_token().filter(|_| lexer.diagnostics.is_empty())
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    diagnostics: Vec<Diagnostic>,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or("")
    }

    fn next_token(&mut self) -> Option<Token> {
        self.skip_trivia();
        let start = self.at;
        let rest = self.rest();
        let first = rest.chars().next()?;
        let kind = if let Some(kind) = self.string_token() {
            kind
        } else if rest.strip_prefix('.').unwrap_or(rest).starts_with(|c: char| c.is_ascii_digit()) {
            self.number_or_name()
        } else if is_name_start(first) {
            self.name_or_typed()
        } else if let Some(mark) = PUNCTUATION.iter().find(|mark| rest.starts_with(**mark)) {
            self.at += mark.len();
            TokenKind::Punctuation(mark)
        } else {
            self.at += first.len_utf8();
            self.complain(start, format!("unexpected character '{}'", first.escape_debug()));
            TokenKind::Bad
        };
        Some(Token { kind, span: start..self.at })
    }

    fn complain(&mut self, start: usize, message: impl Into<String>) {
        self.diagnostics.push(Diagnostic::syntax(start..self.at, message));
    }

    /// White space and `// comments`.
    fn skip_trivia(&mut self) {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
            self.at += rest.len() - trimmed.len();
            if !trimmed.starts_with("//") {
                return;
            }
            self.at += trimmed.find('\n').unwrap_or(trimmed.len());
        }
    }

    /// A string literal in one of its forms, or None when none starts here.
    fn string_token(&mut self) -> Option<TokenKind> {
        let rest = self.rest();
        // `h` in front asks Kusto to hide the literal in traces; it has no other meaning
        let body = rest.strip_prefix(['h', 'H']).unwrap_or(rest);
        let prefix = rest.len() - body.len();
        for fence in ["```", "~~~"] {
            if let Some(inner) = body.strip_prefix(fence) {
                return Some(self.fenced(prefix + fence.len(), inner, fence));
            }
        }
        let (verbatim, body) = body.strip_prefix('@').map_or((false, body), |b| (true, b));
        let quote = body.chars().next().filter(|c| matches!(c, '"' | '\''))?;
        let opening = prefix + usize::from(verbatim) + 1;
        Some(if verbatim { self.verbatim(opening, quote) } else { self.escaped(opening, quote) })
    }

    fn fenced(&mut self, opening: usize, inner: &str, fence: &str) -> TokenKind {
        let start = self.at;
        let (length, closing) = match inner.find(fence) {
            Some(length) => (length, fence.len()),
            None => (inner.len(), 0),
        };
        self.at += opening + length + closing;
        if closing == 0 {
            self.complain(start, "unterminated multi-line string literal");
            return TokenKind::Bad;
        }
        TokenKind::String(inner[..length].to_owned())
    }

    fn verbatim(&mut self, opening: usize, quote: char) -> TokenKind {
        let start = self.at;
        self.at += opening;
        let mut value = String::new();
        while let Some(c) = self.rest().chars().next() {
            self.at += c.len_utf8();
            if c != quote {
                value.push(c);
            } else if self.rest().starts_with(quote) {
                self.at += 1;
                value.push(quote);
            } else {
                return TokenKind::String(value);
            }
        }
        self.complain(start, "unterminated string literal");
        TokenKind::Bad
    }

    fn escaped(&mut self, opening: usize, quote: char) -> TokenKind {
        let start = self.at;
        self.at += opening;
        let mut value = String::new();
        while let Some(c) = self.rest().chars().next() {
            if matches!(c, '\n' | '\r') {
                break;
            }
            self.at += c.len_utf8();
            if c == quote {
                return TokenKind::String(value);
            }
            if c != '\\' {
                value.push(c);
                continue;
            }
            let escape = self.at - 1;
            match self.escape() {
                Some(c) => value.push(c),
                None => self.complain(escape, "unknown escape sequence in a string literal"),
            }
        }
        self.complain(start, "unterminated string literal");
        TokenKind::Bad
    }

    /// What follows a backslash.
    fn escape(&mut self) -> Option<char> {
        let c = self.rest().chars().next()?;
        if matches!(c, '\n' | '\r') {
            return None;
        }
        self.at += c.len_utf8();
        Some(match c {
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            'a' => '\u{7}',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'v' => '\u{b}',
            '\\' | '"' | '\'' | '/' => c,
            'x' => return self.code_point(2),
            'u' => return self.utf16_escape(),
            'U' => return self.code_point(8),
            '0'..='7' => {
                let digits = self.rest().bytes().take(2).take_while(|b| (b'0'..=b'7').contains(b)).count();
                let from = self.at - 1;
                self.at += digits;
                return u32::from_str_radix(&self.text[from..self.at], 8).ok().and_then(char::from_u32);
            }
            _ => return None,
        })
    }

    fn code_point(&mut self, digits: usize) -> Option<char> {
        let code = self.hex(digits)?;
        Some(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    fn hex(&mut self, digits: usize) -> Option<u32> {
        let text = self.rest().get(..digits)?;
        let code = text.bytes().all(|b| b.is_ascii_hexdigit()).then(|| u32::from_str_radix(text, 16).ok())??;
        self.at += digits;
        Some(code)
    }

    /// `\uXXXX`; two of them may be a surrogate pair.
    fn utf16_escape(&mut self) -> Option<char> {
        let high = self.hex(4)?;
        if !(0xd800..0xdc00).contains(&high) || !self.rest().starts_with("\\u") {
            return Some(char::from_u32(high).unwrap_or(char::REPLACEMENT_CHARACTER));
        }
        let before = self.at;
        self.at += 2;
        match self.hex(4) {
            Some(low) if (0xdc00..0xe000).contains(&low) => char::from_u32(0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00)),
            _ => {
                self.at = before;
                Some(char::REPLACEMENT_CHARACTER)
            }
        }
    }

    /// A number, a timespan such as `5m`, or a name that starts with digits.
    fn number_or_name(&mut self) -> TokenKind {
        let start = self.at;
        let rest = self.rest();
        let bytes = rest.as_bytes();
        if rest.starts_with("0x") || rest.starts_with("0X") {
            let digits = bytes[2..].iter().take_while(|b| b.is_ascii_hexdigit()).count();
            if digits > 0 && !rest[2 + digits..].starts_with(is_name_part) {
                self.at += 2 + digits;
                return self.hexadecimal(start);
            }
        }
        let mut length = count_digits(bytes, 0);
        let mut real = false;
        // `1..2` is a range, `1.x` would be a member: a point belongs to the number only before a digit or at its end
        if bytes.get(length) == Some(&b'.') {
            let fraction = count_digits(bytes, length + 1);
            let next = rest[length + 1..].chars().next();
            if fraction > 0 || !next.is_some_and(|c| c == '.' || is_name_part(c)) {
                real = true;
                length += 1 + fraction;
            }
        }
        if let Some(exponent) = exponent_length(&bytes[length..]) {
            let after = rest[length + exponent..].chars().next();
            if !after.is_some_and(is_name_part) {
                real = true;
                length += exponent;
            }
        }
        let suffix: &str = name_prefix(&rest[length..]);
        if suffix.is_empty() {
            self.at += length;
            return self.number(start, real);
        }
        if let Some((_, ticks)) = UNITS.iter().find(|(unit, _)| unit.eq_ignore_ascii_case(suffix)) {
            let number = rest[..length].parse::<f64>().unwrap_or(f64::NAN);
            self.at += length + suffix.len();
            return self.timespan(start, &rest[..length], number, *ticks);
        }
        self.at += length + suffix.len();
        if real {
            self.complain(start, "malformed number");
            return TokenKind::Bad;
        }
        TokenKind::Identifier
    }

    fn hexadecimal(&mut self, start: usize) -> TokenKind {
        match u64::from_str_radix(&self.text[start + 2..self.at], 16) {
            Ok(value) => TokenKind::Long(value.cast_signed()),
            Err(_) => {
                self.complain(start, "integer literal does not fit 64 bits");
                TokenKind::Bad
            }
        }
    }

    fn number(&mut self, start: usize, real: bool) -> TokenKind {
        let digits = &self.text[start..self.at];
        if real {
            return TokenKind::Real(digits.parse().unwrap_or(f64::NAN));
        }
        match digits.parse::<u64>() {
            Ok(value) if value <= i64::MAX as u64 => TokenKind::Long(value.cast_signed()),
            // only `-9223372036854775808` may use it; the negation of the wrapped value is that value again
            Ok(value) if value == i64::MIN.unsigned_abs() => TokenKind::Long(i64::MIN),
            _ => {
                self.complain(start, "integer literal does not fit 64 bits");
                TokenKind::Bad
            }
        }
    }

    fn timespan(&mut self, start: usize, digits: &str, number: f64, unit: f64) -> TokenKind {
        // whole numbers exactly, fractions through a double as Kusto does
        let whole = digits.parse::<i64>().ok().and_then(|n| n.checked_mul(unit as i64));
        let ticks = (number * unit).round();
        match whole {
            Some(ticks) => TokenKind::TimeSpan(ticks),
            None if ticks.abs() < i64::MAX as f64 => TokenKind::TimeSpan(ticks as i64),
            None => {
                self.complain(start, "timespan literal is out of range");
                TokenKind::Bad
            }
        }
    }

    fn name_or_typed(&mut self) -> TokenKind {
        let name = name_prefix(self.rest());
        self.at += name.len();
        let Some(ty) = Type::parse(name).filter(|ty| *ty != Type::String) else {
            return TokenKind::Identifier;
        };
        let rest = self.rest();
        let inner = rest.trim_start();
        if !inner.starts_with('(') {
            return TokenKind::Identifier;
        }
        let open = self.at + (rest.len() - inner.len());
        match closing_parenthesis(&self.text[open..]) {
            Some(length) => {
                self.at = open + length + 1;
                TokenKind::Typed(ty, open + 1..open + length)
            }
            None => {
                // the rest of the text is skipped: looking on from each of many open literals would take quadratic time
                let start = open - (rest.len() - inner.len()) - name.len();
                self.at = self.text.len();
                self.complain(start, format!("{name} literal without closing parenthesis"));
                TokenKind::Bad
            }
        }
    }
}

/// Offset of the parenthesis that closes the one at the start of `text`, passing over strings.
fn closing_parenthesis(text: &str) -> Option<usize> {
    let mut depth = 0usize;
    let mut quote: Option<u8> = None;
    let mut verbatim = false;
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let byte = bytes[at];
        match quote {
            Some(q) if byte == q => quote = None,
            Some(_) if byte == b'\\' && !verbatim => at += 1,
            Some(_) => {}
            None => match byte {
                b'"' | b'\'' => {
                    quote = Some(byte);
                    verbatim = at > 0 && bytes[at - 1] == b'@';
                }
                b'(' => depth += 1,
                b')' => {
                    depth -= 1;
                    if depth == 0 {
                        return Some(at);
                    }
                }
                _ => {}
            },
        }
        at += 1;
    }
    None
}

fn count_digits(bytes: &[u8], from: usize) -> usize {
    bytes.get(from..).unwrap_or_default().iter().take_while(|b| b.is_ascii_digit()).count()
}

/// Length of `e+10` at the start.
fn exponent_length(bytes: &[u8]) -> Option<usize> {
    if !matches!(bytes.first(), Some(b'e' | b'E')) {
        return None;
    }
    let sign = usize::from(matches!(bytes.get(1), Some(b'+' | b'-')));
    let digits = count_digits(bytes, 1 + sign);
    (digits > 0).then_some(1 + sign + digits)
}

fn is_name_start(c: char) -> bool {
    c.is_alphabetic() || c == '_' || c == '$'
}

/// Whether the character may stand inside a name.
pub fn is_name_part(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$'
}

fn name_prefix(text: &str) -> &str {
    let end = text.find(|c| !is_name_part(c)).unwrap_or(text.len());
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> Vec<TokenKind> {
        let (tokens, diagnostics) = tokenize(text);
        assert_eq!(diagnostics, [], "{text}");
        tokens.into_iter().map(|t| t.kind).take_while(|k| *k != TokenKind::End).collect()
    }

    fn one(text: &str) -> TokenKind {
        let mut all = kinds(text);
        assert_eq!(all.len(), 1, "{text}: {all:?}");
        all.remove(0)
    }

    #[test]
    fn strings() {
        for (text, value) in [
            (r#""a\tb""#, "a\tb"),
            ("'it'", "it"),
            (r#"@"c:\d""e""#, r#"c:\d"e"#),
            (r#"h"secret""#, "secret"),
            (r#"h@'x\y'"#, r"x\y"),
            ("```a\n\"b\"```", "a\n\"b\""),
            (r#""\u0041\x42\103""#, "ABC"),
            (r#""\ud83d\ude00""#, "😀"),
        ] {
            assert_eq!(one(text), TokenKind::String(value.to_owned()), "{text}");
        }
    }

    #[test]
    fn numbers_and_timespans() {
        assert_eq!(one("0x1F"), TokenKind::Long(31));
        assert_eq!(one("1.5e3"), TokenKind::Real(1500.0));
        assert_eq!(one("1e-2"), TokenKind::Real(0.01));
        assert_eq!(one(".5"), TokenKind::Real(0.5));
        assert_eq!(one("1tick"), TokenKind::TimeSpan(1));
        assert_eq!(one("10ms"), TokenKind::TimeSpan(100_000));
        assert_eq!(one("1.5h"), TokenKind::TimeSpan(54_000_000_000));
        assert_eq!(one("1microsecond"), TokenKind::TimeSpan(10));
        assert_eq!(one("2x"), TokenKind::Identifier);
        let range = [TokenKind::Long(1), TokenKind::Punctuation(".."), TokenKind::Long(3)];
        assert_eq!(kinds("1..3"), range);
    }

    #[test]
    fn typed_literals_keep_their_raw_content() {
        let text = r#"dynamic({"a)": [1, "\")"]}) x"#;
        let (tokens, _) = tokenize(text);
        let TokenKind::Typed(Type::Dynamic, raw) = &tokens[0].kind else { panic!("{tokens:?}") };
        assert_eq!(&text[raw.clone()], r#"{"a)": [1, "\")"]}"#);
        assert_eq!(one("datetime(2020-01-01 10:00:00.5Z)"), TokenKind::Typed(Type::DateTime, 9..31));
        assert_eq!(one("datetime"), TokenKind::Identifier);
    }

    #[test]
    fn what_is_no_token_is_diagnosed_with_its_place() {
        let (tokens, diagnostics) = tokenize("a \"b");
        assert_eq!(tokens.len(), 3);
        assert_eq!(diagnostics[0].span, 2..4);
        assert_eq!(diagnostics[0].code, "SYN0002");
        assert_eq!(tokenize("§").1.len(), 1);
        assert_eq!(kinds("a // b\n c").len(), 2);
    }
}
