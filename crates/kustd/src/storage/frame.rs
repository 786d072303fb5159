//! Bodies of journal frames. Little-endian.
//!
//! - kind 1, rows of one ingestion: version (u8), table id (i64), schema version (u32), ingestion time (i64), length of
//!   the batch id (u16), batch id, Arrow IPC stream of one batch.
//! - kind 2, rows carried forward so that older files can go: version (u8), count (u32), then for each table its id
//!   (i64), the LSN that the rows cover (u64), length (u32) and an Arrow IPC stream with the ingestion time.
//! - kind 3, rows of one ingestion for several tables: as kind 1 up to the batch id, which is one of the table named
//!   there, then count (u32), and for each batch the id of its table (i64), length (u32) and an Arrow IPC stream.

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::ipc::reader::StreamReader;
use datafusion::arrow::ipc::writer::StreamWriter;

use crate::catalog::{Table, TableId};

/// Rows of one ingestion.
pub(crate) const ROWS: u8 = 1;
/// Rows carried forward.
pub(crate) const CARRIED: u8 = 2;

/// Rows of one ingestion for several tables: what came, and what update policies made of it.
pub(crate) const ROWS_OF_SEVERAL: u8 = 3;

const VERSION: u8 = 1;

/// The header of a frame with rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RowsHeader<'a> {
    /// Table that the rows are of.
    pub(crate) table: TableId,
    /// Version of its columns when they came.
    pub(crate) schema_version: u32,
    /// When they came, ticks.
    pub(crate) ingested: i64,
    /// The sender's id of the batch, empty without one.
    pub(crate) batch_id: &'a [u8],
}

/// One table's rows in a carried frame.
pub(crate) struct Carried {
    /// Table.
    pub(crate) table: TableId,
    /// All its unsealed rows up to this LSN.
    pub(crate) covers: u64,
    /// The rows.
    pub(crate) batch: RecordBatch,
}

/// Encodes a frame of kind [`ROWS`].
pub(crate) fn encode_rows(header: &RowsHeader<'_>, batch: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
    let mut body = encode_header(header)?;
    write_batch(batch, &mut body)?;
    Ok(body)
}

/// Encodes a frame of kind [`ROWS_OF_SEVERAL`].
pub(crate) fn encode_several(header: &RowsHeader<'_>, batches: &[(&Table, &RecordBatch)]) -> Result<Vec<u8>, ArrowError> {
    let mut body = encode_header(header)?;
    body.extend_from_slice(&(batches.len() as u32).to_le_bytes());
    for (table, batch) in batches {
        body.extend_from_slice(&table.id.0.to_le_bytes());
        write_sized(batch, &mut body)?;
    }
    Ok(body)
}

/// The batches of a frame of kind [`ROWS_OF_SEVERAL`], from what [`decode_rows`] leaves behind the header.
pub(crate) fn decode_several(rest: &[u8]) -> Result<Vec<(TableId, RecordBatch)>, ArrowError> {
    let mut reader = Reader { rest };
    let count = u32::from_le_bytes(reader.array()?);
    let mut batches = Vec::new();
    for _ in 0..count {
        let table = TableId(i64::from_le_bytes(reader.array()?));
        let length = u32::from_le_bytes(reader.array()?);
        batches.push((table, read_batch(reader.take(length as usize)?)?));
    }
    Ok(batches)
}

fn encode_header(header: &RowsHeader<'_>) -> Result<Vec<u8>, ArrowError> {
    let length = u16::try_from(header.batch_id.len())
        .map_err(|_| ArrowError::InvalidArgumentError("the batch id is longer than 65535 bytes".to_owned()))?;
    let mut body = vec![VERSION];
    body.extend_from_slice(&header.table.0.to_le_bytes());
    body.extend_from_slice(&header.schema_version.to_le_bytes());
    body.extend_from_slice(&header.ingested.to_le_bytes());
    body.extend_from_slice(&length.to_le_bytes());
    body.extend_from_slice(header.batch_id);
    Ok(body)
}

