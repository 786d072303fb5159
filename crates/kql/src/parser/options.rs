//! `name = value` options of operators: `kind=inner`, `hint.strategy=shuffle`, `with (a=b)`.

use super::{Parse, Parser};
use crate::ast::{Expr, ExprKind, OperatorOption};
use crate::lexer::TokenKind;

/// Options that may stand directly behind the name of an operator.
const NAMES: [&str; 15] = [
    "kind",
    "withsource",
    "with_source",
    "isfuzzy",
    "bagexpansion",
    "with_itemindex",
    "itemindex",
    "with_match_id",
    "flags",
    "hint",
    "decodeblocks",
    "expandoutput",
    "best_effort",
    "datascope",
    "feature",
];

impl Parser<'_> {
    /// Options in front of the arguments of an operator.
    pub(super) fn options(&mut self) -> Parse<Vec<OperatorOption>> {
        let mut options = Vec::new();
        while self.at_option() {
            options.push(self.option()?);
        }
        Ok(options)
    }

    fn at_option(&self) -> bool {
        let token = self.peek();
        token.kind == TokenKind::Identifier
            && NAMES.contains(&self.slice(token))
            && (self.is_at(1, "=") || (self.is_at(1, ".") && self.is_keyword("hint")))
    }

    fn option(&mut self) -> Parse<OperatorOption> {
        let name = self.dotted_name()?;
        self.expect("=")?;
        let value = self.option_value()?;
        Ok(OperatorOption { name, value })
    }

    /// A name, a literal or a parenthesised list, of which only the place is kept.
    fn option_value(&mut self) -> Parse<Expr> {
        let start = self.peek().span.start;
        if matches!(self.peek().kind, TokenKind::Identifier) {
            let name = self.name("value")?;
            let kind = match name.text.as_str() {
                "true" | "false" => return self.boolean_option(&name.text, start),
                _ => ExprKind::Name(name.text),
            };
            return Ok(self.leaf(kind, start));
        }
        if self.eat("(") {
            while !self.is(")") {
                if self.at_end() {
                    return Err(self.unexpected("')'"));
                }
                self.at += 1;
            }
            self.at += 1;
            return Ok(self.leaf(ExprKind::Error, start));
        }
        self.unary()
    }

    fn boolean_option(&mut self, text: &str, start: usize) -> Parse<Expr> {
        let value = crate::Value::Bool(text == "true");
        Ok(self.leaf(ExprKind::Literal(value, crate::Type::Bool), start))
    }

    /// `with (name = value, …)`, when it is there.
    pub(super) fn with_options(&mut self) -> Parse<Vec<OperatorOption>> {
        if !(self.is_keyword("with") && self.is_at(1, "(")) {
            return Ok(Vec::new());
        }
        self.at += 2;
        let mut options = Vec::new();
        while !self.is(")") {
            let name = self.dotted_name()?;
            self.expect("=")?;
            let value = self.with_value()?;
            options.push(OperatorOption { name, value });
            // Kusto lets commas go missing in `render … with (…)`
            if !self.eat(",") && !matches!(self.peek().kind, TokenKind::Identifier) {
                break;
            }
        }
        self.expect(")")?;
        Ok(options)
    }

    /// A value inside `with (…)`; `ycolumns=a, b` lists columns.
    fn with_value(&mut self) -> Parse<Expr> {
        let start = self.peek().span.start;
        let mut value = self.option_value()?;
        let ExprKind::Name(text) = &mut value.kind else {
            return Ok(value);
        };
        while self.is(",") && matches!(self.peek_at(1).kind, TokenKind::Identifier) && !self.is_at(2, "=") {
            self.at += 1;
            let more = self.name("name")?;
            text.push(',');
            text.push_str(&more.text);
        }
        value.span = start..self.previous_end();
        Ok(value)
    }
}
