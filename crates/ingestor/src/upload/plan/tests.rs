use super::*;

const LIMITS: Limits = Limits { max_segments: 3, max_bytes: 1000 * FIRST_INFLATION, concurrency: 2, gather: None };

fn segment(id: u64, table: &str, bytes: u64) -> SegmentInfo {
    SegmentInfo {
        id: SegmentId(id),
        table: TableKey::new("D", table, ""),
        number: id,
        digest: 0,
        bytes,
        rows: 1,
        created_ms: id,
        path: format!("{id}.wal").into(),
        file_name: format!("D_{table}_{id:016x}.wal"),
    }
}

fn ids() -> impl FnMut() -> [u8; 16] {
    let mut n = 0;
    move || {
        n += 1;
        [n; 16]
    }
}

fn members(batch: &Batch) -> Vec<u64> {
    batch.segments.iter().map(|s| s.id.0).collect()
}

fn key(table: &str) -> TableKey {
    TableKey::new("D", table, "")
}

/// Of the batch that is on its way.
fn id(plan: &Plan, table: &str) -> BatchId {
    plan.tables[&key(table)].batch.as_ref().unwrap().batch.id
}

fn ended(plan: &mut Plan, table: &str, ended: Ended, now: u64) -> Verdict {
    let id = id(plan, table);
    plan.ended(&key(table), &id, ended, now)
}

/// `divided`: its segments go one by one.
fn closed(plan: &mut Plan, table: &str, gone: &[u64], divided: &[SegmentId], outcome_unknown: bool) {
    let id = id(plan, table);
    plan.closed(&key(table), &id, &ids_of(gone), (divided, 1), outcome_unknown);
}

const LATER: Ended = Ended::Transient { database: false, retry_after: None, outcome_unknown: false };

fn landed(ids: &[u64]) -> Verdict {
    let landed = ids.iter().map(|&id| SegmentId(id)).collect();
    Verdict::Over(End { landed, ..End::default() })
}

fn ids_of(ids: &[u64]) -> Vec<SegmentId> {
    ids.iter().map(|&id| SegmentId(id)).collect()
}

fn refused(landed: usize, bad: Range<usize>, partly: bool) -> Ended {
    Ended::Refused { landed, bad, reason: "r".into(), partly }
}

#[test]
fn batches_are_cut_by_number_and_size_and_one_at_a_time() {
    let mut plan = Plan::new(LIMITS);
    plan.offer((1..=4).map(|i| segment(i, "A", 10)).chain([segment(5, "B", 999), segment(6, "B", 1), segment(7, "B", 1)]));
    let mut new_id = ids();
    let started = plan.start(0, &mut new_id);
    assert_eq!(started.iter().map(members).collect::<Vec<_>>(), [vec![1, 2, 3], vec![5, 6]]);
    assert!(plan.start(0, &mut new_id).is_empty());
    assert_eq!(ended(&mut plan, "A", Ended::Landed, 0), landed(&[1, 2, 3]));
    // Until its end is durable it must neither go again nor be followed.
    assert!(plan.start(0, &mut new_id).is_empty());
    closed(&mut plan, "A", &[1, 2, 3], &[], false);
    assert_eq!(plan.start(0, &mut new_id).iter().map(members).collect::<Vec<_>>(), [vec![4]]);
}

#[test]
fn a_failed_batch_goes_again_as_it_was() {
    let mut plan = Plan::new(LIMITS);
    let mut new_id = ids();
    plan.offer([segment(1, "A", 1)]);
    let first = plan.start(0, &mut new_id).remove(0);
    plan.offer([segment(2, "A", 1), segment(3, "B", 1)]);
    assert_eq!(ended(&mut plan, "A", LATER, 0), Verdict::Keep);
    // The other table is not held up.
    assert_eq!(plan.start(1, &mut new_id)[0].table, key("B"));
    let at = plan.wake_at(1).unwrap();
    assert!((750..=1000).contains(&at), "{at}");
    let again = plan.start(at, &mut new_id).remove(0);
    assert_eq!((again.id, members(&again), again.repeated), (first.id, vec![1], true));
}

