//! A Kusto that lies: it queues and never ingests, throttles, lets signatures and tokens expire, or is away for long.

use std::time::Duration;

use azure_testing::Azure;
use ingestor::upload::passage::QueueOptions;
use ingestor::{Config, Flags};

use crate::fake_kusto::{FakeKusto, Kind};
use crate::fake_storage::{Fate, failed};
use crate::process::{Started, ingestor};
use crate::queued::{asked, post, queued};
use crate::support::{NARROW, Process, image, ledger, start};

fn landed(rows: u64) -> String {
    format!("ledger_rows{{database=\"Metrics\",state=\"landed\"}} {rows}\n")
}

async fn until_landed(process: &Process, rows: u64) {
    process.until("/metrics", |text| text.contains(&landed(rows))).await;
}

/// What Kusto has taken and says nothing of is neither deleted nor sent again, restart or not.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_queued_and_never_ingested_stays_and_is_not_repeated() {
    let (dir, kusto) = (tempfile::tempdir().unwrap(), FakeKusto::start(Kind::Adx).await);
    kusto.storage.decide(|_, _| Fate::Nothing);
    // So that what is not known to be in the queue would be sent again many times meanwhile.
    let impatient = |config: &mut Config| {
        queued(config);
        config.queue.batching = Duration::from_millis(10);
    };
    for run in 0..3 {
        let process = start(dir.path(), &[("Metrics", &kusto)], impatient).await;
        post(&process, "Cpu", run, &format!("t{run},1\n")).await;
        kusto.wait(|_| kusto.storage.messages().len() == run + 1).await;
        asked(&process, "pending", 5.0 * (run + 1) as f64).await;
        process.sealed(run + 1).await;
        process.finish().await;
    }
    assert_eq!((kusto.storage.messages().len(), kusto.storage.uploads()), (3, 3));
    assert_eq!(ledger(dir.path()).on_disk, 3);
    let process = start(dir.path(), &[("Metrics", &kusto)], impatient).await;
    (0..3).for_each(|message| kusto.storage.ingest(&kusto, message));
    process.sealed(0).await;
    process.finish().await;
    assert_eq!(kusto.rows("Metrics.Cpu"), ["t0,1", "t1,1", "t2,1"]);
    let total = ledger(dir.path());
    assert_eq!((total.landed, total.maybe_duplicate), (3, 0));
}

/// Its reason is what Kusto said, and its rows are what was sent; they arrive once Kusto takes them.
#[tokio::test(flavor = "multi_thread")]
async fn what_kusto_refuses_in_its_queue_is_shown_as_a_dead_letter() {
    use clap::Parser as _;
    let (dir, kusto) = (tempfile::tempdir().unwrap(), FakeKusto::start(Kind::Adx).await);
    kusto.storage.decide(|_, _| failed("Permanent", "BadRequest_InvalidBlob"));
    let process = start(dir.path(), &[("Metrics", &kusto)], queued).await;
    post(&process, "Cpu", 1, "t1,1\nt2,2\n").await;
    process.until("/metrics", |text| text.contains("ledger_rows{database=\"Metrics\",state=\"dead_lettered\"} 2")).await;
    let command = async |words: &[&str]| {
        let storage = format!("--storage-dir={}", dir.path().display());
        let words = ["ingestor", "dlq"].into_iter().chain(words.iter().copied()).chain([storage.as_str()]);
        Flags::try_parse_from(words).unwrap().command.unwrap().run().await.unwrap()
    };
    let listed = command(&["ls"]).await;
    assert!(listed.contains("Metrics.Cpu  2 rows") && listed.contains("BadRequest_InvalidBlob: as told"), "{listed}");
    let shown = command(&["show", listed.split_whitespace().next().unwrap()]).await;
    assert!(shown.contains("BadRequest_InvalidBlob: as told") && shown.ends_with("t1,1\nt2,2\n"), "{shown}");
    kusto.storage.decide(|_, _| Fate::Ingest);
    command(&["retry", "--all"]).await;
    until_landed(&process, 2).await;
    process.finish().await;
    assert_eq!(kusto.rows("Metrics.Cpu"), ["t1,1", "t2,2"]);
}

