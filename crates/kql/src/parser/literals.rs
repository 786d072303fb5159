//! Values of typed literals: `datetime(…)`, `timespan(…)`, `guid(…)`, `dynamic(…)`, `int(…)` and so on.

use std::sync::Arc;

use indexmap::IndexMap;
use rust_decimal::Decimal;

use super::parse_literal;
use crate::types::Type;
use crate::value::{Dynamic, TICKS_PER_DAY, TICKS_PER_SECOND, UNIX_EPOCH_TICKS, Value};

/// Deepest nesting of a dynamic literal.
const MAX_DYNAMIC_DEPTH: usize = 100;
/// Ticks after the last datetime, 9999-12-31T23:59:59.9999999Z.
const END_OF_TIME: i64 = 3_155_378_976_000_000_000;

/// The value of `ty(raw)`; the error says what is wrong with it.
pub(super) fn typed(ty: Type, raw: &str) -> Result<Value, String> {
    let raw = raw.trim();
    if raw == "null" || (raw.is_empty() && ty != Type::Dynamic) {
        return Ok(Value::Null);
    }
    let inner = unquote(raw);
    let wrong = || format!("'{}' is not a {ty} literal", raw.chars().take(60).collect::<String>());
    match ty {
        Type::Bool => boolean(inner).map(Value::Bool).ok_or_else(wrong),
        Type::Int => integer(inner).and_then(|n| i32::try_from(n).ok()).map(Value::Int).ok_or_else(wrong),
        Type::Long => integer(inner).map(Value::Long).ok_or_else(wrong),
        Type::Real => real(inner).map(Value::Real).ok_or_else(wrong),
        Type::Decimal => decimal(inner).map(Value::Decimal).ok_or_else(wrong),
        Type::DateTime => parse_datetime(inner).map(Value::DateTime).ok_or_else(wrong),
        Type::TimeSpan => parse_timespan(inner).map(Value::TimeSpan).ok_or_else(wrong),
        Type::Guid => uuid::Uuid::try_parse(inner).map(|id| Value::Guid(id.as_u128())).map_err(|_| wrong()),
        Type::String => Ok(Value::String(inner.into())),
        Type::Dynamic => dynamic(raw),
    }
}


/// The content of a plain quoted text; other text as it is.
fn unquote(raw: &str) -> &str {
    let raw = raw.strip_prefix('@').unwrap_or(raw);
    for quote in ['"', '\''] {
        if let Some(inner) = raw.strip_prefix(quote).and_then(|r| r.strip_suffix(quote)) {
            return inner;
        }
    }
    raw
}

fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" => Some(true),
        "false" => Some(false),
        other => other.parse::<i64>().ok().map(|n| n != 0),
    }
}

fn integer(text: &str) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest.trim_start()),
        None => (false, text.strip_prefix('+').unwrap_or(text).trim_start()),
    };
    if let Some(hex) = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        let value = u64::from_str_radix(hex, 16).ok()?.cast_signed();
        return Some(if negative { value.wrapping_neg() } else { value });
    }
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let magnitude = digits.parse::<u64>().ok()?;
    match (negative, magnitude) {
        (true, m) if m <= i64::MIN.unsigned_abs() => Some(m.wrapping_neg().cast_signed()),
        (false, m) => i64::try_from(m).ok(),
        _ => None,
    }
}

fn real(text: &str) -> Option<f64> {
    match text.to_ascii_lowercase().as_str() {
        "nan" => Some(f64::NAN),
        "inf" | "+inf" | "infinity" | "+infinity" => Some(f64::INFINITY),
        "-inf" | "-infinity" => Some(f64::NEG_INFINITY),
        plain if plain.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '.' | '-' | '+')) => plain.parse().ok(),
        _ => None,
    }
}

fn decimal(text: &str) -> Option<Decimal> {
    text.parse().or_else(|_| Decimal::from_scientific(text)).ok()
}

