//! The exporters that run, as the configuration names them.
//!
//! Buffers stay open until the collector ends: requests that began before a reload still put into them. An exporter whose
//! settings differ is replaced; one that is not configured any more stops, and its buffer keeps what it has.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use exporters::fluent::FluentForward;
use exporters::otlp::OtlpMetrics;
use exporters::remote_write::RemoteWrite;
use exporters::{Buffer, BufferOptions, Client, Exporter, ExporterOptions, Metrics};
use futures::future::join_all;
use tokio::time::Instant;

use crate::config::{Config, ExporterClient, ExporterSettings};

/// How long the drain tries to empty the buffers of receivers that answer.
const DRAIN_DEADLINE: Duration = Duration::from_secs(5);

/// Exporters by name.
pub(crate) struct Exporters {
    dir: PathBuf,
    metrics: Metrics,
    buffers: BTreeMap<String, Buffer>,
    running: BTreeMap<String, Running>,
}

struct Running {
    client: ExporterClient,
    timeout: Duration,
    exporter: Exporter,
}

impl Exporters {
    /// None yet; buffers are in a folder of `storage_dir`.
    pub(crate) fn new(storage_dir: &std::path::Path, metrics: Metrics) -> Self {
        Exporters { dir: storage_dir.join("exporters"), metrics, buffers: BTreeMap::new(), running: BTreeMap::new() }
    }

    /// Runs those of `config`, and no others.
    ///
    /// # Errors
    /// A client that cannot be made, a folder that cannot be used.
    pub(crate) async fn follow(&mut self, config: &Config) -> anyhow::Result<()> {
        let names: Vec<String> = self.running.keys().filter(|name| !config.exporters.iter().any(|e| e.name == **name)).cloned().collect();
        for name in names {
            self.end(&name).await;
        }
        for settings in &config.exporters {
            let same = |running: &Running| running.client == settings.client && running.timeout == settings.timeout;
            if !self.running.get(&settings.name).is_some_and(same) {
                let run = |what: anyhow::Error| what.context(format!("starting exporter {:?}", settings.name));
                self.replace(settings).await.map_err(run)?;
            }
            if let Some(buffer) = self.buffers.get(&settings.name) {
                buffer.set_limits(settings.max_buffer_bytes, settings.max_buffer_age);
            }
        }
        self.tell_of_others();
        Ok(())
    }

    /// Where to put what an exporter is to send, by its name.
    pub(crate) fn buffers(&self) -> BTreeMap<String, Buffer> {
        let running = |(name, buffer): (&String, &Buffer)| self.running.contains_key(name).then(|| (name.clone(), buffer.clone()));
        self.buffers.iter().filter_map(running).collect()
    }

    /// One line for each exporter, for people.
    pub(crate) fn page(&self) -> String {
        let mut page = String::new();
        for (name, running) in &self.running {
            let (buffer, (kind, endpoint)) = (running.exporter.buffer(), labels(&running.client));
            let state = match running.exporter.status() {
                status if status.idle => "idle".to_owned(),
                status => status.failing.map_or_else(|| "sending".to_owned(), |why| format!("FAILING: {why}")),
            };
            page.push_str(&format!(
                "  {name:<30} {kind} {endpoint}: {} bytes in {} segments wait, the oldest for {} s; {state}\n",
                buffer.bytes(),
                buffer.segments(),
                buffer.oldest_age().as_secs()
            ));
        }
        page
    }

    /// Sends what receivers take at once, at most until `deadline`, and ends.
    pub(crate) async fn drain(&mut self, deadline: Instant) {
        let within = deadline.duration_since(Instant::now()).min(DRAIN_DEADLINE);
        join_all(self.running.values().map(|running| running.exporter.drain(within))).await;
        for name in self.running.keys().cloned().collect::<Vec<_>>() {
            self.end(&name).await;
        }
        for buffer in std::mem::take(&mut self.buffers).into_values() {
            let _ = tokio::task::spawn_blocking(move || buffer.close()).await;
        }
    }

    async fn replace(&mut self, settings: &ExporterSettings) -> anyhow::Result<()> {
        let buffer = self.buffer(settings).await?;
        match settings.client.clone() {
            ExporterClient::Otlp(config, typed) => self.start(OtlpMetrics::new(config, typed)?, buffer, settings).await,
            ExporterClient::RemoteWrite(config) => self.start(RemoteWrite::new(config)?, buffer, settings).await,
            ExporterClient::Fluent(config) => self.start(FluentForward::new(config), buffer, settings).await,
        }
        Ok(())
    }

    async fn start(&mut self, client: impl Client, buffer: Buffer, settings: &ExporterSettings) {
        self.end(&settings.name).await;
        let options = ExporterOptions { timeout: settings.timeout, ..ExporterOptions::default() };
        let (kind, endpoint) = labels(&settings.client);
        let exporter = Exporter::start(client, buffer, (kind, &endpoint), options);
        let running = Running { client: settings.client.clone(), timeout: settings.timeout, exporter };
        self.running.insert(settings.name.clone(), running);
    }

    async fn end(&mut self, name: &str) {
        if let Some(running) = self.running.remove(name) {
            running.exporter.end().await;
        }
    }

    async fn buffer(&mut self, settings: &ExporterSettings) -> anyhow::Result<Buffer> {
        if let Some(buffer) = self.buffers.get(&settings.name) {
            return Ok(buffer.clone());
        }
        let dir = self.dir.join(folder(&settings.name));
        let options = BufferOptions { max_bytes: settings.max_buffer_bytes, max_age: settings.max_buffer_age, ..BufferOptions::new(&dir) };
        let (name, metrics) = (settings.name.clone(), self.metrics.clone());
        let open = move || Buffer::open(options, &name, Buffer::system_clock(), &metrics);
        let buffer = tokio::task::spawn_blocking(open).await?.with_context(|| format!("opening the buffer in {}", dir.display()))?;
        self.buffers.insert(settings.name.clone(), buffer.clone());
        Ok(buffer)
    }

    /// Data of exporters that are not configured stays where it is, and nothing sends it.
    fn tell_of_others(&self) {
        let Ok(folders) = std::fs::read_dir(&self.dir) else { return };
        for found in folders.flatten() {
            if !self.running.keys().any(|name| found.file_name() == *folder(name)) {
                tracing::warn!(dir = %found.path().display(), "the buffer of an exporter that is not configured: configure it, or remove the folder");
            }
        }
    }
}

/// The reference's name of the kind, and where it sends, without a password.
fn labels(client: &ExporterClient) -> (&'static str, String) {
    match client {
        ExporterClient::Otlp(config, _) => ("PromToOtlp", exporters::redacted(&config.endpoint)),
        ExporterClient::RemoteWrite(config) => ("PromToRemoteWrite", exporters::redacted(&config.endpoint)),
        ExporterClient::Fluent(config) => ("LogToFluentExporter", config.destination.to_string()),
    }
}

/// A folder's name for an exporter's: everything but ASCII letters, digits, `-` and `_` is written in hex.
fn folder(name: &str) -> String {
    let safe = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    name.bytes().map(|byte| if safe(byte) { char::from(byte).to_string() } else { format!("%{byte:02x}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::folder;

    #[test]
    fn folders_stay_inside() {
        assert_eq!(folder("to-otel_1"), "to-otel_1");
        assert_eq!(folder("../a b"), "%2e%2e%2fa%20b");
        assert_ne!(folder("a%2e"), folder("a."));
    }
}
