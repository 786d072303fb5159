//! The cursor over the tokens of a command: words, names, column lists, properties.

use kql::Type;
use kql::diagnostic::Diagnostic;
use kql::lexer::{Token, TokenKind, tokenize};

use super::Parse;
use crate::commands::syntax::{Columns, Properties};

/// A cursor over the tokens of a command, and the parts that commands are made of.
pub(super) struct Parser<'a> {
    /// The whole text.
    pub(super) text: &'a str,
    /// The command without the data or the query behind `<|`.
    pub(super) head: &'a str,
    tokens: Vec<Token>,
    at: usize,
}

impl<'a> Parser<'a> {
    /// At the first token of `head`, which is the beginning of `text`.
    pub(super) fn new(text: &'a str, head: &'a str) -> Parse<Self> {
        let (tokens, diagnostics) = tokenize(head);
        match diagnostics.into_iter().find(|diagnostic| !is_in_guid(head, diagnostic.span.start)) {
            Some(first) => Err(first),
            None => Ok(Parser { text, head, tokens, at: 0 }),
        }
    }
}

/// Whether a guid without quotes stands here, as the id of an operation may. Its groups are no tokens of KQL: `60920089858d`
/// would be a timespan that is out of range.
fn is_in_guid(head: &str, at: usize) -> bool {
    let outside = |c: char| c != '-' && !c.is_ascii_hexdigit();
    let (before, behind) = head.split_at(at);
    let start = before.rsplit(outside).next().map_or(at, |part| at - part.len());
    let end = behind.split(outside).next().map_or(at, |part| at + part.len());
    end - start == 36 && uuid::Uuid::try_parse(&head[start..end]).is_ok()
}

