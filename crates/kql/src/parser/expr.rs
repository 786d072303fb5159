//! Scalar expressions by precedence climbing, and pipes, which may stand wherever an expression may.

use super::{MAX_PIPE, Parse, Parser};
use crate::ast::{Argument, Expr, ExprKind, Name};
use crate::lexer::TokenKind;
use crate::types::Type;
use crate::value::Value;

/// What kind of right side an operator takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Right {
    Operand,
    List,
    Range,
}

/// An operator found at the current place.
#[derive(Clone, Copy)]
struct Infix {
    /// Name in the typed tree.
    name: &'static str,
    level: u8,
    right: Right,
    tokens: usize,
}

const OR: u8 = 1;
const AND: u8 = 2;
const EQUALITY: u8 = 3;
const RELATIONAL: u8 = 4;
const ADDITIVE: u8 = 5;
const MULTIPLICATIVE: u8 = 6;
/// `has` and its family bind tighter than arithmetic.
const STRING: u8 = 7;

const MARKS: [(&str, &str, u8); 16] = [
    ("==", "==", EQUALITY),
    ("!=", "!=", EQUALITY),
    ("<>", "!=", EQUALITY),
    ("<", "<", RELATIONAL),
    (">", ">", RELATIONAL),
    ("<=", "<=", RELATIONAL),
    (">=", ">=", RELATIONAL),
    ("+", "+", ADDITIVE),
    ("-", "-", ADDITIVE),
    ("*", "*", MULTIPLICATIVE),
    ("/", "/", MULTIPLICATIVE),
    ("%", "%", MULTIPLICATIVE),
    ("=~", "=~", STRING),
    ("!~", "!~", STRING),
    ("or", "or", OR),
    ("and", "and", AND),
];

/// Word operators: word, name, name with `!` in front (empty: no such form).
const WORDS: [(&str, &str, &str); 19] = [
    ("has", "has", "!has"),
    ("has_cs", "has_cs", "!has_cs"),
    ("hasprefix", "hasprefix", "!hasprefix"),
    ("hasprefix_cs", "hasprefix_cs", "!hasprefix_cs"),
    ("hassuffix", "hassuffix", "!hassuffix"),
    ("hassuffix_cs", "hassuffix_cs", "!hassuffix_cs"),
    ("contains", "contains", "!contains"),
    ("contains_cs", "contains_cs", "!contains_cs"),
    ("containscs", "contains_cs", "!contains_cs"),
    ("notcontains", "!contains", ""),
    ("notcontainscs", "!contains_cs", ""),
    ("startswith", "startswith", "!startswith"),
    ("startswith_cs", "startswith_cs", "!startswith_cs"),
    ("endswith", "endswith", "!endswith"),
    ("endswith_cs", "endswith_cs", "!endswith_cs"),
    ("like", "like", ""),
    ("likecs", "likecs", ""),
    ("notlike", "notlike", ""),
    ("notlikecs", "notlikecs", ""),
];

