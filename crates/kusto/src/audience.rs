//! For whom a token must be issued so that a service takes it, and by which cloud's directory.
//!
//! The service says so itself at `/v1/rest/auth/metadata`, without credentials. It is not believed blindly: a service that
//! named Azure Resource Manager as its audience would get a token for that, so an audience must be one of Kusto's, or the
//! service's own address. A service that has no such route is known by its address.

use std::time::Duration;

use azure::Scope;
use reqwest::Url;
use serde::Deserialize;
use tokio::time::Instant;

use crate::client::read;
use crate::endpoint::Endpoint;
use crate::error::Error;

/// How long the service may take to describe itself, and how much it may say.
const PATIENCE: Duration = Duration::from_secs(10);
const MAX_BYTES: usize = 64 << 10;
/// After this long a service that did not describe itself is asked again.
const GUESS_HOLDS: Duration = Duration::from_secs(300);
/// What a service describes about itself does not change from day to day.
const ANSWER_HOLDS: Duration = Duration::from_secs(86_400);

/// Audience and directory of services in clouds other than the public one, by the end of their names.
const CLOUDS: [(&str, &str); 5] = [
    ("usgovcloudapi.net", "https://login.microsoftonline.us"),
    ("chinacloudapi.cn", "https://login.partner.microsoftonline.cn"),
    ("core.eaglex.ic.gov", "https://login.microsoftonline.eaglex.ic.gov"),
    ("core.microsoft.scloud", "https://login.microsoftonline.microsoft.scloud"),
    ("sovcloud-api.fr", "https://login.sovcloud-identity.fr"),
];
const PUBLIC_AUDIENCE: &str = "https://kusto.kusto.windows.net";

/// The audience of one service, asked for once.
#[derive(Default)]
pub(crate) struct Audience(tokio::sync::Mutex<Option<(Scope, Instant)>>);

