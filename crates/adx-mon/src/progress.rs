//! Shows on a terminal that long work goes on, and for how long it has.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Work shorter than this shows nothing.
const PATIENCE: Duration = Duration::from_millis(400);
const TICK: Duration = Duration::from_millis(100);

/// Waits for `work`, with a spinner, `what` and the time on standard error when it takes long and that is a terminal.
pub(crate) async fn shown<T>(what: &'static str, work: impl Future<Output = T>) -> T {
    shown_after(PATIENCE, what, work).await
}

async fn shown_after<T>(patience: Duration, what: &'static str, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    if let Ok(done) = tokio::time::timeout(patience, work.as_mut()).await {
        return done;
    }
    let bar = ProgressBar::new_spinner().with_message(what);
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(TICK);
    // Dropped with the work when that is cancelled.
    let bar = Cleared(bar);
    let done = work.await;
    drop(bar);
    done
}

struct Cleared(ProgressBar);

impl Drop for Cleared {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_gives_its_result_with_and_without_a_spinner() {
        assert_eq!(shown("short", async { 1 }).await, 1);
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let long = async {
            tokio::task::yield_now().await;
            sender.send(2).unwrap();
            receiver.await.unwrap()
        };
        assert_eq!(shown_after(Duration::ZERO, "long", long).await, 2);
    }
}
