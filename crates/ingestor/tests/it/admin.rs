//! The command line on a storage directory, and the ledger: of an ingestor that runs, and of one that does not.

use std::path::Path;
use std::time::Duration;

use clap::Parser as _;
use ingestor::{Flags, LedgerReport, Letter};

use crate::fake_kusto::{FakeKusto, Kind};
use crate::support::{NARROW, Process, client, image, ledger, start};

/// Runs `ingestor WORDS --storage-dir DIR`.
async fn command(dir: &Path, words: &[&str]) -> anyhow::Result<String> {
    let storage = format!("--storage-dir={}", dir.display());
    let words: Vec<&str> = ["ingestor"].into_iter().chain(words.iter().copied()).chain([storage.as_str()]).collect();
    Flags::try_parse_from(words).unwrap().command.unwrap().run().await
}

async fn letters(dir: &Path) -> Vec<Letter> {
    serde_json::from_str(&command(dir, &["dlq", "ls", "--json"]).await.unwrap()).unwrap()
}

async fn post(process: &Process, table: &str, n: usize, rows: &str) {
    let name = format!("Metrics_{table}_aaa_2f5d0c3e517e40{n:02x}.wal");
    assert_eq!(process.post(&name, image(NARROW, rows)).await, 202);
}

async fn until_rows(process: &Process, state: &str, rows: u64) {
    let line = format!("ledger_rows{{database=\"Metrics\",state=\"{state}\"}} {rows}");
    process.until("/metrics", |text| text.lines().any(|l| l.ends_with(&line))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_of_a_running_ingestor_are_shown_retried_and_dropped() {
    let (dir, kusto) = (tempfile::tempdir().unwrap(), FakeKusto::start(Kind::Kustd).await);
    kusto.faults.lock().bad_text = Some("poison".to_owned());
    let process = start(dir.path(), &[("Metrics", &kusto)], |_| {}).await;
    post(&process, "Cpu", 1, "poison,1\npoison,2\n").await;
    post(&process, "Mem", 2, "poison,3\n").await;
    until_rows(&process, "dead_lettered", 3).await;
    let listed = letters(dir.path()).await;
    assert_eq!(listed.len(), 2);
    let cpu = listed.iter().find(|letter| letter.table == "Cpu").unwrap();
    assert!(cpu.rows == 2 && cpu.reason.contains("malformed rows") && !cpu.maybe_duplicate, "{cpu:?}");
    let text = command(dir.path(), &["dlq", "ls"]).await.unwrap();
    assert!(text.contains(&cpu.id) && text.contains("malformed rows") && text.ends_with("2 dead letters with 3 rows\n"), "{text}");
    let shown = command(dir.path(), &["dlq", "show", &cpu.id, "--rows", "2"]).await.unwrap();
    assert!(shown.contains("malformed rows") && shown.ends_with(&format!("{NARROW}\npoison,1\n")), "{shown}");
    assert!(process.metric("adxmon_ingestor_dead_letter_bytes").await.is_some_and(|bytes| bytes > 0.0));

    // Once Kusto takes them they arrive, and once.
    kusto.faults.lock().bad_text = None;
    let said = command(dir.path(), &["dlq", "retry", "--table", "Metrics.Cpu"]).await.unwrap();
    assert_eq!(said, "1 segments with 2 rows wait for their upload again\n");
    until_rows(&process, "landed", 2).await;
    assert_eq!(kusto.rows("Metrics.Cpu"), ["poison,1", "poison,2"]);
    let again = command(dir.path(), &["dlq", "retry", &cpu.id]).await.unwrap_err().to_string();
    assert!(again.contains("is no dead letter"), "{again}");
    command(dir.path(), &["dlq", "drop", "--all"]).await.unwrap();
    assert!(letters(dir.path()).await.is_empty());
    process.finish().await;
    let total = ledger(dir.path());
    assert_eq!((total.accepted, total.landed, total.dead_lettered, total.dropped), (3, 2, 0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_of_a_stopped_ingestor_are_retried_by_the_next_one() {
    let (dir, kusto) = (tempfile::tempdir().unwrap(), FakeKusto::start(Kind::Kustd).await);
    kusto.faults.lock().bad_text = Some("poison".to_owned());
    let process = start(dir.path(), &[("Metrics", &kusto)], |_| {}).await;
    post(&process, "Cpu", 1, "poison,1\n").await;
    until_rows(&process, "dead_lettered", 1).await;
    process.finish().await;
    assert_eq!(letters(dir.path()).await.len(), 1);
    command(dir.path(), &["dlq", "retry", "--all"]).await.unwrap();
    let report: LedgerReport = serde_json::from_str(&command(dir.path(), &["ledger", "--json"]).await.unwrap()).unwrap();
    assert_eq!((report.total.on_disk, report.total.dead_lettered, report.balanced), (1, 0, true));
    kusto.faults.lock().bad_text = None;
    let process = start(dir.path(), &[("Metrics", &kusto)], |_| {}).await;
    kusto.wait(|seen| seen.rows.contains_key("Metrics.Cpu")).await;
    process.finish().await;
    assert_eq!(kusto.rows("Metrics.Cpu"), ["poison,1"]);
}

/// Whoever may send rows may not therefore drop them.
#[tokio::test(flavor = "multi_thread")]
async fn the_door_opens_for_the_owner_of_the_directory_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let (dir, kusto) = (tempfile::tempdir().unwrap(), FakeKusto::start(Kind::Kustd).await);
    let process = start(dir.path(), &[("Metrics", &kusto)], |_| {}).await;
    let drop =
        || client().post(format!("{}/control/dead-letters/drop", process.plain)).header("Content-Type", "application/json").body("[]");
    assert_eq!(drop().send().await.unwrap().status(), 401);
    assert_eq!(drop().bearer_auth("guess").send().await.unwrap().status(), 401);
    assert_eq!(process.get("/control/ledger").await.0, 401);
    let path = dir.path().join("control/door.json");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let door: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(drop().bearer_auth(door["token"].as_str().unwrap()).send().await.unwrap().status(), 204);
    process.finish().await;
    let nothing = tempfile::tempdir().unwrap();
    let error = command(nothing.path(), &["ledger"]).await.unwrap_err().to_string();
    assert!(error.contains("no storage directory") && std::fs::read_dir(nothing.path()).unwrap().next().is_none(), "{error}");
}

/// At every moment that is looked at, through failures, refusals and restarts.
#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_adds_up_at_every_moment_and_across_restarts() {
    let (dir, kusto) = (tempfile::tempdir().unwrap(), FakeKusto::start(Kind::Kustd).await);
    kusto.faults.lock().bad_text = Some("poison".to_owned());
    let mut sent = 0;
    for run in 0..3 {
        let process = start(dir.path(), &[("Metrics", &kusto)], |config| {
            config.grace = Duration::ZERO;
            config.max_segment_age = Duration::from_millis(30);
        })
        .await;
        for n in 0..20 {
            kusto.faults.lock().lose_answers = usize::from(n % 5 == 0);
            kusto.faults.lock().down = n % 7 == 3;
            let (word, table) = if n % 6 == 5 { ("poison", "Bad") } else { ("t", ["Cpu", "Mem"][n % 2]) };
            post(&process, table, run * 20 + n, &format!("{word}{run}-{n},1\n{word}{run}-{n},2\n")).await;
            sent += 2;
            for _ in 0..3 {
                let (_, text) = process.get("/debug/ledger?format=json").await;
                let report: LedgerReport = serde_json::from_str(&text).unwrap();
                assert!(report.balanced && report.total.accepted == sent, "{text}");
                for table in report.tables {
                    let rows = table.rows;
                    let places = [rows.forwarded, rows.landed, rows.dead_lettered, rows.quarantined, rows.dropped, rows.on_disk];
                    assert_eq!(rows.accepted, places.iter().sum::<u64>(), "{text}");
                }
            }
        }
        kusto.faults.lock().down = false;
        process.finish().await;
    }
    let process = start(dir.path(), &[("Metrics", &kusto)], |_| {}).await;
    process.sealed(0).await;
    let report: LedgerReport = serde_json::from_str(&command(dir.path(), &["ledger", "--json"]).await.unwrap()).unwrap();
    assert_eq!((report.total.landed, report.total.dead_lettered, report.total.accepted), (102, 18, 120));
    let (_, text) = process.get("/debug/ledger").await;
    assert!(text.contains("\nMetrics.Cpu (aaa) ") && text.contains("\nbalanced: "), "{text}");
    let series = "adxmon_ingestor_ledger_table_rows{database=\"Metrics\",table=\"Cpu\",schema=\"aaa\",state=\"landed\"}";
    assert!(process.metric(series).await.is_some_and(|rows| rows > 0.0));
    process.finish().await;
    assert_eq!(kusto.rows("Metrics.Cpu").len() + kusto.rows("Metrics.Mem").len(), 102);
}

/// One that does not answer at all, with all its uploads busy, costs the other nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_hangs_costs_the_others_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let fit = FakeKusto::start(Kind::Kustd).await;
    // It takes connections and says nothing.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let held = tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((stream, _)) = silent.accept().await {
            open.push(stream);
        }
    });
    let process = start(dir.path(), &[("Fit", &fit)], |config| {
        config.metrics.push(ingestor::Endpoint { database: "Stuck".to_owned(), url });
        config.grace = Duration::ZERO;
    })
    .await;
    let body: String = (0..2000).map(|i| format!("t{i},1\n")).collect();
    for table in 0..60 {
        let name = format!("Stuck_T{table}_aaa_2f5d0c3e517e40{table:02x}.wal");
        assert_eq!(process.post(&name, image(NARROW, &body)).await, 202);
    }
    process.until("/metrics", |text| text.contains("queue_size{queue=\"upload\",database=\"Stuck\"} 60")).await;
    for n in 1..=20 {
        let name = format!("Fit_Cpu_aaa_2f5d0c3e517e41{n:02x}.wal");
        assert_eq!(process.post(&name, image(NARROW, &body)).await, 202);
        fit.wait(|seen| seen.rows.get("Fit.Cpu").is_some_and(|rows| rows.len() == n * 2000)).await;
    }
    assert_eq!(process.get("/readyz").await.0, 200);
    // Kusto has the last rows before we have written down that it has.
    process.until("/metrics", |text| text.contains("ledger_rows{database=\"Fit\",state=\"landed\"} 40000")).await;
    process.finish().await;
    held.abort();
    let total = ledger(dir.path());
    assert_eq!((total.landed, total.on_disk), (40_000, 120_000));
}
