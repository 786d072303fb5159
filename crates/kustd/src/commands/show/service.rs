//! The service itself: what it is, what it has done, what it stores.

use std::sync::Arc;

use kql::rows::Rows;
use kql::{Type, Value};

use super::Outcome;
use crate::catalog::{Operation, Table};
use crate::commands::syntax::Scope;
use crate::commands::{guid, long, table, text};
use crate::error::KustoError;
use crate::service::Kustd;
use crate::snapshot::Snapshot;

pub(super) fn cluster(kustd: &Kustd) -> Rows {
    let columns = [("NodeId", Type::String), ("Address", Type::String), ("Name", Type::String), ("StartTime", Type::DateTime)];
    table(&columns, vec![vec![text("kustd"), text(&kustd.address), text(PERSONAL), Value::DateTime(kustd.started)]])
}

/// The name by which clients know a Kusto that is not a cluster and takes rows directly.
const PERSONAL: &str = "KustoPersonal";

pub(super) fn cluster_details(kustd: &Kustd, snapshot: &Snapshot) -> Rows {
    let columns = [
        ("NodeId", Type::String),
        ("Address", Type::String),
        ("Name", Type::String),
        ("StartTime", Type::DateTime),
        ("AssignedHotExtents", Type::Long),
        ("IsAdmin", Type::Bool),
        ("MachineTotalMemory", Type::Long),
        ("MachineAvailableMemory", Type::Long),
        ("ProcessorCount", Type::Int),
        ("HotExtentsOriginalSize", Type::Long),
        ("HotExtentsSize", Type::Long),
    ];
    let (mut count, mut original, mut size) = (0u64, 0u64, 0u64);
    for database in snapshot.image().databases.values() {
        for table in database.tables.values() {
            for extent in &snapshot.data(table.id).extents {
                count += 1;
                original += extent.record.original_bytes;
                size += extent.record.bytes;
            }
        }
    }
    let processors = std::thread::available_parallelism().map_or(1, |count| count.get());
    let (total, available) = crate::service::machine_memory();
    let row = vec![
        text("kustd"),
        text(&kustd.address),
        // clients that find an emulator do not queue
        text(if kustd.ingestion_storage.is_some() { "kustd" } else { PERSONAL }),
        Value::DateTime(kustd.started),
        long(count),
        Value::Bool(true),
        long(total),
        long(available),
        Value::Int(i32::try_from(processors).unwrap_or(i32::MAX)),
        long(original),
        long(size),
    ];
    table(&columns, vec![row])
}

pub(super) fn version() -> Rows {
    let columns =
        [("BuildVersion", Type::String), ("BuildTime", Type::DateTime), ("ServiceType", Type::String), ("ProductVersion", Type::String)];
    let version = env!("CARGO_PKG_VERSION");
    table(&columns, vec![vec![text(version), Value::Null, text("kustd"), text(format!("kustd {version}"))]])
}

pub(super) fn extents(kustd: &Kustd, snapshot: &Snapshot, database: &str, scope: Option<Scope>) -> Outcome {
    let columns = [
        ("ExtentId", Type::Guid),
        ("DatabaseName", Type::String),
        ("TableName", Type::String),
        ("MaxCreatedOn", Type::DateTime),
        ("OriginalSize", Type::Real),
        ("ExtentSize", Type::Real),
        ("CompressedSize", Type::Real),
        ("IndexSize", Type::Real),
        ("Blocks", Type::Long),
        ("Segments", Type::Long),
        ("RowCount", Type::Long),
        ("MinCreatedOn", Type::DateTime),
        ("Tags", Type::String),
    ];
    let chosen: Vec<Arc<Table>> = match scope {
        Some(Scope::Table(name)) => vec![kustd.table(database, &name)?],
        other => {
            let name = if let Some(Scope::Database(name)) = &other { name } else { database };
            let found = snapshot.image().database(name).ok_or_else(|| KustoError::not_found("Database", name))?;
            found.tables.values().cloned().collect()
        }
    };
    let mut rows = Vec::new();
    for table in &chosen {
        for extent in &snapshot.data(table.id).extents {
            let record = &extent.record;
            rows.push(vec![
                guid(&record.id),
                text(&table.database),
                text(&table.name),
                Value::DateTime(record.ingested.1),
                Value::Real(record.original_bytes as f64),
                Value::Real(record.bytes as f64),
                Value::Real(record.bytes as f64),
                Value::Real(0.0),
                long(1),
                long(1),
                long(record.rows),
                Value::DateTime(record.ingested.0),
                text(record.tags.join(" ")),
            ]);
        }
    }
    Ok(table(&columns, rows))
}

pub(super) fn operations(kustd: &Kustd, id: Option<&str>) -> Outcome {
    let columns = [
        ("OperationId", Type::Guid),
        ("Operation", Type::String),
        ("NodeId", Type::String),
        ("StartedOn", Type::DateTime),
        ("LastUpdatedOn", Type::DateTime),
        ("Duration", Type::TimeSpan),
        ("State", Type::String),
        ("Status", Type::String),
        ("RootActivityId", Type::Guid),
        ("ShouldRetry", Type::Bool),
        ("Database", Type::String),
        ("Principal", Type::String),
        ("User", Type::String),
        ("AdminEpochStartTime", Type::DateTime),
    ];
    let wanted = match id {
        Some(text) => {
            let id = uuid::Uuid::parse_str(text)
                .map_err(|_| KustoError::bad_request(format!("'{text}' is not the id of an operation: it is no guid")))?;
            Some(id.as_u128())
        }
        None => None,
    };
    let row = |operation: &Operation| {
        vec![
            Value::Guid(operation.id),
            text(&operation.name),
            text("kustd"),
            Value::DateTime(operation.started),
            Value::DateTime(operation.updated),
            Value::TimeSpan(operation.updated - operation.started),
            text(operation.state.name()),
            text(&operation.status),
            Value::Guid(operation.id),
            Value::Bool(operation.should_retry),
            text(&operation.database),
            text(""),
            text(""),
            Value::DateTime(kustd.started),
        ]
    };
    let chosen = kustd.operations.list();
    Ok(table(&columns, chosen.iter().filter(|operation| wanted.is_none_or(|id| id == operation.id)).map(row).collect()))
}

pub(super) fn capacity() -> Rows {
    let columns =
        [("Resource", Type::String), ("Total", Type::Long), ("Consumed", Type::Long), ("Remaining", Type::Long), ("Origin", Type::String)];
    let processors = std::thread::available_parallelism().map_or(1, |count| count.get());
    let row = |resource: &str| vec![text(resource), long(processors), long(0), long(processors), text("kustd")];
    table(&columns, vec![row("Queries"), row("Ingestions")])
}

pub(super) fn principals() -> Rows {
    let columns = [("Scope", Type::String), ("DisplayName", Type::String), ("AADObjectID", Type::String), ("Role", Type::String)];
    // nobody signs in: whoever reaches the listener may do everything
    table(&columns, vec![vec![text("Cluster"), text("anonymous"), text(""), text("AllDatabasesAdmin")]])
}
