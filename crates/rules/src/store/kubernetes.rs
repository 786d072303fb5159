//! Rules on a Kubernetes API server.
//!
//! Objects come by one list and then a watch, so requests follow changes and not the number of rules. A watch that ends is
//! resumed where it was; one that the server has forgotten (410) starts again with a list. While the server is away the
//! objects stay as they were, and it is asked again with growing, jittered pauses.
//!
//! Writes are JSON merge patches of what changed, with the object's resource version as a precondition: fields that this
//! version does not know stay, and nobody's write is lost. After a conflict the change is made again to the fresh object.
//!
//! The rights that are needed: `get`, `list`, `watch` and `patch` of the kind, `patch` of its `status`, and `create` of
//! `events` in `events.k8s.io`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use backon::{BackoffBuilder as _, ExponentialBuilder};
use futures::StreamExt as _;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event as KubernetesEvent;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::core::{ApiResource, DynamicObject};
use kube::{Resource as _, ResourceExt as _};
use kube_client::api::{Api, Patch, PatchParams, PostParams};
use kube_client::{Client, Error};
use kube_runtime::watcher;
use kube_watch::{Pauses, QUIET, describe_watch};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio_util::task::AbortOnDropHandle;

pub use kube_watch::{ConnectError, connect, describe};

use super::{Change, Event, Key, Object, Objects, Publisher, Severity, Store, StoreError, documents};

/// A request other than a watch is given up after this long.
const REQUEST: Duration = Duration::from_secs(30);
/// How often a write is repeated after the server did not take it.
const RETRIES: usize = 5;
/// How often a write is repeated after somebody else wrote; soon, since each of these means that somebody got on.
const CONFLICTS: usize = 20;
const CONFLICT_PAUSE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(200));
/// The same event about the same object is not sent again before this.
const SAME_EVENT: SignedDuration = SignedDuration::from_hours(1);
/// The API server refuses longer notes.
const NOTE: usize = 1024;

/// How a [`KubernetesStore`] works.
#[derive(Debug, Clone)]
pub struct Options {
    /// Who writes: `alerter`. Field manager of writes, reporter of events.
    pub component: String,
    /// Only this namespace; all without.
    pub namespace: Option<String>,
    /// The pause after the first failure. It doubles with each further one.
    pub first_pause: Duration,
    /// The longest pause.
    pub longest_pause: Duration,
}

impl Options {
    /// All namespaces, pauses from 800 ms to 30 s as in client-go.
    pub fn new(component: impl Into<String>) -> Self {
        let Pauses { first, longest } = Pauses::default();
        Self { component: component.into(), namespace: None, first_pause: first, longest_pause: longest }
    }

    fn pauses(&self) -> Pauses {
        Pauses { first: self.first_pause, longest: self.longest_pause }
    }
}

/// The objects of one kind on an API server.
pub struct KubernetesStore<K> {
    shared: Arc<Shared<K>>,
    _following: AbortOnDropHandle<()>,
}

struct Shared<K> {
    client: Client,
    options: Options,
    publisher: Publisher<K>,
    unreadable: Mutex<BTreeMap<Key, String>>,
    problem: Mutex<Option<String>>,
    said: Mutex<HashMap<Key, (Event, Timestamp)>>,
}

impl<K: Object> KubernetesStore<K> {
    /// Starts to follow the objects. Must be called within a tokio runtime; dropping the store ends it.
    pub fn start(client: Client, options: Options) -> Self {
        let shared = Arc::new(Shared {
            client,
            options,
            publisher: Publisher::new(),
            unreadable: Mutex::default(),
            problem: Mutex::default(),
            said: Mutex::default(),
        });
        let following = tokio::spawn(follow(shared.clone()));
        Self { shared, _following: AbortOnDropHandle::new(following) }
    }

    /// Objects that the server has and that cannot be read as a `K`, with the reason. They are not among the objects.
    pub fn unreadable(&self) -> BTreeMap<Key, String> {
        self.shared.unreadable.lock().clone()
    }

