//! A store in memory, for tests of what runs rules. It does what an API server does on a write: metadata and spec change
//! apart from the status, and only a change of the spec makes a new generation.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;
use parking_lot::Mutex;

use super::{Change, Event, Key, Object, Objects, Publisher, Store, StoreError, documents};

/// Objects in memory.
#[derive(Debug)]
pub struct MemoryStore<K> {
    publisher: Publisher<K>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    resource_version: u64,
    status_writes: u64,
    events: Vec<(Key, Event)>,
}

impl<K: Object> Default for MemoryStore<K> {
    fn default() -> Self {
        Self::new([])
    }
}

impl<K: Object> MemoryStore<K> {
    /// A store that holds these objects.
    pub fn new(objects: impl IntoIterator<Item = K>) -> Self {
        let store = Self { publisher: Publisher::new(), state: Mutex::default() };
        store.publisher.publish(|_| {});
        objects.into_iter().for_each(|object| store.apply(object));
        store
    }

    /// Creates the object, or replaces labels, annotations, finalizers and spec of the present one, whose status stays.
    pub fn apply(&self, object: K) {
        let key = Key::of(&object);
        let objects = self.publisher.objects();
        match objects.get(&key) {
            None => self.put(&key, None, object),
            Some(old) => match documents::with_status_of(&object, &*old) {
                Ok(new) => self.put(&key, Some(&old), new),
                Err(error) => tracing::error!(%key, %error, "an object that cannot be written as JSON"),
            },
        }
    }

    /// Removes the object; with finalizers it stays, marked as being deleted, until they are gone.
    pub fn delete(&self, key: &Key) {
        let Some(old) = self.publisher.objects().get(key) else { return };
        let mut object = K::clone(&old);
        object.meta_mut().deletion_timestamp.get_or_insert(Time(Timestamp::now()));
        self.put(key, Some(&old), object);
    }

    /// The events so far, oldest first.
    pub fn events(&self) -> Vec<(Key, Event)> {
        self.state.lock().events.clone()
    }

    /// How many times a status was written because it had changed.
    pub fn status_writes(&self) -> u64 {
        self.state.lock().status_writes
    }

    fn put(&self, key: &Key, old: Option<&K>, mut object: K) {
        let version = {
            let mut state = self.state.lock();
            state.resource_version += 1;
            state.resource_version
        };
        let generation = match old {
            None => object.meta().generation.unwrap_or(1),
            Some(old) if documents::same_spec(old, &object) => old.meta().generation.unwrap_or(1),
            Some(old) => old.meta().generation.unwrap_or(1) + 1,
        };
        let meta = object.meta_mut();
        meta.namespace = Some(key.namespace.clone());
        meta.resource_version = Some(version.to_string());
        meta.generation = Some(generation);
        match old {
            None => {
                meta.uid.get_or_insert(format!("uid-{version}"));
                meta.creation_timestamp.get_or_insert(Time(Timestamp::now()));
            }
            Some(old) => {
                meta.uid = old.uid();
                meta.creation_timestamp = old.creation_timestamp();
                if meta.deletion_timestamp.is_none() {
                    meta.deletion_timestamp = old.meta().deletion_timestamp.clone();
                }
            }
        }
        let gone = meta.deletion_timestamp.is_some() && meta.finalizers.as_ref().is_none_or(Vec::is_empty);
        self.publisher.publish(|map| {
            if gone {
                map.remove(key);
            } else {
                map.insert(key.clone(), Arc::new(object));
            }
        });
    }
}

#[async_trait]
impl<K: Object> Store<K> for MemoryStore<K> {
    fn objects(&self) -> Objects<K> {
        self.publisher.objects()
    }

    async fn update_status(&self, key: &Key, change: Change<'_, K>) -> Result<(), StoreError> {
        let Some(old) = self.publisher.objects().get(key) else { return Ok(()) };
        if let Some(new) = documents::changed_status(&*old, change).map_err(|source| StoreError::status::<K>(key, source))? {
            self.state.lock().status_writes += 1;
            self.put(key, Some(&old), new);
        }
        Ok(())
    }

    async fn update(&self, key: &Key, change: Change<'_, K>) -> Result<(), StoreError> {
        let Some(old) = self.publisher.objects().get(key) else { return Ok(()) };
        if let Some(new) = documents::changed_object(&*old, change).map_err(|source| StoreError::object::<K>(key, source))? {
            self.put(key, Some(&old), new);
        }
        Ok(())
    }

    async fn event(&self, object: &K, event: Event) {
        self.state.lock().events.push((Key::of(object), event));
    }
}
