//! Rows read back through the csv crate and serde_json.

use serde_json::Value;
use telemetry::RowSet;

/// One row, as independent readers of CSV see it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) database: String,
    pub(crate) table: String,
    pub(crate) columns: Vec<String>,
    pub(crate) fields: Vec<String>,
}

impl Row {
    pub(crate) fn get(&self, column: &str) -> &str {
        let at = self.columns.iter().position(|name| name == column);
        &self.fields[at.unwrap_or_else(|| panic!("no column {column} in {:?}", self.columns))]
    }

    /// A dynamic column, parsed.
    pub(crate) fn json(&self, column: &str) -> Value {
        serde_json::from_str(self.get(column)).unwrap_or_else(|e| panic!("{column} {:?}: {e}", self.get(column)))
    }

    pub(crate) fn real(&self, column: &str) -> f64 {
        self.get(column).parse().unwrap()
    }
}

/// All rows of a set, table by table.
pub(crate) fn rows(set: &RowSet) -> Vec<Row> {
    let mut rows = Vec::new();
    for table in set.by_table() {
        let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(&table.bytes[..]);
        let before = rows.len();
        for record in reader.records() {
            rows.push(Row {
                database: table.database.to_string(),
                table: table.table.to_string(),
                columns: table.schema.columns.iter().map(|column| column.name.clone()).collect(),
                fields: record.unwrap().iter().map(str::to_owned).collect(),
            });
        }
        assert_eq!((rows.len() - before) as u64, u64::from(table.rows), "rows of {}", table.table);
    }
    assert_eq!(rows.len() as u64, set.rows());
    rows
}
