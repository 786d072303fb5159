//! Names of metrics, from names that people give to columns.

/// A name of which nothing is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("has no ASCII letter or digit, so no metric name can be made of it")]
pub struct NameError;

/// The metric name of several parts: each in snake case, joined with `_`.
///
/// ```
/// use adxexporter::transform::metric_name;
/// assert_eq!(metric_name(&["HTTP Server", "CPUUtil%"]).unwrap(), "http_server_cpu_util");
/// assert_eq!(metric_name(&["5xx", "value"]).unwrap(), "_5xx_value");
/// ```
///
/// # Errors
/// When a part has neither an ASCII letter nor a digit.
pub fn metric_name(parts: &[&str]) -> Result<String, NameError> {
    let parts: Vec<String> = parts.iter().map(|part| snake_case(part)).collect();
    if parts.iter().any(String::is_empty) {
        return Err(NameError);
    }
    let name = parts.join("_");
    // Prometheus takes no name that starts with a digit.
    Ok(if name.starts_with(|c: char| c.is_ascii_digit()) { format!("_{name}") } else { name })
}

/// Words are split before a capital that follows a lower-case letter or a digit, and before the last
/// of several capitals when a lower-case letter follows; everything that is not an ASCII letter or
/// digit becomes `_`, of which one is kept between words and none at the ends.
fn snake_case(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len() + 8);
    for (at, &c) in chars.iter().enumerate() {
        let before = at.checked_sub(1).map(|before| chars[before]);
        let after = chars.get(at + 1).copied();
        if c.is_ascii_uppercase() && starts_word(before, after) {
            out.push('_');
        }
        out.push(if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' });
    }
    out.split('_').filter(|word| !word.is_empty()).collect::<Vec<_>>().join("_")
}

fn starts_word(before: Option<char>, after: Option<char>) -> bool {
    match before {
        Some(c) if c.is_ascii_lowercase() || c.is_ascii_digit() => true,
        Some(c) if c.is_ascii_uppercase() => after.is_some_and(|c| c.is_ascii_lowercase()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// What Prometheus' data model asks of a metric's name, without the colon.
        #[test]
        fn every_name_is_one_that_prometheus_takes(parts in prop::collection::vec("\\PC{0,12}|[A-Za-z0-9_%]{0,8}", 1..4)) {
            let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
            if let Ok(name) = metric_name(&parts) {
                let mut chars = name.chars();
                prop_assert!(chars.next().is_some_and(|c| c.is_ascii_lowercase() || c == '_'), "{}", name);
                prop_assert!(chars.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'), "{}", name);
                prop_assert_eq!(metric_name(&[&name]).unwrap_or_default(), name);
            }
        }
    }
}
