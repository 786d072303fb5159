//! The configuration: from TOML text to a checked [`Config`].
//!
//! Every problem of a file is reported at once, with line and column: of the key, or of the table that lacks it.
//! A file of the reference runs unchanged; keys for functions that this version does not have yet
//! are checked and named in a [`Warning`], never ignored in silence.

mod absent;
mod events;
pub mod exporters;
pub mod file;
mod files;
mod host;
pub(crate) mod kubernetes;
mod positions;
pub mod reference;
mod rules;
pub(crate) mod settings;
mod table_limits;
mod validate;

use std::fmt;

pub use events::EventSource;
pub use exporters::{ExporterClient, ExporterSettings};
pub use files::{ChosenPod, FileLog, FileSource, PodLines, PodLogs};
pub use host::{JournalSource, KernelSource, LogTarget, SyslogProtocol, SyslogSource};
pub use kubernetes::{KubeletSettings, KubernetesSettings};
pub use rules::RuleScope;
pub use settings::{Backend, Config, LogSource, MetricEndpoint, MetricProtocol, ScrapeSettings, ScrapeTarget, TlsMode, TraceSource};
pub use table_limits::TableLimit;

use file::File;
use positions::{Place, Position};
use toml::de::DeTable;

/// Something the operator should know about, which does not keep the collector from running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning(pub String);

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One thing wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where, when it is one place.
    pub position: Option<Position>,
    /// What, and what would be right.
    pub message: String,
}

/// All that is wrong with a file; the first problem is the one that the reference reports.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// At least one.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            let separator = if i == 0 { "" } else { "\n" };
            match problem.position {
                Some(Position { line, column }) => {
                    write!(f, "{separator}line {line}, column {column}: {}", problem.message)?;
                }
                None => write!(f, "{separator}{}", problem.message)?,
            }
        }
        Ok(())
    }
}

impl Config {
    /// Reads a file. `hostname` replaces `$(HOSTNAME)` in every string value (not in keys, not in
    /// the free-form settings of a transform).
    ///
    /// # Errors
    /// [`ConfigError`] with everything that is wrong.
    pub fn from_toml(text: &str, hostname: &str) -> Result<(Config, Vec<Warning>), ConfigError> {
        let Read { file, mistyped, unknown, tree } = read(text, hostname)?;
        let position = |offset| positions::position(text, offset);
        // A value that is left out for its type is not missing.
        let left_out = |offset: &Option<usize>| mistyped.iter().any(|value| Some(value.offset) == *offset);
        let problems = validate::problems(&file).into_iter().map(|(place, message)| (place.offset(&tree), message));
        let problems = problems.filter(|(offset, _)| !left_out(offset));
        let unknown = unknown.into_iter().map(|(place, message)| (place.offset(&tree), message));
        let others = problems.chain(unknown).map(|(offset, message)| Problem { position: offset.map(position), message });
        let problems: Vec<_> = mistyped.iter().map(|value| value.problem.clone()).chain(others).collect();
        if !problems.is_empty() {
            return Err(ConfigError { problems });
        }
        settings::resolve(file, hostname).map_err(|problems| ConfigError { problems })
    }
}

/// What a text says.
struct Read<'t> {
    /// The file as written, without the values of a wrong type.
    file: File,
    mistyped: Vec<Mistyped>,
    /// Its unknown keys.
    unknown: Vec<(Place, String)>,
    /// Where everything stands.
    tree: DeTable<'t>,
}

/// A value of a type that its key does not take.
struct Mistyped {
    problem: Problem,
    /// Where [`Place::offset`] has it.
    offset: usize,
}

/// Values of a wrong type that are named at once.
const MAX_MISTYPED: usize = 100;

fn read<'t>(text: &'t str, hostname: &str) -> Result<Read<'t>, ConfigError> {
    let problem = |error: &toml::de::Error| Problem {
        position: error.span().map(|span| positions::position(text, span.start)),
        message: format!("toml: {}", error.message()),
    };
    let mut rest = DeTable::parse(text).map_err(|error| ConfigError { problems: vec![problem(&error)] })?;
    let tree = rest.get_ref().clone();
    positions::substitute(rest.get_mut(), "$(HOSTNAME)", hostname);
    let mut mistyped: Vec<Mistyped> = Vec::new();
    loop {
        let mut unknown = Vec::new();
        let read = serde_ignored::deserialize(toml::Deserializer::from(rest.clone()), |path| {
            // An optional table shows as `?` in the path.
            let name = path.to_string().replace(".?", "");
            unknown.push((Place::from(&path), format!("unknown key {name}; remove it or correct its name")));
        });
        match read {
            Ok(file) => {
                mistyped.sort_by_key(|value| value.problem.position);
                return Ok(Read { file, mistyped, unknown, tree });
            }
            // The first one ends the reading: the others show without it.
            Err(error) => {
                let problem = problem(&error);
                match error.span().and_then(|span| positions::remove(rest.get_mut(), &span)) {
                    Some(offset) if mistyped.len() + 1 < MAX_MISTYPED => mistyped.push(Mistyped { problem, offset }),
                    _ => {
                        let problems = mistyped.into_iter().map(|value| value.problem).chain([problem]).collect();
                        return Err(ConfigError { problems });
                    }
                }
            }
        }
    }
}
