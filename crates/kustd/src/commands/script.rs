//! `.execute database script` and `.execute cluster script`: several commands, one after the other.
//!
//! A command begins with a line whose first character is a point and goes on up to the next one, over empty lines and
//! comments; lines inside of brackets and strings begin none. Each becomes a row of the answer. What has run stays.

use std::sync::Arc;

use kql::{Type, Value};

use super::fill::check_properties;
use super::syntax::{Command, Parsed, Properties};
use super::{Outcome, table, text};
use crate::error::KustoError;
use crate::operations;
use crate::service::Kustd;

const PROPERTIES: [&str; 2] = ["continueonerrors", "throwonerrors"];
/// Characters of a command that an error repeats.
const QUOTED: usize = 200;

/// Runs the commands of a script.
pub(super) async fn execute(kustd: &Arc<Kustd>, database: &str, cluster: bool, properties: &Properties, script: &str) -> Outcome {
    check_properties(".execute script", properties, &PROPERTIES)?;
    let go_on = flag(properties, "continueonerrors")?;
    let throw = flag(properties, "throwonerrors")?;
    if go_on && throw {
        return Err(KustoError::bad_request("a script either goes on after errors or throws them: set ContinueOnErrors or ThrowOnErrors"));
    }
    let mut rows = Vec::new();
    for command in split(script) {
        let started = kustd.now();
        let (name, outcome) = run_one(kustd, database, cluster, command).await;
        let (result, reason) = match &outcome {
            Ok(true) => ("Completed", String::new()),
            Ok(false) => ("Skipped", "commands that only show something are not run in scripts".to_owned()),
            Err(error) => ("Failed", error.to_string()),
        };
        let operation = operations::ended(name, database, started, kustd.now(), outcome.as_ref().err());
        rows.push(vec![Value::Guid(operation.id), text(name), text(command), text(result), text(reason)]);
        kustd.operations.put_awaited(operation);
        if let Err(error) = outcome {
            if throw {
                return Err(aborted(command, error));
            }
            if !go_on {
                break;
            }
        }
    }
    let columns = [
        ("OperationId", Type::Guid),
        ("CommandType", Type::String),
        ("CommandText", Type::String),
        ("Result", Type::String),
        ("Reason", Type::String),
    ];
    Ok(table(&columns, rows))
}

fn flag(properties: &Properties, name: &str) -> Result<bool, KustoError> {
    match properties.get(name).map(|value| value.to_ascii_lowercase()).as_deref() {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(other) => Err(KustoError::bad_request(format!("the property '{name}' is true or false, not '{other}'"))),
    }
}

/// Runs one command: its kind, and whether it ran or was left out.
async fn run_one(kustd: &Arc<Kustd>, database: &str, cluster: bool, source: &str) -> (&'static str, Result<bool, KustoError>) {
    let Parsed { command, pipe } = match super::parse(source) {
        Ok(parsed) => parsed,
        Err(diagnostic) => return ("Unknown", Err(KustoError::diagnostics(source, &[diagnostic]))),
    };
    let name = command.name();
    let refused = |why: &str| (name, Err(KustoError::bad_request(why)));
    match &command {
        Command::Show(_) => return (name, Ok(false)),
        Command::ExecuteScript { .. } => return refused("a script cannot run scripts"),
        command if cluster && command.needs_database() => {
            return refused("this command is about a database and not about the cluster; run it with '.execute database script'");
        }
        _ if pipe.is_some() => return refused("a command of a script cannot go on with query operators"),
        _ => {}
    }
    // running a command is what runs scripts
    (name, Box::pin(super::run(kustd, database, source, command)).await.map(|_| true))
}

/// The error of a script that throws. Clients look for what stands behind the last `'. Details: '`.
fn aborted(command: &str, error: KustoError) -> KustoError {
    let mut quoted: String = command.chars().take(QUOTED).collect();
    if quoted.len() < command.len() {
        quoted.push('…');
    }
    let message = format!("Script execution was aborted at the command '{quoted}'. Details: '{}'", error.message);
    KustoError { exception: "Kusto.Common.Svc.Exceptions.AdminCommandExecuteScriptAbortedException", message, inner: error.inner, ..error }
}

/// The commands of a script. Text in front of the first that is no comment is one of its own, to be refused.
fn split(script: &str) -> Vec<&str> {
    let mut commands = Vec::new();
    let mut scanner = Scanner { text: script, at: 0, depth: 0 };
    // start of the command at hand, and the end of its last line that says something
    let (mut start, mut end) = (None, 0);
    while scanner.at < script.len() {
        let line = scanner.at;
        let rest = script[line..].trim_start_matches([' ', '\t', '\r', '\u{feff}']);
        let begins = scanner.depth == 0 && rest.starts_with('.') && rest[1..].starts_with(|c: char| c.is_ascii_alphabetic());
        if begins && let Some(start) = start.replace(line) {
            commands.push(script[start..end].trim());
        }
        let raw = start.is_some_and(|start| is_inline(&script[start..]));
        let says = scanner.line(raw);
        if says {
            start.get_or_insert(line);
            end = scanner.at;
        }
    }
    if let Some(start) = start {
        commands.push(script[start..end].trim());
    }
    commands
}

