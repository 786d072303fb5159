//! `[kubernetes-events]`

use logs::{Destination, Parsers};

use super::file::File;
use super::host::{LogTarget, TransformList, added, destination};
use super::settings::node_labels;

/// Which events of the cluster become records, and where those go.
#[derive(Debug, Clone, PartialEq)]
pub struct EventSource {
    /// Where the records go.
    pub destination: Destination,
    /// Whose events; all when empty.
    pub namespaces: Vec<String>,
    /// What is done with the records.
    pub shared: LogTarget,
}

/// The events of a file.
///
/// # Errors
/// A name that the check of the file let pass.
pub(super) fn source(file: &File) -> Result<Option<EventSource>, String> {
    let Some(events) = &file.kubernetes_events else { return Ok(None) };
    Ok(Some(EventSource {
        destination: destination(&events.database, &events.table)?,
        namespaces: events.namespaces.clone(),
        shared: LogTarget {
            parsers: Parsers::default(),
            add_attributes: added(file, &events.add_attributes),
            node_labels: node_labels(file, None),
            transforms: TransformList::default(),
            exporters: events.exporters.clone(),
        },
    }))
}
