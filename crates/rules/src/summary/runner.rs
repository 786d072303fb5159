//! Runs the summary rules that are one's own: a task for each database, so that one that is away holds up no other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use crds::conditions::{self, Desired, Truth};
use crds::criteria::{self, Criteria, Wording};
use crds::{BackfillPhase, SummaryRule};
use futures::StreamExt as _;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::lease::Leader;
use crate::prelude::Labels;
use crate::store::{Event as Notice, Key, Objects, Severity, Store};
use crate::summary::deployment;
use crate::summary::machine::{Action, Event, Machine, Outcome, Submission};
use crate::summary::metrics::Metrics;
use crate::summary::operations::{Answers, Kusto, MAX_IDS, Refusal};
use crate::summary::owner::{self, Claim, Owner};
use crate::summary::state::{HEALTH, State, Unreadable};
use crate::window::after;

const CRITERIA: &str = "Criteria";
/// Rules that are served at a time in one database.
const CONCURRENCY: usize = 8;
/// How long to wait after a status could not be written.
const WRITE_PAUSE: Duration = Duration::from_secs(10);
/// The longest sleep: metrics are brought up to date that often.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
/// Pauses of a whole database whose service is in trouble.
const FIRST_TROUBLE: Duration = Duration::from_secs(5);
const LONGEST_TROUBLE: Duration = Duration::from_secs(120);

/// Runs summary rules until it is told to stop.
pub struct Runner {
    clusters: BTreeMap<String, Arc<dyn Kusto>>,
    shared: Shared,
}

struct Shared {
    store: Arc<dyn Store<SummaryRule>>,
    labels: Arc<Labels>,
    cluster: criteria::Labels,
    owner: Owner,
    /// Whether another deployment runs a rule matters only to one that knows its own name.
    deployment: Option<String>,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
}

impl Runner {
    /// A runner of the rules in `store` that belong to `owner` and to one of the databases of `clusters`. `labels` are
    /// those of this cluster: variables of the KQL, and what criteria are about.
    pub fn new(
        store: Arc<dyn Store<SummaryRule>>,
        clusters: BTreeMap<String, Arc<dyn Kusto>>,
        labels: &BTreeMap<String, String>,
        owner: Owner,
        clock: Arc<dyn Clock>,
        metrics: Metrics,
    ) -> Runner {
        let variables = Labels::new(labels);
        variables.renamed().iter().for_each(|note| tracing::info!("{note}"));
        variables.rejected().iter().for_each(|note| tracing::warn!("{note}"));
        let cluster = labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let deployment = None;
        Runner { clusters, shared: Shared { store, labels: Arc::new(variables), cluster, owner, deployment, clock, metrics } }
    }

    /// Leaves rules alone that another deployment runs. `name` is the namespace and name of its own Lease.
    pub fn deployment(mut self, name: impl Into<String>) -> Runner {
        self.shared.deployment = Some(name.into());
        self
    }

    /// Runs rules while `leader` says so, until `shutdown`. It may be stopped at any point: what is on its way is in the
    /// status of its rule.
    pub async fn run(self, leader: Leader, shutdown: CancellationToken) {
        let (mut tasks, shared) = (JoinSet::new(), Arc::new(self.shared));
        for (name, kusto) in self.clusters {
            let database = Database {
                name,
                kusto,
                objects: shared.store.objects(),
                shared: shared.clone(),
                slots: BTreeMap::new(),
                trouble: Mutex::default(),
            };
            let (leader, shutdown) = (leader.clone(), shutdown.clone());
            tasks.spawn(async move { shutdown.run_until_cancelled(database.run(leader)).await });
        }
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "the summary rules of a database have stopped");
            }
        }
    }
}

/// The rules of one database.
struct Database {
    name: String,
    kusto: Arc<dyn Kusto>,
    objects: Objects<SummaryRule>,
    shared: Arc<Shared>,
    slots: BTreeMap<Key, Slot>,
    trouble: Mutex<Trouble>,
}

/// A rule and when to look at it again.
struct Slot {
    rule: Arc<SummaryRule>,
    /// Nothing while it is not ours or cannot be run.
    machine: Option<Machine>,
    wake: Timestamp,
}

