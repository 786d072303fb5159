//! A query's rows one by one, as the answer arrives: what is held is a piece of the network's and one
//! row, however long the answer is.
//!
//! The answer is the same array of frames that [`crate::answer`] reads whole. [`Splitter`] cuts it
//! into frames without their rows, and rows; [`Reader`] knows what the frames mean. A failure may
//! stand at the end, after millions of rows, so rows count only when the stream has ended well.

use std::collections::VecDeque;
use std::time::Duration;

use reqwest::Response;
use serde_json::{Map, Value};
use tokio::time::Instant;

use crate::answer::{self, Column};
use crate::error::{Delivery, Error, Kind};

/// Longest row, and longest frame without its rows. The service's cells hold a megabyte each.
const LONGEST_PIECE: usize = 32 << 20;

/// The rows of a query's first result, in the order in which the service sends them.
///
/// Dropping it closes the connection, which makes the service stop.
#[derive(Debug)]
pub struct RowStream {
    doing: String,
    response: Response,
    deadline: Instant,
    timeout: Duration,
    reader: Reader,
}

impl RowStream {
    /// Reads until the columns are known or the answer has ended.
    pub(crate) async fn open(doing: String, response: Response, deadline: Instant, timeout: Duration) -> Result<RowStream, Error> {
        let mut stream = RowStream { doing, response, deadline, timeout, reader: Reader::default() };
        while stream.reader.result.is_none() && stream.read().await? {}
        Ok(stream)
    }

    /// The columns of the result; none if the query has no result.
    pub fn columns(&self) -> &[Column] {
        self.reader.result.as_ref().map_or(&[], |result| &result.columns)
    }

    /// The next row, with as many cells as there are columns, or nothing at the end of an answer that
    /// tells of no failure.
    ///
    /// # Errors
    /// See [`Error`]. After an error the rows handed out so far are a part of the result, at best.
    pub async fn next(&mut self) -> Result<Option<Vec<Value>>, Error> {
        loop {
            if let Some(row) = self.reader.rows.pop_front() {
                return Ok(Some(row));
            }
            if !self.read().await? {
                return Ok(None);
            }
        }
    }

    /// Takes what arrives next; false at the end.
    async fn read(&mut self) -> Result<bool, Error> {
        let chunk = tokio::time::timeout_at(self.deadline, self.response.chunk()).await.map_err(|_| {
            let message = format!("{}: the answer did not end within {:?}", self.doing, self.timeout);
            Error::transient("DEADLINE", Delivery::Unknown, message)
        })?;
        match chunk.map_err(|e| Error::from_transport(&self.doing, &e))? {
            Some(chunk) => self.reader.take(&self.doing, &chunk).map(|()| true),
            None => self.reader.end(&self.doing).map(|()| false),
        }
    }
}

/// The result whose rows are handed out.
#[derive(Debug)]
struct Handed {
    table: u64,
    columns: Vec<Column>,
    any: bool,
}

/// What the frames mean.
#[derive(Debug, Default)]
struct Reader {
    splitter: Splitter,
    result: Option<Handed>,
    /// Whether the rows that come belong to `result`.
    ours: bool,
    /// Whether the frame at hand was seen already, before its rows.
    opened: bool,
    rows: VecDeque<Vec<Value>>,
    complete: bool,
}

impl Reader {
    fn take(&mut self, doing: &str, bytes: &[u8]) -> Result<(), Error> {
        // Pieces borrow from the splitter, so it is put back afterwards.
        let mut splitter = std::mem::take(&mut self.splitter);
        let taken = splitter.take(bytes, &mut |piece| match piece {
            Piece::Opened(frame) => self.open(doing, &mut parse(doing, &[frame, b"]}"].concat())?, true),
            Piece::Row(row) => self.row(doing, row),
            Piece::Frame(frame) => self.frame(doing, parse(doing, frame)?),
        });
        self.splitter = splitter;
        taken.map_err(|fault| fault.into_error(doing))
    }

    fn end(&self, doing: &str) -> Result<(), Error> {
        match self.complete && self.splitter.place == Place::After {
            true => Ok(()),
            false => Err(Error::unreadable(doing, "it ends before its completion frame")),
        }
    }

