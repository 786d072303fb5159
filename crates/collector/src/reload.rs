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
use crate::pipeline::{self, Receivers};

/// What takes data in, as one configuration says.
pub(crate) struct Intake {
    pub(crate) receivers: Receivers,
    /// What fetches data by itself.
    pub(crate) sources: JoinSet<()>,
    stop: CancellationToken,
}

impl Intake {
    /// An intake whose sources end when `stop` is cancelled.
    pub(crate) fn new(receivers: Receivers, sources: JoinSet<()>, stop: CancellationToken) -> Self {
        Intake { receivers, sources, stop }
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

/// The routes that all listeners have at present.
pub(crate) struct LiveRoutes {
    http: Routes,
    otlp_grpc: Routes,
    grpc_ports: Vec<(u16, Routes)>,
}

impl LiveRoutes {
    pub(crate) fn new(receivers: &Receivers) -> Self {
        let ports = receivers.grpc_ports.iter().map(|(port, router)| (*port, Routes::new(router.clone())));
        LiveRoutes {
            http: Routes::new(receivers.http.clone()),
            otlp_grpc: Routes::new(receivers.otlp_grpc.clone()),
            grpc_ports: ports.collect(),
        }
    }

    /// Requests that begin from now on find `receivers`. Ports stay as they were opened; one that has no source any more
    /// says so.
    pub(crate) fn replace(&self, receivers: &Receivers) {
        self.http.replace(receivers.http.clone());
        self.otlp_grpc.replace(receivers.otlp_grpc.clone());
        for (port, routes) in &self.grpc_ports {
            let router = receivers.grpc_ports.iter().find(|(other, _)| other == port).map(|(_, router)| router.clone());
            routes.replace(router.unwrap_or_else(pipeline::grpc_router));
        }
    }

    /// What listeners serve; `operations` are paths of HTTP that stay.
    pub(crate) fn routers(&self, operations: Router) -> Receivers {
        let router = |routes: &Routes| Router::new().fallback_service(routes.service());
        Receivers {
            http: operations.fallback_service(self.http.service()),
            otlp_grpc: router(&self.otlp_grpc),
            grpc_ports: self.grpc_ports.iter().map(|(port, routes)| (*port, router(routes))).collect(),
        }
    }
}

/// The routes that requests find at present.
#[derive(Clone)]
struct Routes(Arc<RwLock<Router>>);

impl Routes {
    fn new(router: Router) -> Self {
        Routes(Arc::new(RwLock::new(router)))
    }

    /// Requests that begin from now on find `router`.
    fn replace(&self, router: Router) {
        *self.0.write() = router;
    }

    /// A service that answers with the present routes.
    fn service(
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
