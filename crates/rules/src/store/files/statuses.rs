//! Writes of statuses. Those that come while another is committed share the next transaction and are shown together: a
//! thousand rules that begin at the same time cost few syncs, and few looks at the rules.

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::oneshot;

use super::super::Key;
use super::parse::Kind;
use super::{FilesError, Shared, on_disk};

/// A new status of an object.
pub(super) struct StatusWrite {
    pub(super) kind: Kind,
    pub(super) key: Key,
    /// The version that it was made from.
    pub(super) version: i64,
    pub(super) status: Option<Value>,
    /// The object with that status.
    pub(super) object: Box<dyn Any + Send>,
}

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    /// It is there, and the object has this version now.
    As(i64),
    /// The object has changed since, or is gone.
    Stale,
}

/// An object as it is after a write.
pub(super) struct NewVersion {
    pub(super) key: Key,
    pub(super) version: i64,
    pub(super) object: Box<dyn Any + Send>,
}

type Done = oneshot::Sender<Result<Written, Arc<FilesError>>>;

/// Writes that wait for a transaction. Clones share them.
#[derive(Clone, Default)]
pub(super) struct Waiting(Arc<Mutex<Queue>>);

#[derive(Default)]
struct Queue {
    writes: Vec<(StatusWrite, Done)>,
    /// Whether somebody is on the way to commit them.
    called: bool,
}

impl Waiting {
    /// Writes a status; returns once it is committed and shown.
    pub(super) async fn write(&self, shared: &Arc<Mutex<Shared>>, write: StatusWrite) -> Result<Written, Arc<FilesError>> {
        let (done, result) = oneshot::channel();
        let called = {
            let mut queue = self.0.lock();
            queue.writes.push((write, done));
            std::mem::replace(&mut queue.called, true)
        };
        if !called {
            let waiting = self.clone();
            on_disk(shared, move |shared| shared.commit(waiting.take())).await;
        }
        match result.await {
            Ok(result) => result,
            // Whoever committed has panicked, which is told where it was called.
            Err(_) => Err(Arc::new(FilesError::Interrupted)),
        }
    }

    fn take(&self) -> Vec<(StatusWrite, Done)> {
        let mut queue = self.0.lock();
        queue.called = false;
        std::mem::take(&mut queue.writes)
    }
}

impl Shared {
    fn commit(&mut self, writes: Vec<(StatusWrite, Done)>) {
        let (writes, done): (Vec<StatusWrite>, Vec<Done>) = writes.into_iter().unzip();
        let results = match self.state.set_statuses(&writes) {
            Ok(written) => {
                self.show(writes, &written);
                written.into_iter().map(Ok).collect()
            }
            Err(error) => vec![Err(Arc::new(error)); done.len()],
        };
        for (done, result) in done.into_iter().zip(results) {
            // Who asked may be gone.
            let _ = done.send(result);
        }
    }

    /// Shows what was written, each kind at once.
    fn show(&self, writes: Vec<StatusWrite>, written: &[Written]) {
        let mut by_kind: HashMap<Kind, Vec<NewVersion>> = HashMap::new();
        for (write, written) in writes.into_iter().zip(written) {
            if let Written::As(version) = *written {
                by_kind.entry(write.kind).or_default().push(NewVersion { key: write.key, version, object: write.object });
            }
        }
        for (kind, objects) in by_kind {
            if let Some(decoder) = self.kinds.get(&kind) {
                decoder.show(objects);
            }
        }
    }
}
