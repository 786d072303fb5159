//! Whether an object is meant for this cluster: `criteria` and `criteriaExpression` against the cluster's labels.
//!
//! Control-plane specification, section 1. What differs from the reference, on purpose:
//! - an expression of white space only is no expression, in every component;
//! - each label is a variable under its lower-cased name too, unless another label has that name or one that differs in
//!   case only, or it is the name of a type;
//! - errors of an expression are decided like the rest, so that every component can show them in a condition.

mod check;
mod expression;
mod types;

use std::collections::BTreeMap;
use std::fmt;

use thiserror::Error;

use crate::CriteriaMap;
use crate::conditions::Truth;

/// The labels of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    exact: BTreeMap<String, String>,
    /// Lower-cased name to the exact name.
    folded: BTreeMap<String, String>,
}

impl Labels {
    /// The labels, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.exact.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The value of a label, by its exact name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.exact.get(name).map(String::as_str)
    }

    /// The value that a variable of an expression has.
    fn variable(&self, name: &str) -> Option<&str> {
        self.get(name).or_else(|| self.get(self.folded.get(name)?))
    }

    /// All variables of expressions, with their values.
    fn variables(&self) -> impl Iterator<Item = (&str, &str)> {
        let folded = self.folded.iter().filter_map(|(folded, name)| Some((folded.as_str(), self.get(name)?)));
        self.iter().chain(folded)
    }

    /// The names, for an error.
    fn names(&self) -> String {
        let names: Vec<&str> = self.exact.keys().map(String::as_str).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Labels {
    /// Of two labels with the same name the later one counts.
    fn from_iter<I: IntoIterator<Item = (N, V)>>(labels: I) -> Self {
        let exact: BTreeMap<String, String> = labels.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        let mut folded: BTreeMap<String, Option<String>> = BTreeMap::new();
        for name in exact.keys() {
            let same = folded.entry(name.to_lowercase()).or_insert_with(|| Some(name.clone()));
            if same.as_ref() != Some(name) {
                *same = None;
            }
        }
        let usable = |(folded, name): (String, Option<String>)| {
            let taken = exact.contains_key(&folded) || types::Type::is_name(&folded);
            name.filter(|_| !taken).map(|name| (folded, name))
        };
        let folded = folded.into_iter().filter_map(usable).collect();
        Self { exact, folded }
    }
}

impl fmt::Display for Labels {
    /// `cloud=public, region=eastus`, or `(none)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.exact.is_empty() {
            return f.write_str("(none)");
        }
        for (at, (name, value)) in self.iter().enumerate() {
            write!(f, "{}{name}={value}", if at == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// The criteria of an object.
#[derive(Clone, Copy, Debug)]
pub struct Criteria<'a> {
    map: &'a CriteriaMap,
    expression: &'a str,
}

/// Where an expression fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// It is no CEL.
    Parse,
    /// Its types do not fit, or it names a label that is not there.
    TypeCheck,
    /// It would take too long.
    Program,
    /// It cannot be evaluated for these labels.
    Eval,
    /// It is neither true nor false.
    Result,
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Parse => "cel parse",
            Self::TypeCheck => "cel typecheck",
            Self::Program => "cel program",
            Self::Eval => "cel eval",
            Self::Result => "cel result",
        })
    }
}

/// An expression that has no answer.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{class}: {message}")]
pub struct CriteriaError {
    /// Where it fails.
    pub class: Class,
    /// Why; with line and column of what cannot be parsed.
    pub message: String,
}

/// What criteria say of a cluster; `None` for a part that is not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Whether the map matches.
    pub map: Option<bool>,
    /// Whether the expression is true.
    pub expression: Option<bool>,
}

impl<'a> Criteria<'a> {
    /// The criteria of a spec: `Criteria::new(&spec.criteria, &spec.criteria_expression)`.
    pub fn new(map: &'a CriteriaMap, expression: &'a str) -> Self {
        Self { map, expression }
    }

    /// What they say of a cluster with these labels.
    pub fn evaluate(&self, labels: &Labels) -> Result<Outcome, CriteriaError> {
        let map = (!self.map.is_empty()).then(|| map_matches(self.map, labels));
        let expression = match self.expression.trim() {
            "" => None,
            text => Some(expression::evaluate(text, labels)?),
        };
        Ok(Outcome { map, expression })
    }

    /// The same as what the condition `Criteria` says.
    pub fn decide(&self, labels: &Labels, wording: Wording) -> Decision {
        let outcome = match self.evaluate(labels) {
            Ok(outcome) => outcome,
            Err(error) => {
                let message = format!("criteria expression error: {error}");
                return Decision { proceed: false, reason: "CriteriaExpressionError", message };
            }
        };
        let proceed = outcome.proceeds();
        let reason = if proceed { "CriteriaMatched" } else { "CriteriaNotMatched" };
        let message = match wording {
            Wording::Alerter if proceed => "criteria/expression matched",
            Wording::Alerter => "criteria map did not match or expression evaluated to false",
            Wording::Exporter => outcome.message(),
        };
        Decision { proceed, reason, message: message.to_owned() }
    }
}

/// Any key with any of its values is enough, whatever the case.
fn map_matches(map: &CriteriaMap, labels: &Labels) -> bool {
    let equal = |a: &str, b: &str| a.to_lowercase() == b.to_lowercase();
    map.iter().any(|(key, values)| {
        labels.iter().filter(|(name, _)| equal(name, key)).any(|(_, label)| values.iter().any(|value| equal(value, label)))
    })
}

impl Outcome {
    /// Whether the object is meant for this cluster.
    pub fn proceeds(&self) -> bool {
        self.map.unwrap_or(true) && self.expression.unwrap_or(true)
    }

    /// The exporter's words for it.
    pub fn message(&self) -> &'static str {
        match (self.map, self.expression) {
            (None, None) => "no criteria specified (default allow)",
            (Some(true), None) => "criteria map matched",
            (None, Some(true)) => "criteria expression true",
            (Some(true), Some(true)) => "criteria map matched and expression true",
            (Some(false), None | Some(true)) => "criteria map did not match",
            (None | Some(true), Some(false)) => "criteria expression evaluated to false",
            (Some(false), Some(false)) => "criteria map did not match AND expression false",
        }
    }
}

/// Whose words a condition uses: people and dashboards look for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wording {
    /// The alerter's: the same for map and expression.
    Alerter,
    /// The exporter's, ingestor's and operator's: which part decided.
    Exporter,
}

/// Whether to go on, and the condition that says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether the object is meant for this cluster.
    pub proceed: bool,
    /// `CriteriaMatched`, `CriteriaNotMatched` or `CriteriaExpressionError`.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

impl Decision {
    /// Status of the condition.
    pub fn status(&self) -> Truth {
        self.proceed.into()
    }
}
