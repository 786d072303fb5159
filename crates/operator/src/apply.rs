//! Bringing objects of a cluster to what has been rendered: server-side apply, and what it cannot do.
//!
//! An object is read first. If it has all that was rendered, nothing is written, so that looking again costs reads only. What
//! belongs to another resource is left alone. Fields that cannot be changed (selectors, volume claims, the role of a binding)
//! make a new object of the same name.

use std::fmt;
use std::time::Duration;

use kube_client::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, Preconditions, PropagationPolicy};
use kube_client::core::{ApiResource, Status};
use kube_client::{Client, Error};
use serde_json::Value;
use thiserror::Error as ThisError;
use xxhash_rust::xxh3::xxh3_64;

use crate::object::{Object, Reference};
use crate::render::{OWNER_KIND, OWNER_NAME, OWNER_NAMESPACE, Owner};

/// Who the operator is to the API server.
pub const FIELD_MANAGER: &str = "adx-mon-operator";
/// Annotation with a digest of what was rendered: a field that is rendered no more is found by it.
const RENDERED: &str = "adx-mon.azure.com/rendered";
/// Longest time that the API server may take for a request.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// Why an object could not be brought to what it shall be.
#[derive(Debug, ThisError)]
pub enum ApplyError {
    /// The API server refused, or did not answer.
    #[error("{doing}: {}", kube_watch::describe(.error))]
    Api {
        /// What was being done, to which object.
        doing: String,
        /// The answer.
        error: Error,
    },
    /// No answer in time.
    #[error("{doing}: the API server did not answer within {} s", DEADLINE.as_secs())]
    Late {
        /// What was being done, to which object.
        doing: String,
    },
    /// It is on its way out.
    #[error("{object} is being deleted; it is made again once it is gone")]
    Going {
        /// The object.
        object: String,
    },
    /// Another resource's.
    #[error("{object} belongs to {owner}: give one of the two resources another name")]
    Taken {
        /// The object.
        object: String,
        /// Whose it is.
        owner: String,
    },
}

/// What became of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// It was as it shall be.
    None,
    /// It was not there.
    Created,
    /// It was different.
    Updated,
    /// It could not be changed to what it shall be.
    Recreated,
    /// It shall not be.
    Deleted,
}

impl Change {
    /// A word for events and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Change::None => "Unchanged",
            Change::Created => "Created",
            Change::Updated => "Updated",
            Change::Recreated => "Recreated",
            Change::Deleted => "Deleted",
        }
    }
}

/// A cluster that objects are applied to.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    /// Minor version of the API server.
    minor: u32,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("minor", &self.minor).finish_non_exhaustive()
    }
}

