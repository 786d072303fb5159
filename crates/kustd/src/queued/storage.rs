//! The storage that is given out: accounts, and the names in them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use azure_storage::{Account, Permissions, Resource, Retry, Storage};
use jiff::{Timestamp, ToSpan as _};
use tokio_util::sync::CancellationToken;

use crate::error::KustoError;

/// Containers and queues of each account.
const SHARES: usize = 2;
const STATUS_TABLE: &str = "kustdstatus";

/// Accounts whose storage is given out.
#[derive(Debug)]
pub(crate) struct IngestionStorage {
    accounts: Vec<Place>,
    pub(crate) requests: Storage,
}

#[derive(Debug)]
struct Place {
    account: Account,
    /// Everything that is given out of it has been made.
    ready: AtomicBool,
}

/// What there is of each account.
#[derive(Debug, Clone)]
pub(crate) struct Shares {
    /// For blobs.
    pub(crate) containers: Vec<Resource>,
    /// For messages of clients.
    pub(crate) queues: Vec<Resource>,
    /// For what succeeded.
    pub(crate) succeeded: Resource,
    /// For what failed.
    pub(crate) failed: Resource,
    /// For the status of each message.
    pub(crate) status: Resource,
}

impl IngestionStorage {
    /// Reads connection strings; none without any.
    pub(crate) fn new(connection_strings: &[String]) -> anyhow::Result<Option<IngestionStorage>> {
        if connection_strings.is_empty() {
            return Ok(None);
        }
        let place = |text: &String| Ok(Place { account: Account::parse(text)?, ready: AtomicBool::new(false) });
        let accounts: Result<Vec<Place>, azure_storage::Error> = connection_strings.iter().map(place).collect();
        let accounts = accounts.context("reading --ingestion-storage")?;
        let requests = Storage::new(Retry::default(), None)?;
        Ok(Some(IngestionStorage { accounts, requests }))
    }

    /// How many accounts there are.
    pub(crate) fn accounts(&self) -> usize {
        self.accounts.len()
    }

    /// The shares of every account, with all rights for some time.
    pub(crate) fn all_shares(&self) -> Result<Vec<Shares>, azure_storage::Error> {
        (0..self.accounts.len()).map(|account| self.shares(account, Permissions::All)).collect()
    }

    /// The shares of an account, with what `permissions` allow for some time.
    pub(crate) fn shares(&self, account: usize, permissions: Permissions) -> Result<Shares, azure_storage::Error> {
        let account = &self.accounts[account].account;
        // clients ask again every hour; a message may wait for a day
        let until = Timestamp::now() + 24.hours();
        let name = |what: &str, number: usize| format!("kustd-{what}-{number}");
        Ok(Shares {
            containers: (0..SHARES).map(|n| account.container(&name("temp", n), permissions, until)).collect::<Result<_, _>>()?,
            queues: (0..SHARES).map(|n| account.queue(&name("ready", n), permissions, until)).collect::<Result<_, _>>()?,
            succeeded: account.queue("kustd-succeeded", permissions, until)?,
            failed: account.queue("kustd-failed", permissions, until)?,
            status: account.table(STATUS_TABLE, permissions, until)?,
        })
    }

    /// What `.get ingestion resources` gives out: type and address, of the accounts that are ready. The addresses are secrets.
    pub(crate) fn resources(&self) -> Result<Vec<(&'static str, String)>, KustoError> {
        let mut rows = Vec::new();
        for at in (0..self.accounts.len()).filter(|at| self.accounts[*at].ready.load(Ordering::Acquire)) {
            let share = self.shares(at, Permissions::Client).map_err(|error| KustoError::internal(error.to_string()))?;
            let mut give = |kind, resource: &Resource| rows.push((kind, resource.with_sas().to_owned()));
            share.containers.iter().for_each(|container| give("TempStorage", container));
            share.queues.iter().for_each(|queue| give("SecuredReadyForAggregationQueue", queue));
            give("SuccessfulIngestionsQueue", &share.succeeded);
            give("FailedIngestionsQueue", &share.failed);
            give("IngestionsStatusTable", &share.status);
        }
        match rows.is_empty() {
            true => Err(KustoError::throttled("the storage of queued ingestion is not ready yet")),
            false => Ok(rows),
        }
    }

    /// Makes what is missing in an account, as soon as that can be reached; false when it is time to end.
    pub(crate) async fn prepare(&self, account: usize, shutdown: &CancellationToken) -> bool {
        let mut pause = Duration::from_millis(200);
        loop {
            match shutdown.run_until_cancelled(self.make(account)).await {
                Some(Ok(())) => {
                    self.accounts[account].ready.store(true, Ordering::Release);
                    return true;
                }
                Some(Err(error)) => tracing::warn!(%error, "an account for queued ingestion is not ready; it is tried again"),
                None => return false,
            }
            if shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return false;
            }
            pause = (pause * 2).min(Duration::from_secs(10));
        }
    }

    async fn make(&self, account: usize) -> Result<(), azure_storage::Error> {
        let share = self.shares(account, Permissions::All)?;
        for container in &share.containers {
            self.requests.create_container(container).await?;
        }
        for queue in share.queues.iter().chain([&share.succeeded, &share.failed]) {
            self.requests.create_queue(queue).await?;
        }
        self.requests.create_table(&share.status).await
    }
}
