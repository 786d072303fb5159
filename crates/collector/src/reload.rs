//! A new configuration while the collector runs.
//!
//! Listeners, store and sender stay as they are; what takes data in (routes, scrapers, log sources) is one [`Intake`]
//! and is replaced as a whole. Requests that are under way end on the routes they began on, so a reload costs no
//! connection; sources are ended before their successors start, so that they take over where the old ones stopped.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use parking_lot::RwLock;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::{Service, ServiceExt};

use crate::Config;

/// What takes data in, as one configuration says.
pub(crate) struct Intake {
    /// The receivers.
    pub(crate) router: Router,
    /// What fetches data by itself.
    pub(crate) sources: JoinSet<()>,
    stop: CancellationToken,
}

impl Intake {
    /// An intake whose sources end when `stop` is cancelled.
    pub(crate) fn new(router: Router, sources: JoinSet<()>, stop: CancellationToken) -> Self {
        Intake { router, sources, stop }
    }

    /// Ends the sources and waits until they have.
    pub(crate) async fn end(&mut self) {
        self.stop.cancel();
        while let Some(ended) = self.sources.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a source failed");
            }
        }
    }
}

/// The routes that requests find at present.
#[derive(Clone)]
pub(crate) struct Routes(Arc<RwLock<Router>>);

impl Routes {
    pub(crate) fn new(router: Router) -> Self {
        Routes(Arc::new(RwLock::new(router)))
    }

    /// Requests that begin from now on find `router`.
    pub(crate) fn replace(&self, router: Router) {
        *self.0.write() = router;
    }

    /// A service that answers with the present routes.
    pub(crate) fn service(
        &self,
    ) -> impl Service<Request, Response = Response<Body>, Error = Infallible, Future: Send> + Clone + Send + Sync + 'static {
        let routes = self.clone();
        tower::service_fn(move |request: Request| {
            let router = routes.0.read().clone();
            router.oneshot(request)
        })
    }
}

/// A request for a reload, and where its outcome goes.
pub(crate) struct Reload {
    pub(crate) config: anyhow::Result<Config>,
    pub(crate) done: oneshot::Sender<anyhow::Result<Reloaded>>,
}

/// What a reload did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reloaded {
    /// Settings that differ but keep their old values until the collector is started again.
    pub after_restart: Vec<&'static str>,
}

/// Gives new configurations to a running collector.
#[derive(Debug, Clone)]
pub struct Reloader(mpsc::Sender<Reload>);

impl Reloader {
    /// A reloader, and what the collector listens to.
    pub(crate) fn channel() -> (Reloader, mpsc::Receiver<Reload>) {
        let (sender, receiver) = mpsc::channel(1);
        (Reloader(sender), receiver)
    }

    /// Runs with `config` from now on. A configuration that could not be read counts as a reload that failed.
    ///
    /// # Errors
    /// When there is none or it cannot be run: the collector goes on with what it had. Also when it is ending.
    pub async fn reload(&self, config: anyhow::Result<Config>) -> anyhow::Result<Reloaded> {
        let ending = || anyhow::anyhow!("the collector is ending");
        let (done, outcome) = oneshot::channel();
        self.0.send(Reload { config, done }).await.map_err(|_| ending())?;
        outcome.await.map_err(|_| ending())?
    }
}
