//! What nobody writes on purpose: garbage in logs, endless lines, folders in the place of files. No crash,
//! no lost neighbour, and a metric that says what happened.

use std::io::{Seek, SeekFrom, Write};
use std::time::Duration;

use crate::files::{accepted, append, messages, problem, target};
use crate::support::Collector;

const LINES: &str = "adxmon_collector_log_lines_total{source=\"tailsource\"}";

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_stored_as_it_stands_and_its_neighbours_are_whole() {
    let logs = tempfile::tempdir().unwrap();
    let pattern = format!("{}/*.log", logs.path().display());
    // What no logger writes, with bytes of every value; a generator with a fixed seed, so that it fails again.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let byte = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_be_bytes()[0]
    };
    let mut garbage: Vec<u8> = (0..1 << 20).map(byte).collect();
    garbage.push(b'\n');
    let lines = garbage.iter().filter(|byte| **byte == b'\n').count();
    let empty = garbage.split(|byte| *byte == b'\n').filter(|line| line.is_empty()).count() - 1;
    std::fs::write(logs.path().join("garbage.log"), &garbage).unwrap();
    append(&logs.path().join("good.log"), "2024-01-02T03:04:05Z stdout F good\n");
    let collector = Collector::start("", &target(&pattern, "log-type = 'cri'")).await;
    collector.until(LINES, |read| read == (lines + 1) as f64).await;
    append(&logs.path().join("good.log"), "2024-01-02T03:04:06Z stdout F better\n");
    collector.until(&accepted("Logs"), |rows| rows == (lines - empty + 2) as f64).await;
    // None of it is CRI; hardly any of it is UTF-8.
    assert_eq!(collector.metric(&problem("format")).await, Some((lines - empty) as f64));
    assert!(collector.metric(&problem("utf8")).await.unwrap() > 0.9 * lines as f64);
    let messages = messages(&collector.stop().await);
    assert!(messages.contains(&"good".to_owned()) && messages.contains(&"better".to_owned()));
}

/// A gibibyte, most of it a hole, which reads as NULs.
#[tokio::test(flavor = "multi_thread")]
async fn a_line_of_a_gibibyte_is_cut_and_counted() {
    const LONG: u64 = 1 << 30;
    let logs = tempfile::tempdir().unwrap();
    let mut file = std::fs::File::create(logs.path().join("long.log")).unwrap();
    file.write_all(b"begin").unwrap();
    file.seek(SeekFrom::Start(LONG)).unwrap();
    file.write_all(b"\nnext\n").unwrap();
    append(&logs.path().join("good.log"), "good\n");
    let collector = Collector::start("", &target(&format!("{}/*.log", logs.path().display()), "")).await;
    collector.until(&accepted("Logs"), |rows| rows >= 1.0).await;
    let wait = async {
        while collector.metric(&accepted("Logs")).await != Some(3.0) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(240), wait).await.expect("the line after it comes");
    assert_eq!(collector.metric(&problem("cut")).await, Some(1.0));
    let cut = "adxmon_collector_logs_truncated_bytes_total{source=\"tailsource\"}";
    assert_eq!(collector.metric(cut).await, Some((LONG - (1 << 20)) as f64));
    let mut messages = messages(&collector.stop().await);
    messages.sort_by_key(String::len);
    assert_eq!((messages.len(), messages[2].len()), (3, 1 << 20));
    assert!(messages[2].starts_with("begin\0"));
    assert!(messages[..2].contains(&"good".to_owned()) && messages[..2].contains(&"next".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_in_the_place_of_a_file_is_waited_out() {
    let logs = tempfile::tempdir().unwrap();
    let (path, good) = (logs.path().join("app.log"), logs.path().join("good.log"));
    append(&path, "one\n");
    let settings = target(&path.display().to_string(), "") + &target(&good.display().to_string(), "");
    let collector = Collector::start("", &settings).await;
    collector.until(&accepted("Logs"), |rows| rows == 1.0).await;
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    collector.until("adxmon_collector_tail_errors_total", |errors| errors >= 1.0).await;
    append(&good, "good\n");
    collector.until(&accepted("Logs"), |rows| rows == 2.0).await;
    std::fs::remove_dir(&path).unwrap();
    append(&path, "two\n");
    collector.until(&accepted("Logs"), |rows| rows == 3.0).await;
    let mut messages = messages(&collector.stop().await);
    messages.sort();
    assert_eq!(messages, ["good", "one", "two"]);
}
