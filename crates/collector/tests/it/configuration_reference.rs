//! The documentation of the configuration is what the code does: every option, default, choice and example.

use collector::Config;
use collector::config::reference::{self, Setting, Table, value};
use serde_json::Value;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/collector-configuration.md");

fn read(toml: &str) -> Result<(Config, usize), String> {
    let read = Config::from_toml(toml, "node-1").map_err(|error| format!("{error}\n{toml}"));
    read.map(|(config, warnings)| (config, warnings.len()))
}

#[test]
fn the_page_is_what_the_code_says() {
    let page = std::fs::read_to_string(PAGE).unwrap();
    assert!(page == reference::page(), "run: cargo run -p collector -- config --format page > docs/collector-configuration.md");
}

#[test]
fn the_file_to_start_from_runs_as_it_is() {
    let (config, warnings) = read(&reference::file_to_start_from()).unwrap();
    assert_eq!(warnings, 0);
    assert_eq!(config.listen_addr, "127.0.0.1:8080", "nobody else reaches it before it was looked at");
    let paths: Vec<_> = config.metrics.iter().map(|endpoint| endpoint.path.as_deref().unwrap()).collect();
    assert_eq!(paths, ["/remote_write", "/v1/metrics"]);
    assert!(config.logs.is_some() && config.traces.is_some() && config.scrape.is_some_and(|scrape| !scrape.discovery));
}

/// All examples at once. A source that this leaves without effect is in no warning.
#[test]
fn the_examples_are_valid() {
    // One rule or the other.
    let file = reference::file_of_examples().replace("\nfirst-line = ", "\n# first-line = ");
    let (config, _) = read(&file).unwrap();
    assert_eq!(config.exporters.len(), 3);
    assert!(!config.files.is_empty() && !config.journals.is_empty() && !config.kernels.is_empty() && !config.syslog.is_empty());
    assert!(config.events.is_some() && config.authentication.is_some() && config.kubernetes.kubelet.is_some());
}

#[test]
fn every_option_and_table_is_described() {
    for table in Table::file().all() {
        assert!(!table.about.is_empty(), "{}", table.header());
        for setting in &table.settings {
            let (about, name) = (&setting.about, format!("{} {}", table.header(), setting.key));
            assert!(about.len() > 10 && about.ends_with('.'), "{name}: {about:?}");
            if setting.default == Some(Value::from(0)) {
                assert!(about.contains("0 is"), "{name} does not say what 0 means");
            }
        }
    }
}

/// The smallest file that has `table` with `keys`, apart from what is said in [`company`].
fn smallest(table: &Table, file: &Table, keys: &[String]) -> String {
    let mut toml = if keys.iter().any(|key| key.starts_with("storage-dir")) { String::new() } else { "storage-dir = '/x'\n".to_owned() };
    for depth in 1..=table.path.len() {
        let around = file.all().into_iter().find(|other| other.path == table.path[..depth]).unwrap();
        toml.push_str(&format!("{}\n", around.header()));
        if depth < table.path.len() {
            toml.push_str(&required(around).concat());
            toml.push_str(company(around));
        }
    }
    toml + &keys.concat()
}

fn required(table: &Table) -> Vec<String> {
    table.settings.iter().filter(|setting| setting.required).map(|setting| line(setting, &setting.shown())).collect()
}

fn line(setting: &Setting, shown: &Value) -> String {
    format!("{} = {}\n", setting.key, value(shown))
}

/// What a table needs beside its required keys: one of several, or another table.
fn company(table: &Table) -> &'static str {
    let path = table.path.join(".");
    match path.as_str() {
        "authentication" => "token-file = '/tokens'\n",
        "otel-metric" => "path = '/v1/metrics'\n",
        "table-limit" => "max-rows-per-second = 7\n",
        _ if path.ends_with(".multi-line") => "presets = ['go']\n",
        _ if path.ends_with(".transforms") => "config = { presets = ['email'] }\n",
        _ if path.ends_with("add-metadata-labels.kubernetes-node") => "[metadata-watch.kubernetes-node]\n",
        _ => "",
    }
}

/// The settings that a file with `keys` in `table` gives.
fn settings(table: &Table, file: &Table, keys: &[String]) -> Result<String, String> {
    read(&(smallest(table, file, keys) + company(table))).map(|(config, _)| format!("{config:#?}"))
}

/// What the documentation gives as the default changes nothing, and what it gives as example of another value does.
#[test]
fn defaults_are_what_counts_without_the_key() {
    let file = Table::file();
    let (mut defaults, mut others, mut wrong) = (0, 0, Vec::new());
    for table in file.all() {
        let required = required(table);
        let without = settings(table, &file, &required).unwrap();
        for setting in table.settings.iter().filter(|setting| !setting.required) {
            let name = format!("{} {}", table.header(), setting.key);
            if company(table).starts_with(&format!("{} =", setting.key)) {
                continue;
            }
            let with = |shown: &Value| settings(table, &file, &[&required[..], &[line(setting, shown)]].concat());
            if let Some(default) = &setting.default {
                defaults += 1;
                if with(default).as_ref() != Ok(&without) {
                    wrong.push(format!("{name}: {default} is not the default"));
                }
            }
            let refused = setting.choices.iter().filter_map(|choice| with(choice).err());
            wrong.extend(refused.map(|error| format!("{name}: {error}")));
            // Another number or switch is another setting, unless the documentation says that it has no effect.
            let other = match &setting.default {
                Some(Value::Bool(on)) => Value::Bool(!on),
                Some(Value::Number(number)) => Value::from(number.as_i64().unwrap() + 1),
                _ => continue,
            };
            if !setting.about.contains("without effect") && !NEEDS_MORE.contains(&name.as_str()) {
                others += 1;
                if with(&other).is_ok_and(|settings| settings == without) {
                    wrong.push(format!("{name}: {other} changes nothing"));
                }
            }
        }
    }
    assert_eq!(wrong, [""; 0]);
    assert!(defaults > 60 && others > 40, "{defaults} defaults, {others} others");
}

/// What changes something only beside other settings.
const NEEDS_MORE: [&str; 4] = [
    "[] max-batch-size",
    "[] disable-metrics-forwarding",
    "[[prometheus-scrape.static-scrape-target]] insecure-skip-verify",
    "[[prometheus-scrape.static-scrape-target]] service-account-token",
];

/// A table without a key that it needs is refused, and one with these keys alone is not.
#[test]
fn required_keys_are_those_that_a_check_misses() {
    let file = Table::file();
    for table in file.all() {
        // Only the expressions of sources have to be there, as in the reference.
        let of_source = ["otel-metric", "prometheus-remote-write", "prometheus-scrape"].map(str::to_owned);
        if table.path.last().is_some_and(|key| key == "keep-metrics-with-label-value") && !of_source.contains(&table.path[0]) {
            continue;
        }
        let required = required(table);
        for missing in 0..required.len() {
            let rest: Vec<String> = required.iter().enumerate().filter(|(i, _)| *i != missing).map(|(_, line)| line.clone()).collect();
            assert!(settings(table, &file, &rest).is_err(), "{}: {} is not needed", table.header(), required[missing]);
        }
    }
}

#[test]
fn the_schema_is_one_of_json_schema_and_knows_no_null() {
    let schema = reference::schema();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!(schema["additionalProperties"], false);
    assert_eq!(schema["properties"]["prometheus-scrape"]["$ref"], "#/$defs/Scrape");
    assert_eq!(schema["properties"]["durability"]["enum"], serde_json::json!(["disk", "process"]));
    assert!(!schema.to_string().contains("null"));
}
