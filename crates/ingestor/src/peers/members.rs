//! Who the ingestors of a cluster are.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;

/// Ingestors by name, with their addresses.
pub type Members = BTreeMap<String, String>;

/// With this annotation a pod is being drained: it takes nothing more.
pub(crate) const SHUTDOWN_REQUESTED: &str = "shutdown-requested";

/// The StatefulSet of a pod with this name, which is `<statefulset>-<n>`.
pub fn stateful_set(hostname: &str) -> Option<&str> {
    let (name, ordinal) = hostname.rsplit_once('-')?;
    let numbered = !ordinal.is_empty() && ordinal.bytes().all(|b| b.is_ascii_digit());
    (!name.is_empty() && numbered).then_some(name)
}

/// Name and address of a pod that takes segments: ready, of this StatefulSet, and not about to go.
pub fn member(pod: &Pod, stateful_set: &str, port: u16) -> Option<(String, String)> {
    let owned =
        |owner: &k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference| owner.kind == "StatefulSet" && owner.name == stateful_set;
    if !pod.metadata.owner_references.iter().flatten().any(owned) {
        return None;
    }
    let drained = pod.metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(SHUTDOWN_REQUESTED));
    if pod.metadata.deletion_timestamp.is_some() || drained {
        return None;
    }
    let status = pod.status.as_ref()?;
    let holds = |kind: &str| status.conditions.iter().flatten().any(|c| c.type_ == kind && c.status == "True");
    if !holds("Initialized") || !holds("Ready") {
        return None;
    }
    let ip = status.pod_ip.as_deref().filter(|ip| !ip.is_empty())?;
    let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
    Some((pod.metadata.name.clone()?, format!("https://{host}:{port}")))
}

/// What follows `before` when these are found: an empty cluster is no cluster but a view that fails, so nothing changes.
pub(super) fn next(before: &Members, found: Members) -> Members {
    if found.is_empty() { before.clone() } else { found }
}

/// Reads `<name>=<url>` entries, separated by commas or line ends; `#` begins a comment.
///
/// # Errors
/// The first entry that cannot be read, or a name that comes twice.
pub fn parse(text: &str) -> Result<Members, String> {
    let mut members = Members::new();
    let lines = text.lines().map(|line| line.split_once('#').map_or(line, |(entry, _)| entry));
    for entry in lines.flat_map(|line| line.split(',')).map(str::trim).filter(|entry| !entry.is_empty()) {
        let (name, url) = entry.split_once('=').ok_or_else(|| format!("{entry:?} has no =: write <name>=<url>"))?;
        let (name, url) = (name.trim(), url.trim().trim_end_matches('/'));
        let is_url = |url: &str| url.strip_prefix("https://").or_else(|| url.strip_prefix("http://")).is_some_and(|host| !host.is_empty());
        if name.is_empty() || !is_url(url) {
            return Err(format!("{entry:?} lacks a name or an http or https URL: write <name>=<url>"));
        }
        if members.insert(name.to_owned(), url.to_owned()).is_some() {
            return Err(format!("{name:?} is named twice"));
        }
    }
    match members.is_empty() {
        true => Err("it names no ingestor".to_owned()),
        false => Ok(members),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, json};

    fn pod(change: impl FnOnce(&mut Value)) -> Option<(String, String)> {
        let mut pod = json!({
            "metadata": {"name": "ingestor-1", "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "ingestor", "uid": "u"}]},
            "status": {"podIP": "10.0.0.7", "conditions": [
                {"type": "Initialized", "status": "True"}, {"type": "Ready", "status": "True"},
            ]},
        });
        change(&mut pod);
        member(&serde_json::from_value(pod).unwrap(), "ingestor", 9090)
    }

    #[test]
    fn a_member_is_a_ready_pod_of_the_same_stateful_set() {
        let expected = Some(("ingestor-1".to_owned(), "https://10.0.0.7:9090".to_owned()));
        assert_eq!(pod(|_| {}), expected);
        assert_eq!(pod(|p| p["metadata"]["ownerReferences"][0]["name"] = json!("other")), None);
        assert_eq!(pod(|p| p["metadata"]["ownerReferences"][0]["kind"] = json!("ReplicaSet")), None);
        assert_eq!(pod(|p| p["metadata"]["ownerReferences"] = Value::Null), None);
        assert_eq!(pod(|p| p["status"]["conditions"][0]["status"] = json!("False")), None);
        assert_eq!(pod(|p| p["status"]["conditions"][1]["status"] = json!("False")), None);
        assert_eq!(pod(|p| p["status"]["podIP"] = json!("")), None);
        assert_eq!(pod(|p| p["status"] = Value::Null), None);
        let v6 = pod(|p| p["status"]["podIP"] = json!("fd00::7")).unwrap();
        assert_eq!(v6.1, "https://[fd00::7]:9090");
    }

    /// Not in the reference, which goes on sending to a pod until it does not answer.
    #[test]
    fn a_pod_that_is_about_to_go_is_none() {
        assert_eq!(pod(|p| p["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z")), None);
        assert_eq!(pod(|p| p["metadata"]["annotations"] = json!({"shutdown-requested": "x"})), None);
        assert!(pod(|p| p["metadata"]["annotations"] = json!({"other": "x"})).is_some());
    }

    #[test]
    fn the_stateful_set_is_the_name_without_its_number() {
        for (name, expected) in [
            ("ingestor-0", Some("ingestor")),
            ("my-ingestor-12", Some("my-ingestor")),
            ("ingestor", None),
            ("ingestor-", None),
            ("-3", None),
            ("ingestor-a", None),
        ] {
            assert_eq!(stateful_set(name), expected, "{name}");
        }
    }

    #[test]
    fn an_empty_view_changes_nothing() {
        let before = parse("a=http://a").unwrap();
        assert_eq!(next(&before, Members::new()), before);
        let after = parse("b=http://b").unwrap();
        assert_eq!(next(&before, after.clone()), after);
    }

    #[test]
    fn lists_are_read_with_commas_lines_and_comments() {
        let members = parse("a=https://a:9090/, b = http://127.0.0.1:1 # here\n\n# c=https://c\nd=https://d").unwrap();
        let expected = [("a", "https://a:9090"), ("b", "http://127.0.0.1:1"), ("d", "https://d")];
        assert_eq!(members, expected.map(|(name, url)| (name.to_owned(), url.to_owned())).into());
        for (text, part) in [
            ("a", "has no ="),
            ("=http://a", "lacks"),
            ("a=b", "lacks"),
            ("a=http://", "lacks"),
            ("", "no ingestor"),
            ("a=http://a,a=http://b", "twice"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
