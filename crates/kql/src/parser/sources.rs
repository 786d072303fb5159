//! Operators that need no input: `print`, `range`, `datatable`, `union`, `search` and those that are refused.

use super::{Parse, Parser};
use crate::ast::{Operator, OperatorKind};
use crate::lexer::TokenKind;

impl Parser<'_> {
    /// The source operator that starts here, if one does: their words may also be columns and functions.
    pub(super) fn source_operator(&mut self) -> Parse<Option<Operator>> {
        let token = self.peek();
        if token.kind != TokenKind::Identifier {
            return Ok(None);
        }
        let start = token.span.start;
        let kind = match self.slice(token) {
            "print" if self.starts_operand(1, true) => {
                self.at += 1;
                OperatorKind::Print(self.list(Self::assignable)?)
            }
            "range" if matches!(self.peek_at(1).kind, TokenKind::Identifier) || self.is_at(1, "[") => self.range()?,
            "datatable" if self.is_at(1, "(") => self.datatable()?,
            "union" if self.starts_operand(1, false) => self.union()?,
            "search" if self.starts_operand(1, false) || (self.is_keyword_at(1, "in") && self.is_at(2, "(")) => self.search()?,
            "evaluate" if matches!(self.peek_at(1).kind, TokenKind::Identifier) => {
                self.at += 1;
                self.evaluate()?
            }
            "find" if self.starts_operand(1, false) => self.other_operator()?,
            "externaldata" if self.is_at(1, "(") => self.other_operator()?,
            "macro" if self.is_at(1, "-") && self.is_keyword_at(2, "expand") => self.other_operator()?,
            _ => return Ok(None),
        };
        Ok(Some(Operator { kind, span: start..self.previous_end() }))
    }

    /// Whether the token ahead can begin an operand rather than continue an expression with a column of that name.
    fn starts_operand(&self, ahead: usize, signed: bool) -> bool {
        match &self.peek_at(ahead).kind {
            TokenKind::Identifier => {
                !["or", "and", "in", "has", "between", "contains", "asc", "desc"].contains(&self.slice(self.peek_at(ahead)))
            }
            TokenKind::String(_) | TokenKind::Long(_) | TokenKind::Real(_) | TokenKind::TimeSpan(_) | TokenKind::Typed(..) => true,
            TokenKind::Punctuation(mark) => matches!(*mark, "(" | "[" | "*") || (signed && matches!(*mark, "-" | "+")),
            _ => false,
        }
    }

    fn range(&mut self) -> Parse<OperatorKind> {
        self.at += 1;
        let name = self.name("column name")?;
        self.expect_keyword("from")?;
        let from = self.expression()?;
        self.expect_keyword("to")?;
        let to = self.expression()?;
        self.expect_keyword("step")?;
        let step = self.expression()?;
        Ok(OperatorKind::Range { name, from, to, step })
    }

    fn datatable(&mut self) -> Parse<OperatorKind> {
        self.at += 1;
        let columns = self.column_declarations()?;
        self.with_options()?;
        self.expect("[")?;
        let mut values = Vec::new();
        while !self.is("]") {
            values.push(self.expression()?);
            if !self.eat(",") {
                break;
            }
        }
        self.expect("]")?;
        Ok(OperatorKind::DataTable { columns, values })
    }

    /// `union [options] table, table*, (query)`
    pub(super) fn union(&mut self) -> Parse<OperatorKind> {
        self.at += 1;
        let options = self.options()?;
        let tables = self.list(|parser| parser.wildcard_or(Self::table_operand))?;
        Ok(OperatorKind::Union { options, tables })
    }

    /// `search [kind=…] [in (tables)] predicate`
    pub(super) fn search(&mut self) -> Parse<OperatorKind> {
        self.at += 1;
        let options = self.options()?;
        let mut tables = Vec::new();
        if self.is_keyword("in") && self.is_at(1, "(") {
            self.at += 2;
            tables = self.list(|parser| parser.wildcard_or(Self::table_operand))?;
            self.expect(")")?;
        }
        let predicate = self.search_predicate()?;
        Ok(OperatorKind::Search { options, tables, predicate })
    }
}
