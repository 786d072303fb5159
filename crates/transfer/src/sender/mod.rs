//! The sender's machine with a store, a clock and HTTP around it.
//!
//! One task owns the machine. It is woken by sealed segments, answers and time; requests run in
//! tasks of their own and report back. Settlements that cannot be made durable (a full disk) are
//! tried again; until then their segments are neither sent nor forgotten.
//!
//! [`Sender::start`] sends all segments to a list of ingestors. [`Sender::start_routed`] sends each to an endpoint of its
//! own, and hands over what is not sent.

mod access;
mod courier;
mod http;
mod metrics;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::registry::Registry;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use wal::{Outcome, Request, SegmentId, SegmentInfo, Settlement, Store};

use crate::machine::{Answer, Config, Contract, Job, Key, Machine, Offer, Release, Route, Settle, Step};
pub use access::{Credentials, may_carry_token};
pub use courier::{Courier, Delivery};
use http::{Http, Outgoing};
use metrics::SenderMetrics;

/// The mark under which the places of segments are kept.
const PLACES_MARK: &[u8] = b"transfer/places";
/// How long a segment stays with the receiver that may have it.
const PIN: Duration = Duration::from_secs(600);
/// For how long after a failure an endpoint gets nothing that can go elsewhere.
const UNHEALTHY: Duration = Duration::from_secs(60);
/// Between two tries to make something durable.
const RETRY_STORE: Duration = Duration::from_secs(1);

/// Where and how segments are sent.
#[derive(Clone, Debug)]
pub struct SenderOptions {
    /// URLs of ingestors in order of preference, `https://host:9090`. With none, data waits.
    pub endpoints: Vec<String>,
    /// Bytes of segments in one request; larger segments travel alone.
    pub max_batch_bytes: u64,
    /// Segments in one request.
    pub max_batch_segments: usize,
    /// Requests at a time.
    pub concurrency: usize,
    /// Requests to one endpoint at a time.
    pub endpoint_concurrency: usize,
    /// The name of an ingestor that sends to its peers. What a peer sent is not passed on once more.
    pub peer: Option<String>,
    /// Whether bodies are compressed again on the wire; segments are compressed already.
    pub gzip: bool,
    /// Accept any certificate, as the self-signed one of an ingestor needs.
    pub insecure_skip_verify: bool,
    /// How it shows who it is.
    pub credentials: Credentials,
    /// Until the answer must be there.
    pub timeout: Duration,
}

impl Default for SenderOptions {
    fn default() -> Self {
        SenderOptions {
            endpoints: Vec::new(),
            max_batch_bytes: 4 << 20,
            max_batch_segments: 500,
            concurrency: 5,
            endpoint_concurrency: usize::MAX,
            peer: None,
            gzip: false,
            insecure_skip_verify: false,
            credentials: Credentials::default(),
            timeout: Duration::from_secs(30),
        }
    }
}

/// Endpoints by name, with their addresses. Names outlive addresses.
pub type Endpoints = BTreeMap<String, String>;

/// Where each segment goes, and what becomes of those that are not sent.
pub trait Router: Send {
    /// Where each of these segments goes, in their order. They are new, or were there before the start.
    fn route(&mut self, segments: &[SegmentInfo]) -> Vec<Route>;

    /// This one is not sent, and is somebody else's from now on.
    fn released(&mut self, segment: &SegmentInfo, release: &Release);
}

struct Routes {
    endpoints: watch::Receiver<Endpoints>,
    router: Box<dyn Router>,
}

/// What a sender is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SenderStatus {
    /// Sealed segments that are not settled.
    pub pending: usize,
    /// Requests that wait for an answer.
    pub in_flight: usize,
    /// The last failure, until the next success.
    pub last_error: Option<String>,
}

/// The end of [`Sender::drain`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainReport {
    /// Segments that are still here; they are sent after the next start.
    pub left: usize,
}

/// Sends the sealed segments of a store until it is told to stop. Clones share it.
#[derive(Clone)]
pub struct Sender {
    shared: Arc<Shared>,
}

struct Shared {
    status: watch::Sender<SenderStatus>,
    wake: Arc<Notify>,
    store: Store,
}

impl Sender {
    /// Starts sending. `shutdown` stops it at once; what is not settled is sent after the next
    /// start. To finish first, call [`Sender::drain`] before.
    pub fn start(store: Store, options: SenderOptions, shutdown: CancellationToken, registry: &mut Registry) -> Sender {
        Sender::run(store, options, None, shutdown, registry)
    }

    /// Starts sending each segment to the endpoint that `router` gives it. Segments that were released before the start and
    /// are on their way elsewhere must have [`Route::Released`]. What is there already is routed before this returns.
    pub fn start_routed(
        store: Store,
        options: SenderOptions,
        endpoints: watch::Receiver<Endpoints>,
        router: Box<dyn Router>,
        shutdown: CancellationToken,
        registry: &mut Registry,
    ) -> Sender {
        Sender::run(store, options, Some(Routes { endpoints, router }), shutdown, registry)
    }

