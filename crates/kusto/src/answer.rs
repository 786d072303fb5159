//! Tables out of the service's answers: version 1 (`{"Tables":[…]}`) for commands and version 2
//! (an array of frames) for queries, whole or in fragments.
//!
//! An answer with status 200 may still tell of a failure: as a row that is an object, as
//! `Exceptions`, or as `OneApiErrors` in the completion. All of them end in an error here, so
//! that nobody takes half a result for the whole.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::error::{Error, Kind};

/// A column of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its Kusto type: `string`, `long`, `datetime` …
    pub ty: String,
}

/// A table of an answer. Every row has as many cells as there are columns.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Table {
    /// Its name, such as `PrimaryResult` or `Table_0`.
    pub name: String,
    /// Its columns in order.
    pub columns: Vec<Column>,
    /// Cells in the protocol's encoding: datetimes, timespans, guids and decimals are strings.
    pub rows: Vec<Vec<Value>>,
}

impl Table {
    /// The place of a column.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|c| c.name == name)
    }

    /// The text of a cell; nothing if there is no such row or column, or it is not a string.
    pub fn text(&self, row: usize, column: &str) -> Option<&str> {
        self.rows.get(row)?.get(self.column(column)?)?.as_str()
    }
}

/// The answer to a query.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Dataset {
    /// The results, one for each tabular statement, in order.
    pub tables: Vec<Table>,
    /// What `render` asked for and the like: rows of the query-properties table.
    pub properties: Vec<Vec<Value>>,
}

impl Dataset {
    /// The first result, which most queries have alone.
    pub fn primary(&self) -> Option<&Table> {
        self.tables.first()
    }
}

#[derive(Deserialize)]
struct V1Answer {
    #[serde(rename = "Tables")]
    tables: Option<Vec<V1Table>>,
    #[serde(rename = "Exceptions", default)]
    exceptions: Vec<Value>,
    error: Option<Value>,
}

impl V1Answer {
    /// Reads an answer that tells of no failure.
    fn read(doing: &str, body: &[u8]) -> Result<V1Answer, Error> {
        let answer: V1Answer = serde_json::from_slice(body).map_err(|e| Error::unreadable(doing, e))?;
        match (&answer.error, answer.exceptions.first()) {
            (Some(error), _) => Err(Error::from_one_api(doing, error, Kind::Transient)),
            (None, Some(exception)) => Err(exception_error(doing, exception)),
            (None, None) => Ok(answer),
        }
    }
}

#[derive(Deserialize)]
struct V1Table {
    #[serde(rename = "TableName", default)]
    name: String,
    #[serde(rename = "Columns")]
    columns: Vec<WireColumn>,
    #[serde(rename = "Rows", default)]
    rows: Vec<Value>,
}

#[derive(Deserialize)]
struct WireColumn {
    #[serde(rename = "ColumnName")]
    name: String,
    #[serde(rename = "ColumnType", default)]
    column_type: Option<String>,
    #[serde(rename = "DataType", default)]
    data_type: Option<String>,
}

/// The first table of a version 1 answer, which is the answer to a command.
pub(crate) fn parse_v1(doing: &str, body: &[u8]) -> Result<Table, Error> {
    let tables = V1Answer::read(doing, body)?.tables.ok_or_else(|| Error::unreadable(doing, "it has no tables"))?;
    let Some(first) = tables.into_iter().next() else {
        return Ok(Table::default());
    };
    let mut table = Table { name: first.name, columns: columns(first.columns), rows: Vec::new() };
    append_rows(doing, &mut table, first.rows)?;
    Ok(table)
}

/// Checks the answer to streamed rows: nothing at all, or JSON that tells of no failure. A page of a
/// proxy is no acknowledgement.
pub(crate) fn parse_ingested(doing: &str, body: &[u8]) -> Result<(), Error> {
    match body.trim_ascii().is_empty() {
        true => Ok(()),
        false => V1Answer::read(doing, body).map(drop),
    }
}

/// The results and properties of a version 2 answer.
pub(crate) fn parse_v2(doing: &str, body: &[u8]) -> Result<Dataset, Error> {
    let frames: Vec<Map<String, Value>> = serde_json::from_slice(body).map_err(|e| Error::unreadable(doing, e))?;
    let mut reader = FrameReader { doing, ..FrameReader::default() };
    for frame in frames {
        reader.frame(frame)?;
    }
    reader.finish()
}

