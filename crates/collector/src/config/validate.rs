//! What a file must and must not say, in the order and with the words of the reference, all of it
//! at once.

use std::collections::HashSet;

use super::file::{
    Exporters, File, FluentForwardLogExport, HostLog, JournalTarget, LabelMatcher, Lift, Map, MetadataLabels, MetricSource, Transform,
};
use super::rules::RuleScope;
use super::settings::Backend;
use super::{Problem, settings};
use telemetry::Schema;

/// The problems of `file`; the first is what the reference would say.
pub(super) fn problems(file: &File) -> Vec<Problem> {
    let mut check = Check { file, exporters: HashSet::new(), paths: HashSet::new(), problems: Vec::new() };
    check.all();
    check.problems
}

struct Check<'a> {
    file: &'a File,
    exporters: HashSet<&'a str>,
    paths: HashSet<&'a str>,
    problems: Vec<Problem>,
}

impl<'a> Check<'a> {
    fn say(&mut self, message: impl Into<String>) {
        self.problems.push(Problem { position: None, message: message.into() });
    }

    fn require(&mut self, value: &str, name: &str) {
        if value.is_empty() {
            self.say(format!("{name} must be set"));
        }
    }

    fn all(&mut self) {
        let file = self.file;
        if let Err(message) = Backend::parse(file.storage_backend.as_deref()) {
            self.say(message);
        }
        self.kubelet();
        self.exporters(&file.exporters);
        self.metadata("", file.add_metadata_labels.as_ref());
        if file.tls_cert_file.is_empty() != file.tls_key_file.is_empty() {
            self.say("tls-cert-file and tls-key-file must both be set or both be empty");
        }
        self.lifts("lift-labels", &file.lift_labels);
        self.lifts("lift-resources", &file.lift_resources);
        self.global_rules();
        self.remote_write();
        self.otel_log();
        self.otel_trace();
        self.host_logs();
        self.otel_metric();
        self.scrape();
        if file.wal_flush_interval_ms < 0 {
            self.say("wal-flush-interval must be greater than 0");
        }
        self.top_level();
    }

    fn kubelet(&mut self) {
        let Some(kubelet) = &self.file.kubelet_discovery else { return };
        if !(0..=65535).contains(&kubelet.port) {
            self.say("kubelet-discovery.port must be between 0 and 65535");
        }
        if kubelet.poll_interval < 0 {
            self.say("kubelet-discovery.poll-interval must be at least 1 second");
        }
        if kubelet.request_timeout < 0 {
            self.say("kubelet-discovery.request-timeout must be at least 1 second");
        }
    }

    fn exporters(&mut self, exporters: &'a Exporters) {
        for (i, export) in exporters.otlp_metric_export.iter().enumerate() {
            let scope = format!("exporter.otlp-metric-export[{i}]");
            self.exporter_name(&scope, &export.name);
            self.require(&export.destination, &format!("{scope}.destination"));
            if let Err(error) = RuleScope::export(export).compile() {
                self.say(format!("{scope}.invalid exporter config: {}", invalid_regex(&error)));
            }
        }
        for (i, export) in exporters.fluent_forward_log_export.iter().enumerate() {
            let scope = format!("exporter.fluent-forward-log-export[{i}]");
            self.exporter_name(&scope, &export.name);
            self.fluent(&scope, export);
        }
    }

    fn exporter_name(&mut self, scope: &str, name: &'a str) {
        self.require(name, &format!("{scope}.name"));
        if !name.is_empty() && !self.exporters.insert(name) {
            self.say(format!("{scope}.name {name:?} is not unique"));
        }
    }

    fn fluent(&mut self, scope: &str, export: &FluentForwardLogExport) {
        let destination = &export.destination;
        if destination.is_empty() {
            self.say(format!("{scope}.destination must be set"));
        } else if let Err(reason) = fluent_destination(destination) {
            self.say(format!("{scope}.invalid destination {destination}: {reason}"));
        }
        self.require(&export.tag_attribute, &format!("{scope}.tag-attribute"));
    }

    fn metadata(&mut self, scope: &str, labels: Option<&MetadataLabels>) {
        let Some(node) = labels.and_then(|l| l.kubernetes_node.as_ref()) else { return };
        let prefix = if scope.is_empty() { String::new() } else { format!("{scope}.add-metadata-labels: ") };
        if self.file.metadata_watch.as_ref().is_none_or(|w| w.kubernetes_node.is_none()) {
            self.say(format!("{prefix}metadata-watch.kubernetes-node must be configured when add-metadata-labels.kubernetes-node is used"));
        }
        for (name, map) in [("labels", &node.labels), ("annotations", &node.annotations)] {
            self.map_entries(&format!("{prefix}add-metadata-labels.kubernetes-node.{name}"), map);
        }
    }

