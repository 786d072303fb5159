//! The parser: recursive descent for statements and operators, precedence climbing for scalar expressions.
//!
//! Functions give up on a statement with the first error ([`Parser::statements`] goes on behind the next `;`), so there
//! is one diagnostic for one mistake. Nesting is limited: no input overflows the stack.

mod expr;
mod literals;
mod operators;
mod options;
mod sources;

pub(crate) use operators::OPERATORS;

use crate::ast::{ColumnDeclaration, Expr, ExprKind, Function, Name, Parameter, ParameterType, Span, Statement};
use crate::diagnostic::Diagnostic;
use crate::lexer::{Token, TokenKind, first_token, tokenize};
use crate::types::Type;
use crate::value::Value;

/// Highest tree of expressions.
pub(crate) const MAX_HEIGHT: usize = 120;
/// Deepest recursion of the parser, which takes two levels for each pair of parentheses. Binding and running recurse as
/// deep, and have to get by with the 2 MiB that threads have by default.
const MAX_DEPTH: usize = 100;
/// Most operators in one pipe.
const MAX_PIPE: usize = 300;

/// What [`parse`] found.
#[derive(Debug, Clone)]
pub struct Parsed {
    /// The statements that could be read.
    pub statements: Vec<Statement>,
    /// What could not, in order of place.
    pub diagnostics: Vec<Diagnostic>,
}

/// Parses KQL text: statements separated by `;`. Never fails: what is wrong is in the diagnostics.
pub fn parse(text: &str) -> Parsed {
    let (tokens, diagnostics) = tokenize(text);
    let mut parser = Parser { text, tokens, at: 0, diagnostics, depth: 0, colon_is_operator: false, aliases: Vec::new() };
    let statements = parser.statements();
    let mut diagnostics = parser.diagnostics;
    diagnostics.sort_by_key(|d| d.span.start);
    Parsed { statements, diagnostics }
}

/// Parses `(a:long, T:(x:string), b:int=1)`, the parameter list of a stored function.
pub(crate) fn parse_parameters(text: &str) -> Result<Vec<Parameter>, Diagnostic> {
    let (tokens, diagnostics) = tokenize(text);
    if let Some(first) = diagnostics.into_iter().next() {
        return Err(first);
    }
    let mut parser = Parser { text, tokens, at: 0, diagnostics: Vec::new(), depth: 0, colon_is_operator: false, aliases: Vec::new() };
    let parameters = parser.parameters()?;
    parser.expect_end()?;
    Ok(parameters)
}

/// Parses `{ statements }`, the body of a stored function; the braces may be missing.
pub(crate) fn parse_body(text: &str) -> Result<Vec<Statement>, Diagnostic> {
    let (tokens, diagnostics) = tokenize(text);
    if let Some(first) = diagnostics.into_iter().next() {
        return Err(first);
    }
    let mut parser = Parser { text, tokens, at: 0, diagnostics: Vec::new(), depth: 0, colon_is_operator: false, aliases: Vec::new() };
    if parser.is("{") {
        let body = parser.block()?;
        parser.expect_end()?;
        return Ok(body);
    }
    let body = parser.statements();
    match parser.diagnostics.into_iter().next() {
        Some(first) => Err(first),
        None => Ok(body),
    }
}

/// The value of `ty(raw)`, for text that holds only the inside.
pub(crate) fn parse_typed(ty: Type, raw: &str) -> Option<Value> {
    literals::typed(ty, raw).ok()
}

/// The options that a text sets for its own request (`set notruncation; set servertimeout = 1m; …`), in order; those
/// whose value is no literal are left out.
pub fn request_options(text: &str) -> Vec<(String, Value)> {
    let option = |statement| match statement {
        Statement::Set { name, value: None } => Some((name.text, Value::Bool(true))),
        Statement::Set { name, value: Some(span) } => Some((name.text, parse_literal(&text[span])?)),
        _ => None,
    };
    // most texts set none, and need not be read twice
    if text.contains("set") { parse(text).statements.into_iter().filter_map(option).collect() } else { Vec::new() }
}

