//! Resources of `Microsoft.Kusto`, as far as they are read and written. Names and words are of the public description.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

/// `provisioningState`: how the last change of a resource ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "Option<String>")]
pub enum State {
    /// It was carried out. So is one that says nothing.
    #[default]
    Succeeded,
    /// It was not.
    Failed,
    /// It is under way: in Azure's words.
    Pending(String),
}

impl From<Option<String>> for State {
    fn from(state: Option<String>) -> Self {
        let state = state.unwrap_or_default();
        match state.to_ascii_lowercase().as_str() {
            "succeeded" | "" => Self::Succeeded,
            "failed" | "canceled" => Self::Failed,
            _ => Self::Pending(state),
        }
    }
}

/// A Kusto cluster.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Cluster {
    /// Changes with each change.
    #[serde(deserialize_with = "or_default")]
    pub etag: String,
    /// Region.
    #[serde(deserialize_with = "or_default")]
    pub location: String,
    /// Tags.
    #[serde(deserialize_with = "or_default")]
    pub tags: BTreeMap<String, String>,
    /// Machines.
    #[serde(deserialize_with = "or_default")]
    pub sku: Sku,
    /// Managed identities.
    #[serde(deserialize_with = "or_default")]
    pub identity: Identity,
    /// The rest.
    #[serde(deserialize_with = "or_default")]
    pub properties: ClusterProperties,
}

/// Machines of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sku {
    /// Their size, such as `Standard_L8as_v3`.
    pub name: String,
    /// `Standard` or `Basic`.
    pub tier: String,
    /// How many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capacity: Option<i64>,
}

/// Managed identities of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Identity {
    /// `None`, `SystemAssigned`, `UserAssigned` or `SystemAssigned, UserAssigned`.
    #[serde(rename = "type", deserialize_with = "or_default")]
    pub kind: String,
    /// By resource id; what is known of each is of no use here.
    #[serde(deserialize_with = "or_default")]
    pub user_assigned_identities: BTreeMap<String, serde::de::IgnoredAny>,
}

/// Properties of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterProperties {
    /// `Creating`, `Running`, `Updating`, `Stopped` and others.
    #[serde(deserialize_with = "or_default")]
    pub state: String,
    /// Why it is in this state.
    #[serde(deserialize_with = "or_default")]
    pub state_reason: String,
    /// How the last change ended.
    pub provisioning_state: State,
    /// Its URL, once it has one.
    #[serde(deserialize_with = "or_default")]
    pub uri: String,
    /// Whether the number of machines follows the load.
    pub optimized_autoscale: Option<Autoscale>,
}

/// `OptimizedAutoscale`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Autoscale {
    /// Version of the template.
    pub version: i64,
    /// Whether it is on.
    pub is_enabled: bool,
    /// Fewest machines.
    pub minimum: i64,
    /// Most machines.
    pub maximum: i64,
}

/// A cluster to be made, or what is to be changed of one: what is absent stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterWrite {
    /// Region; needed for one that is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    /// Tags.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// Machines; needed for one that is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sku: Option<Sku>,
    /// Managed identities.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<IdentityWrite>,
    /// The rest.
    #[serde(skip_serializing_if = "PropertiesWrite::is_empty")]
    pub properties: PropertiesWrite,
}

/// Managed identities to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct IdentityWrite {
    /// As [`Identity::kind`].
    #[serde(rename = "type")]
    pub kind: String,
    /// By resource id. In a change, `None` takes one away (RFC 7396) and those that are not named stay.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub user_assigned_identities: BTreeMap<String, Option<Empty>>,
}

/// `{}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Empty {}

/// Properties to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PropertiesWrite {
    /// Whether Azure may stop a cluster that nobody uses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enable_auto_stop: Option<bool>,
    /// `V3`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine_type: Option<String>,
    /// Whether the number of machines follows the load.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub optimized_autoscale: Option<Autoscale>,
}

