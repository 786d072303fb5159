//! `add-metadata-labels`: labels and annotations of the Node as labels of what a source takes in.

use std::collections::BTreeMap;
use std::sync::Arc;

use telemetry::Added;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::file::NodeLabels;
use crate::pods::{Map, Node};

/// What makes the sources of an intake follow the Node.
pub(crate) struct NodeLabeling {
    /// None where nobody watches it.
    pub(crate) node: Option<watch::Receiver<Arc<Node>>>,
    /// Ends following.
    pub(crate) stop: CancellationToken,
}

impl NodeLabeling {
    /// Adds what `labels` names, now and whenever the Node changes. A label that the Node does not have is empty.
    pub(crate) fn follow(&self, labels: &NodeLabels, added: &Added) {
        let Some(mut node) = self.node.clone().filter(|_| !labels.labels.is_empty() || !labels.annotations.is_empty()) else { return };
        added.set(named(&node.borrow_and_update(), labels));
        let (labels, added, stop) = (labels.clone(), added.clone(), self.stop.clone());
        tokio::spawn(async move {
            while let Some(Ok(())) = stop.run_until_cancelled(node.changed()).await {
                added.set(named(&node.borrow_and_update(), &labels));
            }
        });
    }
}

fn named(node: &Node, labels: &NodeLabels) -> BTreeMap<String, String> {
    let value = |from: &Map, name: &str| from.get(name).map(|value| value.to_string()).unwrap_or_default();
    let annotations = labels.annotations.iter().map(|(name, to)| (to.clone(), value(&node.annotations, name)));
    let labels = labels.labels.iter().map(|(name, to)| (to.clone(), value(&node.labels, name)));
    annotations.chain(labels).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(zone: &str) -> Arc<Node> {
        Arc::new(Node { labels: Map::from([("zone".into(), zone.into())]), annotations: Map::from([("rack".into(), "7".into())]) })
    }

    #[tokio::test]
    async fn what_the_node_says_is_added_as_it_changes() {
        let map = |from: &str, to: &str| BTreeMap::from([(from.to_owned(), to.to_owned())]);
        let labels = NodeLabels { labels: map("zone", "Zone"), annotations: map("rack", "Rack") };
        let (publisher, receiver) = watch::channel(node("a"));
        let stop = CancellationToken::new();
        let labeling = NodeLabeling { node: Some(receiver), stop: stop.clone() };
        let added = Added::new(map("own", "1"));
        labeling.follow(&labels, &added);
        let expected = |zone: &str, rack: &str| -> BTreeMap<String, String> {
            [("Rack", rack), ("Zone", zone), ("own", "1")].map(|(n, v)| (n.to_owned(), v.to_owned())).into()
        };
        assert_eq!(*added.get(), expected("a", "7"));
        publisher.send_replace(node("b"));
        while *added.get() != expected("b", "7") {
            tokio::task::yield_now().await;
        }
        publisher.send_replace(Arc::default());
        while *added.get() != expected("", "") {
            tokio::task::yield_now().await;
        }
        stop.cancel();
        let nobody = NodeLabeling { node: None, stop };
        let untouched = Added::default();
        nobody.follow(&labels, &untouched);
        assert!(untouched.get().is_empty());
    }
}
