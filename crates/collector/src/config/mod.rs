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
pub use files::{ChosenPod, FileLog, FileSource, PodLogs};
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
        let (file, unknown, tree) = read(text, hostname)?;
        let placed = |(place, message): (Place, String)| {
            let position = place.offset(&tree).map(|offset| positions::position(text, offset));
            Problem { position, message }
        };
        let problems: Vec<_> = validate::problems(&file).into_iter().chain(unknown).map(placed).collect();
        if !problems.is_empty() {
            return Err(ConfigError { problems });
        }
        settings::resolve(file, hostname).map_err(|problems| ConfigError { problems })
    }
}

/// The file as written, its unknown keys, and where everything stands.
#[allow(clippy::type_complexity)]
fn read<'t>(text: &'t str, hostname: &str) -> Result<(File, Vec<(Place, String)>, DeTable<'t>), ConfigError> {
    let one = |error: &toml::de::Error| ConfigError {
        problems: vec![Problem {
            position: error.span().map(|span| positions::position(text, span.start)),
            message: format!("toml: {}", error.message()),
        }],
    };
    let mut tree = DeTable::parse(text).map_err(|e| one(&e))?;
    let keys = tree.get_ref().clone();
    positions::substitute(tree.get_mut(), "$(HOSTNAME)", hostname);
    let mut unknown = Vec::new();
    let file = serde_ignored::deserialize(toml::Deserializer::from(tree), |path| {
        // An optional table shows as `?` in the path.
        let name = path.to_string().replace(".?", "");
        unknown.push((Place::from(&path), format!("unknown key {name}; remove it or correct its name")));
    })
    .map_err(|e| one(&e))?;
    Ok((file, unknown, keys))
}