impl PropertiesWrite {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A database of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Database {
    /// `cluster/database`.
    name: String,
    /// `ReadWrite`, or `ReadOnlyFollowing` for one that is another cluster's.
    #[serde(deserialize_with = "or_default")]
    pub kind: String,
    /// The rest.
    #[serde(deserialize_with = "or_default")]
    pub properties: DatabaseProperties,
}

impl Database {
    /// Its name, without that of the cluster.
    #[must_use]
    pub fn name(&self) -> &str {
        last(&self.name)
    }
}

/// Properties of a database.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DatabaseProperties {
    /// How the last change ended.
    pub provisioning_state: State,
    /// How long data is kept, as an ISO 8601 duration; absent: for ever.
    pub soft_delete_period: Option<String>,
}

/// A database to be made, or to be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseWrite {
    /// Region of the cluster.
    pub location: String,
    /// How long data is kept, as an ISO 8601 duration.
    pub soft_delete_period: String,
}

/// A principal with a role, on a cluster or on one of its databases.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct PrincipalAssignment {
    /// `cluster/assignment` or `cluster/database/assignment`.
    name: String,
    /// The rest.
    #[serde(deserialize_with = "or_default")]
    pub properties: Principal,
}

impl PrincipalAssignment {
    /// Its name, without those of cluster and database.
    #[must_use]
    pub fn name(&self) -> &str {
        last(&self.name)
    }
}

/// Who has which role.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Principal {
    /// Application id, object id, e-mail address or name of a group.
    pub principal_id: String,
    /// `App`, `Group` or `User`.
    pub principal_type: String,
    /// Of a cluster `AllDatabasesAdmin`, `AllDatabasesViewer`; of a database `Admin`, `Ingestor`, `Monitor`, `User`,
    /// `UnrestrictedViewer`, `Viewer`.
    pub role: String,
    /// Tenant; absent: that of the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant_id: Option<String>,
    /// Object id, as Azure found it.
    #[serde(skip_serializing)]
    pub aad_object_id: Option<String>,
    /// How the last change ended.
    #[serde(skip_serializing)]
    pub provisioning_state: State,
}

fn last(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

/// Azure writes `null` where nothing is.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers of the public description, shortened.
    #[test]
    fn answers_of_the_description_are_read() {
        let cluster: Cluster = serde_json::from_str(
            r#"{"id":"/subscriptions/s/resourceGroups/g/providers/Microsoft.Kusto/Clusters/kustoCluster","name":"kustoCluster","location":"westus",
            "properties":{"provisioningState":"Succeeded","state":"Running","uri":"https://kustoCluster.westus.kusto.windows.net","engineType":"V3",
            "optimizedAutoscale":{"version":1,"isEnabled":true,"minimum":2,"maximum":5}},"tags":null,
            "sku":{"name":"Standard_L16as_v3","capacity":2,"tier":"Standard"},
            "identity":{"type":"SystemAssigned, UserAssigned","tenantId":"t","principalId":"p","userAssignedIdentities":{"/id":{"clientId":"c"}}},"etag":"abcd"}"#,
        )
        .unwrap();
        assert_eq!((cluster.etag.as_str(), cluster.sku.capacity), ("abcd", Some(2)));
        assert_eq!(cluster.properties.provisioning_state, State::Succeeded);
        assert!(cluster.properties.optimized_autoscale.unwrap().is_enabled);
        assert!(cluster.identity.user_assigned_identities.contains_key("/id"));
        let database: Database =
            serde_json::from_str(r#"{"name":"kustoCluster/KustoDatabase8","kind":"ReadWrite","properties":{"softDeletePeriod":"P1D"}}"#)
                .unwrap();
        assert_eq!((database.name(), database.properties.soft_delete_period.as_deref()), ("KustoDatabase8", Some("P1D")));
        let none: Cluster = serde_json::from_str(r#"{"identity":null,"properties":null,"etag":null}"#).unwrap();
        assert_eq!(none, Cluster::default());
    }

    #[test]
    fn a_change_says_only_what_changes() {
        let write = ClusterWrite {
            identity: Some(IdentityWrite {
                kind: "UserAssigned".to_owned(),
                user_assigned_identities: [("/a".to_owned(), Some(Empty {})), ("/b".to_owned(), None)].into(),
            }),
            ..ClusterWrite::default()
        };
        let text = serde_json::to_string(&write).unwrap();
        assert_eq!(text, r#"{"identity":{"type":"UserAssigned","userAssignedIdentities":{"/a":{},"/b":null}}}"#);
    }
}
