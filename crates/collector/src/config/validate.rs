//! What a file must and must not say, in the order and with the words of the reference, all of it
//! at once.

use std::collections::HashSet;

use super::exporters::{self, FluentForwardLogExport};
use super::file::{
    Exporters, File, FileTarget, HostLog, JournalTarget, KernelTarget, LabelMatcher, Lift, Map, MetadataLabels, MetricSource,
    StaticScrapeTarget, Transform,
};
use super::host::{self, SyslogProtocol};
use super::positions::Place;
use super::rules::RuleScope;
use super::settings;
use super::settings::Backend;
use ::exporters::fluent::Destination;
use server::auth::Accounts;
use tail::Budgets;
use telemetry::Schema;

mod events;

/// The problems of `file` and where they are; the first is what the reference would say.
pub(super) fn problems(file: &File) -> Vec<(Place, String)> {
    let mut check = Check { file, exporters: HashSet::new(), paths: HashSet::new(), at: Place::default(), problems: Vec::new() };
    check.all();
    check.problems
}

struct Check<'a> {
    file: &'a File,
    exporters: HashSet<&'a str>,
    paths: HashSet<&'a str>,
    /// The table that is looked at.
    at: Place,
    problems: Vec<(Place, String)>,
}

impl<'a> Check<'a> {
    /// A problem of `key` in the present table.
    fn say(&mut self, key: &str, message: impl Into<String>) {
        self.problems.push((self.at.key(key), message.into()));
    }

    /// `name` is how the reference calls the key, which is its last part.
    fn require(&mut self, value: &str, name: &str) {
        if value.is_empty() {
            self.say(last(name), format!("{name} must be set"));
        }
    }

    fn all(&mut self) {
        let file = self.file;
        if let Err(message) = Backend::parse(file.storage_backend.as_deref()) {
            self.say("storage-backend", message);
        }
        self.kubelet();
        self.exporters(&file.exporters);
        self.metadata("", file.add_metadata_labels.as_ref());
        if file.tls_cert_file.is_empty() != file.tls_key_file.is_empty() {
            let key = if file.tls_cert_file.is_empty() { "tls-key-file" } else { "tls-cert-file" };
            self.say(key, "tls-cert-file and tls-key-file must both be set or both be empty");
        }
        if !file.tls_client_ca_file.is_empty() && file.tls_cert_file.is_empty() {
            self.say(
                "tls-client-ca-file",
                "tls-client-ca-file needs tls-cert-file and tls-key-file: clients show certificates on TLS only",
            );
        }
        self.authentication();
        self.credentials();
        self.lifts("lift-labels", &file.lift_labels);
        self.lifts("lift-resources", &file.lift_resources);
        self.global_rules();
        self.remote_write();
        self.otel_log();
        self.otel_trace();
        self.host_logs();
        self.syslog();
        self.kubernetes_events();
        self.table_limits();
        self.otel_metric();
        self.scrape();
        if file.wal_flush_interval_ms < 0 {
            self.say("wal-flush-interval-ms", "wal-flush-interval must be greater than 0");
        }
        self.top_level();
    }

    /// Checks a table of the file.
    fn table(&mut self, key: &str, check: impl FnOnce(&mut Self)) {
        self.inside(self.at.key(key), check);
    }

