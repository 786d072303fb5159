//! Our own logs, as the reference writes them: JSON lines on stdout with `ts`, `lvl` (DBG, INF,
//! WRN, ERR) and `msg`, then the event's fields; coloured text when stdout is a terminal.

use std::fmt::{self, Write as _};
use std::io::IsTerminal;
use std::time::SystemTime;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime as Rfc3339};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

/// Starts logging to stdout at the level of `LOG_LEVEL` (ERROR, WARN, INFO, DEBUG or TRACE; INFO
/// when unset). A second call does nothing.
pub fn init_logging() {
    let setting = std::env::var("LOG_LEVEL").unwrap_or_default();
    let level = parse_level(&setting);
    let registry = tracing_subscriber::registry().with(level.unwrap_or(LevelFilter::INFO));
    let started = if std::io::stdout().is_terminal() {
        registry.with(tracing_subscriber::fmt::layer().with_target(false)).try_init()
    } else {
        registry.with(tracing_subscriber::fmt::layer().event_format(JsonLines)).try_init()
    };
    if started.is_ok() && level.is_none() {
        tracing::warn!(LOG_LEVEL = setting, "unknown LOG_LEVEL, using INFO; use ERROR, WARN, INFO, DEBUG or TRACE");
    }
}

fn parse_level(text: &str) -> Option<LevelFilter> {
    match text.trim().to_ascii_uppercase().as_str() {
        "" | "INFO" => Some(LevelFilter::INFO),
        "ERROR" => Some(LevelFilter::ERROR),
        "WARN" => Some(LevelFilter::WARN),
        "DEBUG" => Some(LevelFilter::DEBUG),
        "TRACE" => Some(LevelFilter::TRACE),
        _ => None,
    }
}

/// Formats an event as one JSON object.
struct JsonLines;

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _ctx: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let mut line = Map::new();
        line.insert("ts".to_owned(), Value::String(now()));
        line.insert("lvl".to_owned(), Value::from(level(*event.metadata().level())));
        line.insert("msg".to_owned(), Value::String(fields.message));
        for (name, value) in fields.others {
            line.insert(name, value);
        }
        writeln!(writer, "{}", Value::Object(line))
    }
}

fn now() -> String {
    let mut text = String::new();
    match Rfc3339.format_time(&mut Writer::new(&mut text)) {
        Ok(()) => text,
        Err(_) => format!("{:?}", SystemTime::now()),
    }
}

fn level(level: Level) -> &'static str {
    match level {
        Level::ERROR => "ERR",
        Level::WARN => "WRN",
        Level::INFO => "INF",
        _ => "DBG",
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    others: Map<String, Value>,
}

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        // The three names above belong to the line itself.
        let name = match field.name() {
            name @ ("ts" | "lvl" | "msg") => format!("{name}_"),
            name => name.to_owned(),
        };
        self.others.insert(name, value);
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = String::new();
        // Writing to a String fails only if the value's own Debug does; what it wrote so far stays.
        let _ = write!(text, "{value:?}");
        if field.name() == "message" {
            self.message = text;
        } else {
            self.put(field, Value::String(text));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
        } else {
            self.put(field, Value::from(value));
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, Value::from(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, Value::from(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, Value::from(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, Value::from(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Write for Captured {
        fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(buf)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_is_one_json_object_with_ts_lvl_and_msg() {
        let captured = Captured::default();
        let writer = captured.clone();
        let layer = tracing_subscriber::fmt::layer().event_format(JsonLines).with_writer(move || writer.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::warn!(path = "/a\"b", n = 3, "disk {}", "full");
        });
        let bytes = captured.0.lock().unwrap().clone();
        let line: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!((&line["lvl"], &line["msg"]), (&Value::from("WRN"), &Value::from("disk full")));
        assert_eq!((&line["path"], &line["n"]), (&Value::from("/a\"b"), &Value::from(3)));
        assert!(line["ts"].as_str().unwrap().ends_with('Z'));
        assert_eq!(bytes.iter().filter(|b| **b == b'\n').count(), 1);
    }

    #[test]
    fn levels_are_read_in_any_case_and_unknown_ones_are_noticed() {
        assert_eq!(parse_level("debug"), Some(LevelFilter::DEBUG));
        assert_eq!(parse_level(""), Some(LevelFilter::INFO));
        assert_eq!(parse_level("loud"), None);
    }
}