/// A service that is in trouble gets no submissions for a while, of no rule.
#[derive(Default)]
struct Trouble {
    count: u32,
    until: Option<Timestamp>,
    message: String,
}

impl Database {
    async fn run(mut self, mut leader: Leader) {
        self.objects.ready().await;
        loop {
            leader.elected().await;
            // Whoever led before has written since.
            self.slots.clear();
            let lost = async {
                while leader.is_leader() {
                    leader.changed().await;
                }
            };
            tokio::select! {
                () = self.lead() => {}
                () = lost => tracing::info!(database = self.name, "this process does not lead any more and submits no windows"),
            }
        }
    }

    async fn lead(&mut self) {
        loop {
            let wake = self.cycle().await;
            let clock = self.shared.clock.clone();
            tokio::select! {
                () = clock.sleep_until(wake) => {}
                () = self.objects.changed() => {}
            }
        }
    }

    /// Looks at all rules once, and returns when to look again.
    async fn cycle(&mut self) -> Timestamp {
        self.refresh().await;
        let now = self.shared.clock.now();
        let due: Vec<Key> = self.slots.iter().filter(|(_, s)| s.machine.is_some() && s.wake <= now).map(|(k, _)| k.clone()).collect();
        let slots: Vec<(Key, Slot)> = due.into_iter().filter_map(|key| self.slots.remove_entry(&key)).collect();
        let slots = self.drive_all(slots, now).await;
        self.slots.extend(slots);
        let now = self.shared.clock.now();
        for (key, slot) in &self.slots {
            if let Some(machine) = &slot.machine {
                self.shared.metrics.rule(key, machine.state(), machine.lag(now));
            }
        }
        let longest = after(now, LONGEST_SLEEP);
        self.slots.values().map(|slot| slot.wake).fold(longest, Timestamp::min)
    }

    /// Takes in what has changed among the rules.
    async fn refresh(&mut self) {
        let rules = self.objects.snapshot();
        let shared = self.shared.clone();
        let name = self.name.clone();
        self.slots.retain(|key, _| {
            let stays = rules.get(key).is_some_and(|rule| rule.spec.database == name);
            if !stays {
                shared.metrics.remove(key);
            }
            stays
        });
        for (key, rule) in rules.iter().filter(|(_, rule)| rule.spec.database == name) {
            let now = shared.clock.now();
            match self.slots.get_mut(key) {
                Some(slot) if Arc::ptr_eq(&slot.rule, rule) && (slot.machine.is_some() || now < slot.wake) => {}
                present => {
                    let machine = present.and_then(|slot| slot.machine.take().filter(|_| slot.rule.metadata.uid == rule.metadata.uid));
                    let slot = shared.take_in(key, rule, machine, now).await;
                    self.slots.insert(key.clone(), slot);
                }
            }
        }
    }

    /// Lets rules go on until each has to wait. Their operations are asked for together.
    async fn drive_all(&self, mut slots: Vec<(Key, Slot)>, now: Timestamp) -> Vec<(Key, Slot)> {
        let mut wanted: Vec<String> = Vec::new();
        let mut actions = Vec::new();
        for (_, slot) in &mut slots {
            let action = slot.machine.as_mut().map(|machine| machine.step(Event::Wake, now));
            if let Some(Action::Poll(ids)) = &action {
                wanted.extend(ids.iter().cloned());
            }
            actions.push(action);
        }
        let answers = self.ask(&wanted).await;
        let driven = slots.into_iter().zip(actions).map(|((key, mut slot), action)| {
            let answers = &answers;
            async move {
                if let Some(action) = action {
                    self.drive(&key, &mut slot, action, answers).await;
                }
                (key, slot)
            }
        });
        futures::stream::iter(driven).buffer_unordered(CONCURRENCY).collect().await
    }

    async fn ask(&self, ids: &[String]) -> Result<Answers, Refusal> {
        let mut answers = Answers::new();
        for ids in ids.chunks(MAX_IDS) {
            if let Some(refusal) = self.in_trouble() {
                return Err(refusal);
            }
            let result = self.kusto.progress(&self.name, ids).await;
            self.note(result.as_ref().err());
            match result {
                Ok(some) => answers.extend(some),
                Err(refusal) => {
                    tracing::warn!(database = self.name, error = refusal.message, "what has become of operations is not known");
                    return Err(refusal);
                }
            }
        }
        Ok(answers)
    }

