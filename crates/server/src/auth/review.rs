//! Tokens that somebody else knows: Kubernetes, by TokenReview. What it said is kept for a while, so that a busy sender
//! costs a review every two minutes and an API server that is away for less than that is not noticed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::tokens::{TokenDigest, digest};
use super::{AuthError, Denied, Outcome};

/// What a reviewer says of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Review {
    /// Whose it is, as `system:serviceaccount:<namespace>:<name>`; none when it is not valid.
    pub user: Option<String>,
}

/// Knows tokens.
pub trait Reviewer: Send + Sync {
    /// Reviews one token. The error says why that was not possible, and nothing of the token.
    fn review(&self, token: String) -> BoxFuture<'_, Result<Review, String>>;
}

/// Service accounts: one, or all of a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accounts {
    namespace: String,
    name: Option<String>,
}

impl std::str::FromStr for Accounts {
    type Err = AuthError;

    fn from_str(text: &str) -> Result<Self, AuthError> {
        let name_of = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b));
        match text.trim().split_once('/') {
            Some((namespace, "*")) if name_of(namespace) => Ok(Accounts { namespace: namespace.to_owned(), name: None }),
            Some((namespace, name)) if name_of(namespace) && name_of(name) => {
                Ok(Accounts { namespace: namespace.to_owned(), name: Some(name.to_owned()) })
            }
            _ => Err(AuthError::Account(text.to_owned())),
        }
    }
}

impl Accounts {
    fn has(&self, user: &str) -> bool {
        let Some((namespace, name)) = user.strip_prefix("system:serviceaccount:").and_then(|account| account.split_once(':')) else {
            return false;
        };
        namespace == self.namespace && self.name.as_ref().is_none_or(|own| own == name)
    }
}

/// How long a valid token is not asked about again.
const KEEP_GOOD: Duration = Duration::from_secs(120);
/// The same for one that is not valid; it may become so.
const KEEP_BAD: Duration = Duration::from_secs(10);
/// Verdicts that are kept.
const MAX_KEPT: usize = 4096;
/// Reviews at a time: tokens that somebody makes up must not flood the API server.
const MAX_REVIEWS: usize = 16;
/// How long a review, and the waiting for its turn, may take.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct Reviews {
    reviewer: Arc<dyn Reviewer>,
    accounts: Vec<Accounts>,
    kept: Mutex<HashMap<TokenDigest, Kept>>,
    turns: Semaphore,
    asked: Family<Outcome, Counter>,
}

#[derive(Clone)]
struct Kept {
    verdict: Result<(), Denied>,
    until: Instant,
}

impl Reviews {
    pub(super) fn new(reviewer: Arc<dyn Reviewer>, accounts: Vec<Accounts>) -> Self {
        Reviews { reviewer, accounts, kept: Mutex::default(), turns: Semaphore::new(MAX_REVIEWS), asked: Family::default() }
    }

    /// Counts of reviews by outcome.
    pub(super) fn asked(&self) -> Family<Outcome, Counter> {
        self.asked.clone()
    }

    pub(super) async fn check(&self, token: &str) -> Result<(), Denied> {
        let digest = digest(token);
        if let Some(verdict) = self.known(&digest) {
            return verdict;
        }
        let busy = || Denied::Unavailable("too many tokens are being checked".to_owned());
        let _turn = timeout(PATIENCE, self.turns.acquire()).await.map_err(|_| busy())?.map_err(|_| busy())?;
        // Another request with the same token may have been faster.
        if let Some(verdict) = self.known(&digest) {
            return verdict;
        }
        let review = match timeout(PATIENCE, self.reviewer.review(token.to_owned())).await {
            Ok(review) => review,
            Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
        };
        let outcome = review.as_ref().map_or("failed", |review| if review.user.is_some() { "known" } else { "unknown" });
        self.asked.get_or_create(&Outcome { outcome }).inc();
        let verdict = self.verdict(&review.map_err(Denied::Unavailable)?);
        self.keep(digest, &verdict);
        verdict
    }

    fn known(&self, digest: &TokenDigest) -> Option<Result<(), Denied>> {
        self.kept.lock().get(digest).filter(|kept| kept.until > Instant::now()).map(|kept| kept.verdict.clone())
    }

    fn verdict(&self, review: &Review) -> Result<(), Denied> {
        let user = review.user.as_ref().ok_or(Denied::Invalid)?;
        if self.accounts.is_empty() || self.accounts.iter().any(|accounts| accounts.has(user)) {
            return Ok(());
        }
        tracing::debug!(user, "a valid token of an account that may not send here");
        Err(Denied::NotAllowed)
    }