/// Not sooner than it asks for; others do not wait with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_throttles_is_left_alone_for_as_long_as_it_asks() {
    let dir = tempfile::tempdir().unwrap();
    let (busy, free) = (FakeKusto::start(Kind::Adx).await, FakeKusto::start(Kind::Adx).await);
    busy.faults.lock().throttled = Some(3);
    let process = start(dir.path(), &[("Metrics", &busy), ("Free", &free)], queued).await;
    post(&process, "Cpu", 1, "t1,1\n").await;
    busy.wait(|seen| !seen.turned_away.is_empty()).await;
    for n in 0..10 {
        let name = format!("Free_Cpu_aaa_2f5d0c3e517e41{n:02x}.wal");
        assert_eq!(process.post(&name, image(NARROW, &format!("t{n},1\n"))).await, 202);
        free.wait(|seen| seen.rows.get("Free.Cpu").is_some_and(|rows| rows.len() == n + 1)).await;
    }
    busy.wait(|seen| seen.turned_away.len() >= 2).await;
    let turned_away = busy.seen.lock().turned_away.clone();
    let pause = turned_away[1] - turned_away[0];
    assert!(pause >= Duration::from_secs(3), "asked again after {pause:?}");
    busy.faults.lock().throttled = None;
    until_landed(&process, 1).await;
    process.finish().await;
    let total = ledger(dir.path());
    assert_eq!((total.landed, total.dead_lettered, total.maybe_duplicate), (11, 0, 0));
}

/// Storage throttles apart from the service, at each of its steps.
#[tokio::test(flavor = "multi_thread")]
async fn storage_that_throttles_is_waited_for() {
    let (dir, kusto) = (tempfile::tempdir().unwrap(), FakeKusto::start(Kind::Adx).await);
    let process = start(dir.path(), &[("Metrics", &kusto)], queued).await;
    for (n, path) in ["temp/", "ready/", "status"].into_iter().enumerate() {
        kusto.storage.throttle(path, 2);
        post(&process, "Cpu", n, &format!("t{n},1\n")).await;
        until_landed(&process, n as u64 + 1).await;
        assert!(kusto.storage.has_throttled(), "{path}");
    }
    process.finish().await;
    assert_eq!(kusto.rows("Metrics.Cpu"), ["t0,1", "t1,1", "t2,1"]);
    let total = ledger(dir.path());
    assert_eq!((total.landed, total.maybe_duplicate), (3, 0));
}

/// New ones are asked for as soon as one is refused: between batches, and while Kusto is asked what became of one.
#[tokio::test(flavor = "multi_thread")]
async fn signatures_that_have_expired_are_replaced() {
    let (dir, kusto) = (tempfile::tempdir().unwrap(), FakeKusto::start(Kind::Adx).await);
    let process = start(dir.path(), &[("Metrics", &kusto)], queued).await;
    post(&process, "Cpu", 0, "t0,1\n").await;
    until_landed(&process, 1).await;
    assert_eq!(kusto.storage.stale(), 0);
    kusto.storage.expire();
    post(&process, "Cpu", 1, "t1,1\n").await;
    until_landed(&process, 2).await;
    kusto.storage.decide(|_, _| Fate::Nothing);
    post(&process, "Cpu", 2, "t2,1\n").await;
    asked(&process, "pending", 1.0).await;
    kusto.storage.expire();
    kusto.storage.ingest(&kusto, 2);
    until_landed(&process, 3).await;
    process.finish().await;
    // One request found out each time.
    let asked = kusto.seen.lock().commands.iter().filter(|command| *command == ".get ingestion resources").count();
    assert_eq!((kusto.storage.stale(), asked), (2, 3));
    assert_eq!(kusto.rows("Metrics.Cpu"), ["t0,1", "t1,1", "t2,1"]);
    let total = ledger(dir.path());
    assert_eq!((total.landed, total.maybe_duplicate), (3, 0));
}