    /// Checks each item of an array of tables.
    fn each<T>(&mut self, key: &str, items: &'a [T], mut check: impl FnMut(&mut Self, usize, &'a T)) {
        for (i, item) in items.iter().enumerate() {
            self.inside(self.at.item(key, i), |c| check(c, i, item));
        }
    }

    fn inside(&mut self, place: Place, check: impl FnOnce(&mut Self)) {
        let outside = std::mem::replace(&mut self.at, place);
        check(self);
        self.at = outside;
    }

    fn authentication(&mut self) {
        let Some(settings) = &self.file.authentication else { return };
        self.table("authentication", |check| {
            if settings.token_file.is_empty() && !settings.token_review {
                check.say("token-file", "authentication.token-file or authentication.token-review must be set: nobody could send");
            }
            let only_reviewed = [&settings.audiences, &settings.service_accounts];
            if !settings.token_review && only_reviewed.iter().any(|list| !list.is_empty()) {
                check.say("token-review", "authentication.audiences and authentication.service-accounts need token-review = true");
            }
            for account in &settings.service_accounts {
                if let Err(error) = account.parse::<Accounts>() {
                    check.say("service-accounts", format!("authentication.service-accounts: {error}"));
                }
            }
        });
    }

    fn credentials(&mut self) {
        let file = self.file;
        if file.transfer_client_cert_file.is_empty() != file.transfer_client_key_file.is_empty() {
            let key = if file.transfer_client_cert_file.is_empty() { "transfer-client-key-file" } else { "transfer-client-cert-file" };
            self.say(key, "transfer-client-cert-file and transfer-client-key-file must both be set or both be empty");
        }
        if file.transfer_token_file.is_empty() {
            return;
        }
        for endpoint in file.endpoint.iter().filter(|endpoint| !transfer::may_carry_token(endpoint)) {
            self.say("transfer-token-file", format!("transfer-token-file is not sent to {endpoint} in the clear; use https"));
        }
    }

    fn kubelet(&mut self) {
        let Some(kubelet) = &self.file.kubelet_discovery else { return };
        self.table("kubelet-discovery", |check| {
            if !(0..=65535).contains(&kubelet.port) {
                check.say("port", "kubelet-discovery.port must be between 0 and 65535");
            }
            if kubelet.poll_interval < 0 {
                check.say("poll-interval", "kubelet-discovery.poll-interval must be at least 1 second");
            }
            if kubelet.request_timeout < 0 {
                check.say("request-timeout", "kubelet-discovery.request-timeout must be at least 1 second");
            }
        });
    }

    fn exporters(&mut self, exporters: &'a Exporters) {
        self.table("exporters", |check| {
            check.each("otlp-metric-export", &exporters.otlp_metric_export, |check, i, export| {
                check.metric_export(&format!("exporter.otlp-metric-export[{i}]"), (&export.name, &export.destination), &export.rules());
            });
            check.each("remote-write-metric-export", &exporters.remote_write_metric_export, |check, i, export| {
                let scope = format!("exporter.remote-write-metric-export[{i}]");
                check.metric_export(&scope, (&export.name, &export.destination), &export.rules());
            });
            check.each("fluent-forward-log-export", &exporters.fluent_forward_log_export, |check, i, export| {
                let scope = format!("exporter.fluent-forward-log-export[{i}]");
                check.exporter_name(&scope, &export.name);
                check.fluent(&scope, export);
            });
        });
    }

    fn metric_export(&mut self, scope: &str, (name, destination): (&'a str, &str), rules: &RuleScope) {
        self.exporter_name(scope, name);
        self.require(destination, &format!("{scope}.destination"));
        if let Err(error) = rules.compile() {
            self.say(error.setting, format!("{scope}.invalid exporter config: {}", invalid_regex(&error)));
        }
    }

    /// What the reference does not check or have.
    fn exporter_settings(&mut self, exporters: &'a Exporters) {
        self.table("exporters", |check| {
            check.each("otlp-metric-export", &exporters.otlp_metric_export, |check, i, export| {
                let scope = format!("exporter.otlp-metric-export[{i}]");
                check.url(&scope, &export.destination);
                check.not_negative(&scope, &export.numbers());
                let choices = [
                    ("protocol", &export.protocol, exporters::otlp_protocol(export).err()),
                    ("compression", &export.compression, exporters::otlp_gzip(export).err()),
                ];
                for (key, value, error) in choices {
                    if let Some(error) = error {
                        check.say(key, format!("{scope}.{key} {value:?}: {error}"));
                    }
                }
            });
            check.each("remote-write-metric-export", &exporters.remote_write_metric_export, |check, i, export| {
                let scope = format!("exporter.remote-write-metric-export[{i}]");
                check.url(&scope, &export.destination);
                check.not_negative(&scope, &export.numbers());
            });
            check.each("fluent-forward-log-export", &exporters.fluent_forward_log_export, |check, i, export| {
                check.not_negative(&format!("exporter.fluent-forward-log-export[{i}]"), &export.numbers());
            });
        });
    }

    fn url(&mut self, scope: &str, destination: &str) {
        if !destination.is_empty() && settings::http_url(destination).is_none() {
            self.say("destination", format!("{scope}.destination {destination} must be a full http or https URL"));
        }
    }

    fn not_negative(&mut self, scope: &str, numbers: &[(&str, i64)]) {
        for (key, _) in numbers.iter().filter(|(_, value)| *value < 0) {
            self.say(key, format!("{scope}.{key} must be at least 0"));
        }
    }

    fn exporter_name(&mut self, scope: &str, name: &'a str) {
        self.require(name, &format!("{scope}.name"));
        if !name.is_empty() && !self.exporters.insert(name) {
            self.say("name", format!("{scope}.name {name:?} is not unique"));
        }
    }

    fn fluent(&mut self, scope: &str, export: &FluentForwardLogExport) {
        let destination = &export.destination;
        if destination.is_empty() {
            self.say("destination", format!("{scope}.destination must be set"));
        } else if let Err(reason) = Destination::parse(destination) {
            self.say("destination", format!("{scope}.invalid destination {destination}: {reason}"));
        }
        self.require(&export.tag_attribute, &format!("{scope}.tag-attribute"));
    }

    fn metadata(&mut self, scope: &str, labels: Option<&MetadataLabels>) {
        let Some(node) = labels.and_then(|l| l.kubernetes_node.as_ref()) else { return };
        let prefix = if scope.is_empty() { String::new() } else { format!("{scope}.add-metadata-labels: ") };
        self.table("add-metadata-labels", |check| {
            if check.file.metadata_watch.as_ref().is_none_or(|w| w.kubernetes_node.is_none()) {
                let message = "metadata-watch.kubernetes-node must be configured when add-metadata-labels.kubernetes-node is used";
                check.say("kubernetes-node", format!("{prefix}{message}"));
            }
            check.table("kubernetes-node", |check| {
                for (name, map) in [("labels", &node.labels), ("annotations", &node.annotations)] {
                    check.map_entries(&format!("{prefix}add-metadata-labels.kubernetes-node.{name}"), map);
                }
            });
        });
    }

    /// `name` is how the reference calls the map, whose key is its last part.
    fn map_entries(&mut self, name: &str, map: &Map) {
        self.table(last(name), |check| {
            for (key, value) in map {
                if key.is_empty() {
                    check.say(key, format!("{name} key must be set"));
                }
                if value.is_empty() {
                    check.say(key, format!("{name} value must be set"));
                }
            }
        });
    }

    fn lifts(&mut self, name: &str, lifts: &'a [Lift]) {
        self.each(name, lifts, |check, _, lift| {
            check.require(&lift.name, &format!("{name}.name"));
            if !lift.column.bytes().all(|b| b.is_ascii_alphanumeric()) {
                check.say("column", format!("{name}.column-name `{}` contains invalid characters", lift.column));
            }
        });
        self.lifted_columns(name, lifts);
    }

    /// A table has no two columns of one name.
    fn lifted_columns(&mut self, name: &str, lifts: &[Lift]) {
        let base = if name == "lift-labels" { Schema::metrics(&[]) } else { Schema::logs(&[]) };
        let mut taken: HashSet<String> = base.columns.into_iter().map(|column| column.name).collect();
        for (i, lift) in settings::lifts(lifts).iter().enumerate().filter(|(_, lift)| !lift.name.is_empty()) {
            let column = lift.column_name();
            let problem = if column.is_empty() {
                format!("{name} {:?} needs a column: its name has no ASCII letter or digit", lift.name)
            } else if !taken.insert(column.clone()) {
                format!("{name} {:?}: column {column} exists already; set another column", lift.name)
            } else {
                continue;
            };
            self.problems.push((self.at.item(name, i).key("name"), problem));
        }
    }

    fn global_rules(&mut self) {
        if let Err(error) = RuleScope::global(self.file).compile() {
            self.say(error.setting, invalid_regex(&error));
        }
    }

    fn remote_write(&mut self) {
        self.each("prometheus-remote-write", &self.file.prometheus_remote_write, |check, _, source| {
            let name = "prometheus-remote-write";
            check.require(&source.path, &format!("{name}.path"));
            check.require(&source.database, &format!("{name}.database"));
            check.path(name, &source.path);
            check.metric_source(name, &source.source(), ("key", "value"));
            check.timeout(name, source.request_timeout_seconds);
        });
    }

    fn otel_metric(&mut self) {
        self.each("otel-metric", &self.file.otel_metric, |check, i, source| {
            let name = "otel-metric";
            if source.path.is_empty() && source.grpc_port == 0 {
                check.say("path", "otel-metric.path or otel-metric.grpc-port must be set");
            }
            if source.grpc_port != 0 && !(1..=65535).contains(&source.grpc_port) {
                check.say("grpc-port", "otel-metric.grpc-port must be between 1 and 65535");
            }
            if source.grpc_port != 0 && check.file.otel_metric[..i].iter().any(|other| other.grpc_port == source.grpc_port) {
                check.say("grpc-port", format!("otel-metric[{i}].grpc-port {} is already defined", source.grpc_port));
            }
            check.require(&source.database, &format!("{name}.database"));
            check.path(&format!("{name}[{i}]"), &source.path);
            check.metric_source(name, &source.source(), ("label-regex", "value-regex"));
            check.timeout(name, source.request_timeout_seconds);
        });
    }

    fn path(&mut self, scope: &str, path: &'a str) {
        if path.is_empty() {
            return;
        }
        if !path.starts_with('/') || path.contains(['{', '}', '?', '#']) {
            self.say("path", format!("{scope}.path {path} must start with / and name one plain path"));
        } else if !self.paths.insert(path) {
            self.say("path", format!("{scope}.path {path} is already defined"));
        } else if settings::OWN_PATHS.contains(&path) || (path == settings::LOGS_PATH && self.file.otel_log.is_some()) {
            self.say("path", format!("{scope}.path {path} is used by the collector itself; choose another"));
        }
    }

    fn metric_source(&mut self, name: &str, source: &MetricSource, (key, value): (&str, &str)) {
        self.map_entries(&format!("{name}.add-labels"), &source.add_labels);
        self.map_entries(&format!("{name}.drop-labels"), &source.drop_labels);
        for (i, LabelMatcher { label_regex, value_regex }) in source.keep_metrics_with_label_value.iter().enumerate() {
            self.inside(self.at.item("keep-metrics-with-label-value", i), |check| {
                for (text, key, name_of_key) in [(label_regex, "label-regex", key), (value_regex, "value-regex", value)] {
                    if text.is_empty() {
                        check.say(key, format!("{name}.keep-metrics-with-label-value {name_of_key} must be set"));
                    }
                }
            });
        }
        self.exporter_references(name, &source.exporters, false);
        self.metadata(name, source.add_metadata_labels.as_ref());
        if let Err(error) = RuleScope::source(source).compile() {
            self.say(error.setting, format!("{name}: {}", invalid_regex(&error)));
        }
        self.identifier(&format!("{name}.database"), &source.database);
    }

    /// Databases and tables keep their ASCII letters and digits only; one without any has no name left.
    fn identifier(&mut self, name: &str, value: &str) {
        if !value.is_empty() && !value.bytes().any(|b| b.is_ascii_alphanumeric()) {
            self.say(last(name), format!("{name} {value:?} must contain an ASCII letter or digit"));
        }
    }

    /// `of_logs` says what the source has: an exporter takes metrics or logs.
    fn exporter_references(&mut self, name: &str, references: &[String], of_logs: bool) {
        let logs = &self.file.exporters.fluent_forward_log_export;
        for (i, reference) in references.iter().enumerate() {
            let problem = if !self.exporters.contains(reference.as_str()) {
                format!("{name}.exporters {reference:?} not found")
            } else if logs.iter().any(|export| export.name == *reference) != of_logs {
                let takes = if of_logs { "metrics, not logs" } else { "logs, not metrics" };
                format!("{name}.exporters {reference:?} takes {takes}")
            } else {
                continue;
            };
            self.problems.push((self.at.item("exporters", i), problem));
        }
    }

    fn timeout(&mut self, name: &str, seconds: i64) {
        if seconds < 0 {
            self.say("request-timeout-seconds", format!("{name}.request-timeout-seconds must be greater than 0"));
        }
        if seconds > 300 {
            self.say("request-timeout-seconds", format!("{name}.request-timeout-seconds must not exceed 300"));
        }
    }

    fn otel_log(&mut self) {
        let Some(log) = &self.file.otel_log else { return };
        self.table("otel-log", |check| {
            check.timeout("otel-log", log.request_timeout_seconds);
            check.transforms("otel-log", &log.transforms);
            check.exporter_references("otel-log", &log.exporters, true);
            check.metadata("otel-log", log.add_metadata_labels.as_ref());
            if log.default_database.is_empty() != log.default_table.is_empty() {
                let key = if log.default_database.is_empty() { "default-table" } else { "default-database" };
                check.say(key, "otel-log.default-database and otel-log.default-table must both be set or both be empty");
            }
            check.identifier("otel-log.default-database", &log.default_database);
            check.identifier("otel-log.default-table", &log.default_table);
        });
    }

    fn otel_trace(&mut self) {
        let Some(trace) = &self.file.otel_trace else { return };
        self.table("otel-trace", |check| {
            check.timeout("otel-trace", trace.request_timeout_seconds);
            check.identifier("otel-trace.database", &trace.database);
            check.identifier("otel-trace.table", &trace.table);
            check.path("otel-trace", if trace.path.is_empty() { settings::TRACES_PATH } else { &trace.path });
        });
    }

    fn host_logs(&mut self) {
        let mut discovering = 0;
        self.each("host-log", &self.file.host_log, |check, i, log| {
            check.host_log(log);
            check.metadata(&format!("host-log[{i}]"), log.add_metadata_labels.as_ref());
            if !log.disable_kube_discovery {
                discovering += 1;
                if discovering > 1 {
                    let message = format!("host-log[{i}].disable-kube-discovery not set for more than one HostLog configuration");
                    check.say("disable-kube-discovery", message);
                }
            }
        });
    }

    fn host_log(&mut self, log: &'a HostLog) {
        self.map_entries("host-log.add-attributes", &log.add_attributes);
        self.each("file-target", &log.file_target, |check, _, target| check.file_target(target));
        self.each("journal-target", &log.journal_target, |check, _, target| check.journal_target(target));
        self.each("kernel-target", &log.kernel_target, |check, _, target| check.kernel_target(target));
        self.transforms("host-log", &log.transforms);
        self.exporter_references("host-log", &log.exporters, true);
    }

    fn file_target(&mut self, target: &FileTarget) {
        let name = "host-log.file-target";
        self.require(&target.file_path, &format!("{name}.file-path"));
        self.require(&target.database, &format!("{name}.database"));
        self.require(&target.table, &format!("{name}.table"));
        if !["", "plain", "docker", "cri", "kubernetes"].contains(&target.log_type.as_str()) {
            self.say("log-type", format!("{name}.log-type {} is not a valid log type", target.log_type));
        }
        if target.max_line_bytes < 0 {
            self.say("max-line-bytes", format!("{name}.max-line-bytes must be at least 0"));
        }
        let path = std::slice::from_ref(&target.file_path);
        if let Err(error) = tail::Target::new("", "", path, &target.exclude, Budgets::default().budget(0)) {
            self.say("file-path", format!("{name}: {error}"));
        }
        self.parsers(name, &target.parsers);
        if let Some(Err((key, why))) = target.multi_line.as_ref().map(logs::MultiLineSettings::rule) {
            self.table("multi-line", |check| check.say(key, format!("{name}.multi-line.{key}: {why}")));
        }
    }

    fn table_limits(&mut self) {
        self.each("table-limit", &self.file.table_limit, |check, _, limit| {
            check.identifier("table-limit.database", &limit.database);
            check.identifier("table-limit.table", &limit.table);
            for (key, value) in [("max-series", limit.max_series), ("max-rows-per-second", limit.max_rows_per_second)] {
                if value < 0 {
                    check.say(key, format!("table-limit.{key} must be at least 0"));
                }
            }
            if limit.max_series == 0 && limit.max_rows_per_second == 0 {
                check.say("database", "table-limit.max-series or table-limit.max-rows-per-second must be set");
            }
        });
    }

    fn syslog(&mut self) {
        self.each("syslog", &self.file.syslog, |check, _, syslog| {
            check.require(&syslog.listen_addr, "syslog.listen-addr");
            if let Err(reason) = settings::listen_addr(&syslog.listen_addr) {
                check.say("listen-addr", format!("syslog.listen-addr {}: {reason}", syslog.listen_addr));
            }
            let protocol = host::syslog_protocol(&syslog.protocol);
            if protocol.is_none() {
                check.say("protocol", format!("syslog.protocol {:?} must be \"udp\" or \"tcp\"", syslog.protocol));
            }
            if syslog.tls_cert_file.is_empty() != syslog.tls_key_file.is_empty() {
                check.say("tls-cert-file", "syslog.tls-cert-file and syslog.tls-key-file must both be set or both be empty");
            }
            if syslog.tls_cert_file.is_empty() && !syslog.tls_client_ca_file.is_empty() {
                check.say("tls-client-ca-file", "syslog.tls-client-ca-file needs syslog.tls-cert-file and syslog.tls-key-file");
            }
            if protocol == Some(SyslogProtocol::Udp) && !syslog.tls_cert_file.is_empty() {
                check.say("protocol", "syslog.protocol must be \"tcp\" for TLS");
            }
            check.destination("syslog", &syslog.database, &syslog.table);
            check.parsers("syslog", &syslog.parsers);
            check.map_entries("syslog.add-attributes", &syslog.add_attributes);
            check.transforms("syslog", &syslog.transforms);
            check.exporter_references("syslog", &syslog.exporters, true);
            for (key, value) in [("max-message-bytes", syslog.max_message_bytes), ("max-connections", syslog.max_connections)] {
                if value < 0 {
                    check.say(key, format!("syslog.{key} must be at least 0"));
                }
            }
        });
    }

    fn destination(&mut self, name: &str, database: &str, table: &str) {
        for (key, value) in [("database", database), ("table", table)] {
            self.require(value, &format!("{name}.{key}"));
            self.identifier(&format!("{name}.{key}"), value);
        }
    }

    fn kernel_target(&mut self, target: &KernelTarget) {
        let name = "host-log.kernel-target";
        self.destination(name, &target.database, &target.table);
        if !target.priority.is_empty() && !KERNEL_PRIORITIES.contains(&target.priority.as_str()) {
            let known = KERNEL_PRIORITIES.join(", ");
            self.say("priority", format!("{name}.priority {:?} is not valid, must be one of: {known}", target.priority));
        }
    }

    fn journal_target(&mut self, target: &JournalTarget) {
        let name = "host-log.journal-target";
        self.destination(name, &target.database, &target.table);
        for (i, text) in target.matches.iter().enumerate() {
            let problem = match (text.as_str(), text.split_once('=')) {
                ("", _) => format!("{name}.match must have a value"),
                ("+", _) if i == 0 => format!("{name}.matches must not start with +"),
                ("+", _) => continue,
                (_, None) => format!("{name}.match {text} must be in the format key=value"),
                (_, Some(("", _))) => format!("{name}.match {text} must have a key"),
                (_, Some((_, ""))) => format!("{name}.match {text} must have a value"),
                (_, Some(_)) => continue,
            };
            self.problems.push((self.at.item("matches", i), problem));
        }
        self.parsers(name, &target.parsers);
    }

    fn parsers(&mut self, name: &str, parsers: &[String]) {
        for (i, parser) in parsers.iter().enumerate() {
            if !["json", "keyvalue", "klog", "space"].contains(&parser.as_str()) {
                self.problems.push((self.at.item("parsers", i), format!("{name}.parsers {parser} is not a valid parser")));
            }
        }
    }

    fn transforms(&mut self, name: &str, transforms: &[Transform]) {
        let Err(errors) = settings::transforms(transforms) else { return };
        for error in errors {
            let message = match transforms.get(error.index) {
                // In the reference's words.
                Some(transform) if error.message.starts_with("unknown transform type") => {
                    let hint = error.message.split_once(';').map_or("", |(_, hint)| hint);
                    format!("{name}.transforms {} is not a valid transform;{hint}", transform.name)
                }
                _ => format!("{name}.{error}"),
            };
            let place = error.path.iter().fold(self.at.item("transforms", error.index), |place, step| match step {
                logs::PathStep::Key(key) => place.key(key),
                logs::PathStep::Index(index) => place.index(*index),
            });
            self.problems.push((place, message));
        }
    }

    fn scrape(&mut self) {
        let Some(scrape) = &self.file.prometheus_scrape else { return };
        let name = "prom-scrape";
        self.table("prometheus-scrape", |check| {
            check.require(&scrape.database, &format!("{name}.database"));
            if scrape.scrape_interval <= 0 {
                check.say("scrape-interval", format!("{name}.scrape-interval must be greater than 0"));
            }
            if scrape.scrape_timeout < 0 {
                check.say("scrape-timeout", format!("{name}.scrape-timeout must be at least 0"));
            }
            for (key, value) in [("body-size-limit", scrape.body_size_limit), ("sample-limit", scrape.sample_limit)] {
                if value < 0 {
                    check.say(key, format!("{name}.{key} must be at least 0"));
                }
            }
            check.each("static-scrape-target", &scrape.static_scrape_target, |check, i, target| {
                check.scrape_target(&format!("{name}.static-scrape-target[{i}]"), target);
            });
            check.metric_source(name, &scrape.source(), ("label-regex", "value-regex"));
        });
    }

    fn scrape_target(&mut self, name: &str, target: &StaticScrapeTarget) {
        self.require(&target.host_regex, &format!("{name}.host-regex"));
        self.require(&target.url, &format!("{name}.url"));
        self.require(&target.namespace, &format!("{name}.namespace"));
        self.require(&target.pod, &format!("{name}.pod"));
        self.require(&target.container, &format!("{name}.container"));
        if let Err(error) = regex::Regex::new(&target.host_regex) {
            self.say("host-regex", format!("{name}.host-regex is invalid: {error}"));
        }
        let url = settings::http_url(&target.url);
        if !target.url.is_empty() && url.is_none() {
            self.say("url", format!("{name}.url {} must be an http or https URL", target.url));
        }
        if target.service_account_token && url.is_some_and(|url| url.scheme() == "http") {
            self.say("service-account-token", format!("{name}.service-account-token must not be sent over http; use an https url"));
        }
        if !target.ca_file.is_empty() && target.insecure_skip_verify {
            self.say("ca-file", format!("{name}.ca-file has no effect with insecure-skip-verify; set one of them"));
        }
        if target.scrape_interval < 0 {
            self.say("scrape-interval", format!("{name}.scrape-interval must be at least 0"));
        }
    }

    fn top_level(&mut self) {
        let file = self.file;
        for endpoint in file.endpoint.iter().filter(|endpoint| settings::http_url(endpoint).is_none()) {
            self.say("endpoint", format!("endpoint {endpoint} must be http or https"));
        }
        self.exporter_settings(&file.exporters);
        if let Some(durability) = &file.durability
            && durability.parse::<wal::Durability>().is_err()
        {
            self.say("durability", format!("durability {durability:?} must be \"disk\" or \"process\""));
        }
        for (key, addr) in [
            ("listen-addr", &file.listen_addr),
            ("otlp-listen-addr", &file.otlp_listen_addr),
            ("otlp-grpc-listen-addr", &file.otlp_grpc_listen_addr),
        ] {
            if let Some(addr) = addr
                && let Err(reason) = settings::listen_addr(addr)
            {
                self.say(key, format!("{key} {addr}: {reason}"));
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
                self.say(name, format!("{name} must be at least 0"));
            }
        }
    }
}

const KERNEL_PRIORITIES: [&str; 8] = ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"];

/// The last part of a dotted name.
fn last(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

fn invalid_regex(error: &telemetry::rules::RuleError) -> String {
    let kind = if error.setting.contains("label") { "label" } else { "metric" };
    format!("invalid {kind} regex {} in {}: {}", error.pattern, error.setting, error.reason)
}
