//! Calendar functions: parts, starts and ends of periods, differences, conversion from Unix time and time zones.

use super::Function;
use super::operators::datetime as checked_datetime;
use super::signature::{Arg, DATETIME, LONG, Param, REAL, Resolved, STR, constant_text, fixed, optional};
use crate::types::Type;
use crate::value::{
    CivilTime, TICKS_PER_DAY, TICKS_PER_SECOND, UNIX_EPOCH_TICKS, Value, civil_from_ticks, days_in_month, ticks_from_civil,
};

pub(super) static FUNCTIONS: &[Function] = &[
    Function::new("startofday", resolve_period, |_, a| start(a, Period::Day)),
    Function::new("startofweek", resolve_period, |_, a| start(a, Period::Week)),
    Function::new("startofmonth", resolve_period, |_, a| start(a, Period::Month)),
    Function::new("startofyear", resolve_period, |_, a| start(a, Period::Year)),
    Function::new("endofday", resolve_period, |_, a| end(a, Period::Day)),
    Function::new("endofweek", resolve_period, |_, a| end(a, Period::Week)),
    Function::new("endofmonth", resolve_period, |_, a| end(a, Period::Month)),
    Function::new("endofyear", resolve_period, |_, a| end(a, Period::Year)),
    Function::new(
        "dayofweek",
        |a| fixed(a, &[DATETIME], Type::TimeSpan),
        |_, a| {
            on(&a[0], |ticks| match start_ticks(ticks, Period::Week, 1) {
                // Kusto has no answer in the last week, which the year 9999 cuts short.
                Some(next) if next > crate::value::MAX_DATETIME_TICKS => Value::Null,
                _ => Value::TimeSpan(day_of_week(ticks) * TICKS_PER_DAY),
            })
        },
    ),
    Function::new("dayofmonth", part_type, |_, a| part_of(&a[0], |t| t.day)),
    Function::new("dayofyear", part_type, |_, a| on(&a[0], |ticks| Value::Long(day_of_year(ticks)))),
    Function::new("hourofday", part_type, |_, a| part_of(&a[0], |t| t.hour)),
    Function::new("getmonth", part_type, |_, a| part_of(&a[0], |t| t.month)).alias(&["monthofyear"]),
    Function::new("getyear", part_type, |_, a| part_of(&a[0], |t| t.year)),
    Function::new("week_of_year", part_type, |_, a| on(&a[0], |ticks| Value::Long(iso_week(ticks)))).alias(&["weekofyear"]),
    Function::new("datetime_part", |a| fixed(a, &[STR, DATETIME], Type::Long), |_, a| datetime_part(a)),
    Function::new("datetime_add", |a| fixed(a, &[STR, LONG, DATETIME], Type::DateTime), |_, a| datetime_add(a)),
    Function::new("datetime_diff", resolve_diff, |_, a| datetime_diff(a)),
    Function::new("make_datetime", resolve_make_datetime, |_, a| make_datetime(a)),
    Function::new("make_timespan", resolve_make_timespan, |_, a| make_timespan(a)),
    Function::new("unixtime_seconds_todatetime", resolve_unix, |_, a| from_unix(&a[0], TICKS_PER_SECOND as f64)),
    Function::new("unixtime_milliseconds_todatetime", resolve_unix, |_, a| from_unix(&a[0], 10_000.0)),
    Function::new("unixtime_microseconds_todatetime", resolve_unix, |_, a| from_unix(&a[0], 10.0)),
    Function::new("unixtime_nanoseconds_todatetime", resolve_unix, |_, a| from_unix(&a[0], 0.01)),
    Function::new("datetime_utc_to_local", resolve_zone, |_, a| to_local(a)),
    Function::new("datetime_local_to_utc", resolve_zone, |_, a| to_utc(a)),
];

#[derive(Clone, Copy)]
enum Period {
    Day,
    Week,
    Month,
    Year,
}

