//! The threads that queries run on.
//!
//! Queries keep a core busy for seconds, so they stay away from the threads that serve HTTP. Their stacks are large:
//! planning and executing recurse over the operators of a query, whose number its author chooses.

use std::future::Future;
use std::num::NonZeroUsize;
use std::sync::OnceLock;

use futures::FutureExt;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::error::EngineError;

/// Reserved, not used: the system commits pages of a stack when they are touched.
const STACK_BYTES: usize = 64 << 20;

/// Places of queries that run at the same time, each with its own share of memory; others wait.
pub(super) fn places() -> &'static Semaphore {
    static PLACES: OnceLock<Semaphore> = OnceLock::new();
    PLACES.get_or_init(|| Semaphore::new(place_count()))
}

/// Places of queries that other clusters may keep waiting, so that they keep nobody else from running.
pub(super) fn waiting_places() -> &'static Semaphore {
    static PLACES: OnceLock<Semaphore> = OnceLock::new();
    PLACES.get_or_init(|| Semaphore::new(place_count()))
}

/// How many queries run at the same time.
pub(super) fn place_count() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    (processors * 2).max(4)
}

/// Runs a future on the query threads. Dropping the returned future aborts it.
pub(super) async fn spawn<T, F>(future: F) -> Result<T, EngineError>
where
    T: Send + 'static,
    F: Future<Output = Result<T, EngineError>> + Send + 'static,
{
    let task = AbortOnDrop(runtime()?.spawn(future));
    task.await
}

/// Runs a future on the query threads and blocks until it is done. Not for threads that drive other futures.
pub(super) fn block_on<T, F>(future: F) -> Result<T, EngineError>
where
    T: Send + 'static,
    F: Future<Output = Result<T, EngineError>> + Send + 'static,
{
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    runtime()?.spawn(async move {
        // The receiver only goes away when the waiting thread panics.
        let _ = sender.send(future.await);
    });
    receiver.recv().unwrap_or_else(|_| Err(panicked()))
}

fn runtime() -> Result<&'static Runtime, EngineError> {
    static RUNTIME: OnceLock<Result<Runtime, String>> = OnceLock::new();
    let built = RUNTIME.get_or_init(|| {
        Builder::new_multi_thread()
            .thread_name("query")
            .thread_stack_size(STACK_BYTES)
            .enable_all()
            .build()
            .map_err(|error| error.to_string())
    });
    built.as_ref().map_err(|error| EngineError::internal(format!("starting the query threads: {error}")))
}

fn panicked() -> EngineError {
    EngineError::internal("the query stopped at a fault of the engine; the log has the details")
}

struct AbortOnDrop<T>(JoinHandle<Result<T, EngineError>>);

impl<T> Future for AbortOnDrop<T> {
    type Output = Result<T, EngineError>;

    fn poll(mut self: std::pin::Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<Self::Output> {
        self.0.poll_unpin(cx).map(|joined| joined.unwrap_or_else(|_| Err(panicked())))
    }
}

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