/// Ticks of a datetime text as it may stand in a literal: ISO dates with optional time, fraction and offset, years and
/// months alone, and the English forms of RFC 822 and RFC 850.
pub fn parse_datetime(text: &str) -> Option<i64> {
    let text = text.trim();
    match text {
        "min" => return Some(0),
        "max" => return Some(END_OF_TIME - 1),
        _ => {}
    }
    iso_datetime(text).or_else(|| english_datetime(text)).filter(|ticks| (0..END_OF_TIME).contains(ticks))
}

fn iso_datetime(text: &str) -> Option<i64> {
    let mut cursor = Cursor { rest: text };
    let first = cursor.digits(1, 8)?;
    let (year, month, day) = if first.1 == 8 && (cursor.rest.is_empty() || cursor.rest.starts_with(['T', ' '])) {
        (first.0 / 10_000, first.0 / 100 % 100, first.0 % 100)
    } else if first.1 == 4 && cursor.rest.is_empty() {
        (first.0, 1, 1)
    } else if first.1 == 4 {
        let separator = if cursor.eat('-') { '-' } else if cursor.eat('/') { '/' } else if cursor.eat('.') { '.' } else { return None };
        let month = cursor.digits(1, 2)?.0;
        let day = if cursor.eat(separator) { cursor.digits(1, 2)?.0 } else { 1 };
        (first.0, month, day)
    } else if first.1 <= 2 && cursor.eat('/') {
        // month first, as in the United States
        let day = cursor.digits(1, 2)?.0;
        cursor.eat('/').then_some(())?;
        (cursor.digits(4, 4)?.0, first.0, day)
    } else {
        return None;
    };
    let days = days_from_civil(year, month, day)?;
    let time = time_of_day(&mut cursor)?;
    days.checked_mul(TICKS_PER_DAY)?.checked_add(time)
}

/// `[T]hh:mm[:ss[.fff]] [AM|PM] [Z|±hh:mm]`, or nothing.
fn time_of_day(cursor: &mut Cursor<'_>) -> Option<i64> {
    if cursor.rest.is_empty() || cursor.rest.eq_ignore_ascii_case("z") {
        return Some(0);
    }
    if !cursor.eat('T') && !cursor.eat('t') && !cursor.rest.starts_with(' ') {
        return None;
    }
    cursor.spaces();
    let mut hour = cursor.digits(1, 2)?.0;
    cursor.eat(':').then_some(())?;
    let minute = cursor.digits(1, 2)?.0;
    let mut second = 0;
    let mut fraction = 0;
    if cursor.eat(':') {
        second = cursor.digits(1, 2)?.0;
        if cursor.eat('.') {
            fraction = cursor.fraction()?;
        }
    }
    cursor.spaces();
    let half = cursor.rest.get(..2).map(str::to_ascii_lowercase);
    match half.as_deref() {
        Some("am") if hour <= 12 => hour %= 12,
        Some("pm") if hour <= 12 => hour = hour % 12 + 12,
        Some("am" | "pm") => return None,
        _ => {}
    }
    if matches!(half.as_deref(), Some("am" | "pm")) {
        cursor.rest = &cursor.rest[2..];
        cursor.spaces();
    }
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let ticks = (hour * 3600 + minute * 60 + second) * TICKS_PER_SECOND + fraction;
    Some(ticks - offset(cursor)?)
}

/// Ticks east of Greenwich; the text must end behind it.
fn offset(cursor: &mut Cursor<'_>) -> Option<i64> {
    let zone = cursor.rest.trim();
    if zone.is_empty() || ["z", "gmt", "utc"].iter().any(|z| zone.eq_ignore_ascii_case(z)) {
        return Some(0);
    }
    let sign = if cursor.eat('+') { 1 } else if cursor.eat('-') { -1 } else { return None };
    let (hour, digits) = cursor.digits(1, 4)?;
    let (hour, minute) = if digits > 2 {
        (hour / 100, hour % 100)
    } else {
        (hour, if cursor.eat(':') { cursor.digits(2, 2)?.0 } else { 0 })
    };
    (cursor.rest.trim().is_empty() && hour <= 14 && minute < 60).then_some(sign * (hour * 60 + minute) * 60 * TICKS_PER_SECOND)
}