/// Another one is asked for before Kusto refuses the old one.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_expires_is_replaced() {
    let (dir, kusto) = (tempfile::tempdir().unwrap(), FakeKusto::start(Kind::Adx).await);
    // In its last ten seconds a token is not used.
    let azure = Azure::with_life(&kusto.url, Duration::from_secs(11)).await;
    let storage = format!("--storage-dir={}", dir.path().display());
    let endpoint = format!("--metrics-kusto-endpoints=Metrics={}", azure.kusto);
    let flags = [&storage, &endpoint, "--max-segment-age=100ms", "--max-transfer-age=0", "--ingestion-batching-time=1s"];
    let process = Started::new(ingestor(&flags).envs(azure.environment()));
    for n in 0.. {
        // A table that is new, so that there is something to ask Kusto for.
        process.hand_in(&format!("T{n}"), n).await;
        kusto.wait(|seen| seen.rows.contains_key(&format!("Metrics.T{n}"))).await;
        if azure.asked().len() >= 3 {
            break;
        }
    }
    let (status, log) = process.end().await;
    assert!(status.success());
    assert_eq!(azure.refused(), Vec::<String>::new());
    assert!(!log.join("").contains("TOKEN-"), "{log:?}");
    let total = ledger(dir.path());
    assert_eq!((total.dead_lettered, total.maybe_duplicate), (0, 0));
}

/// One database is away while another one takes all there is. What has come together goes in a few large batches when it is
/// back, and until then it is asked less and less often.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_away_for_long_costs_the_other_nothing_and_loses_nothing() {
    const BATCHES: usize = 60;
    let dir = tempfile::tempdir().unwrap();
    let (away, there) = (FakeKusto::start(Kind::Adx).await, FakeKusto::start(Kind::Adx).await);
    away.faults.lock().down = true;
    let process = start(dir.path(), &[("Away", &away), ("There", &there)], |config| {
        queued(config);
        config.max_segment_age = Duration::from_millis(20);
        config.queue = QueueOptions { batching: Duration::from_millis(10), ..config.queue };
    })
    .await;
    for n in 0..BATCHES {
        for database in ["Away", "There"] {
            let name = format!("{database}_Cpu_aaa_2f5d0c3e517e42{n:02x}.wal");
            assert_eq!(process.post(&name, image(NARROW, &format!("t{n:02},1\n"))).await, 202);
        }
        there.wait(|seen| seen.rows.get("There.Cpu").is_some_and(|rows| rows.len() == n + 1)).await;
    }
    let times: Vec<_> = away.seen.lock().turned_away.clone();
    let pauses: Vec<Duration> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    // Up to a quarter less than one second, two, four …
    for (at, pause) in pauses.iter().enumerate() {
        assert!(*pause >= Duration::from_millis(740 << at.min(6)), "{pauses:?}");
    }
    assert_eq!(process.get("/readyz").await.0, 200);
    away.faults.lock().down = false;
    process.until("/metrics", |text| text.contains(&format!("ledger_rows{{database=\"Away\",state=\"landed\"}} {BATCHES}\n"))).await;
    let expected: Vec<String> = (0..BATCHES).map(|n| format!("t{n:02},1")).collect();
    assert_eq!((away.rows("Away.Cpu"), there.rows("There.Cpu")), (expected.clone(), expected));
    let messages = away.storage.messages().len();
    assert!(messages <= BATCHES / 10, "{messages} batches for {BATCHES} segments");
    process.finish().await;
    let total = ledger(dir.path());
    assert_eq!((total.landed, total.dead_lettered, total.maybe_duplicate), (2 * BATCHES as u64, 0, 0));
}
