//! Kubernetes events as a source: who asks for a namespace, or for all, gets each version of each event as a row.
//!
//! Events are listed once and then watched; [`Progress`] says which of them are stored, and is stored with them. While the
//! API server is away it is asked again, and what happened meanwhile comes with the next list or watch, as far as the
//! server still has it: it forgets events after an hour unless told otherwise. Of an event that changed several times
//! while nobody watched there is only the last version.
//!
//! Of several collectors that store the same events in the same table one does, by a Lease ([`shift`]).

mod progress;
mod record;
mod shift;

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use k8s_openapi::api::core::v1::Event;
use kube_client::Client;
use kube_client::api::{Api, ListParams};
use kube_runtime::watcher::{self, Event as Told};
use logs::{Destination, Record};
use tokio_util::sync::CancellationToken;

use super::{Delivery, Position, now_ns};
use crate::config::EventSource;
use crate::pods::{Following, Problem};
use progress::Progress;
use shift::Notes;

pub(crate) use shift::Shift;

/// Events of one batch, and of one page of a list.
const MAX_EVENTS: u16 = 500;

/// Before a server is listed again that could not be asked how far it is.
const PAUSE: Duration = Duration::from_secs(5);

/// Events that are followed, and where their records go.
struct Source {
    events: Api<Event>,
    /// Its name; empty for all.
    namespace: String,
    problem: Problem,
    progress: Progress,
    position: Position,
    destination: Destination,
    delivery: Arc<Delivery>,
    notes: Notes,
    /// Whether what the next list has new may be stored already, by another that did not say how far it came last.
    unsure: bool,
}

/// Why following ended.
#[derive(PartialEq, Eq)]
enum Ended {
    Stopped,
    /// The server has to be listed again.
    Again,
}

impl Source {
    /// Of one namespace, or of all; it goes on where the store says.
    fn new(
        namespace: Option<&str>,
        settings: &EventSource,
        client: &Client,
        store: &wal::Store,
        problem: Problem,
        shared: (Arc<Delivery>, Notes),
    ) -> Source {
        let destination = settings.destination.clone();
        let name = namespace.unwrap_or_default();
        let (position, stored) = Position::load(store, format!("events/{}/{}/{name}", destination.database(), destination.table()));
        let (delivery, notes) = shared;
        Source {
            events: namespace.map_or_else(|| Api::all(client.clone()), |namespace| Api::namespaced(client.clone(), namespace)),
            namespace: name.to_owned(),
            problem,
            progress: stored.map(|stored| Progress::read(&stored)).unwrap_or_default(),
            position,
            destination,
            delivery,
            notes,
            unsure: false,
        }
    }

    /// Follows the events until `stop`.
    async fn run(&mut self, stop: &CancellationToken) {
        while self.follow(stop).await == Ended::Again {}
    }

    async fn follow(&mut self, stop: &CancellationToken) -> Ended {
        let config = watcher::Config::default().page_size(MAX_EVENTS.into());
        let mut following = Following::new(self.events.clone(), config, self.problem.clone());
        loop {
            let Some(Some(first)) = stop.run_until_cancelled(following.next()).await else { return Ended::Stopped };
            let (records, listed) = self.records(first, &mut following);
            let unsure = if self.unsure { records.len() } else { 0 };
            self.unsure &= !listed;
            if !self.deliver(records, stop).await {
                return Ended::Stopped;
            }
            self.notes.doubtful(unsure);
            self.notes.stored(&self.namespace, self.progress.all());
            if listed && self.progress.is_ahead_of_list() && self.is_ahead_of_server(stop).await {
                return Ended::Again;
            }
        }
    }

    /// Records of what is told at this moment, and whether a list has ended with them.
    fn records(&mut self, first: Told<Event>, following: &mut Following<Event>) -> (Vec<Record>, bool) {
        let (mut records, mut told) = (Vec::new(), 0);
        let mut next = Some(first);
        while let Some(event) = next {
            let new = match event {
                Told::Init => {
                    self.progress.list();
                    None
                }
                Told::InitApply(event) => self.progress.listed(&event.metadata).then_some(event),
                Told::Apply(event) => self.progress.watched(&event.metadata).then_some(event),
                Told::Delete(_) => None,
                Told::InitDone => {
                    self.progress.list_ended();
                    return (records, true);
                }
            };
            records.extend(new.map(|event| record::record(event, &self.destination, now_ns())));
            told += 1;
            next = if told < MAX_EVENTS { following.next().now_or_never().flatten() } else { None };
        }
        (records, false)
    }

    /// Whether all was stored before `stop`.
    async fn deliver(&mut self, records: Vec<Record>, stop: &CancellationToken) -> bool {
        match self.position.marks(&records, self.progress.bytes()) {
            Some(marks) => self.delivery.deliver(records, marks, stop).await,
            None => true,
        }
    }

    /// Whether the server has not come as far as what is stored, so that it is another one, or was restored from a backup:
    /// then what it has now may all be new. Also when the server does not say, after a pause.
    async fn is_ahead_of_server(&mut self, stop: &CancellationToken) -> bool {
        match self.events.list(&ListParams::default().limit(1)).await {
            Ok(list) => {
                let ahead = self.progress.is_ahead_of(list.metadata.resource_version.as_deref());
                if ahead {
                    tracing::warn!("the API server was replaced or restored; all events that it has are stored, some perhaps again");
                    self.progress = Progress::default();
                }
                ahead
            }
            Err(error) => {
                self.problem.is(&kube_watch::describe(&error));
                stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await;
                true
            }
        }
    }
}
