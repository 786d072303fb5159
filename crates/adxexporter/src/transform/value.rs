//! Cells in the protocol's encoding as numbers, times and labels.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde_json::Value;

/// The number in a cell. Booleans are 1 and 0; strings are read as decimal or scientific notation,
/// `NaN` or `Inf`, with `_` between digits allowed. Not finite numbers come as strings, decimals too.
pub(super) fn number(cell: &Value) -> Result<f64, String> {
    match cell {
        Value::Bool(value) => Ok(f64::from(u8::from(*value))),
        Value::Number(number) => number.as_f64().ok_or_else(|| format!("the number {number} is out of range")),
        Value::String(text) => parse_number(text).ok_or_else(|| format!("{:?} is no number", shorten(text))),
        Value::Null => Err("the value is null; leave such rows out with isnotnull(), or use coalesce()".to_owned()),
        Value::Array(_) | Value::Object(_) => Err("the value is no number".to_owned()),
    }
}

fn parse_number(text: &str) -> Option<f64> {
    let plain = without_separators(text)?;
    let value: f64 = plain.parse().ok()?;
    let infinite = plain.trim_start_matches(['+', '-']).starts_with(['i', 'I']);
    (value.is_finite() || value.is_nan() || infinite).then_some(value)
}

/// `1_000` is `1000`; an underscore anywhere but between digits is a mistake.
fn without_separators(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let digit = |at: Option<usize>| at.and_then(|at| bytes.get(at)).is_some_and(u8::is_ascii_digit);
    let fine = (0..bytes.len()).filter(|&at| bytes[at] == b'_').all(|at| digit(at.checked_sub(1)) && digit(Some(at + 1)));
    fine.then(|| text.replace('_', ""))
}

/// Milliseconds since 1970 of a datetime cell or of a string in RFC 3339 or
/// `YYYY-MM-DD HH:MM:SS[.fraction]` in UTC; what is finer than a millisecond is cut off.
pub(super) fn time_ms(cell: &Value) -> Result<u64, String> {
    let text = match cell {
        Value::String(text) => text,
        Value::Null => return Err("the time is null".to_owned()),
        _ => return Err("the time is no datetime".to_owned()),
    };
    let time = parse_time(text).ok_or_else(|| format!("{:?} is no time; use RFC 3339 or YYYY-MM-DD HH:MM:SS", shorten(text)))?;
    // OTLP's times are unsigned.
    u64::try_from(time.as_millisecond()).map_err(|_| format!("{text} is before 1970, which OTLP cannot express"))
}

fn parse_time(text: &str) -> Option<Timestamp> {
    let bytes = text.as_bytes();
    let form = |at: usize, wanted: u8| bytes.get(at) == Some(&wanted);
    // jiff reads more forms than the two; their common shape is `YYYY-MM-DD?HH:MM:SS`.
    if !(form(4, b'-') && form(7, b'-') && form(13, b':') && form(16, b':')) {
        return None;
    }
    match bytes.get(10) {
        Some(b'T') => text.parse().ok(),
        Some(b' ') if bytes[11..].iter().all(|b| b.is_ascii_digit() || matches!(b, b':' | b'.')) => {
            let civil: DateTime = text.parse().ok()?;
            TimeZone::UTC.to_timestamp(civil).ok()
        }
        _ => None,
    }
}

/// The text of a label. Strings stay as they are; other values are written as the protocol writes
/// them, which is how `tostring()` of the query would.
pub(super) fn label_text(cell: &Value, ty: &str) -> Result<String, String> {
    match cell {
        Value::Null => Err("the label is null; use coalesce() or tostring()".to_owned()),
        Value::String(text) => Ok(text.clone()),
        // `tostring(true)` is `true`; older services send booleans as 0 and 1.
        Value::Number(number) if ty == "bool" => Ok((number.as_i64() != Some(0)).to_string()),
        other => Ok(other.to_string()),
    }
}

/// The beginning of a long cell, for messages.
fn shorten(text: &str) -> String {
    match text.char_indices().nth(40) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_in_the_protocols_forms() {
        for (cell, value) in [
            (json!(true), 1.0),
            (json!(false), 0.0),
            (json!(-3), -3.0),
            (json!(i64::MAX), 9_223_372_036_854_775_807.0),
            (json!("12.5"), 12.5),
            (json!("-1e-3"), -0.001),
            (json!("79228162514264337593543950335"), 7.922816251426434e28),
            (json!("Infinity"), f64::INFINITY),
            (json!("-Infinity"), f64::NEG_INFINITY),
            (json!("+Inf"), f64::INFINITY),
            (json!("1_000.5"), 1000.5),
        ] {
            assert_eq!(number(&cell), Ok(value), "{cell}");
        }
        assert!(number(&json!("NaN")).is_ok_and(f64::is_nan));
        for cell in
            [json!(""), json!(" 1"), json!("1_"), json!("_1"), json!("1__0"), json!("1e999"), json!("0x10"), json!([1]), json!(null)]
        {
            assert!(number(&cell).is_err(), "{cell}");
        }
    }

    #[test]
    fn times_before_1970_and_half_forms_are_refused() {
        assert_eq!(time_ms(&json!("1970-01-01T00:00:00.0019999Z")), Ok(1));
        assert_eq!(time_ms(&json!("1970-01-01 00:00:01.5")), Ok(1500));
        for text in [
            "1969-12-31T23:59:59Z",
            "2024-05-01",
            "2024-05-01T10:00",
            "2024-05-01 10:00:00Z",
            "2024-05-01 10:00:00[UTC]",
            "",
            "20240501T100000Z",
        ] {
            assert!(time_ms(&json!(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn labels_that_are_no_strings_are_written_out() {
        for (cell, ty, text) in [
            (json!(4), "long", "4"),
            (json!(true), "bool", "true"),
            (json!(0), "bool", "false"),
            (json!(1.5), "real", "1.5"),
            (json!({"a": [1]}), "dynamic", r#"{"a":[1]}"#),
            (json!("00:01:00"), "timespan", "00:01:00"),
            (json!(""), "string", ""),
        ] {
            assert_eq!(label_text(&cell, ty).as_deref(), Ok(text));
        }
        assert!(label_text(&json!(null), "string").is_err());
    }
}
