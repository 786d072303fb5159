//! What is known of one exporter, and what it does next: no I/O, no clock.

use std::sync::Arc;
use std::time::Duration;

use crds::MetricsExporter;
use crds::criteria::{Criteria, Decision, Wording};
use jiff::Timestamp;
use parking_lot::Mutex;
use rules::backoff::Backoff;
use rules::window::{Schedule, Window};
use tokio::task::Id;

use super::{Database, Shared};
use crate::status;
use crate::transform::Transform;

/// The pause between windows of one exporter that is behind: catching up is bounded in rate.
const CATCH_UP_PAUSE: Duration = Duration::from_secs(1);
/// The first pause after a failure; it doubles up to the interval.
const FIRST_PAUSE: Duration = Duration::from_secs(15);
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// An exporter that can run here.
pub(super) struct Ready {
    pub(super) schedule: Schedule,
    pub(super) database: Database,
    pub(super) transform: Transform,
    pub(super) criteria: Decision,
}

/// Why an exporter does not run here.
#[derive(Clone, Debug)]
pub(super) enum Unfit {
    /// It is meant for other clusters, or its expression cannot be evaluated.
    Criteria(Decision),
    /// Its spec has a mistake.
    Spec(String),
    /// This process has not its database. Whether anybody should have is told elsewhere.
    Database,
}

#[derive(Default)]
enum State {
    #[default]
    New,
    Ready(Arc<Ready>),
    /// Not reported yet.
    Unfit(Unfit),
    Reported,
}

/// What to do next.
pub(super) enum Next {
    Run { ready: Arc<Ready>, window: Window, skipped: Option<Window> },
    Report(Unfit),
    Wait(Timestamp),
    Nothing,
}

/// What is known of one exporter.
#[derive(Default)]
pub(super) struct Exporter {
    pub(super) uid: Option<String>,
    generation: Option<i64>,
    state: State,
    /// The object's status may lag behind it.
    pub(super) exported: Exported,
    /// Where the first window begins, once it was tried: what fails then is not passed over. The object says so too, soon.
    beginning: Option<Timestamp>,
    failures: u32,
    not_before: Option<Timestamp>,
    /// The task at work for it.
    pub(super) running: Option<Id>,
    /// Whether `exported` has moved since that was last asked.
    pub(super) moved: bool,
}

/// End of the last window that this process exported. A run notes it when the receiver has taken everything: it may be cut off
/// before the status says so.
#[derive(Clone, Default)]
pub(super) struct Exported(Arc<Mutex<Option<Timestamp>>>);

impl Exported {
    pub(super) fn note(&self, window: &Window) {
        *self.0.lock() = Some(window.end);
    }

    fn end(&self) -> Option<Timestamp> {
        *self.0.lock()
    }
}

impl Exporter {
    /// Takes note of the object; says whether it is new or was edited.
    pub(super) fn observe(&mut self, object: &MetricsExporter, shared: &Shared) -> bool {
        let recreated = self.uid != object.metadata.uid;
        if recreated {
            *self = Exporter { uid: object.metadata.uid.clone(), ..Exporter::default() };
        }
        let edited = recreated || self.generation != object.metadata.generation || matches!(self.state, State::New);
        if edited {
            self.generation = object.metadata.generation;
            // A new spec deserves a try at once.
            (self.failures, self.not_before) = (0, None);
            self.state = match prepare(object, shared) {
                Ok(ready) => State::Ready(Arc::new(ready)),
                Err(unfit) => State::Unfit(unfit),
            };
        }
        edited
    }

    /// What to do at `now`. A report is given out once.
    pub(super) fn next(&mut self, object: &MetricsExporter, now: Timestamp, catch_up: Duration) -> Next {
        let ready = match std::mem::take(&mut self.state) {
            State::Ready(ready) => ready,
            State::Unfit(unfit) => {
                self.state = State::Reported;
                return Next::Report(unfit);
            }
            other => {
                self.state = other;
                return Next::Nothing;
            }
        };
        self.state = State::Ready(ready.clone());
        let cursor = self.cursor(object, &ready.schedule, now);
        let oldest = ready.schedule.floor(before(now, catch_up.max(ready.schedule.interval())));
        let skipped = Some(cursor).filter(|cursor| *cursor < oldest).map(|start| Window { start, end: oldest });
        let Some(window) = ready.schedule.next(cursor.max(oldest)) else { return Next::Nothing };
        match ready.schedule.due_at(&window).max(self.not_before.unwrap_or(Timestamp::MIN)) {
            due if due <= now => {
                self.beginning.get_or_insert(cursor);
                Next::Run { ready, window, skipped }
            }
            due => Next::Wait(due),
        }
    }

    /// Schedule and cursor, for the lag.
    pub(super) fn progress(&self, object: &MetricsExporter, now: Timestamp) -> Option<(Schedule, Timestamp)> {
        let State::Ready(ready) = &self.state else { return None };
        let cursor = self.cursor(object, &ready.schedule, now);
        Some((ready.schedule, cursor))
    }

