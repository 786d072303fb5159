//! Rows of tables, as JSON without metadata.

use bytes::Bytes;
use reqwest::Method;
use serde::Deserialize;
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

    /// Reads the rows of a partition, a thousand at most.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn get_partition(&self, table: &Resource, partition: &str) -> Result<Vec<Map<String, Value>>, Error> {
        #[derive(Deserialize)]
        struct Rows {
            value: Vec<Map<String, Value>>,
        }
        let doing = format!("reading the rows of partition {partition} of table {table}");
        let filter = format!("PartitionKey eq '{}'", quoted(partition));
        let mut url = table.suffixed("()");
        url.query_pairs_mut().append_pair("$filter", &filter);
        // A plus is a space in forms alone.
        let query = url.query().map(|query| query.replace('+', "%20"));
        url.set_query(query.as_deref());
        let body = self.fetch(&doing, Repeat::Always, |http| http.get(url.clone()).header("Accept", JSON)).await?;
        serde_json::from_slice(&body).map(|rows: Rows| rows.value).map_err(|error| Error::unreadable(&doing, error))
    }
}

/// `(PartitionKey='…',RowKey='…')`.
fn key(partition: &str, row: &str) -> String {
    format!("(PartitionKey='{}',RowKey='{}')", quoted(partition), quoted(row))
}

/// A quote in a key is doubled.
fn quoted(key: &str) -> String {
    key.replace('\'', "''")
}
