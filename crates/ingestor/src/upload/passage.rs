//! The way of one batch through queued ingestion: which step is next, what has to be durable before it,
//! and what Kusto's answers mean. No I/O, no clock.
//!
//! ```text
//! Batched -> Uploaded (blob) -> Queued -> Landed
//! Queued -> failed: transient -> Retry, from the upload on | permanent -> refused
//! ```
//!
//! Only Kusto's word ends a batch. A message of which nobody knows whether it was queued is sent again:
//! at once where the batch has a tag, by which Kusto ingests it once; otherwise when its status has not
//! moved for three batching times, and then its rows are counted as perhaps stored twice.

use std::time::Duration;

use wal::BatchState;

pub use super::progress::{Progress, Unreadable, Way};

const LONGEST_RETRY_MS: u64 = 900_000;

/// Details of queueing: tags, and how patiently Kusto is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueOptions {
    /// Batches with this much CSV carry a tag, so that they are ingested once however often they are queued. Smaller ones would
    /// pay for a tag by being ingested alone.
    pub tagged_bytes: u64,
    /// When the status of a message is asked for first; the pauses double
    pub first_ask: Duration,
    /// up to this.
    pub longest_ask: Duration,
    /// The pause before a batch that failed goes again; it doubles, up to a quarter of an hour.
    pub first_retry: Duration,
    /// For how long Kusto gathers blobs before it ingests them: its default.
    pub batching: Duration,
    /// A queue may be long. Only after this a message that was surely queued counts as lost.
    pub lost: Duration,
}

impl Default for QueueOptions {
    fn default() -> QueueOptions {
        QueueOptions {
            tagged_bytes: 100_000_000,
            first_ask: Duration::from_secs(15),
            longest_ask: Duration::from_secs(300),
            first_retry: Duration::from_secs(15),
            batching: Duration::from_secs(300),
            lost: Duration::from_secs(24 * 3600),
        }
    }
}

impl QueueOptions {
    /// As patient as Kusto is slow: for so long it gathers blobs before it ingests them.
    pub fn of_batching(batching: Duration) -> QueueOptions {
        // Nothing at all would mean to ask without end.
        let batching = batching.max(Duration::from_secs(1));
        let first = batching / 20;
        QueueOptions { first_ask: first, longest_ask: batching, first_retry: first, batching, ..QueueOptions::default() }
    }
}

/// What Kusto says of a queued batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// Nothing yet, in these words.
    Pending(String),
    /// The rows can be queried.
    Succeeded,
    /// An earlier message of the batch was ingested: its tag is there.
    AlreadyIngested {
        /// With all its rows, as far as the status of that message is known.
        whole: bool,
    },
    /// There was nothing to ingest.
    Skipped(String),
    /// Some rows can be queried, nobody knows which.
    PartiallySucceeded(String),
    /// No row was ingested.
    Failed {
        /// The service thinks that it fails again.
        permanent: bool,
        /// The service's code.
        code: String,
        /// What happened.
        details: String,
    },
}

/// What to do for a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Make [`Passage::record`] durable, then call [`Passage::recorded`].
    Record,
    /// Upload the blob.
    Upload,
    /// Tell Kusto of the blob.
    Enqueue,
    /// Ask for the status.
    Ask,
    /// Nothing before this time.
    Wait(u64),
    /// It has ended.
    Over(Over),
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Over {
    /// The rows can be queried.
    Landed,
    /// Some of the rows are wrong; none of them is there.
    Refused(String),
    /// Kusto is done with it, and its rows are not there, or not all of them.
    GivenUp {
        /// Why.
        reason: String,
        /// Some rows have arrived.
        partly: bool,
    },
    /// It failed, and is to go again after a pause.
    Later(Duration),
}

/// Whether the message is in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    No,
    Perhaps,
    Yes,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passage {
    state: BatchState,
    progress: Progress,
    durable: bool,
    sent: Sent,
    /// Number of readable answers since the message was sent, and the last one.
    heard: u32,
    last: String,
    /// The message was skipped for the batch's tag, and it is not known whether with all rows.
    tag_is_there: bool,
    asked: u32,
    moved_ms: u64,
    not_before: u64,
    over: Option<Over>,
    options: QueueOptions,
}

impl Passage {
    /// A batch of which nothing is durable.
    pub fn new(way: Way, options: QueueOptions, now: u64) -> Passage {
        let progress = Progress { way, at_ms: now, ..Progress::default() };
        Passage { durable: false, ..Passage::resume(BatchState::Batched, progress, options) }
    }

