//! The formats of log files: what one line of a file says.

use std::borrow::Cow;
use std::str::FromStr;

use serde::Deserialize;

/// How the lines of a file are written.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum LineFormat {
    /// The line is the message.
    #[default]
    Plain,
    /// Docker's json-file driver: `{"log":"…\n","stream":"stdout","time":"…"}`.
    Docker,
    /// The container runtime interface: `<RFC 3339 time> <stream> <tags> <message>`.
    Cri,
    /// What a kubelet's node has, Docker's or CRI: each line says by its first byte which.
    Kubernetes,
}

impl LineFormat {
    /// The names that configurations use.
    pub const NAMES: [&'static str; 4] = ["plain", "docker", "cri", "kubernetes"];
}

impl FromStr for LineFormat {
    type Err = String;

    /// Reads a name; no name means plain.
    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "" | "plain" => Ok(Self::Plain),
            "docker" => Ok(Self::Docker),
            "cri" => Ok(Self::Cri),
            "kubernetes" => Ok(Self::Kubernetes),
            _ => Err(format!("{name} is not a log type; use one of {}", Self::NAMES.join(", "))),
        }
    }
}

/// What a line says.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Line<'l> {
    /// A message or a part of one.
    Fragment(Fragment<'l>),
    /// Nothing: an empty line of a format whose lines are never empty.
    Empty,
    /// It is not of the format.
    Bad,
}

/// A message or a part of one.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Fragment<'l> {
    /// In nanoseconds since 1970; `None` when the format has no times.
    pub(super) time: Time,
    /// `stdout` or `stderr`; empty when the format has no streams.
    pub(super) stream: Cow<'l, str>,
    pub(super) text: Cow<'l, str>,
    /// Whether the message goes on in the next line of the stream.
    pub(super) partial: bool,
}

/// The time that a line gives.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Time {
    /// Nanoseconds since 1970.
    Known(u64),
    /// The format has none.
    Absent,
    /// It cannot be read.
    Bad,
}

/// Reads a line, without its line end.
pub(super) fn read(format: LineFormat, line: &str) -> Line<'_> {
    match format {
        LineFormat::Plain => {
            let text = Cow::Borrowed(line);
            Line::Fragment(Fragment { time: Time::Absent, stream: Cow::Borrowed(""), text, partial: false })
        }
        _ if line.is_empty() || line == "\r" => Line::Empty,
        LineFormat::Docker => docker(line),
        LineFormat::Cri => cri(line),
        LineFormat::Kubernetes if line.starts_with('{') => docker(line),
        LineFormat::Kubernetes => cri(line),
    }
}

fn cri(line: &str) -> Line<'_> {
    let mut parts = line.splitn(4, ' ');
    let (Some(time), Some(stream), Some(tags), Some(text)) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Line::Bad;
    };
    if !matches!(stream, "stdout" | "stderr") {
        return Line::Bad;
    }
    // Tags are a list with colons; the first says whether the line is whole.
    let partial = tags.split(':').next() == Some("P");
    Line::Fragment(Fragment { time: read_time(time), stream: Cow::Borrowed(stream), text: Cow::Borrowed(text), partial })
}

#[derive(Deserialize)]
struct DockerLine<'l> {
    #[serde(borrow)]
    log: Cow<'l, str>,
    #[serde(borrow, default)]
    stream: Cow<'l, str>,
    #[serde(borrow, default)]
    time: Cow<'l, str>,
}

fn docker(line: &str) -> Line<'_> {
    let Ok(DockerLine { log, stream, time }) = serde_json::from_str(line) else { return Line::Bad };
    let partial = !log.ends_with('\n');
    let text = match log {
        Cow::Borrowed(text) => Cow::Borrowed(text.strip_suffix('\n').unwrap_or(text)),
        Cow::Owned(mut text) => {
            if !partial {
                text.pop();
            }
            Cow::Owned(text)
        }
    };
    Line::Fragment(Fragment { time: read_time(&time), stream, text, partial })
}

/// RFC 3339 with any number of fractional digits up to nine.
fn read_time(text: &str) -> Time {
    const PARSER: jiff::fmt::temporal::DateTimeParser = jiff::fmt::temporal::DateTimeParser::new();
    let time = PARSER.parse_timestamp(text).ok().and_then(|time| u64::try_from(time.as_nanosecond()).ok());
    time.map_or(Time::Bad, Time::Known)
}
