//! `adx-mon wal`: what it says of directories of ours, running, closed and damaged, and of the reference's files.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use ::wal::{Options, Outcome, RealDisk, Request, Section, SectionBody, Settlement, Store, TableKey};
use serde_json::Value;
use tempfile::TempDir;
use transfer::receiver::{ReceiverOptions, router};

const PAGE: &str = include_str!("../../../../docs/wal.md");
const HEADER: &str = "Timestamp:datetime,Labels:dynamic,Value:long\n";

fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/wal")
}

fn now_ms() -> u64 {
    std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64
}

fn open(dir: &Path) -> Store {
    Store::open(Options::new(dir), RealDisk::new(), now_ms()).unwrap().0
}

fn row(n: u64) -> String {
    format!("2026-01-01T00:00:00Z,\"{{\"\"n\"\":{n}}}\",{n}\n")
}

fn add(store: &Store, table: &str, numbers: std::ops::Range<u64>) {
    let section = Section {
        table: TableKey::new("Db", table, "abc123"),
        header: Arc::from(HEADER.as_bytes()),
        sample_type: 1,
        rows: (numbers.end - numbers.start) as u32,
        body: SectionBody::Rows(numbers.map(row).collect::<String>().into_bytes()),
    };
    let marks = vec![(format!("tail/{table}").into_bytes(), b"7".to_vec())];
    store.commit_wait(Request { sections: vec![section], marks, ..Request::default() }).unwrap();
}

/// Sealed: Cpu 0..5; dead: Mem; forwarded: Net; in the journal alone: Cpu 5..8.
fn busy(dir: &Path) -> Store {
    let store = open(dir);
    add(&store, "Cpu", 0..5);
    add(&store, "Mem", 100..102);
    add(&store, "Net", 200..203);
    store.seal_all().unwrap();
    for info in store.sealed() {
        let outcome = match &*info.table.table {
            "Mem" => Outcome::DeadLettered,
            "Net" => Outcome::Forwarded,
            _ => continue,
        };
        let item = Settlement { segment: info.id, outcome, reason: "too old".to_owned(), maybe_duplicate: false };
        store.settle_wait(vec![item]).unwrap();
    }
    add(&store, "Cpu", 5..8);
    store
}

fn adx_mon(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_adx-mon")).arg("wal").args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Standard output of a command that succeeds and complains of nothing.
fn said(arguments: &[&str]) -> String {
    let output = adx_mon(arguments);
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""), "{arguments:?}: {}", text(&output.stdout));
    text(&output.stdout)
}

fn objects(arguments: &[&str]) -> Vec<Value> {
    said(arguments).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn directory() -> (TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap().to_owned();
    (dir, path)
}

#[test]
fn a_directory_is_shown_while_its_owner_runs() {
    let (dir, path) = directory();
    let store = busy(dir.path());
    let listed = objects(&["ls", "--format", "json", &path]);
    let brief = |object: &Value| (object["table"].clone(), object["state"].clone(), object["rows"].clone());
    let expected: [(Value, Value, Value); 3] =
        [("Cpu", "sealed", 5), ("Cpu", "journal", 3), ("Mem", "dead", 2)].map(|(t, s, r)| (t.into(), s.into(), r.into()));
    assert_eq!(listed.iter().map(brief).collect::<Vec<_>>(), expected);
    assert_eq!(listed[2]["reason"], "too old");
    assert_eq!(listed[0]["bytes"], store.sealed()[0].bytes);

    let table = said(&["ls", &path]);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines[0].split_whitespace().collect::<Vec<_>>(), ["DATABASE", "TABLE", "SCHEMA", "STATE", "ROWS", "BYTES", "AGE", "FILE"]);
    assert!(lines[0].split_whitespace().all(|title| PAGE.contains(&format!("`{title}`"))));
    // The end of a column of numbers is where its title ends.
    let end = lines[0].find("ROWS").unwrap() + 4;
    assert!(lines[1..4].iter().zip(["5", "3", "2"]).all(|(line, rows)| line[..end].ends_with(rows)), "{table}");
    assert!(lines[4].starts_with("total: 10 rows"), "{table}");

    let rows: String = (0..8).map(row).collect();
    assert_eq!(said(&["cat", "--table", "Cpu", &path]), format!("{HEADER}{rows}"));
    assert_eq!(said(&["cat", "--no-header", &path]), rows);
    assert_eq!(said(&["cat", "--table", "Other", &path]), "");
    let third = &objects(&["cat", "--format", "json", &path])[2];
    assert_eq!(third, &serde_json::json!({ "Timestamp": "2026-01-01T00:00:00Z", "Labels": { "n": 2 }, "Value": 2 }));

    let stat = &objects(&["stat", "--format", "json", &path])[0];
    let counts =
        |name: &str| -> Vec<u64> { stat["tables"].as_array().unwrap().iter().map(|table| table[name].as_u64().unwrap()).collect() };
    assert_eq!((counts("accepted"), counts("on_disk")), (vec![8, 2, 3], vec![8, 0, 0]));
    assert_eq!((counts("dead_lettered"), counts("forwarded")), (vec![0, 2, 0], vec![0, 0, 3]));
    let hex: String = store.sender_id().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(stat["journal"]["sender"], hex);
    assert_eq!(stat["journal"]["marks"][0], serde_json::json!({ "key": "tail/Cpu", "value": "7" }));
    let stat = said(&["stat", &path]);
    assert!(
        stat.contains(&hex) && stat.contains("mark: tail/Net: 7") && stat.contains(&format!("lowest unsettled {}", store.floor("Db"))),
        "{stat}"
    );

    assert!(said(&["verify", &path]).contains("nothing is damaged"));
    let repair = adx_mon(&["repair", "--yes", &path]);
    assert_eq!(repair.status.code(), Some(1));
    assert!(text(&repair.stderr).contains("is in use by another process"), "{repair:?}");
    let replay = adx_mon(&["replay", "--to", "http://127.0.0.1:9", &path]);
    assert!(text(&replay.stderr).contains("in use"), "{replay:?}");
    store.close();
}

