//! How credentials are made: where they look, whom they ask, by which clock.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use backon::ExponentialBuilder;
use jiff::Timestamp;

use crate::cache::Cache;
use crate::certificate::ClientCertificate;
use crate::chain::{Chain, Credential};
use crate::cli::AzureCli;
use crate::directory::{ClientSecret, WorkloadIdentity};
use crate::error::Error;
use crate::managed::ManagedIdentity;
use crate::token::TokenSource;

/// Tells the time.
pub type Now = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Environment variables: the process's, or given ones. Empty ones do not count.
#[derive(Clone)]
pub struct Environment(Arc<Variables>);

type Variables = dyn Fn(&str) -> Option<String> + Send + Sync;

impl Environment {
    /// Those of this process.
    #[must_use]
    pub fn process() -> Environment {
        Environment(Arc::new(|name| std::env::var(name).ok()))
    }

    /// These and no others.
    #[must_use]
    pub fn of<const N: usize>(variables: [(&str, &str); N]) -> Environment {
        let variables: BTreeMap<String, String> = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        Environment(Arc::new(move |name| variables.get(name).cloned()))
    }

    pub(crate) fn get(&self, name: &str) -> Option<String> {
        (self.0)(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    /// The values of all these variables, or the names of those that are not set.
    pub(crate) fn all<const N: usize>(&self, names: [&str; N]) -> Result<[String; N], String> {
        let values = names.map(|name| self.get(name));
        if values.iter().all(Option::is_some) {
            return Ok(values.map(Option::unwrap_or_default));
        }
        let missing: Vec<&str> = names.iter().zip(&values).filter(|(_, value)| value.is_none()).map(|(name, _)| *name).collect();
        Err(missing.join(" and "))
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Environment")
    }
}

/// A managed identity of the machine, pod or app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// The one that the system assigned.
    System,
    /// A user-assigned one, by its client id.
    ClientId(String),
    /// A user-assigned one, by its Azure resource id.
    ResourceId(String),
}

impl Identity {
    /// A user-assigned identity: a resource id begins with `/subscriptions/`, anything else is a client id.
    #[must_use]
    pub fn user(id: &str) -> Identity {
        match id.trim() {
            id if id.to_ascii_lowercase().starts_with("/subscriptions/") => Identity::ResourceId(id.to_owned()),
            id => Identity::ClientId(id.to_owned()),
        }
    }
}

/// How a request for a token is repeated: pauses double and are lengthened at random.
#[derive(Clone, Copy, Debug)]
pub struct Pauses {
    /// The first pause.
    pub first: Duration,
    /// Repetitions.
    pub times: usize,
}

impl Pauses {
    pub(crate) fn exponential(self) -> ExponentialBuilder {
        ExponentialBuilder::new().with_min_delay(self.first).without_max_delay().with_max_times(self.times).with_jitter()
    }
}

/// Makes token sources.
#[derive(Clone)]
pub struct Credentials {
    pub(crate) environment: Environment,
    pub(crate) now: Now,
    pub(crate) directory: Client,
    pub(crate) directory_pauses: Pauses,
    pub(crate) machine: Client,
    pub(crate) machine_pauses: Pauses,
}

impl Credentials {
    /// The environment of the process, the system's clock, and pauses as Microsoft advises.
    #[must_use]
    pub fn new() -> Credentials {
        Credentials {
            environment: Environment::process(),
            now: Arc::new(Timestamp::now),
            directory: Client::new(directory),
            directory_pauses: Pauses { first: Duration::from_millis(500), times: 3 },
            machine: Client::new(machine),
            // An update of the metadata service takes up to 70 seconds; these are 2 + 4 + 8 + 16 + 32 + 64, or a little more.
            machine_pauses: Pauses { first: Duration::from_secs(2), times: 6 },
        }
    }

    /// Other environment variables.
    #[must_use]
    pub fn environment(self, environment: Environment) -> Credentials {
        Credentials { environment, ..self }
    }

    /// Another clock.
    #[must_use]
    pub fn now(self, now: Now) -> Credentials {
        Credentials { now, ..self }
    }

