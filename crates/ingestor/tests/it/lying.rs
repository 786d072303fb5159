//! A Kusto that lies: it queues and never ingests, throttles, lets signatures and tokens expire, or is away for long.

use std::sync::Arc;
use std::time::Duration;

use azure_testing::Azure;
use ingestor::{Config, Flags, Time};
use jiff::{SignedDuration, Timestamp};
use rules::clock::{Clock, ManualClock};
use tokio::sync::mpsc;

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

/// A clock that stands still, and tells until when somebody sleeps.
struct Told {
    clock: ManualClock,
    told: mpsc::UnboundedSender<Timestamp>,
}

#[async_trait::async_trait]
impl Clock for Told {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    async fn sleep_until(&self, deadline: Timestamp) {
        let _ = self.told.send(deadline);
        self.clock.sleep_until(deadline).await;
    }
}

/// The hours of a test.
struct Hours {
    clock: ManualClock,
    sleeps: mpsc::UnboundedReceiver<Timestamp>,
    /// When the only database that waits for a time tries again, and how long its pauses were.
    next: Timestamp,
    pauses: Vec<Duration>,
}

impl Hours {
    fn new() -> (Hours, Time) {
        // Ahead of the system's clock, by which segments have their age, and without parts of a millisecond.
        let begin = Timestamp::from_millisecond(Timestamp::now().as_millisecond()).unwrap() + SignedDuration::from_hours(1);
        let clock = ManualClock::new(begin);
        let (told, sleeps) = mpsc::unbounded_channel();
        let time = Time::of(Arc::new(Told { clock: clock.clone(), told }));
        (Hours { next: clock.now(), clock, sleeps, pauses: Vec::new() }, time)
    }

    /// Moves the time on, from one try to the next.
    async fn pass(&mut self, minutes: i64) {
        let until = self.clock.now() + SignedDuration::from_mins(minutes);
        loop {
            self.failed_again().await;
            if self.next > until {
                return self.clock.set(until);
            }
            self.clock.set(self.next);
        }
    }

    /// Waits until the try that is due has failed.
    async fn failed_again(&mut self) {
        let now = self.clock.now();
        while self.next <= now {
            self.next = self.sleeps.recv().await.unwrap();
            if self.next == Timestamp::MAX {
                // Somebody who waits for no time.
                self.next = now;
            } else if self.next > now {
                self.pauses.push(self.next.duration_since(now).unsigned_abs());
            }
        }
    }

    /// Moves the time on whenever somebody sleeps.
    async fn follow(&mut self) {
        loop {
            self.clock.set(self.next.max(self.clock.now()));
            let deadline = self.sleeps.recv().await.unwrap();
            self.next = if deadline == Timestamp::MAX { self.next } else { deadline };
        }
    }
}

