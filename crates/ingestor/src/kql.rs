//! The statements that an ingestor sends: tables, ingestion mappings, and the functions that a
//! metrics database gets.
//!
//! Tables are merged, never replaced: a schema with more columns widens its table. A mapping is
//! named after its table and columns, so that rows of two schemas of one table can arrive side by
//! side; the name and the text are the reference's.

use kusto::text::{quote_name, quote_string};
use serde_json::json;
use telemetry::names::normalize_metric;
use xxhash_rust::xxh64::xxh64;

/// A column of a table, as a segment's header line names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its Kusto type.
    pub kind: String,
}

/// Why a header line does not name columns.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the header {header:?} does not name columns as name:type: {field:?}")]
pub struct HeaderError {
    header: String,
    field: String,
}

/// The types that a column may have; anything else in a header is damage.
const TYPES: [&str; 10] = ["bool", "int", "long", "real", "decimal", "string", "datetime", "timespan", "guid", "dynamic"];

/// Reads a header line, `Name:type,Name:type`, with or without its line end.
///
/// # Errors
/// The field that is not a name, one colon and a known type.
pub fn parse_header(line: &[u8]) -> Result<Vec<Column>, HeaderError> {
    let text = String::from_utf8_lossy(line);
    let text = text.trim_end_matches(['\n', '\r']);
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let column = |field: &str| {
        let (name, kind) = field.split_once(':')?;
        (!name.is_empty() && TYPES.contains(&kind)).then(|| Column { name: name.to_owned(), kind: kind.to_owned() })
    };
    text.split(',')
        .map(|field| {
            let head = || text.chars().take(200).collect();
            column(field).ok_or_else(|| HeaderError { header: head(), field: field.chars().take(100).collect() })
        })
        .collect()
}

/// The statement that makes a table, or adds the columns that it lacks.
pub fn create_table(table: &str, columns: &[Column]) -> String {
    let list: Vec<String> = columns.iter().map(|c| format!("{}:{}", quote_name(&c.name), c.kind)).collect();
    format!(".create-merge table {} ({})", quote_name(table), list.join(", "))
}

/// The name of the mapping for these columns of a table.
pub fn mapping_name(table: &str, columns: &[Column]) -> String {
    let table = normalize_metric(table);
    let mut hashed = table.clone();
    for column in columns {
        hashed.push_str(&normalize_metric(&column.name));
    }
    format!("{table}_{}", xxh64(hashed.as_bytes(), 0))
}

/// The statement that makes the mapping: CSV fields to columns by position.
pub fn create_mapping(table: &str, columns: &[Column]) -> String {
    let entries: Vec<_> = columns
        .iter()
        .enumerate()
        .map(|(ordinal, c)| {
            json!({
                "Column": c.name,
                "DataType": c.kind,
                "Properties": { "Ordinal": ordinal.to_string() },
            })
        })
        .collect();
    let mapping = serde_json::Value::from(entries).to_string();
    format!(
        ".create-or-alter table {} ingestion csv mapping {} {}",
        quote_name(table),
        quote_string(&mapping_name(table, columns)),
        kusto::text::quote_string_single(&mapping),
    )
}

/// Inline ingestion, for services that do not stream. The text of the rows follows the operator as
/// it is; the service reads it as CSV to the end of the command. The mapping puts fields into the
/// columns of their schema, which in a table of several schemas is not a matter of position.
pub fn ingest_inline(table: &str, mapping: &str, csv: &str) -> String {
    let (table, mapping) = (quote_name(table), quote_string(mapping));
    format!(".ingest inline into table {table} with (format=\"csv\", ingestionMappingReference={mapping}) <|\n{csv}")
}

const SIGNATURE: &str = "(T:(Timestamp:datetime, SeriesId: long, Labels:dynamic, Value:real), interval:timespan=1m)";

/// Growth of a counter from one sample of a series to the next; the first sample of a series grows
/// by 0. Where the counter was reset, the growth is what it gains up to the sample behind the reset.
const PROM_INCREASE: &str = "{
    T
    | where isnotnull(Value) and not(isnan(Value))
    | order by SeriesId asc, Timestamp asc
    | extend _first = isnull(prev(SeriesId)) or prev(SeriesId) != SeriesId
    | extend _last = isnull(next(SeriesId)) or next(SeriesId) != SeriesId
    | extend _diff = Value - prev(Value), _ahead = next(Value) - Value
    | extend Value = case(_first, 0.0, _diff >= 0.0, _diff, _last, real(null), _ahead)
    | project Timestamp, SeriesId, Labels, Value
}";

/// Growth of a counter per second.
const PROM_RATE: &str = "{
    T
    | invoke prom_increase(interval)
    | order by SeriesId asc, Timestamp asc
    | extend _first = isnull(prev(SeriesId)) or prev(SeriesId) != SeriesId
    | extend _seconds = (Timestamp - prev(Timestamp)) / 1s
    | extend Value = iff(_first, real(null), Value / _seconds)
    | where isnotnull(Value) and not(isnan(Value))
    | project Timestamp, SeriesId, Labels, Value
}";

/// Change of a gauge from one sample of a series to the next, up or down; 0 for the first.
const PROM_DELTA: &str = "{
    T
    | where isnotnull(Value) and not(isnan(Value))
    | order by SeriesId asc, Timestamp asc
    | extend _first = isnull(prev(SeriesId)) or prev(SeriesId) != SeriesId
    | extend Value = iff(_first, 0.0, Value - prev(Value))
    | project Timestamp, SeriesId, Labels, Value
}";

/// The statements that give a metrics database its functions, in the order to run them.
pub fn create_functions() -> [String; 3] {
    let create = |name, body| format!(".create-or-alter function {name} {SIGNATURE} {body}");
    [create("prom_increase", PROM_INCREASE), create("prom_rate", PROM_RATE), create("prom_delta", PROM_DELTA)]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn headers_are_read_and_others_refused() {
        let columns = parse_header(b"Timestamp:datetime,Value:real\n").unwrap();
        assert_eq!(columns[1], Column { name: "Value".into(), kind: "real".into() });
        assert_eq!(parse_header(b"\n").unwrap(), []);
        for bad in ["a", "a:b:c", "a:string,", ":string", "a:text", "2026-01-01T00:00:00Z,1"] {
            assert!(parse_header(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_name_cannot_leave_its_quotes() {
        let columns = [Column { name: "a'] | x".into(), kind: "string".into() }];
        assert_eq!(create_table("T", &columns), r".create-merge table ['T'] (['a\'] | x']:string)");
        let mapping = create_mapping("T", &columns);
        assert!(mapping.ends_with(r#"'[{"Column":"a\'] | x","DataType":"string","Properties":{"Ordinal":"0"}}]'"#));
    }
}