    fn run(store: Store, options: SenderOptions, routes: Option<Routes>, shutdown: CancellationToken, registry: &mut Registry) -> Sender {
        let metrics = SenderMetrics::register(registry);
        let wake = Arc::new(Notify::new());
        let (status, _) = watch::channel(SenderStatus::default());
        let sealed = wake.clone();
        store.on_sealed(Arc::new(move || sealed.notify_one()));
        let shared = Arc::new(Shared { status, wake, store: store.clone() });
        let (events, inbox) = mpsc::unbounded_channel();
        let mut actor = Actor {
            machine: machine(&store, &options),
            http: Arc::new(Http::new(&options, store.sender_id())),
            store,
            offered: HashMap::new(),
            released: HashSet::new(),
            routes,
            events,
            metrics,
            shared: shared.clone(),
        };
        actor.move_endpoints();
        actor.offer();
        actor.advance();
        tokio::spawn(actor.run(inbox, shutdown));
        Sender { shared }
    }

    /// Waits until every segment that is sealed now or later is settled, at most for `deadline`.
    /// Seal first ([`wal::Store::seal_all`]), and stop what writes.
    pub async fn drain(&self, deadline: Duration) -> DrainReport {
        self.shared.wake.notify_one();
        let mut status = self.shared.status.subscribe();
        let empty = async {
            // The status lags behind the store by one round, so the store has the last word.
            while self.shared.store.waiting_segments() > 0 {
                if status.changed().await.is_err() {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(deadline, empty).await;
        DrainReport { left: self.shared.store.waiting_segments() }
    }

    /// What it is doing, each time that this changes.
    pub fn watch(&self) -> watch::Receiver<SenderStatus> {
        self.shared.status.subscribe()
    }

    /// What it is doing now.
    pub fn status(&self) -> SenderStatus {
        self.shared.status.borrow().clone()
    }
}

fn machine(store: &Store, options: &SenderOptions) -> Machine {
    let config = Config {
        endpoints: options.endpoints.clone(),
        max_batch_bytes: options.max_batch_bytes,
        max_batch_segments: options.max_batch_segments,
        concurrency: options.concurrency.max(1),
        endpoint_concurrency: options.endpoint_concurrency.max(1),
        pin_ms: PIN.as_millis() as u64,
        unhealthy_ms: UNHEALTHY.as_millis() as u64,
    };
    Machine::new(config, store.mark(PLACES_MARK).as_deref(), now_ms())
}

enum Event {
    Probed(usize, Option<Contract>),
    Answered(Job, Answer, Option<String>),
    Recorded(bool),
    Settled(Vec<Settle>, bool),
}

struct Actor {
    machine: Machine,
    store: Store,
    http: Arc<Http>,
    /// Of each database the highest number that the machine was told of.
    offered: HashMap<Arc<str>, u64>,
    /// Segments that are somebody else's, until they are settled.
    released: HashSet<Key>,
    routes: Option<Routes>,
    events: mpsc::UnboundedSender<Event>,
    metrics: SenderMetrics,
    shared: Arc<Shared>,
}

impl Actor {
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Event>, shutdown: CancellationToken) {
        let mut endpoints = self.routes.as_ref().map(|routes| routes.endpoints.clone());
        loop {
            let wake_at = self.advance();
            self.publish();
            let sleep = match wake_at {
                Some(at) => Duration::from_millis(at.saturating_sub(now_ms()).max(1)),
                None => Duration::from_secs(3600),
            };
            let wake = self.shared.wake.clone();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                Some(event) = inbox.recv() => {
                    self.handle(event);
                    while let Ok(event) = inbox.try_recv() {
                        self.handle(event);
                    }
                }
                () = moved(&mut endpoints) => self.move_endpoints(),
                () = wake.notified() => self.offer(),
                () = tokio::time::sleep(sleep) => {}
            }
        }
    }

    fn move_endpoints(&mut self) {
        if let Some(routes) = &self.routes {
            let endpoints = routes.endpoints.borrow();
            self.machine.set_endpoints(endpoints.iter().map(|(name, url)| (name.as_str(), url.as_str())));
        }
    }

    /// Tells the machine of new segments.
    fn offer(&mut self) {
        self.forget_settled();
        let new = self.store.sealed_after(|database| self.offered.get(database).copied().unwrap_or(0));
        for info in &new {
            self.offered.insert(info.table.database.clone(), info.number);
        }
        let routes = match &mut self.routes {
            Some(routes) => routes.router.route(&new),
            None => vec![Route::Any; new.len()],
        };
        self.machine.offer(new.iter().zip(routes).map(|(info, route)| Offer { key: key_of(info), bytes: info.bytes, route }));
    }

    /// Released segments that somebody else has settled.
    fn forget_settled(&mut self) {
        let store = &self.store;
        let settled: Vec<Key> = self.released.extract_if(|key| segment(store, key).is_none()).collect();
        self.machine.settled(&settled);
    }

    /// Carries out steps until the machine waits; returns until when.
    fn advance(&mut self) -> Option<u64> {
        loop {
            match self.machine.next(now_ms()) {
                Step::Wait(at) => return at,
                Step::Probe { endpoint } => self.probe(endpoint),
                Step::Record(bytes) => self.record(bytes),
                Step::Send(job) => self.send(job),
                Step::Release(releases) => self.release(releases),
            }
        }
    }

    /// Hands over what is not sent.
    fn release(&mut self, releases: Vec<Release>) {
        self.metrics.released(&releases);
        for release in releases {
            if let (Some(info), Some(routes)) = (segment(&self.store, &release.key), &mut self.routes) {
                routes.router.released(&info, &release);
            }
            self.released.insert(release.key);
        }
    }

    fn probe(&self, endpoint: usize) {
        let (http, events) = (self.http.clone(), self.events.clone());
        let url = self.machine.url(endpoint).to_owned();
        tokio::spawn(async move {
            let contract = http.probe(&url).await;
            let _ = events.send(Event::Probed(endpoint, contract));
        });
    }

    fn record(&self, bytes: Vec<u8>) {
        let request = Request { marks: vec![(PLACES_MARK.to_vec(), bytes)], ..Request::default() };
        let (done, durable) = oneshot::channel();
        self.store.commit(request, Box::new(move |outcome| drop(done.send(outcome))));
        let events = self.events.clone();
        tokio::spawn(async move {
            let durable = matches!(durable.await, Ok(Ok(_)));
            if !durable {
                tokio::time::sleep(RETRY_STORE).await;
            }
            let _ = events.send(Event::Recorded(durable));
        });
    }

    fn send(&self, job: Job) {
        let http = self.http.clone();
        let segments = job.segments.iter().filter_map(|key| segment(&self.store, key));
        let outgoing = Outgoing {
            url: self.machine.url(job.endpoint).to_owned(),
            receiver: job.receiver,
            segments: segments.collect(),
            floor: job.segments.first().map_or(0, |key| self.store.floor(&key.database)),
        };
        let (store, events) = (self.store.clone(), self.events.clone());
        tokio::spawn(async move {
            let (answer, error) = http.send(&store, outgoing).await;
            let _ = events.send(Event::Answered(job, answer, error));
        });
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Probed(endpoint, contract) => {
                if contract.is_none() {
                    self.note_error(Some("the ingestor cannot be reached".to_owned()));
                }
                self.machine.probed(endpoint, contract, now_ms());
            }
            Event::Recorded(durable) => self.machine.recorded(durable),
            Event::Answered(job, answer, error) => {
                self.metrics.answered(&answer);
                if let Some(error) = &error {
                    tracing::warn!(
                        error,
                        segments = job.segments.len(),
                        endpoint = self.machine.url(job.endpoint),
                        "segments were not taken"
                    );
                }
                self.note_error(error);
                let settles = self.machine.answered(job.ticket, answer, now_ms());
                self.settle(settles);
            }
            Event::Settled(settles, true) => {
                self.metrics.settled(&settles);
                self.machine.settled(settles.iter().map(|s| &s.key));
            }
            Event::Settled(settles, false) => self.settle(settles),
        }
    }

