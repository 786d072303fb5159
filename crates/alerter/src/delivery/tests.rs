#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::post;
use prometheus_client::registry::Registry;
use rules::clock::ManualClock;

use tokio::sync::mpsc;

use super::*;
use crate::channel::channel;
use crate::state::{Outgoing, Record};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_767_225_600 + second).unwrap()
}

struct Bench {
    _folder: tempfile::TempDir,
    state: State,
    clock: ManualClock,
    news: mpsc::Receiver<Progress>,
    courier: Courier,
}

/// A courier with one notification in its outbox. `url` is the receiver's address.
async fn bench(url: &str) -> Bench {
    bench_with(url, 1, 16).await
}

/// A courier with so many notifications in its outbox, and so much room for what becomes of them.
async fn bench_with(url: &str, notifications: usize, room: usize) -> Bench {
    let folder = tempfile::tempdir().unwrap();
    let state = State::open(folder.path()).unwrap();
    let notification = |at: usize| Outgoing {
        target: Target::Receiver,
        destination: format!("d{at}"),
        correlation: String::new(),
        title: "t".into(),
        body: b"{}".to_vec(),
    };
    let notifications = (0..notifications).map(notification).collect();
    let record = Record { rule: "n/r".into(), window: (at(-60), at(0)), done: true, notifications };
    state.record(record, at(0)).await.unwrap();
    let clock = ManualClock::new(at(0));
    let metrics = Metrics::register(&mut Registry::default(), "r");
    let (progress, news) = channel(room, "deliveries", &metrics);
    let courier = Courier {
        target: Target::Receiver,
        url: route("--alerter-address", url, &["alerts"]).unwrap(),
        timeout: Duration::from_secs(60),
        state: state.clone(),
        clock: Arc::new(clock.clone()),
        metrics,
        wake: Arc::default(),
        leading: watch::channel(true).1,
        progress,
    };
    Bench { _folder: folder, state, clock, news, courier }
}

impl Bench {
    /// What becomes of the notification after an answer; nothing when it is not due.
    async fn answer(&mut self, round: &mut Round, request: impl Future<Output = Answer> + Send + 'static) -> Option<String> {
        self.news_of(round, request).await?.error
    }

    async fn news_of(&mut self, round: &mut Round, request: impl Future<Output = Answer> + Send + 'static) -> Option<Progress> {
        let claimed = self.state.claim(Target::Receiver, self.clock.now(), 1, round.busy()).await.unwrap().pop()?;
        round.send(claimed, request);
        let done = round.requests.join_next_with_id().await.unwrap();
        self.courier.settle(round, done).await;
        self.clock.set(later(self.clock.now(), Duration::from_secs(600)));
        self.news.recv().await
    }

    async fn waiting(&self) -> u64 {
        self.state.waiting(Target::Receiver).await.unwrap().notifications
    }
}

/// A full disk while a receiver refuses: the notification is sent again once there is room, not only by the next process.
#[tokio::test]
async fn what_could_not_be_kept_is_kept_later() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let Bench { _folder, state, clock, mut news, courier } = bench(&format!("http://{}", listener.local_addr().unwrap())).await;
    let (disk, first) = (state.clone(), Arc::new(AtomicBool::new(true)));
    let receive = move || async move {
        if !first.swap(false, Ordering::Relaxed) {
            return StatusCode::OK;
        }
        disk.refuse_writes(true).await.unwrap();
        StatusCode::SERVICE_UNAVAILABLE
    };
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/alerts", post(receive))).await });
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(courier.run(shutdown.clone()));
    assert!(news.recv().await.unwrap().error.is_some());
    while clock.next_deadline().await != later(at(0), STATE_PAUSE) {
        tokio::task::yield_now().await;
    }
    state.refuse_writes(false).await.unwrap();
    clock.set(later(at(0), STATE_PAUSE));
    assert_eq!(news.recv().await.unwrap(), Progress { rule: "n/r".into(), error: None, given_up: None });
    assert_eq!(state.waiting(Target::Receiver).await.unwrap().notifications, 0);
    shutdown.cancel();
    running.await.unwrap().unwrap();
}

