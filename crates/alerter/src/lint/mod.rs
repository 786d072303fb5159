//! Checks rules without a cluster: what an API server would refuse, what the alerter could not run, and what Kusto would not
//! understand. All mistakes are found at once. With endpoints, each rule also runs once against its database.

mod live;
mod manifest;
mod query;
mod schema;
mod structure;

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context as _, bail};
use crds::AlertRule;
use crds::criteria::{Criteria, Labels};
use rules::store::Key;
use serde_json::Value;

use crate::flags::LintFlags;
use manifest::Document;
pub use manifest::Finding;
pub use schema::{Schema, SchemaError};

/// What a lint found.
#[derive(Debug, Default)]
pub struct Report {
    /// Mistakes and warnings, by file and line.
    pub findings: Vec<Finding>,
    /// How many rules there are.
    pub rules: usize,
    /// Rules without a mistake that are meant for these labels: they can be tried.
    runnable: Vec<(Document, Key, AlertRule)>,
}

impl Report {
    /// Whether there is no mistake; warnings are none.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.findings.iter().all(|finding| finding.warning)
    }
}

/// Lints as the command line says, and prints what is found; returns whether all is well.
///
/// # Errors
/// Where nothing can be checked: there are no rules, or the command line, the schema or a database's schema cannot be used.
pub async fn run(flags: &LintFlags) -> anyhow::Result<bool> {
    std::fs::metadata(&flags.lint_dir).with_context(|| format!("reading --lint-dir {}", flags.lint_dir.display()))?;
    let config = live::Config::new(&flags.common)?;
    let mut schema = match &flags.schema {
        Some(file) => {
            let text = std::fs::read_to_string(file).with_context(|| format!("reading --schema {}", file.display()))?;
            Some(Schema::read(&text).with_context(|| format!("reading --schema {}", file.display()))?)
        }
        None => None,
    };
    if let Some(live) = config.schema().await? {
        schema.get_or_insert_default().merge(live);
    }
    let mut report = check(&flags.lint_dir, schema.as_ref(), &config.labels);
    for (document, key, object) in std::mem::take(&mut report.runnable) {
        report.findings.extend(config.try_out(&document, &key, &object).await);
    }
    print(&mut report);
    if report.rules == 0 && report.is_clean() {
        bail!("{}", no_rules(&flags.lint_dir));
    }
    Ok(report.is_clean())
}

/// That a pipeline looks at the wrong place must not look like success.
fn no_rules(path: &Path) -> String {
    let shown = path.display();
    match path.is_dir() {
        true => format!(
            "there is no AlertRule in {shown}: its files *.yaml, *.yml and *.json were read, and those of its subfolders; \
             each rule is a document with apiVersion: {}/{} and kind: AlertRule",
            crds::GROUP,
            crds::VERSION
        ),
        false => format!(
            "there is no AlertRule in {shown}: a rule is a document with apiVersion: {}/{} and kind: AlertRule",
            crds::GROUP,
            crds::VERSION
        ),
    }
}

#[allow(clippy::print_stdout, reason = "what a lint finds is its output")]
fn print(report: &mut Report) {
    report.findings.sort_by(|a, b| (&a.file, a.line, &a.message).cmp(&(&b.file, b.line, &b.message)));
    report.findings.iter().for_each(|finding| println!("{finding}"));
    let warnings = report.findings.iter().filter(|finding| finding.warning).count();
    println!("{} rules, {} errors, {warnings} warnings", report.rules, report.findings.len() - warnings);
}

/// Checks all rules of a folder or file. Without a schema, queries are parsed but not bound.
#[must_use]
pub fn check(path: &Path, schema: Option<&Schema>, labels: &Labels) -> Report {
    let (documents, findings) = manifest::read(path);
    let mut report = Report { findings, ..Report::default() };
    let crd = rule_schema();
    let mut seen: HashMap<Key, (usize, String)> = HashMap::new();
    for document in documents {
        if document.body.is_null() {
            continue;
        }
        let kind = document.body["kind"].as_str().unwrap_or_default();
        if kind != "AlertRule" {
            if kind.eq_ignore_ascii_case("AlertRule") {
                report.findings.push(document.error("kind", format!("there is no kind {kind:?}: write AlertRule")));
                continue;
            }
            let message = format!(
                "kind {kind:?} is not checked here, only AlertRule is: its status says what is wrong with it once it is applied, or run \
                 with adx-mon up --rules"
            );
            report.findings.push(Finding { warning: true, ..document.error("kind", message) });
            continue;
        }
        report.rules += 1;
        let mut findings = Vec::new();
        let checked = check_rule(&document, &crd, schema, labels, &mut findings);
        let key = key_of(&document.body);
        if let Some((number, file)) = seen.get(&key) {
            findings.push(document.error("metadata.name", format!("{key} is there already, as document {number} of {file}")));
        }
        seen.insert(key.clone(), (document.number, document.file.display().to_string()));
        findings.iter_mut().for_each(|finding| finding.rule = Some(key.to_string()));
        if let Some(object) = checked.filter(|_| findings.iter().all(|finding| finding.warning)) {
            report.runnable.push((document, key, object));
        }
        report.findings.extend(findings);
    }
    report
}

