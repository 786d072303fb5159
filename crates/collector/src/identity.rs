//! Who this collector is, inside Kubernetes: namespace and pod from its service-account token, the
//! container from the name of its program. They travel as `adxmon_*` labels of received metrics.

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

const TOKEN_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// The labels that name this collector; none outside Kubernetes.
pub(crate) fn labels() -> BTreeMap<String, String> {
    let Ok(token) = std::fs::read_to_string(TOKEN_FILE) else { return BTreeMap::new() };
    let program = std::env::args().next().unwrap_or_default();
    let container = Path::new(&program).file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    match claims(token.trim()) {
        Some((namespace, pod)) => BTreeMap::from([
            ("adxmon_namespace".to_owned(), namespace),
            ("adxmon_pod".to_owned(), pod),
            ("adxmon_container".to_owned(), container),
        ]),
        None => {
            tracing::warn!(file = TOKEN_FILE, "the service-account token names no pod; adxmon_* labels are not added");
            BTreeMap::new()
        }
    }
}

/// Namespace and pod of a Kubernetes service-account token. The signature is not checked: the token
/// is our own.
fn claims(token: &str) -> Option<(String, String)> {
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?.trim_end_matches('=')).ok()?;
    let claims: Value = serde_json::from_slice(&payload).ok()?;
    let kubernetes = claims.get("kubernetes.io")?;
    let namespace = kubernetes.get("namespace")?.as_str()?;
    let pod = kubernetes.get("pod")?.get("name")?.as_str()?;
    Some((namespace.to_owned(), pod.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_claims_of_a_token_are_read() {
        let payload = r#"{"iss":"x","kubernetes.io":{"namespace":"adx-mon","pod":{"name":"collector-7","uid":"u"}}}"#;
        let token = format!("h.{}.s", URL_SAFE_NO_PAD.encode(payload));
        assert_eq!(claims(&token), Some(("adx-mon".to_owned(), "collector-7".to_owned())));
    }

    #[test]
    fn a_malformed_token_names_nobody() {
        for token in ["", "a", "a.!!.c", "a.e30.c", "a.bnVsbA.c"] {
            assert_eq!(claims(token), None, "{token}");
        }
    }
}
