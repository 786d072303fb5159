//! Text of scalars as `tostring` prints it, and numbers and guids out of text.

use super::{Dynamic, Value, format_datetime, format_timespan};

impl Value {
    /// What `tostring` gives: null is the empty string, bool is `True` or `False`, datetime has seven digits.
    pub fn to_text(&self) -> String {
        match self {
            Value::Null => String::new(),
            Value::Bool(true) => "True".into(),
            Value::Bool(false) => "False".into(),
            Value::Int(v) => v.to_string(),
            Value::Long(v) => v.to_string(),
            Value::Real(v) => format_real(*v),
            Value::Decimal(v) => v.normalize().to_string(),
            Value::String(v) => v.to_string(),
            Value::DateTime(v) => format_datetime(*v),
            Value::TimeSpan(v) => format_timespan(*v),
            Value::Guid(v) => uuid::Uuid::from_u128(*v).to_string(),
            Value::Dynamic(v) => v.to_text(),
        }
    }
}

impl Dynamic {
    /// What `tostring` gives of a dynamic: strings bare, bool in lower case, containers as JSON.
    pub fn to_text(&self) -> String {
        match self {
            Dynamic::Null => String::new(),
            Dynamic::Bool(v) => v.to_string(),
            Dynamic::Array(_) | Dynamic::Bag(_) => self.to_json(),
            scalar => scalar.to_value().to_text(),
        }
    }
}

/// A double as Kusto prints it: at least one digit behind the point, exponents from 1e21 and below 1e-6.
///
/// Kusto takes the largest of the shortest decimals that read back as the same double (0.1 + 0.2 prints
/// `0.30000000000000007`), where most printers take the nearest.
pub fn format_real(value: f64) -> String {
    if value.is_nan() {
        return "NaN".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf".into() } else { "-inf".into() };
    }
    if value == 0.0 {
        return if value.is_sign_negative() { "-0.0".into() } else { "0.0".into() };
    }
    let (digits, exponent) = largest_shortest_digits(value.abs());
    let mut text = String::with_capacity(24);
    if value < 0.0 {
        text.push('-');
    }
    write_decimal(&mut text, &digits, exponent);
    text
}

/// Shortest digits and the exponent of the first one, the last digit as large as reads back the same.
fn largest_shortest_digits(value: f64) -> (String, i32) {
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let mut digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    // Only with 16 or more digits can two decimals of that length read back as one double.
    while digits.len() >= 16 && !digits.ends_with('9') {
        let last = digits.as_bytes()[digits.len() - 1];
        let candidate = format!("{}{}", &digits[..digits.len() - 1], char::from(last + 1));
        let text = format!("{}.{}e{exponent}", &candidate[..1], &candidate[1..]);
        if text.parse::<f64>() != Ok(value) {
            break;
        }
        digits = candidate;
    }
    (digits, exponent)
}

fn write_decimal(text: &mut String, digits: &str, exponent: i32) {
    let count = digits.len() as i32;
    let point = exponent + 1;
    if (1..=21).contains(&point) {
        if count <= point {
            text.push_str(digits);
            text.extend(std::iter::repeat_n('0', (point - count) as usize));
            text.push_str(".0");
        } else {
            text.push_str(&digits[..point as usize]);
            text.push('.');
            text.push_str(&digits[point as usize..]);
        }
    } else if (-5..=0).contains(&point) {
        text.push_str("0.");
        text.extend(std::iter::repeat_n('0', (-point) as usize));
        text.push_str(digits);
    } else {
        text.push_str(&digits[..1]);
        if count > 1 {
            text.push('.');
            text.push_str(&digits[1..]);
        }
        text.push('e');
        text.push_str(&exponent.to_string());
    }
}

/// An integer out of text: decimal, or hexadecimal as `0x` without a sign; white space around it is allowed.
pub fn parse_long(text: &str) -> Option<i64> {
    let text = text.trim();
    if let Some(hex) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        let digits = !hex.is_empty() && hex.bytes().all(|b| b.is_ascii_hexdigit());
        return digits.then(|| u64::from_str_radix(hex, 16).ok().map(|bits| bits as i64))?;
    }
    let body = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !body.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    text.strip_prefix('+').unwrap_or(text).parse().ok()
}

/// A double out of text: decimal with or without exponent, `inf`, `Infinity`, `nan`, `NaN`.
pub fn parse_real(text: &str) -> Option<f64> {
    let text = text.trim();
    let body = text.strip_prefix(['-', '+']).unwrap_or(text);
    let named = matches!(body, "inf" | "Infinity" | "nan" | "NaN");
    if named || body.starts_with(|c: char| c.is_ascii_digit() || c == '.') { text.parse().ok() } else { None }
}

/// A guid out of text: 32 hexadecimal digits, with or without hyphens or braces.
pub fn parse_guid(text: &str) -> Option<u128> {
    let text = text.trim();
    let inner = text.strip_prefix('{').map_or(Some(text), |rest| rest.strip_suffix('}'))?;
    if inner.len() > 36 {
        return None;
    }
    let digits: String = inner.chars().filter(|c| *c != '-').collect();
    let valid = digits.len() == 32 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    valid.then(|| u128::from_str_radix(&digits, 16).ok())?
}
