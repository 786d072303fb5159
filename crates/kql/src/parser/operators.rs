//! Tabular operators behind `|`.

use super::{Parse, Parser};
use crate::ast::{
    Expr, ExprKind, MakeSeries, MvExpand, Operator, OperatorKind, Ordered, ParsePiece, PartitionBody, Scan, ScanStep, TopNestedLevel,
};
use crate::diagnostic::Diagnostic;
use crate::lexer::TokenKind;

/// Operators with a hyphen in their name.
const HYPHENATED: [&str; 15] = [
    "project-away",
    "project-keep",
    "project-rename",
    "project-reorder",
    "mv-expand",
    "mv-apply",
    "make-series",
    "parse-where",
    "parse-kv",
    "top-nested",
    "top-hitters",
    "sample-distinct",
    "make-graph",
    "graph-match",
    "graph-to-table",
];

/// Operators that are supported, by every name that they have. Others are unknown, or refused by name.
pub(crate) const OPERATORS: [&str; 40] = [
    "as",
    "consume",
    "count",
    "distinct",
    "evaluate",
    "extend",
    "filter",
    "getschema",
    "invoke",
    "join",
    "limit",
    "lookup",
    "make-series",
    "mv-apply",
    "mv-expand",
    "mvapply",
    "mvexpand",
    "order",
    "parse",
    "parse-kv",
    "parse-where",
    "partition",
    "project",
    "project-away",
    "project-keep",
    "project-rename",
    "project-reorder",
    "render",
    "sample",
    "sample-distinct",
    "scan",
    "search",
    "serialize",
    "sort",
    "summarize",
    "take",
    "top",
    "top-nested",
    "union",
    "where",
];

