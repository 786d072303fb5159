//! Histories that once went wrong.

use super::Op::{Batch, Commit, Fault, Full, Kill, PowerCut, Revive, SealAll, Settle, Tick};
use super::run;
use crate::types::Durability;

/// The sync of a group fails, and the process ends: what is read back from the journal is not on the disk.
#[test]
fn what_a_failed_sync_left_in_the_journal_is_made_durable_before_it_is_used() {
    let one = || Commit(vec![vec![(0, 1)]]);
    let ops = [
        PowerCut,
        Fault(24, false, None),
        Settle(1, false),
        one(),
        Batch(1),
        one(),
        Batch(1),
        Fault(4, false, None),
        Batch(1),
        one(),
        one(),
        Kill,
        Tick(31_000),
    ];
    run(1_453_557_892_294, Durability::Disk, &ops);
}

/// The sync of a segment fails, and the process ends before it is written anew: a checkpoint must not vouch for it.
#[test]
fn a_segment_whose_sync_failed_before_a_kill_is_written_anew() {
    let ops = [
        Fault(26, false, None),
        Commit(vec![vec![(3, 1)]]),
        Commit(vec![vec![(0, 1)]]),
        Commit(vec![vec![(1, 17)], vec![(1, 19), (2, 1), (4, 1)], vec![(1, 18)]]),
        Tick(31_000),
        Settle(3, true),
        Kill,
        Tick(130_000),
    ];
    run(2_432_872_878_400_687_158, Durability::Disk, &ops);
}

/// Two requests for one letter, on a disk that is full: what comes back of the first must not count against the second.
#[test]
fn a_letter_that_is_woken_twice_without_an_answer_is_dead_or_alive() {
    let ops = [
        Commit(vec![vec![(0, 1), (1, 1)]]),
        Tick(31_000),
        Fault(18, false, None),
        Full(true),
        Settle(2, true),
        Tick(300),
        Fault(1, false, None),
        Revive(1),
        Revive(2),
    ];
    run(0, Durability::Disk, &ops);
}

/// The renaming of a segment fails, then its sync: the file that is written anew takes the place of the one that is there.
#[test]
fn a_segment_without_its_name_is_written_anew_once() {
    let ops = [
        Fault(20, false, None),
        Commit(vec![vec![(4, 32), (0, 19)], vec![(0, 13), (4, 22), (1, 16)], vec![(0, 31), (1, 37)]]),
        Commit(vec![vec![(1, 6), (2, 4)]]),
        Commit(vec![vec![(0, 21), (2, 38)], vec![(1, 3), (1, 8)], vec![(2, 12), (3, 1)]]),
        SealAll,
        Settle(1, true),
        Fault(17, false, None),
        Tick(130_000),
    ];
    run(0, Durability::Process, &ops);
}

/// The sync of the one folder fails with the checkpoint; the other must not be synced then.
#[test]
fn a_dead_letter_is_not_lost_between_two_folders() {
    let ops = [
        Commit(vec![vec![(3, 1)]]),
        Commit(vec![vec![(0, 1), (1, 1)]]),
        Tick(31_000),
        Fault(26, false, None),
        Settle(1, true),
        Batch(1),
        Commit(vec![vec![(0, 1), (1, 1)], vec![(2, 1)]]),
        Tick(130_000),
    ];
    run(0, Durability::Disk, &ops);
}
