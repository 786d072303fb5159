//! What clients of queued ingestion ask for.

use kql::rows::Rows;
use kql::{Type, Value};

use crate::commands::{Outcome, table, text};
use crate::error::KustoError;
use crate::service::Kustd;

/// `.get ingestion resources`
pub(super) fn resources(kustd: &Kustd) -> Outcome {
    let Some(storage) = &kustd.ingestion_storage else {
        return Err(KustoError::bad_request("there is no queued ingestion: start kustd with --ingestion-storage, or stream"));
    };
    let rows = storage.resources()?.into_iter().map(|(kind, address)| vec![text(kind), text(address)]).collect();
    Ok(table(&[("ResourceTypeName", Type::String), ("StorageRoot", Type::String)], rows))
}

/// `.get kusto identity token`: nobody has to sign in, but a message without a token is refused, as by Azure.
pub(super) fn identity_token() -> Rows {
    table(&[("AuthorizationContext", Type::String)], vec![vec![text("a3VzdGQ=")]])
}

/// `.show ingestion failures`
pub(super) fn failures(kustd: &Kustd, operation: Option<&str>) -> Rows {
    let columns = [
        ("OperationId", Type::String),
        ("Database", Type::String),
        ("Table", Type::String),
        ("FailedOn", Type::DateTime),
        ("IngestionSourcePath", Type::String),
        ("Details", Type::String),
        ("FailureKind", Type::String),
        ("RootActivityId", Type::String),
        ("OperationKind", Type::String),
        ("OriginatesFromUpdatePolicy", Type::Bool),
        ("ErrorCode", Type::String),
        ("Principal", Type::String),
        ("ShouldRetry", Type::Bool),
        ("User", Type::String),
        ("IngestionProperties", Type::String),
    ];
    let list = kustd.failures.list();
    let wanted = list.iter().filter(|failure| operation.is_none_or(|id| failure.operation.eq_ignore_ascii_case(id)));
    let rows = wanted.map(|failure| {
        vec![
            text(&failure.operation),
            text(&failure.database),
            text(&failure.table),
            Value::DateTime(failure.failed),
            text(&failure.source),
            text(&failure.details),
            text(if failure.permanent { "Permanent" } else { "Transient" }),
            text(&failure.operation),
            text("DataIngestPull"),
            Value::Bool(failure.from_update_policy),
            text(&failure.code),
            text(""),
            Value::Bool(!failure.permanent),
            text(""),
            text(""),
        ]
    });
    table(&columns, rows.collect())
}
