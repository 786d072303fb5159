//! What a connection does with its time.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::Limits;

/// When a connection last did something. Times are milliseconds since `start`, plus one, so that 0
/// means never.
pub(super) struct Activity {
    start: Instant,
    running: AtomicUsize,
    /// The connection's start, or the first byte since the last request ended, while no request runs.
    began: AtomicU64,
    last: AtomicU64,
    /// HTTP/2 has traffic between requests, so `began` says nothing once a request came that way.
    http2: AtomicBool,
}

impl Activity {
    /// Of a connection that was accepted at `start`.
    pub(super) fn new(start: Instant) -> Self {
        Activity {
            start,
            running: AtomicUsize::new(0),
            // A new connection owes its first request.
            began: AtomicU64::new(1),
            last: AtomicU64::new(u64::try_from(start.elapsed().as_millis()).unwrap_or(0) + 1),
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

    pub(super) fn enter(self: &Arc<Self>, http2: bool) -> Running {
        self.running.fetch_add(1, Ordering::Relaxed);
        self.began.store(0, Ordering::Relaxed);
        if http2 {
            self.http2.store(true, Ordering::Relaxed);
        }
        Running(Arc::clone(self))
    }

    /// Resolves when the connection has used up its time.
    pub(super) async fn overdue(&self, limits: &Limits) {
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
pub(super) struct Running(Arc<Activity>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
        self.0.moved(false);
    }
}

/// A socket that tells [`Activity`] when bytes move.
pub(super) struct Watched<S> {
    pub(super) inner: S,
    pub(super) activity: Arc<Activity>,
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
