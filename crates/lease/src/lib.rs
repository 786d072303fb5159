//! Who of several replicas acts: leader election by a Lease of `coordination.k8s.io`, as client-go does it.
//!
//! Clocks of different machines are never compared. A contender watches the lease by its own monotonic clock, and takes it
//! when it has not changed for as long as it is valid; the holder stops by its own clock well before that. So two never hold
//! at once, as long as their clocks run at about the same rate (within a third). [`Election`] is the state machine.
//!
//! So nobody leads while the API server is away. Where it is worse that nothing happens than that it happens twice, a holder
//! may lead on until an answer says that it holds no longer: [`WhenUnreachable`].
//!
//! Being leader cannot fence what is under way: a process that is stopped for a minute between asking and acting acts late.
//! What must not happen twice therefore also rests on the resource version of the object that records it.
//!
//! A leader may leave a note at the lease for the one after it: how far it has come.
//!
//! The rights that are needed: `get`, `create` and `update` of `leases` in `coordination.k8s.io`.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube_client::api::{Api, PostParams};
use kube_client::{Client, Error};
use kube_watch::describe;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

mod election;

pub use election::{Election, Record, Seen, Step, Timing, WhenUnreachable};

/// Whether this process is the leader. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Leader {
    /// Until when; none while another leads.
    until: watch::Receiver<Until>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
    Never,
    Always,
    At(Instant),
    /// An answer says otherwise. Up to here the last one is enough.
    Answered {
        confirmed: Instant,
    },
}

impl Until {
    fn holds(self) -> bool {
        match self {
            Self::Never => false,
            Self::Always | Self::Answered { .. } => true,
            Self::At(end) => Instant::now() < end,
        }
    }

    fn is_unconfirmed(self) -> bool {
        matches!(self, Self::Answered { confirmed } if confirmed <= Instant::now())
    }
}

impl Leader {
    /// Where there is no cluster nobody else could lead.
    pub fn always() -> Self {
        Self { until: watch::Sender::new(Until::Always).subscribe() }
    }

    /// One that does as it is told, for tests of what runs while it leads.
    pub fn told() -> (Baton, Self) {
        let until = watch::Sender::new(Until::Never);
        let leader = Self { until: until.subscribe() };
        (Baton { until }, leader)
    }

    /// Whether this process is the leader now.
    pub fn is_leader(&self) -> bool {
        self.until.borrow().holds()
    }

    /// Whether this process leads on though the API server has not answered for as long as the lease is valid: another that
    /// reaches it may lead too.
    pub fn is_unconfirmed(&self) -> bool {
        self.until.borrow().is_unconfirmed()
    }

    /// Returns when leadership was won or lost. It may have been both when it returns.
    pub async fn changed(&mut self) {
        let led = self.is_leader();
        while self.is_leader() == led {
            let ends = match *self.until.borrow_and_update() {
                Until::At(end) if led => Some(end),
                _ => None,
            };
            let ended = async {
                match ends {
                    Some(end) => tokio::time::sleep_until(end).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // After the last renewal only time ends what is held.
                Ok(()) = self.until.changed() => {}
                () = ended => {}
                else => std::future::pending().await,
            }
        }
    }

    /// Returns when this process is the leader.
    pub async fn elected(&mut self) {
        while !self.is_leader() {
            self.changed().await;
        }
    }
}

/// Tells a [`Leader`] whether it leads.
#[derive(Debug)]
pub struct Baton {
    until: watch::Sender<Until>,
}

impl Baton {
    /// Gives leadership, or takes it away.
    pub fn pass(&self, leads: bool) {
        self.until.send_replace(if leads { Until::Always } else { Until::Never });
    }
}

/// What is contended for, and by whom.
#[derive(Debug, Clone)]
pub struct Options {
    /// Namespace of the lease.
    pub namespace: String,
    /// Name of the lease: that of the component.
    pub name: String,
    /// Who contends, such as the pod's name. Something random is added: a restarted process must not take itself for the
    /// one before.
    pub holder: String,
    /// How long a lease is valid, and so on.
    pub timing: Timing,
    /// What its holder does while the API server is away.
    pub when_unreachable: WhenUnreachable,
}

/// The annotation that a note is.
const NOTE: &str = "adx-mon/note";

/// What a leader found when it took the lease.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Before {
    /// Who held it and did not give it back.
    pub holder: Option<String>,
    /// The last note.
    pub note: Option<String>,
}

