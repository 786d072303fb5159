//! Rows to notifications. Six column names are reserved, whatever their case; every other column becomes a custom field.

use std::collections::BTreeMap;

use kusto::Column;
use serde_json::Value;

use super::text::{cell, real_of};
use super::{MAX_TITLE, Notification, Origin};

/// What is wrong with the result of a rule's query.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// Two columns stand for the same field.
    #[error("query results include multiple columns for reserved alert field {field:?}: {columns}; rename one of them")]
    Ambiguous {
        /// The field.
        field: &'static str,
        /// The columns, in order.
        columns: String,
    },
    /// The title is missing, empty or too long.
    #[error("title must be between 1 and {MAX_TITLE} chars, but has {0}")]
    Title(usize),
    /// There is no severity column.
    #[error("severity must be specified: add a column \"severity\" with a whole number")]
    NoSeverity,
    /// The severity is no number.
    #[error("failed to convert severity to int: {0}")]
    Severity(String),
}

/// Reserved columns and the notification fields that they fill.
const RESERVED: [(&str, &str); 6] = [
    ("title", "Title"),
    ("severity", "Severity"),
    ("summary", "Summary"),
    ("description", "Description"),
    ("correlationid", "CorrelationID"),
    ("recipient", "Recipient"),
];
const TITLE: usize = 0;
const SEVERITY: usize = 1;
const SUMMARY: usize = 2;
const DESCRIPTION: usize = 3;
const CORRELATION_ID: usize = 4;
const RECIPIENT: usize = 5;

/// The columns of a result, with the reserved ones found.
#[derive(Debug)]
pub struct Columns<'a> {
    columns: &'a [Column],
    /// Where the reserved columns stand.
    reserved: [Option<usize>; 6],
}

