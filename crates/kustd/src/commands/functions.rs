//! Stored functions: what a definition says, and whether its body can work.

use std::sync::Arc;

use kql::binder::bind_function;
use kql::catalog::StoredFunction;

use super::fill::check_properties;
use super::syntax::Properties;
use crate::catalog::Function;
use crate::engine::QueryLimits;
use crate::error::KustoError;
use crate::service::Kustd;
use crate::snapshot::Names;

const PROPERTIES: [&str; 4] = ["folder", "docstring", "skipvalidation", "view"];

/// The function that a definition describes.
pub(super) fn read(name: String, parameters: String, body: String, properties: &Properties) -> Result<Function, KustoError> {
    check_properties("a function", properties, &PROPERTIES)?;
    let property = |name: &str| properties.get(name).cloned().unwrap_or_default();
    let view = property("view").eq_ignore_ascii_case("true");
    if view && !parameters.trim_matches(['(', ')']).trim().is_empty() {
        return Err(KustoError::bad_request(format!("the function '{name}' is a view and so can have no parameters")));
    }
    Ok(Function { name, parameters, body, folder: property("folder"), docstring: property("docstring"), view })
}

/// Refuses a function that no call could run; `with (skipvalidation=true)` is the way around. The body stands at byte
/// `body_at` of `source`.
pub(super) fn validate(
    kustd: &Kustd,
    database: &str,
    function: &Function,
    properties: &Properties,
    source: &str,
    body_at: usize,
) -> Result<(), KustoError> {
    if properties.get("skipvalidation").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return Ok(());
    }
    let snapshot = Arc::new(kustd.snapshot());
    let names = Names { snapshot, database: database.to_owned(), limits: QueryLimits::new(kustd.now()), asks: false };
    let options = kustd.bind_options(database);
    let Function { name, parameters, body, view, .. } = function.clone();
    bind_function(&StoredFunction { name, parameters, body, view }, &names, &options).map(drop).map_err(|mut diagnostic| {
        diagnostic.span = diagnostic.span.start + body_at..diagnostic.span.end + body_at;
        KustoError::diagnostics(source, &[diagnostic])
    })
}