#[test]
fn damage_is_named_and_repaired() {
    let (dir, path) = directory();
    let store = busy(dir.path());
    let file = store.sealed()[0].path.clone();
    store.close();
    let mut image = std::fs::read(&file).unwrap();
    image[30] ^= 1;
    std::fs::write(&file, &image).unwrap();

    let verified = adx_mon(&["verify", "--format", "json", &path]);
    assert_eq!(verified.status.code(), Some(1));
    let verified: Value = serde_json::from_slice(&verified.stdout).unwrap();
    let finding = &verified["findings"][0];
    let kind = "block checksum verification failed";
    assert_eq!((&finding["offset"], &finding["rows_lost"], &finding["kind"]), (&8.into(), &5.into(), &kind.into()));
    assert_eq!(finding["path"], file.to_str().unwrap());
    let cat = adx_mon(&["cat", "--no-header", &path]);
    assert_eq!((cat.status.code(), text(&cat.stdout)), (Some(1), (5..8).map(row).collect()));
    assert!(text(&cat.stderr).contains("at byte 8"), "{cat:?}");

    let plan = said(&["repair", &path]);
    assert!(plan.contains("5 rows lost") && plan.contains("nothing was changed"), "{plan}");
    assert_eq!(std::fs::read(&file).unwrap(), image);
    said(&["repair", "--yes", &path]);
    let states: Vec<Value> = objects(&["ls", "--format", "json", &path]).into_iter().map(|object| object["state"].clone()).collect();
    assert!(states.contains(&"quarantined".into()), "{states:?}");
    let stat = &objects(&["stat", "--format", "json", &path])[0];
    assert_eq!((&stat["tables"][0]["quarantined"], &stat["tables"][0]["on_disk"]), (&5.into(), &3.into()));
}

#[test]
fn the_end_of_a_pipe_and_missing_files() {
    let (dir, path) = directory();
    let store = open(dir.path());
    add(&store, "Cpu", 0..100_000);
    store.close();
    let command = format!("{} wal cat {path} | head -n 1", env!("CARGO_BIN_EXE_adx-mon"));
    let output = Command::new("sh").args(["-c", &command]).output().unwrap();
    assert_eq!((text(&output.stdout).as_str(), text(&output.stderr).as_str()), (HEADER, ""));
    for (command, code) in [("verify", 2), ("ls", 1), ("cat", 1)] {
        let output = adx_mon(&[command, "/no/such/place"]);
        assert_eq!(output.status.code(), Some(code), "{command}");
        assert!(text(&output.stderr).contains("/no/such/place"), "{output:?}");
    }
}

