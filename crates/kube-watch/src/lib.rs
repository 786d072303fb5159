//! Following objects of a Kubernetes API server through its outages.
//!
//! [`connect`] makes a client, [`follow`] a stream of what happens to the objects of one kind: one list and then a watch, so
//! that requests follow changes and not the number of objects. A watch that ends is resumed where it was; one that the server
//! has forgotten (410) starts again with a list. While the server is away the stream says so once per try, with growing,
//! jittered pauses in between.

use std::fmt::{Debug, Write as _};
use std::path::Path;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use futures::stream::{self, BoxStream, Stream, StreamExt as _};
use kube_client::api::Api;
use kube_client::config::{KubeConfigOptions, Kubeconfig};
use kube_client::core::Resource;
use kube_client::{Client, Config, Error};
use kube_runtime::watcher;
use serde::de::DeserializeOwned;

/// A watch that goes on where it was says nothing before something happens. But so long after the last failed try, another
/// one would have failed: a pause is up to 30 s, and so is connecting.
pub const QUIET: Duration = Duration::from_secs(90);

/// A response may stay silent this long. The server ends a silent watch after 290 s.
const SILENCE: Duration = Duration::from_secs(310);

/// Why there is no connection to a cluster.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The kubeconfig file.
    #[error("reading the kubeconfig: {0}")]
    Kubeconfig(#[from] kube_client::config::KubeconfigError),
    /// The service account of the pod.
    #[error("reading the pod's service account: {0}")]
    InCluster(#[from] kube_client::config::InClusterError),
    /// Certificates or the address.
    #[error("preparing the client of the API server: {0}")]
    Client(#[from] Error),
}

/// A client for the cluster of `kubeconfig`, or of `KUBECONFIG`, or of the pod that this runs in. None where none of these
/// is there. No request is made.
///
/// Must be called within a tokio runtime.
pub async fn connect(kubeconfig: Option<&Path>) -> Result<Option<Client>, ConnectError> {
    let from = |kubeconfig| async { Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await };
    let mut config = if let Some(path) = kubeconfig {
        from(Kubeconfig::read_from(path)?).await?
    } else if let Some(kubeconfig) = Kubeconfig::from_env()? {
        from(kubeconfig).await?
    } else if std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() {
        Config::incluster()?
    } else {
        return Ok(None);
    };
    config.read_timeout = Some(SILENCE);
    config.reset_reader_on_write = true;
    Ok(Some(Client::try_from(config)?))
}

/// Pauses between tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pauses {
    /// After the first failure. It doubles with each further one.
    pub first: Duration,
    /// The longest.
    pub longest: Duration,
}

impl Default for Pauses {
    /// From 800 ms to 30 s as in client-go.
    fn default() -> Self {
        Self { first: Duration::from_millis(800), longest: Duration::from_secs(30) }
    }
}

impl Pauses {
    /// The pauses, with jitter.
    #[must_use]
    pub fn builder(self) -> ExponentialBuilder {
        ExponentialBuilder::default().with_min_delay(self.first).with_max_delay(self.longest).with_factor(2.0).with_jitter()
    }
}

/// What happens to the objects of `api`, for ever. After an error the stream pauses and then goes on.
pub fn follow<K>(
    api: Api<K>,
    config: watcher::Config,
    pauses: Pauses,
) -> impl Stream<Item = Result<watcher::Event<K>, watcher::Error>> + Send + Unpin
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
    Api<K>: Clone + Send + 'static,
{
    let tries = pauses.builder().without_max_times();
    let start = move || watcher(api.clone(), config.clone()).boxed();
    let first = Following { events: start(), tries: tries.build(), pause: None };
    stream::unfold(first, move |mut following| {
        let start = start.clone();
        async move {
            if let Some(pause) = following.pause.take() {
                tokio::time::sleep(pause).await;
            }
            let event = following.events.next().await?;
            match &event {
                Ok(watcher::Event::Init) => {}
                Ok(_) => following.tries = tries.build(),
                Err(error) => {
                    following.pause = Some(following.tries.next().unwrap_or(pauses.longest));
                    if has_forgotten(error) {
                        following.events = start();
                    }
                }
            }
            Some((event, following))
        }
    })
    .boxed()
}

struct Following<K: 'static> {
    events: BoxStream<'static, Result<watcher::Event<K>, watcher::Error>>,
    tries: ExponentialBackoff,
    /// Before the next event is asked for.
    pause: Option<Duration>,
}

/// Whether the server does not know the place where the watch wants to go on: then only a new list helps. The watcher sees
/// to a 410 within a watch by itself, but not to one instead of it, nor to a server that was restored from a backup and for
/// which the place is in the future (504).
fn has_forgotten(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchStartFailed(Error::Api(status)) if matches!(status.code, 410 | 504))
}

/// An error of the API server without the dump of its structure.
#[must_use]
pub fn describe(error: &Error) -> String {
    if let Error::Api(status) = error {
        return format!("the API server answered {}: {}", status.code, status.message);
    }
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error).and_then(std::error::Error::source);
    while let Some(cause) = source {
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}

/// [`describe`] for an error of [`follow`], which says what was being done.
#[must_use]
pub fn describe_watch(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(error) => format!("listing: {}", describe(error)),
        watcher::Error::WatchStartFailed(error) | watcher::Error::WatchFailed(error) => format!("watching: {}", describe(error)),
        watcher::Error::WatchError(status) => format!("watching: the API server answered {}: {}", status.code, status.message),
        watcher::Error::NoResourceVersion => error.to_string(),
    }
}
