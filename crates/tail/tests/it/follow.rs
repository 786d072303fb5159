//! Waiting, fairness, and stopping when too much is in flight.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tail::{Budgets, Chunk, Event, Follower, Options, Position, Tailer, Target};

use crate::support::World;

#[test]
fn a_file_with_much_to_read_does_not_keep_others_waiting() {
    let mut world = World::new(&["*.log"]);
    world.write("hot.log", &"x\n".repeat(10 << 20));
    world.write("quiet.log", "one\n");
    world.now += Duration::from_secs(2);
    for _ in 0..20 {
        world.step();
    }
    assert_eq!(world.of("quiet.log"), ["one"]);
    assert!(world.of("hot.log").len() < 5 << 20);
}

#[test]
fn reading_stops_when_too_much_is_in_flight_and_goes_on_when_it_is_done() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.log");
    std::fs::write(&path, "0123456\n".repeat(200_000)).unwrap();
    let budgets = Budgets::default();
    let budget = budgets.budget(300_000);
    let names = [path.display().to_string()];
    let target = Target::new("t", "t", &names, &[], Arc::clone(&budget)).unwrap();
    let mut tailer = Tailer::new(Options::default(), budgets, Arc::default(), Box::new(|_, _| None));
    let now = Instant::now();
    tailer.set_targets(vec![target], now);
    let mut held: Vec<Box<Chunk>> = Vec::new();
    let mut bytes = 0;
    for _ in 0..1000 {
        match tailer.step(now) {
            Some(Event::Lines(chunk)) => {
                bytes += chunk.bytes();
                held.push(chunk);
            }
            Some(_) => {}
            None if bytes == 1_600_000 => break,
            None => {
                assert!(budget.used() >= 300_000 && budget.used() <= 300_000 + (128 << 10), "{}", budget.used());
                assert!(tailer.next_wake(now) > now, "it must wait for room");
                held.clear();
            }
        }
    }
    assert_eq!(bytes, 1_600_000);
}

#[tokio::test]
async fn a_follower_wakes_up_when_a_line_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.log");
    std::fs::write(&path, "one\n").unwrap();
    let budgets = Budgets::default();
    let target = Target::new("t", "t", &[path.display().to_string()], &[], budgets.budget(1 << 20)).unwrap();
    let (sender, targets) = tokio::sync::mpsc::unbounded_channel();
    sender.send(vec![target]).unwrap();
    // Without notifications it would take an hour.
    let options = Options { sweep: Duration::from_secs(3600), poll: Duration::from_secs(3600), ..Options::default() };
    let mut follower = Follower::new(options, budgets, Arc::default(), Box::new(|_, _| None), targets).unwrap();
    let mut lines = Vec::new();
    while lines.len() < 2 {
        let event = tokio::time::timeout(Duration::from_secs(30), follower.next()).await.unwrap().unwrap();
        if let Event::Lines(chunk) = event {
            lines.extend(chunk.lines().map(|line| String::from_utf8(line.text.to_vec()).unwrap()));
            if lines.len() == 1 {
                std::fs::OpenOptions::new()
                    .append(true)
                    .open(&path)
                    .map(|mut f| std::io::Write::write_all(&mut f, b"two\n"))
                    .unwrap()
                    .unwrap();
            }
        }
    }
    assert_eq!(lines, ["one", "two"]);
    drop(sender);
    assert!(follower.next().await.is_none());
}

#[test]
fn positions_in_the_middle_of_a_chunk_are_where_reading_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.log");
    let text: String = (0..300).map(|n| format!("line {n} with some text\n")).collect();
    std::fs::write(&path, &text).unwrap();
    let read = |position: Option<Position>| {
        let budgets = Budgets::default();
        let target = Target::new("t", "t", &[path.display().to_string()], &[], budgets.budget(1 << 20)).unwrap();
        let mut resume = position;
        let mut tailer = Tailer::new(Options::default(), budgets, Arc::default(), Box::new(move |_, _| resume.take()));
        let now = Instant::now();
        tailer.set_targets(vec![target], now);
        loop {
            if let Some(Event::Lines(chunk)) = tailer.step(now) {
                return chunk;
            }
        }
    };
    let whole = read(None);
    let ends: Vec<usize> = whole.lines().map(|line| line.end).collect();
    assert_eq!(ends.len(), 300);
    for (n, end) in ends.iter().enumerate().take(299).step_by(13) {
        let position = Position::decode(&whole.position(*end).encode()).unwrap();
        let rest = read(Some(position));
        let first = rest.lines().next().unwrap();
        assert_eq!(first.text, format!("line {} with some text", n + 1).as_bytes());
        assert_eq!(rest.position(rest.bytes()), whole.position(whole.bytes()), "{n}");
    }
}

/// Vectors: the reference's cursor files.
#[test]
fn cursors_of_the_reference_are_read_as_it_reads_them() {
    let vectors = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/collector/cursors.json")).unwrap();
    let vectors: serde_json::Value = serde_json::from_str(&vectors).unwrap();
    for case in vectors["tail_read"].as_array().unwrap() {
        let content = case["content"].as_str().unwrap();
        // The vectors' file ids are not numbers; real ones are.
        let real = content.replace("\"a\"", "\"5:7\"");
        let offset = Position::from_reference(&real).map_or(0, |position| position.files[0].offset);
        if content.contains("\", \"cursor") {
            // The reference refuses a space that it never writes, and reads everything again; here it is JSON.
            assert_eq!(offset, 5);
        } else {
            assert_eq!(offset, case["cursor"].as_u64().unwrap(), "{content}");
        }
    }
    let written = Position::from_reference(vectors["tail_content"]["bytes"].as_str().unwrap()).unwrap();
    assert_eq!((written.files[0].id.dev, written.files[0].id.ino, written.files[0].offset), (12, 34, 5678));
}