    /// The end of the last window that was exported, or where the first one begins. One further ahead than an interval was
    /// written under another time: waiting for it would silence the exporter.
    fn cursor(&self, object: &MetricsExporter, schedule: &Schedule, now: Timestamp) -> Timestamp {
        let latest = after(now, schedule.interval());
        let made = object.metadata.creation_timestamp.as_ref().map(|time| time.0);
        let known = self.exported.end().max(status::last_end(object)).or(self.beginning);
        known.filter(|cursor| *cursor <= latest).unwrap_or_else(|| schedule.first(made, now).start)
    }

    pub(super) fn succeeded(&mut self, window: Window, now: Timestamp) {
        self.exported.note(&window);
        self.failures = 0;
        self.not_before = Some(after(now, CATCH_UP_PAUSE));
        self.moved = true;
    }

    /// Somebody else may run it now. What it has exported stays known: no status may say so yet.
    pub(super) fn rest(&mut self) {
        let Exporter { uid, exported, beginning, .. } = std::mem::take(self);
        *self = Exporter { uid, exported, beginning, ..Exporter::default() };
    }

    /// The same window is tried again: after a while that doubles up to the interval, and not before the service wants it.
    /// `random` is uniform in 0..1.
    pub(super) fn failed(&mut self, now: Timestamp, asked: Option<Duration>, random: f64) {
        let interval = match &self.state {
            State::Ready(ready) => ready.schedule.interval(),
            _ => FIRST_PAUSE,
        };
        let backoff = Backoff { first: FIRST_PAUSE, longest: interval.clamp(Duration::from_secs(60), LONGEST_PAUSE) };
        self.not_before = Some(after(now, backoff.pause(self.failures, asked, random)));
        self.failures += 1;
    }
}

fn prepare(object: &MetricsExporter, shared: &Shared) -> Result<Ready, Unfit> {
    let spec = &object.spec;
    let criteria = Criteria::new(&spec.criteria, &spec.criteria_expression).decide(&shared.labels, Wording::Exporter);
    if !criteria.proceed {
        return Err(Unfit::Criteria(criteria));
    }
    spec.validate().map_err(|error| Unfit::Spec(error.to_string()))?;
    let interval = spec.interval().map_err(|error| Unfit::Spec(error.to_string()))?;
    let schedule = Schedule::new(interval, Duration::ZERO).map_err(|error| Unfit::Spec(format!("spec.interval: {error}")))?;
    let database = shared.databases.get(&spec.database).cloned().ok_or(Unfit::Database)?;
    Ok(Ready { schedule, database, transform: transform(&spec.transform, &shared.prefix), criteria })
}

fn transform(spec: &crds::Transform, prefix: &str) -> Transform {
    let set = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    let prefixes = [prefix, &spec.metric_name_prefix];
    Transform {
        metric_name_column: set(&spec.metric_name_column),
        default_metric_name: set(&spec.default_metric_name),
        metric_name_prefix: prefixes.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("_"),
        value_columns: spec.value_columns.clone(),
        timestamp_column: spec.timestamp_column.clone(),
        label_columns: spec.label_columns.clone(),
    }
}

fn after(now: Timestamp, by: Duration) -> Timestamp {
    now.saturating_add(by).unwrap_or(Timestamp::MAX)
}

