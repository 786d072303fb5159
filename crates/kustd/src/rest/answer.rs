//! Answers of version 1 (tables) and version 2 (frames), written piece by piece so that no answer is one big string.

use datafusion::arrow::array::RecordBatch;
use kql::Column;
use serde_json::{Value, json};

use super::values::{dotnet_name, write_rows};
use crate::engine::ResultTable;
use crate::query::Answer;

/// Rows that are written at a time.
const CHUNK_ROWS: usize = 1024;

/// Levels of what is said about a query.
const WARNING: u8 = 3;
const INFO: u8 = 4;

/// What a request is told about itself.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    /// The client's id of the request.
    pub(super) client_request_id: String,
    /// Ours.
    pub(super) activity_id: String,
    /// The present moment as text.
    pub(super) now: String,
}

/// A piece of an answer.
enum Piece {
    Text(String),
    Rows { columns: Vec<Column>, batches: std::vec::IntoIter<RecordBatch> },
}

/// The bytes of an answer, piece by piece.
pub(super) struct Pieces {
    pieces: std::vec::IntoIter<Piece>,
    rows: Option<OpenRows>,
}

struct OpenRows {
    columns: Vec<Column>,
    batches: std::vec::IntoIter<RecordBatch>,
    current: Option<(RecordBatch, usize)>,
    first: bool,
}

impl Iterator for Pieces {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(open) = &mut self.rows {
                if let Some(chunk) = open.next_chunk() {
                    return Some(chunk);
                }
                self.rows = None;
            }
            match self.pieces.next()? {
                Piece::Text(text) => return Some(text.into_bytes()),
                Piece::Rows { columns, batches } => {
                    self.rows = Some(OpenRows { columns, batches, current: None, first: true });
                }
            }
        }
    }
}

impl OpenRows {
    fn next_chunk(&mut self) -> Option<Vec<u8>> {
        loop {
            let Some((batch, from)) = &mut self.current else {
                self.current = Some((self.batches.next()?, 0));
                continue;
            };
            if *from == batch.num_rows() {
                self.current = None;
                continue;
            }
            let to = (*from + CHUNK_ROWS).min(batch.num_rows());
            let mut out = String::new();
            if !std::mem::take(&mut self.first) {
                out.push(',');
            }
            write_rows(&self.columns, batch, *from, to, &mut out);
            *from = to;
            return Some(out.into_bytes());
        }
    }
}

fn pieces(pieces: Vec<Piece>) -> Pieces {
    Pieces { pieces: pieces.into_iter(), rows: None }
}

fn text(text: impl Into<String>) -> Piece {
    Piece::Text(text.into())
}

fn rows(table: ResultTable) -> Piece {
    Piece::Rows { columns: table.columns, batches: table.batches.into_iter() }
}

/// A management answer: one table.
pub(super) fn management(answer: Answer) -> Pieces {
    let mut all = vec![text("{\"Tables\":[")];
    for (at, table) in answer.tables.into_iter().enumerate() {
        push_v1_table(&mut all, at, &format!("Table_{at}"), table);
    }
    all.push(text("]}"));
    pieces(all)
}

/// A version 1 query answer: result tables, then properties, status and the table of contents that names them.
pub(super) fn version_1(answer: Answer, identity: &Identity) -> Pieces {
    let mut all = vec![text("{\"Tables\":[")];
    let mut contents = Vec::new();
    let count = answer.tables.len();
    for (at, table) in answer.tables.into_iter().enumerate() {
        contents.push(json!([at, "QueryResult", table.name, uuid::Uuid::new_v4().to_string(), ""]));
        push_v1_table(&mut all, at, &format!("Table_{at}"), table);
    }
    contents.push(json!([count, "QueryProperties", "@ExtendedProperties", uuid::Uuid::new_v4().to_string(), ""]));
    contents.push(json!([count + 1, "QueryStatus", "QueryStatus", "00000000-0000-0000-0000-000000000000", ""]));
    let properties = json!({
        "TableName": format!("Table_{count}"),
        "Columns": [v1_column("Value", kql::Type::String)],
        "Rows": [[json!({"Visualization": visualization_name(answer.visualization.as_deref())}).to_string()],
                 [visualization(answer.visualization.as_deref())]],
    });
    let row = |severity: u8, name: &str, details: &str| {
        json!([
            identity.now,
            severity,
            name,
            0,
            "S_OK (0)",
            details,
            1,
            identity.client_request_id,
            identity.activity_id,
            identity.activity_id
        ])
    };
    let status: Vec<Value> = answer
        .warnings
        .iter()
        .map(|warning| row(WARNING, "Warning", warning))
        .chain([row(INFO, "Info", "Query completed successfully")])
        .collect();
    let status = json!({
        "TableName": format!("Table_{}", count + 1),
        "Columns": columns_v1(&status_columns_v1()),
        "Rows": status,
    });
    let index = json!({
        "TableName": format!("Table_{}", count + 2),
        "Columns": [v1_column("Ordinal", kql::Type::Long), v1_column("Kind", kql::Type::String),
                    v1_column("Name", kql::Type::String), v1_column("Id", kql::Type::String),
                    v1_column("PrettyName", kql::Type::String)],
        "Rows": contents,
    });
    all.push(text(format!(",{properties},{status},{index}]}}")));
    pieces(all)
}

fn push_v1_table(all: &mut Vec<Piece>, at: usize, name: &str, table: ResultTable) {
    let separator = if at > 0 { "," } else { "" };
    let columns: Vec<Value> = table.columns.iter().map(|column| v1_column(&column.name, column.ty)).collect();
    let head = json!({"TableName": name, "Columns": columns}).to_string();
    let open = head.strip_suffix('}').unwrap_or(&head);
    all.push(text(format!("{separator}{open},\"Rows\":[")));
    all.push(rows(table));
    all.push(text("]}"));
}

