//! The documented file, as a page in Markdown.

use super::text::value;
use super::{Setting, Table};

const BEGINNING: &str = "# Configuration of the collector

`collector config --format page` wrote this page from the code; a test compares them. `collector config` prints a file to
start from, `collector check -c FILE` names every mistake of one, and `collector config --format schema` prints a JSON schema
for editors. The file is TOML. It is read again on SIGHUP.

";

/// The page.
#[must_use]
pub fn page() -> String {
    let (file, filters) = (Table::file(), Table::filters());
    let mut page = format!("{BEGINNING}{}\n\n## Top of the file\n\n", file.about);
    let own: Vec<&Setting> = file.settings.iter().filter(|setting| !is_filter(&filters, setting)).collect();
    rows(&mut page, own.into_iter());
    page.push_str(&format!(
        "\n## Filters\n\n{} They may stand at the top of the file, in each source and in each exporter of metrics.\n\n",
        filters.about
    ));
    rows(&mut page, filters.settings.iter());
    let all: Vec<&Table> = file.all();
    let mut told: Vec<&str> = Vec::new();
    for table in all.iter().skip(1).filter(|table| !table.settings.is_empty() || table.tables.is_empty()) {
        if told.contains(&table.kind.as_str()) {
            continue;
        }
        told.push(&table.kind);
        section(&mut page, table, &all, &filters);
    }
    page
}

fn section(page: &mut String, table: &Table, all: &[&Table], filters: &Table) {
    page.push_str(&format!("\n## `{}`\n\n{}", table.header(), table.about));
    let same: Vec<String> = all
        .iter()
        .filter(|other| other.kind == table.kind && other.path != table.path)
        .map(|other| format!("`{}`", other.header()))
        .collect();
    if !same.is_empty() {
        page.push_str(&format!(" The same keys: {}.", same.join(", ")));
    }
    let has_filters = table.has_filters(filters);
    if has_filters {
        page.push_str(" Takes [filters](#filters) too.");
    }
    page.push_str("\n\n");
    rows(page, table.settings.iter().filter(|setting| !(has_filters && is_filter(filters, setting))));
}

fn is_filter(filters: &Table, setting: &Setting) -> bool {
    filters.settings.iter().any(|filter| filter.key == setting.key)
}

fn rows<'a>(page: &mut String, settings: impl Iterator<Item = &'a Setting>) {
    let mut settings = settings.peekable();
    if settings.peek().is_none() {
        return;
    }
    page.push_str("| key | value | default | |\n|---|---|---|---|\n");
    for setting in settings {
        let kind = if setting.choices.is_empty() {
            setting.kind.clone()
        } else {
            setting.choices.iter().map(|choice| format!("`{}`", value(choice))).collect::<Vec<_>>().join(", ")
        };
        let default = match &setting.default {
            _ if setting.required => "**required**".to_owned(),
            Some(default) => format!("`{}`", value(default)),
            None => String::new(),
        };
        let example = setting.example.as_ref().map_or_else(String::new, |example| format!(" Example: `{}`", value(example)));
        let about = format!("{}{example}", setting.about).replace('|', "\\|");
        page.push_str(&format!("| `{}` | {kind} | {default} | {about} |\n", setting.key));
    }
}