    async fn drive(&self, key: &Key, slot: &mut Slot, mut action: Action, answers: &Result<Answers, Refusal>) {
        let clock = &self.shared.clock;
        while let Some(machine) = &mut slot.machine {
            let event = match action {
                Action::Wait(until) => {
                    slot.wake = until;
                    break;
                }
                Action::Poll(ids) => Event::Answered(answers.clone().map(|mut answers| {
                    answers.retain(|id, _| ids.contains(id));
                    answers
                })),
                Action::Submit(submission) => Event::Submitted(self.submit(key, &slot.rule, &submission).await),
                Action::Save => match self.shared.save(key, &slot.rule, machine.state()).await {
                    Ok(Written::Yes) => Event::Saved,
                    Ok(Written::NotOurs) => {
                        slot.machine = None;
                        slot.wake = after(clock.now(), WRITE_PAUSE);
                        break;
                    }
                    Err(error) => {
                        tracing::warn!(rule = %key, %error, "the status of a summary rule could not be written; no window is begun before it is");
                        slot.wake = after(clock.now(), WRITE_PAUSE);
                        break;
                    }
                },
            };
            let over = backfill_phase(machine);
            action = machine.step(event, clock.now());
            self.shared.report(&slot.rule, machine.take_outcomes()).await;
            if backfill_phase(machine) != over {
                self.shared.report_backfill(&slot.rule, machine.state()).await;
            }
        }
    }

    async fn submit(&self, key: &Key, rule: &SummaryRule, submission: &Submission) -> Result<String, Refusal> {
        if let Some(refusal) = self.in_trouble() {
            return Err(refusal);
        }
        let result = self.kusto.submit(&self.name, &submission.statement.text).await;
        self.note(result.as_ref().err());
        match &result {
            Ok(id) => tracing::info!(rule = %key, window = %submission.window, operation = id, "a window was submitted"),
            Err(refusal) => {
                tracing::warn!(rule = %key, window = %submission.window, error = refusal.message, "a window was not taken");
                // Of a service in trouble the conditions tell: it would be an event for every rule.
                if !refusal.transient {
                    let note = format!("window {}: {}", submission.window, refusal.message);
                    self.shared.tell(rule, Severity::Warning, "SubmissionFailed", note).await;
                }
            }
        }
        result
    }

    fn in_trouble(&self) -> Option<Refusal> {
        let trouble = self.trouble.lock();
        let now = self.shared.clock.now();
        let until = trouble.until.filter(|until| now < *until && *until <= after(now, 2 * LONGEST_TROUBLE))?;
        let left = Duration::try_from(until.duration_since(now)).unwrap_or_default();
        Some(Refusal { message: trouble.message.clone(), transient: true, retry_after: Some(left), position: None })
    }

    fn note(&self, refusal: Option<&Refusal>) {
        let mut trouble = self.trouble.lock();
        match refusal.filter(|refusal| refusal.transient) {
            None => *trouble = Trouble::default(),
            Some(refusal) => {
                let pause = FIRST_TROUBLE.saturating_mul(1 << trouble.count.min(10)).min(LONGEST_TROUBLE);
                let pause = pause.max(refusal.retry_after.unwrap_or_default().min(LONGEST_TROUBLE));
                trouble.count += 1;
                trouble.until = Some(after(self.shared.clock.now(), pause));
                trouble.message.clone_from(&refusal.message);
            }
        }
    }
}

fn backfill_phase(machine: &Machine) -> Option<BackfillPhase> {
    machine.state().backfill.as_ref()?.phase
}

/// What became of a write.
enum Written {
    Yes,
    /// The rule is gone, is another one of that name, or is somebody else's.
    NotOurs,
}

