//! Dashboards and alert rules for ADX-Mon itself: every metric that they name is exported by our programs, which are run and
//! asked; Prometheus's own tool says whether expressions and rules are right.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Parser as _;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

const RULES: &str = include_str!("../../../../deploy/prometheus/adx-mon.rules.yaml");
/// What a program is configured with so that it has all of its metrics.
const COLLECTOR: &str = "
endpoint = 'http://127.0.0.1:9'
storage-dir = 'DIR'
listen-addr = '127.0.0.1:0'
[[exporters.otlp-metric-export]]
name = 'other'
destination = 'http://127.0.0.1:9/v1/metrics'
";

fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy").join(path)
}

fn dashboards() -> Vec<(String, Value)> {
    let mut all: Vec<(String, Value)> = std::fs::read_dir(deploy("grafana"))
        .unwrap()
        .map(|file| file.unwrap().path())
        .map(|path| {
            (path.file_stem().unwrap().to_str().unwrap().to_owned(), serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap())
        })
        .collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    assert!(all.len() >= 4);
    all
}

/// Expressions of the panels of all dashboards, and of all rules, with where they are.
fn expressions() -> Vec<(String, String)> {
    let mut all = Vec::new();
    for (name, board) in dashboards() {
        for panel in board["panels"].as_array().unwrap() {
            for target in panel["targets"].as_array().into_iter().flatten() {
                let place = format!("{name}, panel {}", panel["title"]);
                all.push((place, target["expr"].as_str().unwrap().to_owned()));
            }
        }
    }
    let rules: Value = serde_saphyr::from_str(RULES).unwrap();
    for rule in rules["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap()) {
        all.push((rule["alert"].to_string(), rule["expr"].as_str().unwrap().to_owned()));
    }
    all
}

/// Names of our metrics in an expression. All of them, and nothing else, begin like this.
fn names(expression: &str) -> BTreeSet<&str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    expression.split(|c: char| !is_part(c)).filter(|word| word.starts_with("adxmon_")).collect()
}

/// Labels that an expression sums by, or picks series by. Each of our expressions has one such list for all of its metrics.
fn labels(expression: &str) -> BTreeSet<String> {
    let mut labels = BTreeSet::new();
    for part in expression.split(" by (").skip(1) {
        labels.extend(part.split(')').next().unwrap().split(',').map(|label| label.trim().to_owned()));
    }
    for part in expression.split('{').skip(1) {
        let matchers = part.split('}').next().unwrap().split(',');
        labels.extend(matchers.map(|matcher| matcher.split(['=', '!']).next().unwrap().trim().to_owned()));
    }
    // Added by Prometheus, and by histograms.
    labels.retain(|label| !["instance", "le"].contains(&label.as_str()));
    labels
}

/// What is exported: names of series, and the labels of those that there are already.
type Exported = BTreeMap<String, BTreeSet<String>>;

fn read(page: &str, exported: &mut Exported) {
    for line in page.lines() {
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            let (name, kind) = declared.split_once(' ').unwrap();
            let name = name.trim_end_matches("_total");
            let names = match kind {
                "counter" => vec![format!("{name}_total")],
                "histogram" => ["_bucket", "_sum", "_count"].map(|suffix| format!("{name}{suffix}")).to_vec(),
                _ => vec![name.to_owned()],
            };
            for name in names {
                exported.entry(name).or_default();
            }
        } else if let Some((name, rest)) = line.split_once('{').filter(|_| !line.starts_with('#')) {
            let labels = rest.split("\",").flat_map(|pair| pair.split('=').next());
            exported.entry(name.to_owned()).or_default().extend(labels.map(|label| label.trim_start_matches('}').to_owned()));
        }
    }
}

async fn page(address: SocketAddr) -> String {
    let address = if address.ip().is_unspecified() { SocketAddr::from(([127, 0, 0, 1], address.port())) } else { address };
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    answer
}