impl<'a> Columns<'a> {
    /// Finds the reserved columns.
    ///
    /// # Errors
    /// Where two columns fill the same field.
    pub fn new(columns: &'a [Column]) -> Result<Columns<'a>, RowError> {
        let mut reserved = [None; 6];
        for (field, (name, shown)) in RESERVED.iter().enumerate() {
            let found: Vec<usize> = (0..columns.len()).filter(|at| columns[*at].name.eq_ignore_ascii_case(name)).collect();
            if found.len() > 1 {
                let columns: Vec<&str> = found.iter().map(|at| columns[*at].name.as_str()).collect();
                return Err(RowError::Ambiguous { field: shown, columns: columns.join(", ") });
            }
            reserved[field] = found.first().copied();
        }
        Ok(Columns { columns, reserved })
    }

    /// The notification that a row asks for.
    ///
    /// # Errors
    /// Where title or severity are missing or unusable.
    pub fn notification(&self, row: &[Value], origin: &Origin) -> Result<Notification, RowError> {
        let title = self.text(row, TITLE);
        let severity = self.severity(row)?;
        let length = title.chars().count();
        if !(1..=MAX_TITLE).contains(&length) {
            return Err(RowError::Title(length));
        }
        let destination = match origin.destination.as_str() {
            "" => self.text(row, RECIPIENT),
            destination => destination.to_owned(),
        };
        Ok(Notification {
            destination,
            title,
            summary: format!("{}{}", self.text(row, SUMMARY), origin.links.html()).trim().to_owned(),
            description: self.text(row, DESCRIPTION),
            severity,
            source: origin.source.clone(),
            correlation_id: correlation_id(&origin.source, self.text(row, CORRELATION_ID)),
            custom_fields: Some(self.custom_fields(row)),
            auto_mitigate_after: origin.auto_mitigate_after.clone(),
        })
    }

    /// Severity and title of a row, as far as they can be read: for the list of what was held back.
    #[must_use]
    pub fn brief(&self, row: &[Value]) -> (i64, String) {
        (self.severity(row).unwrap_or_default(), super::shortened(&self.text(row, TITLE), MAX_TITLE))
    }

    fn text(&self, row: &[Value], field: usize) -> String {
        let at = self.reserved[field];
        at.and_then(|at| Some(cell(&self.columns[at].ty, row.get(at)?))).unwrap_or_default()
    }

    fn severity(&self, row: &[Value]) -> Result<i64, RowError> {
        let at = self.reserved[SEVERITY].ok_or(RowError::NoSeverity)?;
        severity(&self.columns[at].ty, row.get(at).unwrap_or(&Value::Null))
    }

    fn custom_fields(&self, row: &[Value]) -> BTreeMap<String, String> {
        let custom = self.columns.iter().zip(row).enumerate().filter(|(at, _)| !self.reserved.contains(&Some(*at)));
        custom.map(|(_, (column, value))| (column.name.clone(), cell(&column.ty, value))).collect()
    }
}

/// The rule's own name space before the id, unless it is there.
fn correlation_id(source: &str, id: String) -> String {
    let prefix = format!("{source}://");
    if id.is_empty() || id.starts_with(&prefix) { id } else { prefix + &id }
}

fn severity(ty: &str, value: &Value) -> Result<i64, RowError> {
    let bad = || RowError::Severity(if value.is_null() { format!("the {ty} is null") } else { format!("{value} is no whole number") });
    match (ty, value) {
        (_, Value::Null) => Err(bad()),
        ("int" | "long", value) => value.as_i64().ok_or_else(bad),
        // a JSON number with a point may come for a real only
        ("real", value) => real_of(value).and_then(truncated).ok_or_else(bad),
        ("decimal", Value::String(text)) => text.split('.').next().and_then(|whole| whole.parse().ok()).ok_or_else(bad),
        ("decimal", Value::Number(number)) => number.as_i64().or_else(|| truncated(number.as_f64()?)).ok_or_else(bad),
        ("string", Value::String(text)) => text.parse().map_err(|_| bad()),
        _ => Err(RowError::Severity(severity_type_error(ty).unwrap_or_else(|| format!("{value} is no whole number")))),
    }
}

/// Why a column of that type cannot be a severity, if it cannot.
#[must_use]
pub fn severity_type_error(ty: &str) -> Option<String> {
    let usable = matches!(ty, "int" | "long" | "real" | "decimal" | "string");
    (!usable).then(|| format!("a {ty} is no severity; use a whole number"))
}

fn truncated(number: f64) -> Option<i64> {
    let whole = number.trunc();
    // 2^63 itself is no i64, and every float below it is
    (whole >= -(2f64.powi(63)) && whole < 2f64.powi(63)).then_some(whole as i64)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn severities_out_of_range_are_errors() {
        for (ty, value) in [
            ("real", json!("NaN")),
            ("real", json!(1e19)),
            ("real", json!("Infinity")),
            ("decimal", json!("9223372036854775808")),
            ("string", json!("")),
            ("datetime", json!("2024-01-01")),
        ] {
            assert!(severity(ty, &value).is_err(), "{ty} {value}");
        }
        assert_eq!(severity("real", &json!(i64::MIN as f64)), Ok(i64::MIN));
    }

    proptest! {
        #[test]
        fn no_row_panics_and_titles_are_bounded(
            names in prop::collection::vec("(?i)(title|severity|summary|correlationid|recipient|a|b)", 0..7),
            types in prop::collection::vec("string|long|int|real|decimal|bool|datetime|timespan|guid|dynamic|x", 7),
            text in ".{0,600}", number in any::<f64>(), whole in any::<i64>(), pick in prop::collection::vec(0u8..5, 7),
        ) {
            let columns: Vec<Column> = names.iter().zip(&types).map(|(name, ty)| Column { name: name.clone(), ty: ty.clone() }).collect();
            let row: Vec<Value> = pick.iter().take(columns.len()).map(|p| match p {
                0 => Value::Null, 1 => json!(text), 2 => json!(number), 3 => json!(whole), _ => json!({"a": text}),
            }).collect();
            let origin = Origin {
                source: "n/r".into(), destination: String::new(), auto_mitigate_after: None, links: crate::notification::Links::new("", "", ""),
            };
            if let Ok(columns) = Columns::new(&columns) {
                let _ = columns.brief(&row);
                if let Ok(n) = columns.notification(&row, &origin) {
                    prop_assert!((1..=MAX_TITLE).contains(&n.title.chars().count()));
                    prop_assert!(n.correlation_id.is_empty() || n.correlation_id.starts_with("n/r://"));
                }
            }
        }
    }
}
