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

/// The statement that lists the tables of a database.
pub const SHOW_TABLES: &str = ".show tables | project TableName";

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

    /// Reads a string literal in single quotes at the beginning of a text; the value, and what follows.
    /// Written from the language reference, independently of what quotes.
    fn literal(text: &str) -> Option<(String, &str)> {
        let mut chars = text.strip_prefix('\'')?.char_indices();
        let mut value = String::new();
        loop {
            match chars.next()? {
                (at, '\'') => return Some((value, &text[at + 2..])),
                (_, '\\') => match chars.next()?.1 {
                    'n' => value.push('\n'),
                    'r' => value.push('\r'),
                    't' => value.push('\t'),
                    'u' => {
                        let digits: String = (0..4).filter_map(|_| chars.next()).map(|(_, c)| c).collect();
                        value.push(char::from_u32(u32::from_str_radix(&digits, 16).ok()?)?);
                    }
                    c => value.push(c),
                },
                (_, c) => value.push(c),
            }
        }
    }

    fn name(text: &str) -> Option<(String, &str)> {
        let (name, rest) = literal(text.strip_prefix('[')?)?;
        Some((name, rest.strip_prefix(']')?))
    }

    /// Table and columns of a `.create-merge table`, if the text is exactly one.
    fn created(statement: &str) -> Option<(String, Vec<Column>)> {
        let (table, mut rest) = name(statement.strip_prefix(".create-merge table ")?)?;
        rest = rest.strip_prefix(" (")?;
        let mut columns = Vec::new();
        while !rest.starts_with(')') {
            let (column, after) = name(rest.strip_prefix(", ").unwrap_or(rest))?;
            let after = after.strip_prefix(':')?;
            let end = after.find([',', ')'])?;
            columns.push(Column { name: column, kind: after[..end].to_owned() });
            rest = &after[end..];
        }
        (rest == ")").then_some((table, columns))
    }

    proptest::proptest! {
        /// Header lines come from other processes: whatever they say, a statement makes this one table
        /// with these columns and nothing else.
        #[test]
        fn no_header_line_can_change_a_statement(
            line in "\\PC{0,60}|([a-zA-Z'\"\\]\\[\\)\\(|;/\\\\ ]{1,6}:(string|long|real|dynamic),?){1,4}",
            table in "[A-Za-z0-9]{1,10}|[a-z'\"\\]\\[|\\\\]{1,10}",
        ) {
            let Ok(columns) = parse_header(line.as_bytes()) else { return Ok(()) };
            proptest::prop_assert!(columns.iter().all(|c| TYPES.contains(&c.kind.as_str())));
            proptest::prop_assert_eq!(created(&create_table(&table, &columns)), Some((table.clone(), columns.clone())));

            let statement = create_mapping(&table, &columns);
            let (named, rest) = name(statement.strip_prefix(".create-or-alter table ").unwrap()).unwrap();
            let rest = rest.strip_prefix(&format!(" ingestion csv mapping \"{}\" ", mapping_name(&table, &columns))).unwrap();
            let (mapping, rest) = literal(rest).unwrap();
            proptest::prop_assert_eq!((named, rest), (table, ""));
            let mapping: Vec<serde_json::Value> = serde_json::from_str(&mapping).unwrap();
            let mapped: Vec<_> = mapping.iter().map(|m| (m["Column"].as_str().unwrap(), m["DataType"].as_str().unwrap())).collect();
            let expected: Vec<_> = columns.iter().map(|c| (c.name.as_str(), c.kind.as_str())).collect();
            proptest::prop_assert_eq!(mapped, expected);
        }

        #[test]
        fn no_bytes_make_the_reader_of_headers_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..100)) {
            let _ = parse_header(&bytes);
        }
    }
}
