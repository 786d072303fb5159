//! A Kusto that is told of blobs through a queue, or streamed to, and remembers what it has: as Azure has it, with what goes
//! wrong there. Blobs, messages and rows of the status table are those of all ingestors.

use std::collections::{BTreeMap, BTreeSet};

use ingestor::upload::passage::Status;
use serde_json::{Value, json};
use wal::TableKey;

/// Signatures of blobs that a message carries end so many milliseconds after it was queued.
const SIGNATURE_MS: u64 = 30_000;

/// See the module.
#[derive(Default)]
pub(super) struct Kusto {
    /// When each row came, and from which node.
    pub(super) rows: BTreeMap<String, Vec<(u64, usize)>>,
    blobs: BTreeMap<String, Vec<String>>,
    messages: Vec<Message>,
    tags: BTreeSet<(TableKey, [u8; 16])>,
    /// What was streamed, by batch and content.
    streamed: BTreeSet<([u8; 16], Vec<String>)>,
    /// Whether one that is streamed twice is stored twice.
    pub(super) forgets: bool,
}

struct Message {
    node: usize,
    table: TableKey,
    batch: [u8; 16],
    blob: String,
    tagged: bool,
    queued_ms: u64,
    status: Status,
}

/// How the ingestion of a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Ingested,
    Transient,
    /// Table or mapping are missing.
    Missing,
    Partly,
    Skipped,
}

/// Rows that no Kusto takes.
pub(super) fn is_bad(row: &str) -> bool {
    row[1..].parse::<u64>().unwrap().is_multiple_of(211)
}

impl Kusto {
    pub(super) fn new(forgets: bool) -> Kusto {
        Kusto { forgets, ..Kusto::default() }
    }

    /// The blob, and the length of its CSV.
    pub(super) fn put_blob(&mut self, batch: &[u8; 16], rows: Vec<String>) -> (Value, u64) {
        let name = uuid::Uuid::from_bytes(*batch).simple().to_string();
        let bytes = rows.iter().map(|row| row.len() as u64 + 3).sum();
        self.blobs.insert(name.clone(), rows);
        (json!({ "name": name }), bytes)
    }

    /// The row of a message that is about to be queued.
    pub(super) fn announce(&mut self, node: usize, table: &TableKey, batch: [u8; 16], blob: &Value, tagged: bool, now: u64) -> usize {
        let (blob, status) = (blob["name"].as_str().unwrap().to_owned(), Status::Pending("Pending".to_owned()));
        self.messages.push(Message { node, table: table.clone(), batch, blob, tagged, queued_ms: now, status });
        self.messages.len() - 1
    }

    /// How many messages there were.
    pub(super) fn queued(&self) -> u64 {
        self.messages.len() as u64
    }

    /// What the client makes of it, who looks at the rows of all messages of a batch where one was skipped for its tag.
    pub(super) fn status(&self, receipt: &Value) -> Status {
        let message = &self.messages[receipt["row"].as_u64().unwrap() as usize];
        if !matches!(message.status, Status::AlreadyIngested { .. }) {
            return message.status.clone();
        }
        let statuses = || self.messages.iter().filter(|other| other.batch == message.batch).map(|other| &other.status);
        let partly = statuses().find(|status| matches!(status, Status::PartiallySucceeded(_))).cloned();
        partly.unwrap_or_else(|| Status::AlreadyIngested { whole: statuses().any(|status| *status == Status::Succeeded) })
    }

    /// The message is taken out of the queue.
    pub(super) fn ingest(&mut self, message: usize, fate: Fate, now: u64) -> &Status {
        let Message { node, table, batch, blob, tagged, queued_ms, .. } = &self.messages[message];
        let (node, tag) = (*node, (table.clone(), *batch));
        let failed = |permanent, code: &str| Status::Failed { permanent, code: code.to_owned(), details: String::new() };
        let status = match (self.blobs.get(blob), fate) {
            (_, _) if *tagged && self.tags.contains(&tag) => Status::AlreadyIngested { whole: false },
            (_, Fate::Transient) => failed(false, "Internal_ServiceError"),
            (_, Fate::Missing) => failed(true, "BadRequest_EntityNotFound"),
            (_, _) if now > queued_ms + SIGNATURE_MS => failed(true, "Download_Forbidden"),
            (None, _) => failed(true, "Download_BlobNotFound"),
            (Some(rows), _) if rows.iter().any(|row| is_bad(row)) => failed(true, "Stream_WrongNumberOfFields"),
            (_, Fate::Skipped) => Status::Skipped("nothing to ingest".to_owned()),
            (Some(rows), Fate::Partly) => {
                let some = rows[..rows.len().div_ceil(2)].to_vec();
                store(&mut self.rows, some, (now, node));
                // Tags are those of the extents.
                if *tagged {
                    self.tags.insert(tag);
                }
                Status::PartiallySucceeded("some".to_owned())
            }
            (Some(rows), Fate::Ingested) => {
                let rows = rows.clone();
                store(&mut self.rows, rows, (now, node));
                if *tagged {
                    self.tags.insert(tag);
                }
                Status::Succeeded
            }
        };
        let message = &mut self.messages[message];
        message.status = status;
        &message.status
    }

    /// Whether the rows are there; they are not where one of them is bad.
    pub(super) fn stream(&mut self, node: usize, batch: [u8; 16], rows: Vec<String>, now: u64) -> bool {
        if rows.iter().any(|row| is_bad(row)) {
            return false;
        }
        if self.streamed.insert((batch, rows.clone())) || self.forgets {
            store(&mut self.rows, rows, (now, node));
        }
        true
    }
}

fn store(all: &mut BTreeMap<String, Vec<(u64, usize)>>, rows: Vec<String>, came: (u64, usize)) {
    rows.into_iter().for_each(|row| all.entry(row).or_default().push(came));
}
