//! Reads management commands from the tokens of KQL.

mod change;
mod show;
mod tokens;

use kql::diagnostic::Diagnostic;
use kql::lexer::TokenKind;

use self::tokens::Parser;
use super::syntax::{Command, Fill, Parsed};

type Parse<T> = Result<T, Diagnostic>;

/// Whether the text is a command: its first token is a point.
pub(crate) fn is_command(text: &str) -> bool {
    without_comments(text).starts_with('.')
}

/// Reads a command.
///
/// # Errors
/// With the place and what was expected there, or the name of a command that is not supported.
pub(crate) fn parse(text: &str) -> Parse<Parsed> {
    let mut parser = Parser::new(text, head(text))?;
    parser.punctuation(".")?;
    let command = parser.command()?;
    let pipe = match parser.peek() {
        TokenKind::Punctuation("|") => Some(parser.span().start),
        TokenKind::Punctuation(";") | TokenKind::End => None,
        _ => return Err(parser.unexpected("the end of the command or '|'")),
    };
    Ok(Parsed { command, pipe })
}

fn without_comments(text: &str) -> &str {
    let mut rest = text.trim_start_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
    while let Some(comment) = rest.strip_prefix("//") {
        rest = comment.split_once('\n').map_or("", |(_, after)| after).trim_start();
    }
    rest
}

/// The command without what stands behind `<|` where that is data or a query: elsewhere the mark may be part of a
/// string.
fn head(text: &str) -> &str {
    let verb = without_comments(text).trim_start_matches('.').trim_start();
    let verb = verb.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').next().unwrap_or_default();
    let has_body = ["ingest", "set", "append", "set-or-append", "set-or-replace", "execute"];
    if !has_body.iter().any(|known| verb.eq_ignore_ascii_case(known)) {
        return text;
    }
    text.find("<|").map_or(text, |at| &text[..at])
}

impl Parser<'_> {
    fn command(&mut self) -> Parse<Command> {
        let Some(verb) = self.word() else { return Err(self.unexpected("the name of a command")) };
        match verb.as_str() {
            "create" | "create-merge" | "create-or-alter" => self.create(&verb),
            "alter" | "alter-merge" => self.alter(&verb),
            "drop" => self.drop_command(),
            "rename" => self.rename(),
            "delete" => self.delete(),
            "clear" => self.clear(),
            "ingest" => self.ingest(),
            "set" => self.fill(Fill::Set),
            "append" => self.fill(Fill::Append),
            "set-or-append" => self.fill(Fill::SetOrAppend),
            "set-or-replace" => self.fill(Fill::SetOrReplace),
            "execute" => self.execute(),
            "show" => self.show().map(Command::Show),
            "get" => self.get().map(Command::Show),
            _ => Err(self.unsupported(format_args!(".{verb}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use kql::Type;
    use proptest::prelude::*;

    use super::*;
    use crate::commands::syntax::{Define, Properties, Scope, Show};

    fn command(text: &str) -> Command {
        parse(text).unwrap_or_else(|error| panic!("{text}: {error}")).command
    }

    #[test]
    fn what_the_ingestor_sends() {
        assert_eq!(
            command(".create-merge table ['Cpu'] (['Timestamp']:datetime, ['Labels']:dynamic)"),
            Command::DefineTables {
                how: Define::CreateMerge,
                tables: vec![("Cpu".into(), vec![("Timestamp".into(), Type::DateTime), ("Labels".into(), Type::Dynamic)])],
                properties: Properties::new(),
            }
        );
        assert_eq!(
            command(".create-or-alter table ['T'] ingestion csv mapping \"T_1\" '[]'"),
            Command::DefineMapping { table: "T".into(), kind: "csv".into(), name: "T_1".into(), json: "[]".into(), or_alter: true }
        );
        let shown = command(".show database Db ingestion mappings");
        let wanted = Show::Mappings { scope: Scope::Database("Db".into()), kind: None, name: None };
        assert_eq!(shown, Command::Show(wanted));
    }

    #[test]
    fn a_group_of_an_id_may_look_like_a_number_or_a_timespan() {
        for id in ["67f8d246-477f-46f2-899c-60920089858d", "11111111-1111-1111-1111-1e9111111111", "00000000-0000-0000-0000-1111111d1111"] {
            for text in [format!(".show operations {id}"), format!(".show operations {id} | project State")] {
                assert_eq!(command(&text), Command::Show(Show::Operations(Some(id.into()))), "{text}");
            }
        }
        assert!(parse(".show operations 60920089858d").is_err());
    }

    proptest! {
        #[test]
        fn every_id_of_an_operation_is_read(id: u128) {
            let id = uuid::Uuid::from_u128(id).to_string();
            prop_assert_eq!(command(&format!(".show operations {id}")), Command::Show(Show::Operations(Some(id))));
        }
    }

    /// The commands that the documentation lists are read.
    #[test]
    fn documented_commands() {
        let document = include_str!("../../../../../docs/kql.md");
        let (_, behind) = document.split_once("```kusto\n").unwrap();
        let (commands, _) = behind.split_once("```").unwrap();
        assert!(commands.lines().count() > 50);
        for line in commands.lines() {
            assert!(is_command(line), "{line}");
            command(line);
        }
    }

    #[test]
    fn functions_keep_their_text() {
        let text = ".create-or-alter function with (folder='x', skipvalidation=true) f (T:(a:long), i:timespan=1m) { T | where a > 1 }";
        let Command::DefineFunction { name, parameters, body, properties, .. } = command(text) else { panic!() };
        assert_eq!((name.as_str(), parameters.as_str()), ("f", "(T:(a:long), i:timespan=1m)"));
        assert_eq!(body, "{ T | where a > 1 }");
        assert_eq!(properties["skipvalidation"], "true");
        let Command::DefineFunction { body, .. } = command(".create function g () { T | where s has '<|' }") else { panic!() };
        assert_eq!(body, "{ T | where s has '<|' }");
    }

    #[test]
    fn the_tail_is_left_to_the_query_engine() {
        let text = ".show tables | where TableName == 'x' | count";
        assert_eq!(parse(text).unwrap().pipe, Some(13));
        let inline = ".ingest inline into table ['T'] with (format='csv') <| 1,\"2|3\n";
        let Command::IngestInline { data, .. } = command(inline) else { panic!() };
        assert_eq!(&inline[data..], " 1,\"2|3\n");
    }

    #[test]
    fn unknown_commands_are_named() {
        for (text, word) in [
            (".execute script <| .show tables", "'database script' or 'cluster script'"),
            (".export async to csv <| print 1", ".export"),
            (".show gizmos", ".show gizmos"),
            (".create table T", "expected"),
            (".", "expected"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.message.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn policies_in_words_and_in_json() {
        let text = ".alter-merge table T policy retention softdelete = 7d recoverability = disabled";
        let Command::SetPolicy { policy, merge, .. } = command(text) else { panic!() };
        assert_eq!(policy, r#"{"SoftDeletePeriod":"7.00:00:00","Recoverability":"Disabled"}"#);
        assert!(merge);
        let text = ".alter database ['D'] policy caching '{\"DataHotSpan\": \"3.00:00:00\"}'";
        assert!(matches!(command(text), Command::SetPolicy { scope: Scope::Database(_), .. }));
    }
}