fn down(retry_after: Option<Duration>) -> Ended {
    Ended::Transient { database: true, retry_after, outcome_unknown: true }
}

#[test]
fn a_sick_database_is_tried_with_one_batch() {
    let mut plan = Plan::new(LIMITS);
    let mut new_id = ids();
    plan.offer([segment(1, "A", 1), segment(2, "B", 1)]);
    assert_eq!(plan.start(0, &mut new_id).len(), 2);
    let five = Some(Duration::from_secs(5));
    ended(&mut plan, "A", down(five), 0);
    ended(&mut plan, "B", down(five), 0);
    assert!(plan.start(4999, &mut new_id).is_empty());
    let probe = plan.start(5000, &mut new_id);
    assert_eq!(probe.len(), 1);
    assert!(probe[0].outcome_unknown);
    plan.ended(&probe[0].table, &probe[0].id, Ended::Landed, 5001);
    plan.closed(&probe[0].table, &probe[0].id, &ids_of(&[1, 2]), (&[], 1), false);
    assert_eq!(plan.start(5001, &mut new_id).len(), 1);
}

#[test]
fn batches_that_fail_together_are_one_failure() {
    let limits = Limits { concurrency: 50, ..LIMITS };
    let mut plan = Plan::new(limits);
    let names: Vec<String> = (0..20).map(|i| format!("T{i}")).collect();
    plan.offer(names.iter().enumerate().map(|(i, name)| segment(i as u64, name, 1)));
    assert_eq!(plan.start(0, ids()).len(), 20);
    for (i, name) in names.iter().enumerate() {
        ended(&mut plan, name, down(None), i as u64);
    }
    let at = plan.wake_at(20).unwrap();
    assert!((750..=1000).contains(&at), "{at}");
}

/// Its failures look like those of the database, and its data is the oldest.
#[test]
fn a_sick_table_does_not_stop_the_others_of_its_database() {
    let mut plan = Plan::new(Limits { concurrency: 1, ..LIMITS });
    let mut new_id = ids();
    plan.offer([segment(1, "A", 1)].into_iter().chain((2..=9).map(|i| segment(i, "B", 1))));
    let mut now = 0;
    let mut arrived = Vec::new();
    for _ in 0..20 {
        for batch in plan.start(now, &mut new_id) {
            match batch.table == key("A") {
                true => drop(plan.ended(&batch.table, &batch.id, down(None), now)),
                false => {
                    arrived.extend(members(&batch));
                    plan.ended(&batch.table, &batch.id, Ended::Landed, now);
                    plan.closed(&batch.table, &batch.id, &ids_of(&members(&batch)), (&[], 1), false);
                }
            }
        }
        now = plan.wake_at(now).unwrap_or(now);
    }
    assert_eq!(arrived, (2..=9).collect::<Vec<_>>());
    assert_eq!(plan.pending(), 1);
}

#[test]
fn the_bad_segment_is_found_by_splitting() {
    let mut plan = Plan::new(LIMITS);
    let mut new_id = ids();
    plan.offer([segment(1, "A", 1), segment(2, "A", 1)]);
    plan.start(0, &mut new_id);
    let verdict = ended(&mut plan, "A", refused(0, 0..2, false), 0);
    let Verdict::Over(End { landed, dead, divided, maybe_duplicate, .. }) = verdict else { panic!() };
    assert_eq!((landed, dead, maybe_duplicate), (ids_of(&[]), Vec::new(), false));
    assert!(plan.start(0, &mut new_id).is_empty());
    closed(&mut plan, "A", &[], &divided, false);
    assert_eq!(members(&plan.start(0, &mut new_id)[0]), [1]);
    let verdict = ended(&mut plan, "A", refused(0, 0..1, false), 0);
    let dead = vec![(SegmentId(1), "r".to_owned())];
    assert_eq!(verdict, Verdict::Over(End { dead, ..End::default() }));
    closed(&mut plan, "A", &[1], &[], false);
    assert_eq!(members(&plan.start(0, &mut new_id)[0]), [2]);
    assert_eq!(plan.pending(), 1);
}