/// The scalar literal at the start of `text`, with its length: a token with an optional sign, `true`, `false`, `null`.
fn leading_literal(text: &str) -> Option<(Value, usize)> {
    let (sign, rest) = match text.as_bytes().first()? {
        b'-' => (-1, &text[1..]),
        b'+' => (1, &text[1..]),
        _ => (0, text),
    };
    let token = first_token(rest)?;
    let value = match token.kind {
        TokenKind::String(text) if sign == 0 => Value::String(text.into()),
        TokenKind::Long(n) => Value::Long(if sign < 0 { n.wrapping_neg() } else { n }),
        TokenKind::Real(x) => Value::Real(if sign < 0 { -x } else { x }),
        TokenKind::TimeSpan(t) => Value::TimeSpan(if sign < 0 { -t } else { t }),
        TokenKind::Typed(ty, raw) if sign == 0 => literals::typed(ty, &rest[raw]).ok()?,
        TokenKind::Identifier => match &rest[token.span.clone()] {
            "true" if sign == 0 => Value::Bool(true),
            "false" if sign == 0 => Value::Bool(false),
            "null" if sign == 0 => Value::Null,
            "NaN" if sign == 0 => Value::Real(f64::NAN),
            _ => return None,
        },
        _ => return None,
    };
    Some((value, text.len() - rest.len() + token.span.end))
}

/// The value of a text that is one scalar literal, such as `-5m`, `"x"` or `datetime(2020-01-01)`.
pub(crate) fn parse_literal(text: &str) -> Option<Value> {
    let text = text.trim();
    leading_literal(text).filter(|(_, length)| *length == text.len()).map(|(value, _)| value)
}

/// A result whose error is the diagnostic that ends the statement.
type Parse<T> = Result<T, Diagnostic>;

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<Token>,
    at: usize,
    diagnostics: Vec<Diagnostic>,
    depth: usize,
    /// Inside the predicate of `search`.
    colon_is_operator: bool,
    /// Names for entities around the current place, with the members named so far.
    aliases: Vec<(String, Vec<String>)>,
}

