//! The rules of sources of metrics.

use super::Check;
use crate::config::file::{LabelMatcher, MetricSource, StaticScrapeTarget};
use crate::config::rules::RuleScope;
use crate::config::settings;

impl<'a> Check<'a> {
    pub(super) fn global_rules(&mut self) {
        if let Err(error) = RuleScope::from(self.file.filters()).compile() {
            self.say(error.setting, invalid_regex(&error));
        }
    }

    pub(super) fn remote_write(&mut self) {
        self.each("prometheus-remote-write", &self.file.prometheus_remote_write, |check, _, source| {
            let name = "prometheus-remote-write";
            check.require(&source.path, &format!("{name}.path"));
            check.require(&source.database, &format!("{name}.database"));
            check.path(name, &source.path);
            check.metric_source(name, &source.source(), ("key", "value"));
            check.timeout(name, source.request_timeout_seconds);
        });
    }

    pub(super) fn otel_metric(&mut self) {
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

    pub(super) fn scrape(&mut self) {
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

    pub(super) fn scrape_target(&mut self, name: &str, target: &StaticScrapeTarget) {
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

    pub(super) fn metric_source(&mut self, name: &str, source: &MetricSource, (key, value): (&str, &str)) {
        self.map_entries(&format!("{name}.add-labels"), &source.filters.add_labels);
        self.map_entries(&format!("{name}.drop-labels"), &source.filters.drop_labels);
        for (i, LabelMatcher { label_regex, value_regex }) in source.filters.keep_metrics_with_label_value.iter().enumerate() {
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
        if let Err(error) = RuleScope::from(source.filters.clone()).compile() {
            self.say(error.setting, format!("{name}: {}", invalid_regex(&error)));
        }
        self.identifier(&format!("{name}.database"), &source.database);
    }
}

pub(super) fn invalid_regex(error: &telemetry::rules::RuleError) -> String {
    let kind = if error.setting.contains("label") { "label" } else { "metric" };
    format!("invalid {kind} regex {} in {}: {}", error.pattern, error.setting, error.reason)
}
