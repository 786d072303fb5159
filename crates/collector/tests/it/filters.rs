//! Metric filters and label rules, from the configuration file to the stored labels.

use std::fmt::Write;

use collector::Config;
use serde_json::Value;
use telemetry::client::{Series, remote_write_body};
use telemetry::{MetricIntake, RowSet};

use crate::support::vector;

/// The reference takes the first label for the metric's name when labels are not sorted; ours takes
/// `__name__`, so the rule for `^m$` does not apply to the metric `other`.
const FIRST_LABEL_DEFECT: &str = "drop labels uses first label value as metric name";

#[test]
fn the_reference_cases_keep_and_drop_the_same() {
    let text = vector("collector/metric_filters.json");
    for case in serde_json::from_str::<Vec<Value>>(&text).unwrap() {
        let name = case["name"].as_str().unwrap();
        let toml = toml_of(&case["config"]);
        let (config, _) = Config::from_toml(&toml, "node-1").unwrap_or_else(|e| panic!("{name}: {e}\n{toml}"));
        let intake = MetricIntake::new("M", config.metrics[0].rules.compile().unwrap(), Vec::new());
        for result in case["results"].as_array().unwrap() {
            let labels = pairs(&result["in"]);
            let got = stored_labels(&intake, &labels);
            if name == FIRST_LABEL_DEFECT {
                assert_eq!(got, Some(vec![("a".to_owned(), "m".to_owned()), ("x".to_owned(), "1".to_owned())]));
                continue;
            }
            let expected = result["kept"].as_bool().unwrap().then(|| stored_form(&result["labels_out"]));
            assert_eq!(got, expected, "{name}: {labels:?}");
        }
    }
}

/// A file with rules at the top and in every source of metrics.
const SCOPES: &str = "
storage-dir = '/x'
default-drop-metrics = true
drop-metrics = ['^global_drop']
keep-metrics = ['^global_keep', '_drop']
[add-labels]
both = 'global'
global = 'g'
[drop-labels]
'^global' = '^x$'
'.' = '^y$'
[[keep-metrics-with-label-value]]
label-regex = '^keep$'
value-regex = '^global$'
SOURCE
database = 'M'
drop-metrics = ['^source_drop']
keep-metrics = ['^source_keep']
add-labels = { both = 'source', source = 's' }
drop-labels = { '^source' = '^x$', '.' = '^z$' }
keep-metrics-with-label-value = [{ label-regex = '^keep$', value-regex = '^source$' }]
";

/// Lists of the two scopes are joined; of maps and of default-drop-metrics the source's value wins.
#[test]
fn rules_of_the_file_and_of_a_source_are_joined() {
    let sources = [
        ("[prometheus-scrape]\nscrape-interval = 1\ndisable-discovery = true", 0),
        ("[[prometheus-remote-write]]\npath = '/r'", 1),
        ("[[otel-metric]]\npath = '/m'", 1),
    ];
    for (source, endpoints) in sources {
        let intake = |more: &str| {
            let toml = SCOPES.replace("SOURCE", source) + more;
            let (config, _) = Config::from_toml(&toml, "node-1").unwrap_or_else(|e| panic!("{e}\n{toml}"));
            assert_eq!(config.metrics.len(), endpoints);
            let rules = config.scrape.map_or_else(|| config.metrics[0].rules.clone(), |scrape| scrape.rules);
            MetricIntake::new("M", rules.compile().unwrap(), Vec::new())
        };
        let labels = |name: &str, more: &[(&str, &str)]| -> Vec<(String, String)> {
            let all = [("__name__", name), ("both", "own"), ("x", "1"), ("y", "1"), ("z", "1")];
            all.iter().chain(more).map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
        };
        let kept = |intake: &MetricIntake, name: &str, more: &[(&str, &str)]| stored_labels(intake, &labels(name, more));
        let joined = intake("");
        for dropped in ["global_drop", "source_drop", "neither"] {
            assert_eq!(kept(&joined, dropped, &[]), None, "{source}: {dropped}");
        }
        for value in ["global", "source"] {
            assert!(kept(&joined, "neither", &[("keep", value)]).is_some(), "{source}: {value}");
        }
        assert_eq!(kept(&joined, "neither", &[("keep", "other")]), None);
        // `.` is a key of both maps, so that the source's value counts and y stays.
        let expected = [("both", "source"), ("global", "g"), ("source", "s"), ("y", "1")];
        let expected: Vec<_> = expected.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        for name in ["global_keep", "source_keep"] {
            assert_eq!(kept(&joined, name, &[]), Some(expected.clone()), "{source}: {name}");
        }
        assert!(kept(&intake("default-drop-metrics = false"), "neither", &[]).is_some(), "{source}: the source's default wins");
    }
}