impl Parser<'_> {
    fn token(&self) -> &Token {
        // the last token is the end and is never passed
        &self.tokens[self.at.min(self.tokens.len() - 1)]
    }

    pub(super) fn peek(&self) -> &TokenKind {
        &self.token().kind
    }

    pub(super) fn span(&self) -> std::ops::Range<usize> {
        self.token().span.clone()
    }

    pub(super) fn advance(&mut self) {
        self.at = (self.at + 1).min(self.tokens.len() - 1);
    }

    pub(super) fn unexpected(&self, wanted: &str) -> Diagnostic {
        let span = self.span();
        let found = self.head.get(span.clone()).unwrap_or_default();
        let found = if found.is_empty() { "the end of the command".to_owned() } else { format!("'{found}'") };
        Diagnostic::syntax(span, format!("expected {wanted}, found {found}"))
    }

    pub(super) fn is_mark(&self, mark: &str) -> bool {
        matches!(self.peek(), TokenKind::Punctuation(found) if *found == mark)
    }

    pub(super) fn take_mark(&mut self, mark: &str) -> bool {
        let found = self.is_mark(mark);
        if found {
            self.advance();
        }
        found
    }

    pub(super) fn punctuation(&mut self, mark: &str) -> Parse<()> {
        if self.take_mark(mark) { Ok(()) } else { Err(self.unexpected(&format!("'{mark}'"))) }
    }

    /// The word here, in lower case; words joined by hyphens are one.
    fn word_at(&self, at: usize) -> Option<(String, usize)> {
        let mut word = String::new();
        let mut next = at;
        loop {
            let token = self.tokens.get(next)?;
            if token.kind != TokenKind::Identifier {
                return None;
            }
            word.push_str(&self.head[token.span.clone()].to_ascii_lowercase());
            next += 1;
            let hyphen = self.tokens.get(next).is_some_and(|t| t.kind == TokenKind::Punctuation("-"));
            let glued = hyphen
                && self.tokens[next].span.start == token.span.end
                && self.tokens.get(next + 1).is_some_and(|after| after.span.start == self.tokens[next].span.end);
            if !glued || self.tokens[next + 1].kind != TokenKind::Identifier {
                return Some((word, next));
            }
            word.push('-');
            next += 1;
        }
    }

    pub(super) fn word(&mut self) -> Option<String> {
        let (word, next) = self.word_at(self.at)?;
        self.at = next;
        Some(word)
    }

    /// Takes these words if they stand here.
    pub(super) fn take(&mut self, words: &str) -> bool {
        let mut at = self.at;
        for wanted in words.split(' ') {
            match self.word_at(at) {
                Some((word, next)) if word == wanted => at = next,
                _ => return false,
            }
        }
        self.at = at;
        true
    }

    pub(super) fn expect(&mut self, words: &str) -> Parse<()> {
        if self.take(words) { Ok(()) } else { Err(self.unexpected(&format!("'{words}'"))) }
    }

    /// `name`, `['name']`, `"name"`.
    pub(super) fn name(&mut self, what: &str) -> Parse<String> {
        match self.peek().clone() {
            TokenKind::Identifier => {
                let name = self.head[self.span()].to_owned();
                self.advance();
                Ok(name)
            }
            TokenKind::String(name) => {
                self.advance();
                Ok(name)
            }
            TokenKind::Punctuation("[") => {
                self.advance();
                let TokenKind::String(name) = self.peek().clone() else {
                    return Err(self.unexpected(&format!("the name of {what} as a string")));
                };
                self.advance();
                self.punctuation("]")?;
                Ok(name)
            }
            _ => Err(self.unexpected(&format!("the name of {what}"))),
        }
    }

    /// One or more string literals, which together are one text.
    pub(super) fn string(&mut self, what: &str) -> Parse<String> {
        let mut text = None;
        while let TokenKind::String(part) = self.peek().clone() {
            text.get_or_insert_with(String::new).push_str(&part);
            self.advance();
        }
        text.ok_or_else(|| self.unexpected(&format!("{what} as a string")))
    }

    pub(super) fn names(&mut self, what: &str) -> Parse<Vec<String>> {
        self.punctuation("(")?;
        let mut names = Vec::new();
        while !self.take_mark(")") {
            names.push(self.name(what)?);
            if !self.take_mark(",") && !self.is_mark(")") {
                return Err(self.unexpected("',' or ')'"));
            }
        }
        Ok(names)
    }

    pub(super) fn columns(&mut self) -> Parse<Columns> {
        self.punctuation("(")?;
        let mut columns: Columns = Vec::new();
        while !self.take_mark(")") {
            let start = self.span();
            let name = self.name("a column")?;
            self.punctuation(":")?;
            let ty = self.column_type()?;
            if columns.iter().any(|(other, _)| *other == name) {
                return Err(Diagnostic::semantic("SEM0034", start, format!("column '{name}' is there twice")));
            }
            columns.push((name, ty));
            if !self.take_mark(",") && !self.is_mark(")") {
                return Err(self.unexpected("',' or ')'"));
            }
        }
        Ok(columns)
    }

    pub(super) fn column_type(&mut self) -> Parse<Type> {
        let span = self.span();
        let name = self.name("a type")?;
        // .NET names are accepted as well
        let plain = name.strip_prefix("System.").unwrap_or(&name).to_ascii_lowercase();
        let ty = match plain.as_str() {
            "object" => Some(Type::Dynamic),
            "sqldecimal" => Some(Type::Decimal),
            "sbyte" => Some(Type::Bool),
            plain => Type::parse(plain),
        };
        ty.ok_or_else(|| Diagnostic::semantic("SEM0001", span, format!("'{name}' is not a type")))
    }

    /// `with (name = value, …)`, if it stands here.
    pub(super) fn properties(&mut self) -> Parse<Properties> {
        let mut properties = Properties::new();
        if !self.take("with") {
            return Ok(properties);
        }
        self.punctuation("(")?;
        while !self.take_mark(")") {
            let name = self.name("a property")?.to_ascii_lowercase();
            self.punctuation("=")?;
            let value = self.property_value()?;
            properties.insert(name, value);
            if !self.take_mark(",") && !self.is_mark(")") {
                return Err(self.unexpected("',' or ')'"));
            }
        }
        Ok(properties)
    }

    fn property_value(&mut self) -> Parse<String> {
        let value = match self.peek().clone() {
            TokenKind::String(_) => return self.string("the value of a property"),
            TokenKind::Identifier | TokenKind::Long(_) | TokenKind::Real(_) | TokenKind::TimeSpan(_) => self.head[self.span()].to_owned(),
            TokenKind::Typed(_, raw) => self.head[raw].trim().trim_matches(['"', '\'']).to_owned(),
            _ => return Err(self.unexpected("the value of a property")),
        };
        self.advance();
        Ok(value)
    }

    /// The text from here to the bracket that closes this one.
    pub(super) fn bracketed(&mut self, open: &'static str, close: &'static str) -> Parse<String> {
        let start = self.span().start;
        if !self.is_mark(open) {
            return Err(self.unexpected(&format!("'{open}'")));
        }
        let mut depth = 0usize;
        loop {
            let end = self.span().end;
            match self.peek() {
                TokenKind::Punctuation(mark) if *mark == open => depth += 1,
                TokenKind::Punctuation(mark) if *mark == close => depth -= 1,
                TokenKind::End => return Err(self.unexpected(&format!("'{close}'"))),
                _ => {}
            }
            self.advance();
            if depth == 0 {
                return Ok(self.head[start..end].to_owned());
            }
        }
    }

    pub(super) fn unsupported(&self, what: impl std::fmt::Display) -> Diagnostic {
        Diagnostic::unsupported(0..self.span().end, format!("the command '{what}'"))
    }
}
