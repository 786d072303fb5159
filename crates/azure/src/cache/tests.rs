//! The cache with a credential that answers when it is told to, and a clock that is set by hand.

use std::sync::atomic::{AtomicI64, Ordering};

use proptest::prelude::*;
use tokio::sync::{mpsc, oneshot};

use super::*;

const START: i64 = 1_800_000_000;
const HOUR: i64 = 3600;

struct Scripted(mpsc::UnboundedSender<Call>);

struct Call {
    scope: Scope,
    answer: oneshot::Sender<Result<Token, Error>>,
}

#[async_trait]
impl Credential for Scripted {
    fn name(&self) -> &'static str {
        "scripted"
    }

    async fn fetch(&self, scope: &Scope) -> Result<Token, Error> {
        let (answer, answered) = oneshot::channel();
        self.0.send(Call { scope: scope.clone(), answer }).unwrap();
        // A sender that is dropped stands for a panic of the credential.
        answered.await.unwrap()
    }
}

struct World {
    cache: Arc<Cache>,
    calls: mpsc::UnboundedReceiver<Call>,
    seconds: Arc<AtomicI64>,
    scope: Scope,
}

impl World {
    fn new() -> World {
        let (sender, calls) = mpsc::unbounded_channel();
        let seconds = Arc::new(AtomicI64::new(START));
        let clock = Arc::clone(&seconds);
        let now: Now = Arc::new(move || Timestamp::from_second(clock.load(Ordering::Relaxed)).unwrap());
        World { cache: Arc::new(Cache::new(Arc::new(Scripted(sender)), now)), calls, seconds, scope: Scope::new("r") }
    }

    /// Sets the clock to so many seconds after the start.
    fn at(&self, seconds: i64) {
        self.seconds.store(START + seconds, Ordering::Relaxed);
    }

    fn ask(&self) -> tokio::task::JoinHandle<Result<Arc<Token>, Error>> {
        let (cache, scope) = (Arc::clone(&self.cache), self.scope.clone());
        tokio::spawn(async move { cache.token(&scope).await })
    }

    fn refuse(&self, token: &Arc<Token>) -> tokio::task::JoinHandle<Result<Arc<Token>, Error>> {
        let (cache, scope, token) = (Arc::clone(&self.cache), self.scope.clone(), Arc::clone(token));
        tokio::spawn(async move { cache.renew(&scope, &token).await })
    }

    /// Answers the request that is under way and waits until the answer is known.
    async fn answer(&mut self, answer: Result<Token, Error>) {
        let call = self.calls.recv().await.unwrap();
        call.answer.send(answer).unwrap();
        let entry = Arc::clone(&self.cache.entries.lock()[&call.scope]);
        let flight = entry.lock().flight.clone();
        while flight.as_ref().is_some_and(|flight| flight.has_changed().is_ok()) {
            tokio::task::yield_now().await;
        }
    }

    async fn no_request(&mut self) {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        assert!(self.calls.try_recv().is_err(), "a request that nobody should have made");
    }

    /// A world that holds a token until `end`.
    async fn with(name: &str, end: i64) -> World {
        let mut world = World::new();
        let asked = world.ask();
        world.answer(Ok(token(name, end))).await;
        assert!(asked.await.unwrap().unwrap().is(&token(name, end)));
        world
    }
}

fn token(name: &str, end: i64) -> Token {
    Token::new(name.to_owned(), Timestamp::from_second(START + end).unwrap()).unwrap()
}

fn name(token: &Token) -> String {
    token.header().to_str().unwrap().trim_start_matches("Bearer ").to_owned()
}

#[tokio::test]
async fn a_hundred_callers_make_one_request_and_share_its_answer() {
    let mut world = World::new();
    let callers: Vec<_> = (0..100).map(|_| world.ask()).collect();
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
    world.answer(Ok(token("a", HOUR))).await;
    for caller in callers {
        assert_eq!(name(&caller.await.unwrap().unwrap()), "a");
    }
    world.no_request().await;
}

#[tokio::test]
async fn callers_without_a_token_share_a_failure_too() {
    let mut world = World::new();
    let callers: Vec<_> = (0..100).map(|_| world.ask()).collect();
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
    world.answer(Err(Error::transient("away"))).await;
    for caller in callers {
        assert_eq!(caller.await.unwrap().unwrap_err(), Error::transient("away"));
    }
    world.no_request().await;
}

#[tokio::test]
async fn half_way_through_its_life_a_token_is_renewed_behind_its_users() {
    let mut world = World::with("a", HOUR).await;
    world.at(HOUR * 45 / 100 - 1);
    assert_eq!(name(&world.ask().await.unwrap().unwrap()), "a");
    world.no_request().await;

    world.at(HOUR / 2);
    // Nobody waits, though the request gets no answer yet.
    for _ in 0..3 {
        assert_eq!(name(&world.ask().await.unwrap().unwrap()), "a");
    }
    world.answer(Ok(token("b", 2 * HOUR))).await;
    assert_eq!(name(&world.ask().await.unwrap().unwrap()), "b");
    world.no_request().await;
}

