//! The binder: resolves names and types of a parsed query and makes the typed tree of it.
//!
//! It stops at the first error. `let`, functions and `invoke` are inlined; what that can cost is bounded by
//! [`MAX_OPERATORS`] and [`MAX_CALLS`]. What is not known is refused by name rather than guessed.

mod aggregate;
mod call;
mod entity;
mod expand;
mod expr;
mod function;
mod ingestion;
mod join;
mod macro_expand;
mod multi;
mod names;
mod parse;
mod partition;
mod plugins;
mod project;
mod render;
mod scan;
mod scope;
mod search;
mod series;
mod sort;
mod summarize;
mod table;
mod union;
mod unshare;

pub(crate) use call::LANGUAGE_FUNCTIONS;
pub use entity::{EntityReference, parse_entities};
pub use function::bind_function;
pub use ingestion::INGESTION_TIME;
pub(crate) use plugins::PLUGINS;

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use crate::ast::{self, Parameter, ParameterType, Span, Statement};
use crate::catalog::{Catalog, RemoteError};
use crate::diagnostic::Diagnostic;
use crate::eval::EvalContext;
use crate::parser;
use crate::tree::{Expr, Query, Rel, Remote};
use crate::types::{Column, Type};
use crate::value::Value;
use scope::{Binding, Bound, Callable, Cx, Env, Table};

/// Most operators on top of each other in a plan.
const MAX_PLAN_HEIGHT: usize = 400;
/// Most operators that a plan may have after inlining.
const MAX_OPERATORS: usize = 20_000;
/// Deepest nesting of function calls.
const MAX_CALLS: usize = 32;
/// Most scalar nodes that inlining may make in one query.
const MAX_NODES: usize = 1_000_000;
/// Most statements.
const MAX_STATEMENTS: usize = 10_000;

/// A result whose error ends the binding.
type Bind<T> = Result<T, Diagnostic>;

/// What a query is bound with.
#[derive(Debug, Clone, Default)]
pub struct BindOptions {
    /// The query's one time, in ticks.
    pub now: i64,
    /// Database of unqualified names.
    pub database: String,
    /// Values of query parameters, as KQL literals.
    pub parameters: BTreeMap<String, String>,
    /// Whether every `macro-expand` does without the clusters that fail, as with its option `best_effort`.
    pub best_effort: bool,
}

/// Binds KQL text to the typed tree, or says what is wrong with it.
pub fn bind(text: &str, catalog: &dyn Catalog, options: &BindOptions) -> Result<Query, Vec<Diagnostic>> {
    let parsed = parser::parse(text);
    if !parsed.diagnostics.is_empty() {
        return Err(parsed.diagnostics);
    }
    let mut binder = Binder::new(catalog, options);
    binder.query(&parsed.statements, text.len()).map_err(|diagnostic| vec![diagnostic])
}

/// [`bind`] for a tree that runs at many times: `now()` and `ago()` stay in it as calls.
pub(crate) fn bind_for_any_time(statements: &[Statement], end: usize, catalog: &dyn Catalog) -> Bind<Query> {
    let options = BindOptions::default();
    Binder { any_time: true, ..Binder::new(catalog, &options) }.query(statements, end)
}

struct Binder<'a> {
    catalog: &'a dyn Catalog,
    options: &'a BindOptions,
    eval: EvalContext,
    /// Whether the time of the query is not known yet.
    any_time: bool,
    /// Function calls around the current place.
    calls: usize,
    /// Stored views that wildcards around the current place have found.
    views: Vec<String>,
    /// Stored functions around the current place, with their databases.
    functions: Vec<(Option<String>, String)>,
    /// Columns of queries of other clusters that were asked for.
    remotes: HashMap<Remote, Result<Vec<Column>, RemoteError>>,
    /// Scalar nodes copied by inlining.
    nodes: usize,
    /// Row scopes given out.
    scopes: usize,
    visualization: Option<String>,
}

impl<'a> Binder<'a> {
    fn new(catalog: &'a dyn Catalog, options: &'a BindOptions) -> Self {
        let eval = EvalContext::new(options.now);
        Binder {
            catalog,
            options,
            eval,
            any_time: false,
            calls: 0,
            views: Vec::new(),
            functions: Vec::new(),
            remotes: HashMap::new(),
            nodes: 0,
            scopes: 0,
            visualization: None,
        }
    }
}

