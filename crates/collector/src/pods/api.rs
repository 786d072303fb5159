//! Objects of the API server.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use futures::stream::{BoxStream, StreamExt as _};
use kube_client::api::Api;
use kube_client::core::Resource;
use kube_runtime::watcher::{self, Event};
use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelValue;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::{PodObject, Pods, object, publish};
use crate::metrics::{Discovery, Metrics};

/// Follows the pods of `node` for ever.
pub(super) async fn follow_pods(client: kube_client::Client, node: &str, publisher: &watch::Sender<Pods>, problem: &Problem) {
    let api: Api<PodObject> = Api::all_with(client, &object::resource());
    let config = watcher::Config::default().fields(&format!("spec.nodeName={node}"));
    let mut listed = BTreeMap::new();
    follow_api(api, config, problem, |event| match event {
        Event::Init => listed.clear(),
        Event::InitApply(pod) => {
            if let Some(pod) = object::pod(pod, node) {
                listed.insert(pod.uid.clone(), Arc::new(pod));
            }
        }
        Event::InitDone => {
            let listed = std::mem::take(&mut listed);
            publish(publisher, |pods| *pods = listed);
        }
        Event::Apply(pod) => {
            let uid = pod.metadata.uid.clone().unwrap_or_default();
            match object::pod(pod, node) {
                Some(pod) => publish(publisher, |pods| drop(pods.insert(uid.into(), Arc::new(pod)))),
                None => publish(publisher, |pods| drop(pods.remove(uid.as_str()))),
            }
        }
        Event::Delete(pod) => {
            let uid = pod.metadata.uid.unwrap_or_default();
            publish(publisher, |pods| drop(pods.remove(uid.as_str())));
        }
    })
    .await;
}

/// Tells `told` of all that happens to the objects, for ever, and `problem` of what keeps it from that.
pub(crate) async fn follow_api<K>(api: Api<K>, config: watcher::Config, problem: &Problem, mut told: impl FnMut(Event<K>))
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
    Api<K>: Clone + Send + 'static,
{
    let mut following = Following::new(api, config, problem.clone());
    while let Some(event) = following.next().await {
        told(event);
    }
}

/// What happens to objects, and who is told of what keeps it from coming.
pub(crate) struct Following<K: 'static> {
    events: BoxStream<'static, Result<Event<K>, watcher::Error>>,
    problem: Problem,
}

impl<K> Following<K>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
    Api<K>: Clone + Send + 'static,
{
    pub(crate) fn new(api: Api<K>, config: watcher::Config, problem: Problem) -> Self {
        Following { events: kube_watch::follow(api, config, kube_watch::Pauses::default()).boxed(), problem }
    }

    /// The next event. Nothing is lost if the future is dropped.
    pub(crate) async fn next(&mut self) -> Option<Event<K>> {
        loop {
            let next = match self.problem.is_there() {
                true => tokio::time::timeout(kube_watch::QUIET, self.events.next()).await,
                false => Ok(self.events.next().await),
            };
            match next {
                Ok(Some(Ok(event))) => {
                    if !matches!(event, Event::Init) {
                        self.problem.gone();
                    }
                    return Some(event);
                }
                Ok(Some(Err(error))) => self.problem.is(&kube_watch::describe_watch(&error)),
                Ok(None) => return None,
                Err(_) => self.problem.gone(),
            }
        }
    }
}

/// What is discovered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Source {
    Pods,
    Services,
    Node,
    Events,
}

/// Why what was discovered may be out of date. Logged when that begins and when it ends.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    source: Source,
    pub(crate) text: Arc<Mutex<Option<String>>>,
    up: Gauge,
    failures: Counter,
}

impl Problem {
    /// None yet; but neither is the source up before it was read.
    pub(crate) fn new(source: Source, metrics: &Metrics) -> Problem {
        let label = Discovery { source };
        let up = metrics.discovery_up.get_or_create(&label).clone();
        let failures = metrics.discovery_failures.get_or_create(&label).clone();
        Problem { source, text: Arc::default(), up, failures }
    }

    /// A try has failed.
    pub(crate) fn is(&self, text: &str) {
        self.failures.inc();
        self.up.set(0);
        if self.text.lock().replace(text.to_owned()).is_none() {
            tracing::warn!(of = ?self.source, error = text, "discovery fails; what is known stays, and it is tried again");
        }
    }

    /// Whether the last try has failed.
    fn is_there(&self) -> bool {
        self.text.lock().is_some()
    }

    /// A try has succeeded.
    pub(crate) fn gone(&self) {
        self.up.set(1);
        if self.text.lock().take().is_some() {
            tracing::info!(of = ?self.source, "discovery works again");
        }
    }
}