impl Parser<'_> {
    fn statements(&mut self) -> Vec<Statement> {
        let mut statements = Vec::new();
        while !self.at_end() {
            if self.eat(";") {
                continue;
            }
            match self.statement().and_then(|s| self.statement_end().map(|()| s)) {
                Ok(statement) => statements.push(statement),
                Err(diagnostic) => {
                    self.report(diagnostic);
                    self.skip_statement();
                }
            }
        }
        statements
    }

    /// Keeps a parser error unless the lexer has complained about the same place already.
    fn report(&mut self, diagnostic: Diagnostic) {
        let known = self.diagnostics.iter().any(|d| d.span.start <= diagnostic.span.end && diagnostic.span.start <= d.span.end);
        if !known {
            self.diagnostics.push(diagnostic);
        }
    }

    fn statement_end(&mut self) -> Parse<()> {
        if self.at_end() || self.eat(";") {
            return Ok(());
        }
        Err(self.unexpected("end of the statement"))
    }

    fn skip_statement(&mut self) {
        self.depth = 0;
        while !self.at_end() && !self.eat(";") {
            self.at += 1;
        }
    }

    fn statement(&mut self) -> Parse<Statement> {
        let next_is_name = matches!(self.peek_at(1).kind, TokenKind::Identifier) || self.is_at(1, "[");
        if self.is_keyword("let") && next_is_name {
            return self.let_statement();
        }
        if self.is_keyword("set") && next_is_name {
            return self.set_statement();
        }
        if self.is_keyword("declare") && next_is_name {
            self.at += 1;
            if self.eat_keyword("query_parameters") {
                return Ok(Statement::Parameters(self.parameters()?));
            }
            return self.other_statement();
        }
        if (self.is_keyword("alias") || self.is_keyword("restrict")) && next_is_name {
            return self.other_statement();
        }
        Ok(Statement::Query(self.query()?))
    }

    fn other_statement(&mut self) -> Parse<Statement> {
        let name = self.name("statement")?;
        let mut depth = 0usize;
        while !self.at_end() && (depth > 0 || !self.is(";")) {
            match &self.peek().kind {
                TokenKind::Punctuation("(" | "{" | "[") => depth += 1,
                TokenKind::Punctuation(")" | "}" | "]") => depth = depth.saturating_sub(1),
                _ => {}
            }
            self.at += 1;
        }
        Ok(Statement::Other(name))
    }

    fn let_statement(&mut self) -> Parse<Statement> {
        self.at += 1;
        let name = self.name("name")?;
        self.expect("=")?;
        let value = if self.at_function() { self.function()? } else { self.query()? };
        Ok(Statement::Let { name, value })
    }

    fn set_statement(&mut self) -> Parse<Statement> {
        self.at += 1;
        let name = self.dotted_name()?;
        let value = if self.eat("=") { Some(self.expression()?.span) } else { None };
        Ok(Statement::Set { name, value })
    }

    /// Whether a function literal starts here: `() {`, `(a: long …`, `view (…`.
    fn at_function(&self) -> bool {
        let from = usize::from(self.is_keyword("view"));
        let no_parameters = self.is_at(from + 1, ")") && self.is_at(from + 2, "{");
        let plain = matches!(self.peek_at(from + 1).kind, TokenKind::Identifier) && self.is_at(from + 2, ":");
        let quoted = self.is_at(from + 1, "[") && self.is_at(from + 3, "]") && self.is_at(from + 4, ":");
        self.is_at(from, "(") && (no_parameters || plain || quoted)
    }

    fn function(&mut self) -> Parse<Expr> {
        let start = self.peek().span.start;
        let view = self.eat_keyword("view");
        let parameters = self.parameters()?;
        let body = self.block()?;
        Ok(self.leaf(ExprKind::Function(Box::new(Function { parameters, body, view })), start))
    }

    /// `{ statements }`
    fn block(&mut self) -> Parse<Vec<Statement>> {
        self.statements_between("{", "}")
    }

    fn statements_between(&mut self, open: &str, close: &str) -> Parse<Vec<Statement>> {
        self.expect(open)?;
        self.nested(|parser| {
            let mut body = Vec::new();
            while !parser.is(close) {
                if parser.eat(";") {
                    continue;
                }
                if parser.at_end() {
                    return Err(parser.unexpected(&format!("'{close}'")));
                }
                body.push(parser.statement()?);
                if !parser.is(close) {
                    parser.expect(";")?;
                }
            }
            parser.expect(close)?;
            Ok(body)
        })
    }

    fn parameters(&mut self) -> Parse<Vec<Parameter>> {
        self.expect("(")?;
        let mut parameters = Vec::new();
        while !self.is(")") {
            parameters.push(self.parameter()?);
            if !self.eat(",") {
                break;
            }
        }
        self.expect(")")?;
        Ok(parameters)
    }

    fn parameter(&mut self) -> Parse<Parameter> {
        let name = self.name("parameter name")?;
        self.expect(":")?;
        let ty = if self.is("(") { self.table_type()? } else { ParameterType::Scalar(self.type_name()?) };
        let default = if self.eat("=") { Some(self.expression()?) } else { None };
        Ok(Parameter { name, ty, default })
    }

    fn table_type(&mut self) -> Parse<ParameterType> {
        if self.is_at(1, "*") && self.is_at(2, ")") {
            self.at += 3;
            return Ok(ParameterType::Table(None));
        }
        Ok(ParameterType::Table(Some(self.column_declarations()?)))
    }

    /// `(a:long, b:string)`
    fn column_declarations(&mut self) -> Parse<Vec<ColumnDeclaration>> {
        self.expect("(")?;
        let mut columns = Vec::new();
        while !self.is(")") {
            columns.push(self.column_declaration()?);
            if !self.eat(",") {
                break;
            }
        }
        self.expect(")")?;
        Ok(columns)
    }

    fn column_declaration(&mut self) -> Parse<ColumnDeclaration> {
        let name = self.name("column name")?;
        self.expect(":")?;
        Ok(ColumnDeclaration { name, ty: self.type_name()? })
    }

    fn type_name(&mut self) -> Parse<Type> {
        let ty = match &self.peek().kind {
            TokenKind::Identifier => Type::parse(self.slice(self.peek())),
            _ => None,
        };
        let ty = ty.ok_or_else(|| self.unexpected("type"))?;
        self.at += 1;
        Ok(ty)
    }

    // ---- tokens

    fn peek(&self) -> &Token {
        self.peek_at(0)
    }

    /// The token `ahead` of the current one; the end when there are no more.
    fn peek_at(&self, ahead: usize) -> &Token {
        let last = self.tokens.len() - 1;
        &self.tokens[(self.at + ahead).min(last)]
    }

    fn slice(&self, token: &Token) -> &str {
        &self.text[token.span.clone()]
    }

    fn at_end(&self) -> bool {
        self.peek().kind == TokenKind::End
    }

    fn previous_end(&self) -> usize {
        self.at.checked_sub(1).map_or(0, |at| self.tokens[at.min(self.tokens.len() - 1)].span.end)
    }

    fn is(&self, mark: &str) -> bool {
        self.is_at(0, mark)
    }

    fn is_at(&self, ahead: usize, mark: &str) -> bool {
        matches!(self.peek_at(ahead).kind, TokenKind::Punctuation(m) if m == mark)
    }

    fn eat(&mut self, mark: &str) -> bool {
        let found = self.is(mark);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, mark: &str) -> Parse<()> {
        if self.eat(mark) { Ok(()) } else { Err(self.unexpected(&format!("'{mark}'"))) }
    }

    fn is_keyword(&self, word: &str) -> bool {
        self.is_keyword_at(0, word)
    }

    fn is_keyword_at(&self, ahead: usize, word: &str) -> bool {
        let token = self.peek_at(ahead);
        token.kind == TokenKind::Identifier && self.slice(token) == word
    }

    fn eat_keyword(&mut self, word: &str) -> bool {
        let found = self.is_keyword(word);
        self.at += usize::from(found);
        found
    }

    fn expect_keyword(&mut self, word: &str) -> Parse<()> {
        if self.eat_keyword(word) { Ok(()) } else { Err(self.unexpected(&format!("'{word}'"))) }
    }

    fn expect_end(&mut self) -> Parse<()> {
        if self.at_end() { Ok(()) } else { Err(self.unexpected("end of the text")) }
    }

    fn unexpected(&self, wanted: &str) -> Diagnostic {
        let token = self.peek();
        let found = match token.kind {
            TokenKind::End => "the end of the text".to_owned(),
            _ => format!("'{}'", self.slice(token).chars().take(40).collect::<String>()),
        };
        Diagnostic::syntax(token.span.clone(), format!("expected {wanted}, found {found}"))
    }

    /// A name: plain, `['quoted']` or `["quoted"]`.
    fn name(&mut self, what: &str) -> Parse<Name> {
        let token = self.peek().clone();
        if token.kind == TokenKind::Identifier {
            self.at += 1;
            return Ok(Name { text: self.slice(&token).to_owned(), span: token.span });
        }
        if self.at_quoted_name()
            && let TokenKind::String(text) = self.peek_at(1).kind.clone()
        {
            self.at += 3;
            return Ok(Name { text, span: token.span.start..self.previous_end() });
        }
        Err(self.unexpected(what))
    }

    fn at_quoted_name(&self) -> bool {
        self.is("[") && matches!(self.peek_at(1).kind, TokenKind::String(_)) && self.is_at(2, "]")
    }

    /// `a.b.c`, as in `hint.strategy`.
    fn dotted_name(&mut self) -> Parse<Name> {
        let mut name = self.name("name")?;
        while self.eat(".") {
            let part = self.name("name")?;
            name.text = format!("{}.{}", name.text, part.text);
            name.span.end = part.span.end;
        }
        Ok(name)
    }

    // ---- nodes

    /// Runs `inner` one nesting level deeper.
    fn nested<T>(&mut self, inner: impl FnOnce(&mut Self) -> Parse<T>) -> Parse<T> {
        if self.depth >= MAX_DEPTH {
            return Err(self.too_deep(self.peek().span.clone()));
        }
        self.depth += 1;
        let result = inner(self);
        self.depth = self.depth.saturating_sub(1);
        result
    }

    fn too_deep(&self, span: Span) -> Diagnostic {
        Diagnostic::syntax(span, format!("the query is nested too deeply (more than {MAX_HEIGHT} levels)"))
    }

    fn leaf(&self, kind: ExprKind, start: usize) -> Expr {
        Expr { kind, span: start..self.previous_end(), height: 1 }
    }

    /// A node over children of which the highest has that height.
    fn node(&self, kind: ExprKind, start: usize, below: usize) -> Parse<Expr> {
        let span = start..self.previous_end();
        if below >= MAX_HEIGHT {
            return Err(self.too_deep(span));
        }
        Ok(Expr { kind, span, height: below + 1 })
    }
}

#[cfg(test)]
mod tests;
