//! Any history of outages, failures, edits, clock jumps, restarts and stale copies.

use std::time::Duration;

use proptest::prelude::*;

use crds::SummaryRule;
use jiff::Timestamp;

use crate::summary::bench::{Bench, End, Mood};
use crate::summary::machine::{MAX_FAILED, MAX_IN_FLIGHT, WINDOWS_PER_MINUTE};
use crate::summary::state::HEALTH;
use crate::testing::at;
use crate::window::{Window, after};

#[derive(Debug, Clone)]
enum Step {
    /// Time passes, and the rule is looked at.
    Pass(u64),
    /// The clock is set.
    Jump(i64),
    Mood(Mood),
    /// An operation that runs ends like this.
    End(End),
    EndAll(End),
    /// Interval and delay in seconds.
    Edit(u64, u64),
    Suspend(bool),
    /// Time passes, and the process dies after so many half-actions of the next look. The rule may be edited before the
    /// process is back: interval and delay in seconds.
    Die(u64, usize, Option<(u64, u64)>),
    /// The process is started anew.
    Restart,
    /// The process sees the rule as it was before the last look.
    Stale,
}

fn end() -> impl Strategy<Value = End> {
    prop_oneof![
        4 => Just(End::Completes),
        1 => Just(End::FailsForGood),
        1 => Just(End::Fails),
        1 => Just(End::Throttled),
        1 => Just(End::Forgotten),
        1 => Just(End::CompletesAndIsForgotten),
        1 => Just(End::Runs),
    ]
}

fn mood() -> impl Strategy<Value = Mood> {
    prop_oneof![3 => Just(Mood::Takes), 1 => Just(Mood::Away), 1 => Just(Mood::Refuses), 1 => Just(Mood::LosesAnswer)]
}

fn interval() -> impl Strategy<Value = u64> {
    prop_oneof![Just(60u64), Just(300), Just(420), Just(900), Just(3600), 60..4000u64]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (1u64..8000).prop_map(Step::Pass),
        4 => (1u64..90).prop_map(Step::Pass),
        1 => (-20_000i64..20_000).prop_map(Step::Jump),
        2 => mood().prop_map(Step::Mood),
        4 => end().prop_map(Step::End),
        3 => end().prop_map(Step::EndAll),
        1 => (interval(), 0u64..2000).prop_map(|(i, d)| Step::Edit(i, d)),
        1 => any::<bool>().prop_map(Step::Suspend),
        3 => (0u64..8000, 0usize..30, prop::option::of((interval(), 0u64..2000))).prop_map(|(p, a, e)| Step::Die(p, a, e)),
        1 => Just(Step::Restart),
        1 => Just(Step::Stale),
    ]
}

struct History {
    bench: Bench,
    /// The latest that the clock has shown.
    latest: Timestamp,
    old: SummaryRule,
    /// Windows in the order of their first submission.
    first_submissions: Vec<Window>,
    seen: usize,
    /// How many times the process was started.
    lives: usize,
    /// Submissions of this life.
    this_life: Vec<Timestamp>,
}

impl History {
    fn run(&mut self, step: Step) -> Result<(), TestCaseError> {
        let bench = &mut self.bench;
        match step {
            Step::Pass(seconds) => bench.now = after(bench.now, Duration::from_secs(seconds)),
            Step::Jump(seconds) => bench.now = Timestamp::from_second(bench.now.as_second() + seconds).unwrap(),
            Step::Mood(mood) => bench.kusto.mood = mood,
            Step::End(end) => {
                if let Some(id) = bench.kusto.running().first() {
                    bench.kusto.end(id, end);
                }
            }
            Step::EndAll(end) => bench.kusto.running().iter().for_each(|id| bench.kusto.end(id, end)),
            Step::Edit(interval, delay) => bench.edit(|spec| {
                spec.interval = Duration::from_secs(interval).into();
                spec.ingestion_delay = Duration::from_secs(delay).into();
            }),
            Step::Suspend(suspend) => bench.edit(|spec| spec.suspend = suspend),
            Step::Die(seconds, actions, edit) => {
                bench.now = after(bench.now, Duration::from_secs(seconds));
                bench.dies_after = Some(actions);
                self.latest = self.latest.max(self.bench.now);
                self.drive()?;
                self.bench.dies_after = None;
                if let Some((interval, delay)) = edit {
                    self.run(Step::Edit(interval, delay))?;
                }
            }
            Step::Restart => {
                bench.machine = None;
                self.lives += 1;
            }
            Step::Stale => bench.sees = Some(self.old.clone()),
        }
        self.latest = self.latest.max(self.bench.now);
        self.drive()?;
        Ok(())
    }

    fn drive(&mut self) -> Result<Option<Timestamp>, TestCaseError> {
        self.old = self.bench.rule.clone();
        let lived = self.bench.machine.is_some();
        let wake = self.bench.drive();
        if wake.is_none() {
            self.lives += 1;
        }
        let new = &self.bench.kusto.submitted[self.seen..];
        if !lived || self.this_life.last().is_some_and(|last| *last > self.bench.now) {
            // The bound is kept in memory; over a restart, and a clock that is set back, that of windows on their way holds.
            self.this_life.clear();
            prop_assert!(new.len() <= WINDOWS_PER_MINUTE.max(MAX_IN_FLIGHT));
        }
        self.this_life.extend(new.iter().filter(|s| s.id.is_some()).map(|s| s.at));
        if let Some(machine) = &self.bench.machine {
            let within_minute = self.this_life.iter().filter(|at| after(**at, Duration::from_secs(60)) > self.bench.now).count();
            prop_assert!(new.is_empty() || within_minute <= machine.windows_per_minute(), "{within_minute} windows within a minute");
        }
        for submitted in new {
            let window = submitted.window;
            prop_assert!(window.start < window.end && window.end <= self.latest, "{window} at {}", self.latest);
            if !self.first_submissions.contains(&window) {
                self.first_submissions.push(window);
            }
        }
        self.seen = self.bench.kusto.submitted.len();
        self.check()?;
        Ok(wake)
    }