/// `[Sat,] 8 Nov 2014 15:05:02 GMT`, `Saturday, 08-Nov-14 15:05:02 UTC`.
fn english_datetime(text: &str) -> Option<i64> {
    const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
    let text = text.split_once(',').map_or(text, |(_, rest)| rest).trim();
    let mut cursor = Cursor { rest: text };
    let day = cursor.digits(1, 2)?.0;
    cursor.rest = cursor.rest.trim_start_matches([' ', '-']);
    let word = cursor.rest.get(..3)?.to_ascii_lowercase();
    let month = MONTHS.iter().position(|m| *m == word)? as i64 + 1;
    cursor.rest = cursor.rest.trim_start_matches(|c: char| c.is_ascii_alphabetic()).trim_start_matches([' ', '-']);
    let (year, digits) = cursor.digits(2, 4)?;
    let year = if digits == 2 { if year < 50 { 2000 + year } else { 1900 + year } } else { year };
    let days = days_from_civil(year, month, day)?;
    days.checked_mul(TICKS_PER_DAY)?.checked_add(time_of_day(&mut cursor)?)
}

/// Days from 0001-01-01 to a date of the proleptic Gregorian calendar.
fn days_from_civil(year: i64, month: i64, day: i64) -> Option<i64> {
    let date = jiff::civil::Date::new(i16::try_from(year).ok()?, i8::try_from(month).ok()?, i8::try_from(day).ok()?).ok()?;
    if year < 1 {
        return None;
    }
    let epoch = jiff::civil::date(1970, 1, 1);
    let days = epoch.until(date).ok()?.get_days();
    Some(i64::from(days) + UNIX_EPOCH_TICKS / TICKS_PER_DAY)
}

/// Ticks of a timespan text: `[-][d.]hh:mm[:ss[.fffffff]]`, a number of days, or a number with a unit.
pub fn parse_timespan(text: &str) -> Option<i64> {
    let text = text.trim();
    if let Some(rest) = text.strip_prefix('-') {
        return parse_timespan(rest).filter(|_| !rest.starts_with('-')).and_then(i64::checked_neg);
    }
    if !text.contains(':') {
        if let Ok(days) = text.parse::<i64>() {
            return days.checked_mul(TICKS_PER_DAY);
        }
        return parse_literal(text).and_then(|value| if let Value::TimeSpan(t) = value { Some(t) } else { None });
    }
    let mut cursor = Cursor { rest: text };
    let mut days = 0;
    let mut hours = cursor.digits(1, 8)?.0;
    if cursor.eat('.') {
        days = hours;
        hours = cursor.digits(1, 2)?.0;
    }
    cursor.eat(':').then_some(())?;
    let minutes = cursor.digits(1, 2)?.0;
    let mut seconds = 0;
    let mut fraction = 0;
    if cursor.eat(':') {
        seconds = cursor.digits(1, 2)?.0;
        if cursor.eat('.') {
            fraction = cursor.fraction()?;
        }
    }
    if !cursor.rest.is_empty() || minutes > 59 || seconds > 59 || hours > 23 {
        return None;
    }
    let rest = (hours * 3600 + minutes * 60 + seconds) * TICKS_PER_SECOND + fraction;
    days.checked_mul(TICKS_PER_DAY)?.checked_add(rest)
}

struct Cursor<'a> {
    rest: &'a str,
}