impl Binder<'_> {
    fn query(&mut self, statements: &[Statement], end: usize) -> Bind<Query> {
        if statements.len() > MAX_STATEMENTS {
            return Err(Diagnostic::semantic("SEM0001", 0..end, format!("more than {MAX_STATEMENTS} statements")));
        }
        let mut env = Env::default();
        let mut results = Vec::new();
        for statement in statements {
            match statement {
                Statement::Query(expr) => results.push(self.result(expr, &env)?),
                other => env = self.statement(other, &Cx::constant(&env, ""))?,
            }
        }
        drop(env);
        let results: Vec<Rel> = results.into_iter().map(unshare::unshared).collect();
        if results.is_empty() {
            return Err(Diagnostic::semantic("SEM0019", end..end, "the query has no tabular expression"));
        }
        Ok(Query { results, visualization: self.visualization.take() })
    }

    /// A query statement: a table, or a scalar shown as a table of one cell.
    fn result(&mut self, expr: &ast::Expr, env: &Env) -> Bind<Rel> {
        let cx = Cx::constant(env, "");
        match self.any(expr, &cx)? {
            Bound::Table(table) => Ok(table.rel),
            Bound::Scalar(value) => Ok(self.print_one(value, expr).rel),
        }
    }

    /// The environment after a statement that is no query.
    fn statement(&mut self, statement: &Statement, cx: &Cx<'_>) -> Bind<Env> {
        match statement {
            Statement::Let { name, value } => {
                let binding = self.let_value(value, cx)?;
                Ok(cx.env.with(&name.text, binding))
            }
            // for the request: see [`parser::request_options`]
            Statement::Set { .. } => Ok(cx.env.clone()),
            Statement::Parameters(parameters) => self.query_parameters(parameters, cx.env),
            Statement::Other(name) => Err(Diagnostic::unsupported(name.span.clone(), format!("the statement '{}'", name.text))),
            Statement::Query(expr) => {
                Err(Diagnostic::semantic("SEM0001", expr.span.clone(), "only the last statement of a function may be a query"))
            }
        }
    }

    fn let_value(&mut self, value: &ast::Expr, cx: &Cx<'_>) -> Bind<Binding> {
        if let ast::ExprKind::EntityGroup(references) = &value.kind {
            return Ok(Binding::Group(Rc::new(self.entities(references, cx)?)));
        }
        if let ast::ExprKind::Function(function) = &value.kind {
            let callable =
                Callable { parameters: function.parameters.clone(), body: function.body.clone(), env: cx.env.clone(), view: function.view };
            return Ok(Binding::Function(Rc::new(callable)));
        }
        // a name alone may be a function to be renamed
        if let ast::ExprKind::Name(name) = &value.kind
            && let Some(binding) = cx.env.get(name)
        {
            return Ok(binding.clone());
        }
        Ok(match self.any(value, &Cx { operator: "let", ..*cx })? {
            Bound::Scalar(expr) => {
                // inside a function the value may read columns through a parameter
                let scope = expr::reads_columns(&expr).then_some(cx.scope);
                Binding::Scalar(expr, scope)
            }
            Bound::Table(table) => Binding::Table(Rc::new(*table)),
        })
    }

    /// Values of `declare query_parameters`, from the request or the defaults.
    fn query_parameters(&mut self, parameters: &[Parameter], env: &Env) -> Bind<Env> {
        let mut env = env.clone();
        for parameter in parameters {
            let value = match self.query_parameter(parameter, &env)? {
                Some(value) => Binding::Scalar(value, None),
                None => Binding::Missing,
            };
            env = env.with(&parameter.name.text, value);
        }
        Ok(env)
    }

    fn query_parameter(&mut self, parameter: &Parameter, env: &Env) -> Bind<Option<Expr>> {
        let name = &parameter.name;
        let ParameterType::Scalar(ty) = parameter.ty else {
            return Err(Diagnostic::unsupported(name.span.clone(), "a tabular query parameter"));
        };
        let Some(text) = self.options.parameters.get(&name.text) else {
            let Some(default) = &parameter.default else { return Ok(None) };
            let value = self.scalar(default, &Cx::constant(env, "declare"))?;
            return self.convert(value, ty, &default.span).map(Some);
        };
        let wrong = || {
            let message = format!("the value of query parameter '{}' is not a {ty} literal", name.text);
            Diagnostic::semantic("SEM0001", name.span.clone(), message)
        };
        // a string may come without quotes, as may the inside of other literals
        let value = match parser::parse_literal(text) {
            Some(value) => value,
            None if ty == Type::String => Value::string(text),
            None => parser::parse_typed(ty, text).ok_or_else(wrong)?,
        };
        let found = value.ty().unwrap_or(ty);
        self.convert(Expr::constant(value, found), ty, &name.span).map(Some).map_err(|_| wrong())
    }

    /// The statements of a function's body: the last is its value.
    fn body(&mut self, body: &[Statement], env: &Env, cx: &Cx<'_>, span: &Span) -> Bind<Bound> {
        let mut env = env.clone();
        let mut last = None;
        for statement in body {
            if let Some(ast::Expr { span, .. }) = last {
                return Err(Diagnostic::semantic("SEM0001", span, "only the last statement of a function may be a query"));
            }
            match statement {
                Statement::Query(expr) => last = Some(expr.clone()),
                other => {
                    let inner = Cx { env: &env, row: None, aggregates: None, ..*cx };
                    env = self.statement(other, &inner)?;
                }
            }
        }
        let Some(expr) = last else {
            return Err(Diagnostic::semantic("SEM0001", span.clone(), "the function has no value"));
        };
        self.any(&expr, &Cx { env: &env, row: None, aggregates: None, ..*cx })
    }

    fn new_scope(&mut self) -> usize {
        self.scopes += 1;
        self.scopes
    }

    fn check_size(&self, table: &Table, span: &Span) -> Bind<()> {
        if table.size.height > MAX_PLAN_HEIGHT || table.size.count > MAX_OPERATORS {
            let message =
                format!("the query has more than {MAX_PLAN_HEIGHT} operators in a row, or {MAX_OPERATORS} in all, after inlining");
            return Err(Diagnostic::semantic("SEM0001", span.clone(), message));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
