//! Queries that make at most one row of each row, planned once and run row by row: transforms of streams.

use crate::ast::{self, Operator, OperatorKind, Statement};
use crate::binder;
use crate::catalog::{Catalog, StoredFunction, TableSchema};
use crate::diagnostic::{Diagnostic, DiagnosticKind};
use crate::eval::{EvalContext, eval};
use crate::parser;
use crate::rows::{ParseKvStep, ParseStep, Row, contains_window, has_subquery};
use crate::tree::{Expr, ExprKind, ParseKv, ParsePiece, Rel, RelOp};
use crate::types::Column;
use crate::value::Value;

/// The table that such a query reads.
const SOURCE: &str = "source";

/// The operators that it may have.
const OPERATORS: &str = "where, extend, project, project-away, project-keep, project-rename, project-reorder, parse, parse-where, parse-kv";

/// A query over one row at a time.
#[derive(Debug)]
pub struct RowWise {
    columns: Vec<Column>,
    steps: Vec<Step>,
    reads: Vec<bool>,
    origins: Vec<Option<usize>>,
}

#[derive(Debug)]
enum Step {
    Filter(Expr),
    Project(Vec<Expr>),
    Parse(ParseStep),
    ParseKv(Box<ParseKv>, ParseKvStep),
}

impl RowWise {
    /// Plans a query over the table `source`, which has these columns. The text may begin with `source |`, with
    /// `let` statements, or with the first operator.
    ///
    /// # Errors
    /// What is wrong with the text, an operator that is not row-wise included.
    pub fn new(text: &str, columns: &[Column]) -> Result<Self, Vec<Diagnostic>> {
        let prefix = if names_its_source(text) { "" } else { "source | " };
        let whole = format!("{prefix}{text}");
        Self::plan(&whole, columns).map_err(|diagnostics| {
            let moved = |at: usize| at.saturating_sub(prefix.len()).min(text.len());
            let back = |found: Diagnostic| Diagnostic { span: moved(found.span.start)..moved(found.span.end), ..found };
            diagnostics.into_iter().map(back).collect()
        })
    }

    fn plan(text: &str, columns: &[Column]) -> Result<Self, Vec<Diagnostic>> {
        let parsed = parser::parse(text);
        if !parsed.diagnostics.is_empty() {
            return Err(parsed.diagnostics);
        }
        let refused: Vec<Diagnostic> = parsed.statements.iter().flat_map(|statement| check_statement(text, statement)).collect();
        if !refused.is_empty() {
            return Err(refused);
        }
        let catalog = Source { columns };
        let query = binder::bind_for_any_time(&parsed.statements, text.len(), &catalog).map_err(|found| vec![found])?;
        let [rel] = &query.results[..] else {
            return Err(vec![refused_at(0..text.len(), "more than one query is not row-wise; join the operators with |")]);
        };
        let mut plan = Self {
            columns: rel.columns.clone(),
            steps: Vec::new(),
            reads: vec![false; columns.len()],
            origins: (0..columns.len()).map(Some).collect(),
        };
        plan.add(rel).map_err(|why| vec![refused_at(0..text.len(), &why)])?;
        Ok(plan)
    }

    /// Columns of the output.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// For each column of the source, whether its values matter. Any value may stand for those of the others.
    pub fn reads(&self) -> &[bool] {
        &self.reads
    }

    /// For each column of the output, the column of the source that it is, untouched.
    pub fn origins(&self) -> &[Option<usize>] {
        &self.origins
    }

    /// The output of a row of the source; none when a filter drops it.
    pub fn run(&self, mut row: Row, ctx: &mut EvalContext) -> Option<Row> {
        for step in &self.steps {
            match step {
                Step::Filter(predicate) => {
                    if eval(predicate, &row, ctx) != Value::Bool(true) {
                        return None;
                    }
                }
                Step::Project(exprs) => row = exprs.iter().map(|expr| eval(expr, &row, ctx)).collect(),
                Step::Parse(step) => row = step.row(&row, ctx)?,
                Step::ParseKv(plan, step) => row = step.row(plan, &row, ctx),
            }
        }
        Some(row)
    }

