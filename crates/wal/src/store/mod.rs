//! The store.
use std::io;
use std::sync::Arc;

use crate::*;

/// A handle to an open store; clones share it.
#[derive(Clone)]
pub struct Store {}

/// A large transfer on its way into a segment of its own.
#[derive(Debug)]
pub struct Adoption {}

impl Adoption {
    /// Appends verified blocks with `rows` records.
    pub fn write_blocks(&mut self, _blocks: &[u8], _rows: u64) -> io::Result<()> {
        unimplemented!()
    }
    /// Makes the segment durable and adopts it with one frame. Blocks while syncing.
    pub fn finish(self, _receipts: Vec<Receipt>, _marks: Vec<(Vec<u8>, Vec<u8>)>, _done: Done) {
        unimplemented!()
    }
}

#[allow(missing_docs)]
impl Store {
    pub fn open(_options: Options, _disk: Arc<dyn Disk>, _now_ms: u64) -> Result<(Store, OpenReport), OpenError> {
        unimplemented!()
    }
    pub fn commit(&self, _request: Request, _done: Done) {
        unimplemented!()
    }
    pub fn commit_wait(&self, _request: Request) -> Result<u64, Refusal> {
        unimplemented!()
    }
    pub fn tick(&self, _now_ms: u64) {
        unimplemented!()
    }
    pub fn seal_all(&self) -> Result<(), Refusal> {
        unimplemented!()
    }
    pub fn sealed(&self) -> Vec<SegmentInfo> {
        unimplemented!()
    }
    pub fn on_sealed(&self, _wake: Arc<dyn Fn() + Send + Sync>) {
        unimplemented!()
    }
    pub fn read_segment(&self, _id: SegmentId) -> io::Result<Vec<u8>> {
        unimplemented!()
    }
    pub fn settle(&self, _items: Vec<Settlement>, _done: Done) {
        unimplemented!()
    }
    pub fn settle_wait(&self, _items: Vec<Settlement>) -> Result<u64, Refusal> {
        unimplemented!()
    }
    pub fn known(&self, _sender: &[u8; 16], _database: &str, _number: u64, _digest: u64) -> Known {
        unimplemented!()
    }
    pub fn sender_id(&self) -> [u8; 16] {
        unimplemented!()
    }
    pub fn floor(&self, _database: &str) -> u64 {
        unimplemented!()
    }
    pub fn record_batch(&self, _record: BatchRecord, _done: Done) {
        unimplemented!()
    }
    pub fn batches(&self) -> Vec<BatchRecord> {
        unimplemented!()
    }
    pub fn mark(&self, _key: &[u8]) -> Option<Vec<u8>> {
        unimplemented!()
    }
    pub fn marks_with_prefix(&self, _prefix: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        unimplemented!()
    }
    pub fn usage(&self) -> Usage {
        unimplemented!()
    }
    pub fn ledger(&self) -> Ledger {
        unimplemented!()
    }
    pub fn adopt(&self, _table: TableKey) -> io::Result<Adoption> {
        unimplemented!()
    }
    pub fn close(self) {}
}
