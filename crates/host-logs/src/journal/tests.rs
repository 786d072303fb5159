use std::fmt::Write as _;
use std::fs;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::*;

/// Debian's program that makes journal files of the export format; a journal daemon does not run in tests.
const JOURNAL_REMOTE: &str = "/lib/systemd/systemd-journal-remote";
/// Later than all entries.
const NOW: u64 = 1_800_000_000_000_000_000;
const BOOT: &str = "0123456789abcdef0123456789abcdef";

mod damage;

/// A journal folder that entries can be added to.
struct TestJournal {
    dir: TempDir,
    entries: u64,
    /// Microseconds since 1970.
    clock: u64,
}

impl TestJournal {
    fn new() -> Self {
        assert!(Path::new(JOURNAL_REMOTE).exists(), "{JOURNAL_REMOTE} is missing; `cargo xtask setup` installs it");
        TestJournal { dir: tempfile::tempdir().unwrap(), entries: 0, clock: 1_700_000_000_000_000 }
    }

    /// Adds entries, one second apart, to the file `name`.
    fn add(&mut self, name: &str, entries: &[&[(&str, &str)]]) {
        let mut export = String::new();
        for fields in entries {
            self.entries += 1;
            let time = self.clock + self.entries * 1_000_000;
            writeln!(export, "__REALTIME_TIMESTAMP={time}\n__MONOTONIC_TIMESTAMP={}\n_BOOT_ID={BOOT}", self.entries).unwrap();
            for (field, value) in *fields {
                writeln!(export, "{field}={value}").unwrap();
            }
            export.push('\n');
        }
        let input = self.dir.path().join("export");
        fs::write(&input, export).unwrap();
        let made = Command::new(JOURNAL_REMOTE).arg("-o").arg(self.dir.path().join(name)).arg(&input).stderr(Stdio::null()).status();
        assert!(made.unwrap().success());
        fs::remove_file(input).unwrap();
    }

    fn messages(&mut self, texts: &[&str]) {
        for text in texts {
            self.add("system.journal", &[&[("MESSAGE", text), ("_SYSTEMD_UNIT", "a.service")]]);
        }
    }

    fn reader(&self, matches: &[&str], position: Option<&[u8]>) -> Reader {
        let target = Target {
            dirs: vec![self.dir.path().to_owned(), "/nonexistent".into()],
            matches: Matches::parse(matches).unwrap(),
            fields: vec!["_SYSTEMD_UNIT".to_owned(), "NOT_THERE".to_owned()],
            destination: Destination::new("Logs", "Journal").unwrap(),
        };
        Reader::new(target, position).unwrap()
    }
}

fn texts(batch: &Batch) -> Vec<&str> {
    batch.records.iter().map(|record| record.body[logs::MESSAGE].as_str().unwrap()).collect()
}

#[test]
fn entries_are_records() {
    let mut journal = TestJournal::new();
    journal.add("system.journal", &[&[("MESSAGE", "hello ü"), ("PRIORITY", "4"), ("_SYSTEMD_UNIT", "a.service"), ("_PID", "7")]]);
    let batch = journal.reader(&[], None).read(10, NOW).unwrap();
    let [record] = batch.records.as_slice() else { panic!("{batch:?}") };
    assert_eq!(record.body[logs::MESSAGE], Value::from("hello ü"));
    assert_eq!((record.timestamp, record.observed), (1_700_000_001_000_000_000, NOW));
    assert_eq!((record.severity_text.as_str(), record.severity_number), ("WARN", 13));
    assert_eq!(*record.resource, logs::Map::from([("_SYSTEMD_UNIT".to_owned(), Value::from("a.service"))]));
}

#[test]
fn the_next_reader_goes_on_behind_the_position() {
    let mut journal = TestJournal::new();
    journal.messages(&["1", "2", "3"]);
    let mut reader = journal.reader(&[], None);
    let first = reader.read(2, NOW).unwrap();
    assert_eq!((texts(&first), first.more), (vec!["1", "2"], true));
    let mut again = journal.reader(&[], Some(&first.position));
    assert_eq!(texts(&again.read(10, NOW).unwrap()), ["3"]);
    assert_eq!(texts(&again.read(10, NOW).unwrap()), [""; 0]);
    journal.messages(&["4"]);
    assert_eq!(texts(&again.read(10, NOW).unwrap()), ["4"]);
    // The first reader did not hear of the others.
    assert_eq!(texts(&reader.read(10, NOW).unwrap()), ["3", "4"]);
}