#[derive(Default)]
struct FrameReader<'a> {
    doing: &'a str,
    /// Tables with their id and kind; the results among them make the answer.
    tables: Vec<(u64, String, Table)>,
    complete: bool,
}

impl FrameReader<'_> {
    fn frame(&mut self, mut frame: Map<String, Value>) -> Result<(), Error> {
        let kind = frame.get("FrameType").and_then(Value::as_str).unwrap_or_default().to_owned();
        match kind.as_str() {
            "DataTable" | "TableHeader" => self.table(&mut frame),
            "TableFragment" => self.fragment(&mut frame),
            "TableCompletion" => fail_on_errors(self.doing, &frame),
            "DataSetCompletion" => {
                self.complete = true;
                fail_on_errors(self.doing, &frame)
            }
            // DataSetHeader, TableProgress and whatever comes later carry no rows.
            _ => Ok(()),
        }
    }

    fn table(&mut self, frame: &mut Map<String, Value>) -> Result<(), Error> {
        let columns = take_columns(self.doing, frame)?;
        let name = frame.get("TableName").and_then(Value::as_str).unwrap_or_default();
        let mut table = Table { name: name.to_owned(), columns, rows: Vec::new() };
        append_rows(self.doing, &mut table, rows(frame))?;
        let kind = frame.get("TableKind").and_then(Value::as_str).unwrap_or_default();
        self.tables.push((table_id(frame), kind.to_owned(), table));
        Ok(())
    }

    fn fragment(&mut self, frame: &mut Map<String, Value>) -> Result<(), Error> {
        let id = table_id(frame);
        let replace = frame.get("TableFragmentType").and_then(Value::as_str) == Some("DataReplace");
        let rows = rows(frame);
        let Some((_, _, table)) = self.tables.iter_mut().find(|(known, _, _)| *known == id) else {
            return Err(Error::unreadable(self.doing, format!("a fragment of table {id}, which has no header")));
        };
        if replace {
            table.rows.clear();
        }
        append_rows(self.doing, table, rows)
    }

    fn finish(self) -> Result<Dataset, Error> {
        if !self.complete {
            return Err(Error::unreadable(self.doing, "it ends before its completion frame"));
        }
        let mut out = Dataset::default();
        for (_, kind, table) in self.tables {
            match kind.as_str() {
                "PrimaryResult" => out.tables.push(table),
                "QueryProperties" => out.properties.extend(table.rows),
                _ => {}
            }
        }
        Ok(out)
    }
}

/// The columns of a table's frame.
pub(crate) fn take_columns(doing: &str, frame: &mut Map<String, Value>) -> Result<Vec<Column>, Error> {
    let wire = take(frame, "Columns").and_then(|v| serde_json::from_value(v).ok());
    wire.map(columns).ok_or_else(|| Error::unreadable(doing, "a table without columns"))
}

fn take(frame: &mut Map<String, Value>, key: &str) -> Option<Value> {
    frame.get_mut(key).map(Value::take)
}

fn rows(frame: &mut Map<String, Value>) -> Vec<Value> {
    match take(frame, "Rows") {
        Some(Value::Array(rows)) => rows,
        _ => Vec::new(),
    }
}

pub(crate) fn table_id(frame: &Map<String, Value>) -> u64 {
    frame.get("TableId").and_then(Value::as_u64).unwrap_or_default()
}

fn columns(wire: Vec<WireColumn>) -> Vec<Column> {
    wire.into_iter()
        .map(|c| {
            let ty = match (c.column_type, c.data_type) {
                (Some(ty), _) => ty,
                (None, Some(data)) => kusto_type(&data).to_owned(),
                (None, None) => "string".to_owned(),
            };
            Column { name: c.name, ty }
        })
        .collect()
}

/// Older services name only the .NET type.
fn kusto_type(data_type: &str) -> &'static str {
    match data_type.strip_prefix("System.").unwrap_or(data_type) {
        "Boolean" | "SByte" => "bool",
        "Int32" => "int",
        "Int64" => "long",
        "Double" => "real",
        "DateTime" => "datetime",
        "TimeSpan" => "timespan",
        "Guid" => "guid",
        "Object" => "dynamic",
        "SqlDecimal" | "Data.SqlTypes.SqlDecimal" => "decimal",
        _ => "string",
    }
}

