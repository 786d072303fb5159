//! One run of a rule: its query over one window, and what becomes of the answer.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use kusto::{Client, Delivery, Kind, QueryOptions, Table};
use rules::window::Window;

use super::rule::Rule;
use crate::delivery::alertmanager::{About, Alert};
use crate::metrics::Outcome;
use crate::notification::{Columns, Links, Notification, Origin, RowError, failure_alert, throttle_alert};
use crate::query::Statement;
use crate::state::{Outgoing, Target};

/// Configured databases that the error of an unknown one names.
const MAX_NAMED_DATABASES: usize = 10;
/// Longest message of a status, in characters.
const MAX_MESSAGE: usize = 4096;

/// What all runs share.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Clients by name of database.
    pub databases: BTreeMap<String, Client>,
    /// The alerter's region; queries see it as `_region`.
    pub region: String,
    /// Rows of one run that become notifications.
    pub max_notifications: usize,
    /// How long a query may take.
    pub query_deadline: Duration,
    /// How long it may take before it has to run again among the slow ones.
    pub quick: Duration,
    /// Who takes notifications.
    pub targets: Vec<Target>,
}

/// How a run ended.
#[derive(Debug, Clone)]
pub(crate) struct Evaluation {
    /// What it looked at.
    pub(crate) window: Window,
    /// How it ended.
    pub(crate) outcome: Outcome,
    /// What went wrong; empty after a success.
    pub(crate) message: String,
    /// Rows of a success; otherwise 0.
    pub(crate) rows: usize,
    /// Notifications made of rows.
    pub(crate) alerts: usize,
    /// Their titles, if nobody takes notifications.
    pub(crate) titles: Vec<String>,
    /// How long the query took.
    pub(crate) took: Duration,
    /// What is to be sent.
    pub(crate) outgoing: Vec<Outgoing>,
    /// Whether the same window may well succeed soon.
    pub(crate) again: Option<Again>,
}

/// What failed may succeed when it is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Again {
    /// The pause that Kusto asks for.
    pub(crate) asked: Option<Duration>,
}

impl Evaluation {
    /// Whether the window needs no other run.
    pub(crate) fn is_done(&self) -> bool {
        matches!(self.outcome, Outcome::Success | Outcome::NotificationThrottled)
    }

    /// A run that found nothing.
    fn quiet(window: Window, took: Duration) -> Evaluation {
        Evaluation {
            window,
            outcome: Outcome::Success,
            message: String::new(),
            rows: 0,
            alerts: 0,
            titles: Vec::new(),
            took,
            outgoing: Vec::new(),
            again: None,
        }
    }

    /// A run that came to nothing through a fault of the alerter.
    pub(crate) fn broken(window: Window, why: &dyn std::fmt::Display) -> Evaluation {
        Evaluation {
            outcome: Outcome::ServiceError,
            message: format!("Query execution failed: {why}"),
            again: Some(Again { asked: None }),
            ..Evaluation::quiet(window, Duration::ZERO)
        }
    }
}

/// Why a query brought no rows.
struct Trouble {
    outcome: Outcome,
    error: String,
    again: Option<Again>,
}

impl Trouble {
    fn of_user(error: String) -> Trouble {
        Trouble { outcome: Outcome::UserError, error, again: None }
    }
}

/// What a service gets longer than a quick query may take, so that its own answer to a timeout does not come first.
const CUT_GRACE: Duration = Duration::from_secs(5);

/// [`evaluate`] in the time that quick queries get; nothing if that is not enough.
pub(crate) async fn evaluate_quickly(rule: &Rule, window: Window, settings: &Settings) -> Option<Evaluation> {
    if settings.quick >= settings.query_deadline {
        return Some(evaluate(rule, window, settings, settings.query_deadline).await);
    }
    let deadline = settings.query_deadline.min(settings.quick + CUT_GRACE);
    tokio::time::timeout(settings.quick, evaluate(rule, window, settings, deadline)).await.ok()
}

