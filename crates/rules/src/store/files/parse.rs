//! Text of a rule file to its documents, and what is wrong with them.

use std::fmt;
use std::path::PathBuf;

use serde_json::{Map, Value};

use super::super::{Key, Object};

/// The API group and version of our kinds.
const API_VERSION: &str = "adx-mon.azure.com/v1";
/// Kinds that a folder may hold although nobody here runs them.
const KINDS: [&str; 9] =
    ["ADXCluster", "AlertRule", "Alerter", "Collector", "Function", "Ingestor", "ManagementCommand", "MetricsExporter", "SummaryRule"];

/// Metadata that a server keeps. Objects that were read from one may be put into a file as they are.
const OF_THE_SERVER: [&str; 9] = [
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generation",
    "managedFields",
    "ownerReferences",
    "resourceVersion",
    "uid",
];

/// A mistake in a rule file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileError {
    /// The file.
    pub file: PathBuf,
    /// Which document of the file, counted from 1 without empty ones, where it is known.
    pub document: Option<usize>,
    /// The field, as `spec.interval`, where it is known.
    pub path: Option<String>,
    /// What is wrong, and the way out.
    pub message: String,
}

impl fmt::Display for FileError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.file.display())?;
        if let Some(document) = self.document {
            write!(out, ", document {document}")?;
        }
        if let Some(path) = &self.path {
            write!(out, ", {path}")?;
        }
        write!(out, ": {}", self.message)
    }
}

impl std::error::Error for FileError {}

/// `(apiVersion, kind)`.
pub(super) type Kind = (String, String);

/// A document of a rule file: an object without status and without what a server keeps.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Document {
    pub(super) number: usize,
    pub(super) kind: Kind,
    pub(super) key: Key,
    pub(super) body: Value,
}

/// What is wrong with a document: the field and the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mistake {
    pub(super) path: Option<String>,
    pub(super) message: String,
}

impl Mistake {
    pub(super) fn at(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: Some(path.into()), message: message.into() }
    }
}

/// The documents of a text, each with its number or with what is wrong with it.
pub(super) fn documents(text: &[u8]) -> Vec<Result<Document, (usize, Mistake)>> {
    let mut reader = text;
    let parsed = serde_saphyr::read::<_, Value>(&mut reader);
    let numbered = parsed.enumerate().map(|(index, document)| (index + 1, document));
    numbered
        .map(|(number, document)| {
            let body = document.map_err(|error| Mistake { path: None, message: format!("not YAML: {}", first_line(&error.to_string())) });
            body.and_then(|body| self::document(number, body)).map_err(|mistake| (number, mistake))
        })
        .collect()
}

/// The parser shows the place in a picture below the message, which names line and column already.
fn first_line(message: &str) -> &str {
    message.lines().next().unwrap_or(message)
}

fn document(number: usize, body: Value) -> Result<Document, Mistake> {
    let Value::Object(mut fields) = body else {
        return Err(Mistake { path: None, message: "a document is an object with apiVersion, kind, metadata and spec".to_owned() });
    };
    let api_version = text_field(&fields, "apiVersion")?;
    let kind = text_field(&fields, "kind")?;
    fields.remove("status");
    let Some(Value::Object(metadata)) = fields.get_mut("metadata") else {
        return Err(Mistake::at("metadata", "is missing; an object needs at least metadata.name"));
    };
    for name in OF_THE_SERVER {
        metadata.remove(name);
    }
    let Some(Value::String(name)) = metadata.get("name") else {
        return Err(Mistake::at("metadata.name", "is missing or no string"));
    };
    if !is_subdomain(name) {
        let rule = "a name has at most 253 lower-case letters, digits, '-' and '.', and begins and ends with a letter or digit";
        return Err(Mistake::at("metadata.name", format!("{name:?} is no name: {rule}")));
    }
    let name = name.clone();
    let namespace = match metadata.entry("namespace").or_insert_with(|| Value::from("default")) {
        Value::String(namespace) if is_label(namespace) => namespace.clone(),
        other => {
            let rule = "a namespace has at most 63 lower-case letters, digits and '-', and begins and ends with a letter or digit";
            return Err(Mistake::at("metadata.namespace", format!("{other} is no namespace: {rule}")));
        }
    };
    Ok(Document { number, kind: (api_version, kind), key: Key { namespace, name }, body: Value::Object(fields) })
}

fn text_field(fields: &Map<String, Value>, name: &str) -> Result<String, Mistake> {
    match fields.get(name) {
        Some(Value::String(text)) => Ok(text.clone()),
        _ => Err(Mistake::at(name, "is missing or no string")),
    }
}

/// RFC 1123 label.
fn is_label(text: &str) -> bool {
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

/// RFC 1123 subdomain: labels, of any length, with dots between.
fn is_subdomain(text: &str) -> bool {
    let label = |label: &str| {
        let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        !label.is_empty() && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

/// Whether somebody elsewhere may run objects of this kind.
pub(super) fn is_known(kind: &Kind) -> bool {
    kind.0 == API_VERSION && KINDS.contains(&kind.1.as_str())
}

/// What is wrong with a kind that nobody runs.
pub(super) fn unknown_kind(kind: &Kind) -> Mistake {
    let known = KINDS.join(", ");
    Mistake::at("kind", format!("{} of {} is no kind of ADX-Mon; {API_VERSION} has {known}", kind.1, kind.0))
}

/// Reads the document as a `K`, in which every field must be known.
pub(super) fn decode<K: Object>(body: &Value) -> Result<K, Mistake> {
    let mut unknown = Vec::new();
    let mut track = serde_path_to_error::Track::new();
    let deserializer = serde_path_to_error::Deserializer::new(body, &mut track);
    let decoded = serde_ignored::deserialize(deserializer, |path| {
        let path = path.to_string().replace(".?", "");
        // Types that kube derives do not read these two, which are checked before.
        if path != "apiVersion" && path != "kind" {
            unknown.push(path);
        }
    });
    let object = decoded.map_err(|error: serde_json::Error| Mistake {
        path: Some(track.path().to_string()).filter(|path| path != "."),
        message: error.to_string(),
    })?;
    match unknown.is_empty() {
        true => Ok(object),
        false => Err(Mistake::at(unknown.join(", "), "no such field")),
    }
}