fn append_rows(doing: &str, table: &mut Table, rows: Vec<Value>) -> Result<(), Error> {
    table.rows.reserve(rows.len());
    for row in rows {
        match row {
            Value::Array(cells) if cells.len() == table.columns.len() => table.rows.push(cells),
            Value::Array(cells) => return Err(wrong_width(doing, cells.len(), table.columns.len())),
            Value::Object(object) => return Err(row_error(doing, &object)),
            _ => return Err(Error::unreadable(doing, "a row that is no array")),
        }
    }
    Ok(())
}

pub(crate) fn wrong_width(doing: &str, cells: usize, columns: usize) -> Error {
    Error::unreadable(doing, format!("a row of {cells} cells in {columns} columns"))
}

/// A row that is an object ends the stream with a failure.
pub(crate) fn row_error(doing: &str, row: &Map<String, Value>) -> Error {
    let first = |key: &str| row.get(key).and_then(|v| v.get(0));
    match (first("OneApiErrors"), first("Exceptions")) {
        (Some(error), _) => Error::from_one_api(doing, error, Kind::Transient),
        (None, Some(exception)) => exception_error(doing, exception),
        (None, None) => Error::unreadable(doing, "a row that is an object without an error"),
    }
}

fn exception_error(doing: &str, exception: &Value) -> Error {
    let text = exception.as_str().map_or_else(|| exception.to_string(), str::to_owned);
    // The text is all there is; its code stands before the first colon, if anywhere.
    Error::from_one_api(doing, &serde_json::json!({"code": "QUERY_FAILED", "message": text}), Kind::Transient)
}