/// Whether a command brings its rows along, which are no KQL.
fn is_inline(command: &str) -> bool {
    let word = |text: &str, word: &str| text.get(..word.len()).is_some_and(|head| head.eq_ignore_ascii_case(word));
    word(command.trim_start(), ".ingest")
}

/// Walks over lines and knows whether it is inside of brackets.
struct Scanner<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl Scanner<'_> {
    /// Passes one line, or more when a string or a bracket is open at its end; whether there was more than blanks and
    /// comments.
    fn line(&mut self, raw: bool) -> bool {
        let mut says = false;
        while let Some(c) = self.text[self.at..].chars().next() {
            let rest = &self.text[self.at..];
            match c {
                '\n' => {
                    self.at += 1;
                    return says;
                }
                '/' if rest.starts_with("//") && !raw => {
                    self.at += rest.find('\n').unwrap_or(rest.len());
                    continue;
                }
                c if c.is_whitespace() || c == '\u{feff}' => {}
                _ => says = true,
            }
            if raw {
                self.at += c.len_utf8();
                continue;
            }
            match c {
                '(' | '[' | '{' => self.depth += 1,
                ')' | ']' | '}' => self.depth = self.depth.saturating_sub(1),
                '`' | '~' if rest.starts_with("```") || rest.starts_with("~~~") => {
                    let inner = &rest[3..];
                    self.at += inner.find(&rest[..3]).map_or(rest.len(), |end| end + 6);
                    continue;
                }
                '\'' | '"' => {
                    let verbatim = self.text[..self.at].ends_with(['@']);
                    self.at += string_length(rest, c, verbatim);
                    continue;
                }
                _ => {}
            }
            self.at += c.len_utf8();
        }
        says
    }
}

/// Bytes of the string literal that `text` begins with; one that is not closed ends with its line.
fn string_length(text: &str, quote: char, verbatim: bool) -> usize {
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' if !verbatim => drop(chars.next()),
            '\n' if !verbatim => return at,
            // a doubled quote of a verbatim string reads as two strings side by side
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_split_at_lines_that_begin_commands() {
        let script = "\n//\n// Create tables\n.create-merge table T(a:string, b:string)\n//\n// Apply policies\n  .alter-merge table T policy retention softdelete = 10d\n\n.create-or-alter function\n  with (skipvalidation = \"true\")\n  F(n: long) {\n    // .not this\n    T | where a !has \"}\"\n\n    | take n\n.not this\n}\n.ingest inline into table T <|\n.5,\"it's (\nx,y\n.set T <| print x = ```\n.a\n```\n//\n";
        assert_eq!(
            split(script),
            [
                ".create-merge table T(a:string, b:string)",
                ".alter-merge table T policy retention softdelete = 10d",
                ".create-or-alter function\n  with (skipvalidation = \"true\")\n  F(n: long) {\n    // .not this\n    T | where a !has \"}\"\n\n    | take n\n.not this\n}",
                ".ingest inline into table T <|\n.5,\"it's (\nx,y",
                ".set T <| print x = ```\n.a\n```",
            ]
        );
    }

    proptest::proptest! {
        /// Whatever the text is, commands come in its order, and what is left out is blank or a comment.
        #[test]
        fn nothing_of_a_script_is_lost(script in "([.a-z'\"`@~{}()\\\\/ é]{0,6}|\n|\n\\.[a-z]+ |```|//|<\\|){0,20}") {
            let mut end = 0;
            for command in split(&script) {
                let start = command.as_ptr() as usize - script.as_ptr() as usize;
                proptest::prop_assert!(!command.is_empty());
                proptest::prop_assert!(is_silent(&script[end..start]), "{:?}", &script[end..start]);
                end = start + command.len();
            }
            proptest::prop_assert!(is_silent(&script[end..]), "{:?}", &script[end..]);
        }
    }

    fn is_silent(text: &str) -> bool {
        text.lines().map(str::trim).all(|line| line.is_empty() || line.starts_with("//"))
    }

    #[test]
    fn what_stands_in_front_is_a_command_that_is_refused() {
        assert_eq!(split("print 1\n.show tables\n"), ["print 1", ".show tables"]);
        assert_eq!(split(" // nothing\n\n"), [""; 0]);
        assert_eq!(split(".a @'x\\'\n.b"), [".a @'x\\'", ".b"]);
    }
}
