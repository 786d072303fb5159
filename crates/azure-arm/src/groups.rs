//! Resource providers of a subscription, and resource groups.

use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::client::{Arm, Request};
use crate::error::{Error, Kind};

const VERSION: &str = "2021-04-01";

/// Whether a subscription may use a provider.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub enum Registration {
    /// It may.
    Registered,
    /// It is being registered.
    Registering,
    /// It may not: in Azure's words.
    Not(String),
}

impl From<String> for Registration {
    fn from(state: String) -> Self {
        match state.to_ascii_lowercase().as_str() {
            "registered" => Self::Registered,
            "registering" => Self::Registering,
            _ => Self::Not(state),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Provider {
    registration_state: Registration,
}

impl Arm {
    /// Whether a subscription may use a provider, such as `Microsoft.Kusto`.
    ///
    /// # Errors
    /// See [`Kind`].
    pub async fn provider(&self, subscription: &str, namespace: &str) -> Result<Registration, Error> {
        let doing = format!("reading whether subscription {subscription} has provider {namespace}");
        let url = self.url(&doing, ["subscriptions", subscription, "providers", namespace], VERSION)?;
        Ok(self.get::<Provider>(doing, url).await?.registration_state)
    }

    /// Has a provider registered, which takes a while.
    ///
    /// # Errors
    /// See [`Kind`].
    pub async fn register_provider(&self, subscription: &str, namespace: &str) -> Result<Registration, Error> {
        let doing = format!("registering provider {namespace} in subscription {subscription}");
        let url = self.url(&doing, ["subscriptions", subscription, "providers", namespace, "register"], VERSION)?;
        Ok(self.post::<Provider>(doing, url, None).await?.registration_state)
    }

    /// Whether there is a resource group.
    ///
    /// # Errors
    /// See [`Kind`].
    pub async fn has_group(&self, subscription: &str, group: &str) -> Result<bool, Error> {
        let doing = format!("looking for resource group {group}");
        let url = self.url(&doing, ["subscriptions", subscription, "resourcegroups", group], VERSION)?;
        match self.send(Request { doing, method: Method::HEAD, url, condition: None, body: None }).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind == Kind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Makes a resource group.
    ///
    /// # Errors
    /// See [`Kind`].
    pub async fn put_group(&self, subscription: &str, group: &str, location: &str) -> Result<(), Error> {
        let doing = format!("making resource group {group}");
        let url = self.url(&doing, ["subscriptions", subscription, "resourcegroups", group], VERSION)?;
        let body: Value = json!({"location": location});
        self.send(Request { doing, method: Method::PUT, url, condition: None, body: Some(body) }).await.map(drop)
    }
}
