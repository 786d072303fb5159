//! From rows of log tables to messages of the protocol.
//!
//! Source of the rules: Fluentd's "Forward Protocol Specification v1". EventTime is extension type 0: seconds since 1970 and
//! nanoseconds, 32 bits each, big endian.

use std::borrow::Cow;

use jiff::Timestamp;
use rmpv::Value;

use crate::attempt::{Again, Failure};
use crate::exporter::Origin;

/// Where the columns of log rows are.
#[derive(Debug, Default)]
pub(super) struct Columns {
    header: Vec<u8>,
    time: Option<usize>,
    body: Option<usize>,
    attributes: Option<usize>,
}

impl Columns {
    /// Tag and entry of a row; nothing for rows without tag, time or body.
    pub(super) fn entry(&mut self, origin: Origin<'_>, row: &[u8], tag_attribute: &str) -> Option<(String, Value)> {
        if self.header != origin.header {
            self.read(origin.header);
        }
        let fields: Vec<Cow<'_, [u8]>> = fields(row).collect();
        let field = |column: Option<usize>| fields.get(column?).map(|field| &**field);
        let tag = match tag_attribute {
            "adxmon_destination_database" => origin.table.database.to_string(),
            "adxmon_destination_table" => origin.table.table.to_string(),
            _ => tag(field(self.attributes)?, tag_attribute)?,
        };
        let time: Timestamp = std::str::from_utf8(field(self.time)?).ok()?.parse().ok()?;
        let body: serde_json::Value = serde_json::from_slice(field(self.body)?).ok()?;
        Some((tag, Value::Array(vec![event_time(time), value(body)])))
    }

    fn read(&mut self, header: &[u8]) {
        self.header = header.to_vec();
        let header = String::from_utf8_lossy(header);
        let names: Vec<&str> = header.trim_end().split(',').map(|column| column.split(':').next().unwrap_or_default()).collect();
        let find = |wanted: &str| names.iter().position(|name| *name == wanted);
        (self.time, self.body, self.attributes) = (find("Timestamp"), find("Body"), find("Attributes"));
    }
}

fn tag(attributes: &[u8], name: &str) -> Option<String> {
    let attributes: serde_json::Value = serde_json::from_slice(attributes).ok()?;
    attributes.get(name)?.as_str().map(str::to_owned)
}

fn event_time(time: Timestamp) -> Value {
    let seconds = u32::try_from(time.as_second()).unwrap_or_default();
    let nanos = u32::try_from(time.subsec_nanosecond()).unwrap_or_default();
    Value::Ext(0, [seconds.to_be_bytes(), nanos.to_be_bytes()].concat())
}

fn value(json: serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::Nil,
        serde_json::Value::Bool(is) => is.into(),
        serde_json::Value::String(text) => text.into(),
        serde_json::Value::Array(items) => Value::Array(items.into_iter().map(value).collect()),
        serde_json::Value::Object(members) => Value::Map(members.into_iter().map(|(key, member)| (key.into(), value(member))).collect()),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(signed), _) => signed.into(),
            (_, Some(unsigned)) => unsigned.into(),
            _ => number.as_f64().unwrap_or_default().into(),
        },
    }
}

/// A message in Forward mode.
pub(super) fn forward(tag: &str, entries: &[Value], chunk: Option<&str>) -> Result<Vec<u8>, Failure> {
    let mut out = Vec::new();
    let written = (|| {
        rmp::encode::write_array_len(&mut out, if chunk.is_some() { 3 } else { 2 })?;
        rmp::encode::write_str(&mut out, tag)?;
        rmp::encode::write_array_len(&mut out, u32::try_from(entries.len()).unwrap_or(u32::MAX))?;
        for entry in entries {
            rmpv::encode::write_value(&mut out, entry)?;
        }
        if let Some(chunk) = chunk {
            let options = vec![("chunk".into(), chunk.into()), ("size".into(), entries.len().into())];
            rmpv::encode::write_value(&mut out, &Value::Map(options))?;
        }
        Ok::<_, rmpv::encode::Error>(())
    })();
    match written {
        Ok(()) => Ok(out),
        Err(error) => Err(Failure { why: format!("a message cannot be encoded: {error}"), again: Again::Never }),
    }
}

/// A new value for `chunk`.
pub(super) fn chunk_id() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

/// The fields of a CSV record.
fn fields(record: &[u8]) -> impl Iterator<Item = Cow<'_, [u8]>> {
    let mut rest = Some(record.strip_suffix(b"\n").unwrap_or(record));
    std::iter::from_fn(move || {
        let text = rest?;
        if text.first() != Some(&b'"') {
            let end = text.iter().position(|byte| *byte == b',');
            rest = end.map(|end| &text[end + 1..]);
            return Some(Cow::Borrowed(&text[..end.unwrap_or(text.len())]));
        }
        let mut field = Vec::new();
        let mut at = 1;
        loop {
            let quote = text[at..].iter().position(|byte| *byte == b'"').map_or(text.len(), |found| at + found);
            field.extend_from_slice(&text[at..quote]);
            at = quote + 1;
            if text.get(at) != Some(&b'"') {
                break;
            }
            field.push(b'"');
            at += 1;
        }
        rest = text.get(at).filter(|byte| **byte == b',').map(|_| &text[at + 1..]);
        Some(Cow::Owned(field))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against an independent reader of CSV.
        #[test]
        fn fields_are_those_of_the_csv_crate(wanted in prop::collection::vec("[a,\"\\n é]{0,6}", 1..6)) {
            let mut writer = csv::WriterBuilder::new().has_headers(false).from_writer(Vec::new());
            writer.write_record(&wanted).unwrap();
            let record = writer.into_inner().unwrap();
            let got: Vec<String> = fields(&record).map(|field| String::from_utf8(field.into_owned()).unwrap()).collect();
            prop_assert_eq!(got, wanted);
        }

        #[test]
        fn any_bytes_have_fields(record in prop::collection::vec(any::<u8>(), 0..30)) {
            prop_assert!(fields(&record).count() <= record.len() + 1);
        }
    }
}
