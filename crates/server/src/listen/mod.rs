//! The listener: accepts connections, bounds how many there are and how long each may take, and
//! ends them gracefully.
//!
//! hyper speaks the protocol; what a connection may do with its time is decided here, in the same
//! way for HTTP/1, HTTP/2 and the bytes before that is known. A watchdog looks at two instants that
//! the socket wrapper keeps: a connection that began a request, or has not had one yet, must bring a
//! whole header within `header_timeout`, and one that does nothing is closed after `idle_timeout`.
//! The time of a request itself is bounded by `request_timeout`.

mod activity;
mod paced;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{Request, StatusCode, header};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;

use crate::BodyLimits;
use crate::tls::Tls;
use activity::{Activity, Watched};
use paced::Paced;

pub(crate) use paced::SlowBody;

/// What one listener grants its clients.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Open connections at a time, 0 for no limit; surplus connections are closed at once.
    pub max_connections: usize,
    /// From the first byte of a request, or the start of the connection, to the end of its header
    /// (also the TLS handshake).
    pub header_timeout: Duration,
    /// Without any traffic and without a running request.
    pub idle_timeout: Duration,
    /// From one piece of a request body to the next; then 408.
    pub body_timeout: Duration,
    /// From the end of the header to the response; then 503 with `Retry-After`.
    pub request_timeout: Duration,
    /// After shutdown began, running requests may take this long.
    pub grace: Duration,
    /// Limits of request bodies.
    pub body: BodyLimits,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_connections: 0,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(120),
            body_timeout: Duration::from_secs(30),
            request_timeout: Duration::from_secs(60),
            grace: Duration::from_secs(10),
            body: BodyLimits::default(),
        }
    }
}

/// Counts of a listener, for its metrics.
#[derive(Debug, Default)]
pub struct Connections {
    active: AtomicUsize,
    dropped: AtomicU64,
    handshakes_failed: AtomicU64,
    overdue: AtomicU64,
}

impl Connections {
    /// Connections open now.
    #[must_use]
    pub fn active(&self) -> usize {
        self.active.load(Ordering::Relaxed)
    }

    /// Connections closed at once because there were too many.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// TLS handshakes that failed: no TLS, no certificate that we trust, or one that the client does not.
    #[must_use]
    pub fn handshakes_failed(&self) -> u64 {
        self.handshakes_failed.load(Ordering::Relaxed)
    }

    /// Connections closed because their time for a handshake or a header, or their idle time, was over.
    #[must_use]
    pub fn overdue(&self) -> u64 {
        self.overdue.load(Ordering::Relaxed)
    }
}

/// Serves `router` on `listener` until `shutdown`, then waits for running requests (at most
/// `limits.grace`).
///
/// # Errors
/// None in practice: a failing `accept` is retried, since its causes (descriptors used up, a client
/// that went away) pass.
pub async fn serve(
    listener: TcpListener,
    router: axum::Router,
    limits: Limits,
    tls: Option<Tls>,
    shutdown: CancellationToken,
) -> io::Result<()> {
    serve_counted(listener, router, limits, tls, shutdown, Arc::default()).await
}