impl Shared {
    /// A slot for a version of a rule, with a machine if it is to be run here.
    async fn take_in(&self, key: &Key, rule: &Arc<SummaryRule>, machine: Option<Machine>, now: Timestamp) -> Slot {
        let mut slot = Slot { rule: rule.clone(), machine: None, wake: after(now, Duration::from_secs(3600)) };
        if self.owner == Owner::Exporter && !self.criteria_match(key, rule, now).await {
            return slot;
        }
        if Owner::of(rule) != Some(self.owner) {
            if self.owner == Owner::Exporter {
                slot.wake = self.claim(key, rule, now).await.unwrap_or(slot.wake);
            }
            return slot;
        }
        if self.owner == Owner::Ingestor && !self.criteria_match(key, rule, now).await {
            return slot;
        }
        if let Some(other) = self.other_deployment(rule) {
            self.leave(key, rule, other, now).await;
            return slot;
        }
        let machine = match machine {
            Some(mut machine) => machine.observe(rule, now).map(|()| machine),
            None => Machine::new(rule, self.labels.clone()),
        };
        match machine {
            Ok(machine) => {
                if let Some(mistake) = machine.mistake() {
                    self.tell_once(rule, HEALTH, "InvalidRule", mistake).await;
                }
                slot.machine = Some(machine);
                slot.wake = now;
            }
            Err(unreadable) => self.report_unreadable(key, rule, &unreadable, now).await,
        }
        slot
    }

    /// Whether a rule is meant for this cluster. The exporter says so in a condition, as the reference does. Ingestors of
    /// several clusters may share an API server and would each write something else, so they tell of mistakes only.
    async fn criteria_match(&self, key: &Key, rule: &SummaryRule, now: Timestamp) -> bool {
        let decision = Criteria::new(&rule.spec.criteria, &rule.spec.criteria_expression).decide(&self.cluster, Wording::Exporter);
        if self.owner == Owner::Ingestor && decision.reason != "CriteriaExpressionError" {
            return decision.proceed;
        }
        if decision.reason == "CriteriaExpressionError" {
            self.tell_once(rule, CRITERIA, decision.reason, &decision.message).await;
        }
        let change = |rule: &mut SummaryRule| {
            let desired = Desired {
                type_: CRITERIA,
                status: decision.status(),
                reason: decision.reason,
                message: &decision.message,
                observed_generation: rule.metadata.generation,
            };
            conditions::set(&mut rule.status.get_or_insert_default().conditions, &desired, now);
        };
        let mut changed = rule.clone();
        change(&mut changed);
        if changed != *rule
            && let Err(error) = self.store.update_status(key, &change).await
        {
            tracing::warn!(rule = %key, %error, "the criteria of a summary rule could not be reported");
        }
        decision.proceed
    }

    /// Takes a rule over if that is safe, and returns when to try again if not.
    async fn claim(&self, key: &Key, rule: &SummaryRule, now: Timestamp) -> Option<Timestamp> {
        let claim = |rule: &SummaryRule| State::read(rule).map_or(Claim::Never, |state| owner::claim(rule, &state, now));
        let claimed = claim(rule);
        if let (Claim::At(_), Some(other)) = (claimed, self.other_deployment(rule)) {
            self.leave(key, rule, other, now).await;
            return None;
        }
        match claimed {
            Claim::Never => None,
            Claim::At(at) if at > now => Some(at),
            Claim::At(_) => {
                // Decided again on the object as it is when it is written.
                let take = |rule: &mut SummaryRule| {
                    if matches!(claim(rule), Claim::At(at) if at <= now) && self.other_deployment(rule).is_none() {
                        owner::take_over(rule);
                    }
                };
                match self.store.update(key, &take).await {
                    Ok(()) => tracing::info!(rule = %key, "a summary rule was taken over from the ingestor"),
                    Err(error) => tracing::warn!(rule = %key, %error, "a summary rule could not be taken over"),
                }
                Some(after(now, WRITE_PAUSE))
            }
        }
    }

