//! Runs executors of rules: each on its own task, only while this process is the leader, woken by changes and by time.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::lease::Leader;

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
        let (leader, clock, stop) = (leader.clone(), clock.clone(), stop.clone());
        tasks.spawn(async move {
            stop.run_until_cancelled(run_one(executor, leader, clock)).await;
        });
    }
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "an executor of rules ended");
        }
    }
}

async fn run_one(mut executor: Box<dyn Executor>, mut leader: Leader, clock: Arc<dyn Clock>) {
    loop {
        leader.elected().await;
        let next = executor.pass(clock.now(), &leader).await;
        tracing::debug!(executor = executor.name(), ?next, "passed");
        let due = async {
            match next {
                Some(next) => clock.sleep_until(next).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = executor.changed() => {}
            () = due => {}
            () = leader.changed() => {}
        }
    }
}