#[tokio::test]
async fn an_old_token_serves_while_renewing_fails_and_no_longer_than_it_is_good() {
    let mut world = World::with("a", HOUR).await;
    let mut requests = 0;
    for second in (HOUR / 2)..(HOUR - 10) {
        world.at(second);
        assert_eq!(name(&world.cache.token(&world.scope).await.unwrap()), "a");
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        if let Ok(call) = world.calls.try_recv() {
            requests += 1;
            call.answer.send(Err(Error::transient("away"))).unwrap();
            for _ in 0..3 {
                tokio::task::yield_now().await;
            }
        }
    }
    // Half an hour of pauses between 30 and 60 seconds, after the doubling ones.
    assert!((30..=70).contains(&requests), "{requests}");
    // Let the longest pause pass, then everything depends on the next answer.
    world.at(HOUR + 60);
    let asked = world.ask();
    world.answer(Err(Error::refused("secret expired"))).await;
    assert_eq!(asked.await.unwrap().unwrap_err(), Error::refused("secret expired"));
    assert_eq!(world.ask().await.unwrap().unwrap_err(), Error::refused("secret expired"));
    world.no_request().await;

    world.at(HOUR + 120);
    let asked = world.ask();
    world.answer(Ok(token("b", 3 * HOUR))).await;
    assert_eq!(name(&asked.await.unwrap().unwrap()), "b");
}

#[tokio::test]
async fn in_its_last_seconds_a_token_is_waited_for() {
    let mut world = World::with("a", HOUR).await;
    world.at(HOUR - 10);
    let asked = world.ask();
    world.answer(Ok(token("b", 2 * HOUR))).await;
    assert_eq!(name(&asked.await.unwrap().unwrap()), "b");
}

#[tokio::test]
async fn who_gives_up_does_not_end_what_others_wait_for() {
    let mut world = World::new();
    let (first, second) = (world.ask(), world.ask());
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    first.abort();
    world.answer(Ok(token("a", HOUR))).await;
    assert_eq!(name(&second.await.unwrap().unwrap()), "a");
    world.no_request().await;
}

#[tokio::test]
async fn a_refused_token_is_renewed_once_for_all_who_had_it() {
    let mut world = World::with("a", HOUR).await;
    let old = world.ask().await.unwrap().unwrap();
    world.at(60);
    let callers: Vec<_> = (0..50).map(|_| world.refuse(&old)).collect();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    // Others, whose service takes the token, go on with it.
    assert_eq!(name(&world.ask().await.unwrap().unwrap()), "a");
    world.answer(Ok(token("b", HOUR))).await;
    for caller in callers {
        assert_eq!(name(&caller.await.unwrap().unwrap()), "b");
    }
    // One who is late gets the new one at once; a second refusal straight away is not answered with a request.
    assert_eq!(name(&world.refuse(&old).await.unwrap().unwrap()), "b");
    let new = world.ask().await.unwrap().unwrap();
    assert_eq!(name(&world.refuse(&new).await.unwrap().unwrap()), "b");
    world.no_request().await;
}

#[tokio::test]
async fn when_a_refused_token_cannot_be_renewed_only_the_refused_see_it() {
    let mut world = World::with("a", HOUR).await;
    let old = world.ask().await.unwrap().unwrap();
    world.at(60);
    let refused = world.refuse(&old);
    world.answer(Err(Error::transient("away"))).await;
    assert_eq!(refused.await.unwrap().unwrap_err(), Error::transient("away"));
    assert_eq!(name(&world.ask().await.unwrap().unwrap()), "a");
    world.no_request().await;
}

#[tokio::test]
async fn each_scope_has_its_own_token() {
    let mut world = World::with("a", HOUR).await;
    world.scope = Scope::new("other");
    let asked = world.ask();
    world.answer(Ok(token("b", HOUR))).await;
    assert_eq!(name(&asked.await.unwrap().unwrap()), "b");
    world.scope = Scope::new("r");
    assert_eq!(name(&world.ask().await.unwrap().unwrap()), "a");
}

#[tokio::test]
async fn a_credential_that_panics_leaves_the_cache_usable() {
    let mut world = World::new();
    let asked = world.ask();
    drop(world.calls.recv().await.unwrap().answer);
    assert!(asked.await.unwrap().unwrap_err().message.contains("scripted"));
    let asked = world.ask();
    world.answer(Ok(token("a", HOUR))).await;
    assert_eq!(name(&asked.await.unwrap().unwrap()), "a");
}

proptest! {
    #[test]
    fn renewal_comes_early_enough_and_not_at_once(life in 61i64..100_000, random in 0.0..1.0f64) {
        let now = Timestamp::from_second(START).unwrap();
        let expires = Timestamp::from_second(START + life).unwrap();
        let renew = renewal(now, expires, random);
        prop_assert!(renew.duration_since(now) >= YOUNGEST && renew < expires);
        let after = renew.duration_since(now).as_secs_f64();
        prop_assert!(after <= 30.0f64.max(life as f64 * 0.5));
        prop_assert!(after >= life as f64 * 0.45 - 0.001);
        if life >= 600 {
            prop_assert!(expires.duration_since(renew) >= SignedDuration::from_mins(5));
        }
    }

    #[test]
    fn pauses_double_up_to_a_minute(failures in 0u32..10_000, random in 0.0..1.0f64) {
        let pause = pause(failures, random).as_secs_f64();
        let ceiling = 2f64.powi(failures.min(6) as i32).min(60.0);
        prop_assert!(pause >= ceiling * 0.499 && pause <= ceiling, "{} {}", pause, ceiling);
    }
}