/// The configuration of a case, as a remote-write source.
fn toml_of(config: &Value) -> String {
    let mut toml = "storage-dir='/x'\n[[prometheus-remote-write]]\npath='/r'\ndatabase='M'\n".to_owned();
    let mut tables = String::new();
    for (key, value) in config.as_object().unwrap() {
        match key.as_str() {
            "keep-metrics-with-label-value" => {
                for pair in value.as_array().unwrap().chunks(2) {
                    let header = "[[prometheus-remote-write.keep-metrics-with-label-value]]";
                    writeln!(tables, "{header}\nlabel-regex={}\nvalue-regex={}", pair[0], pair[1]).unwrap();
                }
            }
            "drop-labels" => {
                let pair = value.as_array().unwrap();
                writeln!(tables, "[prometheus-remote-write.drop-labels]\n{}={}", pair[0], pair[1]).unwrap();
            }
            "add-labels" => {
                writeln!(tables, "[prometheus-remote-write.add-labels]").unwrap();
                for (name, value) in value.as_object().unwrap() {
                    writeln!(tables, "{name}={value}").unwrap();
                }
            }
            _ => writeln!(toml, "{key}={value}").unwrap(),
        }
    }
    toml + &tables
}

/// `[name, value, name, value, …]`
fn pairs(flat: &Value) -> Vec<(String, String)> {
    let text = |v: &Value| v.as_str().unwrap().to_owned();
    flat.as_array().unwrap().chunks(2).map(|pair| (text(&pair[0]), text(&pair[1]))).collect()
}

/// The Labels column of a series, or `None` when it was filtered out.
fn stored_labels(intake: &MetricIntake, labels: &[(String, String)]) -> Option<Vec<(String, String)>> {
    let body = remote_write_body(&[Series { labels: labels.to_vec(), samples: vec![(0, 1.0)] }]);
    let mut rows = RowSet::new();
    let outcome = intake.remote_write(&body, &mut rows).unwrap();
    assert_eq!(outcome.rejected, 0, "{outcome:?}");
    let table = rows.by_table().pop()?;
    let row = String::from_utf8(table.bytes).unwrap();
    // Timestamp,SeriesId,"Labels",Value with quotes doubled inside the third.
    let quoted = row.split_once(",\"").unwrap().1.rsplit_once("\",").unwrap().0.replace("\"\"", "\"");
    let json: Value = serde_json::from_str(&quoted).unwrap();
    Some(json.as_object().unwrap().iter().map(|(n, v)| (n.clone(), v.as_str().unwrap().to_owned())).collect())
}

/// What the Labels column holds of the transformer's output: no name, no `adxmon_*`.
fn stored_form(labels: &Value) -> Vec<(String, String)> {
    let text = |v: &Value| v.as_str().unwrap().to_owned();
    let all = labels.as_array().unwrap().iter().map(|pair| (text(&pair[0]), text(&pair[1])));
    all.filter(|(name, _)| name != "__name__" && !name.starts_with("adxmon_")).collect()
}
