//! The alerter and the exporter with rules in files.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use rules::window::Window;
use tokio::time::Instant;

use crate::kusto::{Kusto, Query, State};
use crate::program::{Program, torment_time};
use crate::random::Random;
use crate::receivers::{Got, Receivers};
use crate::windows::{assert_every_window_once, events};

/// Name, which is also that of the table that is queried or filled, and interval in seconds.
const ALERTS: [(&str, u64); 2] = [("alertsquick", 1), ("alertsslow", 4)];
const EXPORTS: [(&str, u64); 2] = [("exportsquick", 3), ("exportsslow", 5)];
const SUMMARIES: [(&str, u64); 2] = [("sumsquick", 3), ("sumsslow", 7)];

fn rules() -> String {
    let head = |kind: &str, name: &str, more: &str, interval: u64| {
        format!(
            "---\napiVersion: adx-mon.azure.com/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: ns{more}}}\n\
             spec:\n  database: Metrics\n  interval: {interval}s\n"
        )
    };
    let between = "where Timestamp between (_startTime .. _endTime)";
    let alert = |(name, interval)| head("AlertRule", name, "", interval) + &format!("  destination: {name}\n  query: {name} | {between}\n");
    let export = |(name, interval)| {
        let transform = format!("  transform: {{defaultMetricName: {name}, timestampColumn: '', valueColumns: [Count, Sum]}}\n");
        head("MetricsExporter", name, "", interval)
            + &format!("  body: {name} | {between} | summarize Count = count(), Sum = sum(N)\n")
            + &transform
    };
    let summary = |(name, interval)| {
        let owner = ", annotations: {adx-mon.azure.com/owner: adx-exporter}";
        head("SummaryRule", name, owner, interval) + &format!("  table: {name}\n  body: {name} | {between}\n")
    };
    ALERTS.into_iter().map(alert).chain(EXPORTS.into_iter().map(export)).chain(SUMMARIES.into_iter().map(summary)).collect()
}

/// The windows that are done: each begins where a query began, and ends where the next one begins.
fn done(name: &str, queries: &[Query]) -> Vec<Window> {
    let starts: BTreeSet<Timestamp> = queries.iter().map(|query| query.window.start).collect();
    let starts: Vec<Timestamp> = starts.into_iter().collect();
    let windows: Vec<Window> = starts.windows(2).map(|pair| Window { start: pair[0], end: pair[1] }).collect();
    for window in &windows {
        let was_done = queries.iter().any(|query| query.window == *window && query.answered);
        assert!(was_done, "{name}: after {} it went on at {} without an answer for that window", window.start, window.end);
    }
    windows
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_of_alerter_and_exporter_lose_nothing_and_repeat_no_window() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::create_dir(path("rules")).unwrap();
    std::fs::write(path("rules/rules.yaml"), rules()).unwrap();
    let (kusto, receivers) = (Kusto::start(1).await, Receivers::start(2).await);
    let (database, otlp) = (format!("Metrics={}", kusto.url), format!("{}/v1/metrics", receivers.url));
    let mut alerter = Program::start(
        env!("CARGO_BIN_EXE_alerter-to-kill"),
        &folder.path().join("alerter.log"),
        &["--rules-dir", &path("rules"), "--data-dir", &path("alerter"), "--kusto-endpoint", &database]
            .into_iter()
            .chain(["--alerter-address", &receivers.url, "--listen-address", "127.0.0.1", "--port", "0"])
            // What comes together while it is away is sent too.
            .chain(["--max-notifications", "10000"])
            .collect::<Vec<_>>(),
    );
    let mut exporter = Program::start(
        env!("CARGO_BIN_EXE_adxexporter-to-kill"),
        &folder.path().join("exporter.log"),
        &["--rules-dir", &path("rules"), "--data-dir", &path("exporter"), "--kusto-endpoints", &database]
            .into_iter()
            .chain(["--otlp-endpoint", &otlp, "--otlp-compression", "none", "--health-probe-port", "127.0.0.1:0"])
            .collect::<Vec<_>>(),
    );
    // A rule begins with the window before its first run; from the second on, that is on record.
    kusto
        .until("every rule has begun", |state| {
            let begun = |(name, _): (&str, u64)| {
                state.queries.get(name).is_some_and(|q| q.iter().any(|query| query.window.start > q[0].window.start))
            };
            let filled = |(name, _): (&str, u64)| state.rows.contains_key(name);
            ALERTS.into_iter().chain(EXPORTS).all(begun) && SUMMARIES.into_iter().all(filled)
        })
        .await;

    let (mut first, mut second, until) = (Random::new(3), Random::new(4), Instant::now() + torment_time());
    kusto.trouble(true);
    receivers.trouble(true);
    tokio::join!(alerter.torment(&mut first, until), exporter.torment(&mut second, until));
    kusto.trouble(false);
    receivers.trouble(false);
    let end = Timestamp::now();
    // With the process ends whatever it was going to wait for because of the trouble.
    tokio::join!(alerter.kill(async {}), exporter.kill(async {}));

    kusto
        .until("every window until the end of the trouble is done", |state| {
            let asked = |(name, _): (&str, u64)| last_start(state.queries.get(name)) >= Some(end);
            let filled = |(name, interval): (&str, u64)| is_filled(&state.rows[name], interval, end);
            ALERTS.into_iter().chain(EXPORTS).all(asked) && SUMMARIES.into_iter().all(filled)
        })
        .await;
    let alerts: BTreeSet<String> = ALERTS
        .into_iter()
        .flat_map(|(name, _)| {
            let windows = done(name, &kusto.state().queries[name]);
            windows.iter().flat_map(events).map(|event| format!("ns/{name}://{event}")).collect::<Vec<_>>()
        })
        .collect();
    receivers.until("every alert has arrived", |got| alerts.iter().all(|id| got.alerts.contains_key(id))).await;

    let (state, got) = (kusto.state(), receivers.got());
    let (alerter_faults, exporter_faults) = (alerter.kills + state.faults + got.faults, exporter.kills + state.faults + got.faults);
    for (name, _) in ALERTS {
        let (queries, done) = (&state.queries[name], done(name, &state.queries[name]));
        assert!(queries.len() <= done.len() + 1 + alerter_faults, "{name}: {} queries for {} windows", queries.len(), done.len());
        eprintln!("{name}: {} windows, {} queries", done.len(), queries.len());
    }
    for (name, interval) in EXPORTS {
        assert_exported(name, interval, &state, &got, exporter_faults);
    }
    let ends: BTreeSet<u64> =
        EXPORTS.iter().flat_map(|(name, _)| &state.queries[*name]).map(|q| q.window.end.as_nanosecond() as u64).collect();
    assert!(got.points.keys().all(|(_, time)| ends.contains(time)), "a point at no window's end");
    for (name, interval) in SUMMARIES {
        let (rows, submissions) = (&state.rows[name], state.submissions[name]);
        assert_every_window_once(name, rows, Duration::from_secs(interval));
        // A kill may come before the answers to all commands of a look are on record.
        let most = rows.len() + rules::summary::machine::MAX_IN_FLIGHT * (exporter.kills + 1) + state.faults;
        assert!(submissions <= most, "{name}: {submissions} commands for {} windows", rows.len());
        eprintln!("{name}: {} windows, {submissions} commands", rows.len());
    }
    eprintln!("alerter killed {} times, exporter {} times, {} faults", alerter.kills, exporter.kills, state.faults + got.faults);
}

