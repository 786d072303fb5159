//! A Kusto that answers over HTTP for the rules under test: queries with what happened in their window, asynchronous
//! commands by their tags. It delays, refuses and loses answers at random, and keeps what it was asked.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State as Shared;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use jiff::{SignedDuration, Timestamp};
use rules::window::Window;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::program::PATIENCE;
use crate::random::Random;
use crate::windows::events;

/// A query of a rule.
#[derive(Debug, Clone)]
pub(crate) struct Query {
    pub(crate) window: Window,
    /// Whether its whole answer was given to the connection.
    pub(crate) answered: bool,
}

/// How an operation ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Completes,
    /// It fails and may be repeated.
    Fails,
    Throttled,
    /// Its rows are there, and yet it counts as failed.
    FailsWithRows,
}

#[derive(Debug)]
struct Operation {
    table: String,
    tag: String,
    window: Window,
    ends_at: Instant,
    end: End,
    /// Once it has ended.
    state: Option<&'static str>,
}

#[derive(Debug)]
pub(crate) struct State {
    random: Random,
    /// Whether requests and operations go wrong.
    trouble: bool,
    /// How many have.
    pub(crate) faults: usize,
    /// Tables whose queries get no answer for now.
    held: BTreeSet<String>,
    /// By the table that they name.
    pub(crate) queries: BTreeMap<String, Vec<Query>>,
    /// How many commands came for a table.
    pub(crate) submissions: BTreeMap<String, usize>,
    /// Windows whose rows are in a table, in the order in which they came.
    pub(crate) rows: BTreeMap<String, Vec<Window>>,
    tags: BTreeSet<(String, String)>,
    operations: BTreeMap<String, Operation>,
}

#[derive(Clone)]
pub(crate) struct Kusto {
    pub(crate) url: String,
    state: watch::Sender<State>,
}

/// What becomes of a request.
enum Fate {
    Served,
    /// 503 before any work.
    Refused,
    /// The work is done, and the connection breaks.
    AnswerLost,
    /// An error behind the rows.
    FailsLate,
}

impl Kusto {
    pub(crate) async fn start(seed: u64) -> Kusto {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let state = State {
            random: Random::new(seed),
            trouble: false,
            faults: 0,
            held: BTreeSet::new(),
            queries: BTreeMap::new(),
            submissions: BTreeMap::new(),
            rows: BTreeMap::new(),
            tags: BTreeSet::new(),
            operations: BTreeMap::new(),
        };
        let kusto = Kusto { url: format!("http://{}", listener.local_addr().unwrap()), state: watch::Sender::new(state) };
        let router = Router::new().fallback(answer).with_state(kusto.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        kusto
    }

    pub(crate) fn trouble(&self, trouble: bool) {
        self.state.send_modify(|state| state.trouble = trouble);
    }

    /// From now on queries of that table get no answer, or get one again, also those that came.
    pub(crate) fn hold(&self, table: &str, held: bool) {
        self.state.send_modify(|state| {
            match held {
                true => state.held.insert(table.to_owned()),
                false => state.held.remove(table),
            };
        });
    }

    pub(crate) fn state(&self) -> watch::Ref<'_, State> {
        self.state.borrow()
    }

    /// Waits until something holds.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&State) -> bool) {
        let mut states = self.state.subscribe();
        let waited = tokio::time::timeout(PATIENCE, states.wait_for(holds)).await.map(|held| drop(held.unwrap()));
        assert!(waited.is_ok(), "never: {what}; {:#?}", self.state().rows);
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut result = None;
        self.state.send_modify(|state| result = Some(change(state)));
        result.unwrap()
    }
}

impl State {
    /// What becomes of the next request, and how long it takes before and after the work.
    fn fate(&mut self) -> (Fate, [Duration; 2]) {
        if !self.trouble {
            return (Fate::Served, [Duration::ZERO; 2]);
        }
        let fate = match self.random.below(100) {
            0..6 => Fate::Refused,
            6..12 => Fate::AnswerLost,
            12..16 => Fate::FailsLate,
            _ => Fate::Served,
        };
        self.faults += usize::from(!matches!(fate, Fate::Served));
        let mut pause = || if self.random.percent(15) { self.random.milliseconds(50, 1500) } else { Duration::ZERO };
        (fate, [pause(), pause()])
    }

    /// Takes `.set-or-append async`, and returns the id of the operation.
    fn submit(&mut self, command: &str) -> String {
        let table = between(command, ".set-or-append async ", " with (").to_owned();
        let tag = between(command, "ingestIfNotExists='[\"", "\"]'").to_owned();
        assert!(command.contains(&format!("tags='[\"ingest-by:{tag}\"]'")), "{command}");
        *self.submissions.entry(table.clone()).or_default() += 1;
        let (mut end, mut takes) = (End::Completes, Duration::ZERO);
        if self.trouble {
            takes = self.random.milliseconds(0, 3000);
            end = match self.random.below(100) {
                0..8 => End::Fails,
                8..12 => End::Throttled,
                12..20 => End::FailsWithRows,
                _ => End::Completes,
            };
        }
        self.faults += usize::from(end != End::Completes);
        let id = format!("op-{}", self.operations.len());
        let operation = Operation { table, tag, window: lets(command), ends_at: Instant::now() + takes, end, state: None };
        self.operations.insert(id.clone(), operation);
        id
    }

