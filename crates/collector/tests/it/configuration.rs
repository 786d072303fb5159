//! The configuration file: the reference's cases, positions, defaults, substitution.

use collector::Config;
use collector::config::reference::file_to_start_from;
use serde_json::Value;

use crate::support::vector;

fn errors(toml: &str) -> Vec<String> {
    match Config::from_toml(toml, "node-1") {
        Ok(_) => Vec::new(),
        Err(error) => error.to_string().lines().map(str::to_owned).collect(),
    }
}

/// The same without places.
fn messages(toml: &str) -> Vec<String> {
    match Config::from_toml(toml, "node-1") {
        Ok(_) => Vec::new(),
        Err(error) => error.problems.into_iter().map(|problem| problem.message).collect(),
    }
}

/// Where ours does the better thing, and what it says.
const BETTER: [(&str, Option<&str>); 4] = [
    ("unknown key ignored", Some("unknown key no-such-key; remove it or correct its name")),
    ("bad regex not validated here", Some("invalid metric regex ( in drop-metrics")),
    ("journal eq", None),
    ("defaults of `collector config`", None),
];

#[test]
fn the_reference_cases_give_the_same_first_message() {
    let text = vector("collector/config_validation.json");
    for case in serde_json::from_str::<Vec<Value>>(&text).unwrap() {
        let name = case["name"].as_str().unwrap();
        let toml = case["toml"].as_str().unwrap();
        let started = file_to_start_from();
        let toml = if toml == "<output of `collector config`>" { &started } else { toml };
        let got = if case["decode_error"].is_string() { errors(toml) } else { messages(toml) };
        if let Some((_, ours)) = BETTER.iter().find(|(better, _)| *better == name) {
            match ours {
                Some(text) => assert!(got.iter().any(|e| e.contains(text)), "{name}: {got:?}"),
                None => assert!(got.is_empty(), "{name}: {got:?}"),
            }
        } else if let Some(expected) = case["error"].as_str() {
            let first = got.first().unwrap_or_else(|| panic!("{name}: accepted, expected {expected}"));
            // What the regex compiler says differs between languages.
            let expected = expected.split(": error parsing regexp").next().unwrap();
            assert!(first.starts_with(expected), "{name}: {first}\n expected {expected}");
        } else if case["decode_error"].is_string() {
            assert!(got[0].starts_with("line 1, column 16: toml: "), "{name}: {got:?}");
        } else {
            assert!(got.is_empty(), "{name}: {got:?}");
        }
    }
}

/// Every mistake of a transform or a multi-line rule has the place of its key.
#[test]
fn transforms_are_checked_with_their_places() {
    let toml = "[otel-log]
[[otel-log.transforms]]
name = 'redact'
config = { presets = ['email', 'emial'], in = ['Body'] }
[[otel-log.transforms]]
name = 'plugin'
config = { GoPath = '/transforms', ImportName = 'x' }
[[otel-log.transforms]]
name = 'kql'
[otel-log.transforms.config]
query = '''
where Body.level != 'debug'
| summarize count() by Table'''
[[host-log]]
[[host-log.file-target]]
file-path = '/f'
database = 'd'
table = 't'
multi-line = { presets = ['go'], first-line = 'x' }
[host-log.pod-defaults]
max-line-bytes = -1
multi-line = { first-line = 'x', max-lines = 0 }
[[host-log.static-pod-target]]
name = 'p'
[[host-log.static-pod-target]]
max-line-bytes = -1
multi-line.presets = ['jvaa']
[[host-log.transforms]]
name = 'smaple'
";
    let operators = "where, extend, project, project-away, project-keep, project-rename, project-reorder, parse, parse-where, parse-kv";
    let expected = [
        "line 4, column 32: otel-log.transforms[0].config.presets[1]: emial is not a preset; did you mean email?".to_owned(),
        "line 6, column 1: otel-log.transforms[1].name: plugin: transforms written in Go cannot be run; write the transform in KQL \
         instead: name = \"kql\" with config.query = \"where … | extend …\""
            .to_owned(),
        format!(
            "line 11, column 1: otel-log.transforms[2].config.query: line 2, column 3 of the query: Unsupported: SEM0002: summarize needs \
             many rows, and here each row is alone; use only {operators}"
        ),
        "line 19, column 16: host-log.file-target.multi-line.presets: multi-line takes either first-line or presets, not both".to_owned(),
        "line 21, column 1: host-log.pod-defaults.max-line-bytes must be at least 0".to_owned(),
        "line 22, column 34: host-log.pod-defaults.multi-line.max-lines: must be at least 1".to_owned(),
        "line 26, column 1: host-log.static-pod-target.max-line-bytes must be at least 0".to_owned(),
        "line 27, column 12: host-log.static-pod-target.multi-line.presets: jvaa is not a preset of multi-line; use one of java, python, \
         go, node"
            .to_owned(),
        "line 29, column 1: host-log.transforms smaple is not a valid transform; did you mean sample?".to_owned(),
    ];
    assert_eq!(errors(toml), expected);
}

