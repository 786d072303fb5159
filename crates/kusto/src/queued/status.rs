//! What became of a batch, as its row of the status table says.

use serde_json::{Map, Value};

use crate::error::redact;
use crate::queued::error::QueuedError;

/// The code of what is no failure: an extent with one of the tags of `ingest_if_not_exists` is there. The service reports
/// it as a failure all the same.
const ALREADY_INGESTED: &str = "Skipped_IngestByTagAlreadyExists";

/// The state of an ingestion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IngestionStatus {
    /// Nothing is known yet.
    Pending,
    /// It is in the queue, and its status will not be told.
    Queued,
    /// All rows are in the table.
    Succeeded,
    /// The table has an extent with one of the tags of `ingest_if_not_exists`: an earlier message of the batch was ingested.
    AlreadyIngested {
        /// The status of that message says that all rows are in the table. It may be late.
        whole: bool,
    },
    /// There was nothing to ingest.
    Skipped(String),
    /// Some rows are in the table and others are not.
    PartiallySucceeded(Failure),
    /// No row is in the table.
    Failed(Failure),
}

impl IngestionStatus {
    /// Whether it changes no more.
    pub fn is_final(&self) -> bool {
        !matches!(self, IngestionStatus::Pending)
    }
}

/// Why an ingestion failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Whether the same batch can succeed.
    pub kind: FailureKind,
    /// The service's code, such as `BadRequest_EntityNotFound`.
    pub code: String,
    /// For people; without signatures.
    pub details: String,
    /// Whether an update policy of the table is to blame.
    pub from_update_policy: bool,
}

/// Whether the same batch can succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// It fails again until somebody changes something.
    Permanent,
    /// It may succeed.
    Transient,
    /// It may succeed; the service has tried several times.
    Exhausted,
    /// The service does not say.
    Unknown,
}

/// Reads a row.
pub(crate) fn read(row: &Map<String, Value>) -> Result<IngestionStatus, QueuedError> {
    let text = |name: &str| match row.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    };
    let failure = || Failure {
        kind: match text("FailureStatus").as_str() {
            "Permanent" => FailureKind::Permanent,
            "Transient" => FailureKind::Transient,
            "Exhausted" => FailureKind::Exhausted,
            _ => FailureKind::Unknown,
        },
        code: text("ErrorCode"),
        details: redact(&text("Details")),
        from_update_policy: row.get("OriginatesFromUpdatePolicy") == Some(&Value::Bool(true)),
    };
    let status = text("Status");
    Ok(match status.as_str() {
        "Pending" => IngestionStatus::Pending,
        "Queued" => IngestionStatus::Queued,
        "Succeeded" => IngestionStatus::Succeeded,
        "Skipped" | "Failed" if text("ErrorCode") == ALREADY_INGESTED => IngestionStatus::AlreadyIngested { whole: false },
        "Skipped" => IngestionStatus::Skipped(redact(&text("Details"))),
        "PartiallySucceeded" => IngestionStatus::PartiallySucceeded(failure()),
        "Failed" => IngestionStatus::Failed(failure()),
        "" => return Err(QueuedError::Unreadable("the row has no property Status".to_owned())),
        other => return Err(QueuedError::Unreadable(format!("the state {:?} is not known", shorten(other)))),
    })
}

/// What became of a batch of which one message was skipped for its tag, by the rows of all its messages.
pub(crate) fn of_earlier(rows: &[Map<String, Value>]) -> IngestionStatus {
    let mut whole = false;
    for status in rows.iter().filter_map(|row| read(row).ok()) {
        match status {
            // Extents have their tags also where only some of the rows are in them.
            partly @ IngestionStatus::PartiallySucceeded(_) => return partly,
            IngestionStatus::Succeeded => whole = true,
            _ => {}
        }
    }
    IngestionStatus::AlreadyIngested { whole }
}

fn shorten(text: &str) -> String {
    text.chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn status(row: Value) -> Result<IngestionStatus, QueuedError> {
        read(row.as_object().unwrap())
    }

    #[test]
    fn every_state_is_read_and_others_are_no_success() {
        assert_eq!(status(json!({"Status": "Pending"})).unwrap(), IngestionStatus::Pending);
        assert_eq!(status(json!({"Status": "Queued"})).unwrap(), IngestionStatus::Queued);
        assert_eq!(status(json!({"Status": "Succeeded", "ErrorCode": "Unknown"})).unwrap(), IngestionStatus::Succeeded);
        assert_eq!(status(json!({"Status": "Skipped", "Details": "empty"})).unwrap(), IngestionStatus::Skipped("empty".into()));
        for bad in [json!({}), json!({"Status": null}), json!({"Status": 1}), json!({"Status": "succeeded"}), json!({"Status": "Lost"})] {
            assert!(matches!(status(bad.clone()), Err(QueuedError::Unreadable(_))), "{bad}");
        }
    }

    #[test]
    fn failures_have_their_kind_and_no_signatures() {
        let row = json!({
            "Status": "Failed", "FailureStatus": "Exhausted", "ErrorCode": "Download_UnknownError",
            "Details": "reading https://a/b?sig=SECRET&x=1", "OriginatesFromUpdatePolicy": true,
        });
        let IngestionStatus::Failed(failure) = status(row).unwrap() else { panic!() };
        assert_eq!(
            (failure.kind, failure.code.as_str(), failure.from_update_policy),
            (FailureKind::Exhausted, "Download_UnknownError", true)
        );
        assert_eq!(failure.details, "reading https://a/b?sig=***&x=1");
        for (text, kind) in [("Permanent", FailureKind::Permanent), ("Transient", FailureKind::Transient), ("?", FailureKind::Unknown)] {
            let partly = status(json!({"Status": "PartiallySucceeded", "FailureStatus": text})).unwrap();
            assert!(matches!(partly, IngestionStatus::PartiallySucceeded(failure) if failure.kind == kind));
        }
    }

    #[test]
    fn a_tag_may_be_that_of_a_part() {
        let of = |states: &[&str]| {
            let rows: Vec<_> = states.iter().map(|state| json!({"Status": state}).as_object().unwrap().clone()).collect();
            of_earlier(&rows)
        };
        assert_eq!(of(&[]), IngestionStatus::AlreadyIngested { whole: false });
        assert_eq!(of(&["Pending", "Skipped", "Lost", "Failed"]), IngestionStatus::AlreadyIngested { whole: false });
        assert_eq!(of(&["Pending", "Succeeded", "Failed"]), IngestionStatus::AlreadyIngested { whole: true });
        assert!(matches!(of(&["Pending", "PartiallySucceeded", "Skipped"]), IngestionStatus::PartiallySucceeded(_)));
    }

    /// As the service reports it (seen by Microsoft's Spark connector), and as its documentation would have it.
    #[test]
    fn what_is_there_already_is_no_failure() {
        for state in ["Failed", "Skipped"] {
            let row = json!({"Status": state, "FailureStatus": "Permanent", "ErrorCode": "Skipped_IngestByTagAlreadyExists"});
            assert_eq!(status(row).unwrap(), IngestionStatus::AlreadyIngested { whole: false });
        }
    }
}
