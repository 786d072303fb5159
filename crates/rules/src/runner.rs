//! Runs executors of rules: each on its own task, only while this process is the leader, woken by changes and by time.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::lease::Leader;

/// How long what is under way at the end may take: a command whose outcome nobody notes is neither done nor to be repeated.
const GRACE: Duration = Duration::from_secs(10);

/// What runs the rules of one kind.
#[async_trait]
pub trait Executor: Send {
    /// Its name in logs.
    fn name(&self) -> &'static str;

    /// Does what is due. Returns when to come back even if nothing changes. It must stop soon once `leader` no longer leads.
    async fn pass(&mut self, now: Timestamp, leader: &Leader) -> Option<Timestamp>;

    /// Returns when rules have changed.
    async fn changed(&mut self);
}

/// Runs executors until `stop`. One that is slow or hangs holds up no other.
pub async fn run(executors: Vec<Box<dyn Executor>>, leader: Leader, clock: Arc<dyn Clock>, stop: CancellationToken) {
    let mut tasks = JoinSet::new();
    for executor in executors {
        tasks.spawn(run_one(executor, leader.clone(), clock.clone(), stop.clone()));
    }
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "an executor of rules ended");
        }
    }
}

async fn run_one(mut executor: Box<dyn Executor>, mut leader: Leader, clock: Arc<dyn Clock>, stop: CancellationToken) {
    let ends = async {
        stop.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::pin!(ends);
    loop {
        if stop.run_until_cancelled(leader.elected()).await.is_none() {
            return;
        }
        let next = tokio::select! {
            next = executor.pass(clock.now(), &leader) => next,
            () = &mut ends => {
                tracing::warn!(executor = executor.name(), "what was under way is given up");
                return;
            }
        };
        tracing::debug!(executor = executor.name(), ?next, "passed");
        let due = async {
            match next {
                Some(next) => clock.sleep_until(next).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // First: nothing begins at the end.
            biased;
            () = stop.cancelled() => return,
            () = executor.changed() => {}
            () = due => {}
            () = leader.changed() => {}
        }
    }
}
