//! Checking a stored function by itself, before anybody calls it.

use std::sync::Arc;

use super::scope::{Binding, Bound, Cx, Env, Size, Table};
use super::table::declared;
use super::{BindOptions, Binder};
use crate::ast::{Parameter, ParameterType};
use crate::catalog::{Catalog, StoredFunction};
use crate::diagnostic::{Diagnostic, DiagnosticKind};
use crate::parser;
use crate::tree::{Expr, RelOp};
use crate::types::{Column, Type};
use crate::value::Value;

/// Binds the body of a function as a call would, and gives the columns of its table: `None` for a scalar, and where
/// they depend on an argument. Tables of declared columns are empty, scalars without a default have some value.
///
/// # Errors
/// What is wrong with it whatever it is called with; places are those in the body.
pub fn bind_function(function: &StoredFunction, catalog: &dyn Catalog, options: &BindOptions) -> Result<Option<Vec<Column>>, Diagnostic> {
    let parameters = parser::parse_parameters(&function.parameters).map_err(|mut diagnostic| {
        diagnostic.span = 0..0;
        diagnostic
    })?;
    let body = parser::parse_body(&function.body)?;
    let guessed = parameters.iter().any(|parameter| matches!(parameter.ty, ParameterType::Scalar(_)) && parameter.default.is_none());
    let mut binder = Binder::new(catalog, options);
    let mut env = Env::default();
    for parameter in &parameters {
        let Some(binding) = binder.stand_in(parameter)? else { return Ok(None) };
        env = env.with(&parameter.name.text, binding);
    }
    match binder.body(&body, &env, &Cx::constant(&env, ""), &(0..function.body.len())) {
        Ok(Bound::Table(table)) => Ok((!guessed).then_some(table.rel.columns)),
        Ok(Bound::Scalar(_)) => Ok(None),
        Err(diagnostic) if guessed && may_be_the_guess(&diagnostic) => Ok(None),
        // only other clusters know
        Err(diagnostic) if diagnostic.kind == DiagnosticKind::Unavailable => Ok(None),
        // tables that a pattern finds may come later
        Err(diagnostic) if is_pattern(&diagnostic) => Ok(None),
        Err(diagnostic) => Err(diagnostic),
    }
}

/// Whether another argument could make it right. Names that are looked up do not depend on arguments, unless they are
/// the argument (`table(name)`).
fn may_be_the_guess(diagnostic: &Diagnostic) -> bool {
    let is_name = matches!(diagnostic.code, "SEM0100" | "SEM0260") && !diagnostic.message.contains("named ''");
    diagnostic.kind == DiagnosticKind::Semantic && !is_name
}

fn is_pattern(diagnostic: &Diagnostic) -> bool {
    let name = diagnostic.message.split_once("expression named '").and_then(|(_, rest)| rest.split_once('\''));
    diagnostic.code == "SEM0100" && name.is_some_and(|(name, _)| name.contains('*'))
}

impl Binder<'_> {
    /// Something to bind a function with; `None` for a table of any columns.
    fn stand_in(&mut self, parameter: &Parameter) -> Result<Option<Binding>, Diagnostic> {
        Ok(Some(match &parameter.ty {
            ParameterType::Table(None) => return Ok(None),
            ParameterType::Table(Some(columns)) => {
                Binding::Table(Table::new(declared(columns), RelOp::Values(Arc::new(Vec::new())), Size::LEAF).into())
            }
            ParameterType::Scalar(ty) => match &parameter.default {
                Some(default) => {
                    let value = self.scalar(default, &Cx::constant(&Env::default(), ""))?;
                    Binding::Scalar(self.convert(value, *ty, &default.span)?, None)
                }
                None => Binding::Scalar(Expr::constant(some_value(*ty), *ty), None),
            },
        }))
    }
}

fn some_value(ty: Type) -> Value {
    match ty {
        Type::Bool => Value::Bool(true),
        Type::Int => Value::Int(1),
        Type::Long => Value::Long(1),
        Type::Real => Value::Real(1.0),
        Type::String => Value::string(""),
        Type::DateTime => Value::DateTime(crate::value::UNIX_EPOCH_TICKS),
        Type::TimeSpan => Value::TimeSpan(crate::value::TICKS_PER_SECOND),
        Type::Decimal | Type::Guid | Type::Dynamic => Value::Null,
    }
}