#[test]
fn what_landed_before_a_refusal_is_settled_and_what_follows_waits_again() {
    let mut plan = Plan::new(LIMITS);
    let mut new_id = ids();
    plan.offer((1..=3).map(|i| segment(i, "A", 1)));
    plan.start(0, &mut new_id);
    let verdict = ended(&mut plan, "A", refused(1, 1..2, true), 0);
    let dead = vec![(SegmentId(2), "r".to_owned())];
    assert_eq!(verdict, Verdict::Over(End { landed: ids_of(&[1]), dead, partly: true, ..End::default() }));
    closed(&mut plan, "A", &[1, 2], &[], false);
    let batch = plan.start(0, &mut new_id).remove(0);
    assert_eq!((members(&batch), batch.outcome_unknown), (vec![3], false));
}

#[test]
fn rows_that_may_have_arrived_are_not_mixed_with_others() {
    let mut plan = Plan::new(LIMITS);
    let mut new_id = ids();
    plan.offer((1..=2).map(|i| segment(i, "A", 1)));
    plan.start(0, &mut new_id);
    ended(&mut plan, "A", LATER, 0);
    plan.start(1000, &mut new_id);
    let unreadable = Ended::Unreadable { landed: 0, segment: 0, reason: "r".into() };
    let Verdict::Over(End { dead, maybe_duplicate, .. }) = ended(&mut plan, "A", unreadable, 1000) else { panic!() };
    assert_eq!((dead, maybe_duplicate), (vec![(SegmentId(1), "r".to_owned())], true));
    plan.offer([segment(3, "A", 1)]);
    closed(&mut plan, "A", &[1], &[], maybe_duplicate);
    for (expected, unknown) in [(2, true), (3, false)] {
        let batch = plan.start(2000, &mut new_id).remove(0);
        assert_eq!((members(&batch), batch.outcome_unknown), (vec![expected], unknown));
        ended(&mut plan, "A", Ended::Landed, 2000);
        closed(&mut plan, "A", &[expected], &[], false);
    }
}

#[test]
fn a_restart_sends_the_same_batch_first() {
    let mut plan = Plan::new(LIMITS);
    plan.resume([9; 16], vec![segment(3, "A", 1), segment(2, "A", 1)], true);
    plan.offer([segment(1, "A", 1)]);
    let mut new_id = ids();
    let batch = plan.start(0, &mut new_id).remove(0);
    assert_eq!((batch.id, members(&batch), batch.repeated, batch.outcome_unknown), ([9; 16], vec![3, 2], true, true));
}

/// A table whose batch is in the service's queue goes on.
#[test]
fn a_batch_in_the_queue_is_followed_beside_the_next_ones() {
    let mut plan = Plan::new(LIMITS);
    let mut new_id = ids();
    plan.offer([segment(1, "A", 1)]);
    let first = plan.start(0, &mut new_id).remove(0);
    plan.handed_over(&key("A"), &first.id);
    assert_eq!((plan.flying(), plan.followed(), plan.pending()), (0, 1, 1));
    plan.offer([segment(2, "A", 1)]);
    let second = plan.start(0, &mut new_id).remove(0);
    assert_eq!(members(&second), [2]);
    // The first one fails in the queue: it goes again as it was, after its pause, beside the second.
    let later = Ended::Transient { database: false, retry_after: Some(Duration::from_secs(30)), outcome_unknown: false };
    assert_eq!(plan.ended(&key("A"), &first.id, later, 1000), Verdict::Keep);
    plan.handed_over(&key("A"), &second.id);
    assert_eq!(plan.ended(&key("A"), &second.id, Ended::Landed, 1000), landed(&[2]));
    plan.closed(&key("A"), &second.id, &ids_of(&[2]), (&[], 0), false);
    assert!(plan.start(30_999, &mut new_id).is_empty());
    assert_eq!(plan.wake_at(1000), Some(31_000));
    let again = plan.start(31_000, &mut new_id).remove(0);
    assert_eq!((again.id, members(&again), again.repeated), (first.id, vec![1], true));
}