/// [`serve`], with counts that metrics can read while it runs.
///
/// # Errors
/// As [`serve`].
pub async fn serve_counted(
    listener: TcpListener,
    router: axum::Router,
    limits: Limits,
    tls: Option<Tls>,
    shutdown: CancellationToken,
    connections: Arc<Connections>,
) -> io::Result<()> {
    let shell = Arc::new(Shell { router, limits, tls, builder: builder(), connections: Arc::clone(&connections), stop: shutdown.clone() });
    let tasks = TaskTracker::new();
    while let Some(accepted) = shutdown.run_until_cancelled(listener.accept()).await {
        let stream = match accepted {
            Ok((stream, _peer)) => stream,
            Err(error) => {
                tracing::warn!(%error, "failed to accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Some(place) = Place::take(&connections, shell.limits.max_connections) else {
            connections.dropped.fetch_add(1, Ordering::Relaxed);
            continue;
        };
        tasks.spawn(Arc::clone(&shell).connection(stream, place));
    }
    drop(listener);
    tasks.close();
    if tokio::time::timeout(shell.limits.grace, tasks.wait()).await.is_err() {
        tracing::warn!(connections = connections.active(), "closing connections whose requests did not end in time");
    }
    Ok(())
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // Ours is the watchdog; hyper's own header timeout would also end idle connections.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(None);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(128)
        .max_header_list_size(64 << 10)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20);
    builder
}

/// One of the allowed connections; gives its place back when dropped.
struct Place(Arc<Connections>);

impl Place {
    fn take(connections: &Arc<Connections>, limit: usize) -> Option<Place> {
        let before = connections.active.fetch_add(1, Ordering::Relaxed);
        let place = Place(Arc::clone(connections));
        (limit == 0 || before < limit).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What all connections of a listener share.
struct Shell {
    router: axum::Router,
    limits: Limits,
    tls: Option<Tls>,
    builder: auto::Builder<TokioExecutor>,
    connections: Arc<Connections>,
    stop: CancellationToken,
}

impl Shell {
    /// A connection that says nothing costs a socket and this small task: the state of TLS and HTTP is made when its
    /// first byte is there.
    async fn connection(self: Arc<Self>, stream: TcpStream, _place: Place) {
        let accepted = Instant::now();
        let patience = self.limits.header_timeout.min(self.limits.idle_timeout);
        let mut first = [0];
        tokio::select! {
            // Not `readable`, which may say so when nothing is there.
            first = stream.peek(&mut first) => if !matches!(first, Ok(1..)) { return },
            () = tokio::time::sleep(patience) => return self.overdue("a connection said nothing"),
            () = self.stop.cancelled() => return,
        }
        self.speaking(stream, accepted).await;
    }

    /// [`Shell::speak`] on the heap, so that a silent connection does not keep the space for it.
    fn speaking(&self, stream: TcpStream, accepted: Instant) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.speak(stream, accepted))
    }

    async fn speak(&self, stream: TcpStream, accepted: Instant) {
        // Answers are small and clients wait for them.
        let _ = stream.set_nodelay(true);
        let Some(tls) = &self.tls else { return self.http(stream, accepted).await };
        let handshake = TlsAcceptor::from(tls.config()).accept(stream);
        let handshake = tokio::time::timeout_at(accepted + self.limits.header_timeout, handshake);
        let Some(handshake) = self.stop.run_until_cancelled(handshake).await else { return };
        match handshake {
            Ok(Ok(stream)) => self.http(stream, accepted).await,
            Ok(Err(error)) => {
                self.connections.handshakes_failed.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(%error, "TLS handshake failed");
            }
            Err(_) => self.overdue("TLS handshake took too long"),
        }
    }

    async fn http<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(&self, stream: S, accepted: Instant) {
        let activity = Arc::new(Activity::new(accepted));
        let io = TokioIo::new(Watched { inner: stream, activity: Arc::clone(&activity) });
        let service = RouterService {
            router: self.router.clone(),
            request_timeout: self.limits.request_timeout,
            body_timeout: self.limits.body_timeout,
            activity: Arc::clone(&activity),
        };
        let mut connection = pin!(self.builder.serve_connection(io, service));
        let mut overdue = pin!(activity.overdue(&self.limits));
        let ended = tokio::select! {
            ended = connection.as_mut() => Some(ended),
            () = overdue.as_mut() => None,
            () = self.stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = connection.as_mut() => Some(ended),
                    () = overdue => None,
                }
            }
        };
        match ended {
            Some(Ok(())) => {}
            Some(Err(error)) => tracing::debug!(%error, "connection ended"),
            None => self.overdue("a connection was idle, or its header did not end"),
        }
    }

    fn overdue(&self, what: &'static str) {
        self.connections.overdue.fetch_add(1, Ordering::Relaxed);
        tracing::debug!("closing a connection: {what}");
    }
}

/// The router as hyper's service, with the request timeout around it.
#[derive(Clone)]
struct RouterService {
    router: axum::Router,
    request_timeout: Duration,
    body_timeout: Duration,
    activity: Arc<Activity>,
}

impl hyper::service::Service<Request<Incoming>> for RouterService {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let running = self.activity.enter(request.version() == http::Version::HTTP_2);
        let answer = self.router.clone().call(request.map(|body| Body::new(Paced::new(body, self.body_timeout))));
        let limit = self.request_timeout;
        Box::pin(async move {
            let _running = running;
            match tokio::time::timeout(limit, answer).await {
                Ok(answer) => answer,
                Err(_) => Ok(too_slow(limit)),
            }
        })
    }
}

/// The answer to a request that took longer than it may.
pub(crate) fn too_slow(limit: Duration) -> Response {
    let text = format!("the request was not done within {} s; retry\n", limit.as_secs());
    (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "5")], text).into_response()
}