    fn map_entries(&mut self, name: &str, map: &Map) {
        for (key, value) in map {
            if key.is_empty() {
                self.say(format!("{name} key must be set"));
            }
            if value.is_empty() {
                self.say(format!("{name} value must be set"));
            }
        }
    }

    fn lifts(&mut self, name: &str, lifts: &[Lift]) {
        for lift in lifts {
            self.require(&lift.name, &format!("{name}.name"));
            if !lift.column.bytes().all(|b| b.is_ascii_alphanumeric()) {
                self.say(format!("{name}.column-name `{}` contains invalid characters", lift.column));
            }
        }
        self.lifted_columns(name, lifts);
    }

    /// A table has no two columns of one name.
    fn lifted_columns(&mut self, name: &str, lifts: &[Lift]) {
        let base = if name == "lift-labels" { Schema::metrics(&[]) } else { Schema::logs(&[]) };
        let mut taken: HashSet<String> = base.columns.into_iter().map(|column| column.name).collect();
        for lift in settings::lifts(lifts).iter().filter(|lift| !lift.name.is_empty()) {
            let column = lift.column_name();
            if column.is_empty() {
                self.say(format!("{name} {:?} needs a column: its name has no ASCII letter or digit", lift.name));
            } else if !taken.insert(column.clone()) {
                self.say(format!("{name} {:?}: column {column} exists already; set another column", lift.name));
            }
        }
    }

    fn global_rules(&mut self) {
        if let Err(error) = RuleScope::global(self.file).compile() {
            self.say(invalid_regex(&error));
        }
    }

    fn remote_write(&mut self) {
        for source in &self.file.prometheus_remote_write {
            let name = "prometheus-remote-write";
            self.require(&source.path, &format!("{name}.path"));
            self.require(&source.database, &format!("{name}.database"));
            self.path(name, &source.path);
            self.metric_source(name, &source.source(), ("key", "value"));
            self.timeout(name, source.request_timeout_seconds);
        }
    }

    fn otel_metric(&mut self) {
        for (i, source) in self.file.otel_metric.iter().enumerate() {
            let name = "otel-metric";
            if source.path.is_empty() && source.grpc_port == 0 {
                self.say("otel-metric.path or otel-metric.grpc-port must be set");
            }
            if source.grpc_port != 0 && !(1..=65535).contains(&source.grpc_port) {
                self.say("otel-metric.grpc-port must be between 1 and 65535");
            }
            self.require(&source.database, &format!("{name}.database"));
            self.path(&format!("{name}[{i}]"), &source.path);
            self.metric_source(name, &source.source(), ("label-regex", "value-regex"));
            self.timeout(name, source.request_timeout_seconds);
        }
    }

    fn path(&mut self, scope: &str, path: &'a str) {
        if path.is_empty() {
            return;
        }
        if !path.starts_with('/') || path.contains(['{', '}', '?', '#']) {
            self.say(format!("{scope}.path {path} must start with / and name one plain path"));
        } else if !self.paths.insert(path) {
            self.say(format!("{scope}.path {path} is already defined"));
        } else if settings::OWN_PATHS.contains(&path) || (path == settings::LOGS_PATH && self.file.otel_log.is_some()) {
            self.say(format!("{scope}.path {path} is used by the collector itself; choose another"));
        }
    }

    fn metric_source(&mut self, name: &str, source: &MetricSource, (key, value): (&str, &str)) {
        self.map_entries(&format!("{name}.add-labels"), &source.add_labels);
        self.map_entries(&format!("{name}.drop-labels"), &source.drop_labels);
        for LabelMatcher { label_regex, value_regex } in &source.keep_metrics_with_label_value {
            self.require(label_regex, &format!("{name}.keep-metrics-with-label-value {key}"));
            self.require(value_regex, &format!("{name}.keep-metrics-with-label-value {value}"));
        }
        self.exporter_references(name, &source.exporters);
        self.metadata(name, source.add_metadata_labels.as_ref());
        if let Err(error) = RuleScope::source(source).compile() {
            self.say(format!("{name}: {}", invalid_regex(&error)));
        }
        self.identifier(&format!("{name}.database"), &source.database);
    }

