//! What a partition says of itself: a row of the hub's heartbeat table, written and read as the reference does.

use std::collections::BTreeMap;
use std::time::Duration;

use crds::duration;
use jiff::Timestamp;
use kusto::Table;
use kusto::text::{quote_name, quote_string};
use serde::{Deserialize, Deserializer, Serialize};

/// A partition's database. Views are functions that are read as tables.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseSchema {
    /// Its name.
    pub database: String,
    /// Its tables.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub tables: Vec<String>,
    /// Columns of tables as KQL declares them: `['a']:string, ['b']:long`.
    #[serde(default, rename = "tableSchemas", skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_empty")]
    pub table_schemas: BTreeMap<String, String>,
    /// Its views.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub views: Vec<String>,
}

fn null_is_empty<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Columns of the heartbeat table.
pub const COLUMNS: &str = "Timestamp: datetime, ClusterEndpoint: string, Schema: dynamic, PartitionMetadata: dynamic";

/// The command that makes the heartbeat table where it is missing.
pub fn create_table(table: &str) -> String {
    format!(".create-merge table {} ({COLUMNS})", quote_name(table))
}

/// A heartbeat to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct Heartbeat<'a> {
    /// When it is written.
    pub time: Timestamp,
    /// Where hubs reach the partition.
    pub endpoint: &'a str,
    /// JSON of its databases.
    pub schema: &'a str,
    /// JSON of what sets it apart.
    pub partitioning: &'a str,
}

impl Heartbeat<'_> {
    /// The command that writes it.
    pub fn command(&self, table: &str) -> String {
        let cell = |text: &str| match text.contains(['"', ',', '\n', '\r']) {
            true => format!("\"{}\"", text.replace('"', "\"\"")),
            false => text.to_owned(),
        };
        let cells = [self.endpoint, self.schema, self.partitioning].map(cell);
        format!(".ingest inline into table {} <| {},{}", quote_name(table), self.time, cells.join(","))
    }
}

/// The query for the schema in a partition's newest heartbeat, however old.
pub fn newest(table: &str, endpoint: &str) -> String {
    format!("{} | where ClusterEndpoint == {} | top 1 by Timestamp desc | project Schema", quote_name(table), quote_string(endpoint))
}

/// The schema in a row of an answer: a dynamic comes as JSON, or as text of it.
pub(super) fn schema(answer: &Table, row: usize) -> Option<String> {
    let schema = answer.rows.get(row)?.get(answer.column("Schema")?)?;
    Some(schema.as_str().map_or_else(|| schema.to_string(), str::to_owned))
}

/// The query for the newest heartbeat of each partition that is not older than the time to live.
///
/// # Errors
/// When that is no duration as Go writes them, or not positive.
pub fn query(table: &str, ttl: &str) -> Result<String, String> {
    let invalid = |why: String| format!("invalid heartbeat TTL {ttl:?}: {why}");
    let parsed = duration::parse(ttl).map_err(|error| invalid(error.to_string()))?;
    let Ok(parsed @ 1_u128..) = u128::try_from(parsed.as_nanos()) else {
        return Err(invalid("it is not positive".to_owned()));
    };
    let age = Duration::from_nanos(u64::try_from(parsed).unwrap_or(u64::MAX));
    let mut age = kusto::text::timespan(age);
    if !age.contains(':') || age.rsplit(':').next().is_none_or(|seconds| !seconds.contains('.')) {
        age.push_str(".0000000");
    }
    let table = quote_string(table);
    Ok(format!("[{table}] | where Timestamp > ago(timespan({age})) | summarize arg_max(Timestamp, Schema) by ClusterEndpoint"))
}