/// Checks one rule; returns it if it is meant for these labels.
fn check_rule(
    document: &Document,
    crd: &Value,
    schema: Option<&Schema>,
    labels: &Labels,
    findings: &mut Vec<Finding>,
) -> Option<AlertRule> {
    let mut mistakes = Vec::new();
    if document.body["apiVersion"] != format!("{}/{}", crds::GROUP, crds::VERSION) {
        mistakes.push(("apiVersion".to_owned(), format!("must be {}/{}", crds::GROUP, crds::VERSION)));
    }
    check_metadata(&document.body["metadata"], &mut mistakes);
    structure::check("", &document.body, crd, &mut mistakes);
    findings.extend(mistakes.into_iter().map(|(path, what)| document.error(&path, format!("{path}: {what}"))));
    // What is wrong with metadata is said above, and must not hide what is wrong with the rest.
    let key = key_of(&document.body);
    let mut body = document.body.clone();
    body["metadata"] = serde_json::json!({ "name": key.name, "namespace": key.namespace });
    let object: AlertRule = match serde_json::from_value(body) {
        Ok(object) => object,
        Err(error) => {
            if findings.is_empty() {
                findings.push(document.error("", error.to_string()));
            }
            return None;
        }
    };
    let spec = &object.spec;
    for (field, text) in [("spec.database", &spec.database), ("spec.query", &spec.query)] {
        if text.trim().is_empty() {
            findings.push(document.error(field, format!("{field} is missing")));
        }
    }
    let intervals = [spec.interval().err(), spec.auto_mitigate_after().err()];
    findings.extend(intervals.into_iter().flatten().map(|error| document.error(error.field, error.to_string())));
    if !spec.query.trim().is_empty() {
        query::check(document, spec, schema, findings);
    }
    match Criteria::new(&spec.criteria, &spec.criteria_expression).evaluate(labels) {
        Ok(outcome) => outcome.proceeds().then_some(object),
        Err(error) => {
            findings.push(document.error("spec.criteriaExpression", format!("spec.criteriaExpression: {error}")));
            None
        }
    }
}

/// The schema of an AlertRule in its CRD.
fn rule_schema() -> Value {
    let crd = crds::all().into_iter().find(|crd| crd.spec.names.kind == "AlertRule");
    let schema = crd.and_then(|crd| crd.spec.versions.into_iter().next()?.schema?.open_api_v3_schema);
    let mut schema = schema.and_then(|schema| serde_json::to_value(schema).ok()).unwrap_or_default();
    // A server adds what every object has.
    for name in ["apiVersion", "kind"] {
        schema["properties"][name] = serde_json::json!({ "type": "string" });
    }
    schema["properties"]["metadata"] = serde_json::json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
    schema
}

fn key_of(body: &Value) -> Key {
    let text = |name: &str, default: &str| body["metadata"][name].as_str().unwrap_or(default).to_owned();
    Key::new(text("namespace", "default"), text("name", ""))
}

fn check_metadata(metadata: &Value, mistakes: &mut Vec<structure::Mistake>) {
    let label_rule = "at most 63 lower-case letters, digits and '-', beginning and ending with a letter or digit";
    match metadata["name"].as_str() {
        None => mistakes.push(("metadata.name".into(), "is missing".into())),
        Some(name) if !is_label(name) => mistakes.push(("metadata.name".into(), format!("{name:?} is no name: {label_rule}"))),
        Some(_) => {}
    }
    match &metadata["namespace"] {
        Value::Null => {}
        Value::String(namespace) if is_label(namespace) => {}
        other => mistakes.push(("metadata.namespace".into(), format!("{other} is no namespace: {label_rule}"))),
    }
    for (field, is_value) in [("labels", is_label_value as fn(&str) -> bool), ("annotations", |_| true)] {
        for (name, value) in metadata[field].as_object().into_iter().flatten() {
            let path = format!("metadata.{field}.{name}");
            match value {
                Value::String(value) if is_value(value) => {}
                Value::String(value) => {
                    mistakes.push((path, format!("{value:?} is no value of a label: at most 63 letters, digits, '-', '_' and '.'")))
                }
                other => mistakes.push((path, format!("must be a string, but is {other}; put quotes around it"))),
            }
        }
    }
}

/// RFC 1123 label.
fn is_label(text: &str) -> bool {
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

fn is_label_value(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let edge = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
    text.len() <= 63 && text.chars().all(inner) && edge(text.chars().next()) && edge(text.chars().last())
}