/// One database is away for eight hours while another one takes all there is, for which no time passes. The one is asked less
/// and less often; at the first try after it is back everything goes, in a few large batches.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_away_for_hours_costs_the_other_nothing_and_loses_nothing() {
    const ROUNDS: usize = 48;
    let dir = tempfile::tempdir().unwrap();
    let (away, there) = (FakeKusto::start(Kind::Adx).await, FakeKusto::start(Kind::Adx).await);
    let (mut hours, time) = Hours::new();
    let process = start(dir.path(), &[("Away", &away), ("There", &there)], |config| {
        queued(config);
        config.streaming_tables = vec!["Streamed".to_owned()];
        config.max_segment_age = Duration::from_millis(20);
        config.time = time;
    })
    .await;
    let post = async |table: &str, n: usize| {
        let name = format!("{table}_aaa_2f5d0c3e517e42{n:02x}.wal");
        assert_eq!(process.post(&name, image(NARROW, &format!("t{n:02},1\n"))).await, 202);
    };
    // It was there before: not only the first question finds it away.
    post("Away_Streamed", 0).await;
    away.wait(|seen| seen.rows.contains_key("Away.Streamed")).await;
    process.sealed(0).await;
    away.faults.lock().down = true;
    for n in 1..=ROUNDS {
        post("Away_Streamed", n).await;
        post("Away_Queued", n).await;
        post("There_Streamed", n).await;
        there.wait(|seen| seen.rows.get("There.Streamed").is_some_and(|rows| rows.len() == n)).await;
        hours.pass(10).await;
    }
    assert_eq!(process.get("/readyz").await.0, 200);
    // One second, two, four … up to a minute, each of them up to a quarter less.
    for (at, pause) in hours.pauses.iter().enumerate() {
        let most = Duration::from_millis((1000 << at.min(6)).min(60_000));
        assert!(*pause <= most && *pause >= most * 3 / 4, "pause {at} is {pause:?}");
    }
    let tries = away.seen.lock().turned_away.len();
    // Both tables fail with the first one, and each quarter of an hour it is asked which tables it has.
    assert!(tries <= hours.pauses.len() + 1 + 8 * 4, "{tries} tries for {} pauses", hours.pauses.len());
    assert!(hours.pauses.len() >= 8 * 60, "{}", hours.pauses.len());

    away.faults.lock().down = false;
    let back = hours.clock.now();
    tokio::select! {
        () = hours.follow() => {}
        () = process.sealed(0) => {}
    }
    let took = hours.clock.now().duration_since(back);
    assert!(took <= SignedDuration::from_secs(61), "landed {took:#} after it was back");
    let rows = |first: usize| (first..=ROUNDS).map(|n| format!("t{n:02},1")).collect::<Vec<_>>();
    assert_eq!(away.rows("Away.Streamed"), rows(0));
    assert_eq!((away.rows("Away.Queued"), there.rows("There.Streamed")), (rows(1), rows(1)));
    let messages = away.storage.messages().len();
    assert!(messages <= 4, "{messages} batches for {ROUNDS} segments");
    process.finish().await;
    let total = ledger(dir.path());
    assert_eq!((total.landed, total.dead_lettered), (3 * ROUNDS as u64 + 1, 0));
    // A 503 leaves open whether a streamed batch is stored, and all those tries were of one: of its rows, one a segment.
    assert!((1..=25).contains(&total.maybe_duplicate), "{total:?}");
}

/// They are looked for every quarter of an hour, and made again before rows are sent that Kusto could not take.
#[tokio::test(flavor = "multi_thread")]
async fn tables_that_somebody_drops_are_made_again() {
    let (dir, kusto) = (tempfile::tempdir().unwrap(), FakeKusto::start(Kind::Adx).await);
    let clock = ManualClock::new(Timestamp::now());
    let process = start(dir.path(), &[("Metrics", &kusto)], |config| {
        queued(config);
        config.streaming_tables = vec!["Cpu".to_owned(), "DiskIo".to_owned()];
        config.time = Time::of(Arc::new(clock.clone()));
    })
    .await;
    let mut sent = 0;
    // Rows of both tables, and what Kusto was told for them.
    let mut commands = async || {
        let before = kusto.seen.lock().commands.len();
        for table in ["Cpu", "DiskIo"] {
            sent += 1;
            let name = format!("Metrics_{table}_aaa_2f5d0c3e517e43{sent:02x}.wal");
            assert_eq!(process.post(&name, image(NARROW, &format!("t{sent},1\n"))).await, 202);
            kusto.wait(|seen| seen.rows.values().map(Vec::len).sum::<usize>() == 2 * sent).await;
        }
        kusto.seen.lock().commands.split_off(before)
    };
    let list = ".show tables | project TableName";
    let made = |commands: &[String], table: &str| commands.iter().any(|c| c.starts_with(&format!(".create-merge table ['{table}']")));
    let first = commands().await;
    assert!(made(&first, "Cpu") && made(&first, "DiskIo") && !first.contains(&list.to_owned()), "{first:?}");
    clock.advance(Duration::from_secs(899));
    assert_eq!(commands().await, Vec::<String>::new());

    clock.advance(Duration::from_secs(1));
    kusto.drop_table("Metrics.DiskIo");
    let second = commands().await;
    assert_eq!(second[0], list);
    assert!(made(&second, "DiskIo") && !made(&second, "Cpu"), "{second:?}");
    assert_eq!(second.iter().filter(|c| *c == list).count(), 1);

    // Without any table the answer is not believed.
    clock.advance(Duration::from_secs(900));
    kusto.faults.lock().no_tables = true;
    assert_eq!(commands().await, [list]);
    process.finish().await;
    assert_eq!(ledger(dir.path()).landed, sent as u64);
}
