//! What stands before the KQL of a rule: `let` statements for the window and for the labels of this cluster.
//!
//! ```text
//! let _startTime=datetime(2024-01-01T00:00:00Z);
//! let _endTime=datetime(2024-01-01T00:59:59.9999999Z);
//! let _region="eastus";
//! ```
//!
//! Nothing of a label can become KQL: its value is a quoted string, and its name has the letters `A-Z a-z 0-9 _` only.

use std::collections::BTreeMap;

use kusto::text::{quote_name, quote_string};

use crate::window::Window;

/// The labels of this cluster as `let` statements, made once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels {
    lets: String,
    count: usize,
    renamed: Vec<String>,
    rejected: Vec<String>,
}

impl Labels {
    /// Labels by their names. A variable has the label's name with an underscore in front, unless it has one, and an
    /// underscore in place of whatever KQL does not take in a name. A label whose variable is taken already is left out,
    /// see [`Self::rejected`].
    pub fn new(labels: &BTreeMap<String, String>) -> Labels {
        let mut out = Labels::default();
        let mut taken: BTreeMap<String, &str> = BTreeMap::new();
        // A label whose name needs no change goes before one that would become it.
        let (exact, changed): (Vec<_>, Vec<_>) = labels.iter().partition(|(label, _)| variable(label) == with_underscore(label));
        for (label, _) in exact.into_iter().chain(changed) {
            let name = variable(label);
            if matches!(name.as_str(), "_startTime" | "_endTime") {
                out.rejected.push(format!("cluster label {label:?} is left out: {name} is the time of the window; rename the label"));
            } else if let Some((_, other)) = taken.get_key_value(&name) {
                out.rejected.push(format!("cluster label {label:?} is left out: {name} is label {other:?} already; rename one of them"));
            } else {
                if name != with_underscore(label) {
                    out.renamed.push(format!("cluster label {label:?} is {name} in KQL"));
                }
                taken.insert(name, label);
            }
        }
        // In the order of the labels, as the reference has them.
        for (label, value) in labels {
            let name = variable(label);
            if taken.get(&name) == Some(&label.as_str()) {
                out.lets.push_str(&format!("let {name}={};\n", quote_string(value)));
                out.count += 1;
            }
        }
        out
    }

    /// Labels that have another name in KQL, each with a sentence for people.
    pub fn renamed(&self) -> &[String] {
        &self.renamed
    }

    /// Labels that cannot be had in KQL, each with a sentence on why and the way out.
    pub fn rejected(&self) -> &[String] {
        &self.rejected
    }
}

fn with_underscore(label: &str) -> String {
    if label.starts_with('_') { label.to_owned() } else { format!("_{label}") }
}

fn variable(label: &str) -> String {
    with_underscore(label).chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

/// KQL that is ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The `let` statements and the trimmed body.
    pub text: String,
    /// Lines before the body: what to take off a position that Kusto reports.
    pub lines_before_body: usize,
}

/// A rule's KQL for one window.
pub fn render(window: &Window, labels: &Labels, body: &str) -> Rendered {
    render_between(&window.start.to_string(), &window.last_tick().to_string(), labels, body)
}

fn render_between(start: &str, end: &str, labels: &Labels, body: &str) -> Rendered {
    let text = format!("let _startTime=datetime({start});\nlet _endTime=datetime({end});\n{}{}", labels.lets, body.trim());
    Rendered { text, lines_before_body: 2 + labels.count }
}

/// The first mistake in a rule's KQL, with its place in the body as it was written. Nothing if our parser finds none, which
/// is no promise that Kusto finds none.
pub fn syntax_error(body: &str) -> Option<String> {
    if body.trim().is_empty() {
        return Some("the body is empty: it has to be a KQL query".to_owned());
    }
    let parsed = kql::parse(body);
    let first = parsed.diagnostics.iter().find(|d| d.kind == kql::DiagnosticKind::Syntax)?;
    let (line, column) = first.position(body);
    Some(format!("{first} at line {line}, column {column} of the body"))
}

/// The name of a table as commands take it: as it is, or in brackets and quoted if it is no plain name.
pub fn table_name(name: &str) -> String {
    let mut chars = name.chars();
    let plain = chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_') && chars.all(|c| c.is_ascii_alphanumeric() || c == '_');
    if plain { name.to_owned() } else { quote_name(name) }
}

#[cfg(test)]
mod tests;