/// Runs all programs that the dashboards are about, and asks them.
async fn exported() -> Option<Exported> {
    server::install_crypto();
    let api = kube_testing::start(&[]).await?;
    api.install_crds().await.unwrap();
    let kubeconfig = api.kubeconfig("admin");
    let kubeconfig = kubeconfig.to_str().unwrap();
    let folder = TempDir::new().unwrap();
    let sub = |name: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(&path).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let stop = CancellationToken::new();
    let mut exported = Exported::new();

    let (config, _) = collector::Config::from_toml(&COLLECTOR.replace("DIR", &sub("collector")), "node").unwrap();
    let collector = collector::start(config, stop.clone()).await.unwrap();
    read(&page(collector.addr).await, &mut exported);

    let kubeconfig = format!("--kubeconfig={kubeconfig}");
    let storage = format!("--storage-dir={}", sub("ingestor"));
    let peers = format!("--peers-file={}/peers", sub("peers"));
    std::fs::write(folder.path().join("peers/peers"), "in-0=https://127.0.0.1:9\nin-1=https://127.0.0.1:10\n").unwrap();
    let args = [
        "ingestor",
        storage.as_str(),
        &kubeconfig,
        "--namespace=default",
        "--hostname=in-0",
        "--metrics-kusto-endpoints=Metrics=http://127.0.0.1:9",
        "--listen-plain=127.0.0.1:0",
        "--listen-tls=127.0.0.1:0",
        &peers,
    ];
    let ingestor = ingestor::start(ingestor::Flags::try_parse_from(args).unwrap().config().unwrap(), stop.clone()).await.unwrap();
    read(&page(ingestor.plain).await, &mut exported);

    let data = format!("--data-dir={}", sub("alerter"));
    let args =
        ["alerter", &kubeconfig, &data, "--kusto-endpoint=Metrics=http://127.0.0.1:9", "--port=0", "--alerter-address=http://127.0.0.1:9"];
    let flags = alerter::Flags::try_parse_from(args).unwrap().run;
    let config = flags.config().unwrap();
    let surroundings = alerter::surroundings(&flags, &config, stop.clone()).await.unwrap();
    let alerter = alerter::start(config, surroundings, stop.clone()).await.unwrap();
    read(&page(alerter.address()).await, &mut exported);

    let args = [
        "adxexporter",
        &kubeconfig,
        "--kusto-endpoints=Metrics=http://127.0.0.1:9",
        "--otlp-endpoint=http://127.0.0.1:9/v1/metrics",
        "--health-probe-port=127.0.0.1:0",
    ];
    let exporter = adxexporter::start(adxexporter::Flags::try_parse_from(args).unwrap().config().unwrap(), stop.clone()).await.unwrap();
    read(&page(exporter.address.unwrap()).await, &mut exported);

    let args = ["operator", &kubeconfig, "--port=0", "--listen-address=127.0.0.1"];
    let operator = operator::start(operator::Flags::try_parse_from(args).unwrap().run.config().unwrap(), stop.clone()).await.unwrap();
    read(&page(operator.address()).await, &mut exported);

    stop.cancel();
    Some(exported)
}

/// Names that the code registers. A family without series is not on the page of its program, so that running it tells the
/// half of them; what is on both must agree.
fn registered() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for component in ["adxexporter", "alerter", "collector", "exporters", "ingestor", "operator", "rules", "server", "transfer"] {
        let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(component).join("src")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
                match entry.extension() {
                    None => folders.push(entry),
                    Some(kind) if kind == "rs" => scan(&std::fs::read_to_string(entry).unwrap(), &mut names),
                    Some(_) => {}
                }
            }
        }
    }
    names
}

