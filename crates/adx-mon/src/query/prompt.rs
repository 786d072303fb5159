//! The interactive prompt: line editing, history, queries over several lines.

use std::path::PathBuf;

use anyhow::{Context, Result};
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use tokio::runtime::Runtime;

use super::Session;

const HELP: &str = "\
Type a KQL query or a command that begins with a dot. A line that ends with | or \\ goes on in the next.
  .show tables        tables of the database
  #db NAME            use another database
  #help, #quit        this text; leave (or Ctrl-D)
Ctrl-C cancels a running query.";

/// Reads and runs queries until the end of input.
pub(super) fn run(session: &Session, runtime: &Runtime, database: &str) -> Result<()> {
    let mut editor = DefaultEditor::new().context("opening the terminal")?;
    let history = History::load(&mut editor);
    println!("{} · database {database} · #help for help", session.client.endpoint());
    let mut database = database.to_owned();
    while let Some(text) = read_query(&mut editor, &database)? {
        history.add(&mut editor, &text);
        match directive(&text) {
            Directive::Quit => break,
            Directive::Help => println!("{HELP}"),
            Directive::Database(name) => database = name,
            Directive::Unknown(name) => eprintln!("unknown directive '{name}'; #help lists them"),
            // A failure has been shown; the prompt goes on.
            Directive::None => drop(session.show(runtime, &database, &text)),
        }
    }
    Ok(())
}

/// The file of earlier queries, if there is a place for it. A convenience: trouble with it ends no session.
struct History(Option<PathBuf>);

impl History {
    fn load(editor: &mut DefaultEditor) -> History {
        let folder = crate::up::user_data().filter(|folder| std::fs::create_dir_all(folder).is_ok());
        let path = folder.map(|folder| folder.join("query-history"));
        if let Some(path) = &path {
            // No history yet is no error.
            let _ = editor.load_history(path);
        }
        History(path)
    }

    /// Written at once, since a session may end with its terminal.
    fn add(&self, editor: &mut DefaultEditor, text: &str) {
        let added = editor.add_history_entry(text).is_ok_and(|added| added);
        if let (true, Some(path)) = (added, &self.0) {
            let _ = editor.append_history(path);
        }
    }
}

/// A whole query, over as many lines as it takes; None at the end of input.
fn read_query(editor: &mut DefaultEditor, database: &str) -> Result<Option<String>> {
    let mut text = String::new();
    loop {
        let prompt = if text.is_empty() { format!("{database}> ") } else { "  ... ".to_owned() };
        match editor.readline(&prompt) {
            Ok(line) => {
                let goes_on = line.trim_end().ends_with(['|', '\\']);
                text.push_str(line.trim_end().trim_end_matches('\\'));
                if !goes_on && !text.trim().is_empty() {
                    return Ok(Some(text));
                }
                text.push('\n');
                if !goes_on {
                    text.clear();
                }
            }
            Err(ReadlineError::Interrupted) => text.clear(),
            Err(ReadlineError::Eof) => return Ok(None),
            Err(error) => return Err(error).context("reading from the terminal"),
        }
    }
}

enum Directive {
    None,
    Help,
    Quit,
    Database(String),
    Unknown(String),
}

fn directive(text: &str) -> Directive {
    let Some(line) = text.trim().strip_prefix('#') else { return Directive::None };
    let mut words = line.split_whitespace();
    match (words.next(), words.next()) {
        (Some("quit" | "exit"), None) => Directive::Quit,
        (Some("help"), None) => Directive::Help,
        (Some("db" | "database"), Some(name)) => Directive::Database(name.to_owned()),
        _ => Directive::Unknown(text.trim().to_owned()),
    }
}