#[test]
fn all_unknown_keys_are_reported_with_their_place() {
    let toml = "endpiont = 'x'\n[otel-log]\nrequest-timeout-seconds = 5\n  colour = 1\n[[prometheus-remote-write]]\npath='/r'\ndatabase='m'\n  size = 2\n";
    let got = errors(toml);
    assert_eq!(got.len(), 3, "{got:?}");
    assert!(got[0].starts_with("line 1, column 1: unknown key endpiont"), "{got:?}");
    assert!(got.iter().any(|e| e.starts_with("line 4, column 3: unknown key otel-log.colour")), "{got:?}");
    assert!(got.iter().any(|e| e.starts_with("line 8, column 3: unknown key prometheus-remote-write.0.size")), "{got:?}");
}

#[test]
fn all_values_of_a_wrong_type_are_reported_and_what_follows_from_them_is_not() {
    let toml = "\
storage-dir = 7
max-segment-size = 'large'
drop-metrics = ['ok', 1, '(']
[[prometheus-remote-write]]
path = '/r'
database = 3
  size = 2
[[prometheus-remote-write]]
database = 'm'
[[otel-metric]]
path = '/m'
database = { name = 'm' }
[otel-log]
transforms = 'all'
";
    let expected = [
        "line 1, column 15: toml: invalid type: integer `7`, expected a string",
        "line 2, column 20: toml: invalid type: string \"large\", expected i64",
        "line 3, column 23: toml: invalid type: integer `1`, expected a string",
        "line 6, column 12: toml: invalid type: integer `3`, expected a string",
        "line 12, column 12: toml: invalid type: map, expected a string",
        "line 14, column 14: toml: invalid type: string \"all\", expected a sequence",
        "line 3, column 1: invalid metric regex ( in drop-metrics",
        "line 8, column 1: prometheus-remote-write.path must be set",
        "line 7, column 3: unknown key prometheus-remote-write.0.size",
    ];
    // A regular expression is shown with its mistake below it.
    let got: Vec<_> = errors(toml).into_iter().filter(|line| line.starts_with("line ")).collect();
    for (got, expected) in got.iter().zip(expected) {
        assert!(got.starts_with(expected), "{expected}\n in:\n{got}");
    }
    assert_eq!(got.len(), expected.len(), "{got:#?}");
    // With too many of them nothing else is looked for.
    let many = format!("drop-metrics = [{}]\nsize = 2\n", "1, ".repeat(150));
    assert_eq!(errors(&many).len(), 100);
}