    fn other_deployment<'a>(&self, rule: &'a SummaryRule) -> Option<&'a str> {
        deployment::other(rule, self.deployment.as_deref()?)
    }

    /// Says that another deployment runs a rule.
    async fn leave(&self, key: &Key, rule: &SummaryRule, other: &str, now: Timestamp) {
        let message = deployment::message(other);
        self.tell_once(rule, deployment::LEFT, deployment::RUN_BY_ANOTHER, &message).await;
        let change = |fresh: &mut SummaryRule| {
            if self.other_deployment(fresh) == Some(other) {
                deployment::leave(fresh, &message, now);
            }
        };
        if let Err(error) = self.store.update_status(key, &change).await {
            tracing::warn!(rule = %key, %error, "that another deployment runs a summary rule could not be reported");
        }
    }

    async fn save(&self, key: &Key, rule: &SummaryRule, state: &State) -> Result<Written, crate::store::StoreError> {
        // The change may be applied more than once; the last time counts.
        let applied = AtomicU8::new(0);
        let change = |present: &mut SummaryRule| {
            let same = present.metadata.uid == rule.metadata.uid;
            let ours = same && Owner::of(present) == Some(self.owner) && self.other_deployment(present).is_none();
            applied.store(if ours { 1 } else { 2 }, Ordering::Relaxed);
            if ours {
                state.write(present, self.owner, self.clock.now());
                self.write_rejected_labels(present);
                if let Some(own) = &self.deployment {
                    deployment::record(present, own, self.clock.now());
                }
                if self.owner == Owner::Ingestor {
                    conditions::remove(&mut present.status.get_or_insert_default().conditions, CRITERIA);
                }
            }
        };
        self.store.update_status(key, &change).await?;
        Ok(if applied.load(Ordering::Relaxed) == 1 { Written::Yes } else { Written::NotOurs })
    }

    fn write_rejected_labels(&self, rule: &mut SummaryRule) {
        const LABELS: &str = "ClusterLabels";
        let generation = rule.metadata.generation;
        let conditions = &mut rule.status.get_or_insert_default().conditions;
        let message = self.labels.rejected().join("; ");
        if message.is_empty() {
            conditions::remove(conditions, LABELS);
            return;
        }
        let desired =
            Desired { type_: LABELS, status: Truth::False, reason: "LabelRejected", message: &message, observed_generation: generation };
        conditions::set(conditions, &desired, self.clock.now());
    }

    async fn report(&self, rule: &SummaryRule, outcomes: Vec<Outcome>) {
        for outcome in outcomes {
            self.metrics.outcome(&outcome);
            if let Outcome::Failed(window, why) = outcome {
                self.tell(rule, Severity::Warning, "WindowFailed", format!("window {window}: {why}")).await;
            }
        }
    }

    async fn report_backfill(&self, rule: &SummaryRule, state: &State) {
        let Some(backfill) = &state.backfill else { return };
        match backfill.phase {
            Some(BackfillPhase::Completed) => self.tell(rule, Severity::Normal, "BackfillCompleted", backfill.message.clone()).await,
            Some(BackfillPhase::Failed) => self.tell(rule, Severity::Warning, "BackfillFailed", backfill.message.clone()).await,
            _ => {}
        }
    }

    async fn tell(&self, rule: &SummaryRule, severity: Severity, reason: &str, note: String) {
        self.store.event(rule, Notice { severity, action: "Summarize".to_owned(), reason: reason.to_owned(), note }).await;
    }

    /// Tells of what the condition `type_` is about to say, unless it does already.
    async fn tell_once(&self, rule: &SummaryRule, type_: &str, reason: &str, message: &str) {
        let said = rule.status.as_ref().and_then(|status| conditions::get(&status.conditions, type_));
        if said.is_none_or(|said| said.message != message) {
            self.tell(rule, Severity::Warning, reason, message.to_owned()).await;
        }
    }

    async fn report_unreadable(&self, key: &Key, rule: &SummaryRule, unreadable: &Unreadable, now: Timestamp) {
        let message = unreadable.to_string();
        tracing::error!(rule = %key, "{message}");
        self.tell_once(rule, HEALTH, "Unreadable", &message).await;
        let change = |rule: &mut SummaryRule| {
            let desired = Desired {
                type_: HEALTH,
                status: Truth::False,
                reason: "Failed",
                message: &message,
                observed_generation: rule.metadata.generation,
            };
            conditions::set(&mut rule.status.get_or_insert_default().conditions, &desired, now);
        };
        if let Err(error) = self.store.update_status(key, &change).await {
            tracing::warn!(rule = %key, %error, "the status of a summary rule could not be written");
        }
    }
}
