//! Asynchronous commands: answered with an id, run in the background, followed with `.show operations`.
//!
//! They are in the catalogue from the answer to the end, and a few run at a time while a bounded number waits. Commands
//! that were awaited are remembered as well, in memory: their caller has seen what became of them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use kql::value::TICKS_PER_SECOND;
use kql::{Type, Value};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::catalog::{CatalogError, Operation, OperationState};
use crate::commands::{self, FromQuery, Outcome};
use crate::error::KustoError;
use crate::service::Kustd;

/// Asynchronous commands that run at the same time; queries of others need places as well.
const RUNNING: usize = 2;
/// Asynchronous commands that may wait beside those that run.
const WAITING: usize = 100;
/// Asynchronous operations that are remembered; the oldest that have ended leave first.
const REMEMBERED: usize = 10_000;
/// Awaited commands that are remembered.
const AWAITED: usize = 1000;
/// How long the catalogue remembers what has ended: two weeks, as Kusto does.
const MEMORY: i64 = 14 * 24 * 3600 * TICKS_PER_SECOND;
/// Longest that the query of an asynchronous command may run.
pub(crate) const LONGEST: Duration = Duration::from_secs(3600);

/// What ran, runs and waits.
pub(crate) struct Operations {
    stored: Mutex<VecDeque<Operation>>,
    awaited: Mutex<VecDeque<Operation>>,
    places: Arc<Semaphore>,
    running: Arc<Semaphore>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

impl Operations {
    /// Goes on with the operations of the catalogue; what runs is stopped by `shutdown`.
    pub(crate) fn new(stored: Vec<Operation>, shutdown: CancellationToken) -> Operations {
        Operations {
            stored: Mutex::new(stored.into()),
            awaited: Mutex::default(),
            places: Arc::new(Semaphore::new(RUNNING + WAITING)),
            running: Arc::new(Semaphore::new(RUNNING)),
            tasks: TaskTracker::new(),
            shutdown,
        }
    }

    /// All that are remembered, in the order in which they came.
    pub(crate) fn list(&self) -> Vec<Operation> {
        let mut all: Vec<Operation> = self.stored.lock().iter().cloned().collect();
        all.extend(self.awaited.lock().iter().cloned());
        all.sort_by_key(|operation| operation.started);
        all
    }

    /// Remembers a command that was awaited.
    pub(crate) fn put_awaited(&self, operation: Operation) {
        let mut list = self.awaited.lock();
        if list.len() == AWAITED {
            list.pop_front();
        }
        list.push_back(operation);
    }

    /// Remembers an asynchronous operation, or what has become of it.
    fn put(&self, operation: Operation) {
        let mut list = self.stored.lock();
        if let Some(known) = list.iter_mut().rev().find(|known| known.id == operation.id) {
            *known = operation;
            return;
        }
        list.push_back(operation);
        if list.len() > REMEMBERED
            && let Some(at) = list.iter().position(|operation| operation.state != OperationState::InProgress)
        {
            list.remove(at);
        }
    }

    /// Waits until nothing runs any more; call it after the shutdown has begun.
    pub(crate) async fn finished(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Takes a command to run in the background and answers with its id.
pub(crate) async fn submit(kustd: &Arc<Kustd>, database: String, request: FromQuery) -> Outcome {
    commands::check(kustd, &database, &request).await?;
    let now = kustd.now();
    let mut operation = Operation {
        id: uuid::Uuid::new_v4().as_u128(),
        name: request.name().to_owned(),
        database,
        started: now,
        updated: now,
        state: OperationState::InProgress,
        status: String::new(),
        should_retry: false,
    };
    let place = kustd.operations.places.clone().try_acquire_owned().ok();
    if place.is_none() {
        operation.state = OperationState::Throttled;
        operation.status = format!("{} asynchronous commands run or wait; send it again later", RUNNING + WAITING);
        operation.should_retry = true;
    }
    store(kustd, operation.clone(), move |edit, operation| edit.begin_operation(operation, now - MEMORY, REMEMBERED)).await?;
    let id = Value::Guid(operation.id);
    kustd.operations.put(operation.clone());
    if let Some(place) = place {
        let owner = kustd.clone();
        kustd.operations.tasks.spawn(async move {
            let _place = place;
            run(&owner, operation, request).await;
        });
    }
    Ok(commands::table(&[("OperationId", Type::Guid)], vec![vec![id]]))
}

async fn run(kustd: &Arc<Kustd>, mut operation: Operation, request: FromQuery) {
    let work = async {
        // the semaphore is never closed
        let _running = kustd.operations.running.acquire().await;
        commands::from_query(kustd, &operation.database, &request, Some(&operation)).await
    };
    let outcome = kustd.operations.shutdown.run_until_cancelled(work).await;
    operation.updated = kustd.now();
    match outcome {
        // its end is stored with its rows
        Some(Ok(_)) => operation.state = OperationState::Completed,
        failed => {
            operation.state = OperationState::Failed;
            (operation.status, operation.should_retry) = match failed {
                Some(Err(error)) => (error.to_string(), !error.permanent),
                _ => ("kustd was stopped before the operation ended; none of its rows are stored".to_owned(), true),
            };
            match store(kustd, operation.clone(), |edit, operation| edit.end_operation(operation)).await {
                Ok(()) => {}
                // rows and end were on their way when it was stopped
                Err(CatalogError::Ended) => {
                    operation.state = OperationState::Completed;
                    operation.status.clear();
                    operation.should_retry = false;
                }
                Err(error) => tracing::error!(%error, "the end of an operation cannot be stored; it counts as failed"),
            }
        }
    }
    kustd.operations.put(operation);
}

async fn store(
    kustd: &Arc<Kustd>,
    operation: Operation,
    change: impl FnOnce(&mut crate::catalog::Edit<'_>, &Operation) -> Result<(), CatalogError> + Send + 'static,
) -> Result<(), CatalogError> {
    let owner = kustd.clone();
    let stored = tokio::task::spawn_blocking(move || owner.storage.catalog().change(|edit| change(edit, &operation))).await;
    // the closure does not panic
    stored.unwrap_or(Ok(()))
}

/// An operation that has ended, for the list.
pub(crate) fn ended(name: &str, database: &str, started: i64, now: i64, failure: Option<&KustoError>) -> Operation {
    Operation {
        id: uuid::Uuid::new_v4().as_u128(),
        name: name.to_owned(),
        database: database.to_owned(),
        started,
        updated: now,
        state: if failure.is_some() { OperationState::Failed } else { OperationState::Completed },
        status: failure.map(ToString::to_string).unwrap_or_default(),
        should_retry: failure.is_some_and(|error| !error.permanent),
    }
}
