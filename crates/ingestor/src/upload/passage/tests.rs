use proptest::prelude::*;
use serde_json::json;

use super::*;

fn options() -> QueueOptions {
    QueueOptions::default()
}

const SMALL: u64 = 1000;
/// From this on batches carry tags.
const LARGE: u64 = 100_000_000;
const DAY: u64 = 24 * 3600 * 1000;

/// A batch whose blob is there and recorded.
fn uploaded(csv_bytes: u64) -> Passage {
    let mut passage = Passage::new(Way::Queued, options(), 0);
    assert_eq!(passage.next(0), Next::Record);
    passage.recorded();
    assert_eq!(passage.next(0), Next::Upload);
    passage.uploaded(json!("blob"), csv_bytes, 0);
    assert_eq!(passage.next(0), Next::Record);
    passage.recorded();
    passage
}

/// A batch that is in the queue.
fn queued(csv_bytes: u64) -> Passage {
    let mut passage = uploaded(csv_bytes);
    assert_eq!(passage.next(0), Next::Enqueue);
    passage.enqueued(json!("receipt"), 0);
    assert_eq!(passage.next(0), Next::Record);
    assert!(!passage.is_followed());
    passage.recorded();
    assert!(passage.is_followed());
    passage
}

/// As after a crash: only what was recorded is left.
fn restarted(passage: &Passage) -> Passage {
    let (state, detail) = passage.record();
    Passage::resume(state, Progress::decode(&detail).unwrap(), options())
}

fn pending() -> Option<Status> {
    Some(Status::Pending("Pending".to_owned()))
}

fn failed(permanent: bool, code: &str) -> Option<Status> {
    Some(Status::Failed { permanent, code: code.to_owned(), details: "why".to_owned() })
}

#[test]
fn a_status_is_asked_for_with_growing_pauses() {
    let mut passage = queued(SMALL);
    let (mut now, mut pauses) = (0, Vec::new());
    for _ in 0..8 {
        let Next::Wait(until) = passage.next(now) else { panic!() };
        pauses.push((until - now) / 1000);
        now = until;
        assert_eq!(passage.next(now), Next::Ask);
        passage.heard(pending(), now);
    }
    assert_eq!(pauses, [15, 30, 60, 120, 240, 300, 300, 300]);
}

