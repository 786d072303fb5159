//! `alert_notifications.json`: rows to notifications, and alerts about rules that fail or say too much.

use std::io::Read as _;

use alerter::notification::{Columns, Links, Notification, Origin, RowError, failure_alert, throttle_alert};
use alerter::query::Statement;
use base64::Engine as _;
use jiff::Timestamp;
use kusto::Column;
use reqwest::Url;
use serde_json::{Value, json};

use crate::support::{cases, text};

const ENDPOINT: &str = "https://cluster.eastus.kusto.windows.net";
const START: &str = "2024-05-01T10:00:00.25Z";
const END: &str = "2024-05-01T10:05:00Z";

/// What a run of the case's rule makes of its rows.
struct Made {
    notifications: Vec<Notification>,
    error: Option<RowError>,
    held_back: Vec<(i64, String)>,
    origin: Origin,
}

fn run(case: &Value) -> Made {
    let rule = &case["rule"];
    let time = |text: &str| text.parse::<Timestamp>().unwrap();
    let statement = Statement::new(text(&rule["query"]), time(START), time(END), text(&case["region"]));
    let origin = Origin {
        source: format!("{}/{}", text(&rule["namespace"]), text(&rule["name"])),
        destination: text(&rule["destination"]).to_owned(),
        auto_mitigate_after: None,
        links: Links::new(ENDPOINT, text(&rule["database"]), &statement.display()),
    };
    let mut made = Made { notifications: Vec::new(), error: None, held_back: Vec::new(), origin };
    let limit = match case["max_notifications"].as_u64().unwrap() {
        0 => usize::MAX,
        limit => usize::try_from(limit).unwrap(),
    };
    for row in case["rows"].as_array().into_iter().flatten() {
        let cells = row.as_array().unwrap();
        let columns: Vec<Column> =
            cells.iter().map(|cell| Column { name: text(&cell["name"]).into(), ty: text(&cell["type"]).into() }).collect();
        let values: Vec<Value> = cells.iter().map(|cell| cell["value"].clone()).collect();
        let result = Columns::new(&columns).and_then(|columns| {
            if made.notifications.len() >= limit {
                made.held_back.push(columns.brief(&values));
                return Ok(());
            }
            made.notifications.push(columns.notification(&values, &made.origin)?);
            Ok(())
        });
        if let Err(error) = result {
            made.error = Some(error);
            break;
        }
    }
    made
}

/// The JSON of a notification with placeholders for times and link, and the query that the link opens.
fn normalised(notification: &Notification) -> (Value, Option<String>) {
    let mut json = serde_json::to_value(notification).unwrap();
    let summary = text(&json["Summary"]).to_owned();
    let link = summary.split("<a href=\"").nth(1).and_then(|rest| rest.split('"').next());
    let query = link.map(|link| {
        let url = Url::parse(link).unwrap();
        let data = base64::engine::general_purpose::STANDARD.decode(&*url.query_pairs().next().unwrap().1).unwrap();
        let mut query = String::new();
        flate2::read::GzDecoder::new(&data[..]).read_to_string(&mut query).unwrap();
        query
    });
    let encoded = link.map_or("", |link| link.split("?query=").nth(1).unwrap());
    let summary = if encoded.is_empty() { summary } else { summary.replace(encoded, "{{DEEPLINK}}") };
    json["Summary"] = json!(placeholders(&summary));
    (json, query.map(|query| placeholders(&query)))
}

fn placeholders(text: &str) -> String {
    text.replace(START, "{{START}}").replace(END, "{{END}}")
}

fn assert_same(name: &str, ours: &Notification, expected: &Value) {
    let mut expected = expected["json"].clone();
    let linked = expected.as_object_mut().unwrap().remove("_deeplink_decoded");
    let (json, query) = normalised(ours);
    assert_eq!(query.map_or(Value::Null, Value::from), linked.unwrap_or_default(), "{name}");
    assert_eq!(json, expected, "{name}");
}

#[test]
fn rows_become_the_references_notifications() {
    let mut compared = 0;
    for case in cases("alert_notifications.json") {
        let name = text(&case["name"]);
        let expected = case["expected"]["notifications"].as_array().cloned().unwrap_or_default();
        let from_rows: Vec<&Value> = expected.iter().filter(|n| !n["json"]["CustomFields"].is_null()).collect();
        let about_rule = expected.iter().find(|n| n["json"]["CustomFields"].is_null());
        let made = run(&case);
        match name {
            // Defect: the limit of a title counts bytes.
            "title 200 multibyte chars (600 bytes)" => {
                assert_eq!((made.error, made.notifications[0].title.chars().count()), (None, 200));
                continue;
            }
            // Defect: a receiver's 429 loses the rows after it; ours wait in the outbox (see delivery.rs).
            "receiver returns 429" => {
                assert_eq!(made.notifications.len(), 2);
                continue;
            }
            // The rule does not run at all: tested with the engine.
            "criteria mismatch: nothing happens" => continue,
            _ => {}
        }
        assert_eq!(made.notifications.len(), from_rows.len(), "{name}");
        for (ours, expected) in made.notifications.iter().zip(from_rows) {
            assert_same(name, ours, expected);
        }
        let failed = text(&case["expected"]["status"]["message"]).starts_with("Query failed with user error");
        if text(&case["query_error"]).is_empty() {
            assert_eq!(made.error.is_some(), failed, "{name}: {:?}", made.error);
        }
        if let Some(expected) = about_rule {
            assert_about_rule(name, &case, &made, expected);
        }
        compared += 1;
    }
    assert_eq!(compared, 43);
}

/// The error texts and what a throttle alert adds are ours; all else is the reference's.
fn assert_about_rule(name: &str, case: &Value, made: &Made, expected: &Value) {
    let summary = text(&expected["json"]["Summary"]);
    if let Some(error) = summary.split("<pre>").nth(1).filter(|_| summary.starts_with("This query is failing")) {
        // Defect: the reference does not escape the error, so its text may end the element early.
        let error = error.split("</pre><br/><br/><br/><br/>Execute in").next().unwrap();
        let class = error.split(": ").next().unwrap().split(", ").next().unwrap();
        if let Some(ours) = &made.error {
            let ours = ours.to_string();
            let known = ["severity must be specified", "title must be between 1 and 512 chars", "failed to convert severity to int"];
            assert!(ours.starts_with(class) || known.iter().any(|k| class.starts_with(k) && ours.starts_with(k)), "{name}: {ours}");
        }
        let ours = failure_alert(&made.origin, ENDPOINT, error);
        let mut expected = expected.clone();
        let escaped = error.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&#34;").replace('\'', "&#39;");
        expected["json"]["Summary"] = json!(summary.replacen(error, &escaped, 1));
        assert_same(name, &ours, &expected);
    } else {
        let ours = throttle_alert(&made.origin, text(&case["region"]), &made.held_back);
        // Defect: the reference's throttle alert says neither what it held back nor which query it was.
        assert!(ours.summary.starts_with(summary), "{name}");
        assert!(ours.summary.contains("<li>severity 1: t3</li>") && ours.summary.contains("[Web]"), "{name}: {}", ours.summary);
        let mut ours = serde_json::to_value(&ours).unwrap();
        ours["Summary"] = expected["json"]["Summary"].clone();
        assert_eq!(ours, expected["json"], "{name}");
    }
}
