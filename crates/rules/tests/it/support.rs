//! A small custom resource to fill stores with.

use kube::CustomResource;
use rules::store::{ObjectMap, Objects};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
