//! The other ingestors of a cluster.
//!
//! Each table has an owner among them ([`owner()`]). Whoever seals a segment of a table that another one owns passes it on,
//! so that the owner makes few large uploads of what arrived everywhere. A segment of which there is much, one that is old,
//! and one that its owner does not take now is uploaded where it is. What came from a peer is never passed on once more.
//!
//! Every sealed segment is first the sender's ([`transfer::Sender`]), who releases what it does not send to the uploads. So
//! each is with one of the two, and one that may be at a peer stays with the sender until that is known.

mod arrivals;
mod divide;
mod follow;
mod kept;
mod members;
mod owner;
mod router;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use kube_client::api::Api;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use transfer::receiver::FromPeer;
use transfer::{Credentials, Sender, SenderOptions};
use wal::Store;

use crate::config::Config;
pub use arrivals::Arrivals;
pub use divide::{Limits, uploaded_here};
use follow::Source;
use kept::Kept;
pub use kept::Sealed;
pub(crate) use members::SHUTDOWN_REQUESTED;
pub use members::{Members, member, parse, stateful_set};
pub use owner::{hash_key, owner};
use router::ByOwner;
pub use router::Routing;
pub(crate) use router::segment_age;

/// Requests to one peer at a time, as in the reference.
const PEER_REQUESTS: usize = 5;

/// Where peers are found, and how they are talked to.
#[derive(Clone, Debug)]
pub struct Peers {
    /// Where they are found.
    pub found: Discovery,
    /// Requests to all of them at a time.
    pub concurrency: usize,
    /// So many bytes of a table are uploaded here.
    pub max_bytes: u64,
    /// What is older is uploaded here.
    pub max_age: Duration,
    /// How this ingestor shows who it is.
    pub credentials: Credentials,
    /// Accept any certificate.
    pub insecure_skip_verify: bool,
}

/// Where peers are found.
#[derive(Clone, Debug)]
pub enum Discovery {
    /// They are these, this one included.
    List(Members),
    /// They are in this file, this one included, which is read again when it changes.
    File(PathBuf),
    /// They are what the program that this ingestor is part of says, this one included.
    Told(watch::Receiver<Members>),
    /// They are the pods of this one's StatefulSet. Without a cluster there are none.
    Cluster,
}

impl Peers {
    /// The defaults of the command line.
    pub fn new(found: Discovery) -> Peers {
        Peers {
            found,
            concurrency: 50,
            max_bytes: 100 << 20,
            max_age: Duration::from_secs(90),
            credentials: Credentials::default(),
            insecure_skip_verify: false,
        }
    }
}

/// Peers of an ingestor that is about to start.
pub(crate) struct Neighbourhood {
    settings: Peers,
    own: String,
    source: Source,
    /// Before the store was opened.
    started_ms: u64,
}

/// Finds out whether there can be peers. No request is made.
pub(crate) async fn find(config: &Config) -> anyhow::Result<Option<Neighbourhood>> {
    let Some(settings) = config.peers.clone() else { return Ok(None) };
    let cluster = config.cluster.clone().unwrap_or_default();
    let own = cluster.hostname.unwrap_or_else(rules::lease::host_name);
    let source = match &settings.found {
        Discovery::List(members) => Source::List(members.clone()),
        Discovery::Told(members) => Source::Told(members.clone()),
        Discovery::File(path) => Source::File(path.clone()),
        Discovery::Cluster => {
            let client = kube_watch::connect(cluster.kubeconfig.as_deref()).await.context("connecting to the cluster")?;
            let Some(client) = client else {
                tracing::info!("there are no peers: neither --peers nor --peers-file nor a cluster");
                return Ok(None);
            };
            let Some(stateful_set) = stateful_set(&own) else {
                tracing::info!(own, "no peers are looked for: the name of this host is not <statefulset>-<n>");
                return Ok(None);
            };
            let namespace = cluster.namespace.unwrap_or_else(|| client.default_namespace().to_owned());
            let port = config.listen_tls.map_or(9090, |address| address.port());
            Source::Pods { api: Box::new(Api::namespaced(client, &namespace)), stateful_set: stateful_set.to_owned(), port }
        }
    };
    Ok(Some(Neighbourhood { settings, own, source, started_ms: now_ms() }))
}

/// An ingestor's dealings with its peers.
pub(crate) struct Peering {
    /// Passes segments on.
    pub(crate) sender: Sender,
    kept: Arc<Kept>,
    arrivals: Arrivals,
}

impl Neighbourhood {
    /// Starts to pass segments on, until `stop`. `wake` is changed when there is something to upload.
    pub(crate) fn start(
        self,
        config: &Config,
        store: &Store,
        wake: Arc<watch::Sender<u64>>,
        registry: &mut Registry,
        stop: &CancellationToken,
    ) -> anyhow::Result<Peering> {
        let Neighbourhood { settings, own, source, started_ms } = self;
        let members = source.follow(&own, stop.clone())?;
        tracing::info!(own, members = ?*members.borrow(), "segments of tables that a peer owns are passed on to it");
        registry.register_collector(Box::new(MemberCount(members.clone())));
        let max_age_ms = settings.max_age.as_millis() as u64;
        let arrivals = Arrivals::new(2 * max_age_ms, Arc::new(now_ms));
        let limits = Limits {
            max_segments: config.max_batch_segments,
            // One that was sealed because it was full is large.
            max_bytes: settings.max_bytes.min(config.store_options().segment_max_bytes),
            max_age_ms,
        };
        let kept = Arc::new(Kept::default());
        let routing = Routing { own: own.clone(), members: members.clone(), limits, started_ms, arrivals: arrivals.clone() };
        let router = ByOwner::new(routing, store, kept.clone(), wake);
        let options = SenderOptions {
            concurrency: settings.concurrency,
            endpoint_concurrency: PEER_REQUESTS,
            peer: Some(own),
            credentials: settings.credentials,
            insecure_skip_verify: settings.insecure_skip_verify,
            ..SenderOptions::default()
        };
        let sender = Sender::start_routed(store.clone(), options, members, Box::new(router), stop.clone(), registry);
        Ok(Peering { sender, kept, arrivals })
    }
}

impl Peering {
    /// What the receiver of `/transfer` is to tell of.
    pub(crate) fn on_arrival(&self) -> FromPeer {
        let arrivals = self.arrivals.clone();
        Arc::new(move |tables| arrivals.begin(tables))
    }

    /// What is uploaded from here.
    pub(crate) fn sealed(&self, store: &Store, changed: watch::Receiver<u64>) -> Sealed {
        Sealed::kept(store.clone(), changed, self.kept.clone())
    }
}

/// How many ingestors there are, this one included.
#[derive(Debug)]
struct MemberCount(watch::Receiver<Members>);

impl Collector for MemberCount {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let gauge = ConstGauge::new(self.0.borrow().len() as i64);
        let metric =
            encoder.encode_descriptor("adxmon_ingestor_members", "Ingestors among which tables are divided", None, gauge.metric_type())?;
        gauge.encode(metric)
    }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}
