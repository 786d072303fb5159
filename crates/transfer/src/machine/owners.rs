//! Segments with an endpoint of their own, case by case.

#![allow(clippy::unwrap_used)]

use super::*;

const A: [u8; 16] = [1; 16];
const PIN_MS: u64 = 600_000;
const START: u64 = 1_000_000;

fn config() -> Config {
    Config {
        endpoints: Vec::new(),
        max_batch_bytes: 300,
        max_batch_segments: 4,
        concurrency: 10,
        endpoint_concurrency: 1,
        pin_ms: PIN_MS,
        unhealthy_ms: 60_000,
    }
}

fn key(number: u64) -> Key {
    Key { database: "D".into(), number }
}

fn to(number: u64, endpoint: &str) -> Offer {
    Offer { key: key(number), bytes: 100, route: Route::To { endpoint: endpoint.into(), until: START + 2 * PIN_MS } }
}

/// A machine with the endpoints `a` and `b`, which are found to be ours.
struct Sending {
    machine: Machine,
    record: Option<Vec<u8>>,
    released: Vec<Release>,
}

impl Sending {
    fn new() -> Sending {
        let mut machine = Machine::new(config(), None, START);
        machine.set_endpoints([("a", "http://a"), ("b", "http://b")]);
        Sending { machine, record: None, released: Vec::new() }
    }

    /// The next request, if there is one.
    fn next(&mut self, now: u64) -> Option<Job> {
        loop {
            match self.machine.next(now) {
                Step::Send(job) => return Some(job),
                Step::Wait(_) => return None,
                Step::Release(releases) => self.released.extend(releases),
                Step::Probe { endpoint } => self.machine.probed(endpoint, Some(Contract::Ours { receiver: A }), now),
                Step::Record(bytes) => {
                    self.record = Some(bytes);
                    self.machine.recorded(true);
                }
            }
        }
    }

    fn reasons(&self) -> Vec<(u64, &'static str, bool)> {
        self.released.iter().map(|r| (r.key.number, r.reason, r.maybe_duplicate)).collect()
    }
}

const STORED: Answer = Answer::Stored { refused: Vec::new() };

#[test]
fn each_goes_to_its_own_and_nowhere_else() {
    let mut sending = Sending::new();
    sending.machine.offer([to(1, "a"), to(2, "b"), to(3, "a")]);
    let jobs = [sending.next(START).unwrap(), sending.next(START).unwrap()];
    let sent: Vec<_> = jobs.iter().map(|j| (sending.machine.url(j.endpoint), j.segments.iter().map(|k| k.number).collect())).collect();
    assert_eq!(sent, [("http://a", vec![1, 3]), ("http://b", vec![2])]);
    for job in jobs {
        assert!(sending.machine.answered(job.ticket, STORED, START).iter().all(|s| s.dead.is_none() && !s.maybe_duplicate));
    }
    assert!(sending.released.is_empty());
}

#[test]
fn what_an_endpoint_does_not_take_is_released_at_once_and_without_doubt() {
    for (answer, reason) in [
        (Answer::Unavailable { retry_after_ms: None }, "its owner is unhealthy"),
        (Answer::DatabaseBusy { retry_after_ms: Some(5000) }, "its owner has no room for the database"),
        (Answer::Unacceptable { reason: "x".to_owned() }, "refused"),
        (Answer::Stored { refused: vec![(0, "no such database".to_owned())] }, "refused"),
        (Answer::Unreadable { segments: vec![(0, "x".to_owned())] }, "unreadable"),
    ] {
        let mut sending = Sending::new();
        sending.machine.offer([to(1, "a")]);
        let job = sending.next(START).unwrap();
        assert!(sending.machine.answered(job.ticket, answer, START).is_empty(), "{reason}: nothing dies of a peer");
        assert_eq!(sending.next(START), None);
        assert_eq!(sending.reasons(), [(1, reason, false)]);
        assert_eq!(sending.machine.pending(), 0);
    }
}

#[test]
fn an_unhealthy_endpoint_gets_nothing_for_a_minute_and_longer_if_it_says_so() {
    for (retry_after_ms, minutes) in [(None, 1), (Some(180_000), 3)] {
        let mut sending = Sending::new();
        sending.machine.offer([to(1, "a")]);
        let job = sending.next(START).unwrap();
        sending.machine.answered(job.ticket, Answer::Unavailable { retry_after_ms }, START);
        let well = START + minutes * 60_000;
        sending.machine.offer([to(2, "a"), to(3, "b")]);
        assert_eq!(sending.next(well - 1).unwrap().segments, [key(3)], "the other one is not its concern");
        assert_eq!(sending.reasons().iter().map(|r| r.0).collect::<Vec<_>>(), [1, 2]);
        sending.machine.offer([to(4, "a")]);
        assert_eq!(sending.next(well).unwrap().segments, [key(4)]);
    }
}

