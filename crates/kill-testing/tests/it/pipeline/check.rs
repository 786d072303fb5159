//! What has to hold when all is quiet.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::senders::Sent;
use super::world::{World, eventually};
use crate::program::PATIENCE;

/// Where the rows of a request of remote write are.
pub(super) const METRIC_TABLES: [&str; 3] = ["LoadAlpha", "LoadBeta", "LoadUrgent"];

/// Rows by where they are, of one database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts(BTreeMap<String, u64>);

impl Counts {
    pub(super) fn get(&self, state: &str) -> u64 {
        self.0.get(state).copied().unwrap_or(0)
    }

    fn add(&mut self, state: &str, rows: u64) {
        *self.0.entry(state.to_owned()).or_default() += rows;
    }

    fn is_balanced(&self) -> bool {
        let states = ["forwarded", "landed", "dead_lettered", "quarantined", "dropped", "on_disk"];
        self.get("accepted") == states.iter().map(|state| self.get(state)).sum::<u64>()
    }
}

/// Ledgers by database.
pub(super) type Ledger = BTreeMap<String, Counts>;

/// What a run has come to.
pub(super) struct Figures {
    pub(super) acknowledged: usize,
    pub(super) refused: usize,
    pub(super) unanswered: usize,
    /// Rows in kustd.
    pub(super) rows: u64,
    /// Rows that are there once more.
    pub(super) doubled: u64,
    pub(super) maybe_duplicate: u64,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Figures { acknowledged, refused, unanswered, rows, doubled, maybe_duplicate } = self;
        write!(f, "{acknowledged} requests acknowledged, {refused} refused, {unanswered} with no answer; {rows} rows in kustd, ")?;
        write!(f, "{doubled} of them once more, {maybe_duplicate} counted as perhaps so")
    }
}

/// Waits until every acknowledged request is in kustd, whole, and all others whole or not at all, each once but for what is
/// counted as `maybe_duplicate`, and until nothing is on its way any more and the ledgers agree with that.
pub(super) async fn check(world: &World, sent: &Sent) -> Figures {
    let (copies, collectors, ingestors) = quiet(world, sent).await;
    let (mut rows, mut doubled, mut maybe) = (0, 0, 0);
    for database in ["Metrics", "Logs"] {
        let (collected, ingested) = (&collectors[database], &ingestors[database]);
        let stored: u64 = copies[database].values().flatten().sum();
        let extra: u64 = copies[database].values().flatten().map(|copies| copies.saturating_sub(1)).sum();
        let doubtful = collected.get("maybe_duplicate") + ingested.get("maybe_duplicate");
        assert!(extra <= doubtful, "{database}: {extra} rows are there once more, {doubtful} are counted as perhaps so");
        for counts in [collected, ingested] {
            assert!(counts.is_balanced(), "{database}: {counts:?} does not add up");
            for state in ["dead_lettered", "quarantined", "dropped"] {
                assert_eq!(counts.get(state), 0, "{database}: {counts:?}");
            }
        }
        // What one has passed on another one has taken, and what has landed is there: exactly so, if nothing is in doubt.
        let (passed_on, taken) = (collected.get("forwarded") + ingested.get("forwarded"), ingested.get("accepted"));
        assert!(passed_on <= taken && taken <= passed_on + doubtful, "{database}: {passed_on} rows passed on, {taken} taken");
        let landed = ingested.get("landed");
        assert!(stored.abs_diff(landed) <= doubtful, "{database}: {landed} rows landed, {stored} are there");
        (rows, doubled, maybe) = (rows + stored, doubled + extra, maybe + doubtful);
    }
    let Sent { acknowledged, refused, unknown } = sent;
    Figures { acknowledged: acknowledged.len(), refused: refused.len(), unanswered: unknown.len(), rows, doubled, maybe_duplicate: maybe }
}