    /// Why the objects may be behind those of the server.
    pub fn problem(&self) -> Option<String> {
        self.shared.problem.lock().clone()
    }
}

/// Follows the objects for ever.
async fn follow<K: Object>(shared: Arc<Shared<K>>) {
    let resource = ApiResource::erase::<K>(&());
    let api: Api<DynamicObject> = match &shared.options.namespace {
        Some(namespace) => Api::namespaced_with(shared.client.clone(), namespace, &resource),
        None => Api::all_with(shared.client.clone(), &resource),
    };
    let mut events = kube_watch::follow(api, watcher::Config::default(), shared.options.pauses());
    let mut listed = BTreeMap::new();
    loop {
        let has_failed = shared.problem.lock().is_some();
        let next = match has_failed {
            true => tokio::time::timeout(QUIET, events.next()).await,
            false => Ok(events.next().await),
        };
        match next {
            Ok(None) => return,
            Err(_) => shared.recovered(),
            Ok(Some(Ok(event))) => {
                if !matches!(event, watcher::Event::Init) {
                    shared.recovered();
                }
                shared.apply(event, &mut listed).await;
            }
            Ok(Some(Err(error))) => shared.failed(&error),
        }
    }
}

impl<K: Object> Shared<K> {
    async fn apply(&self, event: watcher::Event<DynamicObject>, listed: &mut BTreeMap<Key, Arc<K>>) {
        match event {
            watcher::Event::Init => {
                listed.clear();
                self.unreadable.lock().clear();
            }
            watcher::Event::InitApply(object) => {
                let key = Key::of(&object);
                if let Some(object) = self.read(object).await {
                    listed.insert(key, Arc::new(object));
                }
            }
            watcher::Event::InitDone => {
                let listed = std::mem::take(listed);
                self.said.lock().retain(|key, _| listed.contains_key(key));
                self.publisher.publish(|map| *map = listed);
            }
            watcher::Event::Apply(object) => {
                let key = Key::of(&object);
                match self.read(object).await {
                    Some(object) => self.publisher.publish(|map| {
                        if map.get(&key).is_none_or(|present| is_newer(&object, present)) {
                            map.insert(key, Arc::new(object));
                        }
                    }),
                    None => self.publisher.publish(|map| drop(map.remove(&key))),
                }
            }
            watcher::Event::Delete(object) => {
                let key = Key::of(&object);
                self.unreadable.lock().remove(&key);
                self.said.lock().remove(&key);
                self.publisher.publish(|map| drop(map.remove(&key)));
            }
        }
    }

    /// An object of the wire as a `K`. One that cannot be read must not hide the others, so it is told of and left out.
    async fn read(&self, mut object: DynamicObject) -> Option<K> {
        // Often larger than the rest, and nobody here reads them.
        object.metadata.managed_fields = None;
        let key = Key::of(&object);
        let reference = object.object_ref(&ApiResource::erase::<K>(&()));
        match object.try_parse::<K>() {
            Ok(object) => {
                self.unreadable.lock().remove(&key);
                Some(object)
            }
            Err(error) => {
                let reason = error.to_string();
                tracing::error!(kind = %K::kind(&()), %key, error = reason, "an object cannot be read and is left out");
                self.unreadable.lock().insert(key.clone(), reason.clone());
                let event = Event { severity: Severity::Warning, action: "Read".to_owned(), reason: "Unreadable".to_owned(), note: reason };
                self.send(&key, reference, event).await;
                None
            }
        }
    }

    fn failed(&self, error: &watcher::Error) {
        let text = describe_watch(error);
        let before = self.problem.lock().replace(text.clone());
        if before.is_none() {
            tracing::warn!(kind = %K::kind(&()), error = text, "cannot follow objects; trying again");
        } else {
            tracing::debug!(kind = %K::kind(&()), error = text, "cannot follow objects; trying again");
        }
    }

    fn recovered(&self) {
        if self.problem.lock().take().is_some() {
            tracing::info!(kind = %K::kind(&()), "following objects again");
        }
    }

