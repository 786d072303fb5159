//! `alert_query_wrapping.json`.

use alerter::query::Statement;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::support::{cases, text};

#[test]
fn statements_and_display_queries_are_the_references() {
    let mut defects = 0;
    for case in cases("alert_query_wrapping.json") {
        let end: Timestamp = text(&case["endTime"]).parse().unwrap();
        assert_eq!(text(&case["interval"]), "1h");
        let query = text(&case["query"]);
        let ours = Statement::new(query, end - SignedDuration::from_hours(1), end, text(&case["region"]));
        let expected = &case["expected"];
        match query {
            // Defect: a leading space makes the reference send a management command as a query.
            " .show tables" => {
                defects += 1;
                assert_eq!((ours.text.as_str(), ours.is_management()), (".show tables", true));
            }
            // Defect: the reference replaces names of parameters inside other words, here in a string.
            "T | where x == 'ParamRegionX'" => {
                defects += 1;
                assert!(ours.display().contains("T | where x == 'ParamRegionX'"), "{}", ours.display());
                assert_eq!(Value::from(ours.text), expected["statement"]);
            }
            _ => {
                assert_eq!(Value::from(ours.text.clone()), expected["statement"], "{query}");
                assert_eq!(Value::from(ours.display()), expected["display_query"], "{query}");
                assert_eq!(Value::from(!ours.is_management()), expected["has_parameters"], "{query}");
            }
        }
    }
    assert_eq!(defects, 2);
}