    /// Whether its rows may be there already, from an earlier batch or for all that its own record says.
    pub fn counted(mut self, maybe_duplicate: bool) -> Passage {
        self.progress.maybe_duplicate |= maybe_duplicate;
        self
    }

    /// A batch as its record says.
    pub fn resume(state: BatchState, progress: Progress, options: QueueOptions) -> Passage {
        let sent = match state {
            BatchState::Batched | BatchState::Retry => Sent::No,
            BatchState::Uploaded => Sent::Perhaps,
            BatchState::Queued => Sent::Yes,
        };
        Passage {
            state,
            moved_ms: progress.at_ms,
            progress,
            durable: true,
            sent,
            heard: 0,
            last: String::new(),
            tag_is_there: false,
            asked: 0,
            not_before: 0,
            over: None,
            options,
        }
    }

    /// What is known.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// State and detail of the batch's record.
    pub fn record(&self) -> (BatchState, Vec<u8>) {
        (self.state, self.progress.encode())
    }

    /// The record is durable.
    pub fn recorded(&mut self) {
        self.durable = true;
    }

    /// Whether its message is in the queue for all we know: then the table's next batch may go.
    pub fn is_followed(&self) -> bool {
        self.durable && self.over.is_none() && self.follows()
    }

    fn follows(&self) -> bool {
        let uncertain = self.state == BatchState::Uploaded && self.sent == Sent::Perhaps && !self.may_repeat();
        self.state == BatchState::Queued || uncertain
    }

    /// Whether sending the message once more can do no harm, or none that is not counted.
    fn may_repeat(&self) -> bool {
        self.progress.tagged || self.progress.maybe_duplicate
    }

    /// The next step.
    pub fn next(&mut self, now: u64) -> Next {
        if self.durable
            && self.follows()
            && self.over.is_none()
            && let Some(until) = self.patience()
            && now >= until
        {
            match self.tag_is_there {
                true => self.over = Some(Over::Landed),
                false => self.send_again(now),
            }
        }
        if !self.durable {
            return Next::Record;
        }
        if let Some(over) = &self.over {
            return Next::Over(over.clone());
        }
        if self.not_before > now {
            return Next::Wait(self.not_before);
        }
        match self.state {
            BatchState::Batched | BatchState::Retry => Next::Upload,
            _ if !self.follows() => Next::Enqueue,
            _ if self.progress.receipt.is_some() => Next::Ask,
            _ => Next::Wait(self.patience().unwrap_or(u64::MAX)),
        }
    }

    /// The blob is complete.
    pub fn uploaded(&mut self, blob: serde_json::Value, csv_bytes: u64, now: u64) {
        self.progress.csv_bytes = csv_bytes;
        self.progress.tagged = csv_bytes >= self.options.tagged_bytes;
        self.progress.blob = Some(blob);
        self.progress.receipt = None;
        self.sent = Sent::No;
        self.moved(BatchState::Uploaded, now);
    }

    /// The message is in the queue.
    pub fn enqueued(&mut self, receipt: serde_json::Value, now: u64) {
        self.progress.receipt = Some(receipt);
        self.sent = Sent::Yes;
        self.moved(BatchState::Queued, now);
        self.not_before = now.saturating_add(self.pause());
    }

    /// The message is in the queue, or it is not: the answer was lost.
    pub fn perhaps_enqueued(&mut self, receipt: serde_json::Value, now: u64) {
        self.progress.receipt = Some(receipt);
        self.sent = Sent::Perhaps;
        self.moved(BatchState::Uploaded, now);
        self.not_before = now.saturating_add(self.pause());
    }

    /// The message could not be queued.
    pub fn not_enqueued(&mut self, now: u64) {
        self.asked = self.asked.saturating_add(1);
        self.not_before = now.saturating_add(doubled(500, self.asked, 60_000));
    }

    /// The storage of the blob is gone: it is uploaded anew.
    pub fn blob_gone(&mut self, now: u64) {
        self.retry(now);
    }

