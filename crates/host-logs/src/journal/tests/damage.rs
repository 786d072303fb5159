//! Journals with entries that cannot be read: their neighbours are, and what is left out is counted.

use std::path::PathBuf;

use super::*;

const ENTRY: u8 = 3;
const ENTRY_ARRAY: u8 = 6;

/// A file of a journal in memory, to be damaged.
struct JournalBytes {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl JournalBytes {
    fn read(journal: &TestJournal, name: &str) -> JournalBytes {
        let path = journal.dir.path().join(name);
        JournalBytes { bytes: fs::read(&path).unwrap(), path }
    }

    fn write(self) {
        fs::write(self.path, self.bytes).unwrap();
    }

    fn number(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.bytes[at..at + 8].try_into().unwrap())
    }

    /// Places of the objects of a type, which stand one behind the other at multiples of eight bytes.
    fn objects(&self, kind: u8) -> Vec<usize> {
        let (mut at, last) = (self.number(88) as usize, self.number(136) as usize);
        let mut found = Vec::new();
        while at <= last {
            found.extend((self.bytes[at] == kind).then_some(at));
            at += (self.number(at + 8) as usize).next_multiple_of(8);
        }
        found
    }

    fn find(&self, text: &[u8]) -> usize {
        self.bytes.windows(text.len()).position(|window| window == text).unwrap()
    }
}

