//! Each way of rotating a log, while it is followed and while it is not: every line once and in order.

use std::time::Duration;

use crate::support::World;

fn log() -> World {
    let mut world = World::new(&["app.log"]);
    world.write("app.log", "one\ntwo\n");
    world.settle();
    assert_eq!(world.of("app.log"), ["one", "two"]);
    world
}

#[test]
fn lines_come_when_they_are_complete() {
    let mut world = log();
    world.write("app.log", "thr");
    world.settle();
    assert_eq!(world.of("app.log").len(), 2);
    world.write("app.log", "ee\n\nfive\r\n");
    world.settle();
    assert_eq!(world.of("app.log"), ["one", "two", "three", "", "five\r"]);
}

#[test]
fn a_restart_goes_on_after_the_last_line() {
    let mut world = log();
    world.write("app.log", "three\nfo");
    world.restart();
    world.write("app.log", "ur\n");
    world.settle();
    assert_eq!(world.of("app.log"), ["one", "two", "three", "four"]);
}

#[test]
fn renaming_leaves_no_line_behind() {
    let mut world = log();
    world.write("app.log", "three\n");
    world.rename("app.log");
    world.write("app.log", "four\n");
    world.settle();
    assert_eq!(world.of("app.log"), ["one", "two", "three", "four"]);
}

#[test]
fn what_is_written_to_a_renamed_file_is_read_too() {
    let mut world = log();
    std::fs::rename(world.path("app.log"), world.path("app.log.1")).unwrap();
    world.write("app.log", "three\n");
    world.settle();
    world.reopen("app.log");
    world.write("app.log", "four\n");
    world.settle();
    let late = std::fs::OpenOptions::new().append(true).open(world.path("app.log.1")).unwrap();
    std::io::Write::write_all(&mut &late, b"late\n").unwrap();
    world.wait(Duration::from_secs(1));
    assert_eq!(world.of("app.log"), ["one", "two", "three", "four", "late"]);
}

#[test]
fn an_unfinished_line_comes_when_its_file_is_abandoned() {
    let mut world = log();
    world.write("app.log", "thr");
    world.rename("app.log");
    world.write("app.log", "four\n");
    world.settle();
    assert_eq!(world.of("app.log"), ["one", "two", "four"]);
    for _ in 0..12 {
        world.wait(Duration::from_secs(1));
    }
    assert_eq!(world.of("app.log"), ["one", "two", "four", "thr"]);
    world.restart();
    world.wait(Duration::from_secs(60));
    assert_eq!(world.of("app.log").len(), 4);
}

#[test]
fn two_renames_between_two_looks() {
    let mut world = log();
    world.write("app.log", "three\n");
    world.rename("app.log");
    world.write("app.log", "four\n");
    world.rename("app.log");
    world.write("app.log", "five\n");
    world.settle();
    assert_eq!(world.of("app.log"), ["one", "two", "three", "four", "five"]);
}

#[test]
fn rotations_while_stopped() {
    let mut world = log();
    world.kill();
    world.write("app.log", "three\n");
    for line in ["four\n", "five\n", "six\n"] {
        world.rename("app.log");
        world.write("app.log", line);
    }
    world.start();
    world.settle();
    assert_eq!(world.of("app.log"), ["one", "two", "three", "four", "five", "six"]);
    world.restart();
    assert_eq!(world.of("app.log").len(), 6);
}

#[test]
fn older_rotated_files_are_not_read_by_the_way() {
    let mut world = World::new(&["app.log"]);
    world.kill();
    world.write("app.log.1", "old\n");
    world.write("app.log", "one\n");
    world.start();
    world.settle();
    world.rename("app.log");
    world.write("app.log", "two\n");
    world.settle();
    assert_eq!(world.of("app.log"), ["one", "two"]);
}

#[test]
fn copy_and_truncate_reads_the_rest_from_the_copy() {
    let mut world = log();
    world.write("app.log", "three\n");
    world.copy_truncate("app.log");
    world.write("app.log", "four\n");
    world.settle();
    assert_eq!(world.of("app.log"), ["one", "two", "three", "four"]);
    assert_eq!(world.count(|s| &s.truncations), 1);
}

/// The reference reads on in the middle of other lines.
#[test]
fn a_truncated_file_that_has_grown_beyond_the_position_is_noticed() {
    let mut world = log();
    world.copy_truncate("app.log");
    world.write("app.log", "three is much longer than what was there before\nfour\n");
    world.settle();
    assert_eq!(world.of("app.log"), ["one", "two", "three is much longer than what was there before", "four"]);
}

#[test]
fn copy_and_truncate_twice_while_stopped() {
    let mut world = log();
    world.kill();
    world.write("app.log", "three\n");
    world.copy_truncate("app.log");
    world.write("app.log", "four\n");
    world.copy_truncate("app.log");
    world.write("app.log", "five\n");
    world.start();
    world.settle();
    assert_eq!(world.of("app.log"), ["one", "two", "three", "four", "five"]);
}

#[test]
fn a_compressed_rotation_is_read_on_where_it_was_left() {
    let mut world = log();
    world.kill();
    world.write("app.log", "three\nfour\n");
    world.rename("app.log");
    world.gzip("app.log.1");
    world.write("app.log", "five\n");
    world.start();
    world.settle();
    assert_eq!(world.of("app.log"), ["one", "two", "three", "four", "five"]);
}

#[test]
fn compressing_what_was_read_brings_nothing_again() {
    let mut world = log();
    for line in ["three\n", "four\n"] {
        world.rename("app.log");
        world.write("app.log", line);
        world.settle();
        world.gzip("app.log.1");
        world.settle();
    }
    world.wait(Duration::from_secs(60));
    world.rename("app.log");
    world.write("app.log", "five\n");
    world.restart();
    world.wait(Duration::from_secs(60));
    assert_eq!(world.of("app.log"), ["one", "two", "three", "four", "five"]);
}

