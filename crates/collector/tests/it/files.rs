//! Log files into the store: formats, several lines, restarts, cursors of the reference, a store that refuses.

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::Collector;

pub(crate) fn accepted(database: &str) -> String {
    format!("adxmon_ledger_rows{{database=\"{database}\",state=\"accepted\"}}")
}

pub(crate) fn append(path: &Path, text: &str) {
    std::fs::File::options().create(true).append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

pub(crate) fn target(path: &str, more: &str) -> String {
    format!(
        "[[host-log]]\ndisable-kube-discovery = true\nadd-attributes = {{ cluster = 'c' }}\n[[host-log.file-target]]\nfile-path = '{path}'\ndatabase = 'Logs'\ntable = 'App'\n{more}\n"
    )
}

/// `Body` and `Resource` of all rows in the store of a collector that has ended.
fn rows(dir: &TempDir) -> Vec<(Value, Value)> {
    let options = wal::Options { durability: wal::Durability::Process, ..wal::Options::new(dir.path()) };
    let (store, _) = wal::Store::open(options, wal::RealDisk::new(), 0).unwrap();
    store.seal_all().unwrap();
    let mut rows = Vec::new();
    for segment in store.sealed() {
        let text = wal::segment::values(&store.read_segment(segment.id).unwrap(), true);
        for row in csv::ReaderBuilder::new().has_headers(false).from_reader(&text[..]).records() {
            let row = row.unwrap();
            rows.push((serde_json::from_str(&row[6]).unwrap(), serde_json::from_str(&row[7]).unwrap()));
        }
    }
    store.close();
    rows
}

pub(crate) fn messages(dir: &TempDir) -> Vec<String> {
    rows(dir).into_iter().map(|(body, _)| body["message"].as_str().unwrap_or_default().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_of_containers_are_joined_parsed_and_go_on_after_a_restart() {
    let logs = tempfile::tempdir().unwrap();
    let path = logs.path().join("c.log");
    let settings = target(&format!("{}/*.log", logs.path().display()), "log-type = 'cri'\nparsers = ['json']\nexclude = ['**/debug.log']");
    append(&path, "2024-01-02T03:04:05Z stdout F {\"level\":\"error\",\"n\":1}\n2024-01-02T03:04:06Z stdout P be");
    append(&logs.path().join("debug.log"), "2024-01-02T03:04:05Z stdout F no\n");
    let collector = Collector::start("", &settings).await;
    collector.until(&accepted("Logs"), |rows| rows == 1.0).await;
    append(&path, "gin \n");
    collector.until("adxmon_collector_tail_read_bytes_total", |bytes| bytes > 90.0).await;
    let dir = collector.stop().await;
    append(&path, "2024-01-02T03:04:07Z stdout F and end\n");
    std::fs::rename(&path, logs.path().join("c.log.1")).unwrap();
    append(&path, "2024-01-02T03:04:08Z stderr F last\n");
    let collector = Collector::start_in(dir, "", &settings).await;
    collector.until(&accepted("Logs"), |rows| rows == 3.0).await;
    assert_eq!(collector.metric("adxmon_collector_tail_files").await, Some(1.0));
    assert_eq!(collector.metric("adxmon_collector_tail_lag_bytes{target=\"Logs.App\"}").await.unwrap_or_default(), 0.0);
    let sent = "adxmon_collector_logs_sent{source=\"tailsource\",sink=\"StoreSink\"}";
    assert_eq!(collector.metric(sent).await, Some(2.0), "{sent}");
    let rows = rows(&collector.stop().await);
    assert_eq!(rows[0].0, serde_json::json!({"level": "error", "n": 1, "stream": "stdout"}));
    assert_eq!(rows[0].1["cluster"], "c");
    assert_eq!(rows[1].0["message"], "begin and end");
    assert_eq!(rows[2].0, serde_json::json!({"message": "last", "stream": "stderr"}));
}

/// The kubelet rotates without regard to parts: the end of a message is in the next file, also when that is found after a restart.
#[tokio::test(flavor = "multi_thread")]
async fn parts_are_joined_from_file_to_file() {
    let logs = tempfile::tempdir().unwrap();
    let path = logs.path().join("c.log");
    let settings = target(&path.display().to_string(), "log-type = 'cri'");
    let line = |tag: &str, text: &str| format!("2024-01-02T03:04:05Z stdout {tag} {text}\n");
    let read = async |collector: &Collector, length: usize| {
        collector.until("adxmon_collector_tail_read_bytes_total", |bytes| bytes >= length as f64).await;
    };
    append(&path, &line("P", "one "));
    let collector = Collector::start("", &settings).await;
    read(&collector, line("P", "one ").len()).await;
    std::fs::rename(&path, logs.path().join("c.log.1")).unwrap();
    append(&path, &(line("F", "two") + &line("P", "three ")));
    collector.until(&accepted("Logs"), |rows| rows == 1.0).await;
    read(&collector, 2 * line("P", "one ").len() + line("P", "three ").len() - 1).await;
    let dir = collector.stop().await;
    std::fs::rename(&path, logs.path().join("c.log.2")).unwrap();
    append(&path, &line("F", "four"));
    let collector = Collector::start_in(dir, "", &settings).await;
    collector.until(&accepted("Logs"), |rows| rows == 2.0).await;
    assert_eq!(messages(&collector.stop().await), ["one two", "three four"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_of_an_event_are_one_row_and_long_ones_are_cut() {
    let logs = tempfile::tempdir().unwrap();
    let path = logs.path().join("app.log");
    append(&path, &format!("1 one\n  at a\n  at b\n2 two {}\n", "x".repeat(200)));
    let settings = target(&path.display().to_string(), "multi-line = { first-line = '^\\d' }\nmax-line-bytes = 100");
    let collector = Collector::start("", &settings).await;
    // The second one waits for lines that do not come.
    collector.until(&accepted("Logs"), |rows| rows == 2.0).await;
    assert!(collector.metric("adxmon_collector_logs_truncated_bytes_total{source=\"tailsource\"}").await.unwrap() > 90.0);
    let messages = messages(&collector.stop().await);
    assert_eq!(messages[0], "1 one\n  at a\n  at b");
    assert_eq!(messages[1].len(), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn cursors_of_the_reference_are_taken_over() {
    let (logs, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = logs.path().join("app.log");
    append(&path, "read before\nnew\n");
    let meta = path.metadata().unwrap();
    let cursor = dir.path().join(format!("{}.cursor", path.display().to_string().replace('/', "_")));
    std::fs::write(&cursor, format!("{{\"fid\":\"{}:{}\",\"cursor\":12}}\n", meta.dev(), meta.ino())).unwrap();
    let settings = target(&path.display().to_string(), "");
    let collector = Collector::start_in(dir, "", &settings).await;
    collector.until(&accepted("Logs"), |rows| rows == 1.0).await;
    let dir = collector.stop().await;
    assert!(!cursor.exists() && cursor.with_extension("cursor-taken-over").exists());
    append(&path, "newer\n");
    let collector = Collector::start_in(dir, "", &settings).await;
    collector.until(&accepted("Logs"), |rows| rows == 2.0).await;
    assert_eq!(messages(&collector.stop().await), ["new", "newer"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_refuses_stops_the_reading_and_nothing_is_lost() {
    let logs = tempfile::tempdir().unwrap();
    let path = logs.path().join("app.log");
    let settings = target(&path.display().to_string(), "");
    let collector = Collector::start("max-database-disk-usage = 200", &settings).await;
    let lines = 200_000;
    append(&path, &(0..lines).map(|n| format!("line {n} {}\n", "y".repeat(100))).collect::<String>());
    // What may be in flight is read, and no more.
    collector.until("adxmon_collector_tail_read_bytes_total", |bytes| bytes > 4e6).await;
    collector.until("adxmon_collector_tail_lag_bytes{target=\"Logs.App\"}", |bytes| bytes > 1e7).await;
    let dir = collector.stop().await;
    let collector = Collector::start_in(dir, "", &settings).await;
    collector.until(&accepted("Logs"), |rows| rows >= f64::from(lines)).await;
    let messages = messages(&collector.stop().await);
    assert_eq!(messages.len(), usize::try_from(lines).unwrap());
    for (n, message) in messages.iter().enumerate() {
        assert!(message.split(' ').nth(1) == Some(&n.to_string()), "{n}: {message}");
    }
}

/// Lines of CRI with every fault that a line can have: all are stored, but for the empty one.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_lines_is_counted() {
    let logs = tempfile::tempdir().unwrap();
    let path = logs.path().join("c.log");
    let long = "x".repeat(300);
    let lines: [&[u8]; 8] = [
        b"2024-01-02T03:04:05Z stdout F fine",
        b"not of the format",
        b"nor this one",
        b"2024-99-99T03:04:05Z stdout F of no known time",
        b"",
        b"2024-01-02T03:04:05Z stdout F nul \0 and \xff\xfe",
        format!("2024-01-02T03:04:05Z stdout F {long}").leak().as_bytes(),
        // Each part is below the limit, their sum is not.
        format!("2024-01-02T03:04:05Z stdout P {}\n2024-01-02T03:04:05Z stdout F {}", &long[..150], &long[..150]).leak().as_bytes(),
    ];
    std::fs::write(&path, [lines.join(&b'\n'), b"\n".to_vec()].concat()).unwrap();
    let collector = Collector::start("", &target(&path.display().to_string(), "log-type = 'cri'\nmax-line-bytes = 200")).await;
    let source = "source=\"tailsource\"";
    let counts = [
        (format!("adxmon_collector_log_lines_total{{{source}}}"), 9.0),
        (format!("adxmon_collector_log_messages_total{{{source}}}"), 7.0),
        (problem("format"), 2.0),
        (problem("time"), 1.0),
        (problem("empty"), 1.0),
        (problem("utf8"), 1.0),
        (problem("cut"), 2.0),
        (format!("adxmon_collector_logs_truncated_bytes_total{{{source}}}"), 30.0 + 300.0 - 200.0 + 100.0),
    ];
    for (name, count) in counts {
        let got = collector.until(&name, |_| true).await;
        assert_eq!(got, count, "{name}");
    }
    collector.until(&accepted("Logs"), |rows| rows == 7.0).await;
    let messages = messages(&collector.stop().await);
    assert_eq!(messages[1..4], ["not of the format", "nor this one", "of no known time"]);
    assert_eq!(messages[4], "nul \0 and \u{fffd}\u{fffd}");
}

pub(crate) fn problem(kind: &str) -> String {
    format!("adxmon_collector_log_line_problems_total{{source=\"tailsource\",problem=\"{kind}\"}}")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_transforms_of_files_drop_is_counted() {
    let logs = tempfile::tempdir().unwrap();
    let path = logs.path().join("app.log");
    append(&path, "noise 1\nsignal\nnoise 2\n");
    let drop = "[[host-log.transforms]]\nname = 'drop'\nconfig = { all = [{ field = 'Body.message', matches = '^noise' }] }";
    let collector = Collector::start("", &target(&path.display().to_string(), drop)).await;
    collector.until(&accepted("Logs"), |rows| rows == 1.0).await;
    collector.until("adxmon_collector_logs_dropped{source=\"tailsource\",stage=\"drop\"}", |count| count == 2.0).await;
    assert_eq!(messages(&collector.stop().await), ["signal"]);
}

/// A file system that does not answer, as NFS without its server: here a pipe in the place of a cursor of the reference, whose
/// opening waits for a writer, on the thread that reads the log and in the same step.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_system_that_hangs_holds_up_its_own_files_only() {
    let (logs, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = |name: &str| {
        std::fs::create_dir(logs.path().join(name)).unwrap();
        logs.path().join(name).join("app.log")
    };
    let (hanging, well) = (file("hanging"), file("well"));
    append(&hanging, "late\n");
    append(&well, "one\n");
    let pipe = dir.path().join(format!("{}.cursor", hanging.display().to_string().replace('/', "_")));
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let settings = target(&hanging.display().to_string(), "") + &target(&well.display().to_string(), "");
    let collector = Collector::start_in(dir, "", &settings).await;
    collector.until(&accepted("Logs"), |rows| rows == 1.0).await;
    let hangs = format!("adxmon_collector_tail_hanging{{folder=\"{}\"}}", hanging.parent().unwrap().display());
    collector.until(&hangs, |hangs| hangs == 1.0).await;
    append(&well, "two\n");
    collector.until(&accepted("Logs"), |rows| rows == 2.0).await;
    // Neither a reload nor the end waits for it; the new configuration hangs in the same way.
    collector.reload("", &format!("{settings}[otel-trace]\ndatabase = 'T'\n")).await.unwrap();
    append(&well, "three\n");
    collector.until(&accepted("Logs"), |rows| rows == 3.0).await;
    let dir = collector.stop().await;
    // The threads that were left behind end when the file system answers; with their process otherwise.
    drop(std::fs::File::options().write(true).open(&pipe).unwrap());
    let options = || wal::Options { durability: wal::Durability::Process, ..wal::Options::new(dir.path()) };
    let store = loop {
        match wal::Store::open(options(), wal::RealDisk::new(), 0) {
            Ok((store, _)) => break store,
            Err(wal::OpenError::Locked { .. }) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
            Err(error) => panic!("{error}"),
        }
    };
    store.close();
    assert_eq!(messages(&dir), ["one", "two", "three"]);

    // The next start hangs again, until the file system answers.
    let collector = Collector::start_in(dir, "", &settings).await;
    append(&well, "four\n");
    collector.until(&accepted("Logs"), |rows| rows == 4.0).await;
    collector.until(&hangs, |hangs| hangs == 1.0).await;
    drop(std::fs::File::options().write(true).open(&pipe).unwrap());
    collector.until(&accepted("Logs"), |rows| rows == 5.0).await;
    collector.until(&hangs, |hangs| hangs == 0.0).await;
    let mut all = messages(&collector.stop().await);
    all.sort();
    assert_eq!(all, ["four", "late", "one", "three", "two"]);
}
