//! Names of databases and tables as ADX-Mon has always derived them (ingestor spec §2): ASCII letters and digits only.

/// Longest name that normalisation returns, in bytes.
pub const MAX_NAME: usize = 1024;

/// Keeps the ASCII letters and digits of a database or log table name.
///
/// ```
/// assert_eq!(telemetry::names::normalize_id("kube-pod.name"), "kubepodname");
/// ```
pub fn normalize_id(name: impl AsRef<[u8]>) -> String {
    name.as_ref().iter().filter(|b| b.is_ascii_alphanumeric()).take(MAX_NAME).map(|&b| char::from(b)).collect()
}

/// Turns a metric name into a table name: like [`normalize_id`], but the first letter and each letter after a
/// removed byte become upper case.
///
/// ```
/// assert_eq!(telemetry::names::normalize_metric("http_requests_total"), "HttpRequestsTotal");
/// ```
pub fn normalize_metric(name: impl AsRef<[u8]>) -> String {
    let mut out = String::with_capacity(name.as_ref().len().min(MAX_NAME));
    let mut raise = true;
    for &byte in name.as_ref() {
        if !byte.is_ascii_alphanumeric() {
            raise = true;
            continue;
        }
        if out.len() == MAX_NAME {
            break;
        }
        let byte = if raise { byte.to_ascii_uppercase() } else { byte };
        out.push(char::from(byte));
        raise = false;
    }
    out
}
