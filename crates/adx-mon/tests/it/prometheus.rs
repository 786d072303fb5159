//! Prometheus scrapes its node exporter and remote-writes here; what KQL answers is what Prometheus's own API answers.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::support::{Process, Up, eventually, free_ports, needed};

/// Metrics whose every sample is compared.
const COMPARED: usize = 20;
/// Scrapes to wait for.
const SCRAPES: i64 = 5;

#[test]
fn samples_equal_those_of_prometheus() {
    let Some(prometheus) = needed(PathBuf::from("/usr/bin/prometheus"), "Prometheus") else { return };
    let Some(exporter) = needed(PathBuf::from("/usr/bin/prometheus-node-exporter"), "Prometheus's node exporter") else { return };
    let up = Up::start(&["--no-host"]);
    let base = free_ports(2);
    let (exporter_address, prometheus_address) = (format!("127.0.0.1:{base}"), format!("127.0.0.1:{}", base + 1));
    let folder = up.folder.path();
    let _exporter =
        Process::start(Command::new(exporter).arg(format!("--web.listen-address={exporter_address}")), folder.join("exporter.log"));
    let config = format!(
        "global:\n  scrape_interval: 2s\n  scrape_timeout: 2s\nscrape_configs:\n  - job_name: node\n    static_configs:\n      - targets: ['{exporter_address}']\nremote_write:\n  - url: {}\n    queue_config:\n      batch_send_deadline: 1s\n",
        up.collector("/api/v1/write")
    );
    let config_file = folder.join("prometheus.yml");
    std::fs::write(&config_file, config).unwrap();
    let _prometheus = Process::start(
        Command::new(prometheus)
            .arg(format!("--config.file={}", config_file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("tsdb").display()))
            .arg(format!("--web.listen-address={prometheus_address}")),
        folder.join("prometheus.log"),
    );
    eventually("scrapes arrive", || match up.number("Metrics", "NodeLoad1 | count")? {
        count if count >= SCRAPES => Ok(()),
        count => Err(format!("{count} samples of node_load1")),
    });

    let names = metric_names(&up, &prometheus_address);
    assert!(names.len() >= COMPARED, "only {} metrics", names.len());
    // A time up to which everything has been sent: compare what is older.
    let until =
        up.number("Metrics", "NodeLoad1 | summarize t = max(Timestamp) | project tolong((t - datetime(1970-01-01)) / 1ms)").unwrap() - 1;
    for name in spread(&names, COMPARED) {
        let theirs = theirs(&up, &prometheus_address, &name, until);
        assert!(!theirs.is_empty(), "Prometheus has no samples of {name}");
        eventually(&format!("all samples of {name} arrive"), || {
            let ours = ours(&up, &name, until)?;
            if ours == theirs { Ok(()) } else { Err(format!("{} series here, {} there:\n{ours:?}\n{theirs:?}", ours.len(), theirs.len())) }
        });
    }
}

/// All names that the exporter gave, but those with several metrics in one table.
fn metric_names(up: &Up, prometheus: &str) -> Vec<String> {
    let text = up.get(&format!("http://{prometheus}/api/v1/label/__name__/values")).unwrap();
    let answer: Value = serde_json::from_str(&text).unwrap();
    let names = answer["data"].as_array().unwrap().iter().filter_map(Value::as_str);
    names.filter(|name| name.starts_with("node_") || name.starts_with("go_")).map(str::to_owned).collect()
}

/// Names from all over the list.
fn spread(names: &[String], count: usize) -> Vec<String> {
    (0..count).map(|index| names[index * names.len() / count].clone()).collect()
}

/// Series by their labels as text; each with its samples (milliseconds, value as text).
type Series = BTreeMap<String, Vec<(i64, String)>>;

fn theirs(up: &Up, prometheus: &str, name: &str, until: i64) -> Series {
    // A range selector gives the raw samples.
    let url = format!("http://{prometheus}/api/v1/query?query={name}%5B1h%5D&time={:.3}", until as f64 / 1000.0);
    let answer: Value = serde_json::from_str(&up.get(&url).unwrap()).unwrap();
    let mut all = Series::new();
    for series in answer["data"]["result"].as_array().unwrap() {
        let labels: BTreeMap<&str, &str> = series["metric"]
            .as_object()
            .unwrap()
            .iter()
            .filter(|(key, _)| *key != "__name__")
            .map(|(key, value)| (key.as_str(), value.as_str().unwrap()))
            .collect();
        let samples = series["values"].as_array().unwrap().iter().map(|pair| {
            let time = (pair[0].as_f64().unwrap() * 1000.0).round() as i64;
            (time, number(pair[1].as_str().unwrap()))
        });
        all.insert(format!("{labels:?}"), samples.collect());
    }
    all
}

fn ours(up: &Up, name: &str, until: i64) -> Result<Series, String> {
    let query = format!(
        "{} | extend Ms = tolong((Timestamp - datetime(1970-01-01)) / 1ms) | where Ms <= {until} | order by Ms asc | project Labels, Ms, Value = tostring(Value)",
        table_name(name)
    );
    let mut all = Series::new();
    for row in up.query("Metrics", &query)? {
        let labels = match &row[0] {
            Value::String(text) => serde_json::from_str(text).map_err(|error| error.to_string())?,
            other => other.clone(),
        };
        let labels: BTreeMap<String, String> = labels
            .as_object()
            .ok_or("labels are no object")?
            .iter()
            .map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned()))
            .collect();
        let sample = (row[1].as_i64().ok_or("no time")?, number(row[2].as_str().ok_or("no value")?));
        all.entry(format!("{labels:?}")).or_default().push(sample);
    }
    Ok(all)
}

/// Both sides print doubles in their own way: one form for all.
fn number(text: &str) -> String {
    format!("{:?}", text.replace("Inf", "inf").parse::<f64>().unwrap_or_else(|_| panic!("not a number: {text}")))
}

/// `http_requests_total` is in the table `HttpRequestsTotal`.
fn table_name(metric: &str) -> String {
    metric
        .split(|c: char| !c.is_ascii_alphanumeric())
        .map(|word| {
            let mut chars = word.chars();
            chars.next().map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + chars.as_str())
        })
        .collect()
}