#[test]
fn one_without_room_for_a_database_takes_another_one() {
    let mut sending = Sending::new();
    sending.machine.offer([to(1, "a")]);
    let job = sending.next(START).unwrap();
    sending.machine.answered(job.ticket, Answer::DatabaseBusy { retry_after_ms: Some(5000) }, START);
    let other = Offer { key: Key { database: "E".into(), number: 1 }, ..to(1, "a") };
    sending.machine.offer([to(2, "a"), other.clone()]);
    assert_eq!(sending.next(START + 4999).unwrap().segments, [other.key]);
    assert_eq!(sending.reasons().iter().map(|r| r.0).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn a_lost_answer_keeps_a_segment_until_its_time_is_over_and_a_restart_knows() {
    let mut sending = Sending::new();
    sending.machine.offer([to(1, "a")]);
    let job = sending.next(START).unwrap();
    sending.machine.answered(job.ticket, Answer::Unknown, START);
    // Its owner goes. Others must not have the segment, nor may it be uploaded.
    sending.machine.set_endpoints([("b", "http://b")]);
    assert_eq!(sending.next(START + PIN_MS - 1), None);
    assert_eq!(sending.reasons(), []);
    // A process that starts anew waits for its owner, whatever is said of the segment now.
    let mut again = Sending { machine: Machine::new(config(), sending.record.as_deref(), START), record: None, released: Vec::new() };
    again.machine.set_endpoints([("b", "http://b")]);
    again.machine.offer([Offer { route: Route::Keep("its table is ours"), ..to(1, "a") }]);
    assert_eq!((again.next(START + 1), again.reasons()), (None, vec![]));
    // It comes back at another address, and is asked there.
    again.machine.set_endpoints([("a", "http://new")]);
    let job = again.next(START + 2).unwrap();
    assert_eq!((again.machine.url(job.endpoint), job.receiver, &job.segments[..]), ("http://new", Some(A), &[key(1)][..]));
    assert!(!again.machine.answered(job.ticket, STORED, START + 2)[0].maybe_duplicate);
    // In the process that goes on it does not come back.
    let before = sending.record.clone();
    assert_eq!(sending.next(START + PIN_MS), None);
    assert_eq!(sending.reasons(), [(1, "its owner is gone", true)]);
    assert_ne!(sending.record, before, "the doubt is on record");
}

#[test]
fn the_doubt_about_a_released_segment_outlives_the_process() {
    let mut sending = Sending::new();
    sending.machine.offer([to(1, "a"), to(2, "b")]);
    for _ in 0..2 {
        let job = sending.next(START).unwrap();
        sending.machine.answered(job.ticket, Answer::Unknown, START);
    }
    sending.machine.set_endpoints([]);
    assert_eq!(sending.next(START + PIN_MS), None);
    assert_eq!(sending.released.len(), 2);
    // Further records keep it.
    sending.machine.set_endpoints([("a", "http://a")]);
    sending.machine.settled([&key(2)]);
    sending.machine.offer([to(3, "a")]);
    sending.next(START + PIN_MS).unwrap();
    for route in [Route::Released, Route::Keep("its table is ours")] {
        let record = sending.record.as_deref();
        let mut again = Sending { machine: Machine::new(config(), record, START + PIN_MS), record: None, released: Vec::new() };
        again.machine.offer([Offer { route: route.clone(), ..to(1, "a") }, Offer { route, ..to(4, "a") }]);
        assert_eq!(again.next(START + PIN_MS), None);
        assert_eq!(again.released.iter().map(|r| (r.key.number, r.maybe_duplicate)).collect::<Vec<_>>(), [(1, true), (4, false)]);
    }
}

#[test]
fn the_references_ingestor_may_have_what_it_did_not_answer() {
    let mut machine = Machine::new(config(), None, START);
    machine.set_endpoints([("a", "http://a")]);
    machine.offer([to(1, "a")]);
    let Step::Probe { endpoint } = machine.next(START) else { panic!() };
    machine.probed(endpoint, Some(Contract::Reference), START);
    let Step::Record(_) = machine.next(START) else { panic!() };
    machine.recorded(true);
    let Step::Send(job) = machine.next(START) else { panic!() };
    machine.answered(job.ticket, Answer::Unknown, START);
    // Nobody there remembers, so asking again would make it worse.
    let Step::Record(_) = machine.next(START) else { panic!() };
    machine.recorded(true);
    let Step::Release(releases) = machine.next(START) else { panic!() };
    assert_eq!(releases.iter().map(|r| r.maybe_duplicate).collect::<Vec<_>>(), [true]);
}

#[test]
fn what_waits_for_a_slow_endpoint_is_released_when_it_is_old() {
    let mut sending = Sending::new();
    sending.machine.offer([to(1, "a")]);
    let job = sending.next(START).unwrap();
    let route = Route::To { endpoint: "a".into(), until: START + 1000 };
    sending.machine.offer([Offer { route, ..to(2, "a") }]);
    assert_eq!(sending.machine.next(START), Step::Wait(Some(START + 1000)), "one request at a time to each");
    assert_eq!(sending.next(START + 1000), None);
    assert_eq!(sending.reasons(), [(2, "it waited too long", false)]);
    assert_eq!(sending.machine.answered(job.ticket, STORED, START + 1000).len(), 1);
}

#[test]
fn databases_do_not_undo_each_others_records() {
    let mut sending = Sending::new();
    let other = Offer { key: Key { database: "E".into(), number: 1 }, ..to(1, "b") };
    sending.machine.offer([to(1, "a"), other]);
    let mut sent = 0;
    for _ in 0..10 {
        match sending.machine.next(START) {
            Step::Probe { endpoint } => sending.machine.probed(endpoint, Some(Contract::Ours { receiver: A }), START),
            Step::Record(_) => sending.machine.recorded(true),
            Step::Send(_) => sent += 1,
            step => assert_eq!((step, sent), (Step::Wait(None), 2)),
        }
    }
    assert_eq!(sent, 2);
}