/// The reference goes to the end of a journal that it could not read, and skips what is unread.
#[test]
fn rotated_and_vacuumed_files_lose_nothing_that_is_there() {
    let mut journal = TestJournal::new();
    journal.messages(&["1", "2"]);
    let mut reader = journal.reader(&[], None);
    let position = reader.read(1, NOW).unwrap().position;
    let path = |name: &str| journal.dir.path().join(name);
    fs::rename(path("system.journal"), path("system@archived.journal")).unwrap();
    journal.messages(&["3"]);
    assert_eq!(texts(&reader.read(10, NOW).unwrap()), ["2", "3"]);
    journal.messages(&["4"]);
    // The entry of the position is gone, and so is the second.
    fs::remove_file(journal.dir.path().join("system@archived.journal")).unwrap();
    assert_eq!(texts(&journal.reader(&[], Some(&position)).read(10, NOW).unwrap()), ["3", "4"]);
}

/// Entries that come after the clock was put back are earlier than what was read; they are new all the same.
#[test]
fn a_clock_that_is_put_back_hides_nothing() {
    let mut journal = TestJournal::new();
    journal.messages(&["1", "2"]);
    let mut reader = journal.reader(&[], None);
    let position = reader.read(10, NOW).unwrap().position;
    journal.clock -= 3_600_000_000;
    journal.messages(&["3"]);
    let now = 1_700_000_000_000_000_000 - 3_500_000_000_000;
    assert_eq!(texts(&reader.read(10, now).unwrap()), ["3"]);
    assert_eq!(texts(&journal.reader(&[], Some(&position)).read(10, now).unwrap()), ["3"]);
    // The same in a new file, which systemd begins when it notices.
    journal.add("system@new.journal", &[&[("MESSAGE", "4")]]);
    assert_eq!(texts(&reader.read(10, now).unwrap()), ["4"]);
    journal.clock += 7_200_000_000;
    journal.messages(&["5"]);
    assert_eq!(texts(&reader.read(10, NOW).unwrap()), ["5"]);
}

#[test]
fn a_broken_file_does_not_hide_the_others() {
    let mut journal = TestJournal::new();
    journal.messages(&["1"]);
    let broken = |bytes: &[u8]| [bytes, &[0xa5; 1000]].concat();
    fs::write(journal.dir.path().join("user-1000.journal"), broken(b"not a journal")).unwrap();
    fs::write(journal.dir.path().join("user-1001.journal"), broken(b"LPKSHHRH")).unwrap();
    let mut reader = journal.reader(&[], None);
    let batch = reader.read(10, NOW).unwrap();
    assert_eq!((texts(&batch), batch.unreadable), (vec!["1"], 2));
    // They are told of once.
    assert_eq!(reader.read(10, NOW).unwrap().unreadable, 0);
    fs::write(journal.dir.path().join("system@empty.journal"), b"").unwrap();
    journal.messages(&["2"]);
    assert_eq!(texts(&reader.read(10, NOW).unwrap()), ["2"]);
}

#[test]
fn without_a_journal_there_is_nothing_and_later_there_is() {
    let mut journal = TestJournal::new();
    let mut reader = journal.reader(&[], None);
    assert_eq!(texts(&reader.read(10, NOW).unwrap()), [""; 0]);
    journal.messages(&["1"]);
    assert_eq!(texts(&reader.read(10, NOW).unwrap()), ["1"]);
}

#[test]
fn lines_in_parts_are_joined_over_reads_and_restarts() {
    let mut journal = TestJournal::new();
    let part = |text, stream| [("MESSAGE", text), ("_STREAM_ID", stream), ("_LINE_BREAK", "line-max")];
    let end = |text, stream| [("MESSAGE", text), ("_STREAM_ID", stream), ("_X", "")];
    journal
        .add("system.journal", &[&part("a1", "a"), &part("b1", "b"), &part("a2", "a"), &end("a3", "a"), &end("a4", "a"), &end("b2", "b")]);
    let first = journal.reader(&[], None).read(3, NOW).unwrap();
    assert_eq!(texts(&first), [""; 0]);
    let second = journal.reader(&[], Some(&first.position)).read(10, NOW).unwrap();
    assert_eq!(texts(&second), ["a1a2a3", "a4", "b1b2"]);
}

