//! Where the members come from: a list, a file that is looked at again, or the pods of a cluster.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube_client::api::Api;
use kube_runtime::watcher::{self, Event};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::members::{self, Members};

/// How often a file is looked at.
const FILE_PERIOD: Duration = Duration::from_secs(10);
/// The pods of ingestors, as the reference's manifests label them.
const LABEL: &str = "app=ingestor";

/// Where the members of a cluster are found.
pub(super) enum Source {
    /// They never change.
    List(Members),
    /// Somebody tells.
    Told(watch::Receiver<Members>),
    /// `<name>=<url>` entries.
    File(PathBuf),
    /// Pods of a StatefulSet, and the port that they listen on.
    Pods { api: Box<Api<Pod>>, stateful_set: String, port: u16 },
}

impl Source {
    /// The members now, and whenever they change until `stop`.
    ///
    /// # Errors
    /// A file that cannot be read, or members without this one.
    pub(super) fn follow(self, own: &str, stop: CancellationToken) -> anyhow::Result<watch::Receiver<Members>> {
        let first = match &self {
            Source::List(members) => members.clone(),
            Source::Told(members) => members.borrow().clone(),
            Source::File(path) => read(path)?,
            // Until others are seen this one is alone. Nobody uses the address of one's own.
            Source::Pods { .. } => Members::from([(own.to_owned(), "https://127.0.0.1:9090".to_owned())]),
        };
        if !first.contains_key(own) {
            let names: Vec<&str> = first.keys().map(String::as_str).collect();
            let names = names.join(", ");
            anyhow::bail!("this ingestor is called {own:?}, which is none of its peers ({names}): name it among them, or give --hostname");
        }
        let (sender, members) = watch::channel(first);
        match self {
            Source::Told(members) => return Ok(members),
            Source::List(_) => {
                // Kept, so that nobody takes the list for a source that has ended.
                tokio::spawn(async move {
                    stop.cancelled().await;
                    drop(sender)
                });
            }
            Source::File(path) => {
                tokio::spawn(follow_file(path, sender, stop));
            }
            Source::Pods { api, stateful_set, port } => {
                tokio::spawn(async move {
                    let following = follow_pods(*api, &stateful_set, port, &sender);
                    stop.run_until_cancelled(following).await;
                });
            }
        }
        Ok(members)
    }
}

fn read(path: &Path) -> anyhow::Result<Members> {
    let named = || format!("the peers of {}", path.display());
    let text = std::fs::read_to_string(path).with_context(named)?;
    members::parse(&text).map_err(anyhow::Error::msg).with_context(named)
}

async fn follow_file(path: PathBuf, sender: watch::Sender<Members>, stop: CancellationToken) {
    let mut period = tokio::time::interval(FILE_PERIOD);
    let mut failing = false;
    while stop.run_until_cancelled(period.tick()).await.is_some() {
        match read(&path) {
            Ok(found) => {
                failing = false;
                change(&sender, found);
            }
            Err(error) if !failing => {
                failing = true;
                tracing::error!(error = format!("{error:#}"), "the peers of before are used on");
            }
            Err(_) => {}
        }
    }
}

/// The pods that are there, as far as they are members.
async fn follow_pods(api: Api<Pod>, stateful_set: &str, port: u16, sender: &watch::Sender<Members>) {
    let config = watcher::Config::default().labels(LABEL);
    let mut events = kube_watch::follow(api, config, kube_watch::Pauses::default());
    let mut pods = Pods::default();
    let mut failing = false;
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                if std::mem::take(&mut failing) {
                    tracing::info!("the peers are followed again");
                }
                if pods.see(event, stateful_set, port) {
                    change(sender, pods.members.clone());
                }
            }
            Err(error) if !failing => {
                failing = true;
                let error = kube_watch::describe_watch(&error);
                tracing::warn!(error, "the peers of before are used on; to follow them this needs the rights get, list and watch of pods");
            }
            Err(_) => {}
        }
    }
}

fn change(sender: &watch::Sender<Members>, found: Members) {
    let changed = sender.send_if_modified(|members| {
        let next = members::next(members, found);
        let changed = *members != next;
        *members = next;
        changed
    });
    if changed {
        tracing::info!(members = ?*sender.borrow(), "the ingestors of this cluster");
    }
}

/// What the events of a watch add up to.
#[derive(Default)]
pub(super) struct Pods {
    pub(super) members: Members,
    /// What a list that is not complete has so far.
    listing: BTreeMap<String, String>,
}

impl Pods {
    /// Takes an event in; whether the members may be others now.
    pub(super) fn see(&mut self, event: Event<Pod>, stateful_set: &str, port: u16) -> bool {
        let member = |pod: &Pod| members::member(pod, stateful_set, port);
        match event {
            Event::Init => self.listing.clear(),
            Event::InitApply(pod) => self.listing.extend(member(&pod)),
            Event::InitDone => self.members = std::mem::take(&mut self.listing),
            Event::Apply(pod) => {
                self.remove(&pod);
                self.members.extend(member(&pod));
            }
            Event::Delete(pod) => self.remove(&pod),
        }
        self.listing.is_empty()
    }

    fn remove(&mut self, pod: &Pod) {
        if let Some(name) = &pod.metadata.name {
            self.members.remove(name);
        }
    }
}