/// Reads until there is no more: the messages, and how many entries were skipped.
fn read_all(reader: &mut Reader) -> (Vec<String>, u64) {
    let (mut messages, mut skipped) = (Vec::new(), 0);
    for _ in 0..100 {
        let batch = reader.read(10, NOW).unwrap();
        messages.extend(texts(&batch).into_iter().map(str::to_owned));
        skipped += batch.skipped;
        if !batch.more {
            return (messages, skipped);
        }
    }
    panic!("it does not end: {messages:?}");
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

/// The entry as such, one of its fields, one of its fields that is compressed, and its number.
#[test]
fn a_damaged_entry_is_left_out_wherever_it_stands() {
    let long = "x".repeat(600);
    let damages: [fn(&mut JournalBytes, usize); 4] = [
        |file, i| {
            let at = file.objects(ENTRY)[i];
            file.bytes[at] = 0x5a;
        },
        |file, i| {
            let at = file.find(format!("MESSAGE={i}").as_bytes());
            file.bytes[at + 7] = b'#';
        },
        |file, i| {
            let zstd: Vec<_> = (0..file.bytes.len() - 4).filter(|at| file.bytes[*at..].starts_with(&[0x28, 0xb5, 0x2f, 0xfd])).collect();
            file.bytes[zstd[i] + 4..][..8].fill(0xff);
        },
        |file, i| {
            let at = file.objects(ENTRY)[i] + 16;
            file.bytes[at..at + 8].fill(0xf1);
        },
    ];
    let mut made = TestJournal::new();
    for i in 0..5 {
        let (text, long) = (i.to_string(), format!("{i}{long}"));
        made.add("system.journal", &[&[("MESSAGE", &text), ("LONG", &long)]]);
    }
    made.add("user.journal", &[&[("MESSAGE", "new")]]);
    let copy = |journal: &TestJournal, name: &str| fs::copy(made.dir.path().join(name), journal.dir.path().join(name)).unwrap();
    for (kind, damage) in damages.iter().enumerate() {
        for bad in 0..5 {
            // Read so far: nothing, or what leaves a place to be found among damaged entries.
            for read in [0, 2] {
                let journal = TestJournal::new();
                copy(&journal, "system.journal");
                let mut reader = journal.reader(&[], None);
                let mut position = None;
                if read > 0 {
                    position = Some(reader.read(read, NOW).unwrap().position);
                }
                let mut file = JournalBytes::read(&journal, "system.journal");
                damage(&mut file, bad);
                file.write();
                let expected: Vec<_> = (read..5).filter(|i| *i != bad).map(|i| i.to_string()).collect();
                let case = format!("kind {kind}, entry {bad} damaged, {read} read");
                let (messages, skipped) = read_all(&mut reader);
                assert_eq!(messages, expected, "{case}");
                assert!(if bad < read { skipped <= 1 } else { skipped == 1 }, "{case}: {skipped}");
                assert_eq!(read_all(&mut journal.reader(&[], position.as_deref())).0, expected, "{case}, after a restart");
                // What is added to another file is read, and nothing is counted again.
                copy(&journal, "user.journal");
                let (messages, again) = read_all(&mut reader);
                assert_eq!((messages, again), (strings(&["new"]), 0), "{case}");
            }
        }
    }
}

/// The same over a restart, whose reader knows the position alone.
#[test]
fn the_position_moves_past_damaged_entries() {
    let mut journal = TestJournal::new();
    journal.messages(&["1", "2", "3"]);
    let mut file = JournalBytes::read(&journal, "system.journal");
    let [_, second, third] = file.objects(ENTRY)[..] else { panic!() };
    (file.bytes[second], file.bytes[third]) = (0x5a, 0x5a);
    file.write();
    let mut reader = journal.reader(&[], None);
    let mut position = Vec::new();
    let mut skipped = 0;
    loop {
        let batch = reader.read(10, NOW).unwrap();
        position = if batch.position.is_empty() { position } else { batch.position };
        skipped += batch.skipped;
        if !batch.more {
            break;
        }
    }
    assert_eq!(skipped, 2);
    journal.add("user.journal", &[&[("MESSAGE", "4")]]);
    assert_eq!(read_all(&mut journal.reader(&[], Some(&position))).0, ["4"]);
}

#[test]
fn a_file_with_a_damaged_index_does_not_keep_others_from_being_read() {
    let mut journal = TestJournal::new();
    journal.messages(&["1", "2"]);
    journal.add("user.journal", &[&[("MESSAGE", "3")]]);
    let mut file = JournalBytes::read(&journal, "system.journal");
    let first = file.number(176) as usize;
    assert!(file.objects(ENTRY_ARRAY).contains(&first));
    file.bytes[first] = 0x5a;
    file.write();
    let mut reader = journal.reader(&[], None);
    assert_eq!(read_all(&mut reader), (strings(&["3"]), 1));
    journal.add("user.journal", &[&[("MESSAGE", "4")]]);
    assert_eq!(read_all(&mut reader), (strings(&["4"]), 0));
}

#[test]
fn a_file_whose_end_is_missing_does_not_keep_others_from_being_read() {
    let mut journal = TestJournal::new();
    journal.messages(&["1"]);
    journal.add("user.journal", &[&[("MESSAGE", "2")]]);
    let mut file = JournalBytes::read(&journal, "system.journal");
    file.bytes.truncate(file.bytes.len() / 2);
    file.write();
    let batch = journal.reader(&[], None).read(10, NOW).unwrap();
    assert_eq!((texts(&batch), batch.unreadable), (vec!["2"], 1));
}

/// What the library of journal files refuses without being told otherwise: 256 fields, and a field of a mebibyte.
#[test]
fn large_entries_are_cut_or_left_out_and_their_neighbours_are_read() {
    let mut journal = TestJournal::new();
    let names: Vec<_> = (0..900).map(|i| format!("F{i}")).collect();
    let long = "y".repeat(2 << 20);
    let many = |message, count: usize| -> Vec<(&str, &str)> {
        names[..count].iter().map(|name| (name.as_str(), "x")).chain([("MESSAGE", message)]).collect()
    };
    journal.messages(&["1"]);
    journal.add("system.journal", &[&many("2", 900)]);
    journal.add("system.journal", &[&[("MESSAGE", &long)]]);
    journal.add("system.journal", &[&many("4", 300)]);
    journal.add("system.journal", &[&[("MESSAGE", "5"), ("_SYSTEMD_UNIT", &long)]]);
    // Many fields, and long ones.
    journal.add("system.journal", &[&many(&long, 300)]);
    journal.messages(&["7"]);
    let mut reader = journal.reader(&[], None);
    let (mut records, mut skipped, mut cut) = (Vec::new(), 0, (0, 0));
    loop {
        let batch = reader.read(10, NOW).unwrap();
        skipped += batch.skipped;
        cut = (cut.0 + batch.truncated, cut.1 + batch.truncated_bytes);
        records.extend(batch.records);
        if !batch.more {
            break;
        }
    }
    let messages: Vec<_> = records.iter().map(|record| record.body[logs::MESSAGE].as_str().unwrap()).collect();
    let lengths: Vec<_> = messages.iter().map(|message| message.len()).collect();
    assert_eq!(lengths, [1, 1, 1 << 20, 1, 1, 1]);
    assert!(messages[2].starts_with("yy") && messages[5] == "7");
    assert_eq!(records[4].resource["_SYSTEMD_UNIT"].as_str().unwrap().len(), 1 << 20);
    assert_eq!((skipped, cut), (1, (2, 2 << 20)));
    assert_eq!(read_all(&mut reader), (Vec::new(), 0));
}

/// journald names a file so that it finds unclean at its start.
#[test]
fn a_file_that_journald_set_aside_is_read_to_its_end() {
    let mut journal = TestJournal::new();
    journal.messages(&["1", "2"]);
    let mut reader = journal.reader(&[], None);
    reader.read(1, NOW).unwrap();
    let path = |name: &str| journal.dir.path().join(name);
    fs::rename(path("system.journal"), path("system@0006.journal~")).unwrap();
    journal.messages(&["3"]);
    assert_eq!(read_all(&mut reader), (strings(&["2", "3"]), 0));
}

/// Opening it would wait for a writer.
#[test]
fn a_named_pipe_is_no_journal() {
    let mut journal = TestJournal::new();
    journal.messages(&["1"]);
    assert!(Command::new("mkfifo").arg(journal.dir.path().join("pipe.journal")).status().unwrap().success());
    let batch = journal.reader(&[], None).read(10, NOW).unwrap();
    assert_eq!((texts(&batch), batch.unreadable), (vec!["1"], 1));
}

#[test]
fn the_disk_is_tried_longer_than_what_is_damaged() {
    let damaged = || SdJournalError::Corrupt { path: Some("/a".into()), offset: Some(8), reason: "x".to_owned() };
    let disk = || SdJournalError::Io { op: "read_at", path: Some("/b".into()), source: Error::other("x") };
    let mut troubles = troubles::Troubles::default();
    let mut answer = |error: SdJournalError| {
        troubles.begin();
        troubles.answer(&error, true)
    };
    assert_eq!([answer(damaged()), answer(damaged()), answer(damaged())], [Answer::Again, Answer::Skip, Answer::Known]);
    for _ in 0..4 {
        assert_eq!(answer(disk()), Answer::Fail);
    }
    assert_eq!([answer(disk()), answer(disk())], [Answer::Skip, Answer::Known]);
}