#[test]
fn long_messages_are_cut_and_counted() {
    let mut batch = Batch::default();
    let start = "x".repeat(MAX_MESSAGE - 1);
    assert_eq!(batch.joined(start.clone(), "ü").len(), MAX_MESSAGE - 1);
    assert_eq!((batch.truncated, batch.truncated_bytes), (1, 2));
    assert_eq!(batch.joined(start, "yz").len(), MAX_MESSAGE);
    assert_eq!((batch.truncated, batch.truncated_bytes), (2, 3));
}

/// The same entries as `journalctl` gives, which reads the same files.
#[test]
fn matches_mean_what_journalctl_means() {
    let mut journal = TestJournal::new();
    let entry = |message, unit, pid| [("MESSAGE", message), ("_SYSTEMD_UNIT", unit), ("_PID", pid)];
    let entries = [
        entry("1", "a.service", "1"),
        entry("2", "a.service", "2"),
        entry("3", "b.service", "1"),
        entry("4", "b.service", "3"),
        entry("5=x", "c=d", "3"),
    ];
    for fields in &entries {
        journal.add("system.journal", &[fields]);
    }
    for matches in [
        &[][..],
        &["_SYSTEMD_UNIT=a.service"],
        &["_SYSTEMD_UNIT=a.service", "_PID=1"],
        &["_PID=1", "_PID=3"],
        &["_SYSTEMD_UNIT=b.service", "_PID=1", "_PID=3"],
        &["_SYSTEMD_UNIT=a.service", "+", "_PID=3"],
        &["_SYSTEMD_UNIT=a.service", "_PID=2", "+", "_SYSTEMD_UNIT=b.service", "_PID=1"],
        &["_SYSTEMD_UNIT=c=d"],
        &["_PID=9"],
    ] {
        let mut said = Command::new("journalctl");
        said.arg("--file").arg(journal.dir.path().join("system.journal")).args(["-o", "cat", "-q"]).args(matches);
        let expected = String::from_utf8(said.output().unwrap().stdout).unwrap();
        let expected: Vec<_> = expected.lines().collect();
        assert_eq!(texts(&journal.reader(matches, None).read(10, NOW).unwrap()), expected, "{matches:?}");
    }
}

#[test]
fn matches_that_are_none() {
    for bad in [&["x"][..], &["=x"], &["X="], &["+"], &["+", "A=b"]] {
        assert!(Matches::parse(bad).is_err(), "{bad:?}");
    }
    // As in the reference, a `+` too many joins nothing.
    let joined = Matches::parse(&["A=b", "+", "C=d"]).unwrap();
    assert_eq!(Matches::parse(&["A=b", "+", "+", "C=d", "+"]).unwrap(), joined);
}

/// Names are those of the vectors; the cursor is one that systemd made.
#[test]
fn the_references_cursor_is_taken_over() {
    let matches = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let docker = matches(&["_SYSTEMD_UNIT=docker.service", "_TRANSPORT=journal"]);
    assert_eq!(reference_cursor_name("Logs", "Docker", &docker), "journal_Logs_Docker_f609eb40002f5b21.cursor");
    assert_eq!(reference_cursor_name("Logs", "T", &[]), "journal_Logs_T_ef46db3751d8e999.cursor");
    assert_eq!(reference_cursor_name("database/20", "T", &matches(&["a", "b"])), "journal_database_20_T_65f708ca92d04a61.cursor");
    let mut journal = TestJournal::new();
    journal.messages(&["1", "2", "3"]);
    let mut said = Command::new("journalctl");
    said.arg("--file").arg(journal.dir.path().join("system.journal")).args(["-o", "json", "-n", "2", "-q"]);
    let json = String::from_utf8(said.output().unwrap().stdout).unwrap();
    let second: serde_json::Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
    assert_eq!(second["MESSAGE"], "2");
    let cursor = serde_json::json!({ "cursor": second["__CURSOR"] }).to_string();
    fs::write(journal.dir.path().join("journal_Logs_T_ef46db3751d8e999.cursor"), cursor).unwrap();
    let position = reference_position(journal.dir.path(), "Logs", "T", &[]).unwrap();
    assert_eq!(texts(&journal.reader(&[], Some(&position)).read(10, NOW).unwrap()), ["3"]);
    assert_eq!(reference_position(journal.dir.path(), "Logs", "Other", &[]), None);
}

#[test]
fn positions_of_other_versions_are_refused() {
    let journal = TestJournal::new();
    let target = journal.reader(&[], None).target;
    for bytes in ["", "{}", r#"{"version":9,"files":{},"realtime":0,"after":null,"partial":{}}"#] {
        assert!(Reader::new(target.clone(), Some(bytes.as_bytes())).is_err(), "{bytes}");
    }
}
