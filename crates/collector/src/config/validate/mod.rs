//! What a file must and must not say, in the order and with the words of the reference, all of it
//! at once.

use std::collections::HashSet;

use super::file::{File, Lift, Map};
use super::positions::Place;
use super::settings::{self, Backend};
use telemetry::Schema;

mod access;
mod events;
mod exporters;
mod logs;
mod metrics;

pub(super) use logs::KERNEL_PRIORITIES;

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

    /// Databases and tables keep their ASCII letters and digits only; one without any has no name left.
    fn identifier(&mut self, name: &str, value: &str) {
        if !value.is_empty() && !value.bytes().any(|b| b.is_ascii_alphanumeric()) {
            self.say(last(name), format!("{name} {value:?} must contain an ASCII letter or digit"));
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

    fn destination(&mut self, name: &str, database: &str, table: &str) {
        for (key, value) in [("database", database), ("table", table)] {
            self.require(value, &format!("{name}.{key}"));
            self.identifier(&format!("{name}.{key}"), value);
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
            if let Err(reason) = settings::listen_addr(addr) {
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

/// The last part of a dotted name.
fn last(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}
