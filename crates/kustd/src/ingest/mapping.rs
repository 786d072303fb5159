//! Ingestion mappings: which part of a record goes to which column.

use serde_json::Value;

use crate::catalog::Table;

/// Where a column's cell comes from.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum CellSource {
    /// Field by position, from 0.
    Ordinal(usize),
    /// JSON path.
    Path(Vec<PathStep>),
    /// The same text in each row.
    Constant(String),
    /// Nothing: null.
    Absent,
}

/// A step of a JSON path.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum PathStep {
    /// `.name`, `['name']`
    Name(String),
    /// `[3]`
    Index(usize),
}

/// What is done to a cell before it is read as the column's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transform {
    /// Nothing.
    None,
    /// A Unix time in this many units per second becomes a datetime.
    Unix(i64),
}

/// One column of a mapping, resolved against a table.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CellRule {
    /// Where from.
    pub(crate) source: CellSource,
    /// What is done to it.
    pub(crate) transform: Transform,
}

/// The rules of all columns of a table, in the table's order.
pub(crate) type Rules = Vec<CellRule>;

const ABSENT: CellRule = CellRule { source: CellSource::Absent, transform: Transform::None };

/// Every column by its position.
pub(crate) fn by_position(table: &Table) -> Rules {
    (0..table.columns.len()).map(|at| CellRule { source: CellSource::Ordinal(at), transform: Transform::None }).collect()
}

/// Every column from the property of its name.
pub(crate) fn by_name(table: &Table) -> Rules {
    let rule = |name: &str| CellRule { source: CellSource::Path(vec![PathStep::Name(name.to_owned())]), transform: Transform::None };
    table.columns.iter().map(|column| rule(&column.name)).collect()
}

/// Reads a mapping's JSON for `table`.
///
/// # Errors
/// A text that says what is wrong with the mapping.
pub(crate) fn parse(json: &str, table: &Table) -> Result<Rules, String> {
    let mut rules = vec![ABSENT; table.columns.len()];
    for (name, rule) in read(json)? {
        let Some(at) = table.columns.iter().position(|column| column.name == name) else {
            return Err(format!("the mapping names column '{name}', which table '{}' does not have", table.name));
        };
        rules[at] = rule;
    }
    Ok(rules)
}

/// Checks that a mapping can be read, without a table.
pub(crate) fn check(json: &str) -> Result<(), String> {
    read(json).map(drop)
}

fn read(json: &str) -> Result<Vec<(String, CellRule)>, String> {
    let value: Value = serde_json::from_str(json).map_err(|error| format!("the mapping is not valid JSON: {error}"))?;
    let Value::Array(entries) = value else {
        return Err("the mapping must be a JSON array of column mappings".to_owned());
    };
    entries.iter().enumerate().map(|(at, entry)| read_entry(entry).map_err(|why| format!("entry {at}: {why}"))).collect()
}

fn read_entry(entry: &Value) -> Result<(String, CellRule), String> {
    let name = text(entry, "Column").or_else(|| text(entry, "Name")).ok_or("a column mapping needs the property 'Column'")?;
    let properties = get(entry, "Properties").unwrap_or(entry);
    let source = if let Some(constant) = text(properties, "ConstValue").or_else(|| text(properties, "ConstantValue")) {
        CellSource::Constant(constant)
    } else if let Some(path) = text(properties, "Path").or_else(|| text(properties, "Field")) {
        CellSource::Path(parse_path(&path)?)
    } else if let Some(ordinal) = text(properties, "Ordinal") {
        CellSource::Ordinal(ordinal.parse().map_err(|_| format!("'{ordinal}' is no ordinal"))?)
    } else {
        CellSource::Absent
    };
    let transform = match text(properties, "Transform").as_deref() {
        None | Some("" | "None" | "none") => Transform::None,
        Some("DateTimeFromUnixSeconds") => Transform::Unix(1),
        Some("DateTimeFromUnixMilliseconds") => Transform::Unix(1_000),
        Some("DateTimeFromUnixMicroseconds") => Transform::Unix(1_000_000),
        Some("DateTimeFromUnixNanoseconds") => Transform::Unix(1_000_000_000),
        Some(other) => return Err(format!("the transformation '{other}' is not supported")),
    };
    Ok((name, CellRule { source, transform }))
}

/// A property without regard to case, as the service reads mappings.
fn get<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    value.as_object()?.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

fn text(value: &Value, name: &str) -> Option<String> {
    match get(value, name)? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Reads `$.a['b c'][0]`.
fn parse_path(path: &str) -> Result<Vec<PathStep>, String> {
    let bad = || format!("'{path}' is no JSON path of the form $.a['b'][0]");
    let mut rest = path.strip_prefix('$').ok_or_else(bad)?;
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(['.', '[']).unwrap_or(after.len());
            if end == 0 {
                return Err(bad());
            }
            steps.push(PathStep::Name(after[..end].to_owned()));
            rest = &after[end..];
        } else if let Some((quote, after)) = quoted(rest) {
            let end = after.find(quote).ok_or_else(bad)?;
            steps.push(PathStep::Name(after[..end].to_owned()));
            rest = after[end + 1..].strip_prefix(']').ok_or_else(bad)?;
        } else {
            let after = rest.strip_prefix('[').ok_or_else(bad)?;
            let end = after.find(']').ok_or_else(bad)?;
            steps.push(PathStep::Index(after[..end].parse().map_err(|_| bad())?));
            rest = &after[end + 1..];
        }
    }
    Ok(steps)
}

fn quoted(rest: &str) -> Option<(char, &str)> {
    let after = rest.strip_prefix('[')?;
    let quote = after.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    Some((quote, &after[1..]))
}

/// The value that `path` leads to.
pub(crate) fn follow<'v>(value: &'v Value, path: &[PathStep]) -> Option<&'v Value> {
    path.iter().try_fold(value, |value, step| match step {
        PathStep::Name(name) => value.as_object()?.get(name),
        PathStep::Index(index) => value.as_array()?.get(*index),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use kql::Type;

    fn table() -> Table {
        let mut table = Table::new(&"Db".into(), "T", 0);
        table.add_column("Timestamp", Type::DateTime);
        table.add_column("Value", Type::Real);
        table
    }

    #[test]
    fn ordinals_as_the_ingestor_writes_them() {
        let json = r#"[{"Column":"Value","DataType":"real","Properties":{"Ordinal":"3"}}]"#;
        let rules = parse(json, &table()).unwrap();
        assert_eq!(rules[0], ABSENT);
        assert_eq!(rules[1].source, CellSource::Ordinal(3));
        assert!(parse(r#"[{"Column":"X","Properties":{"Ordinal":0}}]"#, &table()).unwrap_err().contains("'X'"));
    }

    #[test]
    fn paths() {
        let steps = parse_path("$.a['b c'][0].d").unwrap();
        let value = serde_json::json!({"a": {"b c": [{"d": 7}]}});
        assert_eq!(follow(&value, &steps), Some(&serde_json::json!(7)));
        assert_eq!(parse_path("$").unwrap(), []);
        for bad in ["a", "$.", "$.a[", "$['a]", "$[x]"] {
            assert!(parse_path(bad).is_err(), "{bad}");
        }
    }
}
