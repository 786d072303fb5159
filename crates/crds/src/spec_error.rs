//! Mistakes in a spec, said with the field and the way out.

use thiserror::Error;

/// A field of a spec that cannot be used: which, and what to do about it.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{field}: {problem}")]
pub struct SpecError {
    /// Path of the field, as in `spec.interval`.
    pub field: &'static str,
    /// What is wrong, and what would be right.
    pub problem: String,
}

impl SpecError {
    pub(crate) fn new(field: &'static str, problem: impl Into<String>) -> Self {
        Self { field, problem: problem.into() }
    }
}

/// `Err` if a text that must be there is not.
pub(crate) fn present(field: &'static str, text: &str) -> Result<(), SpecError> {
    if text.trim().is_empty() { Err(SpecError::new(field, "is missing; set it")) } else { Ok(()) }
}
