//! The commands that a rule sends.

use kusto::text::quote_string_single;

use crate::prelude::{self, Labels};
use crate::window::Window;

/// A command, and how many of its lines stand before the rule's body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// The text.
    pub text: String,
    /// Lines before the body: what to take off a position that Kusto reports.
    pub lines_before_body: usize,
}

/// The command that appends the rows of one window to a table.
///
/// It carries `tag` as an `ingest-by:` tag and is skipped by Kusto if the table has rows with it: the same window sent
/// again changes nothing.
pub fn submission(table: &str, body: &str, window: &Window, labels: &Labels, tag: &str) -> Statement {
    let json = |text: &str| quote_string_single(&serde_json::json!([text]).to_string());
    let rendered = prelude::render(window, labels, body);
    let head = format!(
        ".set-or-append async {} with (extend_schema=true, tags={}, ingestIfNotExists={}) <| ",
        prelude::table_name(table),
        json(&format!("ingest-by:{tag}")),
        json(tag),
    );
    Statement { text: head + &rendered.text, lines_before_body: rendered.lines_before_body }
}

/// The name of a rule's window for Kusto. It depends on nothing that an edit of the rule changes.
pub fn tag(uid: &str, window: &Window) -> String {
    format!("adx-mon:{uid}:{}/{}", window.start, window.end)
}

/// The name of a window of a backfill: another one for each request, since a request is there to add rows again.
pub fn backfill_tag(uid: &str, request: &str, window: &Window) -> String {
    format!("adx-mon:{uid}:{request}:{}/{}", window.start, window.end)
}