    /// A table's frame: at its rows, or whole if it has none.
    fn open(&mut self, doing: &str, frame: &mut Map<String, Value>, at_rows: bool) -> Result<(), Error> {
        let table = answer::table_id(frame);
        let is_result = frame.get("TableKind").and_then(Value::as_str) == Some("PrimaryResult");
        match frame.get("FrameType").and_then(Value::as_str).unwrap_or_default() {
            "DataTable" | "TableHeader" => {
                let columns = answer::take_columns(doing, frame)?;
                self.ours = is_result && self.result.is_none();
                if self.ours {
                    self.result = Some(Handed { table, columns, any: false });
                }
            }
            "TableFragment" => {
                let result = self.result.as_ref().filter(|result| result.table == table);
                let replaces = frame.get("TableFragmentType").and_then(Value::as_str) == Some("DataReplace");
                if replaces && result.is_some_and(|result| result.any) {
                    // Only progressive answers do that, which nobody here asks for.
                    return Err(Error::unreadable(doing, "it takes rows back that were handed out already"));
                }
                self.ours = result.is_some();
            }
            _ => self.ours = false,
        }
        self.opened = at_rows;
        Ok(())
    }

    fn row(&mut self, doing: &str, text: &[u8]) -> Result<(), Error> {
        let result = self.result.as_mut().filter(|_| self.ours);
        match (serde_json::from_slice(text).map_err(|e| Error::unreadable(doing, e))?, result) {
            (Value::Object(object), _) => Err(answer::row_error(doing, &object)),
            (Value::Array(cells), Some(result)) if cells.len() == result.columns.len() => {
                result.any = true;
                self.rows.push_back(cells);
                Ok(())
            }
            (Value::Array(cells), Some(result)) => Err(answer::wrong_width(doing, cells.len(), result.columns.len())),
            (_, None) => Ok(()),
            (_, Some(_)) => Err(Error::unreadable(doing, "a row that is no array")),
        }
    }

    fn frame(&mut self, doing: &str, mut frame: Map<String, Value>) -> Result<(), Error> {
        if !std::mem::take(&mut self.opened) {
            match frame.get("FrameType").and_then(Value::as_str).unwrap_or_default() {
                "DataTable" | "TableHeader" => self.open(doing, &mut frame, false)?,
                _ => {}
            }
        }
        match frame.get("FrameType").and_then(Value::as_str).unwrap_or_default() {
            "TableCompletion" => answer::fail_on_errors(doing, &frame),
            "DataSetCompletion" => {
                self.complete = true;
                answer::fail_on_errors(doing, &frame)
            }
            _ => Ok(()),
        }
    }
}

fn parse(doing: &str, text: &[u8]) -> Result<Map<String, Value>, Error> {
    serde_json::from_slice(text).map_err(|e| Error::unreadable(doing, e))
}

