//! Text forms of scalar values at the edges: what ingestion reads and what answers print.
//!
//! Reading follows Kusto's ingestion: a value that does not fit its column becomes null (`None`), never an error.
//! Printing follows the REST protocol: `YYYY-MM-DDTHH:MM:SS[.fffffff]Z` and `[-][d.]hh:mm:ss[.fffffff]`.

use std::borrow::Cow;
use std::fmt::Write as _;

use kql::value::{TICKS_PER_DAY, TICKS_PER_SECOND, UNIX_EPOCH_TICKS};

/// Largest tick of year 9999.
const LAST_TICK: i64 = 3_155_378_975_999_999_999;
/// Deepest nesting of a dynamic value that is kept as a structure; deeper ones are kept as text.
const DEEPEST_DYNAMIC: usize = 100;

/// Appends the datetime of `ticks`, the fraction without trailing zeros.
pub(crate) fn write_datetime(ticks: i64, out: &mut String) {
    let ticks = ticks.clamp(0, LAST_TICK);
    let (days, time) = (ticks / TICKS_PER_DAY, ticks % TICKS_PER_DAY);
    let (year, month, day) = civil(days);
    let _ = write!(out, "{year:04}-{month:02}-{day:02}T");
    write_clock(time, out);
    out.push('Z');
}

/// Appends the timespan of `ticks`, the fraction in seven digits or not at all.
pub(crate) fn write_timespan(ticks: i64, out: &mut String) {
    if ticks < 0 {
        out.push('-');
    }
    let ticks = ticks.unsigned_abs().min(i64::MAX as u64).cast_signed();
    let days = ticks / TICKS_PER_DAY;
    if days > 0 {
        let _ = write!(out, "{days}.");
    }
    let time = ticks % TICKS_PER_DAY;
    write_seconds(time / TICKS_PER_SECOND, out);
    let fraction = time % TICKS_PER_SECOND;
    if fraction > 0 {
        let _ = write!(out, ".{fraction:07}");
    }
}

fn write_clock(time: i64, out: &mut String) {
    write_seconds(time / TICKS_PER_SECOND, out);
    let fraction = time % TICKS_PER_SECOND;
    if fraction > 0 {
        let digits = format!("{fraction:07}");
        out.push('.');
        out.push_str(digits.trim_end_matches('0'));
    }
}

