//! Leader election: a model of contenders with delayed and lost messages, clocks that differ, and a real API server.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::rbac::v1::PolicyRule;
use kube_client::api::Api;
use lease::{Before, Campaign, Election, Leader, Options, Record, Seen, Step, Timing};
use proptest::prelude::*;
use tokio::sync::watch;

/// Waits for what must come soon.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), what).await.expect("within a minute")
}

const CONTENDERS: usize = 3;

/// What may happen next in the model; the number is the contender's.
#[derive(Debug, Clone)]
enum Op {
    /// Time passes, in milliseconds.
    Pass(u64),
    /// The contender asks for the lease; the server reads it now.
    Ask(usize),
    /// The answer arrives, and the contender sends what it decides to write.
    Decide(usize),
    /// The write reaches the server.
    Commit(usize),
    /// Its answer reaches the contender.
    Confirm(usize),
    /// Everything that is under way from and to the contender is lost.
    Lose(usize),
    /// The contender gives the lease back; the write is under way.
    Release(usize),
    /// The contender is killed and starts anew.
    Restart(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let who = 0..CONTENDERS;
    prop_oneof![
        4 => prop_oneof![1..500u64, 500..4_000u64, 4_000..16_000u64].prop_map(Op::Pass),
        6 => who.clone().prop_map(Op::Ask),
        6 => who.clone().prop_map(Op::Decide),
        6 => who.clone().prop_map(Op::Commit),
        6 => who.clone().prop_map(Op::Confirm),
        1 => who.clone().prop_map(Op::Lose),
        1 => who.clone().prop_map(Op::Release),
        1 => who.prop_map(Op::Restart),
    ]
}

struct Contender {
    election: Election,
    /// Per mille: how fast its clock runs.
    rate: u64,
    /// What its clock showed at the beginning, in milliseconds.
    offset: u64,
    asked: Option<Option<Seen>>,
    /// What is on its way to the server: the version it must find, the record, and when it was sent.
    writing: Option<(Option<String>, Record, Duration)>,
    written: Option<(Seen, Duration)>,
}

impl Contender {
    fn new(name: String, rate: u64, offset: u64) -> Self {
        let election = Election::new(name, Timing::default());
        Self { election, rate, offset, asked: None, writing: None, written: None }
    }

    fn clock(&self, time: u64) -> Duration {
        Duration::from_millis(self.offset + time * self.rate / 1000)
    }
}

#[derive(Default)]
struct Model {
    time: u64,
    version: u64,
    lease: Option<Seen>,
    restarts: usize,
    contenders: Vec<Contender>,
}

impl Model {
    fn new(clocks: &[(u64, u64)]) -> Self {
        let contenders = clocks.iter().enumerate().map(|(id, (rate, offset))| Contender::new(format!("c{id}"), *rate, *offset));
        Self { contenders: contenders.collect(), ..Self::default() }
    }

    fn run(&mut self, op: &Op) {
        let time = self.time;
        match *op {
            Op::Pass(millis) => self.time += millis,
            Op::Ask(id) => self.contenders[id].asked = Some(self.lease.clone()),
            Op::Decide(id) => {
                let contender = &mut self.contenders[id];
                let Some(seen) = contender.asked.take() else { return };
                let now = contender.clock(time);
                let version = seen.as_ref().map(|seen| seen.version.clone());
                contender.election.saw(seen, now);
                if let Step::Write(record) = contender.election.step(now) {
                    contender.writing = Some((version, record, now));
                }
            }
            Op::Commit(id) => {
                let Some((expected, record, sent)) = self.contenders[id].writing.take() else { return };
                if expected == self.lease.as_ref().map(|lease| lease.version.clone()) {
                    self.version += 1;
                    let lease = Seen { version: self.version.to_string(), record };
                    self.lease = Some(lease.clone());
                    let released = lease.record.holder.is_empty();
                    self.contenders[id].written = (!released).then_some((lease, sent));
                }
            }
            Op::Confirm(id) => {
                let contender = &mut self.contenders[id];
                if let Some((lease, sent)) = contender.written.take() {
                    contender.election.wrote(lease, sent);
                }
            }
            Op::Lose(id) => {
                let contender = &mut self.contenders[id];
                (contender.asked, contender.writing, contender.written) = (None, None, None);
            }
            Op::Release(id) => {
                let contender = &mut self.contenders[id];
                let seen = self.lease.clone();
                let version = seen.as_ref().map(|seen| seen.version.clone());
                let now = contender.clock(time);
                contender.election.saw(seen, now);
                (contender.asked, contender.written) = (None, None);
                contender.writing = contender.election.release().map(|record| (version, record, now));
            }
            Op::Restart(id) => {
                self.restarts += 1;
                let old = &self.contenders[id];
                let name = format!("c{id}-{}", self.restarts);
                self.contenders[id] = Contender::new(name, old.rate, old.offset);
            }
        }
    }

    fn leaders(&self) -> Vec<&str> {
        let leads = |contender: &&Contender| contender.election.is_leader(contender.clock(self.time));
        self.contenders.iter().filter(leads).map(|contender| contender.election.holder()).collect()
    }