    fn keep(&self, digest: TokenDigest, verdict: &Result<(), Denied>) {
        let now = Instant::now();
        let mut kept = self.kept.lock();
        if kept.len() >= MAX_KEPT {
            kept.retain(|_, kept| kept.until > now);
        }
        if kept.len() >= MAX_KEPT {
            // The one that ends first: bad tokens go before good ones.
            let first = kept.iter().min_by_key(|(_, kept)| kept.until).map(|(digest, _)| *digest);
            first.into_iter().for_each(|digest| drop(kept.remove(&digest)));
        }
        let until = now + if verdict.is_ok() { KEEP_GOOD } else { KEEP_BAD };
        kept.insert(digest, Kept { verdict: verdict.clone(), until });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Knows tokens that start with `good`; asks are counted.
    #[derive(Default)]
    struct Fake {
        asked: AtomicUsize,
        away: Mutex<bool>,
    }

    impl Reviewer for Fake {
        fn review(&self, token: String) -> BoxFuture<'_, Result<Review, String>> {
            Box::pin(async move {
                self.asked.fetch_add(1, Ordering::Relaxed);
                if *self.away.lock() {
                    return Err("the API server is away".to_owned());
                }
                let user = token.strip_prefix("good ").map(|account| format!("system:serviceaccount:{account}"));
                Ok(Review { user })
            })
        }
    }

    fn reviews(accounts: &[&str]) -> (Arc<Fake>, Reviews) {
        let fake = Arc::new(Fake::default());
        (Arc::clone(&fake), Reviews::new(fake, accounts.iter().map(|text| text.parse().unwrap()).collect()))
    }

    #[tokio::test(start_paused = true)]
    async fn verdicts_are_kept_while_the_api_server_is_away_and_no_longer() {
        let (fake, reviews) = reviews(&[]);
        let check = |token| reviews.check(token);
        for _ in 0..3 {
            assert_eq!(check("good a:b").await, Ok(()));
            assert_eq!(check("bad").await, Err(Denied::Invalid));
        }
        assert_eq!(fake.asked.load(Ordering::Relaxed), 2);
        *fake.away.lock() = true;
        tokio::time::advance(KEEP_GOOD - Duration::from_secs(1)).await;
        assert_eq!(check("good a:b").await, Ok(()));
        let unavailable = Err(Denied::Unavailable("the API server is away".to_owned()));
        assert_eq!(check("bad").await, unavailable, "a bad token is asked about again after ten seconds");
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(check("good a:b").await, unavailable);
        *fake.away.lock() = false;
        assert_eq!(check("good a:b").await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn made_up_tokens_do_not_grow_memory_and_do_not_push_good_ones_out() {
        let (fake, reviews) = reviews(&[]);
        assert_eq!(reviews.check("good a:b").await, Ok(()));
        for n in 0..MAX_KEPT * 2 {
            assert_eq!(reviews.check(&format!("bad {n}")).await, Err(Denied::Invalid));
        }
        assert_eq!(reviews.kept.lock().len(), MAX_KEPT);
        let before = fake.asked.load(Ordering::Relaxed);
        assert_eq!(reviews.check("good a:b").await, Ok(()));
        assert_eq!(fake.asked.load(Ordering::Relaxed), before);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reviewer_that_does_not_answer_is_unavailable() {
        struct Silent;
        impl Reviewer for Silent {
            fn review(&self, _: String) -> BoxFuture<'_, Result<Review, String>> {
                Box::pin(std::future::pending())
            }
        }
        let reviews = Reviews::new(Arc::new(Silent), Vec::new());
        assert!(matches!(reviews.check("t").await, Err(Denied::Unavailable(reason)) if reason.contains("10 s")));
    }

    #[tokio::test]
    async fn only_the_named_accounts_are_let_in() {
        let (_, reviews) = reviews(&["monitoring/collector", "apps/*"]);
        for (token, let_in) in [
            ("good monitoring:collector", true),
            ("good monitoring:other", false),
            ("good apps:anything", true),
            ("good apps2:anything", false),
            ("good :collector", false),
        ] {
            let wanted = if let_in { Ok(()) } else { Err(Denied::NotAllowed) };
            assert_eq!(reviews.check(token).await, wanted, "{token}");
        }
        let admin = Review { user: Some("monitoring:collector".to_owned()) };
        assert_eq!(reviews.verdict(&admin), Err(Denied::NotAllowed), "a user is no service account");
        for wrong in ["", "a", "a/", "/b", "*/b", "a/b/c", "a b/c", "*/*"] {
            assert!(wrong.parse::<Accounts>().is_err(), "{wrong}");
        }
    }
}
