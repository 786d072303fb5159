use proptest::prelude::*;

use super::*;
use crate::testing::{text, vector};

fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::new(&pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
}

#[test]
fn vector_kql_substitution() {
    for case in vector("kql_substitution") {
        let map: BTreeMap<String, String> = serde_json::from_value(case["clusterLabels"].clone()).unwrap_or_default();
        let ours = render_between(text(&case, "startTime"), text(&case, "endTime"), &Labels::new(&map), text(&case, "body")).text;
        let expected = text(&case, "expected");
        let reference_is_right = match map.keys().next().map(String::as_str) {
            // Defect: a name that is no KQL.
            Some("my-label") => Some("let _startTime=datetime(s);\nlet _endTime=datetime(e);\nlet _my_label=\"x\";\nT"),
            // Defect: the time of the window is defined twice.
            Some("startTime") => Some("let _startTime=datetime(s);\nlet _endTime=datetime(e);\nT"),
            _ => None,
        };
        // Control characters and spaces are written as the language reference has them, not as Go does: `\u0001` for
        // `\x01`, and a no-break space as it is.
        let expected = expected.replace("\\x01", "\\u0001").replace("\\x7f", "\\u007f").replace("\\u00a0", "\u{a0}");
        assert_eq!(ours, reference_is_right.unwrap_or(&expected));
        if !matches!(text(&case, "endTime"), "e") {
            assert_eq!(kql::parse(&ours).diagnostics, [], "{ours}");
        }
    }
}

#[test]
fn labels_that_cannot_be_had_are_named() {
    let labels = labels(&[("my-label", "a"), ("my.label", "b"), ("my_label", "c"), ("endTime", "d"), ("région", "e")]);
    assert_eq!(labels.lets, "let _my_label=\"c\";\nlet _r_gion=\"e\";\n");
    assert_eq!(labels.renamed(), ["cluster label \"région\" is _r_gion in KQL"]);
    assert_eq!(labels.rejected().len(), 3);
    assert!(labels.rejected().iter().any(|r| r.contains("\"endTime\"") && r.contains("rename the label")));
    assert!(labels.rejected().iter().any(|r| r.contains("\"my-label\"") && r.contains("\"my_label\"")));
}

#[test]
fn a_position_in_the_command_leads_to_the_body() {
    let window = Window { start: crate::testing::at("2024-01-01T00:00:00Z"), end: crate::testing::at("2024-01-01T01:00:00Z") };
    let rendered = render(&window, &labels(&[("a", "x"), ("b", "y")]), "\n\nT\n| take 1\n");
    assert_eq!(rendered.text.lines().nth(rendered.lines_before_body), Some("T"));
    assert!(rendered.text.contains("let _endTime=datetime(2024-01-01T00:59:59.9999999Z);"));
}

#[test]
fn mistakes_have_a_place() {
    assert_eq!(syntax_error("T | where Timestamp between (_startTime .. _endTime) | summarize count() by bin(Timestamp, 1h)"), None);
    let error = syntax_error("T\n| where (a == 1\n").unwrap();
    assert!(error.contains("of the body") && error.contains("line "), "{error}");
    assert!(syntax_error("  \n").unwrap().contains("empty"));
}

#[test]
fn only_plain_table_names_stand_as_they_are() {
    assert_eq!(table_name("Dest_1"), "Dest_1");
    assert_eq!(table_name("1st"), "['1st']");
    assert_eq!(table_name("A with (x=1) <| drop"), "['A with (x=1) <| drop']");
}

proptest! {
    /// No name and no value of a label gets out of its statement: the KQL has exactly one statement for each label that
    /// is there, and the query.
    #[test]
    fn labels_cannot_inject(map in prop::collection::btree_map("[a-z]{0,3}\\PC{0,8}|[;\"'\\\\\n =]{1,6}", any::<String>(), 0..6)) {
        let labels = Labels::new(&map);
        let text = render_between("2024-01-01", "2024-01-02", &labels, "T").text;
        let parsed = kql::parse(&text);
        prop_assert_eq!(&parsed.diagnostics, &[], "{}", text);
        prop_assert_eq!(parsed.statements.len(), 3 + map.len() - labels.rejected().len(), "{}", text);
        prop_assert_eq!(text.lines().count(), parsed.statements.len());
    }
}
