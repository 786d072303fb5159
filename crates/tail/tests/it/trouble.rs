//! What is in the way of reading, and must not stop it.

use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use tail::Options;

use crate::support::World;

#[test]
fn long_lines_are_cut_and_counted_and_their_neighbours_come_whole() {
    let mut world = World::with(&["app.log"], &[], 1000, Options::default());
    let long = "x".repeat(5_000_000);
    let shorter = "y".repeat(3000);
    world.write("app.log", &format!("one\n{long}\ntwo\n{shorter}\nthree\n"));
    world.settle();
    let lines = world.of("app.log");
    assert_eq!(lines, ["one", &long[..1000], "two", &shorter[..1000], "three"]);
    assert_eq!(world.cut, 5_000_000 - 1000 + 2000);
}

#[test]
fn a_line_of_200_megabytes_costs_its_limit() {
    let mut world = World::new(&["app.log"]);
    let mut file = std::fs::File::create(world.path("app.log")).unwrap();
    file.write_all(b"a").unwrap();
    // A hole reads as zeros, which are part of a line that has begun.
    file.seek(SeekFrom::Start(200 << 20)).unwrap();
    file.write_all(b"\nnext\n").unwrap();
    world.settle();
    let lines = world.of("app.log");
    assert_eq!((lines[0].len(), lines[1]), (1 << 20, "next"));
    assert_eq!(world.cut, (200 << 20) - (1 << 20));
}

#[test]
fn many_long_lines_at_once_share_their_memory() {
    let mut world = World::with(&["*.log"], &[], 1 << 20, Options { long_line_bytes: 3 << 20, ..Options::default() });
    for n in 0..8 {
        world.write(&format!("{n}.log"), &"x".repeat(900 << 10));
    }
    world.wait(Duration::from_secs(2));
    for n in 0..8 {
        world.write(&format!("{n}.log"), "\nend\n");
    }
    world.settle();
    let kept: usize = (0..8).map(|n| world.of(&format!("{n}.log"))[0].len()).sum();
    assert!(kept <= 3 << 20, "{kept}");
    assert_eq!(kept as u64 + world.cut, 8 * (900 << 10));
    assert!((0..8).all(|n| world.of(&format!("{n}.log"))[1] == "end"));
    // It is given back.
    world.write("0.log", &format!("{}\n", "x".repeat(900 << 10)));
    world.settle();
    assert_eq!(world.of("0.log")[2].len(), 900 << 10);
}

/// A writer that goes on at its old offset after a truncation leaves zeros before its next line.
#[test]
fn holes_before_a_line_are_not_part_of_it() {
    let mut world = World::new(&["app.log"]);
    let mut file = std::fs::File::create(world.path("app.log")).unwrap();
    file.write_all(&b"one\n".repeat(100_000)).unwrap();
    world.settle();
    world.copy_truncate("app.log");
    file.write_all(b"two\n").unwrap();
    world.settle();
    let lines = world.of("app.log");
    assert_eq!((lines.len(), *lines.last().unwrap()), (100_001, "two"));
    file.write_all(b"thr\0ee\n").unwrap();
    world.settle();
    assert_eq!(*world.of("app.log").last().unwrap(), "thr\0ee");
}

#[test]
fn folders_and_pipes_are_not_opened_and_a_file_in_their_place_is_read() {
    let mut world = World::new(&["app.log"]);
    world.write("app.log", "one\n");
    world.settle();
    std::fs::remove_file(world.path("app.log")).unwrap();
    std::fs::create_dir(world.path("app.log")).unwrap();
    world.wait(Duration::from_secs(1));
    std::fs::remove_dir(world.path("app.log")).unwrap();
    let made = std::process::Command::new("mkfifo").arg(world.path("app.log")).status().unwrap();
    assert!(made.success());
    world.wait(Duration::from_secs(1));
    assert!(world.count(|s| &s.errors) > 0);
    std::fs::remove_file(world.path("app.log")).unwrap();
    world.reopen("app.log");
    world.write("app.log", "two\n");
    world.wait(Duration::from_secs(60));
    assert_eq!(world.of("app.log"), ["one", "two"]);
}

