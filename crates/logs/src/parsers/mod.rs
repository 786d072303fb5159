//! Parsers: the text of a message into keys of the body.

mod json;
mod keyvalue;
mod klog;
mod space;

use std::str::FromStr;

use crate::record::{MESSAGE, Severity};
use crate::value::{Map, Value};

/// A parser.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Parser {
    /// The message is a JSON object.
    Json,
    /// `key=value key="a value"`; never fails.
    KeyValue,
    /// The format of Kubernetes' components; never fails.
    Klog,
    /// Words; never fails.
    Space,
}

impl Parser {
    /// The names that configurations and annotations use.
    pub const NAMES: [&'static str; 4] = ["json", "keyvalue", "klog", "space"];
}

impl FromStr for Parser {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "json" => Ok(Self::Json),
            "keyvalue" => Ok(Self::KeyValue),
            "klog" => Ok(Self::Klog),
            "space" => Ok(Self::Space),
            _ => Err(format!("{name} is not a parser; use one of {}", Self::NAMES.join(", "))),
        }
    }
}

/// Parsers to be tried in order; the first that succeeds ends it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Parsers(Vec<Parser>);

impl Parsers {
    /// The parsers of these names.
    ///
    /// # Errors
    /// The first name that is none.
    pub fn from_names<N: AsRef<str>>(names: impl IntoIterator<Item = N>) -> Result<Self, String> {
        names.into_iter().map(|name| name.as_ref().parse()).collect::<Result<_, _>>().map(Self)
    }

    /// Whether every message stays as it is.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds what a message says to `body`, replacing equal keys; a message that no parser takes stands under
    /// `message`. Gives the severity when the message has one.
    pub fn parse(&self, message: &str, body: &mut Map) -> Option<Severity> {
        for parser in &self.0 {
            return match parser {
                Parser::Json => match json::parse(message) {
                    Some(parsed) => {
                        body.extend(parsed);
                        severity_of(body)
                    }
                    None => continue,
                },
                Parser::KeyValue => {
                    keyvalue::parse(message, body);
                    severity_of(body)
                }
                Parser::Klog => klog::parse(message, body),
                Parser::Space => {
                    space::parse(message, body);
                    None
                }
            };
        }
        body.insert(MESSAGE.to_owned(), Value::from(message));
        None
    }
}

impl From<Vec<Parser>> for Parsers {
    fn from(parsers: Vec<Parser>) -> Self {
        Self(parsers)
    }
}

/// The severity that one of the usual keys names. The body stays as it is.
fn severity_of(body: &Map) -> Option<Severity> {
    ["level", "severity"].into_iter().find_map(|key| Severity::from_name(body.get(key)?.as_str()?))
}
