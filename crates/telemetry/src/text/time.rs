//! Timestamps as RFC 3339 in UTC, with as many fractional digits as they need.

const DAY: i64 = 86_400;

/// Writes the instant `nanos` after `seconds` since 1970, e.g. `2023-11-14T22:13:20.123Z`.
pub fn timestamp(out: &mut Vec<u8>, seconds: i64, nanos: u32) {
    let (year, month, day) = civil(seconds.div_euclid(DAY));
    let second = seconds.rem_euclid(DAY) as u32;
    if (0..=9999).contains(&year) {
        let year = year as u32;
        two_digits(out, year / 100);
        two_digits(out, year % 100);
    } else {
        super::integer(out, year);
    }
    for (before, number) in [(b'-', month), (b'-', day), (b'T', second / 3600), (b':', second / 60 % 60), (b':', second % 60)] {
        out.push(before);
        two_digits(out, number);
    }
    fraction(out, nanos);
    out.push(b'Z');
}

fn two_digits(out: &mut Vec<u8>, number: u32) {
    out.extend_from_slice(&[b'0' + (number / 10) as u8, b'0' + (number % 10) as u8]);
}

fn fraction(out: &mut Vec<u8>, mut nanos: u32) {
    if nanos == 0 {
        return;
    }
    let mut digits = *b".000000000";
    for digit in digits[1..].iter_mut().rev() {
        *digit = b'0' + (nanos % 10) as u8;
        nanos /= 10;
    }
    let end = digits.iter().rposition(|&digit| digit != b'0').map_or(0, |last| last + 1);
    out.extend_from_slice(&digits[..end]);
}

/// Year, month and day of a day number since 1970-01-01 in the proleptic Gregorian calendar (Hinnant's
/// days-to-civil algorithm: years begin in March, 400 years are 146 097 days).
fn civil(days: i64) -> (i64, u32, u32) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097) as u32;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (i64::from(year_of_era) + era * 400 + i64::from(month <= 2), month, day)
}

/// Timestamps in milliseconds, remembering the last one: the samples of a scrape share theirs.
#[derive(Debug, Default)]
pub(crate) struct TimestampText {
    last: Option<i64>,
    text: Vec<u8>,
}

impl TimestampText {
    /// Writes milliseconds since 1970.
    #[inline]
    pub(crate) fn write_ms(&mut self, out: &mut Vec<u8>, ms: i64) {
        if self.last != Some(ms) {
            self.text.clear();
            timestamp(&mut self.text, ms.div_euclid(1000), ms.rem_euclid(1000) as u32 * 1_000_000);
            self.last = Some(ms);
        }
        out.extend_from_slice(&self.text);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn text(seconds: i64, nanos: u32) -> String {
        let mut out = Vec::new();
        timestamp(&mut out, seconds, nanos);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn known_instants() {
        assert_eq!(text(0, 0), "1970-01-01T00:00:00Z");
        assert_eq!(text(951_782_400, 0), "2000-02-29T00:00:00Z");
        assert_eq!(text(1_700_000_000, 120_000_000), "2023-11-14T22:13:20.12Z");
        assert_eq!(text(-1, 999_000_000), "1969-12-31T23:59:59.999Z");
        assert_eq!(text(253_402_300_800, 0), "10000-01-01T00:00:00Z");
    }

    proptest! {
        /// Consecutive days differ by one day of a calendar counted naively.
        #[test]
        fn the_calendar_steps_by_one_day(day in -700_000i64..2_900_000) {
            let (year, month, of_month) = civil(day);
            let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
            let length = match month { 2 => 28 + u32::from(leap), 4 | 6 | 9 | 11 => 30, _ => 31 };
            let expected = if of_month < length { (year, month, of_month + 1) }
                else if month < 12 { (year, month + 1, 1) } else { (year + 1, 1, 1) };
            prop_assert_eq!(civil(day + 1), expected);
        }

        #[test]
        fn any_millisecond_has_a_text(ms in any::<i64>()) {
            let mut out = Vec::new();
            TimestampText::default().write_ms(&mut out, ms);
            prop_assert!(out.ends_with(b"Z"));
        }
    }
}