#[test]
fn rotated_and_compressed_several_times_while_stopped() {
    let mut world = log();
    world.kill();
    world.write("app.log", "three\n");
    for line in ["four\n", "five\n", "six\n"] {
        world.rename("app.log");
        world.gzip("app.log.1");
        world.write("app.log", line);
    }
    world.start();
    world.settle();
    assert_eq!(world.of("app.log"), ["one", "two", "three", "four", "five", "six"]);
}

#[test]
fn a_file_that_is_still_being_compressed_is_waited_for() {
    let mut world = log();
    world.kill();
    world.write("app.log", "three\n");
    world.rename("app.log");
    world.gzip("app.log.1");
    let whole = std::fs::read(world.path("app.log.1.gz")).unwrap();
    std::fs::write(world.path("app.log.1.gz"), &whole[..12]).unwrap();
    world.write("app.log", "four\n");
    world.start();
    world.settle();
    assert_eq!(world.of("app.log"), ["one", "two", "four"]);
    std::fs::write(world.path("app.log.1.gz"), &whole).unwrap();
    world.wait(Duration::from_secs(2));
    assert_eq!(world.of("app.log"), ["one", "two", "four", "three"]);
}

#[test]
fn compressed_files_that_match_are_read_whole_and_once() {
    let mut world = World::new(&["*.gz"]);
    world.write("x", &"a line of some length\n".repeat(50_000));
    world.gzip("x");
    world.wait(Duration::from_secs(2));
    assert_eq!(world.of("x.gz").len(), 50_000);
    world.restart();
    world.wait(Duration::from_secs(60));
    assert_eq!(world.of("x.gz").len(), 50_000);
}

#[test]
fn deleted_and_made_anew() {
    let mut world = log();
    std::fs::remove_file(world.path("app.log")).unwrap();
    world.reopen("app.log");
    world.write("app.log", "three\n");
    world.settle();
    // The same while it is stopped: the inode may be the same one.
    world.kill();
    std::fs::remove_file(world.path("app.log")).unwrap();
    world.reopen("app.log");
    world.write("app.log", "four, longer than three\n");
    world.start();
    world.settle();
    assert_eq!(world.of("app.log"), ["one", "two", "three", "four, longer than three"]);
}

#[test]
fn patterns_find_new_files_leave_out_others_and_keep_rotated_ones_with_their_log() {
    let mut world = World::with(&["**/*.log*"], &["**/secret*"], 1 << 20, tail::Options::default());
    std::fs::create_dir_all(world.path("a/b")).unwrap();
    world.write("a/b/x.log.1", "one\n");
    world.write("a/b/x.log", "two\n");
    world.write("secret.log", "no\n");
    world.write("y.txt", "no\n");
    world.wait(Duration::from_secs(2));
    assert_eq!(world.of("a/b/x.log"), ["one", "two"]);
    world.rename("a/b/x.log");
    world.write("a/b/x.log", "three\n");
    world.write("a/z.log", "z\n");
    world.wait(Duration::from_secs(2));
    world.restart();
    world.wait(Duration::from_secs(60));
    assert_eq!(world.of("a/b/x.log"), ["one", "two", "three"]);
    assert_eq!(world.of("a/z.log"), ["z"]);
    assert_eq!(world.lines.len(), 2, "{:?}", world.lines);
}

#[test]
fn a_file_renamed_to_another_name_of_the_pattern_is_not_read_again() {
    let mut world = World::new(&["*.log"]);
    world.write("a.log", "one\n");
    world.wait(Duration::from_secs(2));
    std::fs::rename(world.path("a.log"), world.path("b.log")).unwrap();
    world.reopen("a.log");
    world.write("a.log", "two\n");
    world.wait(Duration::from_secs(2));
    world.wait(Duration::from_secs(20));
    world.write("b.log", "three\n");
    world.wait(Duration::from_secs(20));
    assert_eq!(world.of("a.log"), ["one", "two"]);
    assert_eq!(world.of("b.log"), ["three"]);
}

#[test]
fn links_are_followed_to_the_folder_where_the_file_rotates() {
    let mut world = World::new(&["containers/*.log"]);
    std::fs::create_dir_all(world.path("containers")).unwrap();
    std::fs::create_dir_all(world.path("pods/p")).unwrap();
    world.write("pods/p/0.log", "one\n");
    std::os::unix::fs::symlink("../pods/p/0.log", world.path("containers/c.log")).unwrap();
    world.wait(Duration::from_secs(2));
    world.kill();
    world.write("pods/p/0.log", "two\n");
    std::fs::rename(world.path("pods/p/0.log"), world.path("pods/p/0.log.20260101-100000")).unwrap();
    world.reopen("pods/p/0.log");
    world.write("pods/p/0.log", "three\n");
    world.start();
    world.settle();
    world.write("pods/p/0.log", "four\n");
    world.settle();
    assert_eq!(world.of("containers/c.log"), ["one", "two", "three", "four"]);
}

#[test]
fn positions_of_paths_that_are_gone_are_forgotten() {
    let mut world = World::new(&["*.log"]);
    world.write("a.log", "one\n");
    world.wait(Duration::from_secs(2));
    std::fs::remove_file(world.path("a.log")).unwrap();
    for _ in 0..60 {
        world.wait(Duration::from_secs(15));
    }
    assert_eq!(world.gone, [world.path("a.log")]);
    assert_eq!(world.count(|s| &s.files), 0);
    assert_eq!(world.count(|s| &s.open), 0);
}