/// Each kind of problem at the key that it is about, or at the table that lacks the key.
#[test]
fn problems_have_places() {
    let toml = "\
storage-dir = '/x'
tls-cert-file = 'a'
drop-metrics = ['ok', '(']
[kubelet-discovery]
port = 70000
[[prometheus-remote-write]]
path = '/r'
[[prometheus-remote-write]]
database = 'm'
path = '/r'
exporters = [
  'none',
]
[[otel-metric]]
database = 'm'
path = '/m'
add-labels = { a = '' }
[[otel-metric.keep-metrics-with-label-value]]
label-regex = 'x'
[otel-log]
request-timeout-seconds = 301
[[host-log]]
disable-kube-discovery = true
[[host-log.journal-target]]
database = 'd'
table = 't'
matches = ['A=b',
  'C']
[[host-log.file-target]]
file-path = '/f'
  log-type = 'nope'
database = 'd'
[add-metadata-labels.kubernetes-node.labels]
";
    let got = errors(toml);
    for expected in [
        "line 2, column 1: tls-cert-file and tls-key-file must both",
        "line 3, column 1: invalid metric regex ( in drop-metrics",
        "line 5, column 1: kubelet-discovery.port must be",
        "line 6, column 1: prometheus-remote-write.database must be set",
        "line 10, column 1: prometheus-remote-write.path /r is already defined",
        "line 12, column 3: prometheus-remote-write.exporters \"none\" not found",
        "line 17, column 16: otel-metric.add-labels value must be set",
        "line 18, column 1: otel-metric.keep-metrics-with-label-value value-regex must be set",
        "line 21, column 1: otel-log.request-timeout-seconds must not exceed 300",
        "line 28, column 3: host-log.journal-target.match C must be in the format key=value",
        "line 29, column 1: host-log.file-target.table must be set",
        "line 31, column 3: host-log.file-target.log-type nope",
        "line 33, column 22: metadata-watch.kubernetes-node must be configured",
    ] {
        assert!(got.iter().any(|e| e.starts_with(expected)), "{expected}\n in:\n{}", got.join("\n"));
    }
    assert_eq!(messages(toml).len(), 13, "{}", got.join("\n"));
}

#[test]
fn mistakes_of_syslog_and_journal() {
    let toml = "\
[[syslog]]
listen-addr = '127.0.0.1'
protocol = 'sctp'
tls-cert-file = 'x'
database = 'd'
parsers = ['xml']
[[syslog]]
listen-addr = ':514'
tls-cert-file = 'x'
tls-key-file = 'y'
database = 'd'
table = '--'
max-connections = -1
[[host-log]]
disable-kube-discovery = true
[[host-log.journal-target]]
database = 'd'
table = 't'
matches = ['A=b=c', '+', 'C=']
";
    let got = errors(toml);
    for expected in [
        "line 2, column 1: syslog.listen-addr 127.0.0.1: missing port in address",
        "line 3, column 1: syslog.protocol \"sctp\" must be \"udp\" or \"tcp\"",
        "line 4, column 1: syslog.tls-cert-file and syslog.tls-key-file must both",
        "line 1, column 1: syslog.table must be set",
        "line 6, column 12: syslog.parsers xml is not a valid parser",
        "line 7, column 1: syslog.protocol must be \"tcp\" for TLS",
        "line 12, column 1: syslog.table \"--\" must contain an ASCII letter or digit",
        "line 13, column 1: syslog.max-connections must be at least 0",
        "line 19, column 26: host-log.journal-target.match C= must have a value",
    ] {
        assert!(got.iter().any(|e| e.starts_with(expected)), "{expected}\n in:\n{}", got.join("\n"));
    }
    assert_eq!(got.len(), 9, "{}", got.join("\n"));
}

#[test]
fn mistakes_of_kubernetes_events() {
    let toml = "\
[kubernetes-events]
database = '--'
namespaces = ['shop', 'Shop', 'shop', '-a', '']
exporters = ['nobody']
interval = 3
[kubernetes-events.add-attributes]
a = ''
";
    let wanted = [
        "line 1, column 2: kubernetes-events.table must be set",
        "line 2, column 1: kubernetes-events.database \"--\" must contain an ASCII letter or digit",
        "line 3, column 23: kubernetes-events.namespaces \"Shop\" is not the name of a namespace",
        "line 3, column 31: kubernetes-events.namespaces \"shop\" is there twice",
        "line 3, column 39: kubernetes-events.namespaces \"-a\" is not the name",
        "line 3, column 45: kubernetes-events.namespaces \"\" is not the name",
        "line 4, column 14: kubernetes-events.exporters \"nobody\" not found",
        "line 5, column 1: unknown key kubernetes-events.interval",
        "line 7, column 1: kubernetes-events.add-attributes value must be set",
    ];
    let mut got = errors(toml);
    got.sort();
    assert_eq!(got.len(), wanted.len(), "{}", got.join("\n"));
    for (got, wanted) in got.iter().zip(wanted) {
        assert!(got.starts_with(wanted), "{got} is not {wanted}");
    }
}