/// Runs the rule's query over `window` and makes notifications of its rows. Sends nothing.
pub(crate) async fn evaluate(rule: &Rule, window: Window, settings: &Settings, deadline: Duration) -> Evaluation {
    let began = tokio::time::Instant::now();
    let statement = Statement::new(&rule.spec.query, window.start, window.last_tick(), &settings.region);
    let client = settings.databases.get(&rule.spec.database);
    let answer = match client {
        Some(client) => ask(client, &rule.spec.database, &statement, deadline).await,
        None => Err(Trouble::of_user(unknown_database(&rule.spec.database, &settings.databases))),
    };
    let took = began.elapsed();
    if answer.as_ref().is_ok_and(|tables| is_quiet(tables)) {
        return Evaluation::quiet(window, took);
    }
    let endpoint = client.map_or_else(|| "unknown".to_owned(), |client| client.endpoint().to_string());
    let origin = Origin {
        source: rule.source.clone(),
        destination: rule.spec.destination.clone(),
        auto_mitigate_after: rule.auto_mitigate_after(),
        links: Links::new(&endpoint, &rule.spec.database, &statement.display()),
    };
    let mut found = Found::default();
    let trouble = match answer {
        Ok(tables) => {
            let error = found.read(&tables, &origin, settings.max_notifications).err();
            error.map(|error| Trouble::of_user(error.to_string()))
        }
        Err(trouble) => Some(trouble),
    };
    let alerts = found.notifications.len();
    let mut notifications: Vec<(About, Notification)> = found.notifications.into_iter().map(|n| (About::Row, n)).collect();
    let again = trouble.as_ref().and_then(|trouble| trouble.again);
    let (outcome, message, rows) = match trouble {
        Some(Trouble { outcome: Outcome::UserError, error, .. }) => {
            notifications.push((About::Failure, failure_alert(&origin, &endpoint, &error)));
            (Outcome::UserError, format!("Query failed with user error: {error}"), 0)
        }
        Some(Trouble { outcome, error, .. }) => (outcome, format!("Query execution failed: {error}"), 0),
        None if !found.held_back.is_empty() => {
            notifications.push((About::Throttle, throttle_alert(&origin, &settings.region, &found.held_back)));
            (Outcome::NotificationThrottled, "Too many notifications sent".to_owned(), 0)
        }
        None => (Outcome::Success, String::new(), found.rows),
    };
    let row_title = |(about, n): &(About, Notification)| (*about == About::Row).then(|| n.title.clone());
    let titles = if settings.targets.is_empty() { notifications.iter().filter_map(row_title).collect() } else { Vec::new() };
    let outgoing = outgoing(&notifications, &origin, window, rule.lasts, &settings.targets);
    let message = message.chars().take(MAX_MESSAGE).collect();
    Evaluation { window, outcome, message, rows, alerts, titles, took, outgoing, again }
}

/// Whether there is nothing to tell, as after most runs: then nobody needs links to the query.
fn is_quiet(tables: &[Table]) -> bool {
    tables.iter().all(|table| table.rows.is_empty() && Columns::new(&table.columns).is_ok())
}

async fn ask(client: &Client, database: &str, statement: &Statement, deadline: Duration) -> Result<Vec<Table>, Trouble> {
    let options = QueryOptions { timeout: deadline, parameters: statement.parameters.clone(), options: Vec::new() };
    let answer = match statement.is_management() {
        true => client.mgmt_with(database, &statement.text, &options).await.map(|table| vec![table]),
        false => client.query(database, &statement.sent(), &options).await.map(|data| data.tables),
    };
    answer.map_err(|error| {
        let outcome = outcome_of(&error);
        let again = outcome == Outcome::ServiceError && error.is_transient() && may_repeat(&error, statement);
        Trouble { outcome, error: explained(&error, statement), again: again.then_some(Again { asked: error.retry_after }) }
    })
}

/// Whether doing it twice does no more than doing it once: a command may change something.
fn may_repeat(error: &kusto::Error, statement: &Statement) -> bool {
    !statement.is_management() || statement.text.starts_with(".show") || error.delivery == Delivery::NotExecuted
}

/// A user error is one that only a change of the rule puts right: what Kusto refuses as a bad request, syntax errors
/// among them, and answers that are too large. Access, throttling, time and the network are no fault of the rule.
fn outcome_of(error: &kusto::Error) -> Outcome {
    let of_the_query = error.code.starts_with("SEM") || error.code.starts_with("SYN") || error.code == "ANSWER_TOO_LARGE";
    let refused = error.kind == Kind::Permanent && matches!(error.status, Some(200 | 400));
    if of_the_query || refused { Outcome::UserError } else { Outcome::ServiceError }
}