/// A running election. Dropping it ends it without a word, and others take over once the lease has run out.
#[derive(Debug)]
pub struct Campaign {
    leader: Leader,
    before: watch::Receiver<Before>,
    stop: oneshot::Sender<()>,
    task: AbortOnDropHandle<()>,
}

impl Campaign {
    /// Starts to contend. Must be called within a tokio runtime.
    pub fn start(client: Client, options: Options) -> Self {
        Self::start_with_notes(client, options, watch::Sender::new(None).subscribe())
    }

    /// The same; while it leads, what is in `notes` goes to the lease with each renewal, and when it is given back. Without
    /// a note what is there stays.
    pub fn start_with_notes(client: Client, options: Options, notes: watch::Receiver<Option<String>>) -> Self {
        let (found, before) = watch::channel(Before::default());
        let (sender, until) = watch::channel(Until::Never);
        let (stop, stopped) = oneshot::channel();
        let candidate = Candidate {
            api: Api::namespaced(client, &options.namespace),
            election: Election::new(format!("{}_{}", options.holder, Uuid::new_v4()), options.timing, options.when_unreachable),
            name: options.name,
            notes,
            found,
            until: sender,
            trouble: None,
            unconfirmed: false,
            started: Instant::now(),
        };
        Self { leader: Leader { until }, before, stop, task: AbortOnDropHandle::new(tokio::spawn(candidate.run(stopped))) }
    }

    /// Whether this process leads.
    pub fn leader(&self) -> Leader {
        self.leader.clone()
    }

    /// What was at the lease when this process became leader last.
    pub fn before(&self) -> Before {
        self.before.borrow().clone()
    }

    /// Ends the election; a lease that is held is given back, so that another takes over at once. Stop what only the leader
    /// may do before.
    pub async fn release(self) {
        let _ = self.stop.send(());
        let _ = self.task.await;
    }
}

struct Candidate {
    api: Api<Lease>,
    election: Election,
    name: String,
    notes: watch::Receiver<Option<String>>,
    found: watch::Sender<Before>,
    until: watch::Sender<Until>,
    /// Why the last try failed, if it did: said once.
    trouble: Option<String>,
    /// Whether it was said that this one leads on without an answer.
    unconfirmed: bool,
    started: Instant,
}

impl Candidate {
    async fn run(mut self, mut stopped: oneshot::Receiver<()>) {
        loop {
            let timing = self.election.timing();
            // An answer that comes later than this would be too late for a renewal.
            let trouble = match tokio::time::timeout(timing.renew_within, self.try_once()).await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => {
                    if is_answer(&error) {
                        self.election.refused();
                    }
                    Some(describe(&error))
                }
                Err(_) => Some("the API server did not answer in time".to_owned()),
            };
            self.tell(trouble);
            self.show();
            tokio::select! {
                () = tokio::time::sleep(timing.retry) => {}
                _ = &mut stopped => break,
            }
        }
        self.give_back().await;
    }

    /// Monotonic time of this process.
    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    async fn try_once(&mut self) -> Result<(), Error> {
        let seen = self.api.get_opt(&self.name).await?;
        self.election.saw(seen.as_ref().map(seen_of), self.now());
        let sent = self.now();
        let Step::Write(record) = self.election.step(sent) else { return Ok(()) };
        let mut before = seen.as_ref().map(before).unwrap_or_default();
        if seen.as_ref().is_some_and(|lease| seen_of(lease).record.holder == record.holder) {
            // It was this one, which could not renew in time.
            before.holder = None;
        }
        let led = self.election.is_leader(sent);
        match self.write(seen, &record).await? {
            Some(written) => {
                if !led {
                    self.found.send_replace(before);
                }
                self.election.wrote(seen_of(&written), sent);
            }
            None => self.election.refused(),
        }
        Ok(())
    }

    /// Writes the record if nobody wrote since; none if somebody did.
    async fn write(&self, before: Option<Lease>, record: &Record) -> Result<Option<Lease>, Error> {
        let params = PostParams::default();
        let written = match before {
            None => {
                let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
                self.api.create(&params, &Lease { metadata, spec: Some(spec_of(record, None)) }).await
            }
            Some(mut lease) => {
                let holds = seen_of(&lease).record.holder == self.election.holder();
                if let Some(note) = self.notes.borrow().clone().filter(|_| holds) {
                    lease.metadata.annotations.get_or_insert_default().insert(NOTE.to_owned(), note);
                }
                lease.spec = Some(spec_of(record, lease.spec.as_ref()));
                self.api.replace(&self.name, &params, &lease).await
            }
        };
        match written {
            Err(Error::Api(status)) if status.code == 409 => Ok(None),
            written => written.map(Some),
        }
    }

    /// Says what is in the way of contending, when that changes.
    fn tell(&mut self, trouble: Option<String>) {
        match (&self.trouble, &trouble) {
            (before, Some(error)) if before.as_ref() != Some(error) => {
                tracing::warn!(lease = self.name, error, "cannot contend for the lease; this is tried again");
            }
            (Some(_), None) => tracing::info!(lease = self.name, "the API server answers about the lease again"),
            _ => {}
        }
        self.trouble = trouble;
    }

    fn show(&mut self) {
        let until = match self.election.leads_until().map(|end| self.started + end) {
            Some(confirmed) if self.election.leads_on() => Until::Answered { confirmed },
            Some(end) => Until::At(end),
            None => Until::Never,
        };
        let was = self.until.send_replace(until);
        match (was.holds(), until.holds()) {
            (false, true) => tracing::info!(lease = self.name, holder = self.election.holder(), "leading"),
            (true, false) => tracing::warn!(lease = self.name, "no longer leading"),
            _ => {}
        }
        let unconfirmed = until.is_unconfirmed();
        match (std::mem::replace(&mut self.unconfirmed, unconfirmed), unconfirmed) {
            (false, true) => {
                tracing::warn!(lease = self.name, "leading on without the API server; a replica that reaches it may lead as well");
            }
            (true, false) if until.holds() => tracing::info!(lease = self.name, "the API server says that this one still leads"),
            _ => {}
        }
    }

    async fn give_back(&mut self) {
        self.until.send_replace(Until::Never);
        let within = self.election.timing().renew_within;
        let released = tokio::time::timeout(within, async {
            let seen = self.api.get_opt(&self.name).await?;
            self.election.saw(seen.as_ref().map(seen_of), self.now());
            let Some(record) = self.election.release() else { return Ok(()) };
            self.write(seen, &record).await.map(drop)
        });
        match released.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(lease = self.name, error = describe(&error), "the lease is not given back; it runs out"),
            Err(_) => tracing::warn!(lease = self.name, "the lease is not given back; it runs out"),
        }
    }
}

