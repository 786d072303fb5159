//! Who of several collectors stores the events: the one that holds a Lease in the collector's namespace.
//!
//! It notes at the Lease, with each renewal, up to which resourceVersion it has stored everything; so the next one, whose
//! own store knows nothing of that, goes on there. What a collector stored between its last note and a sudden end is stored
//! again by the next one, which counts how much that can be. One that ends in order leaves a note that says it all.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::join_all;
use kube_client::Client;
use lease::{Before, Campaign, Timing, WhenUnreachable};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Source;
use crate::config::EventSource;
use crate::logs::Delivery;
use crate::metrics::Metrics;
use crate::pods::{Problem, Source as Followed};

/// A collector that stores events when it is its turn.
pub(crate) struct Shift {
    settings: EventSource,
    client: Client,
    store: wal::Store,
    metrics: Arc<Metrics>,
    delivery: Arc<Delivery>,
    /// Who this is, among those that contend.
    holder: String,
}

impl Shift {
    /// For the events of `settings`, on the node `holder`.
    pub(crate) fn new(
        settings: &EventSource,
        client: &Client,
        store: &wal::Store,
        metrics: &Arc<Metrics>,
        delivery: Delivery,
        holder: &str,
    ) -> Shift {
        Shift {
            settings: settings.clone(),
            client: client.clone(),
            store: store.clone(),
            metrics: Arc::clone(metrics),
            delivery: Arc::new(delivery),
            holder: holder.to_owned(),
        }
    }

    /// Waits for its turn and stores events while it lasts, until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let notes = Notes::new(Arc::clone(&self.metrics));
        let options = lease::Options {
            namespace: self.client.default_namespace().to_owned(),
            name: lease_name(&self.settings),
            holder: self.holder.clone(),
            timing: Timing::default(),
            when_unreachable: WhenUnreachable::StepDown,
        };
        let campaign = Campaign::start_with_notes(self.client.clone(), options, notes.receiver());
        let mut leader = campaign.leader();
        self.metrics.events_leading.set(0);
        while stop.run_until_cancelled(leader.elected()).await.is_some() {
            self.metrics.events_leading.set(1);
            let turn = stop.child_token();
            let mut sources = self.sources(&notes);
            notes.begin(&campaign.before(), &self.holder, &mut sources);
            let following = join_all(sources.iter_mut().map(|source| source.run(&turn)));
            let lost = async {
                leader.changed().await;
                turn.cancel();
                std::future::pending::<()>().await;
            };
            tokio::select! {
                _ = following => {}
                () = lost => {}
            }
            self.metrics.events_leading.set(0);
            if !stop.is_cancelled() {
                notes.end();
            }
        }
        campaign.release().await;
    }

    /// One source for each namespace that the settings name, or one for all; they go on where the store says.
    fn sources(&self, notes: &Notes) -> Vec<Source> {
        let problem = Problem::new(Followed::Events, &self.metrics);
        let source = |namespace: Option<&str>| {
            let shared = (Arc::clone(&self.delivery), notes.clone());
            Source::new(namespace, &self.settings, &self.client, &self.store, problem.clone(), shared)
        };
        match self.settings.namespaces.as_slice() {
            [] => vec![source(None)],
            namespaces => namespaces.iter().map(|namespace| source(Some(namespace))).collect(),
        }
    }
}

/// The same for collectors that store the same events in the same table.
fn lease_name(settings: &EventSource) -> String {
    let mut namespaces = settings.namespaces.clone();
    namespaces.sort();
    let what = [settings.destination.database(), settings.destination.table()].map(|name| name.to_string()).into_iter().chain(namespaces);
    let what: Vec<String> = what.collect();
    format!("adx-mon-events-{:016x}", xxhash_rust::xxh3::xxh3_64(what.join("/").as_bytes()))
}

/// How far all sources are, for the Lease.
#[derive(Clone)]
pub(super) struct Notes {
    /// By namespace.
    all: Arc<Mutex<BTreeMap<String, u64>>>,
    note: Arc<watch::Sender<Option<String>>>,
    metrics: Arc<Metrics>,
}

impl Notes {
    fn new(metrics: Arc<Metrics>) -> Notes {
        Notes { all: Arc::default(), note: Arc::new(watch::Sender::new(None)), metrics }
    }

    fn receiver(&self) -> watch::Receiver<Option<String>> {
        self.note.subscribe()
    }

    /// A turn begins: the sources go on where the one before was.
    fn begin(&self, before: &Before, holder: &str, sources: &mut [Source]) {
        let noted = before.note.as_deref().map(read).unwrap_or_default();
        let unsure = before.holder.as_deref().is_some_and(|before| before != holder);
        if unsure {
            tracing::warn!(
                before = before.holder,
                "another collector stored these events and ended suddenly: its last ones may be stored again"
            );
        }
        for source in sources {
            source.progress.stored_by_another(noted.get(&source.namespace).copied().unwrap_or_default());
            source.unsure = unsure;
            self.all.lock().insert(source.namespace.clone(), source.progress.all());
        }
        self.tell();
    }

    /// The turn is lost: what is noted is another's now.
    fn end(&self) {
        self.note.send_replace(None);
    }

    /// Every change up to a resourceVersion is stored.
    pub(super) fn stored(&self, namespace: &str, upto: u64) {
        self.all.lock().insert(namespace.to_owned(), upto);
        self.tell();
    }

    /// Events were stored that may be stored already.
    pub(super) fn doubtful(&self, events: usize) {
        self.metrics.events_maybe_duplicate.inc_by(events as u64);
    }

    fn tell(&self) {
        // Names and numbers always become JSON.
        self.note.send_replace(serde_json::to_string(&*self.all.lock()).ok());
    }
}

fn read(note: &str) -> BTreeMap<String, u64> {
    serde_json::from_str(note).unwrap_or_else(|error| {
        tracing::warn!(%error, "what the Lease of the events notes cannot be read; events may be stored again");
        BTreeMap::new()
    })
}
