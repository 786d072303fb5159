//! Exports the results of KQL queries as metrics over OTLP, on schedule.

pub mod export;
pub mod push;
pub mod transform;