    /// Trusts these certificates of authorities, in PEM, and no others when it asks the directory.
    ///
    /// # Errors
    /// Where they cannot be read.
    pub fn authorities(self, pem: &[u8]) -> Result<Credentials, Error> {
        let wrong = |error: reqwest::Error| Error::refused(format!("certificates of authorities: {error}"));
        let authorities = reqwest::Certificate::from_pem_bundle(pem).map_err(wrong)?;
        Ok(Credentials { directory: Client::new(move || directory().tls_certs_only(authorities)), ..self })
    }

    /// Other pauses between repetitions, for directory and metadata service.
    #[must_use]
    pub fn pauses(self, pauses: Pauses) -> Credentials {
        Credentials { directory_pauses: pauses, machine_pauses: pauses, ..self }
    }

    /// Environment, workload identity, managed identity, Azure CLI: the first that is set up.
    #[must_use]
    pub fn default_chain(self) -> Arc<dyn TokenSource> {
        let identity = self.environment.get("AZURE_CLIENT_ID").map_or(Identity::System, Identity::ClientId);
        let links: Vec<Box<dyn Credential>> = vec![
            Box::new(ClientSecret(self.clone())),
            Box::new(ClientCertificate(self.clone())),
            Box::new(WorkloadIdentity(self.clone())),
            Box::new(ManagedIdentity { settings: self.clone(), identity, alone: false }),
            Box::new(AzureCli(self.clone())),
        ];
        Arc::new(Cache::new(Arc::new(Chain::new(links)), self.now))
    }

    /// One managed identity and nothing else.
    #[must_use]
    pub fn managed_identity(self, identity: Identity) -> Arc<dyn TokenSource> {
        let now = self.now.clone();
        Arc::new(Cache::new(Arc::new(ManagedIdentity { settings: self, identity, alone: true }), now))
    }
}

/// A redirect could carry a secret to another host. Connections are not kept: a token is asked for once in half an hour.
fn bare() -> reqwest::ClientBuilder {
    reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).pool_max_idle_per_host(0)
}

fn directory() -> reqwest::ClientBuilder {
    bare().connect_timeout(Duration::from_secs(10)).timeout(Duration::from_secs(30))
}

/// The metadata service is on this machine or nowhere, and never behind a proxy.
fn machine() -> reqwest::ClientBuilder {
    bare().no_proxy().connect_timeout(Duration::from_secs(1)).timeout(Duration::from_secs(20))
}

/// An HTTP client that is made when it is needed: who talks to no https endpoint needs no certificates of authorities.
#[derive(Clone)]
pub(crate) struct Client(Arc<LazyLock<Made, Box<dyn FnOnce() -> Made + Send>>>);

type Made = Result<reqwest::Client, Error>;

impl Client {
    fn new(builder: impl FnOnce() -> reqwest::ClientBuilder + Send + 'static) -> Client {
        let make = move || {
            // Another default provider may be installed already; then that one serves.
            let _ = rustls::crypto::ring::default_provider().install_default();
            builder().build().map_err(|error| Error::refused(format!("preparing requests for tokens: {error}")))
        };
        Client(Arc::new(LazyLock::new(Box::new(make))))
    }

    pub(crate) fn get(&self) -> Made {
        (**self.0).clone()
    }
}

impl Default for Credentials {
    fn default() -> Credentials {
        Credentials::new()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use backon::BackoffBuilder as _;

    #[test]
    fn empty_variables_are_not_set_and_missing_ones_are_named() {
        let environment = Environment::of([("A", "1"), ("B", " "), ("D", "2 ")]);
        assert_eq!(environment.all(["A", "D"]), Ok(["1".to_owned(), "2".to_owned()]));
        assert_eq!(environment.all(["A", "B", "C"]), Err("B and C".to_owned()));
    }

    #[test]
    fn an_id_of_an_identity_is_a_client_id_or_a_resource_id() {
        assert_eq!(Identity::user(" 7d9e "), Identity::ClientId("7d9e".to_owned()));
        assert!(matches!(Identity::user("/subscriptions/s/resourcegroups/g"), Identity::ResourceId(_)));
    }

    /// Microsoft: after a 410 the metadata service is there within 70 seconds.
    #[test]
    fn an_update_of_the_metadata_service_is_waited_out() {
        let pauses: Vec<Duration> = Credentials::new().machine_pauses.exponential().build().collect();
        assert!(pauses.iter().sum::<Duration>() >= Duration::from_secs(70), "{pauses:?}");
        assert!(pauses[0] >= Duration::from_secs(1));
    }
}
