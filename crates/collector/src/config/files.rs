//! Settings of the logs that are read from files: those that the file names, and those of pods.

use std::path::PathBuf;
use std::sync::Arc;

use logs::{Destination, LineFormat, LineOptions, MultiLineSettings, Parsers};

use super::file::{File, FileTarget, HostLog, Map, StaticPodTarget};
use super::host::{self, LogTarget};
use super::settings;

/// Where every kubelet links the logs of containers.
const CONTAINERS: &str = "/var/log/containers";

/// The files of one `[[host-log]]`.
#[derive(Debug, Clone)]
pub struct FileSource {
    /// Files that are named.
    pub files: Vec<FileLog>,
    /// Logs of the pods of this node, if they are collected.
    pub pods: Option<PodLogs>,
    /// What is done with the records of all of them.
    pub shared: LogTarget,
}

/// Files that are read in the same way.
#[derive(Debug, Clone)]
pub struct FileLog {
    /// Path or pattern.
    pub path: String,
    /// Patterns of what is left out.
    pub exclude: Vec<String>,
    /// How lines become messages.
    pub lines: Arc<LineOptions>,
    /// What the messages are put through.
    pub parsers: Parsers,
    /// Where they go.
    pub destination: Destination,
}

/// The logs of pods.
#[derive(Debug, Clone)]
pub struct PodLogs {
    /// Where the kubelet links the logs of containers.
    pub dir: PathBuf,
    /// Pods whose logs are collected although they do not ask for it; the first that fits counts.
    pub chosen: Vec<ChosenPod>,
}

/// Pods that a setting chooses.
#[derive(Debug, Clone, Default)]
pub struct ChosenPod {
    /// Any if empty.
    pub namespace: String,
    /// Any if empty.
    pub name: String,
    /// All of them have to fit.
    pub labels: Map,
    /// `database:table`, unless the pod names another one.
    pub destination: String,
    /// Parsers, unless the pod names others.
    pub parsers: Vec<String>,
}

/// The file sources of a file.
///
/// # Errors
/// What is wrong with them.
pub(super) fn sources(file: &File) -> Result<Vec<FileSource>, String> {
    let reads = |log: &&HostLog| !log.file_target.is_empty() || !log.disable_kube_discovery;
    file.host_log.iter().filter(reads).map(|log| source(file, log)).collect()
}

fn source(file: &File, log: &HostLog) -> Result<FileSource, String> {
    Ok(FileSource {
        files: log.file_target.iter().map(file_log).collect::<Result<_, _>>()?,
        pods: (!log.disable_kube_discovery)
            .then(|| PodLogs { dir: CONTAINERS.into(), chosen: log.static_pod_target.iter().map(chosen).collect() }),
        shared: host::shared(file, &[], log)?,
    })
}

fn file_log(target: &FileTarget) -> Result<FileLog, String> {
    Ok(FileLog {
        path: target.file_path.clone(),
        exclude: target.exclude.clone(),
        lines: Arc::new(line_options(target)?),
        parsers: Parsers::from_names(&target.parsers)?,
        destination: host::destination(&target.database, &target.table)?,
    })
}

/// How the lines of a target are read.
fn line_options(target: &FileTarget) -> Result<LineOptions, String> {
    let format = target.log_type.parse::<LineFormat>()?;
    let rule = target.multi_line.as_ref().map(MultiLineSettings::rule).transpose();
    let multi_line = rule.map_err(|(key, why)| format!("multi-line.{key}: {why}"))?;
    let max_bytes = settings::positive(target.max_line_bytes).and_then(|bytes| usize::try_from(bytes).ok());
    Ok(LineOptions { format, max_bytes: max_bytes.unwrap_or(logs::DEFAULT_MAX_BYTES), multi_line: multi_line.map(Arc::new) })
}

fn chosen(target: &StaticPodTarget) -> ChosenPod {
    ChosenPod {
        namespace: target.namespace.clone(),
        name: target.name.clone(),
        labels: target.label_targets.clone(),
        destination: target.destination.clone(),
        parsers: target.parsers.clone(),
    }
}
