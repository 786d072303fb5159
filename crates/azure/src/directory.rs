//! Tokens from the directory, Microsoft Entra ID, by the OAuth 2.0 client credentials flow: for a client secret, and for
//! the token of a Kubernetes service account that the directory trusts (workload identity).

use async_trait::async_trait;
use reqwest::Url;
use reqwest::header::CONTENT_TYPE;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use crate::chain::Credential;
use crate::credentials::Credentials;
use crate::error::{Error, Kind};
use crate::http;
use crate::token::{Scope, Token, claims};

const PUBLIC_CLOUD: &str = "https://login.microsoftonline.com/";
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET.
pub(crate) struct ClientSecret(pub(crate) Credentials);

#[async_trait]
impl Credential for ClientSecret {
    fn name(&self) -> &'static str {
        "client secret"
    }

    async fn fetch(&self, scope: &Scope) -> Result<Token, Error> {
        let names = ["AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET"];
        let [tenant, client, secret] = self.0.environment.all(names).map_err(|missing| {
            Error::unavailable(format!("{missing} not set; set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET to use one"))
        })?;
        let directory = Directory::new(&self.0, scope, &tenant)?;
        directory.token(scope, &client, &[("client_secret", &secret.into())]).await.map_err(|error| Error {
            message: format!("{error} (application {client} of tenant {tenant}; check AZURE_CLIENT_SECRET and that it has not expired)"),
            ..error
        })
    }
}

/// AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_FEDERATED_TOKEN_FILE, which the webhook of workload identity sets.
pub(crate) struct WorkloadIdentity(pub(crate) Credentials);

#[async_trait]
impl Credential for WorkloadIdentity {
    fn name(&self) -> &'static str {
        "workload identity"
    }

    async fn fetch(&self, scope: &Scope) -> Result<Token, Error> {
        let names = ["AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_FEDERATED_TOKEN_FILE"];
        let [tenant, client, path] = self.0.environment.all(names).map_err(|missing| {
            Error::unavailable(format!(
                "{missing} not set; label the pod azure.workload.identity/use=true and annotate its service account with azure.workload.identity/client-id"
            ))
        })?;
        // Kubernetes replaces the file once an hour, so it is read each time.
        let assertion = tokio::fs::read_to_string(&path).await.map_err(|error| {
            Error::transient(format!("reading AZURE_FEDERATED_TOKEN_FILE {path}: {error}; is the volume azure-identity-token mounted?"))
        })?;
        let subject = subject(assertion.trim());
        let directory = Directory::new(&self.0, scope, &tenant)?;
        directory.assert(scope, &client, assertion.trim().to_owned().into()).await.map_err(|error| Error {
            message: format!("{error} (application {client} of tenant {tenant}; it needs a federated credential for {subject})"),
            ..error
        })
    }
}

/// Whom the token of a service account is for, as a federated credential names it.
fn subject(assertion: &str) -> String {
    #[derive(Deserialize)]
    struct Claims {
        iss: String,
        sub: String,
    }
    match claims::<Claims>(assertion) {
        Some(Claims { iss, sub }) => format!("issuer {iss} and subject {sub}"),
        None => "the issuer of the cluster; the file holds no token of a service account".to_owned(),
    }
}

/// The token endpoint of a tenant.
pub(crate) struct Directory<'a> {
    settings: &'a Credentials,
    endpoint: Url,
}

impl Directory<'_> {
    /// The tenant's endpoint at AZURE_AUTHORITY_HOST, in the scope's cloud, or in the public cloud.
    pub(crate) fn new<'a>(settings: &'a Credentials, scope: &Scope, tenant: &str) -> Result<Directory<'a>, Error> {
        if !tenant.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.')) {
            return Err(Error::refused(format!("AZURE_TENANT_ID {tenant:?} is neither a tenant's id nor its domain")));
        }
        let host = settings.environment.get("AZURE_AUTHORITY_HOST");
        let authority = match (&host, scope.authority()) {
            (Some(host), _) => {
                Url::parse(host).map_err(|error| Error::refused(format!("AZURE_AUTHORITY_HOST {host:?} is no URL: {error}")))?
            }
            (None, Some(authority)) => authority.clone(),
            (None, None) => Url::parse(PUBLIC_CLOUD).map_err(|error| Error::refused(error.to_string()))?,
        };
        if authority.scheme() != "https" {
            return Err(Error::refused(format!("AZURE_AUTHORITY_HOST {authority} is not https: secrets are not sent there")));
        }
        let mut endpoint = authority;
        if let Ok(mut path) = endpoint.path_segments_mut() {
            path.clear().extend([tenant, "oauth2", "v2.0", "token"]);
        }
        Ok(Directory { settings, endpoint })
    }

    pub(crate) fn endpoint(&self) -> &Url {
        &self.endpoint
    }

    /// A token for a signed statement of who the client is.
    pub(crate) async fn assert(&self, scope: &Scope, client: &str, assertion: SecretString) -> Result<Token, Error> {
        let proof = [("client_assertion_type", &ASSERTION_TYPE.to_owned().into()), ("client_assertion", &assertion)];
        self.token(scope, client, &proof).await
    }

    async fn token(&self, scope: &Scope, client: &str, proof: &[(&str, &SecretString)]) -> Result<Token, Error> {
        let form = form(scope, client, proof);
        let http_client = self.settings.directory.get()?;
        let ask = || {
            let request = http_client.post(self.endpoint.clone());
            let request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded").header("Accept", "application/json");
            http::ask(request.body(form.expose_secret().to_owned()), &self.settings.now, http::directory_is_busy)
        };
        http::persist(self.settings.directory_pauses, ask).await.map_err(|failure| {
            // It is set up, so that it cannot be reached is no reason to become somebody else.
            let kind = if failure.error.kind == Kind::Unavailable { Kind::Transient } else { failure.error.kind };
            Error { kind, message: format!("asking {}: {}", self.endpoint, failure.error) }
        })
    }
}

fn form(scope: &Scope, client: &str, proof: &[(&str, &SecretString)]) -> SecretString {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("grant_type", "client_credentials").append_pair("client_id", client);
    form.append_pair("scope", &format!("{}/.default", scope.resource().trim_end_matches('/')));
    for (name, value) in proof {
        form.append_pair(name, value.expose_secret());
    }
    form.finish().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::Environment;

    #[test]
    fn the_directory_is_that_of_the_scopes_cloud() {
        let settings = Credentials::new().environment(Environment::of([]));
        let scope = Scope::new("r");
        for (scope, endpoint) in [
            (scope.clone(), "https://login.microsoftonline.com/t.example/oauth2/v2.0/token"),
            (
                scope.with_authority("https://login.microsoftonline.us").unwrap(),
                "https://login.microsoftonline.us/t.example/oauth2/v2.0/token",
            ),
        ] {
            assert_eq!(Directory::new(&settings, &scope, "t.example").unwrap().endpoint().as_str(), endpoint);
        }
    }
}
