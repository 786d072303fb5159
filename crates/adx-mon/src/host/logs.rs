//! Follows the host's journal or log files and sends new lines to the collector as OTLP log records.
//!
//! The journal is read through `journalctl` where there is one, otherwise the files of `/var/log` that may be read are
//! followed. Positions are kept in the data folder and moved only after the collector has acknowledged, so a restart
//! repeats at most the last batch and misses nothing that was written in between.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio_util::sync::CancellationToken;

const POLL: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_secs(5);
const BATCH_RECORDS_MAX: usize = 500;
const BATCH_BYTES_MAX: u64 = 1 << 20;
/// How much of a file's past is worth showing at the first start.
const FIRST_LOOK_BYTES: u64 = 64 << 10;
const FILES_MAX: usize = 64;

/// Where to send and what to remember.
pub(crate) struct HostLogs {
    /// `/v1/logs` of the collector.
    pub(crate) url: String,
    /// File that keeps the positions.
    pub(crate) state: PathBuf,
    /// Folder with log files.
    pub(crate) folder: PathBuf,
}

#[derive(Debug, Default, Serialize, Deserialize, PartialEq)]
struct Positions {
    version: u32,
    #[serde(default)]
    journal_cursor: Option<String>,
    #[serde(default)]
    files: BTreeMap<PathBuf, Position>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize, PartialEq)]
struct Position {
    inode: u64,
    offset: u64,
}

/// Runs until shutdown. Trouble is logged and retried: host logs are a courtesy and stop nothing else.
pub(crate) async fn run(options: HostLogs, shutdown: CancellationToken) {
    let mut follower = Follower { positions: load(&options.state), client: reqwest::Client::new(), options };
    let work = async {
        loop {
            let result = if journal_is_there() { follower.journal().await } else { follower.files().await };
            if let Err(error) = result {
                tracing::warn!(error = format!("{error:#}"), "host logs are not being read; trying again");
            }
            tokio::time::sleep(RETRY).await;
        }
    };
    tokio::select! {
        () = work => {}
        () = shutdown.cancelled() => {}
    }
}

fn journal_is_there() -> bool {
    ["/run/log/journal", "/var/log/journal"]
        .iter()
        .any(|folder| std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()))
}