pub(crate) fn fail_on_errors(doing: &str, frame: &Map<String, Value>) -> Result<(), Error> {
    if let Some(error) = frame.get("OneApiErrors").and_then(|e| e.get(0)) {
        return Err(Error::from_one_api(doing, error, Kind::Transient));
    }
    if frame.get("Cancelled").and_then(Value::as_bool) == Some(true) {
        return Err(Error::unreadable(doing, "the service cancelled the query"));
    }
    if frame.get("HasErrors").and_then(Value::as_bool) == Some(true) {
        return Err(Error::unreadable(doing, "the service reports errors without naming them"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn header() -> Value {
        json!({"FrameType": "DataSetHeader", "IsProgressive": false, "Version": "v2.0"})
    }

    fn done(errors: bool) -> Value {
        json!({"FrameType": "DataSetCompletion", "HasErrors": errors, "Cancelled": false})
    }

    #[test]
    fn a_plain_dataset() {
        let body = json!([header(),
            {"FrameType":"DataTable","TableId":0,"TableKind":"QueryProperties","TableName":"@ExtendedProperties",
             "Columns":[{"ColumnName":"TableId","ColumnType":"int"},{"ColumnName":"Key","ColumnType":"string"}],
             "Rows":[[1,"Visualization"]]},
            {"FrameType":"DataTable","TableId":1,"TableKind":"PrimaryResult","TableName":"PrimaryResult",
             "Columns":[{"ColumnName":"n","ColumnType":"long"}],"Rows":[[9223372036854775807i64],[null]]},
            done(false)]);
        let data = parse_v2("query", body.to_string().as_bytes()).unwrap();
        assert_eq!(data.properties.len(), 1);
        let table = data.primary().unwrap();
        assert_eq!(table.columns, [Column { name: "n".into(), ty: "long".into() }]);
        assert_eq!(table.rows, [vec![json!(i64::MAX)], vec![Value::Null]]);
    }

    #[test]
    fn fragments_append_and_replace() {
        let fragment =
            |kind: &str, rows: Value| json!({"FrameType":"TableFragment","TableId":1,"FieldCount":1,"TableFragmentType":kind,"Rows":rows});
        let body = json!([header(),
            {"FrameType":"TableHeader","TableId":1,"TableKind":"PrimaryResult","TableName":"PrimaryResult",
             "Columns":[{"ColumnName":"n","ColumnType":"int"}]},
            fragment("DataAppend", json!([[1]])),
            fragment("DataReplace", json!([[2]])),
            fragment("DataAppend", json!([[3]])),
            {"FrameType":"TableCompletion","TableId":1,"RowCount":2},
            done(false)]);
        let data = parse_v2("query", body.to_string().as_bytes()).unwrap();
        assert_eq!(data.primary().unwrap().rows, [vec![json!(2)], vec![json!(3)]]);
    }

    #[test]
    fn half_an_answer_is_no_answer() {
        let table = json!({"FrameType":"DataTable","TableId":1,"TableKind":"PrimaryResult","TableName":"T",
            "Columns":[{"ColumnName":"n","ColumnType":"int"}],"Rows":[[1],{"OneApiErrors":[{"error":{
            "code":"LimitsExceeded","@message":"Query execution has exceeded the allowed limits","@permanent":false,
            "innererror":{"code":"E_QUERY_RESULT_SET_TOO_LARGE"}}}]}]});
        let error = parse_v2("query", json!([header(), table, done(true)]).to_string().as_bytes()).unwrap_err();
        assert_eq!(error.code, "E_QUERY_RESULT_SET_TOO_LARGE");
        for body in [json!([header()]), json!([header(), done(true)])] {
            assert!(parse_v2("query", body.to_string().as_bytes()).is_err());
        }
    }

    #[test]
    fn version_1_with_old_type_names_and_with_exceptions() {
        let body = json!({"Tables":[{"TableName":"Table_0","Columns":[{"ColumnName":"a","DataType":"SByte"},
            {"ColumnName":"b","DataType":"System.Int64","ColumnType":"long"}],"Rows":[[1,2]]}]});
        let table = parse_v1("command", body.to_string().as_bytes()).unwrap();
        assert_eq!((table.columns[0].ty.as_str(), table.columns[1].ty.as_str()), ("bool", "long"));
        let body = json!({"Tables":[],"Exceptions":["boom"]});
        assert!(parse_v1("command", body.to_string().as_bytes()).is_err());
    }

    #[test]
    fn what_is_no_answer_is_no_success() {
        for body in ["", "{}", "[]", "<html>sign in</html>", r#"{"error":{"code":"X","@message":"no"}}"#] {
            assert!(parse_v1("command", body.as_bytes()).is_err(), "{body}");
        }
        for (body, fine) in [
            ("", true),
            (" \n", true),
            ("{}", true),
            (r#"{"Tables":[]}"#, true),
            ("<html>sign in</html>", false),
            (r#"{"error":{"code":"X","@message":"no"}}"#, false),
            (r#"{"Tables":[],"Exceptions":["boom"]}"#, false),
        ] {
            assert_eq!(parse_ingested("rows", body.as_bytes()).is_ok(), fine, "{body}");
        }
    }

    /// A frame or answer in the protocol's shape, with anything where it may vary.
    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[a-zA-Z0-9 :=\\[\\]]{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            let key = prop::sample::select(vec![
                "FrameType",
                "TableId",
                "TableKind",
                "Columns",
                "ColumnName",
                "ColumnType",
                "DataType",
                "Rows",
                "OneApiErrors",
                "Exceptions",
                "error",
                "code",
                "@message",
                "@permanent",
                "innererror",
                "HasErrors",
                "Cancelled",
                "Tables",
            ]);
            let kind = prop::sample::select(vec!["DataTable", "TableHeader", "TableFragment", "TableCompletion", "DataSetCompletion"]);
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::hash_map(key, inner.clone(), 0..6)
                    .prop_map(|map| map.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()),
                (kind, inner.clone(), inner)
                    .prop_map(|(kind, columns, rows)| json!({"FrameType": kind, "TableId": 1, "Columns": columns, "Rows": rows})),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parsers_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_v1("x", &body);
            let _ = parse_v2("x", &body);
            let _ = parse_ingested("x", &body);
        }

        #[test]
        fn every_row_of_an_answer_has_as_many_cells_as_there_are_columns(frames in prop::collection::vec(value(), 0..5), answer in value()) {
            let body = Value::from(frames).to_string();
            let tables = parse_v2("x", body.as_bytes()).map(|data| data.tables).unwrap_or_default();
            let table = parse_v1("x", answer.to_string().as_bytes()).unwrap_or_default();
            for table in tables.iter().chain([&table]) {
                prop_assert!(table.rows.iter().all(|row| row.len() == table.columns.len()));
            }
        }
    }
}
