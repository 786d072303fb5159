//! Datetimes and timespans: text, calendar fields and ticks. Ticks count 100 ns from 0001-01-01T00:00:00Z.

use super::{TICKS_PER_DAY, TICKS_PER_SECOND};

/// Ticks of 9999-12-31T23:59:59.9999999Z, the last datetime.
pub const MAX_DATETIME_TICKS: i64 = 3_155_378_975_999_999_999;
/// Days from 0001-01-01 to 1970-01-01.
const UNIX_EPOCH_DAYS: i64 = 719_162;

/// Calendar fields of a datetime in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CivilTime {
    /// 1 to 9999
    pub year: i64,
    /// 1 to 12
    pub month: i64,
    /// 1 to 31
    pub day: i64,
    /// 0 to 23
    pub hour: i64,
    /// 0 to 59
    pub minute: i64,
    /// 0 to 59
    pub second: i64,
    /// 100 ns within the second
    pub fraction: i64,
}

/// Days in a month of a year.
pub fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days from 0001-01-01 of a date of the proleptic Gregorian calendar (Hinnant's days_from_civil).
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468 + UNIX_EPOCH_DAYS
}

/// The date of a day counted from 0001-01-01 (Hinnant's civil_from_days).
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days - UNIX_EPOCH_DAYS + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

/// Calendar fields of ticks.
pub fn civil_from_ticks(ticks: i64) -> CivilTime {
    let (year, month, day) = civil_from_days(ticks.div_euclid(TICKS_PER_DAY));
    let rest = ticks.rem_euclid(TICKS_PER_DAY);
    let seconds = rest / TICKS_PER_SECOND;
    CivilTime { year, month, day, hour: seconds / 3600, minute: seconds / 60 % 60, second: seconds % 60, fraction: rest % TICKS_PER_SECOND }
}

/// Ticks of calendar fields; None when a field is out of its range.
pub fn ticks_from_civil(time: &CivilTime) -> Option<i64> {
    let valid = (1..=9999).contains(&time.year)
        && (1..=12).contains(&time.month)
        && (1..=days_in_month(time.year, time.month)).contains(&time.day)
        && (0..24).contains(&time.hour)
        && (0..60).contains(&time.minute)
        && (0..60).contains(&time.second)
        && (0..TICKS_PER_SECOND).contains(&time.fraction);
    valid.then(|| {
        days_from_civil(time.year, time.month, time.day) * TICKS_PER_DAY
            + (time.hour * 3600 + time.minute * 60 + time.second) * TICKS_PER_SECOND
            + time.fraction
    })
}

/// `2020-01-02T03:04:05.1234567Z`
pub fn format_datetime(ticks: i64) -> String {
    let t = civil_from_ticks(ticks);
    format!("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:07}Z", t.year, t.month, t.day, t.hour, t.minute, t.second, t.fraction)
}

/// `[-][d.]hh:mm:ss[.fffffff]`
pub fn format_timespan(ticks: i64) -> String {
    let magnitude = ticks.unsigned_abs();
    let per_day = TICKS_PER_DAY.unsigned_abs();
    let per_second = TICKS_PER_SECOND.unsigned_abs();
    let (days, rest) = (magnitude / per_day, magnitude % per_day);
    let (seconds, fraction) = (rest / per_second, rest % per_second);
    let mut text = String::new();
    if ticks < 0 {
        text.push('-');
    }
    if days > 0 {
        text.push_str(&format!("{days}."));
    }
    text.push_str(&format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60));
    if fraction > 0 {
        text.push_str(&format!(".{fraction:07}"));
    }
    text
}