    /// Ends the operations whose time has come, in that order.
    fn settle(&mut self) {
        let now = Instant::now();
        let mut ending: Vec<&mut Operation> = self.operations.values_mut().filter(|o| o.state.is_none() && o.ends_at <= now).collect();
        ending.sort_by_key(|operation| operation.ends_at);
        for operation in ending {
            let mut append = || {
                let is_new = self.tags.insert((operation.table.clone(), operation.tag.clone()));
                if is_new {
                    self.rows.entry(operation.table.clone()).or_default().push(operation.window);
                }
                is_new
            };
            operation.state = Some(match operation.end {
                End::Completes => match append() {
                    true => "Completed",
                    false => "Skipped",
                },
                End::Fails => "Failed",
                End::Throttled => "Throttled",
                End::FailsWithRows => {
                    append();
                    "Failed"
                }
            });
        }
    }

    /// Answers `.show operations`.
    fn progress(&mut self, query: &str) -> (Value, Vec<Value>) {
        self.settle();
        let asked = self.operations.iter().filter(|(id, _)| query.contains(&format!("\"{id}\"")));
        let row = |(id, operation): (&String, &Operation)| {
            let again = if operation.end == End::Completes { 0.0 } else { 1.0 };
            let state = operation.state.unwrap_or("InProgress");
            json!([id, state, if operation.state.is_some() { again } else { 0.0 }, ""])
        };
        let types = [("OperationId", "string"), ("State", "string"), ("ShouldRetry", "real"), ("Status", "string")];
        (columns(&types), asked.map(row).collect())
    }
}

fn columns(columns: &[(&str, &str)]) -> Value {
    columns.iter().map(|(name, ty)| json!({"ColumnName": name, "ColumnType": ty})).collect::<Vec<_>>().into()
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    let rest = text.split_once(before).unwrap_or_else(|| panic!("no {before} in {text}")).1;
    rest.split_once(after).unwrap_or_else(|| panic!("no {after} in {text}")).0
}

fn window(start: &str, last: &str) -> Window {
    let time = |literal: &str| -> Timestamp { between(literal, "datetime(", ")").parse().unwrap() };
    // The end is given as the last tick before it.
    Window { start: time(start), end: time(last) + SignedDuration::from_nanos(100) }
}

/// The window in the `let` statements before a rule's body.
fn lets(text: &str) -> Window {
    window(between(text, "let _startTime=", "\n"), between(text, "let _endTime=", "\n"))
}

async fn answer(Shared(kusto): Shared<Kusto>, uri: Uri, body: Bytes) -> Response {
    let (fate, [before, after]) = kusto.change(State::fate);
    if matches!(fate, Fate::Refused) {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    // Who has asked may be gone when it is over: then this ends here.
    tokio::time::sleep(before).await;
    let body: Value = serde_json::from_slice(&body).unwrap();
    let csl = body["csl"].as_str().unwrap();
    let is_query = uri.path() == "/v2/rest/query";
    let (answer, asked) = if is_query {
        let (table, window, answer) = query(csl, &body["properties"]["Parameters"], matches!(fate, Fate::FailsLate));
        let asked = kusto.change(|state| {
            let queries = state.queries.entry(table.clone()).or_default();
            queries.push(Query { window, answered: false });
            (table, queries.len() - 1)
        });
        let mut states = kusto.state.subscribe();
        drop(states.wait_for(|state| !state.held.contains(&asked.0)).await);
        (answer, Some(asked))
    } else {
        let (columns, rows) = kusto.change(|state| match csl {
            _ if csl.starts_with(".show operations") => state.progress(csl),
            _ if csl.starts_with(".set-or-append async ") => (columns(&[("OperationId", "string")]), vec![json!([state.submit(csl)])]),
            _ => (columns(&[("Result", "string")]), Vec::new()),
        });
        (json!({"Tables": [{"TableName": "Table_0", "Columns": columns, "Rows": rows}]}), None)
    };
    tokio::time::sleep(after).await;
    match (fate, asked) {
        (Fate::AnswerLost, _) => {
            let broken = futures::stream::iter([Ok(Bytes::from_static(b"[{")), Err(std::io::Error::other("broken"))]);
            return Body::from_stream(broken).into_response();
        }
        (Fate::Served, Some((table, at))) => kusto.change(|state| state.queries.get_mut(&table).unwrap()[at].answered = true),
        _ => {}
    }
    answer.to_string().into_response()
}

/// Table, window and answer of a rule's query.
fn query(csl: &str, parameters: &Value, fails_late: bool) -> (String, Window, Value) {
    let table = csl.lines().find(|line| line.contains(" | ")).unwrap().split(' ').next().unwrap().to_owned();
    let (window, columns, rows) = match parameters["_adxmonStartTime"].as_str() {
        Some(start) => {
            let window = window(start, parameters["_adxmonEndTime"].as_str().unwrap());
            let alert = |event: i64| json!([format!("event {event}"), 3, event.to_string()]);
            let types = [("Title", "string"), ("Severity", "long"), ("CorrelationId", "string")];
            (window, columns(&types), events(&window).map(alert).collect::<Vec<_>>())
        }
        None => {
            let window = lets(csl);
            let (count, sum) = (events(&window).count(), events(&window).sum::<i64>());
            let types = [("Count", "long"), ("Sum", "long"), ("End", "datetime")];
            (window, columns(&types), vec![json!([count, sum, window.end])])
        }
    };
    let errors = json!([{"error": {"code": "LimitsExceeded", "@message": "memory ran out", "@permanent": false}}]);
    let mut end = json!({"FrameType": "DataSetCompletion", "HasErrors": fails_late, "Cancelled": false});
    if fails_late {
        end["OneApiErrors"] = errors;
    }
    let answer = json!([
        {"FrameType": "DataSetHeader", "IsProgressive": false, "Version": "v2.0"},
        {"FrameType": "DataTable", "TableId": 1, "TableKind": "PrimaryResult", "TableName": "PrimaryResult", "Columns": columns, "Rows": rows},
        end,
    ]);
    (table, window, answer)
}