    /// One undisturbed attempt of everybody.
    fn attempt(&mut self) {
        for id in 0..CONTENDERS {
            [Op::Ask(id), Op::Decide(id), Op::Commit(id), Op::Confirm(id)].iter().for_each(|op| self.run(op));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn two_never_lead_and_somebody_comes_to_lead(
        clocks in prop::collection::vec((850..1150u64, 0..10_000_000u64), CONTENDERS),
        ops in prop::collection::vec(op(), 1..300),
    ) {
        let mut model = Model::new(&clocks);
        for op in &ops {
            model.run(op);
            prop_assert!(model.leaders().len() <= 1, "{:?} lead at {} ms after {op:?}", model.leaders(), model.time);
        }
        // Undisturbed, somebody leads once what was held has run out: 15 s by the slowest clock.
        for _ in 0..10 {
            model.run(&Op::Pass(2_000));
            model.attempt();
        }
        prop_assert_eq!(model.leaders().len(), 1);
        let leader = model.leaders()[0].to_owned();
        for _ in 0..20 {
            model.run(&Op::Pass(2_000));
            model.attempt();
            prop_assert_eq!(model.leaders(), [leader.as_str()], "who renews stays leader");
        }
    }
}

/// The model would notice: a contender that trusts the time of the answer leads beside another.
#[test]
fn the_model_notices_two_leaders() {
    let mut model = Model::new(&[(1000, 0); CONTENDERS]);
    [Op::Ask(0), Op::Decide(0), Op::Commit(0)].iter().for_each(|op| model.run(op));
    [Op::Ask(1), Op::Decide(1), Op::Pass(16_000), Op::Ask(1), Op::Decide(1), Op::Commit(1), Op::Confirm(1)]
        .iter()
        .for_each(|op| model.run(op));
    let late = model.contenders[0].written.clone().unwrap();
    model.run(&Op::Confirm(0));
    assert_eq!(model.leaders(), ["c1"], "an answer that comes 16 s late makes no leader");
    let now = model.contenders[0].clock(model.time);
    model.contenders[0].election.wrote(late.0, now);
    assert_eq!(model.leaders(), ["c0", "c1"]);
}

#[tokio::test]
async fn without_a_cluster_everybody_leads() {
    let mut leader = Leader::always();
    assert!(leader.is_leader());
    soon(leader.elected()).await;
}

#[tokio::test]
async fn two_contenders_on_a_real_server() {
    let Some(mut server) = kube_testing::start(&["tester"]).await else { return };
    let rights = PolicyRule {
        api_groups: Some(vec!["coordination.k8s.io".to_owned()]),
        resources: Some(vec!["leases".to_owned()]),
        verbs: ["get", "create", "update"].map(str::to_owned).to_vec(),
        ..PolicyRule::default()
    };
    server.grant("tester", vec![rights]).await.unwrap();
    let client = server.user("tester").await;
    let timing = Timing { valid: Duration::from_secs(3), renew_within: Duration::from_secs(2), retry: Duration::from_millis(100) };
    let options = |holder: &str| Options { namespace: "default".into(), name: "alerter".into(), holder: holder.into(), timing };
    let start = |holder: &str| Campaign::start(client.clone(), options(holder));

    let first = start("first");
    let mut leads = first.leader();
    soon(leads.elected()).await;
    let second = start("second");
    let mut next = second.leader();

    // Given back: the other takes over.
    first.release().await;
    assert!(!leads.is_leader());
    soon(next.elected()).await;
    let leases: Api<Lease> = Api::namespaced(server.admin().await, "default");
    let spec = leases.get("alerter").await.unwrap().spec.unwrap();
    assert!(spec.holder_identity.unwrap().starts_with("second_"));
    assert_eq!((spec.lease_duration_seconds, spec.lease_transitions), (Some(3), Some(1)));

    // Killed: the other takes over when the lease has run out, and not while the dead one might have led.
    let third = start("third");
    let mut last = third.leader();
    drop(second);
    soon(last.elected()).await;
    assert!(!next.is_leader());

    // The server is away: the leader stops by itself, and leads again once the server is back.
    server.stop();
    soon(last.changed()).await;
    assert!(!last.is_leader());
    server.restart().await.unwrap();
    soon(last.elected()).await;
    third.release().await;
}

/// The lease as the server has it, again and again until it is as wanted.
async fn until(leases: &Api<Lease>, wanted: impl Fn(&Lease) -> bool) {
    soon(async {
        while !leases.get_opt("events").await.unwrap().as_ref().is_some_and(&wanted) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn the_next_leader_finds_what_the_one_before_noted() {
    let Some(server) = kube_testing::start(&[]).await else { return };
    let client = server.admin().await;
    let timing = Timing { valid: Duration::from_secs(2), renew_within: Duration::from_secs(1), retry: Duration::from_millis(100) };
    let start = |holder: &str| {
        let (notes, note) = watch::channel(None);
        let options = Options { namespace: "default".into(), name: "events".into(), holder: holder.into(), timing };
        (Campaign::start_with_notes(client.clone(), options, note), notes)
    };
    let (first, first_notes) = start("first");
    soon(first.leader().elected()).await;
    assert_eq!(first.before(), Before::default());
    let leases: Api<Lease> = Api::namespaced(client.clone(), "default");
    let noted = |wanted: &'static str| move |lease: &Lease| lease.metadata.annotations.iter().flatten().any(|(_, note)| note == wanted);
    first_notes.send_replace(Some("12".to_owned()));
    until(&leases, noted("12")).await;

    // Given back: the last note is there, though it was not renewed in between.
    let (second, second_notes) = start("second");
    first_notes.send_replace(Some("13".to_owned()));
    first.release().await;
    soon(second.leader().elected()).await;
    assert_eq!(second.before(), Before { holder: None, note: Some("13".to_owned()) });
    // What it found stays until it notes something itself.
    tokio::time::sleep(3 * timing.retry).await;
    until(&leases, noted("13")).await;
    second_notes.send_replace(Some("20".to_owned()));
    until(&leases, noted("20")).await;

    // Killed: who it was, and its last word.
    drop(second);
    let (third, _notes) = start("third");
    soon(third.leader().elected()).await;
    assert_eq!(third.before(), Before { holder: Some("second".to_owned()), note: Some("20".to_owned()) });
    third.release().await;
}