fn write_seconds(seconds: i64, out: &mut String) {
    let _ = write!(out, "{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
}

/// Text of a datetime, for tables that commands answer with.
pub(crate) fn datetime_text(ticks: i64) -> String {
    let mut out = String::with_capacity(28);
    write_datetime(ticks, &mut out);
    out
}

/// Text of a timespan.
pub(crate) fn timespan_text(ticks: i64) -> String {
    let mut out = String::with_capacity(16);
    write_timespan(ticks, &mut out);
    out
}

/// Year, month and day of a day number counted from 0001-01-01 (proleptic Gregorian).
fn civil(days: i64) -> (i64, i64, i64) {
    // days from 0000-03-01, in eras of 400 years
    let shifted = days + 306;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// Day number of a date counted from 0001-01-01; the date must be valid.
fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_index = if month > 2 { month - 3 } else { month + 9 };
    let of_year = (153 * month_index + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year - 306
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if (year % 4 == 0 && year % 100 != 0) || year % 400 == 0 => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Reads a datetime: ISO 8601 with `T` or a blank, any number of fraction digits, `Z` or an offset; a date alone.
/// Ticks since year 1.
pub(crate) fn parse_datetime(text: &str) -> Option<i64> {
    let text = text.trim();
    let mut at = Digits { bytes: text.as_bytes(), at: 0 };
    let date = at.date()?;
    if at.done() {
        return Some(date);
    }
    if !at.eat(b'T') && !at.eat(b't') && !at.eat(b' ') {
        return None;
    }
    let time = at.clock()?;
    let offset = at.offset()?;
    if !at.done() {
        return None;
    }
    let ticks = date.checked_add(time)?.checked_sub(offset)?;
    (0..=LAST_TICK).contains(&ticks).then_some(ticks)
}

/// Reads a timespan: `[-][d.]hh:mm[:ss[.fffffff]]`, or a number with a unit (`5m`, `1.5h`).
pub(crate) fn parse_timespan(text: &str) -> Option<i64> {
    let text = text.trim();
    let (negative, body) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let ticks = clock_timespan(body).or_else(|| unit_timespan(body))?;
    Some(if negative { -ticks } else { ticks })
}

fn clock_timespan(text: &str) -> Option<i64> {
    let (days, clock) = match (text.find('.'), text.find(':')) {
        (Some(point), Some(colon)) if point < colon => (text[..point].parse::<u32>().ok()?, &text[point + 1..]),
        (_, Some(_)) => (0, text),
        (_, None) => return None,
    };
    let mut at = Digits { bytes: clock.as_bytes(), at: 0 };
    let time = at.clock()?;
    at.done().then_some(())?;
    i64::from(days).checked_mul(TICKS_PER_DAY)?.checked_add(time)
}

fn unit_timespan(text: &str) -> Option<i64> {
    let split = text.find(|c: char| c.is_ascii_alphabetic())?;
    let number: f64 = text[..split].parse().ok()?;
    let unit = match text[split..].to_ascii_lowercase().as_str() {
        "d" => TICKS_PER_DAY as f64,
        "h" => 3600.0 * TICKS_PER_SECOND as f64,
        "m" | "min" => 60.0 * TICKS_PER_SECOND as f64,
        "s" => TICKS_PER_SECOND as f64,
        "ms" => 10_000.0,
        "microsecond" => 10.0,
        "tick" => 1.0,
        _ => return None,
    };
    let ticks = (number * unit).round();
    (ticks.abs() < i64::MAX as f64).then_some(ticks as i64)
}

/// A reader of fixed-width numbers.
struct Digits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Digits<'_> {
    fn done(&self) -> bool {
        self.at == self.bytes.len()
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.bytes.get(self.at) == Some(&byte);
        self.at += usize::from(found);
        found
    }

    /// A number of `least` to `most` digits.
    fn number(&mut self, least: usize, most: usize) -> Option<i64> {
        let start = self.at;
        let mut value = 0i64;
        while self.at - start < most {
            let Some(digit) = self.bytes.get(self.at).filter(|b| b.is_ascii_digit()) else { break };
            value = value * 10 + i64::from(digit - b'0');
            self.at += 1;
        }
        (self.at - start >= least).then_some(value)
    }

    fn date(&mut self) -> Option<i64> {
        let year = self.number(4, 4)?;
        if !self.eat(b'-') && !self.eat(b'/') {
            return None;
        }
        let month = self.number(1, 2)?;
        if !self.eat(b'-') && !self.eat(b'/') {
            return None;
        }
        let day = self.number(1, 2)?;
        let valid = year >= 1 && (1..=12).contains(&month) && day >= 1 && day <= days_in_month(year, month);
        valid.then(|| days_of(year, month, day) * TICKS_PER_DAY)
    }

    /// `hh:mm[:ss[.f…]]` in ticks.
    fn clock(&mut self) -> Option<i64> {
        let hours = self.number(1, 2)?;
        self.eat(b':').then_some(())?;
        let minutes = self.number(1, 2)?;
        let seconds = if self.eat(b':') { self.number(1, 2)? } else { 0 };
        let fraction = if self.eat(b'.') || self.eat(b',') { self.fraction()? } else { 0 };
        let valid = hours < 24 && minutes < 60 && seconds < 60;
        valid.then_some(((hours * 60 + minutes) * 60 + seconds) * TICKS_PER_SECOND + fraction)
    }

    /// Digits after the point, in ticks; those beyond 100 ns are cut.
    fn fraction(&mut self) -> Option<i64> {
        let start = self.at;
        let mut value = 0i64;
        let mut scale = TICKS_PER_SECOND;
        while let Some(digit) = self.bytes.get(self.at).filter(|b| b.is_ascii_digit()) {
            scale /= 10;
            value += i64::from(digit - b'0') * scale;
            self.at += 1;
        }
        (self.at > start).then_some(value)
    }

    /// `Z`, `±hh:mm`, `±hhmm` or nothing (UTC), in ticks.
    fn offset(&mut self) -> Option<i64> {
        let _ = self.eat(b' ');
        if self.done() || self.eat(b'Z') || self.eat(b'z') {
            return Some(0);
        }
        let sign = match self.bytes.get(self.at) {
            Some(b'+') => 1,
            Some(b'-') => -1,
            _ => return None,
        };
        self.at += 1;
        let hours = self.number(2, 2)?;
        let _ = self.eat(b':');
        let minutes = if self.done() { 0 } else { self.number(2, 2)? };
        Some(sign * (hours * 60 + minutes) * 60 * TICKS_PER_SECOND)
    }
}

/// Ticks of a Unix time in `per_second` units per second.
pub(crate) fn unix_ticks(value: i64, per_second: i64) -> Option<i64> {
    let ticks = i128::from(value) * i128::from(TICKS_PER_SECOND) / i128::from(per_second);
    let ticks = i64::try_from(ticks + i128::from(UNIX_EPOCH_TICKS)).ok()?;
    (0..=LAST_TICK).contains(&ticks).then_some(ticks)
}

/// `true`, `false` in any case, or a number that is zero or not.
pub(crate) fn parse_bool(text: &str) -> Option<bool> {
    let text = text.trim();
    if text.eq_ignore_ascii_case("true") {
        return Some(true);
    }
    if text.eq_ignore_ascii_case("false") {
        return Some(false);
    }
    text.parse::<i64>().ok().map(|n| n != 0)
}

/// A decimal or `0x` integer of 64 bits.
pub(crate) fn parse_long(text: &str) -> Option<i64> {
    let text = text.trim();
    if let Some(hex) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        return u64::from_str_radix(hex, 16).ok().map(u64::cast_signed);
    }
    text.parse().ok()
}

/// A floating-point number, `NaN` and infinities included.
pub(crate) fn parse_real(text: &str) -> Option<f64> {
    let text = text.trim();
    match text {
        "+Inf" | "Inf" | "∞" => Some(f64::INFINITY),
        "-Inf" | "-∞" => Some(f64::NEG_INFINITY),
        _ => text.parse().ok(),
    }
}

/// A guid in any of its usual spellings, printed in lower case with hyphens.
pub(crate) fn parse_guid(text: &str) -> Option<String> {
    uuid::Uuid::parse_str(text.trim()).ok().map(|guid| guid.hyphenated().to_string())
}

/// A decimal number as text, checked but not rounded.
pub(crate) fn parse_decimal(text: &str) -> Option<String> {
    let text = text.trim();
    let body = text.strip_prefix(['-', '+']).unwrap_or(text);
    let mut digits = 0;
    let mut points = 0;
    for byte in body.bytes() {
        match byte {
            b'0'..=b'9' => digits += 1,
            b'.' => points += 1,
            // an exponent: through a double, as far as its digits go
            b'e' | b'E' => return parse_real(text).filter(|n| n.is_finite()).map(|n| n.to_string()),
            _ => return None,
        }
    }
    (digits > 0 && digits <= 34 && points <= 1).then(|| text.strip_prefix('+').unwrap_or(text).to_owned())
}

/// JSON text of a dynamic value read from `raw`: the JSON itself without blanks between its tokens, or a JSON string
/// when `raw` is no JSON (or nests too deep to be worked on). `None` for null: empty text or `null`.
pub(crate) fn dynamic_text(raw: &str) -> Option<Cow<'_, str>> {
    let trimmed = raw.trim();
    if trimmed.is_empty() || trimmed == "null" {
        return None;
    }
    match Shape::of(trimmed) {
        Some(shape) if serde_json::from_str::<serde::de::IgnoredAny>(trimmed).is_ok() => {
            Some(if shape.blanks { Cow::Owned(without_blanks(trimmed)) } else { Cow::Borrowed(trimmed) })
        }
        _ => {
            let mut out = String::with_capacity(raw.len() + 2);
            write_json_string(raw, &mut out);
            Some(Cow::Owned(out))
        }
    }
}