fn load(path: &Path) -> Positions {
    // A lost or foreign file means starting over: some lines are shown twice, none are missed.
    std::fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

struct Follower {
    options: HostLogs,
    positions: Positions,
    client: reqwest::Client,
}

impl Follower {
    /// Follows the journal through `journalctl`.
    async fn journal(&mut self) -> Result<()> {
        let mut command = tokio::process::Command::new("journalctl");
        command.args(["--follow", "--output=json", "--no-pager", "--quiet"]).stdout(std::process::Stdio::piped()).kill_on_drop(true);
        match &self.positions.journal_cursor {
            Some(cursor) => command.arg(format!("--after-cursor={cursor}")),
            None => command.arg("--lines=200"),
        };
        let mut child = command.spawn().context("starting journalctl")?;
        let mut lines = BufReader::new(child.stdout.take().context("journalctl has no output")?).lines();
        while let Some(first) = lines.next_line().await.context("reading from journalctl")? {
            let mut batch = vec![first];
            while batch.len() < BATCH_RECORDS_MAX
                && let Ok(Ok(Some(line))) = tokio::time::timeout(Duration::from_millis(20), lines.next_line()).await
            {
                batch.push(line);
            }
            let entries: Vec<Value> = batch.iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
            let records: Vec<Value> = entries.iter().map(journal_record).collect();
            self.send(&json!({ "stringValue": "journald" }), records).await?;
            if let Some(cursor) = entries.iter().rev().find_map(|entry| entry["__CURSOR"].as_str()) {
                self.positions.journal_cursor = Some(cursor.to_owned());
                self.save()?;
            }
        }
        anyhow::bail!("journalctl ended: {}", child.wait().await?)
    }

    /// Follows the log files until something goes wrong.
    async fn files(&mut self) -> Result<()> {
        loop {
            for path in log_files(&self.options.folder)? {
                self.file(&path).await.with_context(|| format!("following {}", path.display()))?;
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Sends what one file has grown by.
    async fn file(&mut self, path: &Path) -> Result<()> {
        loop {
            let mut file = match std::fs::File::open(path) {
                // Rotated away since the folder was listed.
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
                opened => opened?,
            };
            let metadata = file.metadata()?;
            let start = match self.positions.files.get(path) {
                Some(known) if known.inode == metadata.ino() && known.offset <= metadata.len() => known.offset,
                // Another file under that name, or a truncated one: all of it is new.
                Some(_) => 0,
                None => metadata.len().saturating_sub(FIRST_LOOK_BYTES),
            };
            file.seek(SeekFrom::Start(start))?;
            let mut bytes = Vec::new();
            file.take(BATCH_BYTES_MAX).read_to_end(&mut bytes)?;
            let batch = first_lines(&bytes);
            if batch.is_empty() {
                return Ok(());
            }
            let now = nanoseconds(SystemTime::now());
            let lines = batch.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end).filter(|line| !line.is_empty());
            let records = lines.map(|line| {
                let text = String::from_utf8_lossy(line);
                json!({ "timeUnixNano": now, "observedTimeUnixNano": now, "body": { "stringValue": text } })
            });
            let (records, offset) = (records.collect(), start + batch.len() as u64);
            self.send(&json!({ "stringValue": path.display().to_string() }), records).await?;
            self.positions.files.insert(path.to_owned(), Position { inode: metadata.ino(), offset });
            self.save()?;
        }
    }

    async fn send(&self, source: &Value, records: Vec<Value>) -> Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let resource = json!({ "attributes": [
            { "key": "host.name", "value": { "stringValue": host.trim() } },
            { "key": "log.source", "value": source },
        ] });
        let body = json!({ "resourceLogs": [{ "resource": resource, "scopeLogs": [{ "logRecords": records }] }] });
        let answer = self.client.post(&self.options.url).json(&body).send().await.context("sending to the collector")?;
        let status = answer.status();
        anyhow::ensure!(status.is_success(), "the collector answered {status}: {}", answer.text().await.unwrap_or_default());
        Ok(())
    }

    fn save(&mut self) -> Result<()> {
        self.positions.version = 1;
        let path = &self.options.state;
        let temporary = path.with_extension("tmp");
        std::fs::write(&temporary, serde_json::to_vec(&self.positions)?)
            .and_then(|()| std::fs::rename(&temporary, path))
            .with_context(|| format!("saving positions to {}", path.display()))
    }
}

/// The whole lines at the beginning of what was read, as many as fit into a batch. A line that fills a batch alone is
/// cut there; a shorter one without an end is not finished yet.
fn first_lines(bytes: &[u8]) -> &[u8] {
    let ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
    match ends.take(BATCH_RECORDS_MAX).last() {
        Some(end) => &bytes[..end],
        None if bytes.len() as u64 == BATCH_BYTES_MAX => bytes,
        None => &[],
    }
}

/// Text log files of the folder, not those that are rotated, compressed or binary.
fn log_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let known = ["syslog", "messages", "auth", "kern", "daemon", "user", "secure", "cron"];
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .with_context(|| format!("listing {}", folder.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let log = path.extension().is_some_and(|extension| extension == "log");
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            path.is_file() && (log || known.contains(&name)) && std::fs::File::open(path).is_ok()
        })
        .collect();
    files.sort();
    files.truncate(FILES_MAX);
    Ok(files)
}

/// An entry of `journalctl --output=json` as an OTLP log record.
fn journal_record(entry: &Value) -> Value {
    let text = |field: &str| match &entry[field] {
        Value::String(text) => text.clone(),
        // Bytes that are not UTF-8 come as numbers.
        Value::Array(bytes) => {
            let bytes: Vec<u8> = bytes.iter().filter_map(|byte| u8::try_from(byte.as_u64()?).ok()).collect();
            String::from_utf8_lossy(&bytes).into_owned()
        }
        _ => String::new(),
    };
    let time = text("__REALTIME_TIMESTAMP").parse::<u64>().unwrap_or(0).saturating_mul(1000).to_string();
    let (severity, name) = match text("PRIORITY").as_str() {
        "0" => (24, "EMERG"),
        "1" => (22, "ALERT"),
        "2" => (21, "CRIT"),
        "3" => (17, "ERROR"),
        "4" => (13, "WARN"),
        "5" => (10, "NOTICE"),
        "7" => (5, "DEBUG"),
        _ => (9, "INFO"),
    };
    let attributes: Vec<Value> = ["_SYSTEMD_UNIT", "SYSLOG_IDENTIFIER", "_PID", "_COMM"]
        .iter()
        .filter(|field| entry.get(**field).is_some())
        .map(|field| json!({ "key": field, "value": { "stringValue": text(field) } }))
        .collect();
    json!({
        "timeUnixNano": time,
        "severityNumber": severity,
        "severityText": name,
        "body": { "stringValue": text("MESSAGE") },
        "attributes": attributes,
    })
}

fn nanoseconds(time: SystemTime) -> String {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn journal_entries_keep_time_severity_and_bytes() {
        let entry = json!({ "__REALTIME_TIMESTAMP": "1700000000123456", "PRIORITY": "3", "MESSAGE": [104, 105, 255], "_PID": "7" });
        let record = journal_record(&entry);
        assert_eq!(record["timeUnixNano"], "1700000000123456000");
        assert_eq!(record["severityNumber"], 17);
        assert_eq!(record["body"]["stringValue"], "hi\u{fffd}");
        assert_eq!(record["attributes"][0], json!({ "key": "_PID", "value": { "stringValue": "7" } }));
    }

    #[test]
    fn a_batch_ends_with_a_line() {
        assert_eq!(first_lines(b"a\n\xff\nunfinished"), b"a\n\xff\n");
        assert_eq!(first_lines(b"unfinished"), b"");
        assert_eq!(first_lines(&b"x\n".repeat(BATCH_RECORDS_MAX + 1)).len(), 2 * BATCH_RECORDS_MAX);
        let endless = vec![b'x'; BATCH_BYTES_MAX as usize];
        assert_eq!(first_lines(&endless), endless);
    }

    #[test]
    fn only_current_text_logs_are_followed() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["app.log", "syslog", "app.log.1", "old.log.gz", "wtmp"] {
            std::fs::write(folder.path().join(name), "x\n").unwrap();
        }
        let names: Vec<_> = log_files(folder.path()).unwrap().iter().map(|path| path.file_name().unwrap().to_owned()).collect();
        assert_eq!(names, ["app.log", "syslog"]);
    }
}