/// Nobody reads what became of deliveries at first: the courier waits, what it has not told of stays in the outbox, and
/// nothing is lost.
#[tokio::test]
async fn a_courier_waits_while_nobody_takes_its_news() {
    const ALL: usize = 20;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let Bench { _folder, state, mut news, courier, .. } = bench_with(&format!("http://{}", listener.local_addr().unwrap()), ALL, 1).await;
    let taken = Arc::new(AtomicUsize::new(0));
    let count = taken.clone();
    let receive = move || async move { _ = count.fetch_add(1, Ordering::Relaxed) };
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/alerts", post(receive))).await });
    let (shutdown, metrics) = (CancellationToken::new(), courier.metrics.clone());
    let running = tokio::spawn(courier.run(shutdown.clone()));
    while metrics.times_full("deliveries") == 0 {
        tokio::task::yield_now().await;
    }
    // One is in the channel, and with the next one the courier waits.
    assert_eq!(state.waiting(Target::Receiver).await.unwrap().notifications, ALL as u64 - 2);
    for _ in 0..ALL {
        assert_eq!(news.recv().await.unwrap(), Progress { rule: "n/r".into(), error: None, given_up: None });
    }
    assert_eq!((taken.load(Ordering::Relaxed), state.waiting(Target::Receiver).await.unwrap().notifications), (ALL, 0));
    shutdown.cancel();
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_delivery_that_panics_gives_its_place_back_and_is_tried_again() {
    let mut bench = bench("http://127.0.0.1:1").await;
    let mut round = Round::default();
    for _ in 0..2 * MAX_PER_DESTINATION {
        let error = bench.answer(&mut round, async { panic!("on purpose") }).await.unwrap();
        assert!(error.contains("panic"), "{error}");
        assert!(round.busy().is_empty(), "its place is taken");
    }
    assert_eq!(bench.answer(&mut round, async { Answer::Taken }).await, None);
    assert_eq!(bench.waiting().await, 0);
}

#[tokio::test]
async fn only_refusals_in_a_row_give_a_notification_up() {
    let mut bench = bench("http://127.0.0.1:1").await;
    let mut round = Round::default();
    let refused = || async { Answer::Refused("no".to_owned()) };
    // Failures and throttling say nothing about its body, however many there are.
    for answer in [Answer::Failed("away".to_owned()), Answer::Busy { retry_after: None }] {
        for _ in 0..MAX_REFUSALS {
            let answer = answer.clone();
            bench.answer(&mut round, async move { answer }).await;
            round.paused.clear();
        }
        for _ in 1..MAX_REFUSALS {
            bench.answer(&mut round, refused()).await;
        }
        assert_eq!(bench.waiting().await, 1);
    }
    bench.answer(&mut round, async { Answer::Failed("away".to_owned()) }).await;
    for refusals in 1..=MAX_REFUSALS {
        assert_eq!(bench.waiting().await, 1, "after {} refusals", refusals - 1);
        let news = bench.news_of(&mut round, refused()).await.unwrap();
        // Whoever reads the status is told once nothing more is tried.
        assert_eq!((news.error.as_deref(), news.given_up.is_some()), (Some("no"), refusals == MAX_REFUSALS));
    }
    assert_eq!(bench.waiting().await, 0);
}

/// Whatever the answers were: also a receiver that throttles for ever.
#[tokio::test]
async fn after_a_day_a_notification_is_given_up() {
    for answer in [Answer::Failed("away".to_owned()), Answer::Busy { retry_after: None }, Answer::Refused("no".to_owned())] {
        let mut bench = bench("http://127.0.0.1:1").await;
        let mut round = Round::default();
        for (second, waiting) in [(86_400, 1), (86_401, 0)] {
            bench.clock.set(at(second));
            let answer = answer.clone();
            bench.answer(&mut round, async move { answer }).await;
            assert_eq!(bench.waiting().await, waiting, "{second}");
            round.paused.clear();
            if waiting == 1 {
                // What was put back is due: the next try comes at the next second of this test.
                let claimed = bench.state.claim(Target::Receiver, at(90_000), 1, Vec::new()).await.unwrap().pop().unwrap();
                bench.state.postpone(claimed.id, at(second), false).await.unwrap();
            }
        }
    }
}