    /// Adds the steps of a tree, innermost first.
    fn add(&mut self, rel: &Rel) -> Result<(), String> {
        match &rel.op {
            RelOp::Table { .. } => {}
            RelOp::Filter(input, predicate) => {
                self.add(input)?;
                self.read(predicate)?;
                self.steps.push(Step::Filter(predicate.clone()));
            }
            RelOp::Project(input, exprs) => {
                self.add(input)?;
                let mut origins = Vec::with_capacity(exprs.len());
                for expr in exprs {
                    match expr.kind {
                        ExprKind::Column(index) => origins.push(self.origins.get(index).copied().flatten()),
                        _ => {
                            self.read(expr)?;
                            origins.push(None);
                        }
                    }
                }
                self.origins = origins;
                self.steps.push(Step::Project(exprs.clone()));
            }
            RelOp::Parse(parse) => {
                self.add(&parse.input)?;
                self.read(&parse.source)?;
                let step = ParseStep::new(parse, parse.source.clone(), &rel.columns).map_err(|error| error.to_string())?;
                let captured =
                    parse.pattern.iter().filter_map(|piece| if let ParsePiece::Capture(to, _) = piece { Some(*to) } else { None });
                let captured: Vec<usize> = captured.collect();
                self.keep(rel.columns.len(), &parse.keep, &captured);
                self.steps.push(Step::Parse(step));
            }
            RelOp::ParseKv(parse) => {
                self.add(&parse.input)?;
                self.read(&parse.source)?;
                let step = ParseKvStep::new(parse, parse.source.clone(), &rel.columns).map_err(|error| error.to_string())?;
                self.keep(rel.columns.len(), &parse.keep, &parse.keys.iter().map(|key| key.1).collect::<Vec<_>>());
                self.steps.push(Step::ParseKv(parse.clone(), step));
            }
            _ => return Err(format!("the query is not row-wise; use only {OPERATORS}")),
        }
        Ok(())
    }

    fn keep(&mut self, width: usize, keep: &[(usize, usize)], captured: &[usize]) {
        let mut origins = vec![None; width];
        for (to, from) in keep {
            origins[*to] = self.origins[*from];
        }
        captured.iter().for_each(|to| origins[*to] = None);
        self.origins = origins;
    }

    /// Takes note of the columns of the source that an expression reads.
    fn read(&mut self, expr: &Expr) -> Result<(), String> {
        if has_subquery(expr) || contains_window(expr) {
            return Err("sub-queries and functions of other rows (prev, next, row_number, …) are not row-wise".to_owned());
        }
        self.mark(expr);
        Ok(())
    }

    fn mark(&mut self, expr: &Expr) {
        match &expr.kind {
            ExprKind::Column(index) => {
                if let Some(Some(origin)) = self.origins.get(*index) {
                    self.reads[*origin] = true;
                }
            }
            ExprKind::Call { args, .. } => args.iter().for_each(|arg| self.mark(arg)),
            _ => {}
        }
    }
}

/// Whether a text begins with the table or with a statement, rather than with an operator.
fn names_its_source(text: &str) -> bool {
    let first = text.trim_start().split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
    first == SOURCE || first == "let"
}

fn check_statement(text: &str, statement: &Statement) -> Vec<Diagnostic> {
    match statement {
        Statement::Let { .. } => Vec::new(),
        Statement::Query(expr) => check_query(text, expr),
        Statement::Set { name, .. } => vec![refused_at(name.span.clone(), "set has no effect here")],
        Statement::Parameters(_) | Statement::Other(_) => {
            vec![refused_at(0..text.len(), "only let statements may stand before the query")]
        }
    }
}

fn check_query(text: &str, expr: &ast::Expr) -> Vec<Diagnostic> {
    let (base, operators): (_, &[Operator]) = match &expr.kind {
        ast::ExprKind::Pipe(base, operators) => (&**base, operators),
        _ => (expr, &[]),
    };
    let is_source = text.get(base.span.clone()).is_some_and(|name| name.trim() == SOURCE);
    let mut refused = Vec::new();
    if !is_source {
        refused.push(refused_at(base.span.clone(), "the query has to read the table `source`, or to begin with an operator"));
    }
    for operator in operators {
        if let Some(why) = why_not(&operator.kind) {
            let name = text.get(operator.span.clone()).unwrap_or_default().trim_start_matches(['|', ' ', '\t', '\n', '\r']);
            let name = name.split(|c: char| !c.is_alphanumeric() && c != '-').next().unwrap_or_default();
            refused.push(refused_at(operator.span.clone(), &format!("{name} {why}; use only {OPERATORS}")));
        }
    }
    refused
}

