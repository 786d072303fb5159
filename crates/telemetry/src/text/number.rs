//! Numbers in their shortest form that reads back as the same number.

/// Writes an integer.
#[inline]
pub fn integer(out: &mut Vec<u8>, value: i64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Writes a `real` field: `NaN`, `+Inf`, `-Inf`, or the shortest digits (`1`, `0.1`, `1e300`).
#[inline]
pub fn real(out: &mut Vec<u8>, value: f64) {
    if !value.is_finite() {
        out.extend_from_slice(special(value).as_bytes());
    } else if value == value.trunc() && value.abs() < 1e15 && !(value == 0.0 && value.is_sign_negative()) {
        integer(out, value as i64);
    } else {
        let mut buffer = ryu::Buffer::new();
        let digits = buffer.format_finite(value);
        out.extend_from_slice(digits.strip_suffix(".0").unwrap_or(digits).as_bytes());
    }
}

/// Writes a number as Go's shortest `%g` does, in which `le` and `quantile` of Go programs are written: `0.005`, `1e+06`.
pub fn go_float(out: &mut Vec<u8>, value: f64) {
    if !value.is_finite() || value == 0.0 {
        return real(out, value);
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    match exponent.parse::<i32>() {
        Ok(-4..6) => out.extend_from_slice(format!("{value}").as_bytes()),
        Ok(exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            out.extend_from_slice(format!("{digits}e{sign}{:02}", exponent.abs()).as_bytes());
        }
        Err(_) => out.extend_from_slice(scientific.as_bytes()),
    }
}

fn special(value: f64) -> &'static str {
    if value.is_nan() {
        "NaN"
    } else if value > 0.0 {
        "+Inf"
    } else {
        "-Inf"
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn text(value: f64) -> String {
        let mut out = Vec::new();
        real(&mut out, value);
        String::from_utf8(out).unwrap()
    }

    /// What Go prints for `strconv.FormatFloat(x, 'g', -1, 64)`, from its documentation and tests.
    #[test]
    fn numbers_as_go_writes_them() {
        for (value, expected) in [
            (0.0, "0"),
            (1.0, "1"),
            (-0.5, "-0.5"),
            (0.005, "0.005"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (100_000.0, "100000"),
            (123_456.5, "123456.5"),
            (1_000_000.0, "1e+06"),
            (123_456_789.0, "1.23456789e+08"),
            (5e-324, "5e-324"),
            (1e300, "1e+300"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
            (f64::NAN, "NaN"),
        ] {
            let mut out = Vec::new();
            go_float(&mut out, value);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }

    #[test]
    fn short_forms() {
        for (value, expected) in [
            (1.0, "1"),
            (0.0, "0"),
            (-0.0, "-0"),
            (0.1, "0.1"),
            (-1.5, "-1.5"),
            (1e300, "1e300"),
            (5e-324, "5e-324"),
            (1e15, "1000000000000000"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(text(value), expected);
        }
    }

    proptest! {
        #[test]
        fn reads_back_as_the_same_number(bits in any::<u64>()) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite());
            prop_assert_eq!(text(value).parse::<f64>().unwrap().to_bits(), bits);
        }

        #[test]
        fn whole_numbers_too(value in any::<i32>()) {
            prop_assert_eq!(text(f64::from(value)), value.to_string());
        }
    }
}
