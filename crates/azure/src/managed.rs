//! Managed identities: tokens from the metadata service of an Azure machine or cluster node (IMDS), or from App Service,
//! Functions and Container Apps, which give its address in the environment.

use async_trait::async_trait;
use reqwest::header::HeaderValue;
use reqwest::{RequestBuilder, Url};

use crate::chain::Credential;
use crate::credentials::{Credentials, Identity};
use crate::error::{Error, Kind};
use crate::http::{self, Failure};
use crate::token::{Scope, Token};

const METADATA_SERVICE: &str = "http://169.254.169.254";
const METADATA_VERSION: &str = "2018-02-01";
const APP_SERVICE_VERSION: &str = "2019-08-01";

pub(crate) struct ManagedIdentity {
    pub(crate) settings: Credentials,
    pub(crate) identity: Identity,
    /// Whether it was asked for by name: then a service that is away is a failure, and not a reason to look elsewhere.
    pub(crate) alone: bool,
}

#[async_trait]
impl Credential for ManagedIdentity {
    fn name(&self) -> &'static str {
        "managed identity"
    }

    async fn fetch(&self, scope: &Scope) -> Result<Token, Error> {
        let service = Service::find(&self.settings)?;
        let client = self.settings.machine.get()?;
        let ask = || http::ask(service.request(&client, &self.identity, scope), &self.settings.now, http::machine_is_busy);
        http::persist(self.settings.machine_pauses, ask).await.map_err(|failure| self.explain(&service, failure))
    }
}

impl ManagedIdentity {
    fn explain(&self, service: &Service, failure: Failure) -> Error {
        let asking = format!("asking {}: {}", service.url, failure.error);
        match (failure.status, failure.error.kind) {
            // No machine of Azure, or none that has this identity.
            (None, Kind::Unavailable) if self.alone => {
                Error::transient(format!("{asking}; managed identities exist on machines of Azure only"))
            }
            (None, Kind::Unavailable) => Error::unavailable(format!("{asking}; this is no machine of Azure")),
            (Some(400), _) => {
                let what = match &self.identity {
                    Identity::System => {
                        "no identity is assigned to this machine by the system; assign one, or name one with AZURE_CLIENT_ID".to_owned()
                    }
                    Identity::ClientId(id) => format!("assign the identity with client id {id} to this machine or to the node pool"),
                    Identity::ResourceId(id) => format!("assign the identity {id} to this machine or to the node pool"),
                };
                let kind = if self.alone || self.identity != Identity::System { Kind::Refused } else { Kind::Unavailable };
                Error { kind, message: format!("{asking}; {what}") }
            }
            (_, kind) => Error { kind, message: asking },
        }
    }
}

/// Where the machine gives tokens.
struct Service {
    url: Url,
    version: &'static str,
    /// The name of the parameter that holds a resource id.
    resource_id: &'static str,
    /// What proves that this is a process of the app.
    secret: Option<HeaderValue>,
}

impl Service {
    fn find(settings: &Credentials) -> Result<Service, Error> {
        let get = |name| settings.environment.get(name);
        match (get("IDENTITY_ENDPOINT"), get("IDENTITY_HEADER")) {
            (Some(_), Some(_)) if get("IDENTITY_SERVER_THUMBPRINT").is_some() => {
                Err(Error::unavailable("managed identities of Service Fabric are not supported; use a client secret or certificate"))
            }
            (Some(endpoint), Some(secret)) => Service::app(&endpoint, &secret),
            (Some(_), None) if get("IMDS_ENDPOINT").is_some() => {
                Err(Error::unavailable("managed identities of Azure Arc are not supported; use a client secret or certificate"))
            }
            _ => Service::machine(get("AZURE_POD_IDENTITY_AUTHORITY_HOST")),
        }
    }

    fn app(endpoint: &str, secret: &str) -> Result<Service, Error> {
        let url = Url::parse(endpoint).map_err(|error| Error::refused(format!("IDENTITY_ENDPOINT {endpoint:?} is no URL: {error}")))?;
        let mut secret = HeaderValue::from_str(secret).map_err(|_| Error::refused("IDENTITY_HEADER is no value of an HTTP header"))?;
        secret.set_sensitive(true);
        Ok(Service { url, version: APP_SERVICE_VERSION, resource_id: "mi_res_id", secret: Some(secret) })
    }

    /// The metadata service, or what stands in for it: on this machine too, since tokens come from there in the clear.
    fn machine(stand_in: Option<String>) -> Result<Service, Error> {
        let address = stand_in.unwrap_or_else(|| METADATA_SERVICE.to_owned());
        let url = Url::parse(&address).ok().filter(|url| url.scheme() == "https" || (url.scheme() == "http" && is_local(url)));
        let Some(mut url) = url else {
            return Err(Error::refused(format!("AZURE_POD_IDENTITY_AUTHORITY_HOST {address:?} is neither https nor on this machine")));
        };
        url.set_path("/metadata/identity/oauth2/token");
        Ok(Service { url, version: METADATA_VERSION, resource_id: "msi_res_id", secret: None })
    }

    fn request(&self, client: &reqwest::Client, identity: &Identity, scope: &Scope) -> RequestBuilder {
        let mut url = self.url.clone();
        {
            let mut query = url.query_pairs_mut();
            query.append_pair("api-version", self.version).append_pair("resource", scope.resource());
            match identity {
                Identity::System => {}
                Identity::ClientId(id) => drop(query.append_pair("client_id", id)),
                Identity::ResourceId(id) => drop(query.append_pair(self.resource_id, id)),
            }
        }
        let request = client.get(url);
        match &self.secret {
            Some(secret) => request.header("X-IDENTITY-HEADER", secret.clone()),
            None => request.header("Metadata", "true"),
        }
    }
}

/// An address that does not leave the machine: loopback or link-local.
fn is_local(url: &Url) -> bool {
    match url.host_str() {
        Some("localhost" | "[::1]") => true,
        Some(host) => host.parse::<std::net::Ipv4Addr>().is_ok_and(|ip| ip.is_loopback() || ip.is_link_local()),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_in_the_clear_come_from_this_machine_only() {
        for address in ["http://127.0.0.1:1", "http://169.254.169.254", "http://localhost:1/", "https://metadata.example"] {
            assert!(Service::machine(Some(address.to_owned())).is_ok(), "{address}");
        }
        for address in ["http://metadata.example", "http://10.0.0.1", "ftp://127.0.0.1", "127.0.0.1"] {
            assert!(Service::machine(Some(address.to_owned())).is_err(), "{address}");
        }
        assert_eq!(Service::machine(None).unwrap().url.as_str(), "http://169.254.169.254/metadata/identity/oauth2/token");
    }
}