/// What one pass over JSON-like text shows.
struct Shape {
    /// Blanks between tokens.
    blanks: bool,
}

impl Shape {
    /// None when the brackets nest too deep.
    fn of(text: &str) -> Option<Shape> {
        let (mut depth, mut blanks) = (0usize, false);
        let mut quoted = false;
        let mut bytes = text.bytes();
        while let Some(byte) = bytes.next() {
            match byte {
                b'"' => quoted = !quoted,
                b'\\' if quoted => drop(bytes.next()),
                _ if quoted => {}
                b'[' | b'{' => {
                    depth += 1;
                    if depth > DEEPEST_DYNAMIC {
                        return None;
                    }
                }
                b']' | b'}' => depth = depth.saturating_sub(1),
                b' ' | b'\n' | b'\r' | b'\t' => blanks = true,
                _ => {}
            }
        }
        Some(Shape { blanks })
    }
}

/// `json` without the blanks between its tokens: an answer frame must stay on one line.
fn without_blanks(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    let (mut quoted, mut escaped) = (false, false);
    for c in json.chars() {
        if quoted {
            quoted = escaped || c != '"';
            escaped = c == '\\' && !escaped;
        } else if c == '"' {
            quoted = true;
        } else if c.is_ascii_whitespace() {
            continue;
        }
        out.push(c);
    }
    out
}