#[derive(Deserialize)]
struct Metadata {
    #[serde(rename = "AzureAD")]
    directory: Directory,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Directory {
    login_endpoint: Option<String>,
    #[serde(default)]
    login_mfa_required: bool,
    kusto_service_resource_id: String,
}

impl Audience {
    /// What tokens for the service are for.
    pub(crate) async fn scope(&self, http: &reqwest::Client, endpoint: &Endpoint) -> Scope {
        let mut known = self.0.lock().await;
        let now = Instant::now();
        if let Some((scope, until)) = &*known
            && now < *until
        {
            return scope.clone();
        }
        let (scope, holds) = match ask(http, endpoint).await.and_then(|metadata| believed(&metadata, endpoint)) {
            Ok(scope) => (scope, ANSWER_HOLDS),
            Err(why) => {
                let scope = by_address(endpoint);
                tracing::debug!(%endpoint, why, audience = %scope, "the service does not say for whom tokens must be; its address does");
                (scope, GUESS_HOLDS)
            }
        };
        *known = Some((scope.clone(), now + holds));
        scope
    }
}

async fn ask(http: &reqwest::Client, endpoint: &Endpoint) -> Result<Metadata, String> {
    const DOING: &str = "asking for the audience of tokens";
    let request = http.get(endpoint.route(&["v1", "rest", "auth", "metadata"])).header("Accept", "application/json").timeout(PATIENCE);
    let response = request.send().await.map_err(|error| Error::from_transport(DOING, &error).message)?;
    if response.status() != 200 {
        return Err(format!("status {}", response.status().as_u16()));
    }
    let body = read(DOING, response, MAX_BYTES).await.map_err(|error| error.message)?;
    serde_json::from_slice(&body).map_err(|error| format!("the answer cannot be read: {error}"))
}

fn believed(metadata: &Metadata, endpoint: &Endpoint) -> Result<Scope, String> {
    let Directory { login_endpoint, login_mfa_required, kusto_service_resource_id: resource } = &metadata.directory;
    let host = Url::parse(resource).ok().filter(|url| url.scheme() == "https").and_then(|url| url.host_str().map(str::to_owned));
    let ours = |host: &str| is_kusto(host) || Some(host) == endpoint.host();
    if !host.as_deref().is_some_and(ours) {
        tracing::warn!(%endpoint, resource, "the service asks for tokens that are meant for another one; it gets none of these");
        return Err(format!("{resource:?} is no audience of Kusto"));
    }
    // What the SDKs do for clusters that want a second factor.
    let resource = if *login_mfa_required { resource.replacen(".kusto.", ".kustomfa.", 1) } else { resource.clone() };
    let scope = Scope::new(&resource);
    let Some(login) = login_endpoint else { return Ok(scope) };
    scope.clone().with_authority(login).or_else(|error| {
        tracing::warn!(%endpoint, %error, "the service names a directory that tokens are not asked of; the usual one is");
        Ok(scope)
    })
}

fn is_kusto(host: &str) -> bool {
    host.contains(".kusto.") || host.contains(".kustomfa.")
}

/// The audience of the cloud whose name the address ends in.
fn by_address(endpoint: &Endpoint) -> Scope {
    let host = endpoint.host().unwrap_or_default();
    let cloud =
        CLOUDS.iter().find(|(suffix, _)| host.ends_with(&format!(".kusto.{suffix}")) || host.ends_with(&format!(".kustomfa.{suffix}")));
    let public = || Scope::new(PUBLIC_AUDIENCE);
    cloud.map_or_else(public, |(suffix, login)| {
        let scope = Scope::new(&format!("https://kusto.kusto.{suffix}"));
        scope.clone().with_authority(login).unwrap_or(scope)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn endpoint(host: &str) -> Endpoint {
        Endpoint::parse(&format!("https://{host}")).unwrap()
    }

    fn of(resource: &str, login: &str, mfa: bool) -> Result<Scope, String> {
        let metadata = json!({"AzureAD": {
            "LoginEndpoint": login, "LoginMfaRequired": mfa, "KustoClientAppId": "db662dc1-0cfe-4e1c-a843-19a68e65be58",
            "KustoClientRedirectUri": "https://microsoft/kustoclient", "KustoServiceResourceId": resource,
            "FirstPartyAuthorityUrl": "https://login.microsoftonline.com/f8cdef31-a31e-4b4a-93e4-5f571e91255a",
        }});
        believed(&serde_json::from_value(metadata).unwrap(), &endpoint("own.example:8443"))
    }

    #[test]
    fn a_service_names_its_audience_and_directory() {
        let gov = Scope::new("https://kusto.kusto.usgovcloudapi.net").with_authority("https://login.microsoftonline.us").unwrap();
        assert_eq!(of("https://kusto.kusto.usgovcloudapi.net", "https://login.microsoftonline.us", false), Ok(gov));
        let mfa = Scope::new("https://kusto.kustomfa.windows.net").with_authority("https://login.microsoftonline.com").unwrap();
        assert_eq!(of("https://kusto.kusto.windows.net", "https://login.microsoftonline.com", true), Ok(mfa));
    }

    /// A service must not collect tokens for others, nor have secrets sent where it likes.
    #[test]
    fn a_service_that_asks_for_more_than_its_own_is_not_believed() {
        for resource in [
            "https://management.azure.com/",
            "https://vault.azure.net",
            "https://kusto.blob.core.windows.net",
            "http://kusto.kusto.windows.net",
            "kusto.kusto.windows.net",
            "",
        ] {
            assert!(of(resource, "https://login.microsoftonline.com", false).is_err(), "{resource}");
        }
        assert_eq!(of("https://own.example", "https://evil.example", false), Ok(Scope::new("https://own.example")));
    }

    /// Names as in the SDKs' list of well-known endpoints.
    #[test]
    fn addresses_tell_the_cloud() {
        for (host, audience, login) in [
            ("c.eastus.kusto.windows.net", "https://kusto.kusto.windows.net", None),
            ("c.region.kusto.usgovcloudapi.net", "https://kusto.kusto.usgovcloudapi.net", Some("https://login.microsoftonline.us")),
            ("c.r.kusto.chinacloudapi.cn", "https://kusto.kusto.chinacloudapi.cn", Some("https://login.partner.microsoftonline.cn")),
            ("c.r.kustomfa.chinacloudapi.cn", "https://kusto.kusto.chinacloudapi.cn", Some("https://login.partner.microsoftonline.cn")),
            ("chinacloudapi.cn", "https://kusto.kusto.windows.net", None),
            ("localhost", "https://kusto.kusto.windows.net", None),
        ] {
            let scope = Scope::new(audience);
            let scope = login.map_or(scope.clone(), |login| scope.with_authority(login).unwrap());
            assert_eq!(by_address(&endpoint(host)), scope, "{host}");
        }
        assert!(CLOUDS.iter().all(|(_, login)| Scope::new("r").with_authority(login).is_ok()));
    }
}