    /// Kusto's answer about the batch, if there was a readable one.
    pub fn heard(&mut self, status: Option<Status>, now: u64) {
        self.asked = self.asked.saturating_add(1);
        self.not_before = now.saturating_add(self.pause());
        let Some(status) = status else { return };
        self.heard += 1;
        match status {
            Status::Pending(words) => {
                if words != self.last {
                    (self.last, self.moved_ms) = (words, now.max(self.moved_ms));
                }
            }
            Status::Succeeded => self.over = Some(Over::Landed),
            // The tag holds this batch's own name.
            Status::AlreadyIngested { whole: true } if self.progress.tagged => self.over = Some(Over::Landed),
            // The message that brought the tag may have brought some of the rows only; its status says so when it comes.
            Status::AlreadyIngested { whole: false } if self.progress.tagged => self.tag_is_there = true,
            Status::AlreadyIngested { .. } => self.give_up("Kusto skipped the batch for a tag that it does not have".to_owned(), false),
            Status::Skipped(details) => {
                // With a tag that may have been the reason, although the code says otherwise.
                let partly = self.progress.tagged;
                self.give_up(format!("Kusto skipped the batch: {details}"), partly);
            }
            Status::PartiallySucceeded(details) => {
                self.give_up(format!("Kusto ingested some of the batch's rows, and does not say which: {details}"), true);
            }
            Status::Failed { permanent: true, code, details } if blames_rows(&code) => {
                self.over = Some(Over::Refused(format!("{code}: {details}")));
            }
            Status::Failed { .. } => self.retry(now),
        }
    }

    fn give_up(&mut self, reason: String, partly: bool) {
        self.over = Some(Over::GivenUp { reason, partly });
    }

    /// Until the status is asked for again.
    fn pause(&self) -> u64 {
        doubled(self.options.first_ask.as_millis() as u64, self.asked, self.options.longest_ask.as_millis() as u64)
    }

    /// No row was ingested, and it may work later: from the upload on.
    fn retry(&mut self, now: u64) {
        let pause = doubled(self.options.first_retry.as_millis() as u64, self.progress.failures, LONGEST_RETRY_MS);
        self.progress.failures = self.progress.failures.saturating_add(1);
        self.progress.receipt = None;
        self.sent = Sent::No;
        self.moved(BatchState::Retry, now);
        self.over = Some(Over::Later(Duration::from_millis(pause)));
    }

    /// The plan sends it again.
    pub fn again(&mut self) {
        (self.over, self.not_before) = (None, 0);
    }

    fn send_again(&mut self, now: u64) {
        self.progress.maybe_duplicate |= !self.progress.tagged;
        self.progress.failures = self.progress.failures.saturating_add(1);
        self.moved(BatchState::Uploaded, now);
    }

    /// Until when a message that shows no effect is waited for; for ever while nobody can tell.
    fn patience(&self) -> Option<u64> {
        let heard = self.heard > 0 || self.progress.receipt.is_none();
        let most = self.options.lost.as_millis() as u64;
        let lost = match self.sent {
            Sent::Yes if !self.progress.tagged => most,
            _ => doubled(3 * self.options.batching.as_millis() as u64, self.progress.failures, most),
        };
        heard.then(|| self.moved_ms.saturating_add(lost))
    }

    fn moved(&mut self, state: BatchState, now: u64) {
        self.state = state;
        self.durable = false;
        self.progress.at_ms = now;
        (self.moved_ms, self.heard, self.asked, self.not_before) = (now, 0, 0, 0);
        self.last.clear();
        self.tag_is_there = false;
    }
}

/// Whether a permanent failure speaks of the rows. What an administrator can put right, and what making table and
/// mapping or the blob again can, is not their fault.
fn blames_rows(code: &str) -> bool {
    const OTHERS: [&str; 16] = [
        "notexist",
        "notfound",
        "mappingreference",
        "accessdenied",
        "forbidden",
        "unauthorized",
        "notauthorized",
        "updatepolicy",
        "alreadyreceived",
        "download_",
        "throttl",
        "timeout",
        "internal",
        "policy",
        "attemptsexceeded",
        "disabled",
    ];
    let code = code.to_ascii_lowercase();
    !OTHERS.iter().any(|other| code.contains(other))
}

/// Whether table or mapping are not there, as far as a code says.
pub fn is_missing(code: &str) -> bool {
    let code = code.to_ascii_lowercase();
    ["notexist", "notfound", "mappingreference"].iter().any(|word| code.contains(word)) && !code.contains("download_")
}

fn doubled(first: u64, times: u32, longest: u64) -> u64 {
    first.saturating_mul(1 << times.min(20)).min(longest)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
