//! `format_datetime` and `format_timespan`.

use super::Function;
use super::signature::{DATETIME, STR, TIMESPAN, fixed};
use crate::types::Type;
use crate::value::{CivilTime, TICKS_PER_DAY, TICKS_PER_SECOND, Value, civil_from_ticks};

pub(super) static FUNCTIONS: &[Function] = &[
    Function::new(
        "format_datetime",
        |a| fixed(a, &[DATETIME, STR], Type::String),
        |_, a| match &a[0] {
            Value::DateTime(ticks) => Value::string(format_datetime(*ticks, a[1].as_str().unwrap_or(""))),
            _ => Value::string(""),
        },
    ),
    Function::new(
        "format_timespan",
        |a| fixed(a, &[TIMESPAN, STR], Type::String),
        |_, a| match &a[0] {
            Value::TimeSpan(ticks) => Value::string(format_timespan(*ticks, a[1].as_str().unwrap_or(""))),
            _ => Value::string(""),
        },
    ),
];

/// Splits a format into specifiers, runs of one letter of at most so many, and other characters.
fn specifiers(format: &str, longest: fn(char) -> usize) -> Vec<(char, usize)> {
    let mut parts: Vec<(char, usize)> = Vec::new();
    for c in format.chars() {
        match parts.last_mut() {
            Some((last, count)) if *last == c && *count < longest(c) => *count += 1,
            _ => parts.push((c, 1)),
        }
    }
    parts
}

fn format_datetime(ticks: i64, format: &str) -> String {
    let longest = |c| match c {
        'y' => 4,
        'd' | 'M' | 'h' | 'H' | 'm' | 's' | 't' => 2,
        'f' | 'F' => 7,
        _ => 1,
    };
    let time = civil_from_ticks(ticks);
    specifiers(format, longest).into_iter().map(|(c, count)| datetime_specifier(&time, c, count)).collect()
}

fn datetime_specifier(t: &CivilTime, c: char, count: usize) -> String {
    let padded = |value: i64| format!("{value:0count$}");
    match c {
        'y' if count > 2 => format!("{:04}", t.year),
        'y' => format!("{:02}", t.year % 100),
        'M' => padded(t.month),
        'd' => padded(t.day),
        'H' => padded(t.hour),
        'h' => padded(if t.hour % 12 == 0 { 12 } else { t.hour % 12 }),
        'm' => padded(t.minute),
        's' => padded(t.second),
        't' => (if t.hour < 12 { "AM" } else { "PM" })[..count].to_owned(),
        'f' => format!("{:07}", t.fraction)[..count].to_owned(),
        'F' => format!("{:07}", t.fraction)[..count].trim_end_matches('0').to_owned(),
        other => other.to_string(),
    }
}

fn format_timespan(ticks: i64, format: &str) -> String {
    let longest = |c| match c {
        'd' => 8,
        'h' | 'H' | 'm' | 's' => 2,
        'f' | 'F' => 7,
        _ => 1,
    };
    let magnitude = ticks.unsigned_abs();
    let days = magnitude / TICKS_PER_DAY.unsigned_abs();
    let seconds = magnitude / TICKS_PER_SECOND.unsigned_abs() % 86_400;
    let fraction = format!("{:07}", magnitude % TICKS_PER_SECOND.unsigned_abs());
    let mut out = String::from(if ticks < 0 { "-" } else { "" });
    for (c, count) in specifiers(format, longest) {
        let padded = |value: u64| format!("{value:0count$}");
        match c {
            'd' => out.push_str(&padded(days)),
            'h' | 'H' => out.push_str(&padded(seconds / 3600)),
            'm' => out.push_str(&padded(seconds / 60 % 60)),
            's' => out.push_str(&padded(seconds % 60)),
            'f' => out.push_str(&fraction[..count]),
            'F' => out.push_str(fraction[..count].trim_end_matches('0')),
            other => out.push(other),
        }
    }
    out
}