#[test]
fn all_problems_are_reported_at_once() {
    let got = messages("tls-cert-file='a'\nwal-flush-interval-ms=-1\n[prometheus-scrape]\n");
    assert_eq!(
        got,
        [
            "tls-cert-file and tls-key-file must both be set or both be empty",
            "prom-scrape.database must be set",
            "prom-scrape.scrape-interval must be greater than 0",
            "wal-flush-interval must be greater than 0",
        ]
    );
}

#[test]
fn a_hand_written_file_gets_real_defaults() {
    let (config, warnings) = Config::from_toml("storage-dir='/x'", "node-1").unwrap();
    assert_eq!(config.listen_addr, ":8080");
    // An empty address is the usual one: the reference listens on a port that nobody knows.
    let (empty, _) = Config::from_toml("storage-dir='/x'\nlisten-addr=''", "node-1").unwrap();
    assert_eq!(empty.listen_addr, ":8080");
    assert_eq!((config.segment_max_bytes, config.segment_max_age.as_secs()), (1 << 20, 30));
    assert_eq!((config.max_disk_bytes, config.transfer_concurrency), (10 << 30, 5));
    assert_eq!(config.durability, wal::Durability::Disk);
    assert!(config.transfer_gzip);
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].0.starts_with("endpoint is empty"), "{warnings:?}");
    let scrape = "storage-dir='/x'\n[prometheus-scrape]\ndatabase='M'\nscrape-interval=1\ndisable-discovery=true";
    let (config, _) = Config::from_toml(scrape, "node-1").unwrap();
    assert_eq!(config.scrape.unwrap().batch_samples, 5000, "of max-batch-size");
}

/// The reference sends its token to every target and checks no certificate.
#[test]
fn targets_that_are_scraped_otherwise_than_by_the_reference_are_named() {
    let target = |url: &str, more: &str| {
        format!("[[prometheus-scrape.static-scrape-target]]\nhost-regex='.*'\nurl='{url}'\nnamespace='n'\npod='p'\ncontainer='c'\n{more}\n")
    };
    let toml = [
        "storage-dir='/x'\nendpoint='http://i'\n[prometheus-scrape]\ndatabase='M'\nscrape-interval=1\ndisable-discovery=true\n".to_owned(),
        target("https://$(HOSTNAME):10250/metrics/cadvisor", ""),
        target("https://$(HOSTNAME):10250/metrics", "service-account-token=true"),
        target("https://a/metrics", "insecure-skip-verify=true"),
        target("https://b/metrics", "ca-file='/ca.crt'"),
        target("http://c/metrics", ""),
    ];
    let (_, warnings) = Config::from_toml(&toml.concat(), "node-1").unwrap();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    let named = "prometheus-scrape.static-scrape-target https://node-1:10250/metrics/cadvisor: its certificate is checked";
    assert!(warnings[0].0.starts_with(named) && warnings[0].0.contains("service-account-token = true"), "{warnings:?}");
}

#[test]
fn hostname_is_substituted_in_values_and_selects_targets() {
    let toml = "storage-dir='/data/$(HOSTNAME)'\nregion='$(HOSTNAME)'\n[prometheus-scrape]\ndatabase='M'\nscrape-interval=1\ndisable-discovery=true\n\
        [[prometheus-scrape.static-scrape-target]]\nhost-regex='^node-'\nurl='http://$(HOSTNAME):9100/metrics'\nnamespace='n'\npod='p'\ncontainer='c'\n\
        [[prometheus-scrape.static-scrape-target]]\nhost-regex='^other$'\nurl='http://x/'\nnamespace='n'\npod='p'\ncontainer='c'\n";
    let (config, _) = Config::from_toml(toml, "node-1").unwrap();
    assert_eq!((config.storage_dir.to_str(), config.region.as_str()), (Some("/data/node-1"), "node-1"));
    let targets = config.scrape.unwrap().targets;
    assert_eq!(targets.len(), 1);
    assert_eq!(targets[0].url, "http://node-1:9100/metrics");
}