impl Cursor<'_> {
    fn eat(&mut self, c: char) -> bool {
        match self.rest.strip_prefix(c) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn spaces(&mut self) {
        self.rest = self.rest.trim_start();
    }

    /// A number of that many digits: value and how many.
    fn digits(&mut self, least: usize, most: usize) -> Option<(i64, usize)> {
        let count = self.rest.bytes().take_while(u8::is_ascii_digit).count();
        if count < least || count > most {
            return None;
        }
        let (digits, rest) = self.rest.split_at(count);
        self.rest = rest;
        Some((digits.parse().ok()?, count))
    }

    /// Digits of a fraction of a second, as ticks; what is smaller is cut off.
    fn fraction(&mut self) -> Option<i64> {
        let count = self.rest.bytes().take_while(u8::is_ascii_digit).count();
        if count == 0 {
            return None;
        }
        let (digits, rest) = self.rest.split_at(count);
        self.rest = rest;
        let seven: String = digits.chars().chain("0000000".chars()).take(7).collect();
        seven.parse().ok()
    }
}

/// The content of `dynamic(…)`: JSON, with KQL literals as values and either quote.
fn dynamic(raw: &str) -> Result<Value, String> {
    let mut reader = DynamicReader { text: raw, at: 0 };
    let value = reader.value(0)?;
    reader.spaces();
    if reader.at < raw.len() {
        return Err(format!("unexpected text in a dynamic literal at byte {}", reader.at));
    }
    Ok(match value {
        Dynamic::Null => Value::Null,
        other => Value::Dynamic(other),
    })
}

struct DynamicReader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> DynamicReader<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn spaces(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
        if self.rest().starts_with("//") {
            self.at += self.rest().find('\n').unwrap_or(self.rest().len());
            self.spaces();
        }
    }

    fn eat(&mut self, c: char) -> bool {
        self.spaces();
        let found = self.rest().starts_with(c);
        self.at += if found { c.len_utf8() } else { 0 };
        found
    }

    fn wrong(&self, wanted: &str) -> String {
        format!("a dynamic literal needs {wanted} at byte {}", self.at)
    }

    fn value(&mut self, depth: usize) -> Result<Dynamic, String> {
        if depth > MAX_DYNAMIC_DEPTH {
            return Err(format!("a dynamic literal is nested deeper than {MAX_DYNAMIC_DEPTH} levels"));
        }
        if self.eat('[') {
            return self.array(depth);
        }
        if self.eat('{') {
            return self.bag(depth);
        }
        let (value, length) = super::leading_literal(self.rest()).ok_or_else(|| self.wrong("a value"))?;
        self.at += length;
        Ok(to_dynamic(value))
    }

    fn array(&mut self, depth: usize) -> Result<Dynamic, String> {
        let mut items = Vec::new();
        while !self.eat(']') {
            items.push(self.value(depth + 1)?);
            if !self.eat(',') {
                if !self.eat(']') {
                    return Err(self.wrong("',' or ']'"));
                }
                break;
            }
        }
        Ok(Dynamic::Array(Arc::new(items)))
    }

    fn bag(&mut self, depth: usize) -> Result<Dynamic, String> {
        let mut bag = IndexMap::new();
        while !self.eat('}') {
            self.spaces();
            let (key, length) = match super::leading_literal(self.rest()) {
                Some((Value::String(key), length)) => (key, length),
                _ => return Err(self.wrong("a quoted key")),
            };
            self.at += length;
            if !self.eat(':') {
                return Err(self.wrong("':'"));
            }
            bag.insert(key, self.value(depth + 1)?);
            if !self.eat(',') {
                if !self.eat('}') {
                    return Err(self.wrong("',' or '}'"));
                }
                break;
            }
        }
        Ok(Dynamic::Bag(Arc::new(bag)))
    }
}

