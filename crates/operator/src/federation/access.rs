//! Asking Kusto clusters.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use azure::{Credentials, Identity, TokenSource};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use jiff::Timestamp;
use kusto::{Client, QueryOptions, Table};
use parking_lot::Mutex;

/// A query, or a command, which begins with a point.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// Address of the cluster.
    pub endpoint: String,
    /// Client id of the managed identity to ask with; none is the default chain.
    pub identity: Option<String>,
    /// Database.
    pub database: String,
    /// KQL.
    pub text: String,
    /// What `now()` shall be, if not the cluster's time.
    pub now: Option<Timestamp>,
    /// When to give up.
    pub timeout: Duration,
}

/// Whatever answers calls.
pub trait Kusto: Send + Sync {
    /// The first table of the answer.
    fn ask(&self, call: Call) -> BoxFuture<'_, Result<Table, String>>;
}

/// Kusto over HTTP. Clusters with https get Azure tokens.
#[derive(Default)]
pub struct Clients {
    known: Mutex<HashMap<(String, Option<String>), Client>>,
    chain: Mutex<Option<Arc<dyn TokenSource>>>,
}

/// Clients that are kept.
const MOST_CLIENTS: usize = 1_000;

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clients")
    }
}

impl Clients {
    fn client(&self, endpoint: &str, identity: Option<&str>) -> Result<Client, String> {
        let key = (endpoint.to_owned(), identity.map(str::to_owned));
        let mut known = self.known.lock();
        if let Some(client) = known.get(&key) {
            return Ok(client.clone());
        }
        let mut builder = Client::builder(endpoint).application(concat!("adx-mon-operator/", env!("CARGO_PKG_VERSION")));
        if endpoint.starts_with("https://") {
            let tokens = match identity {
                Some(id) => Credentials::new().managed_identity(Identity::user(id)),
                None => self.chain.lock().get_or_insert_with(|| Credentials::new().default_chain()).clone(),
            };
            builder = builder.credentials(tokens);
        }
        let client = builder.build().map_err(|error| error.to_string())?;
        if known.len() >= MOST_CLIENTS {
            known.clear();
        }
        known.insert(key, client.clone());
        Ok(client)
    }
}

impl Kusto for Clients {
    fn ask(&self, call: Call) -> BoxFuture<'_, Result<Table, String>> {
        async move {
            let client = self.client(&call.endpoint, call.identity.as_deref())?;
            let now = call.now.map(|now| ("query_now".to_owned(), now.to_string().into()));
            let options = QueryOptions { timeout: call.timeout, options: now.into_iter().collect(), ..QueryOptions::default() };
            let answered = match call.text.starts_with('.') {
                true => client.mgmt_with(&call.database, &call.text, &options).await,
                false => client
                    .query(&call.database, &call.text, &options)
                    .await
                    .map(|answer| answer.tables.into_iter().next().unwrap_or_default()),
            };
            answered.map_err(|error| error.to_string())
        }
        .boxed()
    }
}