#[test]
fn paths_of_the_collector_itself_cannot_be_taken() {
    for path in ["/metrics", "/readyz", "/healthz", "/debug/store"] {
        let got = messages(&format!("[[prometheus-remote-write]]\npath='{path}'\ndatabase='m'"));
        assert!(got[0].contains("is used by the collector itself"), "{got:?}");
    }
    let got = messages("[otel-log]\n[[prometheus-remote-write]]\npath='/v1/logs'\ndatabase='m'");
    assert!(got[0].contains("is used by the collector itself"), "{got:?}");
    let got = messages("[otel-trace]\n[[otel-metric]]\npath='/v1/traces'\ndatabase='m'");
    assert!(got[0].contains("is already defined"), "{got:?}");
}

/// The reference adds those of the top of the file to OTLP records alone.
#[test]
fn attributes_are_added_to_records_of_all_sources() {
    let target = "database = 'D'\ntable = 'T'\n";
    let toml = format!(
        "storage-dir = '/x'\nadd-labels = {{ a = 'label', b = 'label', c = 'label' }}\nadd-attributes = {{ b = 'top', c = 'top' }}\n[otel-log]\n\
         [[host-log]]\ndisable-kube-discovery = true\nadd-attributes = {{ c = 'own' }}\n\
         [[host-log.file-target]]\nfile-path = '/l/*.log'\n{target}[[host-log.journal-target]]\n{target}[[host-log.kernel-target]]\n{target}\
         [[syslog]]\nlisten-addr = '127.0.0.1:0'\nprotocol = 'udp'\nadd-attributes = {{ c = 'own' }}\n{target}"
    );
    let (config, _) = Config::from_toml(&toml, "node-1").unwrap();
    let expected = [("a", "label"), ("b", "top"), ("c", "own")].map(|(n, v)| (n.to_owned(), v.to_owned()));
    let sources = [&config.files[0].shared, &config.journals[0].shared, &config.kernels[0].shared, &config.syslog[0].shared];
    for source in sources {
        assert_eq!(source.add_attributes.clone().into_iter().collect::<Vec<_>>(), expected);
    }
    let otlp = config.logs.unwrap().options.add_attributes;
    assert_eq!(otlp.into_iter().collect::<Vec<_>>(), [("b", "top"), ("c", "top")].map(|(n, v)| (n.to_owned(), v.to_owned())));
}

/// A table has no two columns of one name, and Kusto would refuse every row.
#[test]
fn lifted_columns_have_names_of_their_own() {
    let lift = |kind: &str, name: &str, column: &str| format!("[[{kind}]]\nname='{name}'\ncolumn='{column}'\n");
    let cases = [
        (lift("lift-labels", "a.b", "") + &lift("lift-labels", "a_b", ""), "lift-labels \"a_b\": column AB exists already"),
        (lift("lift-labels", "value", ""), "lift-labels \"value\": column Value exists already"),
        (lift("lift-resources", "x", "TraceId"), "lift-resources \"x\": column TraceId exists already"),
        (lift("lift-labels", "---", ""), "lift-labels \"---\" needs a column"),
    ];
    for (toml, wanted) in cases {
        let got = messages(&toml);
        assert!(got.len() == 1 && got[0].starts_with(wanted), "{got:?}, expected {wanted}");
    }
    let fine = format!("storage-dir='/x'\n{}{}", lift("lift-labels", "TraceId", ""), lift("lift-resources", "value", ""));
    assert_eq!(messages(&fine), [""; 0]);
}