/// A timespan out of `[-][d.]hh:mm[:ss[.fffffff]]`, a whole number of days, or a number with a unit (`1.5h`, `10 ms`).
pub fn parse_timespan(text: &str) -> Option<i64> {
    let text = text.trim();
    let (negative, body) = match text.strip_prefix('-') {
        Some(body) => (true, body),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let ticks = if body.contains(':') { parse_clock(body)? } else { parse_with_unit(body)? };
    if negative { ticks.checked_neg() } else { Some(ticks) }
}

fn parse_clock(body: &str) -> Option<i64> {
    let mut parts = body.split(':');
    let first = parts.next()?;
    let (days, hours) = match first.split_once('.') {
        Some((days, hours)) => (digits(days)?, digits(hours)?),
        None => (0, digits(first)?),
    };
    let minutes = digits(parts.next()?)?;
    let (seconds, fraction) = match parts.next() {
        None => (0, 0),
        Some(text) => match text.split_once('.') {
            Some((seconds, fraction)) => (digits(seconds)?, fraction_ticks(fraction)?),
            None => (digits(text)?, 0),
        },
    };
    if parts.next().is_some() || hours > 23 || minutes > 59 || seconds > 59 || days > 10_675_199 {
        return None;
    }
    let clock = (hours * 3600 + minutes * 60 + seconds) * TICKS_PER_SECOND + fraction;
    days.checked_mul(TICKS_PER_DAY)?.checked_add(clock)
}

fn parse_with_unit(body: &str) -> Option<i64> {
    let end = body.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(body.len());
    let (number, unit) = (&body[..end], body[end..].trim());
    if unit.is_empty() {
        return digits(number)?.checked_mul(TICKS_PER_DAY);
    }
    let scale = match unit.to_ascii_lowercase().as_str() {
        "d" | "day" | "days" => TICKS_PER_DAY,
        "h" | "hr" | "hrs" | "hour" | "hours" => 3600 * TICKS_PER_SECOND,
        "m" | "min" | "mins" | "minute" | "minutes" => 60 * TICKS_PER_SECOND,
        "s" | "sec" | "secs" | "second" | "seconds" => TICKS_PER_SECOND,
        "ms" | "milli" | "millis" | "millisec" | "millisecond" | "milliseconds" => TICKS_PER_SECOND / 1000,
        "micro" | "micros" | "microsec" | "microsecond" | "microseconds" => TICKS_PER_SECOND / 1_000_000,
        "tick" | "ticks" => 1,
        _ => return None,
    };
    if let Ok(whole) = number.parse::<i64>() {
        return whole.checked_mul(scale);
    }
    let ticks = number.parse::<f64>().ok()? * scale as f64;
    (ticks.abs() < 9.2e18).then(|| ticks.round() as i64)
}

/// A datetime out of text: ISO 8601 and its looser relatives, month first with slashes or hyphens, RFC 822 and 850.
pub fn parse_datetime(text: &str) -> Option<i64> {
    let text = text.trim();
    if text.len() > 64 || text.is_empty() || !text.is_ascii() {
        return None;
    }
    parse_numeric_datetime(text).or_else(|| parse_named_month(text))
}

fn parse_numeric_datetime(text: &str) -> Option<i64> {
    let split = text.find(['T', 't', ' ']);
    let (date, time) = match split {
        Some(at) => (&text[..at], text[at + 1..].trim()),
        None => (text.strip_suffix(['Z', 'z']).unwrap_or(text), ""),
    };
    let (year, month, day) = parse_date(date)?;
    let (clock, offset) = parse_time_of_day(time)?;
    let midnight = CivilTime { year, month, day, hour: 0, minute: 0, second: 0, fraction: 0 };
    in_range(ticks_from_civil(&midnight)?.checked_add(clock)?.checked_sub(offset)?)
}

fn in_range(ticks: i64) -> Option<i64> {
    (0..=MAX_DATETIME_TICKS).contains(&ticks).then_some(ticks)
}

fn parse_date(date: &str) -> Option<(i64, i64, i64)> {
    let parts: Vec<&str> = date.split(['-', '/', '.']).collect();
    match parts[..] {
        [compact] if compact.len() == 8 => Some((digits(&date[..4])?, digits(&date[4..6])?, digits(&date[6..])?)),
        [compact] if compact.len() == 6 => Some((digits(&date[..4])?, digits(&date[4..])?, 1)),
        [year, month] if year.len() == 4 => Some((digits(year)?, digits(month)?, 1)),
        [year, month, day] if year.len() == 4 => Some((digits(year)?, digits(month)?, digits(day)?)),
        [month, day, year] if year.len() == 4 && !date.contains('.') => Some((digits(year)?, digits(month)?, digits(day)?)),
        _ => None,
    }
}

/// `hh[:mm[:ss[.fffffff]]]` with `AM`/`PM` and a zone; gives (ticks of the day, ticks of the zone's offset).
fn parse_time_of_day(text: &str) -> Option<(i64, i64)> {
    if text.is_empty() {
        return Some((0, 0));
    }
    let (clock, offset) = split_zone(text)?;
    let lower = clock.to_ascii_lowercase();
    let (clock, half) = match lower.strip_suffix("am") {
        Some(rest) => (rest.trim_end(), Some(0)),
        None => match lower.strip_suffix("pm") {
            Some(rest) => (rest.trim_end(), Some(12)),
            None => (lower.as_str(), None),
        },
    };
    let (whole, fraction) = match clock.split_once('.') {
        Some((whole, fraction)) => (whole, fraction_ticks(fraction)?),
        None => (clock, 0),
    };
    let parts: Vec<&str> = whole.split(':').collect();
    let (mut hour, minute, second) = match parts[..] {
        [compact] if compact.len() == 6 => (digits(&compact[..2])?, digits(&compact[2..4])?, digits(&compact[4..])?),
        [compact] if compact.len() == 4 => (digits(&compact[..2])?, digits(&compact[2..])?, 0),
        [hour] if half.is_some() || hour.len() == 2 => (digits(hour)?, 0, 0),
        [hour, minute] => (digits(hour)?, digits(minute)?, 0),
        [hour, minute, second] => (digits(hour)?, digits(minute)?, digits(second)?),
        _ => return None,
    };
    if let Some(half) = half {
        if !(1..=12).contains(&hour) {
            return None;
        }
        hour = hour % 12 + half;
    }
    // 24:00:00 is the next midnight.
    if hour > 24 || minute > 59 || second > 59 || (hour == 24 && (minute, second, fraction) != (0, 0, 0)) {
        return None;
    }
    Some(((hour * 3600 + minute * 60 + second) * TICKS_PER_SECOND + fraction, offset))
}

/// Cuts `Z`, `UTC`, `GMT` or `+hh:mm` off the end.
fn split_zone(text: &str) -> Option<(&str, i64)> {
    for zone in ["Z", "z", "UTC", "GMT"] {
        if let Some(rest) = text.strip_suffix(zone) {
            return Some((rest.trim_end(), 0));
        }
    }
    let Some(at) = text.rfind(['+', '-']) else {
        return Some((text, 0));
    };
    let zone = &text[at + 1..];
    let (hours, minutes) = match zone.split_once(':') {
        Some((hours, minutes)) => (digits(hours)?, digits(minutes)?),
        None if zone.len() == 4 => (digits(&zone[..2])?, digits(&zone[2..])?),
        None => (digits(zone)?, 0),
    };
    if hours > 14 || minutes > 59 {
        return None;
    }
    let offset = (hours * 60 + minutes) * 60 * TICKS_PER_SECOND;
    Some((text[..at].trim_end(), if text.as_bytes()[at] == b'-' { -offset } else { offset }))
}

/// `[Sat, ]08 Nov 14 15:05:02 GMT`, `Saturday, 08-Nov-14 15:05:02 UTC`, `08 Nov 2014`.
fn parse_named_month(text: &str) -> Option<i64> {
    let text = text.split_once(',').map_or(text, |(_, rest)| rest).trim();
    let mut fields = text.splitn(4, [' ', '-']);
    let day = digits(fields.next()?)?;
    let name = fields.next()?.to_ascii_lowercase();
    let year_text = fields.next()?;
    const MONTHS: [&str; 12] =
        ["january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november", "december"];
    let month = MONTHS.iter().position(|month| name.len() >= 3 && (month[..3] == name || **month == name))? as i64 + 1;
    let year = match (year_text.len(), digits(year_text)?) {
        (2, short) if short < 50 => 2000 + short,
        (2, short) => 1900 + short,
        (4, year) => year,
        _ => return None,
    };
    let (clock, offset) = parse_time_of_day(fields.next().unwrap_or("").trim())?;
    let midnight = CivilTime { year, month, day, hour: 0, minute: 0, second: 0, fraction: 0 };
    in_range(ticks_from_civil(&midnight)?.checked_add(clock)?.checked_sub(offset)?)
}

/// A run of one to nine digits.
fn digits(text: &str) -> Option<i64> {
    let valid = !text.is_empty() && text.len() <= 9 && text.bytes().all(|b| b.is_ascii_digit());
    valid.then(|| text.parse().ok())?
}

/// Ticks of the digits behind a decimal point; those beyond the seventh are cut.
fn fraction_ticks(text: &str) -> Option<i64> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let kept = &text[..text.len().min(7)];
    Some(kept.parse::<i64>().ok()? * 10_i64.pow(7 - kept.len() as u32))
}