/// Every window of a MetricsExporter was asked for, and those before the last were exported, with the same values each time.
pub(crate) fn assert_exported(name: &str, interval: u64, state: &State, got: &Got, faults: usize) {
    let windows: BTreeSet<Window> = state.queries[name].iter().map(|query| query.window).collect();
    let windows: Vec<Window> = windows.into_iter().collect();
    assert_every_window_once(name, &windows, Duration::from_secs(interval));
    let (_, before) = windows.split_last().unwrap();
    let mut pushes = 0;
    for window in before {
        let time = u64::try_from(window.end.as_nanosecond()).unwrap();
        let expected = [("count", events(window).count() as f64), ("sum", events(window).sum::<i64>() as f64)];
        for (column, expected) in expected {
            let values = got.points.get(&(format!("{name}_{column}"), time));
            let values = values.unwrap_or_else(|| panic!("{name}: {column} of {window} was not pushed"));
            assert!(values.iter().all(|value| *value == expected), "{name}: {column} of {window} is {expected}, not {values:?}");
            pushes += values.len();
        }
    }
    assert!(pushes <= 2 * (before.len() + faults), "{name}: {pushes} points of {} windows", before.len());
    eprintln!("{name}: {} windows, {pushes} points pushed", before.len());
}

/// The end of a rule's last window that is followed by another.
pub(crate) fn last_start(queries: Option<&Vec<Query>>) -> Option<Timestamp> {
    queries?.iter().map(|query| query.window.start).max()
}

/// Whether all windows from the first to `end` are there.
pub(crate) fn is_filled(rows: &[Window], interval: u64, end: Timestamp) -> bool {
    let span = |from: &Window, to: &Window| to.end.duration_since(from.start).as_secs() as u64;
    match (rows.iter().min(), rows.iter().max()) {
        (Some(first), Some(last)) => {
            rows.len() as u64 * interval >= span(first, last) && last.end.as_second() + interval as i64 > end.as_second()
        }
        _ => false,
    }
}
