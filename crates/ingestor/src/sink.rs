//! The sink of telemetry that clients send here directly: only configured databases are taken.
//!
//! A request of unknown databases alone is refused (400). In a request that also has rows for known
//! ones, the others are left out, counted in the ledger by reason, and logged, so that one wrong
//! attribute does not lose its neighbours.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use futures::future::BoxFuture;
use server::{Marks, Refused, Sink, WalSink};
use telemetry::RowSet;

use crate::status::Admission;

/// See the module.
pub(crate) struct KnownDatabases {
    inner: WalSink,
    store: wal::Store,
    known: HashSet<String>,
    admission: Arc<Admission>,
}

impl KnownDatabases {
    pub(crate) fn new(store: wal::Store, known: HashSet<String>, admission: Arc<Admission>) -> KnownDatabases {
        KnownDatabases { inner: WalSink::new(store.clone()), store, known, admission }
    }

    async fn commit_known(&self, rows: RowSet, filtered: u64, marks: Marks) -> Result<(), Refused> {
        // All or nothing: a client that repeats the request must not send the other rows twice.
        if let Some(why) = rows.tables().iter().find_map(|t| self.admission.full(&t.database)) {
            return Err(Refused::overloaded(why));
        }
        let unknown = self.unknown(&rows);
        if unknown.is_empty() {
            return self.inner.commit_with_marks(rows, filtered, marks).await;
        }
        let names: Vec<&str> = unknown.keys().map(AsRef::as_ref).collect();
        let text = format!("no such database is configured here: {}", names.join(", "));
        let telemetry::Grouped { bytes, places, tables } = rows.into_grouped();
        let known = tables.into_iter().filter(|(table, _)| self.known.contains(table.database.as_ref()));
        let sections: Vec<_> = known.map(server::section).collect();
        if sections.is_empty() {
            return Err(Refused::Invalid(text));
        }
        tracing::warn!(rows = unknown.values().sum::<u64>(), "rows are left out: {text}");
        let filtered = unknown.into_iter().map(|(database, rows)| wal::Filtered { database, reason: "unknown-database", rows }).collect();
        let rows = wal::Pieces { bytes, places };
        let request = wal::Request { sections, rows, filtered, marks, ..wal::Request::default() };
        let (done, committed) = tokio::sync::oneshot::channel();
        self.store.commit(request, Box::new(move |outcome| drop(done.send(outcome))));
        match committed.await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(refusal)) if refusal.retryable() => Err(Refused::overloaded(refusal.to_string())),
            Ok(Err(refusal)) => Err(Refused::Invalid(refusal.to_string())),
            Err(_) => Err(Refused::Failed("the store was closed".to_owned())),
        }
    }

    fn unknown(&self, rows: &RowSet) -> BTreeMap<Arc<str>, u64> {
        let mut unknown = BTreeMap::new();
        for table in rows.tables().iter().filter(|t| !self.known.contains(t.database.as_ref())) {
            *unknown.entry(table.database.clone()).or_default() += u64::from(table.rows);
        }
        unknown
    }
}

impl Sink for KnownDatabases {
    fn commit_with_marks(&self, rows: RowSet, filtered: u64, marks: Marks) -> BoxFuture<'_, Result<(), Refused>> {
        Box::pin(self.commit_known(rows, filtered, marks))
    }

    fn ready(&self) -> Result<(), String> {
        self.admission.ready()?;
        self.inner.ready()
    }
}