fn refused_at(span: ast::Span, message: &str) -> Diagnostic {
    Diagnostic { code: "SEM0002", span, message: message.to_owned(), kind: DiagnosticKind::Unsupported }
}

/// Why an operator is not row-wise.
fn why_not(kind: &OperatorKind) -> Option<&'static str> {
    Some(match kind {
        OperatorKind::Where(_)
        | OperatorKind::Project(_)
        | OperatorKind::ProjectAway(_)
        | OperatorKind::ProjectKeep(_)
        | OperatorKind::ProjectRename(_)
        | OperatorKind::ProjectReorder(_)
        | OperatorKind::Extend(_)
        | OperatorKind::Parse { .. }
        | OperatorKind::ParseKv { .. } => return None,
        OperatorKind::MvExpand(_) | OperatorKind::MvApply { .. } => "makes several rows of one",
        OperatorKind::Join { .. } | OperatorKind::Union { .. } | OperatorKind::Search { .. } => "needs more than one table",
        OperatorKind::Evaluate { .. } => "makes columns that depend on data",
        OperatorKind::Summarize { .. }
        | OperatorKind::Sort(_)
        | OperatorKind::Top { .. }
        | OperatorKind::TopNested(_)
        | OperatorKind::Take(_)
        | OperatorKind::Distinct(_)
        | OperatorKind::Count(_)
        | OperatorKind::MakeSeries(_)
        | OperatorKind::Serialize(_)
        | OperatorKind::Partition { .. }
        | OperatorKind::Scan(_)
        | OperatorKind::Sample(_)
        | OperatorKind::SampleDistinct(..) => "needs many rows, and here each row is alone",
        _ => "is not row-wise",
    })
}

/// A database of the one table.
struct Source<'c> {
    columns: &'c [Column],
}

