//! Rows of tables, as JSON without metadata.

use bytes::Bytes;
use reqwest::Method;
use serde_json::{Map, Value};

use crate::client::{Repeat, Storage};
use crate::error::Error;
use crate::resource::Resource;

const JSON: &str = "application/json;odata=nometadata";

impl Storage {
    /// Adds a row; `entity` has `PartitionKey` and `RowKey`.
    ///
    /// # Errors
    /// See [`Error`]; a conflict if there is such a row already, which a repeated request may have made itself.
    pub async fn insert_entity(&self, table: &Resource, entity: &Map<String, Value>) -> Result<(), Error> {
        let doing = format!("adding a row to table {table}");
        let body = Bytes::from(Value::Object(entity.clone()).to_string());
        let url = table.route(&[]);
        let request = |http: &reqwest::Client| {
            let request = http.post(url.clone()).header("Accept", JSON).header("Content-Type", "application/json");
            request.header("Prefer", "return-no-content").body(body.clone())
        };
        self.send(&doing, Repeat::Always, request).await.map(drop)
    }

    /// Sets properties of a row, which is made if there is none; other properties stay.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn merge_entity(&self, table: &Resource, partition: &str, row: &str, properties: &Map<String, Value>) -> Result<(), Error> {
        let doing = format!("changing row {partition}/{row} of table {table}");
        let body = Bytes::from(Value::Object(properties.clone()).to_string());
        let url = table.suffixed(&key(partition, row));
        let request = |http: &reqwest::Client| {
            let request = http.request(Method::PATCH, url.clone()).header("Accept", JSON);
            request.header("Content-Type", "application/json").body(body.clone())
        };
        self.send(&doing, Repeat::Always, request).await.map(drop)
    }

    /// Reads a row.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn get_entity(&self, table: &Resource, partition: &str, row: &str) -> Result<Map<String, Value>, Error> {
        let doing = format!("reading row {partition}/{row} of table {table}");
        let url = table.suffixed(&key(partition, row));
        let body = self.fetch(&doing, Repeat::Always, |http| http.get(url.clone()).header("Accept", JSON)).await?;
        serde_json::from_slice(&body).map_err(|error| Error::unreadable(&doing, error))
    }
}

/// `(PartitionKey='…',RowKey='…')`; a quote in a key is doubled.
fn key(partition: &str, row: &str) -> String {
    format!("(PartitionKey='{}',RowKey='{}')", partition.replace('\'', "''"), row.replace('\'', "''"))
}