fn resolve_period(args: &[Arg<'_>]) -> Result<Resolved, String> {
    optional(args, &[DATETIME, LONG], 1, Type::DateTime)
}

fn part_type(args: &[Arg<'_>]) -> Result<Resolved, String> {
    fixed(args, &[DATETIME], Type::Long)
}

fn resolve_unix(args: &[Arg<'_>]) -> Result<Resolved, String> {
    fixed(args, &[Param::Number], Type::DateTime)
}

fn resolve_zone(args: &[Arg<'_>]) -> Result<Resolved, String> {
    if let Some(zone) = constant_text(args, 1) {
        jiff::tz::TimeZone::get(zone).map_err(|_| format!("argument 2: unknown time zone {zone:?}"))?;
    }
    fixed(args, &[DATETIME, STR], Type::DateTime)
}

fn on(value: &Value, compute: impl FnOnce(i64) -> Value) -> Value {
    match value {
        Value::DateTime(ticks) => compute(*ticks),
        _ => Value::Null,
    }
}

fn part_of(value: &Value, part: fn(&CivilTime) -> i64) -> Value {
    on(value, |ticks| Value::Long(part(&civil_from_ticks(ticks))))
}

/// Days since Sunday.
fn day_of_week(ticks: i64) -> i64 {
    // 0001-01-01 was a Monday.
    (ticks.div_euclid(TICKS_PER_DAY) + 1).rem_euclid(7)
}

fn day_of_year(ticks: i64) -> i64 {
    let time = civil_from_ticks(ticks);
    (1..time.month).map(|month| days_in_month(time.year, month)).sum::<i64>() + time.day
}

/// Week of the year by ISO 8601.
fn iso_week(ticks: i64) -> i64 {
    let weekday = (day_of_week(ticks) + 6) % 7;
    // The week belongs to the year of its Thursday.
    let thursday = ticks + (3 - weekday) * TICKS_PER_DAY;
    (day_of_year(thursday.max(0)) - 1) / 7 + 1
}

fn midnight(year: i64, month: i64, day: i64) -> Option<i64> {
    ticks_from_civil(&CivilTime { year, month, day, hour: 0, minute: 0, second: 0, fraction: 0 })
}

/// First tick of the period that is `offset` periods away from the one of `ticks`.
fn start_ticks(ticks: i64, period: Period, offset: i64) -> Option<i64> {
    let day = ticks - ticks.rem_euclid(TICKS_PER_DAY);
    let time = civil_from_ticks(ticks);
    match period {
        Period::Day => day.checked_add(offset.checked_mul(TICKS_PER_DAY)?),
        Period::Week => (day - day_of_week(ticks) * TICKS_PER_DAY).checked_add(offset.checked_mul(7 * TICKS_PER_DAY)?),
        Period::Month => {
            let months = (time.year * 12 + time.month - 1).checked_add(offset)?;
            midnight(months.div_euclid(12), months.rem_euclid(12) + 1, 1)
        }
        Period::Year => midnight(time.year.checked_add(offset)?, 1, 1),
    }
}

fn offset(args: &[Value]) -> Option<i64> {
    args.get(1).map_or(Some(0), Value::as_long)
}

fn start(args: &[Value], period: Period) -> Value {
    on(&args[0], |ticks| checked_datetime(offset(args).and_then(|offset| start_ticks(ticks, period, offset))))
}

fn end(args: &[Value], period: Period) -> Value {
    on(&args[0], |ticks| {
        let next = offset(args).and_then(|offset| offset.checked_add(1));
        let next = next.and_then(|next| start_ticks(ticks, period, next));
        // Behind the year 9999 there is no next period.
        let last_year = civil_from_ticks(ticks).year == 9999 && offset(args) == Some(0);
        match next {
            Some(next) if !(last_year && next > crate::value::MAX_DATETIME_TICKS) => checked_datetime(Some(next - 1)),
            _ if last_year => Value::DateTime(crate::value::MAX_DATETIME_TICKS),
            _ => Value::Null,
        }
    })
}

/// A unit of `datetime_part`, `datetime_add` and `datetime_diff`.
#[derive(Clone, Copy, PartialEq)]
enum Unit {
    Year,
    Quarter,
    Month,
    Week,
    DayOfYear,
    Fixed(i64),
    Nanosecond,
}

fn unit(name: &str) -> Option<Unit> {
    Some(match name.to_ascii_lowercase().as_str() {
        "year" => Unit::Year,
        "quarter" => Unit::Quarter,
        "month" => Unit::Month,
        "week" | "weekofyear" | "week_of_year" => Unit::Week,
        "dayofyear" => Unit::DayOfYear,
        "day" => Unit::Fixed(TICKS_PER_DAY),
        "hour" => Unit::Fixed(3600 * TICKS_PER_SECOND),
        "minute" => Unit::Fixed(60 * TICKS_PER_SECOND),
        "second" => Unit::Fixed(TICKS_PER_SECOND),
        "millisecond" => Unit::Fixed(TICKS_PER_SECOND / 1000),
        "microsecond" => Unit::Fixed(TICKS_PER_SECOND / 1_000_000),
        "nanosecond" => Unit::Nanosecond,
        _ => return None,
    })
}

fn unit_of(value: &Value) -> Option<Unit> {
    unit(value.as_str()?)
}

fn datetime_part(args: &[Value]) -> Value {
    let (Some(unit), Value::DateTime(ticks)) = (unit_of(&args[0]), &args[1]) else {
        return Value::Null;
    };
    let time = civil_from_ticks(*ticks);
    let second = TICKS_PER_SECOND;
    Value::Long(match unit {
        Unit::Year => time.year,
        Unit::Quarter => (time.month - 1) / 3 + 1,
        Unit::Month => time.month,
        Unit::Week => iso_week(*ticks),
        Unit::DayOfYear => day_of_year(*ticks),
        Unit::Fixed(TICKS_PER_DAY) => time.day,
        Unit::Fixed(size) if size == 3600 * second => time.hour,
        Unit::Fixed(size) if size == 60 * second => time.minute,
        Unit::Fixed(size) if size == second => time.second,
        Unit::Fixed(size) => time.fraction / size,
        Unit::Nanosecond => time.fraction * 100,
    })
}

fn datetime_add(args: &[Value]) -> Value {
    let (Some(unit), Some(amount), Value::DateTime(ticks)) = (unit_of(&args[0]), args[1].as_long(), &args[2]) else {
        return Value::Null;
    };
    let months = |months: Option<i64>| add_months(*ticks, months?);
    checked_datetime(match unit {
        Unit::Year => months(amount.checked_mul(12)),
        Unit::Quarter => months(amount.checked_mul(3)),
        Unit::Month => months(Some(amount)),
        Unit::Week => amount.checked_mul(7 * TICKS_PER_DAY).and_then(|d| ticks.checked_add(d)),
        Unit::Fixed(size) => amount.checked_mul(size).and_then(|d| ticks.checked_add(d)),
        Unit::Nanosecond => ticks.checked_add(amount / 100),
        Unit::DayOfYear => None,
    })
}

/// Moves by months; a day that the month does not have becomes its last.
fn add_months(ticks: i64, months: i64) -> Option<i64> {
    let mut time = civil_from_ticks(ticks);
    let total = (time.year * 12 + time.month - 1).checked_add(months)?;
    time.year = total.div_euclid(12);
    time.month = total.rem_euclid(12) + 1;
    if !(1..=9999).contains(&time.year) {
        return None;
    }
    time.day = time.day.min(days_in_month(time.year, time.month));
    ticks_from_civil(&time)
}

/// Differences in weeks are real, all others long.
fn resolve_diff(args: &[Arg<'_>]) -> Result<Resolved, String> {
    let week = match constant_text(args, 0) {
        Some(name) => match unit(name) {
            None | Some(Unit::DayOfYear) => return Err(format!("argument 1: unknown period {name:?}")),
            Some(unit) => unit == Unit::Week,
        },
        None => false,
    };
    fixed(args, &[STR, DATETIME, DATETIME], if week { Type::Real } else { Type::Long })
}

/// Boundaries of the unit between two datetimes.
fn datetime_diff(args: &[Value]) -> Value {
    let (Some(unit), Value::DateTime(a), Value::DateTime(b)) = (unit_of(&args[0]), &args[1], &args[2]) else {
        return Value::Null;
    };
    let (x, y) = (civil_from_ticks(*a), civil_from_ticks(*b));
    let quarter = |t: &CivilTime| t.year * 4 + (t.month - 1) / 3;
    Value::Long(match unit {
        Unit::Year => x.year - y.year,
        Unit::Quarter => quarter(&x) - quarter(&y),
        Unit::Month => (x.year * 12 + x.month) - (y.year * 12 + y.month),
        Unit::Week => {
            let week = |ticks: i64| (ticks.div_euclid(TICKS_PER_DAY) + 1).div_euclid(7);
            return Value::Real((week(*a) - week(*b)) as f64);
        }
        Unit::Fixed(size) => a.div_euclid(size) - b.div_euclid(size),
        Unit::Nanosecond => match (a - b).checked_mul(100) {
            Some(nanoseconds) => nanoseconds,
            None => return Value::Null,
        },
        Unit::DayOfYear => return Value::Null,
    })
}

fn resolve_make_datetime(args: &[Arg<'_>]) -> Result<Resolved, String> {
    if !matches!(args.len(), 1 | 3 | 5 | 6) {
        return Err(format!("expected 3, 5 or 6 arguments, got {}", args.len()));
    }
    if args.len() == 1 {
        return fixed(args, &[Param::Any], Type::DateTime);
    }
    fixed(args, &[LONG, LONG, LONG, LONG, LONG, REAL][..args.len()], Type::DateTime)
}

/// Seconds and their fraction in ticks.
fn second_ticks(value: Option<&Value>) -> Option<i64> {
    match value {
        None => Some(0),
        Some(Value::Real(seconds)) if (0.0..60.0).contains(seconds) => Some((seconds * TICKS_PER_SECOND as f64).round() as i64),
        _ => None,
    }
}

fn make_datetime(args: &[Value]) -> Value {
    if args.len() == 1 {
        return crate::value::to_datetime(&args[0]);
    }
    let number = |index: usize| args.get(index).map_or(Some(0), Value::as_long);
    let ticks = (|| {
        let time = CivilTime {
            year: number(0)?,
            month: number(1)?,
            day: number(2)?,
            hour: number(3)?,
            minute: number(4)?,
            second: 0,
            fraction: 0,
        };
        ticks_from_civil(&time)?.checked_add(second_ticks(args.get(5))?)
    })();
    checked_datetime(ticks)
}

fn resolve_make_timespan(args: &[Arg<'_>]) -> Result<Resolved, String> {
    match args.len() {
        1 => fixed(args, &[Param::Any], Type::TimeSpan),
        2 => fixed(args, &[LONG, LONG], Type::TimeSpan),
        3 => fixed(args, &[LONG, LONG, REAL], Type::TimeSpan),
        4 => fixed(args, &[LONG, LONG, LONG, REAL], Type::TimeSpan),
        count => Err(format!("expected 2 to 4 arguments, got {count}")),
    }
}

fn make_timespan(args: &[Value]) -> Value {
    if args.len() == 1 {
        return crate::value::to_timespan(&args[0]);
    }
    let ticks = (|| {
        let with_days = args.len() == 4;
        let days = if with_days { args[0].as_long()? } else { 0 };
        let (hours, minutes) = (args[usize::from(with_days)].as_long()?, args[usize::from(with_days) + 1].as_long()?);
        let seconds = second_ticks(args.get(usize::from(with_days) + 2))?;
        let valid = (0..24).contains(&hours) && (0..60).contains(&minutes) && (0..10_675_199).contains(&days);
        valid.then(|| days * TICKS_PER_DAY + (hours * 3600 + minutes * 60) * TICKS_PER_SECOND + seconds)
    })();
    ticks.map_or(Value::Null, Value::TimeSpan)
}

fn from_unix(value: &Value, scale: f64) -> Value {
    let ticks = match value {
        Value::Int(_) | Value::Long(_) => {
            let units = value.as_long().unwrap_or(0);
            if scale < 1.0 { Some(units / 100) } else { units.checked_mul(scale as i64) }
        }
        Value::Real(units) => {
            let ticks = units * scale;
            (ticks.abs() < 9e18).then_some(ticks as i64)
        }
        Value::Decimal(_) => return from_unix(&crate::value::to_real(value), scale),
        _ => None,
    };
    checked_datetime(ticks.and_then(|ticks| ticks.checked_add(UNIX_EPOCH_TICKS)))
}

fn zone(value: &Value) -> Option<jiff::tz::TimeZone> {
    jiff::tz::TimeZone::get(value.as_str()?).ok()
}

/// Offset in ticks of a zone at a UTC time.
fn to_local(args: &[Value]) -> Value {
    on(&args[0], |ticks| {
        let local = (|| {
            let seconds = (ticks - UNIX_EPOCH_TICKS).div_euclid(TICKS_PER_SECOND);
            let timestamp = jiff::Timestamp::from_second(seconds).ok()?;
            let offset = zone(&args[1])?.to_offset(timestamp).seconds();
            ticks.checked_add(i64::from(offset) * TICKS_PER_SECOND)
        })();
        checked_datetime(local)
    })
}

fn to_utc(args: &[Value]) -> Value {
    on(&args[0], |ticks| {
        let utc = (|| {
            let t = civil_from_ticks(ticks);
            let civil = jiff::civil::DateTime::new(
                i16::try_from(t.year).ok()?,
                i8::try_from(t.month).ok()?,
                i8::try_from(t.day).ok()?,
                i8::try_from(t.hour).ok()?,
                i8::try_from(t.minute).ok()?,
                i8::try_from(t.second).ok()?,
                0,
            )
            .ok()?;
            let timestamp = zone(&args[1])?.to_ambiguous_timestamp(civil).compatible().ok()?;
            let whole = timestamp.as_second().checked_mul(TICKS_PER_SECOND)?;
            whole.checked_add(UNIX_EPOCH_TICKS)?.checked_add(t.fraction)
        })();
        checked_datetime(utc)
    })
}