impl Cluster {
    /// Asks the API server for its version.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn new(client: Client) -> Result<Self, ApplyError> {
        let version = in_time("asking the API server for its version", client.apiserver_version()).await?;
        let digits: String = version.minor.chars().take_while(char::is_ascii_digit).collect();
        Ok(Self { client, minor: digits.parse().unwrap_or(u32::MAX) })
    }

    /// Its client.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The kind as this server has it: PodDisruptionBudgets came late to v1.
    pub fn resource(&self, reference: &Reference) -> ApiResource {
        let mut resource = reference.kind.resource.clone();
        if self.minor < 21 && resource.kind == "PodDisruptionBudget" {
            resource.version = "v1beta1".to_owned();
            resource.api_version = "policy/v1beta1".to_owned();
        }
        resource
    }

    fn api(&self, reference: &Reference) -> (Api<DynamicObject>, ApiResource) {
        let resource = self.resource(reference);
        let api = match &reference.namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        };
        (api, resource)
    }

    /// The object as it is.
    ///
    /// # Errors
    /// The API server refuses or does not answer.
    pub async fn get(&self, reference: &Reference) -> Result<Option<DynamicObject>, ApplyError> {
        in_time(&format!("reading {reference}"), self.api(reference).0.get_opt(&reference.name)).await
    }

    /// Brings an object to what it shall be; what it is then, and what was done.
    ///
    /// # Errors
    /// It is another resource's, or the API server refuses or does not answer.
    pub async fn apply(&self, object: &Object, owner: &Owner) -> Result<(DynamicObject, Change), ApplyError> {
        let reference = &object.reference;
        let wanted = self.wanted(object);
        let Some(live) = self.get(reference).await? else {
            return Ok((self.patch(reference, &wanted, false).await?, Change::Created));
        };
        check_owner(&live, reference, owner)?;
        if live.metadata.deletion_timestamp.is_some() {
            return Err(ApplyError::Going { object: reference.to_string() });
        }
        let before = as_value(&live);
        if contains(&before, &wanted) {
            return Ok((live, Change::None));
        }
        if wanted["roleRef"] != before["roleRef"] {
            return self.recreate(reference, &wanted, &live).await;
        }
        match self.patch(reference, &wanted, false).await {
            Ok(after) if after.metadata.resource_version == live.metadata.resource_version => Ok((after, Change::None)),
            Ok(after) => Ok((after, Change::Updated)),
            Err(error) if cannot_be_changed(&error) => self.recreate(reference, &wanted, &live).await,
            Err(error) => Err(error),
        }
    }

    /// What the object would be after [`Self::apply`]; nothing is written.
    ///
    /// # Errors
    /// As of applying.
    pub async fn dry_run(&self, object: &Object) -> Result<DynamicObject, ApplyError> {
        self.patch(&object.reference, &self.wanted(object), true).await
    }

    /// What is sent: the object for this server, with the digest.
    pub fn wanted(&self, object: &Object) -> Value {
        let mut wanted = object.body.clone();
        wanted["apiVersion"] = self.resource(&object.reference).api_version.into();
        wanted["metadata"]["annotations"][RENDERED] = format!("{:016x}", xxh3_64(object.body.to_string().as_bytes())).into();
        wanted
    }

    async fn patch(&self, reference: &Reference, wanted: &Value, dry_run: bool) -> Result<DynamicObject, ApplyError> {
        let params = PatchParams { dry_run, ..PatchParams::apply(FIELD_MANAGER).force() };
        let (api, _) = self.api(reference);
        in_time(&format!("applying {reference}"), api.patch(&reference.name, &params, &Patch::Apply(wanted))).await
    }

    async fn recreate(&self, reference: &Reference, wanted: &Value, live: &DynamicObject) -> Result<(DynamicObject, Change), ApplyError> {
        // Pods of a StatefulSet with the same selector go over to the new one, and are replaced one by one.
        let selector = "/spec/selector";
        let keeps_pods = reference.kind.resource.kind == "StatefulSet" && as_value(live).pointer(selector) == wanted.pointer(selector);
        let policy = if keeps_pods { PropagationPolicy::Orphan } else { PropagationPolicy::Background };
        self.delete(reference, live, policy).await?;
        // The garbage collector takes a moment to let go of pods. What is gone later is seen by the watches.
        let gone = async {
            while self.get(reference).await?.is_some_and(|still| still.metadata.uid == live.metadata.uid) {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            Ok::<(), ApplyError>(())
        };
        match tokio::time::timeout(DEADLINE, gone).await {
            Ok(gone) => gone?,
            Err(_) => return Err(ApplyError::Going { object: reference.to_string() }),
        }
        Ok((self.patch(reference, wanted, false).await?, Change::Recreated))
    }

    /// Takes an object away, if there is one and it is the resource's.
    ///
    /// # Errors
    /// The API server refuses or does not answer.
    pub async fn remove(&self, reference: &Reference, owner: &Owner) -> Result<Change, ApplyError> {
        let Some(live) = self.get(reference).await? else { return Ok(Change::None) };
        let ours = live.metadata.labels.as_ref().is_some_and(|labels| labels.get(OWNER_NAME).is_some());
        if live.metadata.deletion_timestamp.is_some() || !ours || check_owner(&live, reference, owner).is_err() {
            return Ok(Change::None);
        }
        self.delete(reference, &live, PropagationPolicy::Background).await?;
        Ok(Change::Deleted)
    }

    async fn delete(&self, reference: &Reference, live: &DynamicObject, policy: PropagationPolicy) -> Result<(), ApplyError> {
        let preconditions = Preconditions { uid: live.metadata.uid.clone(), resource_version: None };
        let params = DeleteParams { propagation_policy: Some(policy), preconditions: Some(preconditions), ..DeleteParams::default() };
        let deleted = in_time(&format!("deleting {reference}"), self.api(reference).0.delete(&reference.name, &params)).await;
        match deleted {
            Err(ApplyError::Api { error: Error::Api(status), .. }) if status.code == 404 => Ok(()),
            deleted => deleted.map(drop),
        }
    }
}

/// Runs a request, no longer than [`DEADLINE`].
///
/// # Errors
/// The API server refuses or does not answer.
pub async fn in_time<T>(doing: &str, request: impl Future<Output = Result<T, Error>>) -> Result<T, ApplyError> {
    match tokio::time::timeout(DEADLINE, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(ApplyError::Api { doing: doing.to_owned(), error }),
        Err(_) => Err(ApplyError::Late { doing: doing.to_owned() }),
    }
}

pub(crate) fn as_value(object: &DynamicObject) -> Value {
    serde_json::to_value(object).unwrap_or_default()
}

/// Whether the server says that a field cannot be changed.
fn cannot_be_changed(error: &ApplyError) -> bool {
    let immutable = |status: &Status| {
        status.code == 422
            && ["immutable", "cannot change roleRef", "updates to statefulset spec"].iter().any(|words| status.message.contains(words))
    };
    matches!(error, ApplyError::Api { error: Error::Api(status), .. } if immutable(status))
}

fn check_owner(live: &DynamicObject, reference: &Reference, owner: &Owner) -> Result<(), ApplyError> {
    let taken = |owner: String| Err(ApplyError::Taken { object: reference.to_string(), owner });
    let controller = live.metadata.owner_references.iter().flatten().find(|reference| reference.controller == Some(true));
    if let Some(other) = controller.filter(|controller| controller.uid != owner.uid) {
        // One of the same name that is gone: the garbage collector is on its way, or this is a restored backup.
        if (&other.kind, &other.name) != (&owner.kind, &owner.name) {
            return taken(format!("{} {}", other.kind, other.name));
        }
    }
    let label = |name: &str| live.metadata.labels.as_ref().and_then(|labels| labels.get(name)).map(String::as_str);
    if let (Some(kind), Some(namespace), Some(name)) = (label(OWNER_KIND), label(OWNER_NAMESPACE), label(OWNER_NAME))
        && (kind, namespace, name) != (&owner.kind, &owner.namespace, &owner.name)
    {
        return taken(format!("{kind} {namespace}/{name}"));
    }
    Ok(())
}

/// Whether `live` has all of `wanted`. Lists must be equal in length, so that what others add makes for a request, which
/// changes nothing then.
pub fn contains(live: &Value, wanted: &Value) -> bool {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => {
            wanted.iter().all(|(name, value)| live.get(name).is_some_and(|live| contains(live, value)))
        }
        (Value::Array(live), Value::Array(wanted)) => {
            live.len() == wanted.len() && live.iter().zip(wanted).all(|(live, wanted)| contains(live, wanted))
        }
        _ => live == wanted,
    }
}
