//! Labels and annotations of the own Node object.

use std::sync::Arc;
use std::time::Duration;

use kube_client::api::Api;
use kube_client::core::{ApiResource, GroupVersionKind, NotUsed, Object};
use kube_runtime::watcher::{self, Event};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Map, Problem, follow_api, object};

/// Start-up waits this long for the node; after that, its labels come when they come.
const WAIT: Duration = Duration::from_secs(10);

/// What is used of a Node. A node that is gone keeps its last values.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Node {
    pub(crate) labels: Map,
    pub(crate) annotations: Map,
}

/// Follows the Node until `stop`. Waits a moment for the first answer, so that what is received from the start carries its
/// labels.
pub(crate) async fn start_node(
    client: kube_client::Client,
    node: &str,
    problem: Problem,
    stop: &CancellationToken,
) -> watch::Receiver<Arc<Node>> {
    let (publisher, mut receiver) = watch::channel(Arc::default());
    let (name, stop) = (node.to_owned(), stop.clone());
    tokio::spawn(async move { stop.run_until_cancelled(follow_node(client, &name, &publisher, &problem)).await });
    if tokio::time::timeout(WAIT, receiver.changed()).await.is_err() {
        tracing::warn!(node, "the API server has not told the node's labels within {} s; they are added once it does", WAIT.as_secs());
    }
    receiver
}

async fn follow_node(client: kube_client::Client, node: &str, publisher: &watch::Sender<Arc<Node>>, problem: &Problem) {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "Node"));
    let api: Api<Object<NotUsed, NotUsed>> = Api::all_with(client, &resource);
    let config = watcher::Config::default().fields(&format!("metadata.name={node}"));
    follow_api(api, config, problem, |event| match event {
        Event::Init => {}
        Event::InitApply(object) | Event::Apply(object) => {
            let metadata = object.metadata;
            let new = Node { labels: object::map(metadata.labels), annotations: object::map(metadata.annotations) };
            publisher.send_if_modified(|present| {
                let modified = **present != new;
                if modified {
                    *present = Arc::new(new);
                }
                modified
            });
        }
        Event::InitDone => publisher.send_modify(|_| {}),
        Event::Delete(_) => tracing::warn!(node, "the Node object is gone; its last labels are kept"),
    })
    .await;
}
