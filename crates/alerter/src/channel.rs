//! Bounded channels between the parts of the alerter. Whoever sends into a full one waits, so that nothing is lost and memory
//! stays small; that it waits is counted and logged.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::mpsc::{self, error::TrySendError};

use crate::metrics::Metrics;

/// The sending end.
#[derive(Debug, Clone)]
pub struct Sender<T> {
    sender: mpsc::Sender<T>,
    name: &'static str,
    metrics: Metrics,
    /// Whether the last sender found it full: the log says so once.
    full: Arc<AtomicBool>,
}

/// A channel in which `bound` items wait at most; `name` is what logs and metrics call it.
#[must_use]
pub fn channel<T>(bound: usize, name: &'static str, metrics: &Metrics) -> (Sender<T>, mpsc::Receiver<T>) {
    let (sender, receiver) = mpsc::channel(bound);
    (Sender { sender, name, metrics: metrics.clone(), full: Arc::default() }, receiver)
}

impl<T> Sender<T> {
    /// Sends, and waits while the channel is full. What is sent to a receiver that has ended is gone.
    pub async fn send(&self, item: T) {
        let Err(TrySendError::Full(item)) = self.sender.try_send(item) else {
            return self.full.store(false, Ordering::Relaxed);
        };
        self.metrics.full(self.name);
        if !self.full.swap(true, Ordering::Relaxed) {
            tracing::warn!(channel = self.name, bound = self.sender.max_capacity(), "a channel is full: its senders wait");
        }
        // The receiver ends only with the process.
        let _ = self.sender.send(item).await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use prometheus_client::registry::Registry;

    use super::*;

    #[tokio::test]
    async fn who_sends_into_a_full_channel_waits_and_nothing_is_lost() {
        let metrics = Metrics::register(&mut Registry::default(), "r");
        let (sender, mut receiver) = channel(2, "c", &metrics);
        let sending = tokio::spawn(async move {
            for item in 0..5 {
                sender.send(item).await;
            }
        });
        while metrics.times_full("c") == 0 {
            tokio::task::yield_now().await;
        }
        assert!(receiver.len() == 2 && !sending.is_finished());
        for item in 0..5 {
            assert_eq!(receiver.recv().await, Some(item));
        }
        assert_eq!(receiver.recv().await, None);
        sending.await.unwrap();
    }

    #[tokio::test]
    async fn nobody_waits_for_a_receiver_that_has_ended() {
        let metrics = Metrics::register(&mut Registry::default(), "r");
        let (sender, receiver) = channel(1, "c", &metrics);
        drop(receiver);
        sender.send(1).await;
        sender.send(2).await;
        assert_eq!(metrics.times_full("c"), 0);
    }
}
