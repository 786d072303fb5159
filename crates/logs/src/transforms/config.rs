//! Settings of transforms: read with the place of every mistake.

use std::fmt;

use serde::de::DeserializeOwned;

/// Something wrong with a transform's settings.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TransformError {
    /// Which transform of the list, from 0.
    pub index: usize,
    /// Where in the transform's table: `config`, then the key, and so on; `name` alone for its name.
    pub path: Vec<PathStep>,
    /// What is wrong, and what would be right.
    pub message: String,
}

/// A step into a table or an array.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PathStep {
    /// The value of a key.
    Key(String),
    /// The item at a place, from 0.
    Index(usize),
}

impl fmt::Display for TransformError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "transforms[{}]", self.index)?;
        for step in &self.path {
            match step {
                PathStep::Key(key) => write!(f, ".{key}")?,
                PathStep::Index(index) => write!(f, "[{index}]")?,
            }
        }
        write!(f, ": {}", self.message)
    }
}

impl std::error::Error for TransformError {}

impl TransformError {
    pub(super) fn at_name(message: impl Into<String>) -> Self {
        Self { index: 0, path: vec![PathStep::Key("name".to_owned())], message: message.into() }
    }

    /// About the settings as a whole.
    pub(super) fn at_config(message: impl Into<String>) -> Self {
        Self { index: 0, path: vec![PathStep::Key("config".to_owned())], message: message.into() }
    }

    /// About the value of a key.
    pub(super) fn at_key(key: &str, message: impl Into<String>) -> Self {
        let mut error = Self::at_config(message);
        error.path.push(PathStep::Key(key.to_owned()));
        error
    }

    /// About an item of the list under a key.
    pub(super) fn at_item(key: &str, item: usize, message: impl Into<String>) -> Self {
        let mut error = Self::at_key(key, message);
        error.path.push(PathStep::Index(item));
        error
    }
}

/// Reads settings; `keys` are all keys that they may have, for suggestions.
pub(super) fn read<T: DeserializeOwned>(config: &toml::Value, keys: &[&str]) -> Result<T, Vec<TransformError>> {
    let mut errors = Vec::new();
    let unknown = |path: serde_ignored::Path<'_>| {
        let path = steps(&path);
        let key = if let Some(PathStep::Key(key)) = path.last() { key.clone() } else { String::new() };
        errors.push(TransformError { index: 0, message: format!("unknown key {key}{}", suggestion(&key, keys)), path });
    };
    let mut unknown = unknown;
    let deserializer = serde_ignored::Deserializer::new(config.clone(), &mut unknown);
    match serde_path_to_error::deserialize(deserializer) {
        Ok(read) if errors.is_empty() => Ok(read),
        Ok(_) => Err(errors),
        Err(error) => {
            let mut path = vec![PathStep::Key("config".to_owned())];
            path.extend(error.path().iter().filter_map(|segment| match segment {
                serde_path_to_error::Segment::Seq { index } => Some(PathStep::Index(*index)),
                serde_path_to_error::Segment::Map { key } => Some(PathStep::Key(key.clone())),
                _ => None,
            }));
            errors.push(TransformError { index: 0, path, message: error.inner().message().to_owned() });
            Err(errors)
        }
    }
}

fn steps(path: &serde_ignored::Path<'_>) -> Vec<PathStep> {
    use serde_ignored::Path;
    match path {
        Path::Root => vec![PathStep::Key("config".to_owned())],
        Path::Seq { parent, index } => {
            let mut all = steps(parent);
            all.push(PathStep::Index(*index));
            all
        }
        Path::Map { parent, key } => {
            let mut all = steps(parent);
            all.push(PathStep::Key(key.clone()));
            all
        }
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => steps(parent),
    }
}

/// `; did you mean x?` or `; use one of a, b`.
pub(super) fn suggestion(given: &str, known: &[&str]) -> String {
    let lower = given.to_ascii_lowercase();
    let near = known.iter().map(|name| (strsim::jaro_winkler(&lower, &name.to_ascii_lowercase()), name));
    match near.max_by(|a, b| a.0.total_cmp(&b.0)) {
        None => "; it takes no settings".to_owned(),
        Some((likeness, name)) if likeness > 0.85 => format!("; did you mean {name}?"),
        Some(_) => format!("; use one of {}", known.join(", ")),
    }
}
