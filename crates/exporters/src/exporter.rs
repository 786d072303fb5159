//! An exporter: the task between a buffer and a client.
//!
//! It takes the oldest segments, hands their rows to the client, sends what the client makes of them, and lets the segments go
//! when all of it has an end. A message that fails is tried again for as long as the buffer keeps its rows.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use wal::{Outcome, SegmentInfo, TableKey, csv, segment};

use crate::attempt::{Again, Failure, Pushed};
use crate::buffer::Buffer;
use crate::metrics::{Counts, Drop};
use crate::retry::{self, RetryPolicy};

/// How often the limits of a buffer are looked at.
const LIMITS_INTERVAL: Duration = Duration::from_secs(1);

/// Where rows come from.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// The table; samples have one of their own.
    pub table: &'a TableKey,
    /// The CSV header line; empty for samples.
    pub header: &'a [u8],
}

/// What a client did with a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// It is in the message that is being made.
    Taken,
    /// A message is ready and must be sent before more rows come; the row is in the one behind it.
    Ready,
    /// It cannot be sent.
    Skipped,
}

/// Turns rows into messages and sends them.
pub trait Client: Send + 'static {
    /// Takes a row.
    fn add(&mut self, origin: Origin<'_>, row: &[u8]) -> Added;

    /// Makes the message that was begun ready.
    fn finish(&mut self);

    /// Items in the message that is ready; 0 when there is none.
    fn ready(&self) -> u64;

    /// Sends the message that is ready, once. It stays ready unless the receiver took it.
    ///
    /// # Errors
    /// Why it was not taken.
    fn send(&mut self) -> impl Future<Output = Result<Pushed, Failure>> + Send;

    /// Forgets the message that is ready.
    fn discard(&mut self);
}

/// How an exporter behaves.
#[derive(Clone, Copy, Debug)]
pub struct ExporterOptions {
    /// Time for one try.
    pub timeout: Duration,
    /// Pauses between tries; `total` does not count, the buffer's age does.
    pub retry: RetryPolicy,
}

impl Default for ExporterOptions {
    fn default() -> Self {
        ExporterOptions { timeout: Duration::from_secs(10), retry: RetryPolicy::default() }
    }
}

/// How an exporter does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Nothing waits.
    pub idle: bool,
    /// What keeps it from sending, in the receiver's words.
    pub failing: Option<String>,
}

