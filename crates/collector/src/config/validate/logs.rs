//! The rules of sources of logs and traces.

use ::logs::MultiLineSettings;
use tail::Budgets;

use super::Check;
use crate::config::file::{FileTarget, HostLog, JournalTarget, KernelTarget, Transform};
use crate::config::host::{self, SyslogProtocol};
use crate::config::settings;

impl<'a> Check<'a> {
    pub(super) fn otel_log(&mut self) {
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

    pub(super) fn otel_trace(&mut self) {
        let Some(trace) = &self.file.otel_trace else { return };
        self.table("otel-trace", |check| {
            check.timeout("otel-trace", trace.request_timeout_seconds);
            check.identifier("otel-trace.database", &trace.database);
            check.identifier("otel-trace.table", &trace.table);
            check.path("otel-trace", if trace.path.is_empty() { settings::TRACES_PATH } else { &trace.path });
        });
    }

    pub(super) fn host_logs(&mut self) {
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

    pub(super) fn host_log(&mut self, log: &'a HostLog) {
        self.map_entries("host-log.add-attributes", &log.add_attributes);
        self.each("file-target", &log.file_target, |check, _, target| check.file_target(target));
        if let Some(pods) = &log.pod_defaults {
            self.table("pod-defaults", |check| check.lines("host-log.pod-defaults", pods.max_line_bytes, pods.multi_line.as_ref()));
        }
        self.each("static-pod-target", &log.static_pod_target, |check, _, target| {
            check.lines("host-log.static-pod-target", target.max_line_bytes, target.multi_line.as_ref());
        });
        self.each("journal-target", &log.journal_target, |check, _, target| check.journal_target(target));
        self.each("kernel-target", &log.kernel_target, |check, _, target| check.kernel_target(target));
        self.transforms("host-log", &log.transforms);
        self.exporter_references("host-log", &log.exporters, true);
    }

    pub(super) fn file_target(&mut self, target: &FileTarget) {
        let name = "host-log.file-target";
        self.require(&target.file_path, &format!("{name}.file-path"));
        self.require(&target.database, &format!("{name}.database"));
        self.require(&target.table, &format!("{name}.table"));
        if !["", "plain", "docker", "cri", "kubernetes"].contains(&target.log_type.as_str()) {
            self.say("log-type", format!("{name}.log-type {} is not a valid log type", target.log_type));
        }
        let path = std::slice::from_ref(&target.file_path);
        if let Err(error) = tail::Target::new("", "", path, &target.exclude, Budgets::default().budget(0)) {
            self.say("file-path", format!("{name}: {error}"));
        }
        self.parsers(name, &target.parsers);
        self.lines(name, target.max_line_bytes, target.multi_line.as_ref());
    }

    /// How lines become messages.
    fn lines(&mut self, name: &str, max_line_bytes: i64, multi_line: Option<&MultiLineSettings>) {
        if max_line_bytes < 0 {
            self.say("max-line-bytes", format!("{name}.max-line-bytes must be at least 0"));
        }
        if let Some(Err((key, why))) = multi_line.map(MultiLineSettings::rule) {
            self.table("multi-line", |check| check.say(key, format!("{name}.multi-line.{key}: {why}")));
        }
    }

    pub(super) fn journal_target(&mut self, target: &JournalTarget) {
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

    pub(super) fn kernel_target(&mut self, target: &KernelTarget) {
        let name = "host-log.kernel-target";
        self.destination(name, &target.database, &target.table);
        if !target.priority.is_empty() && !KERNEL_PRIORITIES.contains(&target.priority.as_str()) {
            let known = KERNEL_PRIORITIES.join(", ");
            self.say("priority", format!("{name}.priority {:?} is not valid, must be one of: {known}", target.priority));
        }
    }

    pub(super) fn syslog(&mut self) {
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

    pub(super) fn parsers(&mut self, name: &str, parsers: &[String]) {
        for (i, parser) in parsers.iter().enumerate() {
            if !["json", "keyvalue", "klog", "space"].contains(&parser.as_str()) {
                self.problems.push((self.at.item("parsers", i), format!("{name}.parsers {parser} is not a valid parser")));
            }
        }
    }

    pub(super) fn transforms(&mut self, name: &str, transforms: &[Transform]) {
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
                ::logs::PathStep::Key(key) => place.key(key),
                ::logs::PathStep::Index(index) => place.index(*index),
            });
            self.problems.push((place, message));
        }
    }
}

/// Priorities of the kernel log, from the most urgent on.
pub(in crate::config) const KERNEL_PRIORITIES: [&str; 8] = ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"];