    /// Makes ends durable; tries again after a while if that fails.
    fn settle(&self, settles: Vec<Settle>) {
        if settles.is_empty() {
            return;
        }
        let items = settles.iter().filter_map(|s| {
            let info = segment(&self.store, &s.key)?;
            if let Some(reason) = &s.dead {
                tracing::error!(file = info.file_name, reason, "a segment goes to the dead letters");
            }
            Some(settlement(info.id, s))
        });
        let (done, durable) = oneshot::channel();
        self.store.settle(items.collect(), Box::new(move |outcome| drop(done.send(outcome))));
        let events = self.events.clone();
        tokio::spawn(async move {
            let durable = matches!(durable.await, Ok(Ok(_)));
            if !durable {
                tokio::time::sleep(RETRY_STORE).await;
            }
            let _ = events.send(Event::Settled(settles, durable));
        });
    }

    fn note_error(&self, error: Option<String>) {
        self.shared.status.send_if_modified(|status| std::mem::replace(&mut status.last_error, error.clone()) != error);
    }

    fn publish(&self) {
        let (pending, in_flight) = (self.machine.pending(), self.machine.in_flight());
        self.metrics.queue(pending, in_flight);
        self.shared.status.send_modify(|status| {
            status.pending = pending;
            status.in_flight = in_flight;
        });
    }
}

/// Returns when there are other endpoints.
async fn moved(endpoints: &mut Option<watch::Receiver<Endpoints>>) {
    if let Some(endpoints) = endpoints
        && endpoints.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

fn settlement(segment: SegmentId, settle: &Settle) -> Settlement {
    let (outcome, reason) = match &settle.dead {
        Some(reason) => (Outcome::DeadLettered, reason.clone()),
        None => (Outcome::Forwarded, "stored by the ingestor".to_owned()),
    };
    Settlement { segment, outcome, reason, maybe_duplicate: settle.maybe_duplicate }
}

fn segment(store: &Store, key: &Key) -> Option<SegmentInfo> {
    store.sealed_segment(&key.database, key.number)
}

fn key_of(info: &SegmentInfo) -> Key {
    Key { database: info.table.database.clone(), number: info.number }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}