/// Appends `text` as a JSON string.
pub(crate) fn write_json_string(text: &str, out: &mut String) {
    out.push('"');
    let mut plain = 0;
    for (at, byte) in text.bytes().enumerate() {
        let escape = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0..0x20 => "",
            _ => continue,
        };
        out.push_str(&text[plain..at]);
        plain = at + 1;
        if escape.is_empty() {
            let _ = write!(out, "\\u{byte:04x}");
        } else {
            out.push_str(escape);
        }
    }
    out.push_str(&text[plain..]);
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datetimes_of_all_ages_go_round() {
        for (text, ticks) in [
            ("0001-01-01T00:00:00Z", 0),
            ("1970-01-01T00:00:00Z", UNIX_EPOCH_TICKS),
            ("2000-02-29T12:30:45.5Z", 630_874_242_455_000_000),
            ("9999-12-31T23:59:59.9999999Z", LAST_TICK),
        ] {
            assert_eq!(parse_datetime(text), Some(ticks), "{text}");
            assert_eq!(datetime_text(ticks), text);
        }
        assert_eq!(parse_datetime("2024-05-01 10:00"), parse_datetime("2024-05-01T10:00:00Z"));
        assert_eq!(parse_datetime("2024-05-01T12:00:00+02:00"), parse_datetime("2024-05-01T10:00:00Z"));
        assert_eq!(parse_datetime("2024-05-01T10:00:00.123456789Z"), parse_datetime("2024-05-01T10:00:00.1234567Z"));
        for bad in ["", "2023-02-29", "2024-13-01", "2024-01-01T25:00", "x", "2024-01-01T10:00:00Zx"] {
            assert_eq!(parse_datetime(bad), None, "{bad}");
        }
    }

    #[test]
    fn timespans_go_round() {
        for (text, ticks) in
            [("00:00:00", 0), ("1.00:00:00", TICKS_PER_DAY), ("-00:01:00.5000000", -605_000_000), ("12:34:56.0000001", 452_960_000_001)]
        {
            assert_eq!(parse_timespan(text), Some(ticks), "{text}");
            assert_eq!(timespan_text(ticks), text);
        }
        assert_eq!(parse_timespan("1.5h"), Some(54_000_000_000));
        assert_eq!(parse_timespan("x"), None);
    }

    #[test]
    fn dynamic_is_json_or_the_text_itself() {
        assert_eq!(dynamic_text(" {\"a\": [1,\n \"x y\\\" z\"]} ").as_deref(), Some("{\"a\":[1,\"x y\\\" z\"]}"));
        assert_eq!(dynamic_text("plain \"text\"").as_deref(), Some("\"plain \\\"text\\\"\""));
        assert_eq!(dynamic_text("").as_deref(), None);
        assert_eq!(dynamic_text("null").as_deref(), None);
        assert_eq!(dynamic_text("12").as_deref(), Some("12"));
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        assert!(dynamic_text(&deep).is_some_and(|text| text.starts_with('"')));
    }

    #[test]
    fn numbers_that_do_not_fit_are_null() {
        assert_eq!(parse_long("0x10"), Some(16));
        assert_eq!(parse_long("1.5"), None);
        assert_eq!(parse_real("+Inf"), Some(f64::INFINITY));
        assert_eq!(parse_decimal("12.50").as_deref(), Some("12.50"));
        assert_eq!(parse_decimal("1x"), None);
        assert_eq!(parse_guid("74BE27DE-1E4E-49D9-B579-FE0B331D3642").as_deref(), Some("74be27de-1e4e-49d9-b579-fe0b331d3642"));
    }
}
