//! Notifications as alerts of Alertmanager's API v2.
//!
//! An alert is its labels: what stays the same from run to run goes there, everything else into annotations. Alertmanager
//! resolves an alert at its `endsAt` unless it is told of it again, so `endsAt` is where `autoMitigateAfter` acts.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::notification::{Notification, Origin};

/// What an alert is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// A row that a rule found.
    Row,
    /// A rule whose query is wrong.
    Failure,
    /// A rule that found more than it may say.
    Throttle,
}

/// An alert as it waits in the outbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    generator_url: Option<String>,
    starts_at: Timestamp,
    seen: Timestamp,
    lasts: Duration,
}

/// How long an alert lasts after a run of a rule saw it: `autoMitigateAfter`, or else three intervals, so that a late run
/// does not resolve it.
#[must_use]
pub fn lasts(interval: Duration, auto_mitigate_after: Duration) -> Duration {
    const SHORTEST: Duration = Duration::from_secs(300);
    if auto_mitigate_after.is_zero() { interval.saturating_mul(3).max(SHORTEST) } else { auto_mitigate_after }
}

impl Alert {
    /// The alert of a notification that a run over `window` made.
    #[must_use]
    pub fn new(about: About, notification: &Notification, origin: &Origin, window: (Timestamp, Timestamp), lasts: Duration) -> Alert {
        let (namespace, name) = origin.source.split_once('/').unwrap_or(("", &origin.source));
        let alertname = match about {
            About::Row => name,
            About::Failure => "AlertRuleQueryFails",
            About::Throttle => "AlertRuleThrottled",
        };
        // Without a correlation the title tells alerts of one rule apart.
        let (key, id) = match notification.correlation_id.as_str() {
            "" => ("title", &notification.title),
            _ => ("correlation_id", &notification.correlation_id),
        };
        let labels = [
            ("alertname", alertname),
            ("namespace", namespace),
            ("rule", name),
            ("severity", &notification.severity.to_string()),
            ("source", &origin.source),
            ("destination", &notification.destination),
            (key, id),
        ]
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
        Alert {
            labels,
            annotations: annotations(notification),
            generator_url: origin.links.url().map(str::to_owned),
            starts_at: window.0,
            seen: window.1,
            lasts,
        }
    }

    /// The body of the request that tells of it at `now`. One that waited so long that it would arrive as resolved is told
    /// as firing from now on: it has not been told of yet.
    #[must_use]
    pub fn request(&self, now: Timestamp) -> Value {
        let lasts = SignedDuration::try_from(self.lasts).unwrap_or(SignedDuration::MAX);
        let ends = |from: Timestamp| from.checked_add(lasts).unwrap_or(Timestamp::MAX);
        let soon = now.checked_add(SignedDuration::from_secs(60)).unwrap_or(now);
        let ends_at = if ends(self.seen) > soon { ends(self.seen) } else { ends(now) };
        let mut alert = json!({
            "labels": self.labels,
            "annotations": self.annotations,
            "startsAt": self.starts_at,
            "endsAt": ends_at,
        });
        if let Some(url) = &self.generator_url {
            alert["generatorURL"] = json!(url);
        }
        json!([alert])
    }
}

fn annotations(notification: &Notification) -> BTreeMap<String, String> {
    let mut out: BTreeMap<String, String> =
        [("title", &notification.title), ("summary", &notification.summary), ("description", &notification.description)]
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| (name.to_owned(), value.clone()))
            .collect();
    for (name, value) in notification.custom_fields.iter().flatten() {
        let mut name = label_name(name);
        while out.contains_key(&name) {
            name.push('_');
        }
        out.insert(name, value.clone());
    }
    out
}

/// A name that Alertmanager takes: `[a-zA-Z_][a-zA-Z0-9_]*`.
fn label_name(name: &str) -> String {
    let mut out: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if !out.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
        out.insert(0, '_');
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::notification::Links;

    fn alert(correlation: &str, lasts: Duration) -> Alert {
        let origin = Origin {
            source: "ns/high".into(),
            destination: "team".into(),
            auto_mitigate_after: None,
            links: Links::new("http://127.0.0.1:1", "DB", "T"),
        };
        let fields = [("title", "x"), ("2 go", "y"), ("2-go", "z"), ("Größe", "")];
        let notification = Notification {
            destination: "team".into(),
            title: "CPU high".into(),
            summary: "s".into(),
            description: String::new(),
            severity: 2,
            source: "ns/high".into(),
            correlation_id: correlation.into(),
            custom_fields: Some(fields.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect()),
            auto_mitigate_after: None,
        };
        let time = |text: &str| text.parse().unwrap();
        Alert::new(About::Row, &notification, &origin, (time("2026-01-01T10:00:00Z"), time("2026-01-01T10:05:00Z")), lasts)
    }

    #[test]
    fn labels_name_the_alert_and_annotations_describe_it() {
        let request =
            alert("ns/high://a", lasts(Duration::from_secs(300), Duration::ZERO)).request("2026-01-01T10:05:02Z".parse().unwrap());
        let alert = &request[0];
        assert_eq!(
            alert["labels"],
            json!({"alertname": "high", "namespace": "ns", "rule": "high", "severity": "2", "source": "ns/high",
                   "destination": "team", "correlation_id": "ns/high://a"})
        );
        assert_eq!(
            alert["annotations"],
            json!({"title": "CPU high", "summary": "s", "title_": "x", "_2_go": "y", "_2_go_": "z", "Gr__e": ""})
        );
        assert_eq!((&alert["startsAt"], &alert["endsAt"]), (&json!("2026-01-01T10:00:00Z"), &json!("2026-01-01T10:20:00Z")));
        assert!(alert["generatorURL"].as_str().unwrap().starts_with("http://127.0.0.1:1/DB?query="));
    }

    #[test]
    fn alerts_end_by_auto_mitigate_after_and_never_arrive_as_over() {
        let alert = alert("", lasts(Duration::from_secs(300), Duration::from_secs(3600)));
        assert_eq!(alert.labels["title"], "CPU high");
        let ends = |now: &str| alert.request(now.parse().unwrap())[0]["endsAt"].clone();
        assert_eq!(ends("2026-01-01T10:05:01Z"), json!("2026-01-01T11:05:00Z"));
        assert_eq!(ends("2026-01-01T15:00:00Z"), json!("2026-01-01T16:00:00Z"));
    }
}
