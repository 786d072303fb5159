//! Shows an error with a pointer at the place in the query that it is about.

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use kusto::Error;

/// The error as text for a terminal.
pub(super) fn render(query: &str, error: &Error, endpoint: &str) -> String {
    let renderer = if std::io::IsTerminal::is_terminal(&std::io::stderr()) { Renderer::styled() } else { Renderer::plain() };
    let message = shortened(&error.message);
    let title = Level::ERROR.primary_title(message.as_str());
    let mut group = match error.position.and_then(|position| span(query, position.line as usize, position.column as usize)) {
        Some(span) => title.element(Snippet::source(query).annotation(AnnotationKind::Primary.span(span).label("here"))),
        None => annotate_snippets::Group::with_title(title),
    };
    if !message.contains(&error.code) {
        group = group.element(Level::NOTE.message(format!("code {}", error.code)));
    }
    if let Some(help) = help(error, endpoint) {
        group = group.element(Level::HELP.message(help));
    }
    renderer.render(&[group]).to_string()
}

/// The message without what the snippet shows and what every refusal begins with.
fn shortened(message: &str) -> String {
    let place = message.rfind(" [line:position=").unwrap_or(message.len());
    message[..place].replacen("Request is invalid and cannot be processed: ", "", 1)
}

/// The way out, where it is known.
fn help(error: &Error, endpoint: &str) -> Option<String> {
    match error.code.as_str() {
        "CONNECT" | "CONNECTION_LOST" => {
            Some(format!("nothing answers at {endpoint}: start it with `adx-mon up`, or name another endpoint with --endpoint"))
        }
        "DEADLINE" => Some("ask for less, or give it longer with --timeout".to_owned()),
        "SEM0100" if error.message.contains("table or column expression") => {
            Some("`.show tables` lists the tables of a database; --database names another one, such as Logs".to_owned())
        }
        code if code.contains("EntityNotFound") && error.message.contains("'Database'") => {
            Some("`.show databases` lists what is there".to_owned())
        }
        _ => None,
    }
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

    fn refusal(code: &str, message: &str) -> Error {
        let (kind, delivery) = (kusto::Kind::Permanent, kusto::Delivery::NotExecuted);
        let position = Some(kusto::Position { line: 1, column: 1 });
        Error { kind, delivery, code: code.into(), message: message.into(), position, status: Some(400), retry_after: None }
    }

    #[test]
    fn an_error_is_said_once_with_the_way_out() {
        let message = "querying database Metrics: Request is invalid and cannot be processed: Semantic error: SEM0100: \
                       Failed to resolve table or column expression named 'Nope' [line:position=1:1]";
        let text = render("Nope | count", &refusal("SEM0100", message), "http://x");
        let first = text.lines().next().unwrap();
        assert_eq!(
            first,
            "error: querying database Metrics: Semantic error: SEM0100: Failed to resolve table or column expression named 'Nope'"
        );
        assert!(text.contains("^^^^ here") && text.contains(".show tables") && !text.contains("code SEM0100"), "{text}");
    }

    #[test]
    fn only_what_did_not_answer_is_said_not_to_answer() {
        for (code, expected) in [("CONNECT", "adx-mon up"), ("DEADLINE", "--timeout"), ("Entity_EntityNotFound", ".show databases")] {
            let error = Error { status: None, position: None, ..refusal(code, "Entity ID 'x' of kind 'Database' was not found.") };
            let text = render("print 1", &error, "http://x");
            assert!(text.contains(expected) && text.contains(code), "{text}");
            assert_eq!(text.contains("nothing answers"), code == "CONNECT", "{text}");
        }
    }

    #[test]
    fn positions_outside_the_query_do_not_panic() {
        assert_eq!(span("a", 9, 9), Some(1..1));
        assert_eq!(span("", 1, 1), Some(0..0));
        assert_eq!(span("ä€", 1, 2), Some(2..5));
        assert_eq!(span("a", 0, 0), None);
    }
}