impl Catalog for Source<'_> {
    fn table(&self, _database: Option<&str>, name: &str) -> Option<TableSchema> {
        (name == SOURCE).then(|| TableSchema { database: String::new(), name: SOURCE.to_owned(), columns: self.columns.to_vec() })
    }

    fn function(&self, _database: Option<&str>, _name: &str) -> Option<StoredFunction> {
        None
    }

    fn tables(&self, database: Option<&str>, _wildcard: &str) -> Vec<TableSchema> {
        self.table(database, SOURCE).into_iter().collect()
    }

    fn databases(&self) -> Vec<String> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::rows::{Rows, RunContext, Tables};
    use crate::types::Type;
    use crate::value::{Dynamic, UNIX_EPOCH_TICKS};
    use crate::{BindOptions, bind, rows};

    fn columns() -> Vec<Column> {
        [("T", Type::DateTime), ("S", Type::String), ("N", Type::Long), ("D", Type::Dynamic), ("U", Type::String)]
            .map(|(n, ty)| Column::new(n, ty))
            .into()
    }

    fn data() -> Vec<Row> {
        let row = |n: i64, text: &str, json: &str| {
            vec![
                Value::DateTime(UNIX_EPOCH_TICKS + n),
                Value::string(text),
                Value::Long(n),
                Value::dynamic(Dynamic::parse_json(json).unwrap()),
                Value::string("untouched"),
            ]
        };
        vec![
            row(1, "level=info took 15 ms", r#"{"a":1,"b":"x"}"#),
            row(2, "nothing to see", r#"{"a":"7"}"#),
            row(3, "level=warn user=ann took 7 ms", "null"),
            row(4, "", r#"[1,2]"#),
        ]
    }

    struct Data;

    impl Tables for Data {
        fn scan(&self, _: &str, _: &str) -> Result<Rows, String> {
            Ok(Rows::new(columns(), data()))
        }
    }

    /// The rows that the interpreter makes of all rows at once.
    fn at_once(text: &str, now: i64) -> Rows {
        let columns = columns();
        let query = bind(text, &Source { columns: &columns }, &BindOptions { now, ..BindOptions::default() }).unwrap();
        rows::run(&query.results[0], &mut RunContext::new(&Data, EvalContext::new(now))).unwrap()
    }

    const QUERIES: &[&str] = &[
        "where N > 1",
        "where S has 'level' | extend L = extract('level=(\\\\w+)', 1, S), At = now()",
        "project S, N | project-rename M = N | extend Twice = M * 2, Ago = ago(1h)",
        "project-away D, U | project-reorder N, *",
        "project-keep T, D | extend A = tolong(D.a), B = tostring(D.b)",
        "parse S with * 'took ' Ms:long ' ms' *",
        "parse-where S with 'level=' L:string ' ' * | extend S = strcat(L, '!')",
        "parse kind=regex S with 'level=' L 'took '",
        "parse-kv S as (level:string, user:string) with (pair_delimiter=' ', kv_delimiter='=')",
        "parse N with N:long | where isnotnull(N)",
        "extend D = bag_merge(D, dynamic({'c': 3})) | where D.c == 3",
    ];

    #[test]
    fn rows_one_by_one_are_those_of_all_at_once() {
        let now = UNIX_EPOCH_TICKS + 12_345;
        for text in QUERIES {
            let plan = RowWise::new(text, &columns()).unwrap_or_else(|errors| panic!("{text}: {errors:?}"));
            let mut ctx = EvalContext::new(now);
            let got: Vec<Row> = data().into_iter().filter_map(|row| plan.run(row, &mut ctx)).collect();
            let expected = at_once(&format!("source | {text}"), now);
            assert_eq!((plan.columns(), got), (&expected.columns[..], expected.rows), "{text}");
        }
    }

    /// What is not read does not matter, and what has an origin is what came in.
    #[test]
    fn columns_that_are_not_read_do_not_matter() {
        for text in QUERIES {
            let plan = RowWise::new(text, &columns()).unwrap();
            for row in data() {
                let mut blinded = row.clone();
                for (value, read) in blinded.iter_mut().zip(plan.reads()) {
                    if !read {
                        *value = Value::Null;
                    }
                }
                let (full, blind) = (plan.run(row.clone(), &mut EvalContext::new(0)), plan.run(blinded, &mut EvalContext::new(0)));
                assert_eq!(full.is_some(), blind.is_some(), "{text}");
                for ((full, blind), origin) in full.into_iter().flatten().zip(blind.into_iter().flatten()).zip(plan.origins()) {
                    match origin {
                        Some(origin) => assert_eq!(full, row[*origin], "{text}"),
                        None => assert_eq!(full, blind, "{text}"),
                    }
                }
            }
        }
        let plan = RowWise::new("where N > 1 | extend S = strcat(S, 'x')", &columns()).unwrap();
        assert_eq!(plan.reads(), [false, true, true, false, false]);
        assert_eq!(plan.origins(), [Some(0), None, Some(2), Some(3), Some(4)]);
    }

    #[test]
    fn the_time_is_that_of_each_run() {
        let plan = RowWise::new("let early = ago(1s); source | where T > early | project now()", &columns()).unwrap();
        for now in [UNIX_EPOCH_TICKS, UNIX_EPOCH_TICKS + 5] {
            assert_eq!(plan.run(data().remove(0), &mut EvalContext::new(now)), Some(vec![Value::DateTime(now)]));
        }
        assert_eq!(plan.run(data().remove(0), &mut EvalContext::new(UNIX_EPOCH_TICKS + 20_000_000)), None);
    }

    #[test]
    fn what_is_not_row_wise_is_refused_with_its_place() {
        let refused = |text: &str| {
            let found = RowWise::new(text, &columns()).expect_err(text);
            (found[0].position(text), found[0].message.clone())
        };
        let operators = format!("; use only {OPERATORS}");
        for (text, position, message) in [
            ("where N > 1\n| summarize count() by S", (2, 3), format!("summarize needs many rows, and here each row is alone{operators}")),
            ("extend x = 1 | sort by N", (1, 16), format!("sort needs many rows, and here each row is alone{operators}")),
            ("join (source) on N", (1, 1), format!("join needs more than one table{operators}")),
            ("mv-expand D", (1, 1), format!("mv-expand makes several rows of one{operators}")),
            ("let x = 1; print x", (1, 12), "the query has to read the table `source`, or to begin with an operator".to_owned()),
        ] {
            assert_eq!(refused(text), (position, message), "{text}");
        }
        assert_eq!(refused("where Nope > 1").0, (1, 7));
        assert_eq!(refused("where N >").0.0, 1);
        assert!(refused("where N in ((source | project N))").1.contains("sub-queries"));
        assert!(refused("extend p = prev(N)").0.0 == 1);
        assert!(refused("where N > 1; source | where N > 2").1.contains("more than one query"));
    }
}
