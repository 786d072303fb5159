//! The rules of `[exporters]`, and of the names by which sources refer to them.

use ::exporters::fluent::Destination;

use super::Check;
use super::metrics::invalid_regex;
use crate::config::exporters;
use crate::config::file::{Exporters, FluentForwardLogExport};
use crate::config::rules::RuleScope;
use crate::config::settings;

impl<'a> Check<'a> {
    pub(super) fn exporters(&mut self, exporters: &'a Exporters) {
        self.table("exporters", |check| {
            check.each("otlp-metric-export", &exporters.otlp_metric_export, |check, i, export| {
                check.metric_export(
                    &format!("exporter.otlp-metric-export[{i}]"),
                    (&export.name, &export.destination),
                    &export.filters().into(),
                );
            });
            check.each("remote-write-metric-export", &exporters.remote_write_metric_export, |check, i, export| {
                let scope = format!("exporter.remote-write-metric-export[{i}]");
                check.metric_export(&scope, (&export.name, &export.destination), &export.filters().into());
            });
            check.each("fluent-forward-log-export", &exporters.fluent_forward_log_export, |check, i, export| {
                let scope = format!("exporter.fluent-forward-log-export[{i}]");
                check.exporter_name(&scope, &export.name);
                check.fluent(&scope, export);
            });
        });
    }

    pub(super) fn metric_export(&mut self, scope: &str, (name, destination): (&'a str, &str), rules: &RuleScope) {
        self.exporter_name(scope, name);
        self.require(destination, &format!("{scope}.destination"));
        if let Err(error) = rules.compile() {
            self.say(error.setting, format!("{scope}.invalid exporter config: {}", invalid_regex(&error)));
        }
    }

    /// What the reference does not check or have.
    pub(super) fn exporter_settings(&mut self, exporters: &'a Exporters) {
        self.table("exporters", |check| {
            check.each("otlp-metric-export", &exporters.otlp_metric_export, |check, i, export| {
                let scope = format!("exporter.otlp-metric-export[{i}]");
                check.url(&scope, &export.destination);
                check.client_certificate(&scope, &export.client_cert_file, &export.client_key_file);
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
                check.client_certificate(&scope, &export.client_cert_file, &export.client_key_file);
                check.not_negative(&scope, &export.numbers());
            });
            check.each("fluent-forward-log-export", &exporters.fluent_forward_log_export, |check, i, export| {
                let scope = format!("exporter.fluent-forward-log-export[{i}]");
                check.client_certificate(&scope, &export.client_cert_file, &export.client_key_file);
                check.not_negative(&scope, &export.numbers());
            });
        });
    }

    fn client_certificate(&mut self, scope: &str, certificate: &str, key: &str) {
        if certificate.is_empty() != key.is_empty() {
            let given = if certificate.is_empty() { "client-key-file" } else { "client-cert-file" };
            self.say(given, format!("{scope}.client-cert-file and client-key-file must both be set or both be empty"));
        }
    }

    pub(super) fn url(&mut self, scope: &str, destination: &str) {
        if !destination.is_empty() && settings::http_url(destination).is_none() {
            self.say("destination", format!("{scope}.destination {destination} must be a full http or https URL"));
        }
    }

    pub(super) fn not_negative(&mut self, scope: &str, numbers: &[(&str, i64)]) {
        for (key, _) in numbers.iter().filter(|(_, value)| *value < 0) {
            self.say(key, format!("{scope}.{key} must be at least 0"));
        }
    }

    pub(super) fn exporter_name(&mut self, scope: &str, name: &'a str) {
        self.require(name, &format!("{scope}.name"));
        if !name.is_empty() && !self.exporters.insert(name) {
            self.say("name", format!("{scope}.name {name:?} is not unique"));
        }
    }

    pub(super) fn fluent(&mut self, scope: &str, export: &FluentForwardLogExport) {
        let destination = &export.destination;
        if destination.is_empty() {
            self.say("destination", format!("{scope}.destination must be set"));
        } else if let Err(reason) = Destination::parse(destination) {
            self.say("destination", format!("{scope}.invalid destination {destination}: {reason}"));
        }
        self.require(&export.tag_attribute, &format!("{scope}.tag-attribute"));
    }

    /// `of_logs` says what the source has: an exporter takes metrics or logs.
    pub(super) fn exporter_references(&mut self, name: &str, references: &[String], of_logs: bool) {
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
}
