//! Values as text, in the forms that receivers of the reference know: Go's.

use jiff::SignedDuration;
use kql::value::TICKS_PER_SECOND;
use serde_json::Value;

/// The text of a cell of type `ty`. Null is the empty text.
pub(crate) fn cell(ty: &str, value: &Value) -> String {
    match (ty, value) {
        (_, Value::Null) => String::new(),
        ("real", _) => real_of(value).map_or_else(|| plain(value), real),
        ("bool", Value::Number(number)) => (number.as_i64() != Some(0)).to_string(),
        ("datetime", Value::String(text)) => datetime(text),
        ("timespan", Value::String(text)) => timespan(text),
        ("decimal", _) => decimal(&plain(value)),
        ("guid", Value::String(text)) => text.to_ascii_lowercase(),
        _ => plain(value),
    }
}

/// Strings as they are, everything else as JSON.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The number of a `real` cell; the protocol writes those that JSON lacks as strings.
pub(crate) fn real_of(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => match text.as_str() {
            "NaN" => Some(f64::NAN),
            "Infinity" | "+Inf" => Some(f64::INFINITY),
            "-Infinity" | "-Inf" => Some(f64::NEG_INFINITY),
            text => text.parse().ok(),
        },
        _ => None,
    }
}

/// The shortest digits that read back; with an exponent below 1e-4 and from 1e21 on.
fn real(value: f64) -> String {
    if !value.is_finite() {
        return if value.is_nan() { "NaN" } else { ["-Inf", "+Inf"][usize::from(value > 0.0)] }.to_owned();
    }
    let scientific = format!("{value:e}");
    let Some((digits, exponent)) = scientific.split_once('e').and_then(|(d, e)| Some((d, e.parse::<i32>().ok()?))) else {
        return scientific;
    };
    match exponent {
        -4..=20 => format!("{value}"),
        21.. => format!("{digits}e+{exponent:02}"),
        _ => format!("{digits}e-{:02}", exponent.unsigned_abs()),
    }
}

/// RFC 3339 without trailing zeros in the fraction.
fn datetime(text: &str) -> String {
    match text.strip_suffix('Z').and_then(|text| text.split_once('.')) {
        Some((seconds, fraction)) => match fraction.trim_end_matches('0') {
            "" => format!("{seconds}Z"),
            fraction => format!("{seconds}.{fraction}Z"),
        },
        None => text.to_owned(),
    }
}

/// `1h30m0.25s`; below a second `250ms`, `1.5µs`, `100ns`.
fn timespan(text: &str) -> String {
    let Some(ticks) = kql::value::parse_timespan(text) else {
        return text.to_owned();
    };
    let nanos = i32::try_from(ticks % TICKS_PER_SECOND * 100).unwrap_or_default();
    crds::duration::format(SignedDuration::new(ticks / TICKS_PER_SECOND, nanos))
}

/// Without trailing zeros behind the point.
fn decimal(text: &str) -> String {
    match text.contains('.') && !text.contains(['e', 'E']) {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    }
}

/// Text as HTML, with the entities that the reference writes.
pub(crate) fn escape_html(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 8);
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// The first `limit` characters, with a note of how many bytes are missing.
pub(crate) fn shortened(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        Some((at, _)) => format!("{}… ({} bytes more)", &text[..at], text.len() - at),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Expected: Go's `fmt.Sprint` of float64 and `time.Duration.String`, from their documentation and tests.
    #[test]
    fn numbers_and_durations_are_written_as_go_writes_them() {
        for (value, text) in [
            (json!(100000.0), "100000"),
            (json!(1e20), "100000000000000000000"),
            (json!(1e21), "1e+21"),
            (json!(1.234e-5), "1.234e-05"),
            (json!(0.0001), "0.0001"),
            (json!(5e-324), "5e-324"),
            (json!(-0.5), "-0.5"),
            (json!("NaN"), "NaN"),
            (json!("-Infinity"), "-Inf"),
        ] {
            assert_eq!(cell("real", &value), text);
        }
        for (value, text) in [
            ("00:00:00", "0s"),
            ("00:00:00.0000001", "100ns"),
            ("00:00:00.0000011", "1.1µs"),
            ("00:00:00.0022000", "2.2ms"),
            ("00:00:03.3", "3.3s"),
            ("00:04:05.0010000", "4m5.001s"),
            ("-1.01:00:00", "-25h0m0s"),
        ] {
            assert_eq!(cell("timespan", &json!(value)), text);
        }
    }

    #[test]
    fn the_rest() {
        for (ty, value, text) in [
            ("decimal", json!("100"), "100"),
            ("decimal", json!("-1.500"), "-1.5"),
            ("decimal", json!("2.000"), "2"),
            ("datetime", json!("2024-05-01T10:00:00.0000000Z"), "2024-05-01T10:00:00Z"),
            ("datetime", json!("2024-05-01T10:00:00Z"), "2024-05-01T10:00:00Z"),
            ("bool", json!(1), "true"),
            ("bool", json!(false), "false"),
            ("dynamic", json!({"a": [1]}), "{\"a\":[1]}"),
            ("guid", json!("9028E8B7-7350-4870-A0E7-AB3538049876"), "9028e8b7-7350-4870-a0e7-ab3538049876"),
            ("long", json!(i64::MIN), "-9223372036854775808"),
        ] {
            assert_eq!(cell(ty, &value), text, "{ty}");
        }
    }
}
