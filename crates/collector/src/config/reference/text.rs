//! The documented file, as text.

use serde_json::Value;

use super::{Setting, Table};

/// What the file that `collector config` prints runs with beyond the defaults: tables, and keys with their examples.
/// Everything else in it is a comment.
const RUNS_WITH: [&str; 15] = [
    "endpoint",
    "listen-addr",
    "prometheus-scrape",
    "prometheus-scrape.database",
    "prometheus-scrape.scrape-interval",
    "prometheus-scrape.disable-discovery",
    "prometheus-remote-write",
    "prometheus-remote-write.database",
    "prometheus-remote-write.path",
    "otel-metric",
    "otel-metric.database",
    "otel-metric.path",
    "otel-log",
    "otel-trace",
    "otel-trace.database",
];

const WIDTH: usize = 120;

/// A file that runs as it is, with every setting explained; what is commented out shows the default or an example.
#[must_use]
pub fn file_to_start_from() -> String {
    Writer::default().file(|path| RUNS_WITH.contains(&path))
}

/// The same with all its examples in force.
#[must_use]
pub fn file_of_examples() -> String {
    Writer::default().file(|_| true)
}

#[derive(Default)]
struct Writer {
    text: String,
    /// Types of tables that stand above, with their names.
    told: Vec<(String, String)>,
}

impl Writer {
    fn file(mut self, runs: impl Fn(&str) -> bool) -> String {
        let (file, filters) = (Table::file(), Table::filters());
        self.comment("", &file.about);
        self.text.push('\n');
        self.table(&file, &filters, "", &runs);
        self.text
    }

    /// `sign` is what stands before each line: nothing, or the sign of a comment.
    fn table(&mut self, table: &Table, filters: &Table, sign: &str, runs: &impl Fn(&str) -> bool) {
        let has_filters = table.has_filters(filters);
        let is_filter = |key: Option<&str>| has_filters && key.is_some_and(|key| is_key_of(filters, key));
        for setting in table.settings.iter().filter(|setting| !is_filter(Some(&setting.key))) {
            let path = dotted(table, &setting.key);
            self.comment(sign, &about(setting));
            let comment = if sign.is_empty() && setting.example.is_some() && !runs(&path) { "# " } else { sign };
            self.line(comment, setting);
        }
        if has_filters {
            self.comment(sign, "The filters and label rules at the top of the file can be repeated here; they come on top of those.");
        }
        for inner in table.tables.iter().filter(|inner| !is_filter(inner.path.last().map(String::as_str))) {
            self.inner(inner, filters, sign, runs);
        }
    }

    fn inner(&mut self, table: &Table, filters: &Table, outer: &str, runs: &impl Fn(&str) -> bool) {
        let name = table.path.join(".");
        let sign = if outer.is_empty() && runs(&name) { "" } else { "# " };
        self.text.push_str(outer.trim_end());
        self.text.push('\n');
        let known = self.told.iter().find(|(kind, _)| *kind == table.kind).map(|(_, name)| name.clone());
        let about = match &known {
            Some(other) => format!("{} Its keys are those of {other}.", table.about),
            None => table.about.clone(),
        };
        self.comment(outer, &about);
        self.told.push((table.kind.clone(), name));
        // A table that only holds others needs no line of its own.
        if !table.settings.is_empty() || table.tables.is_empty() {
            self.text.push_str(&format!("{sign}{}\n", table.header()));
        }
        match known {
            Some(_) => table.settings.iter().for_each(|setting| self.line(sign, setting)),
            None => self.table(table, filters, sign, runs),
        }
    }

    fn line(&mut self, sign: &str, setting: &Setting) {
        self.text.push_str(&format!("{sign}{} = {}\n", setting.key, value(&setting.shown())));
    }

    fn comment(&mut self, sign: &str, text: &str) {
        let mut line = format!("{sign}#");
        for word in text.split(' ').filter(|word| !word.is_empty()) {
            if line.chars().count() + 1 + word.chars().count() > WIDTH {
                self.text.push_str(&line);
                self.text.push('\n');
                line = format!("{sign}#");
            }
            line.push(' ');
            line.push_str(word);
        }
        self.text.push_str(&line);
        self.text.push('\n');
    }
}

/// What is said of a setting above it.
fn about(setting: &Setting) -> String {
    let mut about = setting.about.clone();
    if !setting.choices.is_empty() {
        about.push_str(&format!(" One of {}.", setting.choices.iter().map(value).collect::<Vec<_>>().join(", ")));
    }
    if let (Some(default), Some(_)) = (&setting.default, &setting.example)
        && *default != Value::Bool(false)
        && *default != 0
    {
        about.push_str(&format!(" Default: {}.", value(default)));
    }
    about
}

fn is_key_of(table: &Table, key: &str) -> bool {
    table.settings.iter().any(|setting| setting.key == key) || table.tables.iter().any(|inner| inner.path[0] == key)
}

fn dotted(table: &Table, key: &str) -> String {
    table.path.iter().map(String::as_str).chain([key]).collect::<Vec<_>>().join(".")
}

/// A value as TOML has it.
#[must_use]
pub fn value(value: &Value) -> String {
    match value {
        Value::String(text) if text.contains(['\'', '\n']) => format!("{text:?}"),
        Value::String(text) => format!("'{text}'"),
        Value::Array(items) => format!("[{}]", items.iter().map(self::value).collect::<Vec<_>>().join(", ")),
        Value::Object(entries) if entries.is_empty() => "{}".to_owned(),
        Value::Object(entries) => {
            let entries = entries.iter().map(|(key, entry)| format!("{} = {}", bare(key), self::value(entry)));
            format!("{{ {} }}", entries.collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

/// A key, quoted unless it may stand as it is.
fn bare(key: &str) -> String {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if !key.is_empty() && key.bytes().all(fits) { key.to_owned() } else { format!("'{key}'") }
}