/// The error, with its place in the rule's own text: what is sent has lines before it.
fn explained(error: &kusto::Error, statement: &Statement) -> String {
    match error.position.and_then(|p| Some((statement.line_of_query(usize::try_from(p.line).ok()?)?, p.column))) {
        Some((line, column)) => format!("{error} (line {line}, column {column} of the rule's query)"),
        None => error.to_string(),
    }
}

fn unknown_database(name: &str, databases: &BTreeMap<String, Client>) -> String {
    let mut text = format!("no client for database {name:?}");
    if databases.is_empty() {
        text.push_str("; no databases configured via --kusto-endpoint");
        return text;
    }
    if let Some(like) = databases.keys().find(|known| known.eq_ignore_ascii_case(name)) {
        text.push_str(&format!("; did you mean {like:?}? (database names are case-sensitive)"));
    }
    let mut named: Vec<String> = databases.keys().take(MAX_NAMED_DATABASES).cloned().collect();
    if let Some(more) = databases.len().checked_sub(MAX_NAMED_DATABASES).filter(|more| *more > 0) {
        named.push(format!("... and {more} more"));
    }
    text.push_str(&format!("; configured databases via --kusto-endpoint: [{}]", named.join(", ")));
    text
}

#[derive(Default)]
struct Found {
    notifications: Vec<Notification>,
    held_back: Vec<(i64, String)>,
    rows: usize,
}

impl Found {
    /// Makes notifications of the first `limit` rows. Stops at the first bad one; those before it stand.
    fn read(&mut self, tables: &[Table], origin: &Origin, limit: usize) -> Result<(), RowError> {
        for table in tables {
            let columns = Columns::new(&table.columns)?;
            for row in &table.rows {
                self.rows += 1;
                if self.notifications.len() < limit {
                    self.notifications.push(columns.notification(row, origin)?);
                } else {
                    self.held_back.push(columns.brief(row));
                }
            }
        }
        Ok(())
    }
}

fn outgoing(
    notifications: &[(About, Notification)],
    origin: &Origin,
    window: Window,
    lasts: Duration,
    targets: &[Target],
) -> Vec<Outgoing> {
    let span: (Timestamp, Timestamp) = (window.start, window.end);
    let body = |target, about, notification: &Notification| match target {
        Target::Receiver => serde_json::to_vec(notification),
        Target::Alertmanager => serde_json::to_vec(&Alert::new(about, notification, origin, span, lasts)),
    };
    let pairs = targets.iter().flat_map(|target| notifications.iter().map(move |(about, n)| (*target, *about, n)));
    pairs
        .filter_map(|(target, about, notification)| {
            let body = body(target, about, notification)
                .inspect_err(|error| tracing::error!(%error, rule = origin.source, "a notification cannot be written as JSON"))
                .ok()?;
            Some(Outgoing {
                target,
                destination: notification.destination.clone(),
                correlation: notification.correlation_id.clone(),
                title: notification.title.clone(),
                body,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn databases(names: &[&str]) -> BTreeMap<String, Client> {
        names.iter().map(|name| ((*name).to_owned(), Client::new("http://127.0.0.1:1").unwrap())).collect()
    }

    /// Texts of the three cases of `alert_notifications.json` about unknown databases.
    #[test]
    fn an_unknown_database_is_explained() {
        assert_eq!(
            unknown_database("db", &databases(&["Logs", "DB"])),
            "no client for database \"db\"; did you mean \"DB\"? (database names are case-sensitive); \
             configured databases via --kusto-endpoint: [DB, Logs]"
        );
        assert_eq!(unknown_database("db", &databases(&[])), "no client for database \"db\"; no databases configured via --kusto-endpoint");
        assert_eq!(
            unknown_database("db", &databases(&["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"])),
            "no client for database \"db\"; configured databases via --kusto-endpoint: [a, b, c, d, e, f, g, h, i, j, ... and 2 more]"
        );
    }
}
