//! Requests to `Microsoft.Kusto`.

use http::header::{IF_MATCH, IF_NONE_MATCH};
use http::{HeaderName, HeaderValue, Method};
use reqwest::Url;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::client::{Arm, Request};
use crate::error::{Error, Kind};
use crate::model::{Cluster, ClusterWrite, Database, DatabaseWrite, Principal, PrincipalAssignment};
use crate::operation::Operation;

const VERSION: &str = "2022-12-29";
const PROVIDER: &str = "Microsoft.Kusto";
/// Pages of a list that are read.
const MAX_PAGES: usize = 100;

/// Where a cluster is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClusterId {
    /// Subscription.
    pub subscription: String,
    /// Resource group.
    pub group: String,
    /// Name, which is taken in the whole region.
    pub name: String,
}

impl std::fmt::Display for ClusterId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cluster {} of resource group {}", self.name, self.group)
    }
}

/// Whether a name may be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameAnswer {
    /// It may.
    Available,
    /// Somebody has it.
    Taken,
    /// Nobody may: in Azure's words.
    Invalid(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CheckNameResult {
    name_available: bool,
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    reason: Option<String>,
}

impl From<CheckNameResult> for NameAnswer {
    /// The reason may be missing, as in the description's example, which is about a name that is taken.
    fn from(result: CheckNameResult) -> Self {
        match result.reason.as_deref() {
            _ if result.name_available => Self::Available,
            Some("Invalid") => Self::Invalid(result.message.unwrap_or_default()),
            _ => Self::Taken,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", bound = "T: DeserializeOwned")]
struct Page<T> {
    value: Vec<T>,
    #[serde(default)]
    next_link: Option<String>,
}

impl Arm {
    /// Whether a cluster may have a name in a region.
    ///
    /// # Errors
    /// See [`Kind`].
    pub async fn check_cluster_name(&self, subscription: &str, location: &str, name: &str) -> Result<NameAnswer, Error> {
        let doing = format!("asking whether the name {name} is free in {location}");
        let path = ["subscriptions", subscription, "providers", PROVIDER, "locations", location, "checkNameAvailability"];
        let url = self.url(&doing, path, VERSION)?;
        let body = json!({"name": name, "type": "Microsoft.Kusto/clusters"});
        Ok(self.post::<CheckNameResult>(doing, url, Some(body)).await?.into())
    }

    /// Whether a database may have a name in a cluster.
    ///
    /// # Errors
    /// See [`Kind`].
    pub async fn check_database_name(&self, id: &ClusterId, name: &str) -> Result<NameAnswer, Error> {
        let doing = format!("asking whether there is a database {name} in {id}");
        let url = self.cluster_url(&doing, id, &["checkNameAvailability"])?;
        let body = json!({"name": name, "type": "Microsoft.Kusto/clusters/databases"});
        Ok(self.post::<CheckNameResult>(doing, url, Some(body)).await?.into())
    }

    /// A cluster, if there is one.
    ///
    /// # Errors
    /// See [`Kind`]. [`Kind::NotFound`] where there is no such subscription.
    pub async fn cluster(&self, id: &ClusterId) -> Result<Option<Cluster>, Error> {
        let doing = format!("reading {id}");
        let url = self.cluster_url(&doing, id, &[])?;
        match self.get(doing, url).await {
            Ok(cluster) => Ok(Some(cluster)),
            Err(error) if error.kind == Kind::NotFound && !error.code.starts_with("Subscription") => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes a cluster where none is.
    ///
    /// # Errors
    /// See [`Kind`]. [`Kind::Changed`] if there is one.
    pub async fn create_cluster(&self, id: &ClusterId, cluster: &ClusterWrite) -> Result<Option<Operation>, Error> {
        let condition = (IF_NONE_MATCH, HeaderValue::from_static("*"));
        let doing = format!("making {id}");
        let url = self.cluster_url(&doing, id, &[])?;
        self.write(doing, Method::PUT, url, Some(condition), json!(cluster)).await
    }

    /// Makes a cluster again whose making failed.
    ///
    /// # Errors
    /// See [`Kind`]. [`Kind::Changed`] if it is not the one of the etag any more.
    pub async fn repeat_cluster(&self, id: &ClusterId, etag: &str, cluster: &ClusterWrite) -> Result<Option<Operation>, Error> {
        let doing = format!("making {id} again");
        let (url, condition) = (self.cluster_url(&doing, id, &[])?, if_match(&doing, etag)?);
        self.write(doing, Method::PUT, url, condition, json!(cluster)).await
    }

    /// Changes a cluster: what `change` names, and nothing else.
    ///
    /// # Errors
    /// See [`Kind`]. [`Kind::Changed`] if it is not the one of the etag any more.
    pub async fn update_cluster(&self, id: &ClusterId, etag: &str, change: &ClusterWrite) -> Result<Option<Operation>, Error> {
        let doing = format!("changing {id}");
        let (url, condition) = (self.cluster_url(&doing, id, &[])?, if_match(&doing, etag)?);
        self.write(doing, Method::PATCH, url, condition, json!(change)).await
    }

    /// Databases of a cluster.
    ///
    /// # Errors
    /// See [`Kind`].
    pub async fn databases(&self, id: &ClusterId) -> Result<Vec<Database>, Error> {
        let doing = format!("listing databases of {id}");
        let url = self.cluster_url(&doing, id, &["databases"])?;
        self.list(doing, url).await
    }

    /// Makes a database.
    ///
    /// # Errors
    /// See [`Kind`].
    pub async fn put_database(&self, id: &ClusterId, name: &str, database: &DatabaseWrite) -> Result<Option<Operation>, Error> {
        let doing = format!("making database {name} in {id}");
        let url = self.cluster_url(&doing, id, &["databases", name])?;
        self.write(doing, Method::PUT, url, None, body(database)).await
    }

    /// Changes how long a database keeps its data.
    ///
    /// # Errors
    /// See [`Kind`].
    pub async fn update_database(&self, id: &ClusterId, name: &str, database: &DatabaseWrite) -> Result<Option<Operation>, Error> {
        let doing = format!("changing database {name} in {id}");
        let url = self.cluster_url(&doing, id, &["databases", name])?;
        self.write(doing, Method::PATCH, url, None, body(database)).await
    }

    /// Principals with a role on a cluster, or on one of its databases.
    ///
    /// # Errors
    /// See [`Kind`].
    pub async fn principal_assignments(&self, id: &ClusterId, database: Option<&str>) -> Result<Vec<PrincipalAssignment>, Error> {
        let doing = format!("listing principal assignments of {}", at(id, database));
        let url = self.cluster_url(&doing, id, &assignments(database))?;
        self.list(doing, url).await
    }

    /// Gives a principal a role on a cluster, or on one of its databases.
    ///
    /// # Errors
    /// See [`Kind`].
    pub async fn assign_principal(
        &self,
        id: &ClusterId,
        database: Option<&str>,
        name: &str,
        principal: &Principal,
    ) -> Result<Option<Operation>, Error> {
        let doing = format!("giving {} the role {} on {}", principal.principal_id, principal.role, at(id, database));
        let mut path = assignments(database);
        path.push(name);
        let url = self.cluster_url(&doing, id, &path)?;
        self.write(doing, Method::PUT, url, None, json!({"properties": principal})).await
    }

    fn cluster_url(&self, doing: &str, id: &ClusterId, below: &[&str]) -> Result<Url, Error> {
        let cluster = ["subscriptions", &id.subscription, "resourceGroups", &id.group, "providers", PROVIDER, "clusters", &id.name];
        self.url(doing, cluster.into_iter().chain(below.iter().copied()), VERSION)
    }

    async fn write(
        &self,
        doing: String,
        method: Method,
        url: Url,
        condition: Option<(HeaderName, HeaderValue)>,
        body: Value,
    ) -> Result<Option<Operation>, Error> {
        let answer = self.send(Request { doing: doing.clone(), method, url, condition, body: Some(body) }).await?;
        Ok(self.operation(&doing, &answer))
    }

    async fn list<T: DeserializeOwned>(&self, doing: String, url: Url) -> Result<Vec<T>, Error> {
        let (mut items, mut next) = (Vec::new(), url);
        for _ in 0..MAX_PAGES {
            let page: Page<T> = self.get(doing.clone(), next).await?;
            items.extend(page.value);
            match page.next_link.filter(|link| !link.is_empty()) {
                None => return Ok(items),
                Some(link) => {
                    next = self.own(&link).ok_or_else(|| Error::new(&doing, Kind::Transient, "the list goes on at another host"))?;
                }
            }
        }
        Err(Error::new(&doing, Kind::Refused, format!("the list has more than {MAX_PAGES} pages")))
    }
}

fn at(id: &ClusterId, database: Option<&str>) -> String {
    database.map_or_else(|| id.to_string(), |database| format!("database {database} of {id}"))
}

fn assignments(database: Option<&str>) -> Vec<&str> {
    let database = database.map(|database| ["databases", database]);
    database.into_iter().flatten().chain(["principalAssignments"]).collect()
}

fn body(database: &DatabaseWrite) -> Value {
    json!({"kind": "ReadWrite", "location": database.location, "properties": {"softDeletePeriod": database.soft_delete_period}})
}

/// One without an etag is changed as it is.
fn if_match(doing: &str, etag: &str) -> Result<Option<(HeaderName, HeaderValue)>, Error> {
    if etag.is_empty() {
        return Ok(None);
    }
    let value = HeaderValue::from_str(etag).map_err(|_| Error::new(doing, Kind::Refused, "the etag of the cluster is no header"))?;
    Ok(Some((IF_MATCH, value)))
}