fn before(now: Timestamp, by: Duration) -> Timestamp {
    now.saturating_sub(by).unwrap_or(Timestamp::MIN)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::export::Counts;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::sync::LazyLock;

    const CATCH_UP: Duration = Duration::from_secs(6 * 3600);

    #[derive(Clone, Debug)]
    enum Step {
        /// Time goes on, or the clock is set back.
        Time(i64),
        Edit(u64),
        Restart,
        /// What is due is tried: exported, or not.
        Try(bool),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0i64..4 * 3600).prop_map(Step::Time),
            1 => (0i64..3 * 86_400).prop_map(Step::Time),
            1 => (-2 * 3600i64..0).prop_map(Step::Time),
            1 => prop::sample::select(vec![30u64, 60, 420, 3600, 86_400]).prop_map(Step::Edit),
            1 => Just(Step::Restart),
            8 => prop::bool::weighted(0.8).prop_map(Step::Try),
        ]
    }

    fn ready(seconds: u64) -> State {
        let criteria = Criteria::new(&Default::default(), "").decide(&Default::default(), Wording::Exporter);
        let schedule = Schedule::new(Duration::from_secs(seconds), Duration::ZERO).unwrap();
        // Expensive to make: it reads the machine's certificates.
        static DATABASE: LazyLock<Database> = LazyLock::new(|| {
            let clients = BTreeMap::from([(String::new(), kusto::Client::new("http://localhost:1").unwrap())]);
            Database::all(clients, 1).remove("").unwrap()
        });
        State::Ready(Arc::new(Ready { schedule, database: DATABASE.clone(), transform: Transform::default(), criteria }))
    }

    proptest! {
        /// Whatever happens to process, clock and spec: windows are full ones of the past, each begins where
        /// the last exported one ended, and what is left out is named and lies before the bound.
        #[test]
        fn no_history_leaves_a_gap_or_an_overlap(start in 0i64..90_000, steps in prop::collection::vec(step(), 1..80)) {
            let mut now = Timestamp::from_second(1_700_000_000 + start).unwrap();
            let mut interval = 3600;
            let mut exporter = Exporter { state: ready(interval), ..Exporter::default() };
            let mut object = MetricsExporter::new("x", Default::default());
            let mut end: Option<Timestamp> = None;
            // Where the first window began that was tried.
            let mut beginning: Option<Timestamp> = None;
            for step in steps {
                match step {
                    Step::Time(seconds) => now += jiff::SignedDuration::from_secs(seconds),
                    Step::Restart => exporter = Exporter { state: ready(interval), ..Exporter::default() },
                    Step::Edit(seconds) => {
                        interval = seconds;
                        exporter.state = ready(interval);
                    }
                    Step::Try(works) => {
                        let Next::Run { window, skipped, .. } = exporter.next(&object, now, CATCH_UP) else { continue };
                        let length = Duration::try_from(window.end.duration_since(window.start)).unwrap();
                        prop_assert!(window.end <= now && window.start < window.end && length <= Duration::from_secs(interval));
                        // An end from a clock that was far ahead is given up.
                        let known = end.or(beginning).filter(|end| *end <= after(now, Duration::from_secs(interval)));
                        if let Some(skipped) = skipped {
                            prop_assert!(skipped.start < skipped.end && skipped.end <= before(now, CATCH_UP));
                            prop_assert_eq!((Some(skipped.start), skipped.end), (known, window.start));
                        } else if let Some(known) = known {
                            prop_assert_eq!(window.start, known);
                        }
                        beginning.get_or_insert(window.start);
                        if works {
                            status::succeeded(&mut object, None, &window, &Counts::default(), "", now);
                            exporter.succeeded(window, now);
                            end = Some(window.end);
                        } else {
                            status::tried(&mut object, &window);
                            exporter.failed(now, None, 1.0);
                        }
                    }
                }
            }
        }

        /// Whoever takes a new exporter over before its first window is on record begins where the one before did.
        #[test]
        fn a_new_exporter_begins_when_it_was_made(
            made in 0i64..90_000, first in 0i64..3600, second in 0i64..3600, interval in prop::sample::select(vec![30u64, 60, 420, 3600]),
        ) {
            let made = Timestamp::from_second(1_700_000_000 + made).unwrap();
            let mut object = MetricsExporter::new("x", Default::default());
            object.metadata.creation_timestamp = Some(crds::Time(made));
            let begins = |seconds: i64| {
                let mut exporter = Exporter { state: ready(interval), ..Exporter::default() };
                match exporter.next(&object, made + jiff::SignedDuration::from_secs(seconds), CATCH_UP) {
                    Next::Run { window, skipped: None, .. } => window,
                    _ => panic!("nothing runs {seconds} s after it was made"),
                }
            };
            let window = begins(first);
            prop_assert_eq!(window, begins(second));
            prop_assert!(window.end <= made && made < after(window.end, Duration::from_secs(interval)));
        }

        /// Windows behind the bound are not run one by one, and no two within a second.
        #[test]
        fn catching_up_is_bounded(behind in 0u64..400 * 86_400, interval in prop::sample::select(vec![30u64, 60, 3600, 86_400])) {
            let start = Timestamp::from_second(1_700_000_000).unwrap();
            let mut now = start;
            let mut exporter = Exporter { state: ready(interval), ..Exporter::default() };
            exporter.exported = Exported(Arc::new(Mutex::new(Some(before(now, Duration::from_secs(behind))))));
            let object = MetricsExporter::new("x", Default::default());
            let mut runs = 0;
            loop {
                match exporter.next(&object, now, CATCH_UP) {
                    Next::Run { window, .. } => {
                        runs += 1;
                        exporter.succeeded(window, now);
                    }
                    Next::Wait(until) if until <= after(now, CATCH_UP_PAUSE) => now = until,
                    _ => break,
                }
            }
            // Windows become due while others are caught up with.
            let span = CATCH_UP.max(Duration::from_secs(interval)) + Duration::try_from(now.duration_since(start)).unwrap();
            prop_assert!(runs <= span.as_secs().div_ceil(interval) + 1, "{} runs in {:?}", runs, span);
            prop_assert!(span - CATCH_UP >= CATCH_UP_PAUSE * u32::try_from(runs.saturating_sub(1)).unwrap() || runs <= 1);
        }
    }
}