    async fn write(&self, key: &Key, half: Half, change: Change<'_, K>) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let Some(mut base) = self.publisher.objects().get(key) else { return Ok(()) };
        let resource = ApiResource::erase::<K>(&());
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &key.namespace, &resource);
        let params = PatchParams { field_manager: Some(self.options.component.clone()), ..PatchParams::default() };
        let mut pauses = self.options.pauses().builder().with_max_times(RETRIES).build();
        let conflicts = ExponentialBuilder::default().with_min_delay(CONFLICT_PAUSE.0).with_max_delay(CONFLICT_PAUSE.1);
        let mut conflicts = conflicts.with_max_times(CONFLICTS).with_jitter().build();
        loop {
            let Some(patch) = half.patch(&*base, change)? else { return Ok(()) };
            let patch = Patch::Merge(Value::Object(patch));
            let written = match half {
                Half::Status => within(api.patch_status(&key.name, &params, &patch)).await,
                Half::Rest => within(api.patch(&key.name, &params, &patch)).await,
            };
            let failed = match written {
                Ok(written) => {
                    self.show_written(key, written);
                    return Ok(());
                }
                Err(failed) => failed,
            };
            let is_conflict = failed.code() == Some(409);
            let pause = match failed.code() {
                Some(404) => return Ok(()),
                _ if is_conflict => conflicts.next(),
                _ if failed.is_transient() => pauses.next().map(|pause| failed.asked_pause().unwrap_or_default().max(pause)),
                _ => None,
            };
            let Some(pause) = pause else { return Err(failed.into()) };
            tokio::time::sleep(pause).await;
            if is_conflict {
                match within(api.get_opt(&key.name)).await {
                    Ok(Some(fresh)) if fresh.uid() == base.uid() => base = Arc::new(fresh.try_parse()?),
                    // Gone, or another object of the same name.
                    Ok(_) => return Ok(()),
                    Err(failed) if failed.is_transient() => {}
                    Err(failed) => return Err(failed.into()),
                }
            }
        }
    }

    /// Shows what was written before the watch does, so that whoever wrote reads it.
    fn show_written(&self, key: &Key, mut written: DynamicObject) {
        written.metadata.managed_fields = None;
        let Ok(written) = written.try_parse::<K>() else { return };
        self.publisher.publish(|map| {
            // One that is missing was deleted since.
            if let Some(present) = map.get_mut(key)
                && present.uid() == written.uid()
                && is_newer(&written, present)
            {
                *present = Arc::new(written);
            }
        });
    }

    async fn send(&self, key: &Key, regarding: ObjectReference, event: Event) {
        let now = Timestamp::now();
        if self.said.lock().get(key).is_some_and(|(last, at)| *last == event && now.duration_since(*at) < SAME_EVENT) {
            return;
        }
        let api: Api<KubernetesEvent> = Api::namespaced(self.client.clone(), &key.namespace);
        let message = kubernetes_event(key, regarding, &event, &self.options.component, now);
        match within(api.create(&PostParams::default(), &message)).await {
            Ok(_) => drop(self.said.lock().insert(key.clone(), (event, now))),
            Err(error) => tracing::warn!(%key, %error, reason = event.reason, note = event.note, "cannot send an event"),
        }
    }
}

#[async_trait]
impl<K: Object> Store<K> for KubernetesStore<K> {
    fn objects(&self) -> Objects<K> {
        self.shared.publisher.objects()
    }

    async fn update_status(&self, key: &Key, change: Change<'_, K>) -> Result<(), StoreError> {
        self.shared.write(key, Half::Status, change).await.map_err(|source| StoreError::status::<K>(key, source))
    }

    async fn update(&self, key: &Key, change: Change<'_, K>) -> Result<(), StoreError> {
        self.shared.write(key, Half::Rest, change).await.map_err(|source| StoreError::object::<K>(key, source))
    }

    async fn event(&self, object: &K, event: Event) {
        self.shared.send(&Key::of(object), object.object_ref(&()), event).await;
    }
}

/// Which half of an object is written.
#[derive(Debug, Clone, Copy)]
enum Half {
    Status,
    Rest,
}