#[test]
fn only_succeeded_is_success() {
    for (status, expected) in [
        (Some(Status::Succeeded), Some(Over::Landed)),
        (pending(), None),
        (None, None),
        (failed(true, "Stream_WrongNumberOfFields"), Some(Over::Refused("Stream_WrongNumberOfFields: why".to_owned()))),
    ] {
        let mut passage = queued(SMALL);
        passage.heard(status, 20_000);
        match (passage.next(20_000), expected) {
            (Next::Over(over), Some(expected)) => assert_eq!(over, expected),
            (Next::Wait(_), None) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_tag_that_is_there_is_success_and_nothing_to_ingest_is_not() {
    let end = |csv_bytes, status| {
        let mut passage = queued(csv_bytes);
        passage.heard(Some(status), 20_000);
        passage.next(20_000)
    };
    assert_eq!(end(LARGE, Status::AlreadyIngested { whole: true }), Next::Over(Over::Landed));
    // Without a tag of its own it can be no batch of ours that is there.
    for whole in [false, true] {
        assert!(matches!(end(LARGE - 1, Status::AlreadyIngested { whole }), Next::Over(Over::GivenUp { partly: false, .. })));
    }
    for csv_bytes in [SMALL, LARGE] {
        let Next::Over(Over::GivenUp { reason, partly }) = end(csv_bytes, Status::Skipped("no data".to_owned())) else { panic!() };
        assert!(reason.contains("no data"));
        assert_eq!(partly, csv_bytes == LARGE);
    }
}

#[test]
fn a_tag_without_a_word_of_who_brought_it_is_success_in_the_end() {
    let mut passage = queued(LARGE);
    passage.heard(Some(Status::AlreadyIngested { whole: false }), 20_000);
    let Next::Wait(until) = passage.next(20_000) else { panic!() };
    assert_eq!(passage.next(until), Next::Ask);
    assert_eq!(passage.next(900_000), Next::Over(Over::Landed));
    passage = queued(LARGE);
    passage.heard(Some(Status::AlreadyIngested { whole: false }), 20_000);
    passage.heard(Some(Status::PartiallySucceeded("half".to_owned())), 80_000);
    assert!(matches!(passage.next(900_000), Next::Over(Over::GivenUp { partly: true, .. })));
}

#[test]
fn a_part_is_not_success() {
    let mut passage = queued(SMALL);
    passage.heard(Some(Status::PartiallySucceeded("half".to_owned())), 20_000);
    assert!(matches!(passage.next(20_000), Next::Over(Over::GivenUp { partly: true, reason }) if reason.contains("half")));
}

#[test]
fn what_failed_for_now_is_uploaded_again_and_that_is_recorded_first() {
    // Also what the service calls permanent, where it is not the rows that are wrong.
    for (permanent, code) in [(false, "General_InternalServerError"), (true, "BadRequest_TableNotExist"), (true, "Download_SourceNotFound")]
    {
        let mut passage = queued(SMALL);
        let mut pauses = Vec::new();
        for round in 0..3 {
            let now = round * 1_000_000 + 20_000;
            passage.heard(failed(permanent, code), now);
            assert_eq!(passage.next(now), Next::Record);
            assert_eq!(passage.record().0, BatchState::Retry);
            assert_eq!(restarted(&passage).next(now), Next::Upload, "{code}");
            passage.recorded();
            let Next::Over(Over::Later(pause)) = passage.next(now) else { panic!("{code}") };
            pauses.push(pause.as_secs());
            passage.again();
            assert_eq!(passage.next(now), Next::Upload);
            passage.uploaded(json!("blob"), SMALL, now);
            passage.recorded();
            assert_eq!(passage.next(now), Next::Enqueue);
            passage.enqueued(json!("receipt"), now);
            passage.recorded();
        }
        assert_eq!(pauses, [15, 30, 60]);
        assert!(!passage.progress().maybe_duplicate);
    }
}

#[test]
fn a_crash_between_queueing_and_its_record_is_met_by_tag_or_by_patience() {
    // Queued again at once: the tag makes it one.
    let mut tagged = restarted(&uploaded(LARGE));
    assert_eq!(tagged.next(1), Next::Enqueue);
    assert!(!tagged.progress().maybe_duplicate);
    // Not before three batching times without a move, counted, and not without having seen the status.
    let mut lost = uploaded(SMALL);
    lost.next(0);
    lost.perhaps_enqueued(json!("receipt"), 1000);
    assert_eq!(lost.next(1000), Next::Record);
    lost.recorded();
    let mut small = restarted(&lost);
    assert!(small.is_followed());
    assert_eq!(small.next(9_000_000), Next::Ask);
    small.heard(pending(), 10_000_000);
    assert!(!matches!(small.next(10_000_000 + 899_999), Next::Record | Next::Enqueue));
    assert_eq!(small.next(10_000_000 + 900_000), Next::Record);
    assert!(small.progress().maybe_duplicate);
    // The decision is durable, so that another crash does not wait again.
    assert_eq!(restarted(&small).next(0), Next::Enqueue);
    small.recorded();
    assert_eq!(small.next(10_900_000), Next::Enqueue);
}

/// Where the receipt was lost in the crash there is no status to ask for: time alone decides.
#[test]
fn a_message_without_a_receipt_is_sent_again_after_three_batching_times() {
    let mut small = restarted(&uploaded(SMALL));
    assert!(small.is_followed());
    assert_eq!(small.next(1000), Next::Wait(900_000));
    assert_eq!(small.next(900_000), Next::Record);
    assert!(small.progress().maybe_duplicate);
}

#[test]
fn a_status_that_moves_or_cannot_be_read_is_waited_for() {
    let lost = || {
        let mut lost = uploaded(SMALL);
        lost.perhaps_enqueued(json!("receipt"), 0);
        lost.recorded();
        lost
    };
    let mut moving = lost();
    for step in 1..10 {
        let now = step * 800_000;
        moving.heard(Some(Status::Pending(format!("step {step}"))), now);
        assert!(!matches!(moving.next(now + 899_999), Next::Record));
    }
    let mut unreadable = lost();
    for hour in 1..100 {
        unreadable.heard(None, hour * 3_600_000);
        assert!(matches!(unreadable.next(hour * 3_600_000), Next::Wait(_)));
    }
    assert!(!unreadable.progress().maybe_duplicate);
}

/// A Kusto that never ingests: with a tag nothing is risked by telling it again, without one only much later.
#[test]
fn a_message_without_effect_is_sent_again() {
    let mut tagged = queued(LARGE);
    tagged.heard(pending(), 1000);
    assert_eq!(tagged.next(1000 + 899_999), Next::Ask);
    assert_eq!(tagged.next(1000 + 900_000), Next::Record);
    assert!(!tagged.progress().maybe_duplicate);
    let mut small = queued(SMALL);
    small.heard(pending(), 1000);
    assert_eq!(small.next(1000 + DAY - 1), Next::Ask);
    assert_eq!(small.next(1000 + DAY), Next::Record);
    assert!(small.progress().maybe_duplicate);
}

#[test]
fn records_are_read_back_and_unreadable_ones_begin_anew() {
    let passage = queued(SMALL);
    let (state, detail) = passage.record();
    assert_eq!((state, Progress::decode(&detail)), (BatchState::Queued, Ok(passage.progress().clone())));
    assert_eq!(Progress::decode(b"").unwrap().way, Way::Streaming);
    assert_eq!(Progress::decode(b"{\"way\":\"queued\",\"of a later version\":1}").unwrap().way, Way::Queued);
}

/// A queue, a Kusto and its status table, as far as one batch is concerned.
#[derive(Debug, Default)]
struct Service {
    blob: bool,
    /// Of each message the row of the status table that it speaks of.
    messages: Vec<usize>,
    /// How often the rows were stored.
    stored: usize,
    /// Of some rows only.
    partly: bool,
    statuses: Vec<Status>,
}

#[derive(Debug, Clone)]
enum Op {
    /// The process works: each of its next steps goes well, or fails in one of the ways that there are.
    Work(Vec<u8>),
    /// The process ends, and starts again from what was recorded.
    Crash,
    Pass(u64),
    /// Kusto takes a message: well, not for now, or never.
    Ingest(u8),
    /// A message is delivered twice, or never.
    Double,
    Lose,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => prop::collection::vec(0u8..6, 1..6).prop_map(Op::Work),
        2 => Just(Op::Crash),
        3 => prop_oneof![Just(1000u64), Just(20_000), Just(400_000), Just(1_000_000), Just(DAY)].prop_map(Op::Pass),
        3 => (0u8..5).prop_map(Op::Ingest),
        1 => Just(Op::Double),
        1 => Just(Op::Lose),
    ]
}

struct World {
    passage: Passage,
    recorded: Option<(BatchState, Vec<u8>)>,
    service: Service,
    now: u64,
    csv_bytes: u64,
    over: Option<Over>,
    /// The queue delivered a message twice, which nobody here can know.
    doubled: bool,
}

impl Service {
    /// What the client makes of the rows of all messages.
    fn status(&self, row: usize) -> Status {
        let any = |wanted: fn(&Status) -> bool| self.statuses.iter().find(|status| wanted(status)).cloned();
        match &self.statuses[row] {
            Status::AlreadyIngested { .. } => match any(|status| matches!(status, Status::PartiallySucceeded(_))) {
                Some(partly) => partly,
                None => Status::AlreadyIngested { whole: any(|status| *status == Status::Succeeded).is_some() },
            },
            status => status.clone(),
        }
    }
}

impl World {
    fn new(csv_bytes: u64) -> World {
        let passage = Passage::new(Way::Queued, options(), 0);
        World { passage, recorded: None, service: Service::default(), now: 0, csv_bytes, over: None, doubled: false }
    }

    fn tagged(&self) -> bool {
        self.csv_bytes >= LARGE
    }

    /// One step of the process; `luck` 0 and 1 are good.
    fn work(&mut self, luck: u8) {
        match self.passage.next(self.now) {
            Next::Record => {
                if luck != 5 {
                    self.recorded = Some(self.passage.record());
                    self.passage.recorded();
                }
            }
            Next::Upload => {
                if luck < 4 {
                    self.service.blob = true;
                    self.passage.uploaded(json!("blob"), self.csv_bytes, self.now);
                }
            }
            Next::Enqueue => match luck {
                0..=2 => {
                    let receipt = self.queue(true);
                    self.passage.enqueued(receipt, self.now);
                }
                3 | 4 => {
                    let receipt = self.queue(luck == 3);
                    self.passage.perhaps_enqueued(receipt, self.now);
                }
                _ => self.passage.not_enqueued(self.now),
            },
            Next::Ask => {
                let row = self.passage.progress().receipt.as_ref().unwrap().as_u64().unwrap();
                let status = self.service.status(row as usize);
                self.passage.heard((luck < 4).then_some(status), self.now);
            }
            Next::Wait(until) => {
                assert!(until > self.now, "it waits for the past");
                if luck < 2 {
                    self.now = until;
                }
            }
            Next::Over(Over::Later(pause)) => {
                self.now += pause.as_millis() as u64;
                self.passage.again();
            }
            Next::Over(over) => self.over = Some(over),
        }
    }

    /// The row of the status comes first, then the message, if it arrives.
    fn queue(&mut self, arrives: bool) -> serde_json::Value {
        assert!(self.service.blob, "a message speaks of a blob that is not there");
        let row = self.service.statuses.len();
        self.service.statuses.extend(pending());
        if arrives {
            self.service.messages.push(row);
        }
        json!(row)
    }

    fn ingest(&mut self, how: u8) {
        let service = &mut self.service;
        let Some(row) = service.messages.pop() else { return };
        let status = match how {
            0 | 1 | 4 if self.csv_bytes >= LARGE && service.stored > 0 => Some(Status::AlreadyIngested { whole: false }),
            0 | 1 => {
                service.stored += 1;
                Some(Status::Succeeded)
            }
            4 => {
                service.stored += 1;
                service.partly = true;
                Some(Status::PartiallySucceeded("half".to_owned()))
            }
            2 => failed(false, "General_Throttled"),
            _ => failed(true, "Stream_ClosingQuoteMissing"),
        };
        service.statuses[row] = status.unwrap();
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Work(luck) => luck.iter().for_each(|&luck| self.work(luck)),
            Op::Crash => {
                self.passage = match &self.recorded {
                    Some((state, detail)) => Passage::resume(*state, Progress::decode(detail).unwrap(), options()),
                    None => Passage::new(Way::Queued, options(), self.now),
                };
            }
            Op::Pass(ms) => self.now += ms,
            Op::Ingest(how) => self.ingest(*how),
            Op::Double => {
                if let Some(row) = self.service.messages.last().copied() {
                    self.service.messages.push(row);
                    self.doubled = true;
                }
            }
            Op::Lose => drop(self.service.messages.pop()),
        }
        self.check();
    }

    fn check(&self) {
        let service = &self.service;
        if self.over == Some(Over::Landed) {
            assert!(service.stored > 0, "it landed, and Kusto never ingested it");
            let all = !service.partly || self.doubled || !self.tagged() && service.stored > 1;
            assert!(all, "it landed, and Kusto ingested some rows only");
        }
        if self.tagged() {
            assert!(service.stored <= 1 && !self.passage.progress().maybe_duplicate);
        } else if service.stored > 1 && self.over.is_some() && !self.doubled {
            assert!(self.passage.progress().maybe_duplicate, "stored twice, and not counted");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_batch_lands_once_or_is_counted_and_always_ends(
        tagged in any::<bool>(),
        ops in prop::collection::vec(op(), 1..60),
    ) {
        let mut world = World::new(if tagged { LARGE } else { SMALL });
        for op in &ops {
            world.apply(op);
            if world.over.is_some() {
                return Ok(());
            }
        }
        // All is well from here on.
        for _ in 0..2000 {
            world.apply(&Op::Work(vec![0]));
            world.apply(&Op::Ingest(0));
            if world.over.is_some() {
                prop_assert!(world.service.stored > 0 || matches!(world.over, Some(Over::Refused(_))), "{:?}", world.over);
                return Ok(());
            }
        }
        prop_assert!(false, "it never ends: {:?} {:?}", world.passage, world.service);
    }
}