    /// Databases and tables keep their ASCII letters and digits only; one without any has no name left.
    fn identifier(&mut self, name: &str, value: &str) {
        if !value.is_empty() && !value.bytes().any(|b| b.is_ascii_alphanumeric()) {
            self.say(format!("{name} {value:?} must contain an ASCII letter or digit"));
        }
    }

    fn exporter_references(&mut self, name: &str, references: &[String]) {
        for reference in references {
            if !self.exporters.contains(reference.as_str()) {
                self.say(format!("{name}.exporters {reference:?} not found"));
            }
        }
    }

    fn timeout(&mut self, name: &str, seconds: i64) {
        if seconds < 0 {
            self.say(format!("{name}.request-timeout-seconds must be greater than 0"));
        }
        if seconds > 300 {
            self.say(format!("{name}.request-timeout-seconds must not exceed 300"));
        }
    }

    fn otel_log(&mut self) {
        let Some(log) = &self.file.otel_log else { return };
        self.timeout("otel-log", log.request_timeout_seconds);
        self.transforms("otel-log", &log.transforms);
        self.exporter_references("otel-log", &log.exporters);
        self.metadata("otel-log", log.add_metadata_labels.as_ref());
        if log.default_database.is_empty() != log.default_table.is_empty() {
            self.say("otel-log.default-database and otel-log.default-table must both be set or both be empty");
        }
        self.identifier("otel-log.default-database", &log.default_database);
        self.identifier("otel-log.default-table", &log.default_table);
    }

    fn otel_trace(&mut self) {
        let Some(trace) = &self.file.otel_trace else { return };
        self.timeout("otel-trace", trace.request_timeout_seconds);
        self.identifier("otel-trace.database", &trace.database);
        self.identifier("otel-trace.table", &trace.table);
        self.path("otel-trace", if trace.path.is_empty() { settings::TRACES_PATH } else { &trace.path });
    }

    fn host_logs(&mut self) {
        let mut discovering = 0;
        for (i, log) in self.file.host_log.iter().enumerate() {
            self.host_log(log);
            self.metadata(&format!("host-log[{i}]"), log.add_metadata_labels.as_ref());
            if !log.disable_kube_discovery {
                discovering += 1;
                if discovering > 1 {
                    self.say(format!("host-log[{i}].disable-kube-discovery not set for more than one HostLog configuration"));
                }
            }
        }
    }

    fn host_log(&mut self, log: &HostLog) {
        self.map_entries("host-log.add-attributes", &log.add_attributes);
        for target in &log.file_target {
            let name = "host-log.file-target";
            self.require(&target.file_path, &format!("{name}.file-path"));
            self.require(&target.database, &format!("{name}.database"));
            self.require(&target.table, &format!("{name}.table"));
            if !["", "plain", "docker", "cri", "kubernetes"].contains(&target.log_type.as_str()) {
                self.say(format!("{name}.log-type {} is not a valid log type", target.log_type));
            }
            self.parsers(name, &target.parsers);
        }
        for target in &log.journal_target {
            self.journal(target);
        }
        for target in &log.kernel_target {
            let name = "host-log.kernel-target";
            self.require(&target.database, &format!("{name}.database"));
            self.require(&target.table, &format!("{name}.table"));
            if !target.priority.is_empty() && !KERNEL_PRIORITIES.contains(&target.priority.as_str()) {
                let known = KERNEL_PRIORITIES.join(", ");
                self.say(format!("{name}.priority {:?} is not valid, must be one of: {known}", target.priority));
            }
        }
        self.transforms("host-log", &log.transforms);
        self.exporter_references("host-log", &log.exporters);
    }

    fn journal(&mut self, target: &JournalTarget) {
        let name = "host-log.journal-target";
        self.require(&target.database, &format!("{name}.database"));
        self.require(&target.table, &format!("{name}.table"));
        for (i, text) in target.matches.iter().enumerate() {
            match (text.as_str(), text.split_once('=')) {
                ("", _) => self.say(format!("{name}.match must have a value")),
                ("+", _) if i == 0 => self.say(format!("{name}.matches must not start with +")),
                ("+", _) => {}
                (_, None) => self.say(format!("{name}.match {text} must be in the format key=value")),
                (_, Some(("", _))) => self.say(format!("{name}.match {text} must have a key")),
                (_, Some((_, ""))) => self.say(format!("{name}.match {text} must have a value")),
                (_, Some(_)) => {}
            }
        }
        self.parsers(name, &target.parsers);
    }