/// A scalar as a dynamic value.
fn to_dynamic(value: Value) -> Dynamic {
    match value {
        Value::Null => Dynamic::Null,
        Value::Bool(b) => Dynamic::Bool(b),
        Value::Int(n) => Dynamic::Long(n.into()),
        Value::Long(n) => Dynamic::Long(n),
        Value::Real(x) => Dynamic::Real(x),
        Value::Decimal(d) => Dynamic::Decimal(d),
        Value::String(s) => Dynamic::String(s),
        Value::DateTime(t) => Dynamic::DateTime(t),
        Value::TimeSpan(t) => Dynamic::TimeSpan(t),
        Value::Guid(id) => Dynamic::Guid(id),
        Value::Dynamic(inner) => inner,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datetimes() {
        let day = |n: i64| n * TICKS_PER_DAY;
        for (text, ticks) in [
            ("0001-01-01", 0),
            ("1970-01-01", UNIX_EPOCH_TICKS),
            ("1970-01-02 00:00", UNIX_EPOCH_TICKS + day(1)),
            ("1970-01-01T00:00:00.1234567Z", UNIX_EPOCH_TICKS + 1_234_567),
            ("1970-01-01T02:00:00+02:00", UNIX_EPOCH_TICKS),
            ("9999-12-31T23:59:59.9999999Z", END_OF_TIME - 1),
            ("1970", UNIX_EPOCH_TICKS),
            ("1970-02", UNIX_EPOCH_TICKS + day(31)),
            ("Thu, 1 Jan 1970 00:00:01 GMT", UNIX_EPOCH_TICKS + TICKS_PER_SECOND),
            ("Thursday, 01-Jan-70 00:00:00 UTC", UNIX_EPOCH_TICKS),
        ] {
            assert_eq!(parse_datetime(text), Some(ticks), "{text}");
        }
        for text in ["", "x", "2020-13-01", "2020-02-30", "2020-01-01T25:00", "10000-01-01", "2020-01-01T00:00:00Zx"] {
            assert_eq!(parse_datetime(text), None, "{text}");
        }
    }

    #[test]
    fn timespans() {
        let second = TICKS_PER_SECOND;
        for (text, ticks) in [
            ("1", TICKS_PER_DAY),
            ("01:02:03", 3723 * second),
            ("1.00:00:00.0000001", TICKS_PER_DAY + 1),
            ("-00:00:01", -second),
            ("10s", 10 * second),
            ("2 ", 2 * TICKS_PER_DAY),
        ] {
            assert_eq!(parse_timespan(text), Some(ticks), "{text}");
        }
        assert_eq!(parse_timespan("25:00:00"), None);
        assert_eq!(parse_timespan("--1:00"), None);
    }

    #[test]
    fn typed_literals() {
        assert_eq!(typed(Type::Int, "null"), Ok(Value::Null));
        assert_eq!(typed(Type::Int, "-7"), Ok(Value::Int(-7)));
        assert_eq!(typed(Type::Long, "0xFF"), Ok(Value::Long(255)));
        assert_eq!(typed(Type::Bool, "1"), Ok(Value::Bool(true)));
        assert_eq!(typed(Type::Real, "-inf"), Ok(Value::Real(f64::NEG_INFINITY)));
        assert!(typed(Type::Int, "3000000000").is_err());
        assert!(typed(Type::Guid, "12").is_err());
    }

    #[test]
    fn dynamic_literals_are_json_with_kql_values() {
        let Ok(Value::Dynamic(Dynamic::Bag(bag))) = typed(Type::Dynamic, r#"{"a":[1,-2.5,null],'b':datetime(1970-01-01)}"#)
        else {
            panic!()
        };
        let items = vec![Dynamic::Long(1), Dynamic::Real(-2.5), Dynamic::Null];
        assert_eq!(bag["a"], Dynamic::Array(Arc::new(items)));
        assert_eq!(bag["b"], Dynamic::DateTime(UNIX_EPOCH_TICKS));
        assert!(typed(Type::Dynamic, "[1").is_err());
        assert!(typed(Type::Dynamic, &"[".repeat(100_000)).is_err());
        assert_eq!(typed(Type::Dynamic, "null"), Ok(Value::Null));
    }
}