#[test]
fn unreadable_files_are_tried_again_and_do_not_stop_their_neighbours() {
    if rustix::process::geteuid().is_root() {
        // Root reads everything; a link that leads to itself fails in another way.
        let mut world = World::new(&["*.log"]);
        std::os::unix::fs::symlink("bad.log", world.path("bad.log")).unwrap();
        world.write("good.log", "one\n");
        world.wait(Duration::from_secs(2));
        world.wait(Duration::from_secs(2));
        assert_eq!(world.of("good.log"), ["one"]);
        return;
    }
    let mut world = World::new(&["*.log"]);
    world.write("bad.log", "bad\n");
    std::fs::set_permissions(world.path("bad.log"), PermissionsExt::from_mode(0o000)).unwrap();
    world.write("good.log", "one\n");
    world.wait(Duration::from_secs(2));
    assert_eq!(world.of("good.log"), ["one"]);
    assert!(world.count(|s| &s.errors) > 0);
    std::fs::set_permissions(world.path("bad.log"), PermissionsExt::from_mode(0o600)).unwrap();
    world.wait(Duration::from_secs(60));
    assert_eq!(world.of("bad.log"), ["bad"]);
}

#[test]
fn a_folder_that_comes_and_goes() {
    let mut world = World::new(&["mount/app.log"]);
    world.settle();
    std::fs::create_dir(world.path("mount")).unwrap();
    world.write("mount/app.log", "one\n");
    world.wait(Duration::from_secs(1));
    assert_eq!(world.of("mount/app.log"), ["one"]);
    // The whole of it vanishes and comes back as it was.
    std::fs::rename(world.path("mount"), world.path("away")).unwrap();
    world.wait(Duration::from_secs(30));
    std::fs::rename(world.path("away"), world.path("mount")).unwrap();
    world.reopen("mount/app.log");
    world.write("mount/app.log", "two\n");
    world.wait(Duration::from_secs(30));
    assert_eq!(world.of("mount/app.log"), ["one", "two"]);
    assert!(world.gone.is_empty());
}

#[test]
fn without_notifications_files_are_looked_at() {
    let mut world = World::with(&["*.log"], &[], 1 << 20, Options { notifications: false, ..Options::default() });
    world.write("app.log", "one\n");
    world.wait(Duration::from_secs(20));
    world.write("app.log", "two\n");
    world.wait(Duration::from_millis(250));
    assert_eq!(world.of("app.log"), ["one", "two"]);
    world.rename("app.log");
    world.write("app.log", "three\n");
    world.wait(Duration::from_millis(250));
    assert_eq!(world.of("app.log"), ["one", "two", "three"]);
    assert!(world.count(|s| &s.polled) > 0);
}

#[test]
fn open_files_are_few() {
    let mut world = World::with(&["*.log"], &[], 1 << 20, Options { max_open: 8, ..Options::default() });
    for n in 0..100 {
        world.write(&format!("{n}.log"), "one\n");
    }
    world.wait(Duration::from_secs(2));
    assert!(world.count(|s| &s.open) <= 9, "{}", world.count(|s| &s.open));
    for n in 0..100 {
        world.write(&format!("{n}.log"), "two\n");
        // Closed files are found again after a rename.
        world.rename(&format!("{n}.log"));
        world.write(&format!("{n}.log"), "three\n");
    }
    world.settle();
    for n in 0..100 {
        assert_eq!(world.of(&format!("{n}.log")), ["one", "two", "three"], "{n}");
    }
    for _ in 0..20 {
        world.wait(Duration::from_secs(1));
    }
    assert!(world.count(|s| &s.open) <= 9, "{}", world.count(|s| &s.open));
}
