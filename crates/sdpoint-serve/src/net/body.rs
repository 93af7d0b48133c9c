//! Bodies: of requests, with limits on size, time and total memory; of responses, until
//! they are sent.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;

use super::connection::Busy;
use crate::delivery::Sending;
use crate::memory::Reservation;
use crate::protocol::error::{ApiError, Kind};

/// A request body that fails once it exceeds a limit.
pub struct Guarded {
    body: Incoming,
    left: usize,
    most: usize,
    memory: Option<Arc<Reservation>>,
    time: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Guarded {
    /// Limits a body to `most` bytes, received within `time`. They are counted in `memory`, or if
    /// there is none, by what collects them.
    pub fn new(
        body: Incoming,
        most: usize,
        time: Duration,
        memory: Option<Arc<Reservation>>,
    ) -> Self {
        Self {
            body,
            left: most,
            most,
            memory,
            time,
            timer: None,
        }
    }

    fn slow(&self) -> ApiError {
        ApiError::new(
            Kind::Slow,
            format!("the body did not arrive within {} s", self.time.as_secs()),
        )
    }
}

impl HttpBody for Guarded {
    type Data = Bytes;
    type Error = ApiError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ApiError>>> {
        let this = self.get_mut();
        let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) else {
            // Most bodies arrive at once and need no timer.
            let time = this.time;
            let timer = this
                .timer
                .get_or_insert_with(|| Box::pin(tokio::time::sleep(time)));
            ready!(timer.as_mut().poll(cx));
            return Poll::Ready(Some(Err(this.slow())));
        };
        let Some(frame) = frame else {
            return Poll::Ready(None);
        };
        let gone = |_| ApiError::invalid("the connection closed before the end of the body");
        let checked = frame.map_err(gone).and_then(|frame| {
            let length = frame.data_ref().map_or(0, Bytes::len);
            this.left = this
                .left
                .checked_sub(length)
                .ok_or_else(|| ApiError::too_long(this.most))?;
            if let Some(memory) = &this.memory {
                memory.add(length)?;
            }
            Ok(frame)
        });
        Poll::Ready(Some(checked))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A response body that keeps its request counted as busy until it is sent.
pub struct Watched {
    /// The body.
    pub body: Body,
    /// The request.
    pub _busy: Busy,
    /// Whether it met its deadline.
    pub _sending: Option<Sending>,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
