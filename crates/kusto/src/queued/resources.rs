//! What `.get ingestion resources` gives out.

use azure_storage::Resource;

use crate::answer::Table;
use crate::client::{Client, QueryOptions};
use crate::error::Error;

/// The database that both commands are sent to.
const DATABASE: &str = "NetDefaultDB";
/// Deadline of both commands.
const TIMEOUT: std::time::Duration = std::time::Duration::from_secs(60);

/// The service's storage that clients may use.
#[derive(Debug, Default)]
pub(crate) struct Resources {
    pub(crate) containers: Vec<Resource>,
    pub(crate) queues: Vec<Resource>,
    pub(crate) status_tables: Vec<Resource>,
}

impl Resources {
    pub(crate) async fn ask(management: &Client) -> Result<Resources, Error> {
        let options = QueryOptions { timeout: TIMEOUT, ..QueryOptions::default() };
        let table = management.mgmt_with(DATABASE, ".get ingestion resources", &options).await?;
        Resources::read(&table)
    }

    fn read(table: &Table) -> Result<Resources, Error> {
        let mut resources = Resources::default();
        for row in 0..table.rows.len() {
            let (Some(kind), Some(root)) = (table.text(row, "ResourceTypeName"), table.text(row, "StorageRoot")) else {
                return Err(Error::unreadable("asking for ingestion resources", "it has no ResourceTypeName and StorageRoot"));
            };
            let list = match kind {
                "TempStorage" => &mut resources.containers,
                "SecuredReadyForAggregationQueue" => &mut resources.queues,
                "IngestionsStatusTable" => &mut resources.status_tables,
                // failures and successes are told by the status table
                _ => continue,
            };
            match Resource::parse(root) {
                Ok(resource) => list.push(resource),
                Err(error) => tracing::warn!(%error, kind, "an ingestion resource is not usable"),
            }
        }
        Ok(resources)
    }
}

/// What proves to the queue's reader who sent a message.
pub(crate) async fn ask_for_identity(management: &Client) -> Result<String, Error> {
    let options = QueryOptions { timeout: TIMEOUT, ..QueryOptions::default() };
    let table = management.mgmt_with(DATABASE, ".get kusto identity token", &options).await?;
    let token = table.text(0, "AuthorizationContext").filter(|token| !token.trim().is_empty());
    token.map(str::to_owned).ok_or_else(|| Error::unreadable("asking for an identity token", "it has no AuthorizationContext"))
}
