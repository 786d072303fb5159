//! A small custom resource to fill stores with.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use jiff::Timestamp;
use kube::CustomResource;
use rules::clock::ManualClock;
use rules::lease::Leader;
use rules::runner::Executor;
use rules::store::memory::MemoryStore;
use rules::store::{Change, Event, Key, Object, ObjectMap, Objects, Store, StoreError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A rule that does nothing.
#[derive(CustomResource, Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(group = "test.adx-mon.azure.com", version = "v1", kind = "Probe", namespaced, status = "ProbeStatus")]
#[serde(rename_all = "camelCase")]
pub(crate) struct ProbeSpec {
    pub(crate) database: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) interval: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ProbeStatus {
    #[serde(default)]
    pub(crate) runs: u64,
}

pub(crate) fn probe(name: &str, database: &str) -> Probe {
    let mut probe = Probe::new(name, ProbeSpec { database: database.to_owned(), interval: None });
    probe.metadata.namespace = Some("default".to_owned());
    probe
}

/// A change that counts one run.
pub(crate) fn run(probe: &mut Probe) {
    probe.status.get_or_insert_default().runs += 1;
}

/// Waits for what must come soon.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(std::time::Duration::from_secs(60), what).await.expect("within a minute")
}

/// Waits until the objects are as wanted.
pub(crate) async fn until<K>(objects: &mut Objects<K>, wanted: impl Fn(&ObjectMap<K>) -> bool) {
    soon(async {
        while !wanted(&objects.snapshot()) {
            objects.changed().await;
        }
    })
    .await;
}

/// Executors that run by a clock that is moved by hand.
pub(crate) struct Running {
    pub(crate) clock: ManualClock,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    pub(crate) fn start(executors: Vec<Box<dyn Executor>>, now: Timestamp) -> Self {
        let (clock, stop) = (ManualClock::new(now), CancellationToken::new());
        let run = rules::runner::run(executors, Leader::always(), Arc::new(clock.clone()), stop.clone());
        Self { clock, stop, task: tokio::spawn(run) }
    }

    /// Ends them; what hangs is given up.
    pub(crate) async fn end(self) {
        self.stop.cancel();
        soon(self.task).await.unwrap();
    }
}

/// A store in memory that takes no status while it is told so.
pub(crate) struct FailingStore<K> {
    pub(crate) inner: MemoryStore<K>,
    fails: AtomicBool,
}

impl<K: Object> FailingStore<K> {
    pub(crate) fn new(objects: impl IntoIterator<Item = K>) -> Self {
        Self { inner: MemoryStore::new(objects), fails: AtomicBool::new(false) }
    }

    pub(crate) fn fail(&self, fails: bool) {
        self.fails.store(fails, Ordering::Relaxed);
    }
}

#[async_trait]
impl<K: Object> Store<K> for FailingStore<K> {
    fn objects(&self) -> Objects<K> {
        self.inner.objects()
    }

    async fn update_status(&self, key: &Key, change: Change<'_, K>) -> Result<(), StoreError> {
        if self.fails.load(Ordering::Relaxed) {
            let (kind, key) = (K::kind(&()).into_owned(), key.clone());
            return Err(StoreError { what: "the status", kind, key, source: "the API server is away".into() });
        }
        self.inner.update_status(key, change).await
    }

    async fn update(&self, key: &Key, change: Change<'_, K>) -> Result<(), StoreError> {
        self.inner.update(key, change).await
    }

    async fn event(&self, object: &K, event: Event) {
        self.inner.event(object, event).await;
    }
}

/// A store whose watch has stood still: it shows what was, and writes to what is.
pub(crate) struct LateStore<K> {
    shown: MemoryStore<K>,
    real: Arc<MemoryStore<K>>,
}

impl<K: Object> LateStore<K> {
    pub(crate) fn of(real: &Arc<MemoryStore<K>>) -> Self {
        let shown = MemoryStore::new(real.objects().snapshot().values().map(|object| K::clone(object)));
        Self { shown, real: real.clone() }
    }
}

#[async_trait]
impl<K: Object> Store<K> for LateStore<K> {
    fn objects(&self) -> Objects<K> {
        self.shown.objects()
    }

    async fn update_status(&self, key: &Key, change: Change<'_, K>) -> Result<(), StoreError> {
        self.real.update_status(key, change).await
    }

    async fn update(&self, key: &Key, change: Change<'_, K>) -> Result<(), StoreError> {
        self.real.update(key, change).await
    }

    async fn event(&self, object: &K, event: Event) {
        self.real.event(object, event).await;
    }
}
