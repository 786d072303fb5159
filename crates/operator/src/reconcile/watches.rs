//! What leads to a look at a resource: its own changes, those of its objects, and those of what it depends on.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crds::{Alerter, Collector, Ingestor, MetricsExporter};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{ConfigMap, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{ClusterRoleBinding, RoleBinding};
use kube_client::ResourceExt as _;
use kube_client::api::{Api, DynamicObject};
use kube_runtime::reflector::{ObjectRef, Store};
use kube_runtime::{Controller, watcher};
use parking_lot::Mutex;
use xxhash_rust::xxh3::xxh3_64;

use super::components::Upstream;
use super::{Context, Managed, reference};
use crate::object::{Kind, Reference};
use crate::render::{MANAGED_BY, MANAGER, OWNER_KIND, OWNER_NAME, OWNER_NAMESPACE};

/// Objects of a page of the lists that watches begin with. All begin at once, and what they read is most of the memory that an
/// operator takes that starts where there is much.
const PAGE: u32 = 50;

/// Watches that end silently are begun again by the server's time.
fn all() -> watcher::Config {
    watcher::Config::default().page_size(PAGE)
}

/// Kinds of objects that resources of a kind have.
fn kinds(kind: &str) -> Vec<Kind> {
    let account = [Kind::of::<ServiceAccount>(), Kind::of::<RoleBinding>(), Kind::of::<ClusterRoleBinding>()];
    let own = match kind {
        "Ingestor" => vec![Kind::of::<Service>(), Kind::of::<PodDisruptionBudget>(), Kind::of::<StatefulSet>()],
        "Collector" => vec![
            Kind::of::<ConfigMap>(),
            Kind::of::<Service>(),
            Kind::of::<DaemonSet>(),
            Kind::of::<StatefulSet>(),
            Kind::of::<Deployment>(),
        ],
        "Alerter" => vec![Kind::of::<Deployment>()],
        _ => return vec![Kind::of::<ServiceAccount>(), Kind::of::<Service>(), Kind::of::<NetworkPolicy>(), Kind::of::<StatefulSet>()],
    };
    account.into_iter().chain(own).collect()
}

/// A controller of resources in all namespaces, with watches on their objects.
fn with_objects<K: Managed>(context: &Context) -> Controller<K> {
    let client = context.cluster.client();
    let mut controller = Controller::new(Api::<K>::all(client.clone()), all());
    let labels = format!("{MANAGED_BY}={MANAGER},{OWNER_KIND}={}", K::KIND);
    for kind in kinds(K::KIND) {
        let any = Reference { kind, namespace: None, name: String::new() };
        let resource = context.cluster.resource(&any);
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
        controller = controller.watches_with(api, resource, all().labels(&labels), |object| owner::<K>(&object));
    }
    controller
}

/// The resource that an object is of, by its labels: one that lost them is seen as gone, with those it had.
fn owner<K: Managed>(object: &DynamicObject) -> Option<ObjectRef<K>> {
    let labels = object.labels();
    Some(reference(labels.get(OWNER_NAMESPACE)?, labels.get(OWNER_NAME)?))
}

/// All resources of a namespace.
fn of_namespace<K: Managed>(store: &Store<K>, namespace: Option<String>) -> Vec<ObjectRef<K>> {
    let same = store.state().into_iter().filter(|object| object.meta().namespace == namespace);
    same.map(|object| ObjectRef::from_obj(&*object)).collect()
}

/// A kind with its controller.
pub(crate) trait Controlled: Managed {
    /// Its controller, with all watches.
    fn controller(context: &Context) -> Controller<Self>;
}

/// The controller of a kind.
pub(crate) fn controller<K: Controlled>(context: &Context) -> Controller<K> {
    K::controller(context)
}

/// `$kind` is looked at again when one of `$other` in its namespace changes.
macro_rules! depends {
    ($controller:ident, $context:ident, $($other:ty),*) => {$({
        let store = $controller.store();
        let api: Api<$other> = Api::all($context.cluster.client().clone());
        $controller = $controller.watches(api, all(), move |object| of_namespace(&store, object.namespace()));
    })*};
}

impl Controlled for Upstream {
    fn controller(context: &Context) -> Controller<Self> {
        with_objects(context)
    }
}

impl Controlled for Ingestor {
    fn controller(context: &Context) -> Controller<Self> {
        let mut controller = with_objects::<Self>(context);
        depends!(controller, context, Upstream);
        controller
    }
}

impl Controlled for Alerter {
    fn controller(context: &Context) -> Controller<Self> {
        let mut controller = with_objects::<Self>(context);
        depends!(controller, context, Upstream, Ingestor, Collector);
        controller
    }
}

impl Controlled for Collector {
    fn controller(context: &Context) -> Controller<Self> {
        let mut controller = with_objects::<Self>(context);
        depends!(controller, context, Upstream, Ingestor);
        let store = controller.store();
        let known = Exporters::default();
        let api: Api<MetricsExporter> = Api::all(context.cluster.client().clone());
        controller.watches(api, all(), move |exporter| match known.see(&exporter) {
            true => store.state().iter().map(|object| ObjectRef::from_obj(&**object)).collect(),
            false => Vec::new(),
        })
    }
}

/// The MetricsExporters that there are: Collectors are looked at when the first comes and the last goes, not at each of
/// their status changes.
///
/// A watch tells of what is gone as of what has changed. But what has changed is different, and what is gone is as it was.
#[derive(Default)]
struct Exporters(Mutex<HashMap<String, u64>>);

impl Exporters {
    /// Whether the first came or the last went, as far as one can tell.
    fn see(&self, exporter: &MetricsExporter) -> bool {
        let text = serde_json::to_vec(&(&exporter.spec, &exporter.status, &exporter.metadata.uid)).unwrap_or_default();
        let digest = xxh3_64(&text);
        let mut known = self.0.lock();
        let first = known.is_empty();
        let name = format!("{}/{}", exporter.namespace().unwrap_or_default(), exporter.name_any());
        match known.entry(name) {
            Entry::Occupied(entry) if *entry.get() == digest => drop(entry.remove()),
            Entry::Occupied(mut entry) => drop(entry.insert(digest)),
            Entry::Vacant(entry) => drop(entry.insert(digest)),
        }
        first || known.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exporter(name: &str, body: &str) -> MetricsExporter {
        let mut exporter = MetricsExporter::default();
        exporter.metadata.name = Some(name.to_owned());
        exporter.spec.body = body.to_owned();
        exporter
    }

    #[test]
    fn collectors_hear_of_the_first_exporter_and_of_the_last() {
        let known = Exporters::default();
        assert!(known.see(&exporter("a", "1m")));
        assert!(!known.see(&exporter("b", "1m")));
        // Changed: another spec or status.
        assert!(!known.see(&exporter("a", "2m")));
        // Gone: as it was last.
        assert!(!known.see(&exporter("a", "2m")));
        assert!(!known.see(&exporter("b", "5m")));
        assert!(known.see(&exporter("b", "5m")));
        assert!(known.see(&exporter("c", "1m")));
    }
}
