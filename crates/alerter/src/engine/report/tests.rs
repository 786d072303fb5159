#![allow(clippy::unwrap_used)]

use crds::criteria::{Criteria, Wording};
use rules::clock::ManualClock;
use rules::store::memory::MemoryStore;
use rules::window::Window;

use super::*;

fn reporter(folder: &tempfile::TempDir) -> (watch::Sender<bool>, Reporter) {
    let (leads, leading) = watch::channel(false);
    let mut rule = AlertRule::new("r", crds::AlertRuleSpec::default());
    rule.metadata.namespace = Some("n".to_owned());
    let reporter = Reporter {
        store: Arc::new(MemoryStore::new([rule])),
        clock: Arc::new(ManualClock::new(Timestamp::UNIX_EPOCH)),
        state: State::open(folder.path()).unwrap(),
        metrics: Metrics::register(&mut prometheus_client::registry::Registry::default(), "r"),
        leading,
        reports: mpsc::channel(1).1,
        progress: mpsc::channel(1).1,
    };
    (leads, reporter)
}

#[tokio::test]
async fn an_edit_that_changes_nothing_else_moves_the_observed_generation() {
    let folder = tempfile::tempdir().unwrap();
    let (leads, reporter) = reporter(&folder);
    leads.send_replace(true);
    let (mut book, key) = (Book::default(), Key::new("n", "r"));
    let gate = Criteria::new(&Default::default(), "").decide(&Default::default(), Wording::Alerter);
    let soon = Timestamp::UNIX_EPOCH + SETTLE;
    for generation in [7, 8] {
        let seen = Report::Seen { key: key.clone(), generation: Some(generation), gate: gate.clone(), invalid: None };
        reporter.note(&mut book, seen);
        assert_eq!(book.due.get(&key), Some(soon));
        reporter.start_writes(&mut book, soon);
        let done = book.writes.join_next_with_id().await.unwrap();
        reporter.ended(&mut book, done);
        let conditions = reporter.store.objects().get(&key).unwrap().status.clone().unwrap().conditions;
        assert_eq!(conditions::get(&conditions, "Criteria").unwrap().observed_generation, Some(generation));
    }
}

fn skipped(second: i64) -> Report {
    let at = |second| Timestamp::from_second(second).unwrap();
    Report::Skipped(Key::new("n", "r"), Window { start: at(second), end: at(second + 1) })
}

#[tokio::test]
async fn nothing_gathers_while_another_leads_and_little_while_a_write_runs() {
    let folder = tempfile::tempdir().unwrap();
    let (leads, reporter) = reporter(&folder);
    let mut book = Book::default();
    (0..100).for_each(|second| reporter.note(&mut book, skipped(second)));
    assert!(book.lines.is_empty() && book.due.next().is_none());
    leads.send_replace(true);
    (0..100).for_each(|second| reporter.note(&mut book, skipped(second)));
    let events = &book.lines[&Key::new("n", "r")].events;
    assert_eq!(events.len(), MAX_EVENTS);
    // The newest are kept.
    assert!(
        events[MAX_EVENTS - 1]
            .note
            .contains(&Window { start: Timestamp::from_second(99).unwrap(), end: Timestamp::from_second(100).unwrap() }.to_string())
    );
}

#[tokio::test]
async fn a_notification_that_is_given_up_is_told_by_status_and_event() {
    let folder = tempfile::tempdir().unwrap();
    let (leads, reporter) = reporter(&folder);
    leads.send_replace(true);
    let (mut book, key) = (Book::default(), Key::new("n", "r"));
    reporter.note(&mut book, skipped(0));
    let delivered = async |book: &mut Book, error: Option<&str>, given_up: Option<&str>| {
        let (error, given_up) = (error.map(str::to_owned), given_up.map(str::to_owned));
        reporter.delivered(book, Progress { rule: "n/r".into(), error, given_up }).await;
        let events: Vec<String> = book.lines[&key].events.iter().map(|event| event.reason.clone()).collect();
        let soon = Timestamp::UNIX_EPOCH + SETTLE;
        reporter.start_writes(book, soon);
        let done = book.writes.join_next_with_id().await.unwrap();
        reporter.ended(book, done);
        let conditions = reporter.store.objects().get(&key).unwrap().status.clone().unwrap().conditions;
        let said = conditions::get(&conditions, DELIVERED).unwrap();
        (said.reason.clone(), said.message.clone(), events)
    };
    let refused = Some("it answered 400");
    let (reason, message, events) = delivered(&mut book, refused, None).await;
    assert!(reason == "TargetFails" && message.contains("sent again until they are taken: it answered 400"), "{message}");
    assert_eq!(events, ["WindowSkipped"]);
    // The end of trouble that cost nothing is no event.
    let (reason, _, events) = delivered(&mut book, None, None).await;
    assert_eq!((reason.as_str(), events), ("AllTaken", vec![]));
    let (reason, message, events) = delivered(&mut book, refused, Some("Disk full")).await;
    assert_eq!(message, "nobody was told of \"Disk full\", which is not sent again: it answered 400");
    assert_eq!((reason.as_str(), events), ("NotificationGivenUp", vec!["NotificationGivenUp".to_owned()]));
    // Whoever leads next knows it of the status.
    book.forget();
    reporter.note(&mut book, skipped(1));
    let (reason, _, _) = delivered(&mut book, refused, None).await;
    assert_eq!(reason, "TargetFails");
    let (reason, _, events) = delivered(&mut book, None, None).await;
    assert_eq!((reason.as_str(), events), ("AllTaken", vec!["AllTaken".to_owned()]));
}

#[tokio::test]
async fn a_write_that_panics_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let (leads, reporter) = reporter(&folder);
    leads.send_replace(true);
    let (mut book, key) = (Book::default(), Key::new("n", "r"));
    reporter.note(&mut book, skipped(0));
    book.lines.get_mut(&key).unwrap().writing = true;
    let task = book.writes.spawn(async { panic!("on purpose") });
    book.writing.insert(task.id(), key.clone());
    let done = book.writes.join_next_with_id().await.unwrap();
    reporter.ended(&mut book, done);
    assert_eq!((book.lines[&key].writing, book.due.get(&key)), (false, Some(Timestamp::UNIX_EPOCH + RETRY)));
}
