//! Takes messages out of the queues, one at a time, and does what they say.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use azure_storage::{Permissions, Resource};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::ingest::{self, Failed, Outcome};
use super::message::Message;
use super::report::{self, End, Kind};
use super::storage::IngestionStorage;
use crate::service::Kustd;

/// Messages of an account that are worked on at once; each may hold the rows of a blob in memory.
const WORKERS: usize = 2;
/// How long nobody else sees a message that is worked on; renewed while that goes on. After a kill, it is seen again then.
const HIDDEN: Duration = Duration::from_secs(30);
/// Pauses between looks into empty queues.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Tries of a message whose failures are transient.
const MOST_TRIES: u32 = 8;

/// Starts the work, for each account by itself; it ends, with the messages at hand, after `shutdown`.
pub(crate) fn run(kustd: &Arc<Kustd>, storage: &Arc<IngestionStorage>, shutdown: &CancellationToken) -> TaskTracker {
    let tasks = TaskTracker::new();
    for account in 0..storage.accounts() {
        let (kustd, storage, shutdown) = (kustd.clone(), storage.clone(), shutdown.clone());
        tasks.spawn(async move {
            if storage.prepare(account, &shutdown).await {
                let workers = (0..WORKERS).map(|_| work(&kustd, &storage, account, &shutdown));
                futures::future::join_all(workers).await;
            }
        });
    }
    tasks.close();
    tasks
}

async fn work(kustd: &Arc<Kustd>, storage: &IngestionStorage, account: usize, shutdown: &CancellationToken) {
    let mut pause = SHORTEST_PAUSE;
    while !shutdown.is_cancelled() {
        match round(kustd, storage, account, shutdown).await {
            Ok(true) => {
                pause = SHORTEST_PAUSE;
                continue;
            }
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "a queue of ingestion cannot be read; it is tried again"),
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
        // cancelled or not, the loop looks
        let _ = shutdown.run_until_cancelled(tokio::time::sleep(pause)).await;
    }
}

/// Takes a message out of each queue of an account that has one; whether there was one.
async fn round(
    kustd: &Arc<Kustd>,
    storage: &IngestionStorage,
    account: usize,
    shutdown: &CancellationToken,
) -> Result<bool, azure_storage::Error> {
    let mut found = false;
    for queue in &storage.shares(account, Permissions::All)?.queues {
        for message in storage.requests.get_messages(queue, 1, HIDDEN).await? {
            found = true;
            handle(kustd, storage, account, queue, message).await;
        }
        if shutdown.is_cancelled() {
            break;
        }
    }
    Ok(found)
}

/// Works on a message, and hides it from others meanwhile.
async fn handle(kustd: &Arc<Kustd>, storage: &IngestionStorage, account: usize, queue: &Resource, mut queued: azure_storage::Message) {
    let message = Message::read(&queued.message_text);
    let mut ending = pin!(end(kustd, storage, account, &message, queued.dequeue_count));
    let again = loop {
        match tokio::time::timeout(HIDDEN / 3, &mut ending).await {
            Ok(again) => break again,
            Err(_) => {
                if let Err(error) = storage.requests.hide_message(queue, &mut queued, HIDDEN).await {
                    tracing::warn!(%error, id = %message.id, "a message may be seen again while it is worked on");
                }
            }
        }
    };
    let done = match again {
        Some(pause) => storage.requests.hide_message(queue, &mut queued, pause).await,
        None => storage.requests.delete_message(queue, &queued).await,
    };
    if let Err(error) = done {
        // it is seen again, and known by its id
        tracing::warn!(%error, id = %message.id, "a message stays in the queue");
    }
}

/// Ingests and reports; a pause when the message is to be tried again.
async fn end(kustd: &Arc<Kustd>, storage: &IngestionStorage, account: usize, message: &Message, tries: u32) -> Option<Duration> {
    let pause = Duration::from_secs(1 << tries.min(6));
    let outcome = ingest::ingest(kustd, message).await;
    let exhausted;
    let end = match &outcome {
        Outcome::Succeeded => {
            kustd.metrics.queued_ingestions.inc();
            End::Succeeded
        }
        Outcome::Failed(why) => {
            kustd.metrics.queued_failures.inc();
            End::Failed(why, Kind::Permanent)
        }
        Outcome::Later(why) if tries < MOST_TRIES => {
            kustd.metrics.queued_retries.inc();
            tracing::info!(id = %message.id, code = why.code, details = why.details, ?pause, "a queued ingestion is tried again");
            return Some(pause);
        }
        Outcome::Later(why) => {
            kustd.metrics.queued_failures.inc();
            let details = format!("given up after {tries} tries: {}: {}", why.code, why.details);
            exhausted = Failed { code: "BadRequest_MessageExhausted".to_owned(), details, ..why.clone() };
            End::Failed(&exhausted, Kind::Exhausted)
        }
    };
    if let Err(error) = report::tell(kustd, storage, account, message, end).await {
        // a report that can never be written must not keep the message for ever
        tracing::warn!(%error, id = %message.id, tries, "what became of a queued ingestion cannot be told");
        if tries < MOST_TRIES {
            return Some(pause);
        }
    }
    let delete = outcome == Outcome::Succeeded && message.what.as_ref().is_ok_and(|what| !what.retain_blob);
    if delete && let Err(error) = storage.requests.delete_blob(&message.blob).await {
        tracing::warn!(%error, "an ingested blob is left behind");
    }
    None
}
