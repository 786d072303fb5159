//! Leader election: a model of contenders with delayed and lost messages, clocks that differ, and a real API server.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::rbac::v1::PolicyRule;
use kube_client::api::Api;
use kube_testing::Way;
use kube_watch::connect;
use lease::WhenUnreachable::{self, Continue, StepDown};
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
    /// The server's answer to that: what it has taken, or that somebody else wrote.
    answer: Option<Result<(Seen, Duration), ()>>,
    /// Whether the last answer that came said that it holds the lease.
    told: bool,
    /// By its clock, since when it has not heard that it holds it.
    told_at: Duration,
}

impl Contender {
    fn new(name: String, when_unreachable: WhenUnreachable, rate: u64, offset: u64) -> Self {
        let election = Election::new(name, Timing::default(), when_unreachable);
        Self { election, rate, offset, asked: None, writing: None, answer: None, told: false, told_at: Duration::ZERO }
    }

    fn clock(&self, time: u64) -> Duration {
        Duration::from_millis(self.offset + time * self.rate / 1000)
    }
}

struct Model {
    when_unreachable: WhenUnreachable,
    time: u64,
    version: u64,
    lease: Option<Seen>,
    restarts: usize,
    contenders: Vec<Contender>,
}

impl Model {
    fn new(when_unreachable: WhenUnreachable, clocks: &[(u64, u64)]) -> Self {
        let contender = |(id, (rate, offset)): (usize, &(u64, u64))| Contender::new(format!("c{id}"), when_unreachable, *rate, *offset);
        let contenders = clocks.iter().enumerate().map(contender).collect();
        Self { when_unreachable, time: 0, version: 0, lease: None, restarts: 0, contenders }
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
                contender.told = contender.told && seen.as_ref().is_some_and(|seen| seen.record.holder == contender.election.holder());
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
                    self.contenders[id].answer = (!released).then_some(Ok((lease, sent)));
                } else {
                    self.contenders[id].answer = Some(Err(()));
                }
            }
            Op::Confirm(id) => {
                let contender = &mut self.contenders[id];
                match contender.answer.take() {
                    Some(Ok((lease, sent))) => {
                        (contender.told, contender.told_at) = (true, sent);
                        contender.election.wrote(lease, sent);
                    }
                    Some(Err(())) => {
                        contender.told = false;
                        contender.election.refused();
                    }
                    None => {}
                }
            }
            Op::Lose(id) => {
                let contender = &mut self.contenders[id];
                (contender.asked, contender.writing, contender.answer) = (None, None, None);
            }
            Op::Release(id) => {
                let contender = &mut self.contenders[id];
                let seen = self.lease.clone();
                let version = seen.as_ref().map(|seen| seen.version.clone());
                let now = contender.clock(time);
                contender.election.saw(seen, now);
                (contender.asked, contender.answer, contender.told) = (None, None, false);
                contender.writing = contender.election.release().map(|record| (version, record, now));
            }
            Op::Restart(id) => {
                self.restarts += 1;
                let old = &self.contenders[id];
                let name = format!("c{id}-{}", self.restarts);
                self.contenders[id] = Contender::new(name, self.when_unreachable, old.rate, old.offset);
            }
        }
    }

    fn leaders(&self) -> Vec<&str> {
        let leads = |contender: &&Contender| contender.election.is_leader(contender.clock(self.time));
        self.contenders.iter().filter(leads).map(|contender| contender.election.holder()).collect()
    }

    /// Those of them whose last answer is good for the present.
    fn confirmed(&self) -> Vec<&str> {
        let confirmed = |contender: &&Contender| contender.election.leads_until().is_some_and(|until| contender.clock(self.time) < until);
        self.contenders.iter().filter(confirmed).map(|contender| contender.election.holder()).collect()
    }

    /// One undisturbed attempt of everybody.
    fn attempt(&mut self) {
        (0..CONTENDERS).for_each(|id| self.attempt_of(id));
    }

    fn attempt_of(&mut self, id: usize) {
        [Op::Ask(id), Op::Decide(id), Op::Commit(id), Op::Confirm(id)].iter().for_each(|op| self.run(op));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn two_never_lead_and_somebody_comes_to_lead(
        clocks in prop::collection::vec((850..1150u64, 0..10_000_000u64), CONTENDERS),
        ops in prop::collection::vec(op(), 1..300),
        when_unreachable in prop_oneof![Just(StepDown), Just(Continue)],
    ) {
        let mut model = Model::new(when_unreachable, &clocks);
        for op in &ops {
            let before: Vec<String> = model.leaders().into_iter().map(str::to_owned).collect();
            model.run(op);
            let (leaders, confirmed) = (model.leaders(), model.confirmed());
            prop_assert!(confirmed.len() <= 1, "{confirmed:?} lead at {} ms after {op:?}", model.time);
            if when_unreachable == StepDown {
                prop_assert_eq!(&leaders, &confirmed);
            }
            for contender in &model.contenders {
                let (name, now) = (contender.election.holder(), contender.clock(model.time));
                let started = leaders.contains(&name) && !before.iter().any(|before| before == name);
                prop_assert!(!started || matches!(op, Op::Confirm(_)), "{name} starts to lead after {op:?}");
                // Beside another there only leads who has had no other answer than that it holds the lease, and that long ago.
                if leaders.contains(&name) && !confirmed.contains(&name) {
                    prop_assert!(contender.told, "{name} leads on after {op:?}");
                    prop_assert!(now >= contender.told_at + Timing::default().renew_within);
                }
            }
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

    /// The server is away for all of them, and then they reach it again in any order.
    #[test]
    fn who_leads_on_is_leader_still_when_the_server_is_back(
        clocks in prop::collection::vec((850..1150u64, 0..10_000_000u64), CONTENDERS),
        away in 0..10_000_000u64,
        order in Just([0, 1, 2]).prop_shuffle(),
    ) {
        let mut model = Model::new(Continue, &clocks);
        model.attempt();
        let leader = model.leaders()[0].to_owned();
        model.run(&Op::Pass(away));
        prop_assert_eq!(model.leaders(), [leader.as_str()]);
        for _ in 0..3 {
            order.iter().for_each(|id| model.attempt_of(*id));
            prop_assert_eq!(model.leaders(), [leader.as_str()]);
            prop_assert_eq!(model.confirmed(), [leader.as_str()]);
            model.run(&Op::Pass(2_000));
        }
    }

    /// The leader is cut off, and another one leads until it is back.
    #[test]
    fn who_is_cut_off_stops_at_the_first_answer_that_names_another(
        clocks in prop::collection::vec((850..1150u64, 0..10_000_000u64), CONTENDERS),
        rounds in 10..40usize,
    ) {
        let mut model = Model::new(Continue, &clocks);
        model.attempt();
        for _ in 0..rounds {
            model.run(&Op::Pass(2_000));
            [1, 2].iter().for_each(|id| model.attempt_of(*id));
        }
        prop_assert_eq!(model.leaders().len(), 2);
        prop_assert_eq!(model.confirmed().len(), 1);
        prop_assert_ne!(model.confirmed(), ["c0"]);
        [Op::Ask(0), Op::Decide(0)].iter().for_each(|op| model.run(op));
        prop_assert_eq!(model.leaders(), model.confirmed());
    }
}

/// The model would notice: a contender that trusts the time of the answer leads beside another.
#[test]
fn the_model_notices_two_leaders() {
    let mut model = Model::new(StepDown, &[(1000, 0); CONTENDERS]);
    [Op::Ask(0), Op::Decide(0), Op::Commit(0)].iter().for_each(|op| model.run(op));
    [Op::Ask(1), Op::Decide(1), Op::Pass(16_000), Op::Ask(1), Op::Decide(1), Op::Commit(1), Op::Confirm(1)]
        .iter()
        .for_each(|op| model.run(op));
    let late = model.contenders[0].answer.clone().unwrap().unwrap();
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
    let options = |holder: &str| Options {
        namespace: "default".into(),
        name: "alerter".into(),
        holder: holder.into(),
        timing,
        when_unreachable: StepDown,
    };
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

/// One that leads on without the API server, beside one that comes to lead, and after one that was away for all.
#[tokio::test]
async fn a_holder_leads_on_until_an_answer_names_another() {
    let Some(mut server) = kube_testing::start(&[]).await else { return };
    let link = server.link().await.unwrap();
    let client = connect(Some(&link.kubeconfig(&server.kubeconfig("admin")).unwrap())).await.unwrap().unwrap();
    let timing = Timing { valid: Duration::from_secs(3), renew_within: Duration::from_secs(2), retry: Duration::from_millis(100) };
    let start = |client: kube_client::Client, holder: &str| {
        let (namespace, name, holder) = ("default".into(), "alerter".into(), holder.into());
        Campaign::start(client, Options { namespace, name, holder, timing, when_unreachable: Continue })
    };
    let first = start(client, "first");
    let mut leads = first.leader();
    soon(leads.elected()).await;
    assert!(!leads.is_unconfirmed());

    // Away for all: it leads on, and still does when the server is back.
    let mut second = start(server.admin().await, "second");
    let next = second.leader();
    // It has seen whose the lease is.
    tokio::time::sleep(3 * timing.retry).await;
    server.stop();
    unconfirmed(&leads, true).await;
    assert!(leads.is_leader() && !next.is_leader());
    server.restart().await.unwrap();
    unconfirmed(&leads, false).await;
    assert!(leads.is_leader() && !next.is_leader());

    // Cut off while the other reaches it: that one comes to lead, and the first stops when it hears of it.
    for way in [Way::Cut, Way::Silent] {
        link.set(way);
        let mut next = second.leader();
        unconfirmed(&leads, true).await;
        soon(next.elected()).await;
        assert!(leads.is_leader() && leads.is_unconfirmed() && !next.is_unconfirmed(), "{way:?}");
        link.set(Way::Open);
        soon(leads.changed()).await;
        assert!(!leads.is_leader() && next.is_leader(), "{way:?}");
        second.release().await;
        soon(leads.elected()).await;
        second = start(server.admin().await, "second");
    }
}

/// Waits until the API server has not answered for too long, or answers again.
async fn unconfirmed(leader: &Leader, unconfirmed: bool) {
    soon(async {
        while leader.is_unconfirmed() != unconfirmed {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
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
        let (namespace, name, holder) = ("default".into(), "events".into(), holder.into());
        let options = Options { namespace, name, holder, timing, when_unreachable: StepDown };
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