/// A part of an answer.
enum Piece<'a> {
    /// A frame's text up to and with the bracket that opens its rows.
    Opened(&'a [u8]),
    /// One row's text.
    Row(&'a [u8]),
    /// A frame's whole text, without the rows that were handed out.
    Frame(&'a [u8]),
}

/// Why an answer is not cut further.
enum Fault {
    Error(Error),
    Shape(&'static str),
    TooLong,
}

impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        Fault::Error(error)
    }
}

impl Fault {
    fn into_error(self, doing: &str) -> Error {
        match self {
            Fault::Error(error) => error,
            Fault::Shape(why) => Error::unreadable(doing, why),
            Fault::TooLong => {
                let message = format!("{doing}: a row or frame is longer than {LONGEST_PIECE} bytes; ask for less in a row");
                Error { kind: Kind::Permanent, ..Error::transient("ANSWER_TOO_LARGE", Delivery::Unknown, message) }
            }
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Before,
    BetweenFrames,
    Frame,
    BetweenRows,
    Row,
    After,
}

/// Cuts `[{frame},{… "Rows":[row, row] …},…]` without keeping more than a frame's other members and
/// one row. Looks at strings and brackets only; `serde_json` judges the pieces.
#[derive(Debug, Default)]
struct Splitter {
    place: Place,
    /// Open brackets of the frame or row.
    depth: usize,
    in_string: bool,
    escaped: bool,
    frame: Vec<u8>,
    row: Vec<u8>,
}

impl Splitter {
    fn take(&mut self, bytes: &[u8], emit: &mut dyn FnMut(Piece<'_>) -> Result<(), Error>) -> Result<(), Fault> {
        for &byte in bytes {
            match self.place {
                Place::Frame => self.in_frame(byte, emit)?,
                Place::Row => self.in_row(byte, emit)?,
                _ if byte.is_ascii_whitespace() => {}
                Place::Before => self.place = expect(byte == b'[', Place::BetweenFrames, "it is no array of frames")?,
                Place::BetweenFrames => match byte {
                    b',' => {}
                    b']' => self.place = Place::After,
                    b'{' => {
                        (self.place, self.depth) = (Place::Frame, 1);
                        self.frame.clear();
                        self.frame.push(byte);
                    }
                    _ => return Err(Fault::Shape("a frame that is no object")),
                },
                Place::BetweenRows => match byte {
                    b',' => {}
                    b']' => {
                        self.place = Place::Frame;
                        self.frame.push(byte);
                    }
                    b'[' | b'{' => {
                        (self.place, self.depth) = (Place::Row, 1);
                        self.row.clear();
                        self.row.push(byte);
                    }
                    _ => return Err(Fault::Shape("a row that is no array")),
                },
                Place::After => return Err(Fault::Shape("something follows its end")),
            }
        }
        Ok(())
    }

    fn in_frame(&mut self, byte: u8, emit: &mut dyn FnMut(Piece<'_>) -> Result<(), Error>) -> Result<(), Fault> {
        push(&mut self.frame, byte)?;
        let opens_rows = byte == b'[' && !self.in_string && self.depth == 1 && ends_with_rows_key(&self.frame);
        if opens_rows {
            self.place = Place::BetweenRows;
            emit(Piece::Opened(&self.frame))?;
        } else if self.closes(byte) {
            self.place = Place::BetweenFrames;
            emit(Piece::Frame(&self.frame))?;
        }
        Ok(())
    }

    fn in_row(&mut self, byte: u8, emit: &mut dyn FnMut(Piece<'_>) -> Result<(), Error>) -> Result<(), Fault> {
        push(&mut self.row, byte)?;
        if self.closes(byte) {
            (self.place, self.depth) = (Place::BetweenRows, 1);
            emit(Piece::Row(&self.row))?;
        }
        Ok(())
    }

    /// Follows strings and brackets; whether this byte closes the last open one.
    fn closes(&mut self, byte: u8) -> bool {
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return false;
        }
        match byte {
            b'"' => self.in_string = true,
            b'[' | b'{' => self.depth += 1,
            b']' | b'}' => {
                self.depth -= 1;
                return self.depth == 0;
            }
            _ => {}
        }
        false
    }
}

fn expect(fine: bool, next: Place, why: &'static str) -> Result<Place, Fault> {
    if fine { Ok(next) } else { Err(Fault::Shape(why)) }
}

fn push(text: &mut Vec<u8>, byte: u8) -> Result<(), Fault> {
    if text.len() == LONGEST_PIECE {
        return Err(Fault::TooLong);
    }
    text.push(byte);
    Ok(())
}

/// Whether `{… "Rows" : [` stands at the end.
fn ends_with_rows_key(frame: &[u8]) -> bool {
    let before = frame.strip_suffix(b"[").and_then(|text| text.trim_ascii_end().strip_suffix(b":"));
    // A string that ends in `Rows"` after an escaped quote is not the key.
    before.and_then(|text| text.trim_ascii_end().strip_suffix(br#""Rows""#)).is_some_and(|rest| !rest.ends_with(b"\\"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    /// All rows of an answer that arrives in the given pieces.
    fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<(Vec<Column>, Vec<Vec<Value>>), Error> {
        let mut reader = Reader::default();
        for piece in pieces {
            reader.take("query", piece)?;
        }
        reader.end("query")?;
        Ok((reader.result.map(|result| result.columns).unwrap_or_default(), reader.rows.into()))
    }

    fn header() -> Value {
        json!({"FrameType": "DataSetHeader", "IsProgressive": false, "Version": "v2.0"})
    }

    fn done() -> Value {
        json!({"FrameType": "DataSetCompletion", "HasErrors": false, "Cancelled": false})
    }

    fn table(id: u64, kind: &str, rows: Value) -> Value {
        json!({"FrameType":"DataTable","TableId":id,"TableKind":kind,"TableName":"T","Columns":[{"ColumnName":"n","ColumnType":"dynamic"}],"Rows":rows})
    }

    #[test]
    fn rows_of_the_first_result_come_and_those_of_other_tables_do_not() {
        let body = json!([
            header(),
            table(0, "QueryProperties", json!([["{\"Visualization\":null}"]])),
            table(1, "PrimaryResult", json!([[1], [null]])),
            table(2, "PrimaryResult", json!([[3]])),
            table(3, "QueryCompletionInformation", json!([["x"]])),
            done()
        ]);
        let (columns, rows) = read([body.to_string().as_bytes()]).unwrap();
        assert_eq!(columns, [Column { name: "n".into(), ty: "dynamic".into() }]);
        assert_eq!(rows, [vec![json!(1)], vec![Value::Null]]);
    }

    #[test]
    fn fragments_append_and_may_not_take_back_what_was_handed_out() {
        let fragment =
            |kind: &str, rows: Value| json!({"FrameType":"TableFragment","TableId":1,"FieldCount":1,"TableFragmentType":kind,"Rows":rows});
        let start = json!({"FrameType":"TableHeader","TableId":1,"TableKind":"PrimaryResult","TableName":"T",
            "Columns":[{"ColumnName":"n","ColumnType":"int"}]});
        let end = json!({"FrameType":"TableCompletion","TableId":1,"RowCount":2});
        let body = |fragments: [Value; 2]| {
            let [first, second] = fragments;
            json!([header(), start, first, second, end, done()]).to_string()
        };
        let fine = body([fragment("DataReplace", json!([[1]])), fragment("DataAppend", json!([[2]]))]);
        assert_eq!(read([fine.as_bytes()]).unwrap().1, [vec![json!(1)], vec![json!(2)]]);
        let progressive = body([fragment("DataAppend", json!([[1]])), fragment("DataReplace", json!([[2]]))]);
        assert_eq!(read([progressive.as_bytes()]).unwrap_err().code, "BAD_ANSWER");
    }

    #[test]
    fn a_failure_after_the_rows_is_a_failure() {
        let error = json!({"OneApiErrors":[{"error":{"code":"LimitsExceeded","@message":"too much","@permanent":true}}]});
        let in_rows = json!([header(), table(1, "PrimaryResult", json!([[1], error])), done()]).to_string();
        assert_eq!(read([in_rows.as_bytes()]).unwrap_err().code, "LimitsExceeded");
        let at_end =
            json!([header(), table(1, "PrimaryResult", json!([[1]])), {"FrameType":"DataSetCompletion","HasErrors":true,"Cancelled":false,
            "OneApiErrors":[{"error":{"code":"E_X","@message":"late"}}]}])
            .to_string();
        assert_eq!(read([at_end.as_bytes()]).unwrap_err().code, "E_X");
        let whole = json!([header(), table(1, "PrimaryResult", json!([[1]])), done()]).to_string();
        assert!(read([whole.as_bytes()]).is_ok());
        for cut in 0..whole.len() {
            assert!(read([&whole.as_bytes()[..cut]]).is_err(), "{}", &whole[..cut]);
        }
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for body in ["", "{}", "[]", "<html>", r#"{"error":{"code":"X"}}"#, "[1]", r#"[{"FrameType":"DataTable","Rows":[[1]]}]"#] {
            assert!(read([body.as_bytes()]).is_err(), "{body}");
        }
    }

    fn cell() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::from),
            "(\\\\|\"|Rows|:|\\[|\\]|\\{|\\}|,|é| ){0,8}".prop_map(Value::from)
        ];
        leaf.prop_recursive(2, 8, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::hash_map("Rows|a|\"", inner, 0..3).prop_map(|m| m.into_iter().collect())
            ]
        })
    }

    proptest! {
        /// The reader of whole answers is the oracle, wherever the network cuts the bytes.
        #[test]
        fn pieces_give_what_the_whole_gives(
            first in prop::collection::vec(prop::collection::vec(cell(), 1), 0..6),
            other in prop::collection::vec(prop::collection::vec(cell(), 1), 0..3),
            note in "(\\\\|\"|Rows|:|\\[){0,6}",
            pretty: bool,
            size in 1usize..40,
        ) {
            let mut properties = table(0, "QueryProperties", json!(other));
            properties["Note"] = json!({"Rows": [note.clone()], note.clone(): note});
            let frames = json!([header(), properties, table(1, "PrimaryResult", json!(first)), done()]);
            let body = if pretty { serde_json::to_string_pretty(&frames).unwrap() } else { frames.to_string() };
            let whole = answer::parse_v2("query", body.as_bytes()).unwrap();
            let (_, rows) = read(body.as_bytes().chunks(size)).unwrap();
            prop_assert_eq!(&rows, &whole.primary().unwrap().rows);
        }

        #[test]
        fn no_bytes_make_the_reader_panic(body in "[\\[\\]{}\",:\\\\ ]{0,40}|.{0,60}", size in 1usize..9) {
            let _ = read(body.as_bytes().chunks(size));
        }
    }
}