impl Parser<'_> {
    /// An expression with operators behind it: the most general form.
    pub(super) fn query(&mut self) -> Parse<Expr> {
        self.nested(Self::query_inner)
    }

    fn query_inner(&mut self) -> Parse<Expr> {
        let start = self.peek().span.start;
        let source = match self.nested(Self::source_operator)? {
            Some(operator) => self.leaf(ExprKind::Source(Box::new(operator)), start),
            None => self.expression()?,
        };
        if !self.is("|") {
            return Ok(source);
        }
        let mut operators = Vec::new();
        while self.eat("|") {
            operators.push(self.operator()?);
            if operators.len() > MAX_PIPE {
                let span = start..self.previous_end();
                return Err(crate::Diagnostic::syntax(span, format!("more than {MAX_PIPE} operators in one pipe")));
            }
        }
        let height = source.height;
        self.node(ExprKind::Pipe(Box::new(source), operators), start, height)
    }

    pub(super) fn expression(&mut self) -> Parse<Expr> {
        self.binary(OR)
    }

    /// `name = value`, `(a, b) = value` or a plain expression: what projections and aggregates take.
    pub(super) fn assignable(&mut self) -> Parse<Expr> {
        let start = self.peek().span.start;
        let Some(names) = self.assigned_names() else {
            return self.expression();
        };
        let value = self.expression()?;
        let height = value.height;
        self.node(ExprKind::Assign(names, Box::new(value)), start, height)
    }

    /// Reads `name =` or `(a, b) =`; without the `=` nothing is read.
    fn assigned_names(&mut self) -> Option<Vec<Name>> {
        let before = self.at;
        let names = if self.eat("(") {
            let mut names = Vec::new();
            while let Ok(name) = self.name("name") {
                names.push(name);
                if !self.eat(",") {
                    break;
                }
            }
            (self.eat(")") && self.eat("=")).then_some(names)
        } else {
            let name = self.name("name").ok();
            if self.eat("=") { name.map(|n| vec![n]) } else { None }
        };
        if names.is_none() {
            self.at = before;
        }
        names
    }

    pub(super) fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Parse<T>) -> Parse<Vec<T>> {
        let mut items = vec![item(self)?];
        while self.eat(",") {
            items.push(item(self)?);
        }
        Ok(items)
    }

    fn binary(&mut self, level: u8) -> Parse<Expr> {
        self.nested(|parser| parser.binary_inner(level))
    }

    fn binary_inner(&mut self, level: u8) -> Parse<Expr> {
        let start = self.peek().span.start;
        let mut left = self.unary()?;
        while let Some(infix) = self.infix().filter(|infix| infix.level >= level) {
            self.at += infix.tokens;
            left = match infix.right {
                Right::List => self.list_operator(infix.name, left, start)?,
                Right::Range => self.between(infix.name == "!between", left, start)?,
                Right::Operand if infix.level <= AND => self.logical_chain(infix, left, start)?,
                Right::Operand => {
                    let right = self.binary(infix.level + 1)?;
                    let height = left.height.max(right.height);
                    self.node(ExprKind::Binary(infix.name, Box::new(left), Box::new(right)), start, height)?
                }
            };
        }
        Ok(left)
    }

    /// `a or b or c …`, built as a balanced tree, since generated queries chain thousands of terms.
    fn logical_chain(&mut self, infix: Infix, first: Expr, start: usize) -> Parse<Expr> {
        let mut terms = vec![first, self.binary(infix.level + 1)?];
        while self.infix().is_some_and(|next| next.name == infix.name) {
            self.at += 1;
            terms.push(self.binary(infix.level + 1)?);
        }
        while terms.len() > 1 {
            let mut paired = Vec::with_capacity(terms.len().div_ceil(2));
            let mut rest = terms.into_iter();
            while let Some(left) = rest.next() {
                let Some(right) = rest.next() else {
                    paired.push(left);
                    break;
                };
                let height = left.height.max(right.height);
                let from = left.span.start.min(start.max(left.span.start));
                let mut node = self.node(ExprKind::Binary(infix.name, Box::new(left), Box::new(right)), from, height)?;
                if let ExprKind::Binary(_, _, right) = &node.kind {
                    node.span.end = right.span.end;
                }
                paired.push(node);
            }
            terms = paired;
        }
        terms.pop().ok_or_else(|| self.unexpected("expression"))
    }

    fn infix(&self) -> Option<Infix> {
        let token = self.peek();
        let infix = |name, level, right, tokens| Some(Infix { name, level, right, tokens });
        match token.kind {
            TokenKind::Punctuation("!") => {
                let word = self.peek_at(1);
                if word.kind != TokenKind::Identifier || word.span.start != token.span.end {
                    return None;
                }
                match self.slice(word) {
                    "between" => infix("!between", EQUALITY, Right::Range, 2),
                    "in" if self.tilde_follows(1) => infix("!in~", EQUALITY, Right::List, 3),
                    "in" => infix("!in", EQUALITY, Right::List, 2),
                    text => {
                        let (_, _, name) = WORDS.iter().find(|(w, _, not)| *w == text && !not.is_empty())?;
                        infix(name, STRING, Right::Operand, 2)
                    }
                }
            }
            TokenKind::Punctuation(":") if self.colon_is_operator => infix(":", STRING, Right::Operand, 1),
            TokenKind::Punctuation(mark) => {
                let (_, name, level) = MARKS.iter().find(|(m, _, _)| *m == mark)?;
                infix(name, *level, Right::Operand, 1)
            }
            TokenKind::Identifier => match self.slice(token) {
                "or" => infix("or", OR, Right::Operand, 1),
                "and" => infix("and", AND, Right::Operand, 1),
                "between" => infix("between", EQUALITY, Right::Range, 1),
                "in" if self.tilde_follows(0) => infix("in~", EQUALITY, Right::List, 2),
                "in" => infix("in", EQUALITY, Right::List, 1),
                "has_any" => infix("has_any", EQUALITY, Right::List, 1),
                "has_all" => infix("has_all", EQUALITY, Right::List, 1),
                "matches" if self.is_keyword_at(1, "regex") => infix("matches regex", STRING, Right::Operand, 2),
                text => {
                    let (_, name, _) = WORDS.iter().find(|(w, _, _)| *w == text)?;
                    infix(name, STRING, Right::Operand, 1)
                }
            },
            _ => None,
        }
    }

    fn tilde_follows(&self, ahead: usize) -> bool {
        self.is_at(ahead + 1, "~") && self.peek_at(ahead + 1).span.start == self.peek_at(ahead).span.end
    }

    fn list_operator(&mut self, name: &'static str, left: Expr, start: usize) -> Parse<Expr> {
        let items = if self.eat("(") {
            if self.eat(")") {
                Vec::new()
            } else {
                let items = self.list(Self::query)?;
                self.expect(")")?;
                items
            }
        } else {
            vec![self.unary()?]
        };
        let height = items.iter().map(|i| i.height).max().unwrap_or(0).max(left.height);
        self.node(ExprKind::List(name, Box::new(left), items), start, height)
    }

    fn between(&mut self, negated: bool, left: Expr, start: usize) -> Parse<Expr> {
        self.expect("(")?;
        let low = self.expression()?;
        self.expect("..")?;
        let high = self.expression()?;
        self.expect(")")?;
        let height = left.height.max(low.height).max(high.height);
        self.node(ExprKind::Between(negated, Box::new(left), Box::new(low), Box::new(high)), start, height)
    }

    pub(super) fn unary(&mut self) -> Parse<Expr> {
        let start = self.peek().span.start;
        let sign = if self.eat("-") {
            "neg"
        } else if self.eat("+") {
            "pos"
        } else {
            return self.postfix();
        };
        let operand = self.nested(Self::unary)?;
        let height = operand.height;
        self.node(ExprKind::Unary(sign, Box::new(operand)), start, height)
    }

    /// A primary expression with its `.member` and `[index]` accesses.
    pub(super) fn postfix(&mut self) -> Parse<Expr> {
        let start = self.peek().span.start;
        let mut base = self.primary()?;
        loop {
            let height = base.height;
            if self.is(".") && !self.is_at(1, ".") {
                self.at += 1;
                let kind = if matches!(base.kind, ExprKind::Call(..) | ExprKind::Member(..)) && self.at_wildcard() {
                    let pattern = self.wildcard()?;
                    ExprKind::Member(Box::new(base), pattern)
                } else if self.is_at(1, "(") && matches!(self.peek().kind, TokenKind::Identifier) {
                    // `cluster("c").database("d")`: a call on what stands before
                    let call = self.primary()?;
                    let ExprKind::Call(name, arguments) = call.kind else {
                        return Err(self.unexpected("function call"));
                    };
                    let mut all = vec![Argument { name: None, value: base }];
                    all.extend(arguments);
                    let qualified = Name { text: format!(".{}", name.text), span: name.span };
                    ExprKind::Call(qualified, all)
                } else {
                    let member = self.name("member name")?;
                    self.note_member(&base, &member.text);
                    ExprKind::Member(Box::new(base), member)
                };
                base = self.node(kind, start, height)?;
            } else if self.is("[") && self.may_index(&base) {
                self.at += 1;
                let index = self.expression()?;
                self.expect("]")?;
                let height = height.max(index.height);
                base = self.node(ExprKind::Index(Box::new(base), Box::new(index)), start, height)?;
            } else {
                return Ok(base);
            }
        }
    }

    /// Whether a bracket behind the expression is an index: a literal takes one only when it is dynamic.
    fn may_index(&self, base: &Expr) -> bool {
        match &base.kind {
            ExprKind::Literal(_, ty) => *ty == Type::Dynamic,
            ExprKind::Wildcard(_) | ExprKind::Error => false,
            _ => true,
        }
    }

    fn primary(&mut self) -> Parse<Expr> {
        let token = self.peek().clone();
        let start = token.span.start;
        match token.kind {
            TokenKind::String(text) => Ok(self.string_literal(text)),
            TokenKind::Long(value) => Ok(self.literal(Value::Long(value), Type::Long)),
            TokenKind::Real(value) => Ok(self.literal(Value::Real(value), Type::Real)),
            TokenKind::TimeSpan(value) => Ok(self.literal(Value::TimeSpan(value), Type::TimeSpan)),
            TokenKind::Typed(ty, raw) => {
                let value = super::literals::typed(ty, &self.text[raw.clone()])
                    .map_err(|why| crate::Diagnostic::syntax(token.span.clone(), why))?;
                Ok(self.literal(value, ty))
            }
            TokenKind::Identifier if self.at_entity_group() => self.nested(Self::entity_group),
            TokenKind::Identifier => self.name_or_call(),
            TokenKind::Punctuation("(") => self.parenthesised(),
            TokenKind::Punctuation("*") => Ok(self.star(start)),
            TokenKind::Punctuation("[") => {
                let name = self.name("name")?;
                if self.is("(") {
                    return self.call(name);
                }
                Ok(self.leaf(ExprKind::Name(name.text), start))
            }
            _ => Err(self.unexpected("expression")),
        }
    }

    fn star(&mut self, start: usize) -> Expr {
        self.at += 1;
        self.leaf(ExprKind::Wildcard("*".to_owned()), start)
    }

    fn literal(&mut self, value: Value, ty: Type) -> Expr {
        let start = self.peek().span.start;
        self.at += 1;
        self.leaf(ExprKind::Literal(value, ty), start)
    }

    /// Neighbouring string literals are one string.
    fn string_literal(&mut self, mut text: String) -> Expr {
        let start = self.peek().span.start;
        self.at += 1;
        while let TokenKind::String(more) = &self.peek().kind {
            text.push_str(more);
            self.at += 1;
        }
        self.leaf(ExprKind::Literal(Value::String(text.into()), Type::String), start)
    }

    fn name_or_call(&mut self) -> Parse<Expr> {
        let name = self.name("name")?;
        let start = name.span.start;
        if self.is("(") {
            return self.call(name);
        }
        if name.text == "toscalar" && self.is_keyword("kind") && self.is_at(1, "=") && self.is_at(3, "(") {
            // `toscalar kind=nooptimization (…)`: a hint
            self.at += 3;
            return self.call(name);
        }
        Ok(match name.text.as_str() {
            "true" => self.leaf(ExprKind::Literal(Value::Bool(true), Type::Bool), start),
            "false" => self.leaf(ExprKind::Literal(Value::Bool(false), Type::Bool), start),
            "null" => self.leaf(ExprKind::Literal(Value::Null, Type::Dynamic), start),
            _ => self.leaf(ExprKind::Name(name.text), start),
        })
    }

    fn parenthesised(&mut self) -> Parse<Expr> {
        self.expect("(")?;
        let inner = self.query()?;
        self.expect(")")?;
        Ok(inner)
    }

    pub(super) fn call(&mut self, name: Name) -> Parse<Expr> {
        let start = name.span.start;
        if name.text == "typeof" {
            return self.type_of(start);
        }
        let arguments = self.arguments()?;
        let height = arguments.iter().map(|a| a.value.height).max().unwrap_or(0);
        self.node(ExprKind::Call(name, arguments), start, height)
    }

    fn type_of(&mut self, start: usize) -> Parse<Expr> {
        self.expect("(")?;
        let ty = self.type_name()?;
        self.expect(")")?;
        Ok(self.leaf(ExprKind::TypeOf(ty), start))
    }

    /// `(a, name = b, T | count, *)`
    pub(super) fn arguments(&mut self) -> Parse<Vec<Argument>> {
        self.expect("(")?;
        let mut arguments = Vec::new();
        while !self.is(")") {
            let named =
                (matches!(self.peek().kind, TokenKind::Identifier) && self.is_at(1, "=")) || (self.at_quoted_name() && self.is_at(3, "="));
            let name = if named {
                let name = self.name("name")?;
                self.expect("=")?;
                Some(name)
            } else {
                None
            };
            let value = if self.at_function() { self.function()? } else { self.query()? };
            arguments.push(Argument { name, value });
            if !self.eat(",") {
                break;
            }
        }
        self.expect(")")?;
        Ok(arguments)
    }

    /// Whether a name with `*` in it starts here: `a*`, `*b`, `a*b`.
    pub(super) fn at_wildcard(&self) -> bool {
        if self.is("*") {
            return true;
        }
        matches!(self.peek().kind, TokenKind::Identifier) && self.is_at(1, "*") && self.peek_at(1).span.start == self.peek().span.end
    }

    /// Reads adjoining names and stars.
    pub(super) fn wildcard(&mut self) -> Parse<Name> {
        let start = self.peek().span.start;
        let mut end = start;
        while self.peek().span.start == end && (self.is("*") || matches!(self.peek().kind, TokenKind::Identifier)) {
            end = self.peek().span.end;
            self.at += 1;
        }
        if end == start {
            return Err(self.unexpected("name"));
        }
        Ok(Name { text: self.text[start..end].to_owned(), span: start..end })
    }

    /// A column or table name that may have wildcards.
    pub(super) fn wildcard_or(&mut self, other: impl FnOnce(&mut Self) -> Parse<Expr>) -> Parse<Expr> {
        if !self.at_wildcard() {
            return other(self);
        }
        let name = self.wildcard()?;
        Ok(self.leaf(ExprKind::Wildcard(name.text), name.span.start))
    }
}
