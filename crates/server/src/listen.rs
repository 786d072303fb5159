//! The listener: accepts connections, bounds how many there are and how long each may take, and
//! ends them gracefully.
//!
//! hyper speaks the protocol; what a connection may do with its time is decided here, in the same
//! way for HTTP/1, HTTP/2 and the bytes before that is known. A watchdog looks at two instants that
//! the socket wrapper keeps: a connection that began a request, or has not had one yet, must bring a
//! whole header within `header_timeout`, and one that does nothing is closed after `idle_timeout`.
//! The time of a request itself is bounded by `request_timeout`.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{Request, StatusCode, header};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;

use crate::BodyLimits;

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
    tls: Option<Arc<rustls::ServerConfig>>,
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
    tls: Option<Arc<rustls::ServerConfig>>,
    shutdown: CancellationToken,
    connections: Arc<Connections>,
) -> io::Result<()> {
    let shell = Arc::new(Shell { router, limits, tls: tls.map(TlsAcceptor::from), builder: builder(), stop: shutdown.clone() });
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
    tls: Option<TlsAcceptor>,
    builder: auto::Builder<TokioExecutor>,
    stop: CancellationToken,
}

impl Shell {
    async fn connection(self: Arc<Self>, stream: TcpStream, _place: Place) {
        // Answers are small and clients wait for them.
        let _ = stream.set_nodelay(true);
        match &self.tls {
            None => self.http(stream).await,
            Some(acceptor) => match tokio::time::timeout(self.limits.header_timeout, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => self.http(stream).await,
                Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
                Err(_) => tracing::debug!("TLS handshake took too long"),
            },
        }
    }

    async fn http<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(&self, stream: S) {
        let activity = Arc::new(Activity::new());
        let io = TokioIo::new(Watched { inner: stream, activity: Arc::clone(&activity) });
        let service =
            RouterService { router: self.router.clone(), request_timeout: self.limits.request_timeout, activity: Arc::clone(&activity) };
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
        if let Some(Err(error)) = ended {
            tracing::debug!(%error, "connection ended");
        }
    }
}

/// When a connection last did something. Times are milliseconds since `start`, plus one, so that 0
/// means never.
struct Activity {
    start: Instant,
    running: AtomicUsize,
    /// The connection's start, or the first byte since the last request ended, while no request runs.
    began: AtomicU64,
    last: AtomicU64,
    /// HTTP/2 has traffic between requests, so `began` says nothing once a request came that way.
    http2: AtomicBool,
}

impl Activity {
    fn new() -> Self {
        Activity {
            start: Instant::now(),
            running: AtomicUsize::new(0),
            // A new connection owes its first request.
            began: AtomicU64::new(1),
            last: AtomicU64::new(1),
            http2: AtomicBool::new(false),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1
    }

    fn moved(&self, read: bool) {
        let now = self.now();
        self.last.store(now, Ordering::Relaxed);
        if read && self.running.load(Ordering::Relaxed) == 0 && self.began.load(Ordering::Relaxed) == 0 {
            self.began.store(now, Ordering::Relaxed);
        }
    }

    fn enter(self: &Arc<Self>, http2: bool) -> Running {
        self.running.fetch_add(1, Ordering::Relaxed);
        self.began.store(0, Ordering::Relaxed);
        if http2 {
            self.http2.store(true, Ordering::Relaxed);
        }
        Running(Arc::clone(self))
    }

    /// Resolves when the connection has used up its time.
    async fn overdue(&self, limits: &Limits) {
        let mut check = limits.header_timeout.min(limits.idle_timeout);
        loop {
            tokio::time::sleep(check).await;
            match self.remaining(limits) {
                Some(left) if left.is_zero() => return,
                Some(left) => check = left,
                None => check = limits.header_timeout.min(limits.idle_timeout),
            }
        }
    }

    /// Time left, or `None` while a request runs.
    fn remaining(&self, limits: &Limits) -> Option<Duration> {
        if self.running.load(Ordering::Relaxed) > 0 {
            return None;
        }
        let since = |instant: u64| Duration::from_millis(self.now().saturating_sub(instant));
        let idle = limits.idle_timeout.saturating_sub(since(self.last.load(Ordering::Relaxed)));
        let began = self.began.load(Ordering::Relaxed);
        if began == 0 || self.http2.load(Ordering::Relaxed) {
            return Some(idle);
        }
        Some(idle.min(limits.header_timeout.saturating_sub(since(began))))
    }
}

/// A request that runs; its end counts as activity.
struct Running(Arc<Activity>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
        self.0.moved(false);
    }
}

/// A socket that tells [`Activity`] when bytes move.
struct Watched<S> {
    inner: S,
    activity: Arc<Activity>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.activity.moved(true);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.wrote(polled)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.wrote(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl<S> Watched<S> {
    fn wrote(&self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if matches!(polled, Poll::Ready(Ok(n)) if n > 0) {
            self.activity.moved(false);
        }
        polled
    }
}

/// The router as hyper's service, with the request timeout around it.
#[derive(Clone)]
struct RouterService {
    router: axum::Router,
    request_timeout: Duration,
    activity: Arc<Activity>,
}

impl hyper::service::Service<Request<Incoming>> for RouterService {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let running = self.activity.enter(request.version() == http::Version::HTTP_2);
        let answer = self.router.clone().call(request.map(Body::new));
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
