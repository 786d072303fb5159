//! Notifications: out of the rows of a query, and about a rule that fails or says too much.

mod links;
mod row;
mod text;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use links::Links;
pub use row::{Columns, RowError, severity_type_error};
use text::{escape_html, shortened};

/// Longest title, in characters.
pub const MAX_TITLE: usize = 512;
/// Titles that a throttle alert names.
const MAX_NAMED: usize = 50;
/// Longest error text in a failure alert, in characters.
const MAX_ERROR: usize = 16 << 10;

/// One notification: the body of the receiver's request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Notification {
    /// Who is to be told, in the receiver's words.
    pub destination: String,
    /// One line, 1 to [`MAX_TITLE`] characters.
    pub title: String,
    /// HTML: what the row says, links to the query, and the query.
    pub summary: String,
    /// The row's description.
    pub description: String,
    /// The row's severity; smaller is worse.
    pub severity: i64,
    /// `namespace/name` of the rule.
    pub source: String,
    /// What makes two notifications the same alert; empty for none.
    #[serde(rename = "CorrelationID")]
    pub correlation_id: String,
    /// The row's other columns; null where there is no row.
    pub custom_fields: Option<BTreeMap<String, String>>,
    /// How long after the last notification the alert is over (`1h30m`), if the rule says so.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub auto_mitigate_after: Option<String>,
}

/// What notifications of one run of a rule have in common.
#[derive(Debug, Clone)]
pub struct Origin {
    /// `namespace/name` of the rule.
    pub source: String,
    /// Destination of the rule; where it is empty, rows may name a recipient.
    pub destination: String,
    /// `autoMitigateAfter` of the rule as it stands there, if any.
    pub auto_mitigate_after: Option<String>,
    /// Links to the query, and the query.
    pub links: Links,
}

/// The alert about a rule whose query is wrong. `endpoint` is `unknown` where the rule's database is.
#[must_use]
pub fn failure_alert(origin: &Origin, endpoint: &str, error: &str) -> Notification {
    let source = &origin.source;
    let host = endpoint.strip_prefix("https://").unwrap_or(endpoint);
    let error = escape_html(&shortened(error, MAX_ERROR));
    let summary = format!("This query is failing to execute:<br/><br/><pre>{error}</pre><br/><br/>{}", origin.links.html());
    Notification {
        title: format!("Alert {source} has query errors on {endpoint}"),
        summary: summary.trim().to_owned(),
        source: source.clone(),
        correlation_id: format!("alert-failure/{host}/{source}"),
        ..synthetic(origin)
    }
}

/// The alert about a rule that found more than it may say. `held_back` are severities and titles of what was not sent.
#[must_use]
pub fn throttle_alert(origin: &Origin, region: &str, held_back: &[(i64, String)]) -> Notification {
    let id = format!("notification-failure/{}", origin.source);
    let mut summary = "This alert has been throttled by ICM due to too many notifications.  Please reduce the number of notifications \
                       for this alert."
        .to_owned();
    if !held_back.is_empty() {
        summary.push_str(&format!("<br/><br/>Held back: {}<ul>", held_back.len()));
        for (severity, title) in held_back.iter().take(MAX_NAMED) {
            summary.push_str(&format!("<li>severity {severity}: {}</li>", escape_html(title)));
        }
        summary.push_str("</ul>");
        if let Some(more) = held_back.len().checked_sub(MAX_NAMED).filter(|more| *more > 0) {
            summary.push_str(&format!("and {more} more"));
        }
    }
    summary.push_str(origin.links.html());
    Notification {
        title: format!("Alert {} has too many notifications in {region}", origin.source),
        summary: summary.trim().to_owned(),
        source: id.clone(),
        correlation_id: id,
        ..synthetic(origin)
    }
}

fn synthetic(origin: &Origin) -> Notification {
    Notification {
        destination: origin.destination.clone(),
        title: String::new(),
        summary: String::new(),
        description: String::new(),
        severity: 3,
        source: String::new(),
        correlation_id: String::new(),
        custom_fields: None,
        auto_mitigate_after: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin() -> Origin {
        Origin {
            source: "ns/rule".into(),
            destination: "team".into(),
            auto_mitigate_after: None,
            links: Links::new("https://c.kusto.windows.net", "DB", "T | where a < 1"),
        }
    }

    #[test]
    fn a_throttle_alert_names_what_it_held_back_and_is_bounded() {
        let held: Vec<_> = (0..60).map(|n| (n % 4, format!("<title {n}>"))).collect();
        let alert = throttle_alert(&origin(), "eastus", &held);
        assert!(alert.summary.contains("Held back: 60<ul><li>severity 0: &lt;title 0&gt;</li>"), "{}", alert.summary);
        assert!(alert.summary.contains("&lt;title 49&gt;") && !alert.summary.contains("&lt;title 50&gt;"));
        assert!(alert.summary.contains("and 10 more") && alert.summary.contains("[Web]"));
    }

    #[test]
    fn errors_cannot_break_out_of_the_page_nor_fill_it() {
        let alert = failure_alert(&origin(), "unknown", "<script>alert(1)</script>");
        assert!(alert.summary.contains("&lt;script&gt;") && !alert.summary.contains("<script>"));
        assert_eq!(alert.correlation_id, "alert-failure/unknown/ns/rule");
        assert!(failure_alert(&origin(), "unknown", &"x".repeat(1 << 20)).summary.len() < 64 << 10);
    }
}
