//! Where rules live. A [`Store`] keeps the present objects of one kind and takes changes of their status.
//!
//! - [`files`]: YAML files; no cluster needed.
//! - [`kubernetes`]: an API server.
//! - [`memory`] is for tests.
//!
//! As on an API server, a status is written apart from metadata and spec, and a write that changes nothing is none.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use kube::ResourceExt as _;
use kube::core::NamespaceResourceScope;
use parking_lot::RwLock;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

mod documents;
pub mod files;
pub mod kubernetes;
pub mod memory;

/// Anything that a store can hold: a namespaced custom resource.
pub trait Object:
    kube::Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Serialize + DeserializeOwned + fmt::Debug + Send + Sync + 'static
{
}

impl<K> Object for K where
    K: kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Serialize
        + DeserializeOwned
        + fmt::Debug
        + Send
        + Sync
        + 'static
{
}

/// The name of an object within its kind. Shown as `namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The namespace; `default` where an object names none.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl Key {
    /// A key of these parts.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// The key of an object.
    pub fn of<K: kube::Resource>(object: &K) -> Self {
        Self::new(object.namespace().unwrap_or_else(|| "default".to_owned()), object.name_any())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.namespace, self.name)
    }
}

/// Objects by their keys.
pub type ObjectMap<K> = BTreeMap<Key, Arc<K>>;

/// The present objects of one kind, kept up to date by a store. Cheap to clone.
#[derive(Debug)]
pub struct Objects<K> {
    map: Arc<RwLock<Arc<ObjectMap<K>>>>,
    version: watch::Receiver<u64>,
}

impl<K> Clone for Objects<K> {
    fn clone(&self) -> Self {
        Self { map: self.map.clone(), version: self.version.clone() }
    }
}

impl<K> Objects<K> {
    /// The objects as they are now. Empty before the first list has come, see [`Self::ready`].
    pub fn snapshot(&self) -> Arc<ObjectMap<K>> {
        self.map.read().clone()
    }

    /// One object.
    pub fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.map.read().get(key).cloned()
    }

    /// Returns when objects have changed since this handle last waited, or since it was made. Never returns once the store
    /// is gone.
    pub async fn changed(&mut self) {
        if self.version.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Returns when the store has listed its objects for the first time. Never returns if the store goes away before.
    pub async fn ready(&mut self) {
        if self.version.wait_for(|version| *version > 0).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Whether the store has listed its objects.
    pub fn is_ready(&self) -> bool {
        *self.version.borrow() > 0
    }
}

/// The writing end of [`Objects`].
#[derive(Debug)]
pub(crate) struct Publisher<K> {
    map: Arc<RwLock<Arc<ObjectMap<K>>>>,
    version: watch::Sender<u64>,
}

impl<K> Publisher<K> {
    pub(crate) fn new() -> Self {
        Self { map: Arc::default(), version: watch::Sender::new(0) }
    }

    pub(crate) fn objects(&self) -> Objects<K> {
        Objects { map: self.map.clone(), version: self.version.subscribe() }
    }

    /// Changes the map and tells the readers. The map is copied only while a reader holds a snapshot.
    pub(crate) fn publish(&self, change: impl FnOnce(&mut ObjectMap<K>)) {
        change(Arc::make_mut(&mut *self.map.write()));
        self.version.send_modify(|version| *version += 1);
    }
}

/// Something to tell the owner of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Whether somebody should look at it.
    pub severity: Severity,
    /// What was being done: `Query`, `Submit`, ...
    pub action: String,
    /// Why, as one CamelCase word: `QueryFailed`.
    pub reason: String,
    /// What happened, for people.
    pub note: String,
}

/// How much an [`Event`] asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// All is well.
    Normal,
    /// Somebody should look at it.
    Warning,
}

/// Why a change could not be written.
#[derive(Debug, thiserror::Error)]
#[error("writing {what} of {kind} {key}: {source}")]
pub struct StoreError {
    /// Which half of the object.
    pub what: &'static str,
    /// The kind of the object.
    pub kind: String,
    /// Which object.
    pub key: Key,
    /// What went wrong.
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

impl StoreError {
    pub(crate) fn status<K: Object>(key: &Key, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { what: "the status", kind: K::kind(&()).into_owned(), key: key.clone(), source: source.into() }
    }

    pub(crate) fn object<K: Object>(key: &Key, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { what: "metadata and spec", kind: K::kind(&()).into_owned(), key: key.clone(), source: source.into() }
    }
}

/// A change of an object. It may be applied more than once: to a fresh copy when somebody else wrote in between.
pub type Change<'a, K> = &'a (dyn Fn(&mut K) + Send + Sync);

/// The objects of one kind, and the way to write them.
#[async_trait]
pub trait Store<K: Object>: Send + Sync {
    /// The present objects.
    fn objects(&self) -> Objects<K>;

    /// Applies `change` to the object's status and writes it if that changed anything. An object that is gone is no error.
    async fn update_status(&self, key: &Key, change: Change<'_, K>) -> Result<(), StoreError>;

    /// The same for metadata and spec.
    async fn update(&self, key: &Key, change: Change<'_, K>) -> Result<(), StoreError>;

    /// Tells the owner of the object: a Kubernetes event, or a log line where there is no cluster.
    async fn event(&self, object: &K, event: Event);
}