    /// What holds at any time.
    fn check(&self) -> Result<(), TestCaseError> {
        let mut rows = self.bench.kusto.rows.clone();
        rows.sort();
        for pair in rows.windows(2) {
            prop_assert!(pair[0].end <= pair[1].start, "{} and {} are both in the table", pair[0], pair[1]);
        }
        let state = self.bench.state();
        prop_assert!(state.operations.0.len() <= MAX_IN_FLIGHT && state.failed.len() <= MAX_FAILED + MAX_IN_FLIGHT);
        // From the first window to the cursor, everything is in the table or on record.
        let Some(cursor) = state.cursor else { return Ok(()) };
        let mut known: Vec<Window> = rows.into_iter().chain(state.taken()).collect();
        known.sort();
        known.dedup();
        for pair in known.windows(2) {
            prop_assert_eq!(pair[0].end, pair[1].start, "a gap");
        }
        prop_assert_eq!(known.last().map(|w| w.end), Some(cursor));
        Ok(())
    }

    /// Nothing is submitted again without a reason.
    fn no_idle_repetition(&self) -> Result<(), TestCaseError> {
        for window in &self.first_submissions {
            let sent = self.bench.kusto.submitted.iter().filter(|s| s.window == *window).count();
            let reasons = self.bench.kusto.reasons.get(window).copied().unwrap_or(0);
            // Each death may have hidden one answer.
            prop_assert!(sent <= 1 + reasons + self.lives, "{window} was sent {sent} times, for {reasons} reasons");
        }
        Ok(())
    }

    /// Everything works again, until all is done.
    fn heal(&mut self) -> Result<(), TestCaseError> {
        self.bench.now = self.latest;
        self.bench.dies_after = None;
        self.bench.kusto.mood = Mood::Takes;
        // An edit has failed windows tried again.
        self.bench.edit(|spec| spec.suspend = false);
        for _ in 0..5000 {
            self.bench.kusto.running().iter().for_each(|id| self.bench.kusto.end(id, End::Completes));
            let wake = self.drive()?.expect("nobody dies any more");
            let state = self.bench.state();
            if state.operations.0.is_empty() && state.failed.is_empty() && state.backlog == 0 {
                return Ok(());
            }
            prop_assert!(wake > self.bench.now);
            self.bench.now = wake;
            self.latest = self.latest.max(wake);
        }
        prop_assert!(false, "never done: {:?}", self.bench.state());
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    /// Every window is run exactly once, in order, none before its time and none in a burst; and when everything works
    /// again, nothing is left over.
    #[test]
    fn every_window_runs_exactly_once(steps in prop::collection::vec(step(), 1..60)) {
        let bench = Bench::new("5m", "", at("2024-01-01T10:17:23Z"));
        let mut history = History { latest: bench.now, old: bench.rule.clone(), bench, first_submissions: Vec::new(), seen: 0, lives: 1, this_life: Vec::new() };
        history.drive()?;
        for step in steps {
            history.run(step)?;
        }
        history.heal()?;

        let mut rows = history.bench.kusto.rows.clone();
        rows.sort();
        prop_assert!(!rows.is_empty());
        prop_assert!(history.first_submissions.is_sorted(), "out of order: {:?}", history.first_submissions);
        prop_assert_eq!(&rows, &history.first_submissions, "what was begun is in the table, once, and nothing else is");
        prop_assert_eq!(rows.last().map(|w| w.end), history.bench.state().cursor);
        let (status, _, _) = history.bench.condition(HEALTH).unwrap();
        prop_assert_eq!(status, "True");

        history.no_idle_repetition()?;

        // Nothing is written while nothing happens.
        let saves = history.bench.saves;
        for _ in 0..5 {
            history.drive()?;
        }
        prop_assert_eq!(history.bench.saves, saves);
    }

    /// Whoever comes to run a new rule, and when: it begins with the window that was the latest to be due when it was made.
    #[test]
    fn a_rule_that_is_first_seen_later_than_it_was_made_begins_when_it_was_made(
        made in 1_700_000_000i64..1_700_090_000, later in 0i64..=3600, interval in prop::sample::select(vec![60i64, 300, 3600]), delay in 0i64..2000,
    ) {
        let seconds = |seconds: i64| Timestamp::from_second(seconds).unwrap();
        let mut bench = Bench::new(&format!("{interval}s"), &format!("{delay}s"), seconds(made));
        bench.now = seconds(made + later);
        bench.drive();
        // These intervals divide a day, so that windows end at multiples of them.
        let end = (made - delay) / interval * interval;
        let first = bench.kusto.submitted.first().map(|submitted| submitted.window);
        prop_assert_eq!(first, Some(Window { start: seconds(end - interval), end: seconds(end) }));
    }
}

/// One that nobody has run for longer begins with the latest window that is due.
#[test]
fn a_rule_that_nobody_ran_for_long_begins_now() {
    for (interval, later, end) in
        [("5m", "11:17:23", "10:15:00"), ("5m", "11:17:24", "11:15:00"), ("30m", "11:47:23", "10:00:00"), ("30m", "11:47:24", "11:30:00")]
    {
        let time = |text: &str| at(&format!("2024-01-01T{text}Z"));
        let mut bench = Bench::new(interval, "", time("10:17:23"));
        bench.now = time(later);
        bench.drive();
        assert_eq!(bench.kusto.submitted[0].window.end, time(end), "every {interval}, at {later}");
    }
}