#[test]
fn files_of_the_reference_are_read() {
    let manifest: Value = serde_json::from_slice(&std::fs::read(vectors().join("manifest.json")).unwrap()).unwrap();
    let mut seen = 0;
    for file in manifest["files"].as_array().unwrap().iter().filter(|file| file["verify"]["error"].is_null()) {
        let name = file["file"].as_str().unwrap();
        // Names with a schema say that blocks begin with a header line.
        if name.split('_').count() != 4 || !name.starts_with(['M', 'L']) {
            continue;
        }
        let path = vectors().join(name);
        let path = path.to_str().unwrap();
        assert_eq!(said(&["cat", "--no-header", path]), file["reader_skip_first_line_of_each_block"].as_str().unwrap(), "{name}");
        assert!(said(&["verify", path]).contains(&format!("{} blocks", file["verify"]["blocks"])), "{name}");
        seen += 1;
    }
    assert_eq!(seen, 2);
    let damaged = adx_mon(&["verify", vectors().join("crc_mismatch_middle.wal").to_str().unwrap()]);
    assert_eq!(damaged.status.code(), Some(1));
    assert!(text(&damaged.stdout).contains("block checksum verification failed at byte 204"), "{damaged:?}");
}

/// An ingestor's intake over a store of its own, for as long as the runtime is there.
fn ingestor(runtime: &tokio::runtime::Runtime, store: &Store) -> String {
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = router(store.clone(), ReceiverOptions::default(), Arc::new(|| Ok(())));
    runtime.spawn(async move { axum::serve(listener, router).await });
    url
}

#[test]
fn what_waits_is_sent_and_settled_when_asked_for() {
    let (dir, path) = directory();
    let (running, _) = directory();
    let store = busy(running.path());
    // As a kill leaves it: some rows are in the journal alone.
    let copied = Command::new("cp").args(["-r", &format!("{}/.", running.path().display()), &path]).status().unwrap();
    assert!(copied.success());
    store.close();
    let (receiving, _) = directory();
    let receiver = open(receiving.path());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let url = ingestor(&runtime, &receiver);
    let accepted = || receiver.ledger().total().accepted;

    let first = said(&["replay", "--to", &url, &path]);
    assert!(first.contains(": stored") && first.contains("with 8 rows taken, 0 not"), "{first}");
    assert_eq!(accepted(), 8);
    let again = said(&["replay", "--to", &url, &path]);
    assert!(again.contains("was there already") && !again.contains(": stored"), "{again}");
    assert_eq!(accepted(), 8);
    assert_eq!(said(&["cat", "--no-header", &path]).lines().count(), 8);

    said(&["replay", "--settle", "--to", &url, &path]);
    let stat = &objects(&["stat", "--format", "json", &path])[0];
    assert_eq!((&stat["tables"][0]["forwarded"], &stat["tables"][0]["on_disk"]), (&8.into(), &0.into()));

    let name = "Metrics_HttpRequestsTotal_2cawzsrvl4mw4_2f5d0c3e517e4000.wal";
    let file = dir.path().join("elsewhere").join(name);
    std::fs::create_dir(file.parent().unwrap()).unwrap();
    std::fs::copy(vectors().join(name), &file).unwrap();
    assert!(said(&["replay", "--to", &url, file.to_str().unwrap()]).contains(&format!("{name}: 5 rows: stored")));
    assert!(file.exists());
    said(&["replay", "--settle", "--to", &url, file.to_str().unwrap()]);
    assert!(!file.exists());

    let refused = dir.path().join("elsewhere").join("not-a-name.wal");
    std::fs::copy(vectors().join(name), &refused).unwrap();
    let output = adx_mon(&["replay", "--to", &url, refused.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("refused: 400"), "{output:?}");
    receiver.close();
}

#[test]
fn the_commands_of_the_page_run() {
    let folder = tempfile::tempdir().unwrap();
    busy(&folder.path().join("collector")).close();
    let reference = folder.path().join("reference");
    std::fs::create_dir(&reference).unwrap();
    let whole = "Metrics_HttpRequestsTotal_2cawzsrvl4mw4_2f5d0c3e517e4000.wal";
    std::fs::copy(vectors().join(whole), reference.join(whole)).unwrap();
    std::fs::copy(vectors().join("crc_mismatch_middle.wal"), reference.join("Metrics_Damaged_x_2f5d0c3e517e4000.wal")).unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_adx-mon"));
    let path = format!("{}:{}", program.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let blocks: Vec<&str> = PAGE.split("\n```").skip(1).step_by(2).filter_map(|block| block.strip_prefix("sh\n")).collect();
    assert!(blocks.len() >= 6);
    for block in blocks {
        let output = Command::new("sh").args(["-ec", block]).current_dir(folder.path()).env("PATH", &path).output().unwrap();
        assert!(output.status.success() && !output.stdout.is_empty(), "{block}\n{}", text(&output.stderr));
    }
    // What the page repairs is whole afterwards.
    assert!(said(&["verify", reference.to_str().unwrap()]).contains("nothing is damaged"));
}