/// An exporter that runs until it is ended or dropped.
#[derive(Debug)]
pub struct Exporter {
    buffer: Buffer,
    status: watch::Receiver<Status>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Exporter {
    /// Starts sending what is in `buffer` and what will be.
    /// `kind` and `endpoint` are labels of its metrics.
    pub fn start(client: impl Client, buffer: Buffer, (kind, endpoint): (&'static str, &str), options: ExporterOptions) -> Exporter {
        let stop = CancellationToken::new();
        let counts = buffer.metrics().of_exporter(buffer.name(), kind, endpoint);
        let (status, watched) = watch::channel(Status::default());
        let shared = Arc::new(Shared { buffer: buffer.clone(), counts, options, status });
        let mut tasks = JoinSet::new();
        tasks.spawn(tick(buffer.clone(), stop.clone()));
        let ended = stop.clone();
        tasks.spawn(async move {
            let _ = ended.run_until_cancelled(run(client, &shared)).await;
        });
        Exporter { buffer, status: watched, stop, tasks }
    }

    /// Where to put what it is to send.
    pub fn buffer(&self) -> &Buffer {
        &self.buffer
    }

    /// How it does.
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// Sends what is left, as long as the receiver takes it, at most for `deadline`. What is left then is sent after the
    /// next start.
    pub async fn drain(&self, deadline: Duration) {
        let buffer = self.buffer.clone();
        let _ = tokio::task::spawn_blocking(move || buffer.seal()).await;
        let mut status = self.status.clone();
        let drained = async {
            while self.buffer.segments() > 0 && self.status.borrow().failing.is_none() {
                if status.changed().await.is_err() {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(deadline, drained).await;
    }

    /// Stops sending at once, and gives the buffer back; what it holds is sent by the next exporter on it.
    pub async fn end(mut self) -> Buffer {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
        self.buffer
    }
}

struct Shared {
    buffer: Buffer,
    counts: Counts,
    options: ExporterOptions,
    status: watch::Sender<Status>,
}

async fn tick(buffer: Buffer, stop: CancellationToken) {
    let mut interval = tokio::time::interval(buffer.tick_interval());
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(interval.tick()).await.is_some() {
        buffer.tick();
    }
}

async fn run(mut client: impl Client, shared: &Shared) {
    let mut limits = tokio::time::interval(LIMITS_INTERVAL);
    limits.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let round = shared.buffer.oldest();
        if round.is_empty() {
            shared.publish(|status| *status = Status { idle: true, failing: None });
            tokio::select! {
                () = shared.buffer.sealed() => {}
                _ = limits.tick() => drop(shared.buffer.keep_limits().await),
            }
            continue;
        }
        shared.publish(|status| status.idle = false);
        if deliver_within_limits(&mut client, shared, &round, &mut limits).await {
            shared.settle(&round).await;
        } else {
            // What the client holds belongs to segments that are gone, or will be read again.
            client.finish();
            client.discard();
        }
    }
}

/// Delivers a round; false when a part of it had to be dropped meanwhile.
async fn deliver_within_limits(
    client: &mut impl Client,
    shared: &Shared,
    round: &[SegmentInfo],
    limits: &mut tokio::time::Interval,
) -> bool {
    let mut delivered = pin!(shared.deliver(client, round));
    loop {
        tokio::select! {
            biased;
            () = &mut delivered => return true,
            _ = limits.tick() => {
                let gone = shared.buffer.keep_limits().await;
                if round.iter().any(|segment| gone.contains(&segment.id)) {
                    return false;
                }
            }
        }
    }
}

impl Shared {
    async fn deliver(&self, client: &mut impl Client, round: &[SegmentInfo]) {
        let mut value = Vec::new();
        for segment in round {
            let Some(image) = self.buffer.read(segment).await else {
                self.buffer.dropped(Drop::Unreadable, segment.rows);
                continue;
            };
            for block in segment::blocks(&image).flatten() {
                if block.decode(&mut value).is_ok() {
                    self.deliver_block(client, &segment.table, &value).await;
                }
            }
        }
        client.finish();
        self.send(client).await;
    }

    async fn deliver_block(&self, client: &mut impl Client, table: &TableKey, value: &[u8]) {
        let header = if table.schema.is_empty() { 0 } else { csv::Records::new(value).next().map_or(0, <[u8]>::len) };
        let origin = Origin { table, header: &value[..header] };
        for row in csv::Records::new(&value[header..]) {
            match client.add(origin, row) {
                Added::Taken => {}
                Added::Ready => self.send(client).await,
                Added::Skipped => {
                    self.counts.skipped.inc();
                }
            }
        }
    }

    /// Sends what is ready until the receiver takes or refuses it.
    async fn send(&self, client: &mut impl Client) {
        let mut tries = 0;
        while client.ready() > 0 {
            let items = client.ready();
            tries += 1;
            let failure = match tokio::time::timeout(self.options.timeout, client.send()).await {
                Ok(Ok(pushed)) => {
                    self.taken(&pushed);
                    continue;
                }
                Ok(Err(failure)) => failure,
                Err(_) => Failure::passing(format!("no answer within {:?}", self.options.timeout)),
            };
            match failure.again {
                Again::Never => {
                    self.refused(items, &failure.why);
                    client.discard();
                }
                Again::After(asked) => {
                    self.failing(&failure.why);
                    self.counts.retries.inc();
                    let policy = RetryPolicy { total: Duration::MAX, ..self.options.retry };
                    let asked = asked.map(|asked| asked.min(LONGEST_ASKED));
                    let pause = policy.pause(tries, asked, Duration::ZERO, retry::random_unit()).unwrap_or(policy.longest_pause);
                    tokio::time::sleep_until(Instant::now() + pause).await;
                }
            }
        }
    }

    fn taken(&self, pushed: &Pushed) {
        self.counts.sent.inc_by(pushed.accepted);
        self.counts.failed.inc_by(pushed.rejected);
        if pushed.rejected > 0 {
            let why = pushed.message.as_deref().unwrap_or("no reason given");
            tracing::warn!(exporter = self.buffer.name(), rejected = pushed.rejected, why, "the receiver refused a part of a message");
        }
        self.publish(|status| {
            if status.failing.take().is_some() {
                tracing::info!(exporter = self.buffer.name(), "the receiver of an exporter takes data again");
            }
        });
    }

    fn refused(&self, items: u64, why: &str) {
        self.counts.failed.inc_by(items);
        tracing::warn!(exporter = self.buffer.name(), items, why, "the receiver of an exporter refused a message for good");
    }

    fn failing(&self, why: &str) {
        self.publish(|status| {
            if status.failing.replace(why.to_owned()).is_none() {
                tracing::warn!(exporter = self.buffer.name(), why, "an exporter cannot send; its data waits in its buffer");
            }
        });
    }

    async fn settle(&self, round: &[SegmentInfo]) {
        while !self.buffer.settle(round, Outcome::Forwarded, "the receiver had it").await {
            tokio::time::sleep(LIMITS_INTERVAL).await;
        }
        self.publish(|_| {});
    }

    fn publish(&self, change: impl FnOnce(&mut Status)) {
        self.status.send_modify(change);
    }
}

/// No receiver is waited for longer than this before the next try.
const LONGEST_ASKED: Duration = Duration::from_secs(600);