fn v1_column(name: &str, ty: kql::Type) -> Value {
    json!({"ColumnName": name, "DataType": dotnet_name(ty), "ColumnType": ty.name()})
}

fn columns_v1(columns: &[(&str, kql::Type)]) -> Vec<Value> {
    columns.iter().map(|(name, ty)| v1_column(name, *ty)).collect()
}

fn status_columns_v1() -> [(&'static str, kql::Type); 10] {
    use kql::Type::{DateTime, Guid, Int, String};
    [
        ("Timestamp", DateTime),
        ("Severity", Int),
        ("SeverityName", String),
        ("StatusCode", Int),
        ("StatusDescription", String),
        ("StatusDetails", String),
        ("Count", Int),
        ("RequestId", String),
        ("ActivityId", Guid),
        ("SubActivityId", Guid),
    ]
}

fn visualization(render: Option<&str>) -> String {
    render.map_or_else(
        || "{\"Visualization\":null,\"Title\":null,\"XColumn\":null,\"Series\":null,\"YColumns\":null}".to_owned(),
        ToOwned::to_owned,
    )
}

fn visualization_name(render: Option<&str>) -> Value {
    let render: Option<Value> = render.and_then(|render| serde_json::from_str(render).ok());
    render.and_then(|render| render.get("Visualization").cloned()).unwrap_or(Value::Null)
}

/// A version 2 answer: one frame per line, in the order and with the order of properties that the Go SDK insists on.
pub(super) fn version_2(answer: Answer, identity: &Identity, fragmented: bool) -> Pieces {
    let header = if fragmented {
        json!({"FrameType": "DataSetHeader", "IsProgressive": false, "Version": "v2.0", "IsFragmented": true,
               "ErrorReportingPlacement": "EndOfTable"})
    } else {
        json!({"FrameType": "DataSetHeader", "IsProgressive": false, "Version": "v2.0"})
    };
    let properties = json!({
        "FrameType": "DataTable", "TableId": 0, "TableKind": "QueryProperties", "TableName": "@ExtendedProperties",
        "Columns": [v2_column("TableId", kql::Type::Int), v2_column("Key", kql::Type::String),
                    v2_column("Value", kql::Type::Dynamic)],
        "Rows": [[1, "Visualization", visualization(answer.visualization.as_deref())]],
    });
    let mut all = vec![text(format!("[{header}\n,{properties}\n"))];
    let count = answer.tables.len();
    for (at, table) in answer.tables.into_iter().enumerate() {
        push_v2_table(&mut all, at + 1, table, fragmented);
    }
    let completion = completion_table(count + 1, identity, &answer.warnings);
    let end = json!({"FrameType": "DataSetCompletion", "HasErrors": false, "Cancelled": false});
    all.push(text(format!(",{completion}\n,{end}\n]\n")));
    pieces(all)
}

fn push_v2_table(all: &mut Vec<Piece>, id: usize, table: ResultTable, fragmented: bool) {
    let columns: Vec<Value> = table.columns.iter().map(|column| v2_column(&column.name, column.ty)).collect();
    let count: usize = table.batches.iter().map(RecordBatch::num_rows).sum();
    let frame = if fragmented { "TableHeader" } else { "DataTable" };
    let head = json!({
        "FrameType": frame, "TableId": id, "TableKind": "PrimaryResult", "TableName": table.name, "Columns": columns,
    })
    .to_string();
    if fragmented {
        let fragment = format!("{{\"FrameType\":\"TableFragment\",\"TableFragmentType\":\"DataAppend\",\"TableId\":{id}");
        all.push(text(format!(",{head}\n,{fragment},\"Rows\":[")));
        all.push(rows(table));
        let completion = json!({"FrameType": "TableCompletion", "TableId": id, "RowCount": count});
        all.push(text(format!("]}}\n,{completion}\n")));
    } else {
        let open = head.strip_suffix('}').unwrap_or(&head);
        all.push(text(format!(",{open},\"Rows\":[")));
        all.push(rows(table));
        all.push(text("]}\n"));
    }
}

fn v2_column(name: &str, ty: kql::Type) -> Value {
    json!({"ColumnName": name, "ColumnType": ty.name()})
}

fn completion_table(id: usize, identity: &Identity, warnings: &[String]) -> Value {
    use kql::Type::{DateTime, Guid, Int, String};
    let columns = [
        ("Timestamp", DateTime),
        ("ClientRequestId", String),
        ("ActivityId", Guid),
        ("SubActivityId", Guid),
        ("ParentActivityId", Guid),
        ("Level", Int),
        ("LevelName", String),
        ("StatusCode", Int),
        ("StatusCodeName", String),
        ("EventType", Int),
        ("EventTypeName", String),
        ("Payload", String),
    ];
    let columns: Vec<Value> = columns.iter().map(|(name, ty)| v2_column(name, *ty)).collect();
    let row = |level: u8, name: &str, text: &str| {
        let payload = json!({"Count": 1, "Text": text}).to_string();
        json!([
            identity.now,
            identity.client_request_id,
            identity.activity_id,
            identity.activity_id,
            identity.activity_id,
            level,
            name,
            0,
            "S_OK (0)",
            4,
            "QueryInfo",
            payload
        ])
    };
    let rows = warnings.iter().map(|warning| row(WARNING, "Warning", warning));
    let rows: Vec<Value> = rows.chain([row(INFO, "Info", "Query completed successfully")]).collect();
    json!({
        "FrameType": "DataTable", "TableId": id, "TableKind": "QueryCompletionInformation",
        "TableName": "QueryCompletionInformation", "Columns": columns,
        "Rows": rows,
    })
}