impl Half {
    /// The merge patch that makes the change, if it changes anything.
    fn patch<K: Object>(self, base: &K, change: Change<'_, K>) -> serde_json::Result<Option<Map<String, Value>>> {
        let new = match self {
            Self::Status => documents::changed_status(base, change)?,
            Self::Rest => documents::changed_object(base, change)?,
        };
        let Some(new) = new else { return Ok(None) };
        let mut patch = match self {
            Self::Status => {
                let before = documents::status_of(base)?.unwrap_or_else(|| json!({}));
                let after = documents::status_of(&new)?.unwrap_or_else(|| json!({}));
                Map::from_iter([("status".to_owned(), Value::Object(documents::merge_diff(&before, &after)))])
            }
            Self::Rest => documents::merge_diff(&documents::without_status(base)?, &documents::without_status(&new)?),
        };
        let metadata = patch.entry("metadata").or_insert_with(|| json!({}));
        if let Value::Object(metadata) = metadata {
            metadata.insert("resourceVersion".to_owned(), json!(base.resource_version()));
        }
        Ok(Some(patch))
    }
}

/// Resource versions of one kind are numbers that grow; Kubernetes promises it since 1.35 and always did it.
fn is_newer<K: Object>(object: &K, than: &K) -> bool {
    let version = |object: &K| object.resource_version().and_then(|version| version.parse::<u128>().ok());
    object.uid() != than.uid() || version(object) >= version(than)
}

/// Why a request failed.
#[derive(Debug)]
enum Failed {
    Server(Error),
    TimedOut,
}

impl std::fmt::Display for Failed {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Server(error) => out.write_str(&describe(error)),
            Self::TimedOut => write!(out, "the API server did not answer within {} s", REQUEST.as_secs()),
        }
    }
}

impl std::error::Error for Failed {}

impl Failed {
    fn code(&self) -> Option<u16> {
        match self {
            Self::Server(Error::Api(status)) => Some(status.code),
            _ => None,
        }
    }

    fn is_transient(&self) -> bool {
        match self {
            Self::TimedOut | Self::Server(Error::HyperError(_) | Error::Service(_) | Error::ReadEvents(_)) => true,
            Self::Server(_) => self.code().is_some_and(|code| code == 429 || code >= 500),
        }
    }

    /// How long the server asks to wait.
    fn asked_pause(&self) -> Option<Duration> {
        let Self::Server(Error::Api(status)) = self else { return None };
        Some(Duration::from_secs(status.details.as_ref()?.retry_after_seconds.into()))
    }
}

async fn within<T>(request: impl Future<Output = Result<T, Error>>) -> Result<T, Failed> {
    match tokio::time::timeout(REQUEST, request).await {
        Ok(answer) => answer.map_err(Failed::Server),
        Err(_) => Err(Failed::TimedOut),
    }
}

fn kubernetes_event(key: &Key, regarding: ObjectReference, event: &Event, component: &str, now: Timestamp) -> KubernetesEvent {
    let severity = match event.severity {
        Severity::Normal => "Normal",
        Severity::Warning => "Warning",
    };
    KubernetesEvent {
        metadata: ObjectMeta {
            namespace: Some(key.namespace.clone()),
            generate_name: Some(name_prefix(&key.name)),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(now)),
        type_: Some(severity.to_owned()),
        action: Some(event.action.clone()),
        reason: Some(event.reason.clone()),
        note: Some(event.note[..event.note.floor_char_boundary(NOTE)].to_owned()),
        regarding: Some(regarding),
        reporting_controller: Some(format!("adx-mon.azure.com/{component}")),
        reporting_instance: Some(std::env::var("HOSTNAME").unwrap_or_else(|_| component.to_owned())),
        ..KubernetesEvent::default()
    }
}

/// The server adds five letters to it. A dot before those would be refused.
fn name_prefix(name: &str) -> String {
    let short = &name[..name.floor_char_boundary(50)];
    format!("{}-", short.trim_end_matches(['.', '-']))
}