#[test]
fn where_batches_are_queued_a_table_waits_to_have_enough() {
    let gather = Some(Gather { bytes: 100 * FIRST_INFLATION, age_ms: 90_000 });
    let mut plan = Plan::new(Limits { gather, ..LIMITS });
    let mut new_id = ids();
    // Enough bytes; enough segments; too little of both.
    plan.offer([segment(1, "A", 60), segment(2, "A", 60)]);
    plan.offer((3..=5).map(|id| segment(id, "B", 1)));
    plan.offer([segment(6, "C", 60)]);
    assert_eq!(plan.start(10, &mut new_id).iter().map(members).collect::<Vec<_>>(), [vec![1, 2], vec![3, 4, 5]]);
    for table in ["A", "B"] {
        ended(&mut plan, table, Ended::Landed, 10);
        closed(&mut plan, table, &[1, 2, 3, 4, 5], &[], false);
    }
    // It was created at the sixth millisecond.
    assert_eq!(plan.wake_at(10), Some(90_006));
    assert!(plan.start(90_005, &mut new_id).is_empty());
    plan.offer([segment(7, "D", 60)]);
    assert_eq!(members(&plan.start(90_006, &mut new_id)[0]), [6]);
    let mut urgent = Plan::new(Limits { gather, ..LIMITS }).with_urgent(["A".to_owned()]);
    urgent.offer([segment(1, "A", 1), segment(2, "B", 1)]);
    assert_eq!(urgent.start(10, &mut new_id).iter().map(members).collect::<Vec<_>>(), [vec![1]]);
    // At the end nothing waits.
    plan.hurry();
    assert_eq!(members(&plan.start(90_006, &mut new_id)[0]), [7]);
}

/// Of n segments with one bad one, as many tries as n has binary digits, and not n.
#[test]
fn a_refused_batch_is_cut_into_halves() {
    let mut plan = Plan::new(Limits { max_segments: 64, ..LIMITS });
    let mut new_id = ids();
    plan.offer((0..64).map(|id| segment(id, "A", 1)));
    let (mut tries, mut arrived, mut dead) = (0, Vec::new(), Vec::new());
    while let Some(batch) = plan.start(0, &mut new_id).pop() {
        tries += 1;
        let bad = members(&batch).contains(&37);
        let outcome = if bad { refused(0, 0..batch.segments.len(), false) } else { Ended::Landed };
        let Verdict::Over(end) = plan.ended(&batch.table, &batch.id, outcome, 0) else { panic!() };
        arrived.extend(end.landed.iter().map(|id| id.0));
        dead.extend(end.dead.iter().map(|(id, _)| id.0));
        let gone: Vec<_> = end.landed.into_iter().chain(end.dead.into_iter().map(|(id, _)| id)).collect();
        plan.closed(&batch.table, &batch.id, &gone, (&end.divided, end.most), false);
    }
    arrived.sort();
    assert_eq!((arrived.len(), dead, tries), (63, vec![37], 13));
    assert_eq!(plan.pending(), 0);
}

#[test]
fn the_size_of_batches_follows_what_segments_turned_out_to_hold() {
    let mut plan = Plan::new(LIMITS);
    let mut new_id = ids();
    plan.offer((1..=3).map(|id| segment(id, "A", 300)));
    let batch = plan.start(0, &mut new_id).remove(0);
    assert_eq!(members(&batch), [1, 2, 3]);
    for _ in 0..20 {
        plan.uploaded(&batch, 900 * 3 * FIRST_INFLATION);
    }
    assert_eq!(plan.csv_bytes(&batch), 900 * 3 * FIRST_INFLATION);
    ended(&mut plan, "A", Ended::Landed, 0);
    closed(&mut plan, "A", &[1, 2, 3], &[], false);
    plan.offer((4..=6).map(|id| segment(id, "A", 300)));
    assert_eq!(members(&plan.start(0, &mut new_id)[0]), [4, 5]);
}