impl Parser<'_> {
    pub(super) fn operator(&mut self) -> Parse<Operator> {
        self.nested(Self::operator_inner)
    }

    fn operator_inner(&mut self) -> Parse<Operator> {
        let start = self.peek().span.start;
        let (word, length) = self.operator_word()?;
        let before = self.at;
        self.at += length;
        let known = OPERATORS.contains(&word.as_str());
        let kind = match if known { word.as_str() } else { "" } {
            "where" | "filter" => OperatorKind::Where(self.where_predicate()?),
            "project" => OperatorKind::Project(self.columns(Self::assignable)?),
            "project-away" => OperatorKind::ProjectAway(self.columns(Self::column_pattern)?),
            "project-keep" => OperatorKind::ProjectKeep(self.columns(Self::column_pattern)?),
            "project-rename" => OperatorKind::ProjectRename(self.columns(Self::assignable)?),
            "project-reorder" => OperatorKind::ProjectReorder(self.columns(Self::ordered_pattern)?),
            "extend" => OperatorKind::Extend(self.list(Self::assignable)?),
            "summarize" => self.summarize()?,
            "sort" | "order" => self.sort()?,
            "top" => self.top()?,
            "take" | "limit" => OperatorKind::Take(self.expression()?),
            "distinct" => self.distinct()?,
            "count" => self.count()?,
            "as" => {
                self.options()?;
                OperatorKind::As(self.name("name")?)
            }
            "join" | "lookup" => self.join(word == "lookup")?,
            "union" => {
                self.at = before;
                self.union()?
            }
            "search" => {
                self.at = before;
                self.search()?
            }
            "mv-expand" | "mvexpand" => OperatorKind::MvExpand(self.mv_expand()?),
            "mv-apply" | "mvapply" => self.mv_apply()?,
            "make-series" => self.make_series()?,
            "serialize" => OperatorKind::Serialize(self.columns(Self::assignable)?),
            "partition" => self.partition()?,
            "parse" | "parse-where" => self.parse_operator(word == "parse-where")?,
            "parse-kv" => self.parse_kv()?,
            "top-nested" => self.top_nested()?,
            "scan" => self.scan()?,
            "sample" => OperatorKind::Sample(self.expression()?),
            "sample-distinct" => {
                let count = self.expression()?;
                self.expect_keyword("of")?;
                OperatorKind::SampleDistinct(count, self.expression()?)
            }
            "evaluate" => self.evaluate()?,
            "getschema" => OperatorKind::GetSchema,
            "consume" => {
                self.options()?;
                OperatorKind::Consume
            }
            "invoke" => self.invoke()?,
            "render" => self.render()?,
            _ => {
                self.at = before;
                self.unknown_operator()?
            }
        };
        Ok(Operator { kind, span: start..self.previous_end() })
    }

    /// The operator's name and how many tokens it takes.
    fn operator_word(&self) -> Parse<(String, usize)> {
        let token = self.peek();
        if token.kind != TokenKind::Identifier {
            return Err(self.unexpected("operator"));
        }
        let first = self.slice(token);
        if self.is_at(1, "-") && matches!(self.peek_at(2).kind, TokenKind::Identifier) {
            let mut end = self.peek_at(2).span.end;
            let mut length = 3;
            if self.is_at(3, "-") && first == "graph" {
                end = self.peek_at(4).span.end;
                length = 5;
            }
            let whole = &self.text[token.span.start..end.min(self.text.len())];
            if HYPHENATED.contains(&whole) {
                return Ok((whole.to_owned(), length));
            }
        }
        Ok((first.to_owned(), 1))
    }

    fn unknown_operator(&mut self) -> Parse<OperatorKind> {
        // the first words of names with hyphens
        const REFUSED: [&str; 13] = [
            "fork",
            "facet",
            "reduce",
            "find",
            "externaldata",
            "make",
            "graph",
            "macro",
            "execute",
            "assert",
            "shortest",
            "project",
            "top",
        ];
        let token = self.peek();
        let word = self.slice(token);
        if REFUSED.contains(&word) {
            return self.other_operator();
        }
        Err(Diagnostic::syntax(token.span.clone(), format!("'{word}' is not an operator")))
    }

    /// An operator that is known but not supported: its name is kept, its arguments are passed over.
    pub(super) fn other_operator(&mut self) -> Parse<OperatorKind> {
        let mut name = self.name("operator")?;
        while self.is("-") && self.peek().span.start == name.span.end {
            self.at += 1;
            let part = self.name("operator")?;
            name.text = format!("{}-{}", name.text, part.text);
            name.span.end = part.span.end;
        }
        let mut depth = 0usize;
        while !self.at_end() {
            match &self.peek().kind {
                TokenKind::Punctuation("(" | "[" | "{") => depth += 1,
                TokenKind::Punctuation(")" | "]" | "}" | "|" | ";") if depth == 0 => break,
                TokenKind::Punctuation(")" | "]" | "}") => depth -= 1,
                _ => {}
            }
            self.at += 1;
        }
        Ok(OperatorKind::Other(name))
    }

    fn where_predicate(&mut self) -> Parse<Expr> {
        self.options()?;
        self.expression()
    }

    /// A list of columns that may be empty.
    fn columns<T>(&mut self, item: impl FnMut(&mut Self) -> Parse<T>) -> Parse<Vec<T>> {
        let empty = self.at_end() || matches!(self.peek().kind, TokenKind::Punctuation("|" | ";" | ")" | "}"));
        if empty { Ok(Vec::new()) } else { self.list(item) }
    }

    fn column_pattern(&mut self) -> Parse<Expr> {
        self.wildcard_or(Self::postfix)
    }

    fn ordered_pattern(&mut self) -> Parse<Ordered> {
        let expr = self.column_pattern()?;
        self.direction(expr)
    }

    fn ordered(&mut self) -> Parse<Ordered> {
        let expr = self.assignable()?;
        self.direction(expr)
    }

    /// `asc|desc|granny-asc|granny-desc [nulls first|last]`
    fn direction(&mut self, expr: Expr) -> Parse<Ordered> {
        let mut ordered = Ordered { expr, descending: None, nulls_first: None };
        if self.eat_keyword("asc") {
            ordered.descending = Some(false);
        } else if self.eat_keyword("desc") {
            ordered.descending = Some(true);
        }
        if self.eat_keyword("nulls") {
            if self.eat_keyword("first") {
                ordered.nulls_first = Some(true);
            } else {
                self.expect_keyword("last")?;
                ordered.nulls_first = Some(false);
            }
        }
        Ok(ordered)
    }

    fn summarize(&mut self) -> Parse<OperatorKind> {
        self.options()?;
        let aggregates = if self.is_keyword("by") { Vec::new() } else { self.columns(Self::assignable)? };
        let by = self.eat_keyword("by");
        let keys = if by { self.list(Self::assignable)? } else { Vec::new() };
        Ok(OperatorKind::Summarize { aggregates, keys, by })
    }

    fn sort(&mut self) -> Parse<OperatorKind> {
        self.options()?;
        self.expect_keyword("by")?;
        Ok(OperatorKind::Sort(self.list(Self::ordered)?))
    }

    fn top(&mut self) -> Parse<OperatorKind> {
        self.options()?;
        let count = self.expression()?;
        self.expect_keyword("by")?;
        Ok(OperatorKind::Top { count, by: self.list(Self::ordered)? })
    }

    fn distinct(&mut self) -> Parse<OperatorKind> {
        self.options()?;
        Ok(OperatorKind::Distinct(self.list(Self::assignable)?))
    }

    fn count(&mut self) -> Parse<OperatorKind> {
        let name = if self.eat_keyword("as") { Some(self.name("column name")?) } else { None };
        Ok(OperatorKind::Count(name))
    }

    /// A table, call or query in parentheses, as an operand of `join` and `union`.
    pub(super) fn table_operand(&mut self) -> Parse<Expr> {
        self.nested(Self::table_operand_inner)
    }

    fn table_operand_inner(&mut self) -> Parse<Expr> {
        let start = self.peek().span.start;
        match self.source_operator()? {
            Some(operator) => Ok(self.leaf(ExprKind::Source(Box::new(operator)), start)),
            None => self.postfix(),
        }
    }

    fn join(&mut self, lookup: bool) -> Parse<OperatorKind> {
        let options = self.options()?;
        let right = self.table_operand()?;
        let on = if self.eat_keyword("on") {
            self.list(Self::expression)?
        } else {
            return Err(self.unexpected("'on'"));
        };
        Ok(OperatorKind::Join { lookup, options, right, on })
    }

    fn mv_expand(&mut self) -> Parse<MvExpand> {
        let options = self.options()?;
        let items = self.list(|parser| {
            let item = parser.assignable()?;
            let mut ty = None;
            if parser.eat_keyword("to") {
                parser.expect_keyword("typeof")?;
                parser.expect("(")?;
                ty = Some(parser.type_name()?);
                parser.expect(")")?;
            }
            Ok((item, ty))
        })?;
        let limit = if self.eat_keyword("limit") { Some(self.expression()?) } else { None };
        Ok(MvExpand { options, items, limit })
    }

    fn mv_apply(&mut self) -> Parse<OperatorKind> {
        let expand = self.mv_expand()?;
        self.expect_keyword("on")?;
        let subquery = self.subquery()?;
        Ok(OperatorKind::MvApply { expand, subquery })
    }

    /// `( operator | operator … )`, with or without a leading bar.
    fn subquery(&mut self) -> Parse<Vec<Operator>> {
        self.expect("(")?;
        self.eat("|");
        let mut operators = vec![self.operator()?];
        while self.eat("|") {
            operators.push(self.operator()?);
        }
        self.expect(")")?;
        Ok(operators)
    }

    fn make_series(&mut self) -> Parse<OperatorKind> {
        let options = self.options()?;
        let aggregates = self.list(|parser| {
            let aggregate = parser.assignable()?;
            let default = if parser.is_keyword("default") && parser.is_at(1, "=") {
                parser.at += 2;
                Some(parser.expression()?)
            } else {
                None
            };
            Ok((aggregate, default))
        })?;
        self.expect_keyword("on")?;
        // `in range(…)` behind the axis is not the operator `in`, so the axis is no binary expression
        let axis = self.unary()?;
        let mut series = MakeSeries { options, aggregates, axis, from: None, to: None, step: None, in_range: false, keys: Vec::new() };
        self.series_bounds(&mut series)?;
        if self.eat_keyword("by") {
            series.keys = self.list(Self::assignable)?;
        }
        Ok(OperatorKind::MakeSeries(Box::new(series)))
    }

    fn series_bounds(&mut self, series: &mut MakeSeries) -> Parse<()> {
        if self.is_keyword("in") && self.is_keyword_at(1, "range") {
            self.at += 2;
            self.expect("(")?;
            series.from = Some(self.expression()?);
            self.expect(",")?;
            series.to = Some(self.expression()?);
            self.expect(",")?;
            series.step = Some(self.expression()?);
            series.in_range = true;
            return self.expect(")");
        }
        if self.eat_keyword("from") {
            series.from = Some(self.expression()?);
        }
        if self.eat_keyword("to") {
            series.to = Some(self.expression()?);
        }
        self.expect_keyword("step")?;
        series.step = Some(self.expression()?);
        Ok(())
    }

    fn partition(&mut self) -> Parse<OperatorKind> {
        let mut options = self.options()?;
        self.expect_keyword("by")?;
        let start = self.peek().span.start;
        // no expression: the parenthesis behind it is the sub-query
        let name = self.name("column name")?;
        let key = self.leaf(ExprKind::Name(name.text), start);
        options.extend(self.options()?);
        let subquery = if self.eat("{") {
            let expr = self.query()?;
            self.expect("}")?;
            PartitionBody::Legacy(expr)
        } else {
            PartitionBody::Operators(self.subquery()?)
        };
        Ok(OperatorKind::Partition { options, key, subquery })
    }

    fn parse_operator(&mut self, filter: bool) -> Parse<OperatorKind> {
        let options = self.options()?;
        let source = self.expression()?;
        self.expect_keyword("with")?;
        let mut pattern = Vec::new();
        loop {
            let start = self.peek().span.start;
            if let TokenKind::String(text) = &self.peek().kind {
                let text = text.as_str().into();
                self.at += 1;
                let literal = ExprKind::Literal(crate::Value::String(text), crate::Type::String);
                pattern.push(ParsePiece::Literal(self.leaf(literal, start)));
            } else if self.eat("*") {
                pattern.push(ParsePiece::Skip);
            } else if matches!(self.peek().kind, TokenKind::Identifier) || self.at_quoted_name() {
                let name = self.name("column name")?;
                let ty = if self.eat(":") { Some(self.type_name()?) } else { None };
                pattern.push(ParsePiece::Capture(name, ty));
            } else {
                break;
            }
        }
        if pattern.is_empty() {
            return Err(self.unexpected("pattern"));
        }
        Ok(OperatorKind::Parse { filter, options, source, pattern })
    }

    fn parse_kv(&mut self) -> Parse<OperatorKind> {
        let source = self.expression()?;
        self.expect_keyword("as")?;
        let keys = self.column_declarations()?;
        let options = self.with_options()?;
        Ok(OperatorKind::ParseKv { source, keys, options })
    }

    /// The predicate of `search`, where `column:term` is an operator too.
    pub(super) fn search_predicate(&mut self) -> Parse<Expr> {
        let outer = std::mem::replace(&mut self.colon_is_operator, true);
        let predicate = self.expression();
        self.colon_is_operator = outer;
        predicate
    }

    fn top_nested(&mut self) -> Parse<OperatorKind> {
        let mut levels = vec![self.top_nested_level()?];
        while self.eat(",") {
            let (word, length) = self.operator_word()?;
            if word != "top-nested" {
                return Err(self.unexpected("'top-nested'"));
            }
            self.at += length;
            levels.push(self.top_nested_level()?);
        }
        Ok(OperatorKind::TopNested(levels))
    }

    fn top_nested_level(&mut self) -> Parse<TopNestedLevel> {
        let count = if self.is_keyword("of") { None } else { Some(self.expression()?) };
        self.expect_keyword("of")?;
        let of = self.assignable()?;
        let mut others = None;
        if self.eat_keyword("with") {
            self.expect_keyword("others")?;
            self.expect("=")?;
            others = Some(self.expression()?);
        }
        self.expect_keyword("by")?;
        Ok(TopNestedLevel { count, of, others, by: self.ordered()? })
    }

    fn scan(&mut self) -> Parse<OperatorKind> {
        let mut scan = Scan { options: self.options()?, order: Vec::new(), partition: Vec::new(), declared: Vec::new(), steps: Vec::new() };
        if self.eat_keyword("partition") {
            self.expect_keyword("by")?;
            scan.partition = self.list(Self::expression)?;
        }
        if self.eat_keyword("order") {
            self.expect_keyword("by")?;
            scan.order = self.list(Self::ordered)?;
        }
        if self.eat_keyword("declare") {
            scan.declared = self.parameters()?;
        }
        self.expect_keyword("with")?;
        self.expect("(")?;
        while !self.is(")") {
            scan.steps.push(self.scan_step()?);
            if !self.eat(";") {
                break;
            }
        }
        self.expect(")")?;
        Ok(OperatorKind::Scan(Box::new(scan)))
    }

    fn scan_step(&mut self) -> Parse<ScanStep> {
        self.expect_keyword("step")?;
        let name = self.name("step name")?;
        let optional = self.eat_keyword("optional");
        let mut output = None;
        if self.is_keyword("output") && self.is_at(1, "=") {
            self.at += 2;
            output = Some(self.name("all, last or none")?);
        }
        self.expect(":")?;
        let condition = self.expression()?;
        let assignments = if self.eat("=>") { self.list(Self::assignable)? } else { Vec::new() };
        Ok(ScanStep { name, optional, output, condition, assignments })
    }

    pub(super) fn evaluate(&mut self) -> Parse<OperatorKind> {
        let options = self.options()?;
        let name = self.name("plugin")?;
        let arguments = self.arguments()?;
        let schema = if self.eat(":") { Some(self.evaluate_schema()?) } else { None };
        Ok(OperatorKind::Evaluate { options, name, arguments, schema })
    }

    /// `(a:long)` or `(*, a:long)`
    fn evaluate_schema(&mut self) -> Parse<(bool, Vec<crate::ast::ColumnDeclaration>)> {
        let star = self.is_at(1, "*");
        if !star {
            return Ok((false, self.column_declarations()?));
        }
        self.expect("(")?;
        self.expect("*")?;
        let columns = if self.eat(",") { self.list(Self::column_declaration)? } else { Vec::new() };
        self.expect(")")?;
        Ok((true, columns))
    }

    fn invoke(&mut self) -> Parse<OperatorKind> {
        let callee = self.postfix()?;
        match callee.kind {
            ExprKind::Call(name, arguments) if !name.text.starts_with('.') => Ok(OperatorKind::Invoke(name, arguments)),
            ExprKind::Name(text) => Ok(OperatorKind::Invoke(crate::ast::Name { text, span: callee.span }, Vec::new())),
            _ => Err(Diagnostic::syntax(callee.span, "invoke needs a function call")),
        }
    }

    fn render(&mut self) -> Parse<OperatorKind> {
        let chart = self.name("kind of chart")?;
        let mut options = self.with_options()?;
        options.extend(self.legacy_render_options()?);
        Ok(OperatorKind::Render { chart, options })
    }

    /// `render timechart kind=stacked title="x"`: without `with (…)`.
    fn legacy_render_options(&mut self) -> Parse<Vec<crate::ast::OperatorOption>> {
        let mut options = Vec::new();
        while matches!(self.peek().kind, TokenKind::Identifier) && self.is_at(1, "=") {
            let name = self.name("property")?;
            self.expect("=")?;
            let value = self.unary()?;
            options.push(crate::ast::OperatorOption { name, value });
        }
        Ok(options)
    }
}
