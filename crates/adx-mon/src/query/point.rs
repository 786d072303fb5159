//! Shows an error with a pointer at the place in the query that it is about.

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use kusto::Error;

/// The error as text for a terminal.
pub(super) fn render(query: &str, error: &Error, endpoint: &str) -> String {
    let renderer = if std::io::IsTerminal::is_terminal(&std::io::stderr()) { Renderer::styled() } else { Renderer::plain() };
    let title = Level::ERROR.primary_title(&error.message);
    let mut group = match error.position.and_then(|position| span(query, position.line as usize, position.column as usize)) {
        Some(span) => title.element(Snippet::source(query).annotation(AnnotationKind::Primary.span(span).label("here"))),
        None => annotate_snippets::Group::with_title(title),
    };
    if !error.code.is_empty() {
        group = group.element(Level::NOTE.message(format!("code {}", error.code)));
    }
    if error.status.is_none() {
        group = group.element(
            Level::HELP
                .message(format!("nothing answered at {endpoint}: start it with `adx-mon up`, or name another endpoint with --endpoint")),
        );
    }
    renderer.render(&[group]).to_string()
}

/// The bytes of the word at a line and column, both counted from 1 and the column in characters.
fn span(query: &str, line: usize, column: usize) -> Option<std::ops::Range<usize>> {
    let start_of_line: usize = query.split_inclusive('\n').take(line.checked_sub(1)?).map(str::len).sum();
    let rest = query.get(start_of_line..)?;
    let offset = rest.char_indices().nth(column.checked_sub(1)?).map_or(rest.len(), |(at, _)| at);
    let start = start_of_line + offset;
    let word = query[start..].find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(query.len() - start);
    Some(start..start + word.max(query[start..].chars().next().map_or(0, char::len_utf8)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_at_a_position_is_found() {
        let query = "Up\n| where Vlaue > 1";
        assert_eq!(span(query, 2, 9).map(|span| &query[span]), Some("Vlaue"));
        assert_eq!(span(query, 1, 1).map(|span| &query[span]), Some("Up"));
    }

    #[test]
    fn positions_outside_the_query_do_not_panic() {
        assert_eq!(span("a", 9, 9), Some(1..1));
        assert_eq!(span("", 1, 1), Some(0..0));
        assert_eq!(span("ä€", 1, 2), Some(2..5));
        assert_eq!(span("a", 0, 0), None);
    }
}