/// Waits until everything is there and nothing is on its way, for as long as that goes on.
async fn quiet(world: &World, sent: &Sent) -> (Copies, Ledger, Ledger) {
    let (mut before, mut deadline) = (None, Instant::now() + PATIENCE);
    loop {
        let state = async {
            let (collectors, ingestors) = (collector_ledgers(world).await?, ingestor_ledgers(world).await?);
            Ok::<_, String>((copies(world).await?, collectors, ingestors))
        };
        let why = match state.await {
            Ok((copies, collectors, ingestors)) => {
                let missing = nothing_is_missing(sent, &copies);
                let on_their_way = [&collectors, &ingestors].map(on_disk);
                // Twice, since one is asked after the other.
                if missing.is_ok() && on_their_way == [0, 0] && before == Some([0, 0]) {
                    return (copies, collectors, ingestors);
                }
                if before != Some(on_their_way) {
                    (before, deadline) = (Some(on_their_way), Instant::now() + PATIENCE);
                }
                format!("{missing:?}; collectors: {collectors:?}; ingestors: {ingestors:?}")
            }
            Err(why) => why,
        };
        assert!(Instant::now() < deadline, "nothing moves any more: {why}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Rows that are on their way.
fn on_disk(ledger: &Ledger) -> u64 {
    ledger.values().map(|counts| counts.get("on_disk")).sum()
}

/// Waits until every acknowledged request is in kustd, whatever the ledgers say of it yet.
pub(super) async fn all_rows_are_there(world: &World, sent: &Sent) {
    eventually(async || nothing_is_missing(sent, &copies(world).await?)).await;
}

/// How often each of a request's rows is there, by database and number of the request.
type Copies = BTreeMap<&'static str, BTreeMap<u64, Vec<u64>>>;

async fn copies(world: &World) -> Result<Copies, String> {
    let mut copies = Copies::from([("Metrics", BTreeMap::new()), ("Logs", BTreeMap::new())]);
    let mut take = |database: &str, rows: Vec<Vec<Value>>| {
        let requests = copies.get_mut(database).unwrap();
        for row in rows {
            let numbers = (row[0].as_u64(), row[1].as_u64());
            let (Some(request), Some(count)) = numbers else { panic!("{row:?}") };
            requests.entry(request).or_insert_with(Vec::new).push(count);
        }
    };
    for table in METRIC_TABLES {
        let csl = format!("{table} | summarize n = count() by Value | project tolong(Value), n");
        take("Metrics", world.query("Metrics", &csl).await?);
    }
    let csl = "LoadLogs | summarize n = count() by text = tostring(Body.message) | extend parts = split(text, '/') \
               | project tolong(parts[0]), n";
    take("Logs", world.query("Logs", csl).await?);
    Ok(copies)
}

fn nothing_is_missing(sent: &Sent, copies: &Copies) -> Result<(), String> {
    let rows = |number: &u64| copies.values().find_map(|requests| requests.get(number)).map_or(0, Vec::len);
    let lost: Vec<_> = sent.acknowledged.iter().filter(|number| rows(number) != 3).take(10).collect();
    if !lost.is_empty() {
        return Err(format!("these requests were acknowledged and are not there, or in part: {lost:?}"));
    }
    // Those that are on their way still will be whole.
    let torn = sent.refused.iter().chain(&sent.unknown).find(|number| ![0, 3].contains(&rows(number)));
    match torn {
        Some(number) => Err(format!("request {number} is there in part")),
        None => Ok(()),
    }
}

async fn collector_ledgers(world: &World) -> Result<Ledger, String> {
    let mut all = Ledger::new();
    for node in &world.collectors {
        let text = world.get(node, "/metrics").await?;
        for line in text.lines().filter(|line| line.starts_with("adxmon_ledger_rows{")) {
            let label = |name: &str| line.split_once(&format!("{name}=\"")).and_then(|(_, rest)| rest.split_once('"')).unwrap().0;
            let rows: f64 = line.rsplit(' ').next().unwrap().parse().unwrap();
            all.entry(label("database").to_owned()).or_default().add(label("state"), rows as u64);
        }
    }
    Ok(all)
}

async fn ingestor_ledgers(world: &World) -> Result<Ledger, String> {
    let mut all = Ledger::new();
    for node in &world.ingestors {
        let report = world.get(node, "/debug/ledger?format=json").await?;
        add_report(&mut all, &serde_json::from_str(&report).unwrap());
    }
    Ok(all)
}

/// Adds a report of `/debug/ledger`.
fn add_report(all: &mut Ledger, report: &Value) {
    assert_eq!(report["balanced"], true, "{report}");
    for table in report["tables"].as_array().unwrap() {
        let counts = all.entry(table["database"].as_str().unwrap().to_owned()).or_default();
        for (state, rows) in table.as_object().unwrap() {
            if let Some(rows) = rows.as_u64() {
                counts.add(state, rows);
            }
        }
    }
}
