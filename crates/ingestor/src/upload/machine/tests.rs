use serde_json::json;
use wal::TableKey;

use super::super::passage::Unreadable;
use super::*;

const ID: BatchId = [7; 16];

fn segment(id: u64) -> SegmentInfo {
    SegmentInfo {
        id: SegmentId(id),
        table: TableKey::new("D", "T", ""),
        number: id,
        digest: 0,
        bytes: 100,
        rows: 1,
        created_ms: id,
        path: format!("{id}.wal").into(),
        file_name: format!("D_T_{id:016x}.wal"),
    }
}

/// Of an earlier run, with two segments.
fn resumed(state: BatchState, detail: Vec<u8>) -> Uploads {
    let limits = Limits { max_segments: 10, max_bytes: 1 << 20, concurrency: 1, gather: None };
    let settings = Settings { limits, urgent: Vec::new(), queue: QueueOptions::default(), outcome: (Outcome::Landed, "ingested") };
    let record = BatchRecord { id: ID, state, segments: vec![SegmentId(1), SegmentId(2)], detail };
    Uploads::resume(settings, vec![record], vec![segment(1), segment(2)])
}

/// The only thing to do.
fn step(uploads: &mut Uploads, now: u64) -> (BatchId, Step) {
    let mut work = uploads.next(now, || [9; 16]);
    let Work { batch, step } = work.pop().expect("there is something to do");
    assert_eq!(work, []);
    (batch.id, step)
}

fn queued(maybe_duplicate: bool) -> Progress {
    Progress { way: Way::Queued, blob: Some(json!("blob")), receipt: Some(json!("receipt")), maybe_duplicate, ..Progress::default() }
}

fn refused() -> Done {
    Done::Asked(Some(Status::Failed { permanent: true, code: "Stream_WrongNumberOfFields".to_owned(), details: String::new() }))
}

#[test]
fn what_may_be_stored_already_is_remembered_while_a_batch_is_cut() {
    let mut uploads = resumed(BatchState::Queued, queued(true).encode());
    assert_eq!(step(&mut uploads, 0), (ID, Step::Ask { receipt: json!("receipt") }));
    uploads.done(&ID, refused(), 0);
    let (_, Step::Close { settlements, record }) = step(&mut uploads, 0) else { panic!() };
    assert_eq!(settlements, []);
    // Between the end of the one batch and the record of the next its record says so,
    let record = record.unwrap();
    assert_eq!((record.id, record.state, &record.segments[..]), (ID, BatchState::Retry, &[SegmentId(1), SegmentId(2)][..]));
    assert!(Progress::decode(&record.detail).unwrap().maybe_duplicate);
    uploads.done(&ID, Done::Closed, 0);
    // and then those of the halves.
    let (half, Step::Choose { .. }) = step(&mut uploads, 0) else { panic!() };
    uploads.done(&half, Done::Chosen(Ok(Way::Queued)), 0);
    let (_, Step::Record(record)) = step(&mut uploads, 0) else { panic!() };
    assert_eq!((half, record.segments.len()), ([9; 16], 1));
    assert!(Progress::decode(&record.detail).unwrap().maybe_duplicate);
}

#[test]
fn a_batch_without_doubt_is_dissolved() {
    let mut uploads = resumed(BatchState::Queued, queued(false).encode());
    step(&mut uploads, 0);
    uploads.done(&ID, refused(), 0);
    let (_, Step::Close { record: Some(record), .. }) = step(&mut uploads, 0) else { panic!() };
    assert_eq!((record.id, record.segments), (ID, Vec::new()));
}

/// What was streamed is not known again by the queue, even by a service that knows what is streamed twice.
#[test]
fn a_batch_that_was_perhaps_streamed_and_must_be_queued_is_counted() {
    for remembers in [true, false] {
        let mut uploads = resumed(BatchState::Batched, Progress::default().encode());
        assert_eq!(step(&mut uploads, 0), (ID, Step::Stream));
        uploads.done(&ID, Done::Streamed { sent: Sent::MustQueue, remembers }, 0);
        let (_, Step::Record(record)) = step(&mut uploads, 0) else { panic!() };
        let progress = Progress::decode(&record.detail).unwrap();
        assert_eq!((progress.way, progress.maybe_duplicate), (Way::Queued, true));
    }
}

#[test]
fn a_batch_whose_record_cannot_be_read_begins_anew_and_is_counted() {
    let detail = b"{\"version\":2,\"way\":\"queued\"}".to_vec();
    assert_eq!(Progress::decode(&detail), Err(Unreadable::Newer(2)));
    let mut uploads = resumed(BatchState::Queued, detail);
    let (id, Step::Choose { .. }) = step(&mut uploads, 0) else { panic!() };
    uploads.done(&id, Done::Chosen(Ok(Way::Queued)), 0);
    let (_, Step::Record(record)) = step(&mut uploads, 0) else { panic!() };
    assert_eq!((id, record.segments.len()), (ID, 2));
    assert!(Progress::decode(&record.detail).unwrap().maybe_duplicate);
}

#[test]
fn work_that_has_not_come_back_is_not_handed_out_twice() {
    let mut uploads = resumed(BatchState::Queued, queued(false).encode());
    step(&mut uploads, 0);
    assert_eq!(uploads.next(1_000_000, || [9; 16]), []);
    assert_eq!((uploads.followed(), uploads.pending()), (1, 2));
    // Nothing is heard: it is asked again after a pause.
    uploads.done(&ID, Done::Asked(None), 0);
    assert_eq!(uploads.next(0, || [9; 16]), []);
    let at = uploads.wake_at(0).unwrap();
    assert_eq!(step(&mut uploads, at), (ID, Step::Ask { receipt: json!("receipt") }));
}
