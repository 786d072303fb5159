//! What is wrong with a query, and where.

use std::fmt;
use std::ops::Range;

/// How a diagnostic came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DiagnosticKind {
    /// The text is not KQL.
    Syntax,
    /// It is KQL, but names, types or arguments do not fit.
    Semantic,
    /// It is KQL that this engine does not know; the message names the construct.
    Unsupported,
    /// Another cluster is needed to tell, and did not answer: the same query may work later.
    Unavailable,
}

/// One error in a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Kusto's code where one exists: `SYN0002`, `SEM0100`, ….
    pub code: &'static str,
    /// Bytes of the query text that it is about.
    pub span: Range<usize>,
    /// What is wrong, in Kusto's words where clients look for them.
    pub message: String,
    /// Class of the error.
    pub kind: DiagnosticKind,
}

impl Diagnostic {
    /// A syntax error (`SYN0002`).
    pub fn syntax(span: Range<usize>, message: impl Into<String>) -> Self {
        Diagnostic { code: "SYN0002", span, message: message.into(), kind: DiagnosticKind::Syntax }
    }

    /// A semantic error with that code.
    pub fn semantic(code: &'static str, span: Range<usize>, message: impl Into<String>) -> Self {
        Diagnostic { code, span, message: message.into(), kind: DiagnosticKind::Semantic }
    }

    /// A construct that this engine does not support: `what` completes "… is not supported".
    pub fn unsupported(span: Range<usize>, what: impl fmt::Display) -> Self {
        Diagnostic { code: "SEM0002", span, message: format!("{what} is not supported"), kind: DiagnosticKind::Unsupported }
    }

    /// Another cluster did not answer.
    pub fn unavailable(span: Range<usize>, message: impl Into<String>) -> Self {
        Diagnostic { code: "E_REMOTE", span, message: message.into(), kind: DiagnosticKind::Unavailable }
    }

    /// Line and column (both from 1, the column in characters) of the start of the span in `text`.
    pub fn position(&self, text: &str) -> (usize, usize) {
        let mut end = self.span.start.min(text.len());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let before = &text[..end];
        let line = before.matches('\n').count() + 1;
        let start = before.rfind('\n').map_or(0, |at| at + 1);
        (line, before[start..].chars().count() + 1)
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let class = match self.kind {
            DiagnosticKind::Syntax => "Syntax error",
            DiagnosticKind::Semantic => "Semantic error",
            DiagnosticKind::Unsupported => "Unsupported",
            DiagnosticKind::Unavailable => "Unavailable",
        };
        write!(f, "{class}: {}: {}", self.code, self.message)
    }
}

impl std::error::Error for Diagnostic {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn position_counts_lines_and_characters() {
        let diagnostic = Diagnostic::syntax(8..9, "x");
        assert_eq!(diagnostic.position("ab\ncdé f"), (2, 5));
        assert_eq!(Diagnostic::syntax(99..100, "x").position("ab"), (1, 3));
    }
}