#[test]
fn destinations_without_a_letter_or_digit_are_refused() {
    let got = messages("[otel-log]\ndefault-database='-'\ndefault-table='_'\n[otel-trace]\ndatabase='.'\ntable='+'\n");
    let names = ["otel-log.default-database", "otel-log.default-table", "otel-trace.database", "otel-trace.table"];
    assert_eq!(got.len(), names.len(), "{got:?}");
    for (got, name) in got.iter().zip(names) {
        assert!(got.starts_with(name) && got.ends_with("must contain an ASCII letter or digit"), "{got}");
    }
}

#[test]
fn labels_of_the_reference_are_a_switch() {
    let toml =
        "storage-dir='/x'\n[[otel-metric]]\npath='/a'\ndatabase='m'\nreference-labels=true\n[[otel-metric]]\npath='/b'\ndatabase='m'\n";
    let (config, _) = Config::from_toml(toml, "node-1").unwrap();
    let switches: Vec<bool> = config.metrics.iter().map(|endpoint| endpoint.reference_labels).collect();
    assert_eq!(switches, [true, false]);
}

/// Every key of the reference's file (collector spec §2).
const EVERY_KEY: &str = "
endpoint = 'https://i'
kube-config = '/k'
insecure-skip-verify = true
listen-addr = ':8080'
region = 'r'
tls-key-file = '/key'
tls-cert-file = '/cert'
storage-backend = 'adx'
max-connections = 1
max-batch-size = 1
max-segment-age-seconds = 1
max-segment-size = 1
max-disk-usage = 1
wal-flush-interval-ms = 1
max-transfer-concurrency = 1
storage-dir = '/x'
enable-pprof = true
default-drop-metrics = true
add-labels = { a = 'b' }
drop-labels = { a = 'b' }
drop-metrics = ['a']
keep-metrics = ['a']
keep-metrics-with-label-value = [{ label-regex = 'a', value-regex = 'b' }]
lift-labels = [{ name = 'a', column = 'B' }]
disable-metrics-forwarding = true
disable-gzip = true
add-attributes = { a = 'b' }
lift-attributes = ['a']
lift-resources = [{ name = 'a', column = 'B' }]
kubelet-discovery = { host = 'h', port = 1, poll-interval = 1, request-timeout = 1, token-path = '/t', ca-path = '/c' }
metadata-watch = { kubernetes-node = {} }
add-metadata-labels = { kubernetes-node = { labels = { a = 'b' }, annotations = { a = 'b' } } }
[prometheus-scrape]
scrape-interval = 1
scrape-timeout = 1
disable-discovery = false
static-scrape-target = [{ host-regex = 'a', url = 'http://u', namespace = 'n', pod = 'p', container = 'c' }]
METRICS
[[prometheus-remote-write]]
path = '/r'
request-timeout-seconds = 1
METRICS
[[otel-metric]]
path = '/m'
grpc-port = 1
request-timeout-seconds = 1
METRICS
[otel-log]
request-timeout-seconds = 1
add-attributes = { a = 'b' }
lift-attributes = ['a']
transforms = [{ name = 'logrouter' }]
exporters = ['fluent']
add-metadata-labels = { kubernetes-node = { labels = { a = 'b' } } }
[[host-log]]
disable-kube-discovery = true
add-attributes = { a = 'b' }
parsers = ['json']
file-target = [{ file-path = '/f', log-type = 'cri', database = 'd', table = 't', parsers = ['json'] }]
static-pod-target = [{ namespace = 'n', name = 'n', label-targets = { a = 'b' }, destination = 'd:t', parsers = ['klog'] }]
journal-target = [{ matches = ['a=b'], database = 'd', table = 't', parsers = ['space'], journal-fields = ['F'] }]
kernel-target = [{ database = 'd', table = 't', priority = 'err' }]
transforms = [{ name = 'addattributes', config = { ResourceValues = { a = 'b' } } }]
exporters = ['fluent']
add-metadata-labels = { kubernetes-node = { labels = { a = 'b' } } }
[[exporters.otlp-metric-export]]
name = 'otlp'
destination = 'http://x'
default-drop-metrics = true
add-labels = { a = 'b' }
drop-labels = { a = 'b' }
drop-metrics = ['a']
keep-metrics = ['a']
keep-metrics-with-label-value = [{ label-regex = 'a', value-regex = 'b' }]
add-resource-attributes = { a = 'b' }
[[exporters.fluent-forward-log-export]]
name = 'fluent'
destination = 'tcp://h:1'
tag-attribute = 't'
";

