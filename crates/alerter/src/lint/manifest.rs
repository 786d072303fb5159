//! Rule files as people write them: YAML documents with the line of every field.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::Spanned;

/// Larger files are refused.
const MAX_FILE: u64 = 16 << 20;

/// Something that is wrong, or looks wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1, where it is known.
    pub line: Option<u64>,
    /// The document, from 1, where it is known.
    pub document: Option<usize>,
    /// `namespace/name` of the rule, where it is known.
    pub rule: Option<String>,
    /// What is wrong, and the way out.
    pub message: String,
    /// It does not fail the lint.
    pub warning: bool,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        f.write_str(if self.warning { ": warning: " } else { ": error: " })?;
        match (self.document, &self.rule) {
            (Some(document), Some(rule)) => write!(f, "document {document}, {rule}: ")?,
            (Some(document), None) => write!(f, "document {document}: ")?,
            _ => {}
        }
        f.write_str(&self.message)
    }
}

/// A document of a file.
#[derive(Debug, Clone)]
pub(super) struct Document {
    pub(super) file: PathBuf,
    /// Which of the file, from 1.
    pub(super) number: usize,
    pub(super) body: Value,
    /// The line of each field, by its path (`spec.query`).
    lines: BTreeMap<String, u64>,
    /// The text of the file.
    text: std::sync::Arc<str>,
}

impl Document {
    /// The line of a field, or of the nearest field around it.
    pub(super) fn line(&self, path: &str) -> Option<u64> {
        let mut path = path;
        loop {
            if let Some(line) = self.lines.get(path) {
                return Some(*line);
            }
            path = path.rsplit_once('.').map_or("", |(outer, _)| outer);
            if path.is_empty() {
                return self.lines.get("").copied();
            }
        }
    }

    /// The line of the file on which line `inner` (from 1) of a text field stands.
    pub(super) fn line_in(&self, path: &str, inner: usize) -> Option<u64> {
        let line = self.line(path)?;
        let index = usize::try_from(line).ok()?.checked_sub(1)?;
        // A block scalar begins on the line after its mark.
        let marked = self.text.lines().nth(index)?.split_once(':').is_some_and(|(_, rest)| rest.trim_start().starts_with(['|', '>']));
        let inner = u64::try_from(inner).ok()?;
        Some(if marked { line + inner } else { line + inner - 1 })
    }

    /// Something wrong with a field.
    pub(super) fn error(&self, path: &str, message: impl Into<String>) -> Finding {
        Finding {
            file: self.file.clone(),
            line: self.line(path),
            document: Some(self.number),
            rule: None,
            message: message.into(),
            warning: false,
        }
    }
}

/// The documents of a folder and its subfolders, or of one file, in lexical order.
pub(super) fn read(path: &Path) -> (Vec<Document>, Vec<Finding>) {
    let (mut documents, mut findings) = (Vec::new(), Vec::new());
    for file in files(path, &mut findings) {
        match text_of(&file) {
            Ok(text) => parse(&file, &text, &mut documents, &mut findings),
            Err(error) => findings.push(of_file(&file, format!("cannot be read: {error}"))),
        }
    }
    (documents, findings)
}

fn files(path: &Path, findings: &mut Vec<Finding>) -> Vec<PathBuf> {
    if !path.is_dir() {
        return vec![path.to_owned()];
    }
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) => {
            findings.push(of_file(path, format!("cannot be listed: {error}")));
            return Vec::new();
        }
    };
    let mut found: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    found.sort();
    let is_rules = |path: &PathBuf| path.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json");
    found.into_iter().filter(|path| path.is_dir() || is_rules(path)).flat_map(|path| files(&path, findings)).collect()
}

fn text_of(file: &Path) -> std::io::Result<String> {
    let size = std::fs::metadata(file)?.len();
    if size > MAX_FILE {
        return Err(std::io::Error::other(format!("{size} bytes are more than {MAX_FILE}")));
    }
    std::fs::read_to_string(file)
}

fn of_file(file: &Path, message: String) -> Finding {
    Finding { file: file.to_owned(), line: None, document: None, rule: None, message, warning: false }
}

fn parse(file: &Path, text: &str, documents: &mut Vec<Document>, findings: &mut Vec<Finding>) {
    let shared: std::sync::Arc<str> = text.into();
    let mut reader = text.as_bytes();
    for (index, parsed) in serde_saphyr::read::<_, Spanned<Node>>(&mut reader).enumerate() {
        let number = index + 1;
        match parsed {
            Ok(node) => {
                let mut lines = BTreeMap::new();
                let body = node.value.flatten("", node.referenced.line(), &mut lines);
                documents.push(Document { file: file.to_owned(), number, body, lines, text: std::sync::Arc::clone(&shared) });
            }
            Err(error) => {
                let line = error.location().map(|location| location.line());
                let message = error.to_string();
                let message = format!("this is no YAML: {}", message.lines().next().unwrap_or_default());
                findings.push(Finding { line, document: Some(number), ..of_file(file, message) });
            }
        }
    }
}

/// A value with the place of each part.
enum Node {
    Scalar(Value),
    List(Vec<Spanned<Node>>),
    Map(Vec<(Spanned<String>, Spanned<Node>)>),
}

impl Node {
    /// The value alone; `lines` gets the place of each field.
    fn flatten(self, path: &str, line: u64, lines: &mut BTreeMap<String, u64>) -> Value {
        lines.insert(path.to_owned(), line);
        match self {
            Node::Scalar(value) => value,
            Node::List(items) => {
                let item =
                    |(index, item): (usize, Spanned<Node>)| item.value.flatten(&format!("{path}[{index}]"), item.referenced.line(), lines);
                Value::Array(items.into_iter().enumerate().map(item).collect())
            }
            Node::Map(fields) => {
                let mut map = Map::new();
                for (key, field) in fields {
                    let inner = if path.is_empty() { key.value.clone() } else { format!("{path}.{}", key.value) };
                    map.insert(key.value, field.value.flatten(&inner, key.referenced.line(), lines));
                }
                Value::Object(map)
            }
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Scalar(Number::from_f64(value).map_or(Value::Null, Value::Number)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = access.next_entry()? {
            fields.push(field);
        }
        Ok(Node::Map(fields))
    }
}
