//! KQL: lexer, parser, diagnostics, binder, typed tree and a row evaluator.
//!
//! No Arrow and no I/O: the engine in `kustd`, the lint of alert rules and transforms of the collector all build on it.

pub mod aggregates;
pub mod ast;
pub mod binder;
pub mod catalog;
pub mod diagnostic;
pub mod eval;
pub mod functions;
pub mod language;
pub mod lexer;
pub mod parser;
mod remote;
mod row_wise;
pub mod rows;
pub mod tree;
pub mod types;
pub mod value;

pub use binder::{BindOptions, bind};
pub use catalog::{Catalog, EmptyCatalog, RemoteError, StoredFunction, TableSchema};
pub use diagnostic::{Diagnostic, DiagnosticKind};
pub use parser::{Parsed, parse, request_options};
pub use row_wise::RowWise;
pub use types::{Column, Type};
pub use value::{Dynamic, Value};