/// `register("name", "help", self.field.clone())`, perhaps within a registry with a prefix; the field's type tells the suffix.
fn scan(source: &str, names: &mut BTreeSet<String>) {
    let quoted = |text: &str| text.trim_start().strip_prefix('"').and_then(|rest| rest.split_once('"')).map(|(name, _)| name.to_owned());
    let mut prefix = String::new();
    for (at, _) in source.match_indices(['(', '{']) {
        let (before, after) = (&source[..at], &source[at + 1..]);
        if source[at..].starts_with('{') {
            if before.rsplit('\n').next().unwrap().contains("fn ") {
                prefix.clear();
            }
        } else if before.ends_with("sub_registry_with_prefix") {
            prefix = quoted(after).unwrap_or_default() + "_";
        } else if before.ends_with(".register") {
            let (Some(name), Some(call)) = (quoted(after), after.split(";\n").next()) else { continue };
            let Some((field, _)) = call.rsplit_once(".clone()") else { continue };
            let field = field.rsplit('.').next().unwrap();
            let declared =
                source.lines().find(|line| line.trim_start().trim_start_matches("pub(crate) ").starts_with(&format!("{field}: ")));
            let kind = declared.unwrap_or_default();
            let suffixes: &[&str] = match kind {
                kind if kind.contains("Histogram") => &["_bucket", "_sum", "_count"],
                kind if kind.contains("Counter") => &["_total"],
                _ => &[""],
            };
            names.extend(suffixes.iter().map(|suffix| format!("{prefix}{name}{suffix}")));
        } else if before.ends_with("encode_descriptor")
            && let Some(name) = quoted(after)
        {
            let is_counter = after.split(";\n").next().unwrap().contains("MetricType::Counter");
            names.insert(if is_counter { format!("{name}_total") } else { name });
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_is_exported() {
    let Some(mut exported) = exported().await else { return };
    let registered = registered();
    let both = registered.iter().filter(|name| exported.contains_key(*name)).count();
    assert!(both > 40 && registered.len() > 80, "{both} of {}", registered.len());
    for name in registered {
        let other = name.strip_suffix("_total").map_or_else(|| format!("{name}_total"), str::to_owned);
        assert!(!exported.contains_key(&other), "{name} is {other} on the page");
        exported.entry(name).or_default();
    }
    let mut with_labels = 0;
    for (place, expression) in expressions() {
        let names = names(&expression);
        assert!(!names.is_empty(), "{place}: {expression} has no metric of ours");
        for name in names {
            let known = exported.get(name).unwrap_or_else(|| panic!("{place}: {name} is not exported; these are: {:?}", exported.keys()));
            // Only series that are there from the start tell their labels.
            if !known.is_empty() {
                let unknown: Vec<_> = labels(&expression).into_iter().filter(|label| !known.contains(label)).collect();
                assert!(unknown.is_empty(), "{place}: {name} has no label {unknown:?}, but {known:?}");
                with_labels += 1;
            }
        }
    }
    assert!(with_labels > 5, "{with_labels}");
}

/// What the task names is on the dashboards: none of the metrics that tell of loss is missing.
#[test]
fn what_may_be_lost_has_an_alert_and_a_panel() {
    let rules: BTreeSet<&str> = names(RULES);
    let boards: String = dashboards().iter().map(|(_, board)| board.to_string()).collect();
    let panels = names(&boards);
    for name in [
        "adxmon_ledger_rows",
        "adxmon_collector_storage_refusing",
        "adxmon_collector_wal_segments_max_age_seconds",
        "adxmon_collector_logs_dropped",
        "adxmon_collector_exporter_dropped_total",
        "adxmon_ingestor_ledger_rows",
        "adxmon_ingestor_ledger_balanced",
        "adxmon_ingestor_wal_segments_max_age_seconds",
        "adxmon_ingestor_upload_failures_total",
        "adxmon_alerter_query_health",
        "adxmon_alerter_notifications_dropped_total",
        "adxmon_exporter_lag_seconds",
        "adxmon_summaryrule_lag_seconds",
        "adxmon_operator_reconciliations_total",
    ] {
        assert!(rules.contains(name), "no alert looks at {name}");
        assert!(panels.contains(name), "no panel shows {name}");
    }
}

/// The tool of Prometheus; none where it is missing, which in CI is a failure.
fn promtool(args: &[&str], folder: &Path) -> Option<String> {
    let program = Path::new("/usr/bin/promtool");
    if !program.exists() {
        assert!(!std::env::var("CI").is_ok_and(|ci| ci == "true"), "{} is missing", program.display());
        eprintln!("not run: promtool is missing; `cargo xtask setup` installs it");
        return None;
    }
    let ended = Command::new(program).args(args).current_dir(folder).output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert!(ended.status.success(), "{text}");
    Some(text)
}

#[test]
fn prometheus_takes_the_rules_and_their_cases_come_true() {
    let Some(checked) = promtool(&["check", "rules", "--lint=all", "--lint-fatal", "adx-mon.rules.yaml"], &deploy("prometheus")) else {
        return;
    };
    assert!(checked.contains("29 rules found"), "{checked}");
    promtool(&["test", "rules", "adx-mon.tests.yaml"], &deploy("prometheus"));
}

/// As recording rules, so that Prometheus's parser reads every expression of the dashboards.
#[test]
fn prometheus_takes_the_expressions_of_the_dashboards() {
    let rules: Vec<Value> = expressions()
        .into_iter()
        .enumerate()
        .map(|(at, (_, expression))| {
            let expression = expression.replace("$__rate_interval", "5m").replace("$instance", ".*");
            assert!(!expression.contains('$'), "{expression} has an unknown variable");
            serde_json::json!({"record": format!("panel_{at}"), "expr": expression})
        })
        .collect();
    let folder = TempDir::new().unwrap();
    let file = serde_json::json!({"groups": [{"name": "panels", "rules": rules}]});
    std::fs::write(folder.path().join("panels.json"), file.to_string()).unwrap();
    promtool(&["check", "rules", "panels.json"], folder.path());
}

/// The shape that Grafana imports: dashboard JSON model, schema version 38.
#[test]
fn dashboards_have_grafanas_shape() {
    let mut uids = BTreeSet::new();
    for (name, board) in dashboards() {
        assert_eq!(board["uid"], *name);
        assert!(uids.insert(board["uid"].to_string()));
        assert!(board["title"].as_str().unwrap().starts_with("ADX-Mon: ") && board["schemaVersion"].as_i64() == Some(38), "{name}");
        let variables: BTreeSet<&str> =
            board["templating"]["list"].as_array().unwrap().iter().map(|variable| variable["name"].as_str().unwrap()).collect();
        assert_eq!(variables, ["datasource", "instance"].into(), "{name}");
        let mut ids = BTreeSet::new();
        let mut taken = BTreeSet::new();
        for panel in board["panels"].as_array().unwrap() {
            let what = format!("{name}: {}", panel["title"]);
            assert!(ids.insert(panel["id"].as_i64().unwrap()), "{what}");
            let at = |field: &str| panel["gridPos"][field].as_i64().unwrap();
            let (x, y, w, h) = (at("x"), at("y"), at("w"), at("h"));
            assert!(x >= 0 && w > 0 && x + w <= 24 && h > 0, "{what}");
            for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
                assert!(taken.insert(cell), "{what} lies over another panel");
            }
            match panel["type"].as_str().unwrap() {
                "row" => continue,
                "timeseries" | "stat" => {}
                other => panic!("{what} is of type {other}"),
            }
            assert_eq!(panel["datasource"], serde_json::json!({"type": "prometheus", "uid": "${datasource}"}), "{what}");
            assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{what}");
            let refs: BTreeSet<&str> =
                panel["targets"].as_array().unwrap().iter().map(|target| target["refId"].as_str().unwrap()).collect();
            assert_eq!(refs.len(), panel["targets"].as_array().unwrap().len(), "{what}");
        }
    }
}
