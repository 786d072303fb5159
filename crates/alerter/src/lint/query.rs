//! The query of a rule: does it bind, does its result have the columns, does it look at the window?

use crds::AlertRuleSpec;
use jiff::{SignedDuration, Timestamp};
use kql::{BindOptions, Diagnostic, DiagnosticKind, Type};
use kusto::Column;

use super::manifest::{Document, Finding};
use super::schema::{Schema, View};
use crate::notification::{Columns, severity_type_error};
use crate::query::{Statement, management, names};

/// Ticks from 0001-01-01 to 1970-01-01.
const EPOCH_TICKS: i64 = 621_355_968_000_000_000;
const FIELD: &str = "spec.query";

pub(super) fn check(document: &Document, spec: &AlertRuleSpec, schema: Option<&Schema>, findings: &mut Vec<Finding>) {
    if management(&spec.query).is_some() {
        // Their answers depend on the service: they are checked by running them.
        return;
    }
    check_window(document, spec, findings);
    let Some(schema) = schema else {
        let diagnostics = kql::parse(&spec.query).diagnostics;
        findings.extend(diagnostics.iter().map(|diagnostic| of_diagnostic(document, diagnostic, diagnostic.position(&spec.query))));
        return;
    };
    if !schema.has(&spec.database) {
        let known = schema.names().join(", ");
        findings.push(document.error("spec.database", format!("there is no database {:?} in the schema; it has {known}", spec.database)));
        return;
    }
    match bind(spec, schema) {
        Ok(results) => results.iter().for_each(|columns| check_columns(document, spec, columns, findings)),
        Err((statement, diagnostics)) => {
            let text = statement.sent();
            for diagnostic in diagnostics {
                let (line, column) = diagnostic.position(&text);
                let line = statement.line_of_query(line).unwrap_or(1);
                findings.push(of_diagnostic(document, &diagnostic, (line, column)));
            }
        }
    }
}

/// What was bound, and what is wrong with it.
type Mistakes = (Box<Statement>, Vec<Diagnostic>);

/// The columns of each result, or what was bound and what is wrong with it.
fn bind(spec: &AlertRuleSpec, schema: &Schema) -> Result<Vec<Vec<Column>>, Mistakes> {
    let now = Timestamp::now();
    let statement = Statement::new(&spec.query, now - SignedDuration::from_hours(1), now, "");
    let options = BindOptions {
        now: EPOCH_TICKS + i64::try_from(now.as_nanosecond() / 100).unwrap_or_default(),
        database: spec.database.clone(),
        parameters: statement.parameters.iter().cloned().collect(),
        ..BindOptions::default()
    };
    match kql::bind(&statement.sent(), &View { schema, database: &spec.database }, &options) {
        Ok(query) => {
            let column = |c: &kql::Column| Column { name: c.name.clone(), ty: c.ty.name().to_owned() };
            Ok(query.results.iter().map(|rel| rel.columns.iter().map(column).collect()).collect())
        }
        Err(diagnostics) => Err((Box::new(statement), diagnostics)),
    }
}

fn of_diagnostic(document: &Document, diagnostic: &Diagnostic, (line, column): (usize, usize)) -> Finding {
    // Kusto may know what we do not.
    let warning = matches!(diagnostic.kind, DiagnosticKind::Unsupported | DiagnosticKind::Unavailable);
    let way_out = if warning { "; Kusto may know it: give --kusto-endpoint to have the query run there once" } else { "" };
    let message = format!("the query, line {line}, column {column}: {diagnostic}{way_out}");
    Finding { line: document.line_in(FIELD, line), warning, ..document.error(FIELD, message) }
}

fn check_columns(document: &Document, spec: &AlertRuleSpec, columns: &[Column], findings: &mut Vec<Finding>) {
    if let Err(error) = Columns::new(columns) {
        findings.push(document.error(FIELD, error.to_string()));
        return;
    }
    let find = |name: &str| columns.iter().find(|column| column.name.eq_ignore_ascii_case(name));
    let shown = || columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>().join(", ");
    match find("title") {
        None => findings.push(document.error(FIELD, format!("the query has no column \"title\"; it has {}", shown()))),
        Some(title) if title.ty == Type::Dynamic.name() => {
            findings.push(document.error(FIELD, "column \"title\" is dynamic: use tostring()"));
        }
        Some(_) => {}
    }
    match find("severity") {
        None => findings.push(document.error(FIELD, format!("the query has no column \"severity\"; it has {}", shown()))),
        Some(severity) => {
            findings.extend(severity_type_error(&severity.ty).map(|why| document.error(FIELD, format!("column \"severity\": {why}"))));
        }
    }
    if spec.destination.trim().is_empty() && find("recipient").is_none() {
        findings.push(document.error("spec.destination", "nobody is told: set spec.destination, or return a column \"recipient\""));
    }
}

/// Windows touch each other: a query that looks at them sees each row once.
fn check_window(document: &Document, spec: &AlertRuleSpec, findings: &mut Vec<Finding>) {
    let used: Vec<&str> = names(&spec.query).map(|span| &spec.query[span]).collect();
    let uses = |name: &str| used.contains(&name);
    let parameters = ["_adxmonStartTime", "_adxmonEndTime"];
    let message = match (uses("_startTime") || uses(parameters[0]), uses("_endTime") || uses(parameters[1])) {
        (true, true) => return,
        (true, false) => {
            "the query does not use _endTime: rows that come while it runs are seen twice; filter the time column with \
             between (_startTime .. _endTime)"
        }
        (false, true) => {
            "the query does not use _startTime: rows are seen again in every run; filter the time column with \
             between (_startTime .. _endTime)"
        }
        (false, false) => {
            "the query uses neither _startTime nor _endTime: after a late or failed run, rows are missed; \
             filter the time column with between (_startTime .. _endTime)"
        }
    };
    findings.push(Finding { warning: true, ..document.error(FIELD, message) });
}