/// Decodes the header of a frame of kind [`ROWS`] or [`ROWS_OF_SEVERAL`] and gives the bytes behind it.
pub(crate) fn decode_rows(body: &[u8]) -> Result<(RowsHeader<'_>, &[u8]), ArrowError> {
    let mut reader = Reader { rest: body };
    reader.version()?;
    let table = TableId(i64::from_le_bytes(reader.array()?));
    let schema_version = u32::from_le_bytes(reader.array()?);
    let ingested = i64::from_le_bytes(reader.array()?);
    let length = u16::from_le_bytes(reader.array()?);
    let batch_id = reader.take(length.into())?;
    Ok((RowsHeader { table, schema_version, ingested, batch_id }, reader.rest))
}

/// Encodes a frame of kind [`CARRIED`].
pub(crate) fn encode_carried(sections: &[Carried]) -> Result<Vec<u8>, ArrowError> {
    let mut body = vec![VERSION];
    body.extend_from_slice(&(sections.len() as u32).to_le_bytes());
    for section in sections {
        body.extend_from_slice(&section.table.0.to_le_bytes());
        body.extend_from_slice(&section.covers.to_le_bytes());
        write_sized(&section.batch, &mut body)?;
    }
    Ok(body)
}

/// A batch behind its length.
fn write_sized(batch: &RecordBatch, body: &mut Vec<u8>) -> Result<(), ArrowError> {
    let length_at = body.len();
    body.extend_from_slice(&[0; 4]);
    write_batch(batch, body)?;
    let length = u32::try_from(body.len() - length_at - 4)
        .map_err(|_| ArrowError::InvalidArgumentError("rows of one table in a frame exceed 4 GiB".to_owned()))?;
    body[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
    Ok(())
}

/// Decodes a frame of kind [`CARRIED`].
pub(crate) fn decode_carried(body: &[u8]) -> Result<Vec<Carried>, ArrowError> {
    let mut reader = Reader { rest: body };
    reader.version()?;
    let count = u32::from_le_bytes(reader.array()?);
    let mut sections = Vec::new();
    for _ in 0..count {
        let table = TableId(i64::from_le_bytes(reader.array()?));
        let covers = u64::from_le_bytes(reader.array()?);
        let length = u32::from_le_bytes(reader.array()?);
        sections.push(Carried { table, covers, batch: read_batch(reader.take(length as usize)?)? });
    }
    Ok(sections)
}

fn write_batch(batch: &RecordBatch, out: &mut Vec<u8>) -> Result<(), ArrowError> {
    let mut writer = StreamWriter::try_new(out, batch.schema_ref())?;
    writer.write(batch)?;
    writer.finish()
}

/// Decodes the one batch of an IPC stream.
pub(crate) fn read_batch(bytes: &[u8]) -> Result<RecordBatch, ArrowError> {
    let mut reader = StreamReader::try_new(bytes, None)?;
    reader.next().unwrap_or_else(|| Err(ArrowError::IpcError("the stream holds no batch".to_owned())))
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], ArrowError> {
        let (taken, rest) =
            self.rest.split_at_checked(length).ok_or_else(|| ArrowError::IpcError("the frame ends too early".to_owned()))?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ArrowError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn version(&mut self) -> Result<(), ArrowError> {
        match self.array::<1>()? {
            [VERSION] => Ok(()),
            [other] => Err(ArrowError::IpcError(format!("the frame has version {other}, this program knows {VERSION}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::Int64Array;
    use datafusion::arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    fn batch() -> RecordBatch {
        let schema = Schema::new(vec![Field::new("a", DataType::Int64, true)]);
        RecordBatch::try_new(Arc::new(schema), vec![Arc::new(Int64Array::from(vec![1, 2]))]).unwrap()
    }

    #[test]
    fn frames_go_round_and_cuts_are_errors() {
        let header = RowsHeader { table: TableId(7), schema_version: 3, ingested: 99, batch_id: b"id" };
        let body = encode_rows(&header, &batch()).unwrap();
        let (back, ipc) = decode_rows(&body).unwrap();
        assert_eq!(back, header);
        assert_eq!(read_batch(ipc).unwrap(), batch());
        for length in 0..25 {
            assert!(decode_rows(&body[..length]).is_err(), "{length}");
        }
        let carried = encode_carried(&[Carried { table: TableId(1), covers: 5, batch: batch() }]).unwrap();
        let back = decode_carried(&carried).unwrap();
        assert_eq!((back[0].table, back[0].covers, &back[0].batch), (TableId(1), 5, &batch()));
        assert!(decode_carried(&carried[..30]).is_err());
    }
}
