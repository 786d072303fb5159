//! Operators that need no input: `print`, `range`, `datatable`, `union`, `search`, `macro-expand` and those that are refused.

use super::{Parse, Parser};
use crate::ast::{Expr, ExprKind, MacroExpand, Operator, OperatorKind};
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
            "macro" if self.is_at(1, "-") && self.is_keyword_at(2, "expand") => self.macro_expand()?,
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

    /// `macro-expand [options] group as alias (body)`, or `macro-expand alias in group (body)`
    fn macro_expand(&mut self) -> Parse<OperatorKind> {
        self.at += 3;
        let options = self.options()?;
        let (group, alias) = if self.is_keyword_at(1, "in") {
            let alias = self.name("name for an entity")?;
            self.at += 1;
            (self.entity_group_operand()?, alias)
        } else {
            let group = self.entity_group_operand()?;
            self.expect_keyword("as")?;
            (group, self.name("name for an entity")?)
        };
        self.aliases.push((alias.text.clone(), Vec::new()));
        let body = self.statements_between("(", ")");
        let members = self.aliases.pop().map(|(_, members)| members).unwrap_or_default();
        Ok(OperatorKind::MacroExpand(Box::new(MacroExpand { options, group, alias, body: body?, members })))
    }

    fn entity_group_operand(&mut self) -> Parse<Expr> {
        if self.at_entity_group() {
            return self.entity_group();
        }
        let start = self.peek().span.start;
        let name = self.name("an entity group")?;
        Ok(self.leaf(ExprKind::Name(name.text), start))
    }

    /// Whether `entity_group [` starts here; a dynamic column of that name is indexed by a literal.
    pub(super) fn at_entity_group(&self) -> bool {
        self.is_keyword("entity_group") && self.is_at(1, "[") && matches!(self.peek_at(2).kind, TokenKind::Identifier)
    }

    /// `entity_group [reference, …]`
    pub(super) fn entity_group(&mut self) -> Parse<Expr> {
        let start = self.peek().span.start;
        self.at += 2;
        let references = self.list(Self::postfix)?;
        self.expect("]")?;
        let below = references.iter().map(|reference| reference.height).max().unwrap_or(0);
        self.node(ExprKind::EntityGroup(references), start, below)
    }

    /// Remembers that the body of a `macro-expand` names a member of its entity.
    pub(super) fn note_member(&mut self, base: &Expr, member: &str) {
        let ExprKind::Name(name) = &base.kind else { return };
        let alias = self.aliases.iter_mut().rev().find(|(alias, _)| alias == name);
        if let Some((_, members)) = alias.filter(|(_, members)| !members.iter().any(|known| known == member)) {
            members.push(member.to_owned());
        }
    }
}
