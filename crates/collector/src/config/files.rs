//! Settings of the logs that are read from files: those that the file names, and those of pods.

use std::path::PathBuf;
use std::sync::Arc;

use logs::{Destination, LineFormat, LineOptions, MultiLine, MultiLineSettings, Parsers};

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
    /// How the lines of all of them become messages, unless it is said for one.
    pub lines: PodLines,
}

/// How the lines of a pod become messages, as far as it is said.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PodLines {
    /// How lines of one event are recognised.
    pub multi_line: Option<MultiLineSettings>,
    /// Longest message in bytes.
    pub max_bytes: Option<usize>,
}

impl PodLines {
    /// How lines are read.
    ///
    /// # Errors
    /// The key of `multi-line` that is wrong, and why.
    pub fn options(&self) -> Result<LineOptions, (&'static str, String)> {
        let multi_line = self.multi_line.as_ref().map(MultiLineSettings::rule).transpose()?;
        Ok(LineOptions {
            format: LineFormat::Kubernetes,
            max_bytes: self.max_bytes.unwrap_or(logs::DEFAULT_MAX_BYTES),
            multi_line: multi_line.map(Arc::new),
        })
    }
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
    /// How their lines become messages, where it differs from those of other pods.
    pub lines: PodLines,
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
        pods: (!log.disable_kube_discovery).then(|| pods(log)),
        shared: host::shared(file, &[], log)?,
    })
}

fn pods(log: &HostLog) -> PodLogs {
    let said = log.pod_defaults.as_ref().map(|pods| pod_lines(pods.max_line_bytes, pods.multi_line.as_ref())).unwrap_or_default();
    let lines = PodLines { max_bytes: said.max_bytes.or(Some(logs::DEFAULT_MAX_BYTES)), ..said };
    PodLogs { dir: CONTAINERS.into(), chosen: log.static_pod_target.iter().map(chosen).collect(), lines }
}

fn pod_lines(max_line_bytes: i64, multi_line: Option<&MultiLineSettings>) -> PodLines {
    let multi_line = multi_line.map(|rule| MultiLineSettings {
        max_lines: rule.max_lines.or(i64::try_from(MultiLine::DEFAULT_MAX_LINES).ok()),
        max_wait_seconds: rule.max_wait_seconds.or(Some(MultiLine::DEFAULT_MAX_WAIT.as_secs_f64())),
        ..rule.clone()
    });
    PodLines { multi_line, max_bytes: max_bytes(max_line_bytes) }
}

fn max_bytes(max_line_bytes: i64) -> Option<usize> {
    settings::positive(max_line_bytes).and_then(|bytes| usize::try_from(bytes).ok())
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
    let max_bytes = max_bytes(target.max_line_bytes);
    Ok(LineOptions { format, max_bytes: max_bytes.unwrap_or(logs::DEFAULT_MAX_BYTES), multi_line: multi_line.map(Arc::new) })
}

fn chosen(target: &StaticPodTarget) -> ChosenPod {
    ChosenPod {
        namespace: target.namespace.clone(),
        name: target.name.clone(),
        labels: target.label_targets.clone(),
        destination: target.destination.clone(),
        parsers: target.parsers.clone(),
        lines: pod_lines(target.max_line_bytes, target.multi_line.as_ref()),
    }
}
