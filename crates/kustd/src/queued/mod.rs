//! Queued ingestion, as Azure's data-management service offers it: clients put blobs into storage that is given out to them
//! and messages into a queue; what became of each is told in a status table and in queues.
//!
//! A message is deleted when its rows are durable and that is reported. Whatever happens before, it is seen again, and the
//! rows are known by the message's id: they are there once. A message that can never work is reported and deleted.
//! Unlike Azure's, this service does not join blobs: each is ingested as it comes.

mod failures;
mod ingest;
mod message;
mod report;
mod storage;
mod worker;

pub(crate) use failures::{Failures, IngestionFailure};
pub(crate) use message::Message;
pub(crate) use storage::IngestionStorage;
pub(crate) use worker::run;