/// The keys that all sources of metrics have.
const METRICS: &str = "
database = 'M'
disable-metrics-forwarding = true
default-drop-metrics = true
add-labels = { a = 'b' }
drop-labels = { a = 'b' }
drop-metrics = ['a']
keep-metrics = ['a']
keep-metrics-with-label-value = [{ label-regex = 'a', value-regex = 'b' }]
add-metadata-labels = { kubernetes-node = { labels = { a = 'b' } } }
exporters = ['otlp']
";

/// Nothing is ignored in silence: what this version does not do is named.
#[test]
fn every_key_of_the_reference_is_known_and_what_is_not_run_is_named() {
    let (_, warnings) = Config::from_toml(&EVERY_KEY.replace("METRICS", METRICS), "node-1").unwrap_or_else(|error| panic!("{error}"));
    let mut absent: Vec<_> = warnings.iter().filter_map(|w| w.0.split_once(" has no effect: ").map(|(name, _)| name)).collect();
    absent.sort_unstable();
    let expected = ["host-log.parsers", "lift-attributes", "otel-log.lift-attributes"];
    assert_eq!(absent, expected);
}

/// Exporters: keys of ours beside the reference's, and references by what an exporter takes.
#[test]
fn exporters_are_checked() {
    let toml = "storage-dir='/x'\n[otel-log]\nexporters=['rw']\n[[otel-metric]]\ndatabase='m'\npath='/m'\nexporters=['fl', 'rw']\n\
        [[exporters.otlp-metric-export]]\nname='o'\ndestination='collector:4317'\nprotocol='http'\ncompression='zstd'\n\
        [[exporters.remote-write-metric-export]]\nname='rw'\ndestination='http://p/write'\nmax-buffer-size=-1\nclient-key-file='/k'\n\
        [[exporters.fluent-forward-log-export]]\nname='fl'\ndestination='tls://h:1'\ntag-attribute='t'\nrequest-timeout-seconds=-1\n";
    let got = errors(toml);
    let wanted = [
        "line 3, column 12: otel-log.exporters \"rw\" takes metrics, not logs",
        "line 7, column 12: otel-metric.exporters \"fl\" takes logs, not metrics",
        "line 10, column 1: exporter.otlp-metric-export[0].destination collector:4317 must be a full http or https URL",
        "line 11, column 1: exporter.otlp-metric-export[0].protocol \"http\": use http/protobuf or grpc",
        "line 12, column 1: exporter.otlp-metric-export[0].compression \"zstd\": use gzip or none",
        "line 17, column 1: exporter.remote-write-metric-export[0].client-cert-file and client-key-file must both be set or both be empty",
        "line 16, column 1: exporter.remote-write-metric-export[0].max-buffer-size must be at least 0",
        "line 22, column 1: exporter.fluent-forward-log-export[0].request-timeout-seconds must be at least 0",
    ];
    assert_eq!(got, wanted);
}

/// `endpoint` is one URL, several with commas, or an array.
#[test]
fn ingestors_may_be_several() {
    let endpoints = |text: &str| Config::from_toml(&format!("storage-dir='/x'\nendpoint={text}"), "n").unwrap().0.endpoints;
    assert_eq!(endpoints("'http://a'"), ["http://a"]);
    assert_eq!(endpoints("'http://a, https://b:9090'"), ["http://a", "https://b:9090"]);
    assert_eq!(endpoints("['http://a', 'http://b']"), ["http://a", "http://b"]);
    assert!(endpoints("''").is_empty() && endpoints("[]").is_empty());
    assert_eq!(messages("endpoint='http://a,ftp://b'"), ["endpoint ftp://b must be http or https"]);
    assert!(messages("endpoint=3")[0].contains("expected a string or an array of strings"), "{:?}", messages("endpoint=3"));
}
