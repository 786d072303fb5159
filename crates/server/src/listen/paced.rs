//! Request bodies that must keep coming.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

/// The error of a body of which nothing came for too long.
#[derive(Debug, thiserror::Error)]
#[error("nothing of the request body came for {} s", .limit.as_secs())]
pub(crate) struct SlowBody {
    pub(crate) limit: Duration,
}

/// A body that fails when its next piece does not come within a limit.
pub(super) struct Paced {
    inner: Incoming,
    limit: Duration,
    /// Made when there is something to wait for, which small bodies never have.
    timer: Option<Pin<Box<Sleep>>>,
    waiting: bool,
}

impl Paced {
    pub(super) fn new(inner: Incoming, limit: Duration) -> Self {
        Paced { inner, limit, timer: None, waiting: false }
    }

    /// The timer, started when the waiting began.
    fn timer(&mut self) -> Pin<&mut Sleep> {
        let deadline = Instant::now() + self.limit;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if !self.waiting {
            self.waiting = true;
            timer.as_mut().reset(deadline);
        }
        timer.as_mut()
    }
}

impl Body for Paced {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) {
            self.waiting = false;
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        ready!(self.timer().poll(cx));
        Poll::Ready(Some(Err(SlowBody { limit: self.limit }.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