/// Whether the server has decided about a request. Where it is overloaded, or what stands before it answers in its place, nothing
/// is known.
fn is_answer(error: &Error) -> bool {
    matches!(error, Error::Api(status) if status.code < 500 && status.code != 429)
}

fn before(lease: &Lease) -> Before {
    // Without what was added to tell one process from the next.
    let holder = seen_of(lease).record.holder;
    let holder = holder.rsplit_once('_').map_or(holder.as_str(), |(holder, _)| holder);
    let note = lease.metadata.annotations.as_ref().and_then(|annotations| annotations.get(NOTE).cloned());
    Before { holder: Some(holder.to_owned()).filter(|holder| !holder.is_empty()), note }
}

fn seen_of(lease: &Lease) -> Seen {
    let spec = lease.spec.as_ref();
    let seconds = spec.and_then(|spec| spec.lease_duration_seconds).and_then(|seconds| u64::try_from(seconds).ok());
    Seen {
        version: lease.metadata.resource_version.clone().unwrap_or_default(),
        record: Record {
            holder: spec.and_then(|spec| spec.holder_identity.clone()).unwrap_or_default(),
            valid: Duration::from_secs(seconds.unwrap_or_default()),
            transitions: spec.and_then(|spec| spec.lease_transitions).unwrap_or_default(),
        },
    }
}

/// The times are for people; nobody decides by them.
fn spec_of(record: &Record, before: Option<&LeaseSpec>) -> LeaseSpec {
    let now = MicroTime(Timestamp::now());
    let same_holder = before.filter(|before| before.holder_identity.as_deref() == Some(&record.holder));
    LeaseSpec {
        holder_identity: Some(record.holder.clone()),
        lease_duration_seconds: Some(i32::try_from(record.valid.as_secs()).unwrap_or(i32::MAX)),
        acquire_time: same_holder.and_then(|before| before.acquire_time.clone()).or_else(|| Some(now.clone())),
        renew_time: Some(now),
        lease_transitions: Some(record.transitions),
        ..LeaseSpec::default()
    }
}

/// The name that this process contends under: its host's.
pub fn host_name() -> String {
    std::env::var("HOSTNAME").ok().filter(|name| !name.is_empty()).unwrap_or_else(|| "localhost".to_owned())
}