    fn parsers(&mut self, name: &str, parsers: &[String]) {
        for parser in parsers {
            if !["json", "keyvalue", "klog", "space"].contains(&parser.as_str()) {
                self.say(format!("{name}.parsers {parser} is not a valid parser"));
            }
        }
    }

    fn transforms(&mut self, name: &str, transforms: &[Transform]) {
        for transform in transforms {
            if !["plugin", "addattributes", "logrouter"].contains(&transform.name.as_str()) {
                self.say(format!("{name}.transforms {} is not a valid transform", transform.name));
            }
        }
    }

    fn scrape(&mut self) {
        let Some(scrape) = &self.file.prometheus_scrape else { return };
        let name = "prom-scrape";
        self.require(&scrape.database, &format!("{name}.database"));
        if scrape.scrape_interval <= 0 {
            self.say(format!("{name}.scrape-interval must be greater than 0"));
        }
        if scrape.scrape_timeout < 0 {
            self.say(format!("{name}.scrape-timeout must be at least 0"));
        }
        for (i, target) in scrape.static_scrape_target.iter().enumerate() {
            let name = format!("{name}.static-scrape-target[{i}]");
            self.require(&target.host_regex, &format!("{name}.host-regex"));
            self.require(&target.url, &format!("{name}.url"));
            self.require(&target.namespace, &format!("{name}.namespace"));
            self.require(&target.pod, &format!("{name}.pod"));
            self.require(&target.container, &format!("{name}.container"));
            if let Err(error) = regex::Regex::new(&target.host_regex) {
                self.say(format!("{name}.host-regex is invalid: {error}"));
            }
            if !target.url.is_empty() && settings::http_url(&target.url).is_none() {
                self.say(format!("{name}.url {} must be an http or https URL", target.url));
            }
        }
        self.metric_source(name, &scrape.source(), ("label-regex", "value-regex"));
    }

    fn top_level(&mut self) {
        let file = self.file;
        if !file.endpoint.is_empty() && settings::http_url(&file.endpoint).is_none() {
            self.say(format!("endpoint {} must be http or https", file.endpoint));
        }
        if let Some(durability) = &file.durability
            && durability.parse::<wal::Durability>().is_err()
        {
            self.say(format!("durability {durability:?} must be \"disk\" or \"process\""));
        }
        for (key, addr) in [("listen-addr", &file.listen_addr), ("otlp-listen-addr", &file.otlp_listen_addr)] {
            if let Some(addr) = addr
                && let Err(reason) = settings::listen_addr(addr)
            {
                self.say(format!("{key} {addr}: {reason}"));
            }
        }
        for (name, value) in [
            ("max-connections", file.max_connections),
            ("max-batch-size", file.max_batch_size),
            ("max-segment-age-seconds", file.max_segment_age_seconds),
            ("max-segment-size", file.max_segment_size),
            ("max-disk-usage", file.max_disk_usage),
            ("max-database-disk-usage", file.max_database_disk_usage),
            ("max-tables-per-database", file.max_tables_per_database),
            ("max-transfer-concurrency", file.max_transfer_concurrency),
        ] {
            if value < 0 {
                self.say(format!("{name} must be at least 0"));
            }
        }
    }
}

const KERNEL_PRIORITIES: [&str; 8] = ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"];

fn invalid_regex(error: &telemetry::rules::RuleError) -> String {
    let kind = if error.setting.contains("label") { "label" } else { "metric" };
    format!("invalid {kind} regex {} in {}: {}", error.pattern, error.setting, error.reason)
}

/// `tcp://host:port` or `unix:///path`.
fn fluent_destination(text: &str) -> Result<(), String> {
    if let Some(path) = text.strip_prefix("unix://") {
        return if path.is_empty() { Err("unix socket path is empty".to_owned()) } else { Ok(()) };
    }
    let Some(address) = text.strip_prefix("tcp://") else {
        return Err("must be in the form tcp://<host>:<port> or unix:///path/to/socket".to_owned());
    };
    let Some((_host, port)) = address.rsplit_once(':') else {
        return Err(format!("address {address}: missing port in address"));
    };
    match port.parse::<u32>() {
        Ok(1..=65535) => Ok(()),
        _ => Err(format!("port {port} not between 1 and 65535")),
    }
}
