//! Serves one connection.

use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use axum::http::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::{Notify, Semaphore, watch};

use super::front::{Answering, Front, Protocol};
use super::timed::Timed;
use crate::clients::Share;
use crate::limits::Limits;

/// The longest interval between checks for idleness.
const TICK: Duration = Duration::from_secs(1);

/// How long a client may take to close a connection after a graceful shutdown, or to send the
/// rest of a request's header.
const FAREWELL: Duration = Duration::from_secs(1);

/// State shared by all connections that share a limit on their number.
#[derive(Clone)]
pub struct Shared {
    /// Each connection holds one of these places until it closes.
    pub places: Arc<Semaphore>,
    /// Wakes one connection at a time, which closes if it is idle, to make room.
    pub room: Arc<Notify>,
    /// Requests in progress.
    pub busy: Arc<AtomicUsize>,
    /// Becomes true when they have to end.
    pub stopping: watch::Receiver<bool>,
}

impl Shared {
    /// The state for so many connections, until `stopping`.
    pub fn new(places: usize, stopping: watch::Receiver<bool>) -> Self {
        Self {
            places: Arc::new(Semaphore::new(places)),
            room: Arc::default(),
            busy: Arc::default(),
            stopping,
        }
    }

    /// Waits until the connections have to end.
    pub fn stop(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut stopping = self.stopping.clone();
        async move {
            // A dropped sender means that the server has stopped.
            let _ = stopping.wait_for(|&stopping| stopping).await;
        }
    }
}

/// Counts the requests of a connection.
#[derive(Debug, Default)]
pub struct Activity {
    /// Requests in progress.
    busy: AtomicUsize,
    /// Those of all connections.
    all_busy: Arc<AtomicUsize>,
    /// All requests so far.
    total: AtomicUsize,
    /// When the first bytes of the next request's header were received, if no request is
    /// in progress.
    header: Mutex<Option<Instant>>,
    /// Since when each of its answers is being sent.
    sending: Mutex<Vec<Instant>>,
    /// What it takes of its client's connections while it has a request in progress.
    share: Mutex<Weak<Share>>,
}

impl Activity {
    /// No requests yet, of a connection whose requests in progress also count in `all_busy`.
    fn new(all_busy: Arc<AtomicUsize>) -> Self {
        Self {
            all_busy,
            ..Self::default()
        }
    }

    /// Notes that bytes were received.
    pub fn received(&self) {
        if self.busy.load(Ordering::Relaxed) == 0 {
            self.header().get_or_insert_with(Instant::now);
        }
    }

    fn header(&self) -> MutexGuard<'_, Option<Instant>> {
        self.header.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The share of its requests in progress, or else the one that `take` takes.
    ///
    /// # Errors
    /// That of `take`.
    pub fn share<E>(&self, take: impl FnOnce() -> Result<Share, E>) -> Result<Arc<Share>, E> {
        let mut current = self.share.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = current.upgrade() {
            return Ok(share);
        }
        let share = Arc::new(take()?);
        *current = Arc::downgrade(&share);
        Ok(share)
    }

    fn sending(&self) -> MutexGuard<'_, Vec<Instant>> {
        self.sending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request in progress, until its response is sent.
pub struct Busy {
    activity: Arc<Activity>,
    /// What its connection takes of its client's.
    pub share: Option<Arc<Share>>,
    /// Since when its answer is being sent.
    sending: Option<Instant>,
}

impl Busy {
    /// Notes that a request has begun.
    pub fn new(activity: &Arc<Activity>) -> Self {
        activity.busy.fetch_add(1, Ordering::Relaxed);
        activity.all_busy.fetch_add(1, Ordering::Relaxed);
        activity.total.fetch_add(1, Ordering::Relaxed);
        *activity.header() = None;
        Self {
            activity: activity.clone(),
            share: None,
            sending: None,
        }
    }

    /// Notes that there is an answer to send.
    pub fn answered(&mut self) {
        let now = Instant::now();
        self.activity.sending().push(now);
        self.sending = Some(now);
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.activity.busy.fetch_sub(1, Ordering::Relaxed);
        self.activity.all_busy.fetch_sub(1, Ordering::Relaxed);
        if let Some(since) = self.sending {
            let mut sending = self.activity.sending();
            let place = sending.iter().position(|&other| other == since);
            sending.swap_remove(place.expect("it was added"));
        }
    }
}

/// Passes the requests of a connection to its listener's [`Front`].
struct Requests {
    front: Front,
    client: IpAddr,
    activity: Arc<Activity>,
}

impl Service<Request<Incoming>> for Requests {
    type Response = Response;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, request: Request<Incoming>) -> Answering {
        self.front.call(request, self.client, &self.activity)
    }
}

/// Serves a connection until it closes, times out, or is closed to make room.
pub async fn serve(stream: TcpStream, client: IpAddr, front: Front, shared: Shared) {
    let limits = &front.app.limits;
    let activity = Arc::new(Activity::new(shared.busy.clone()));
    let io = Timed::new(stream, limits.write_time, activity.clone());
    let service = Requests {
        front: front.clone(),
        client,
        activity: activity.clone(),
    };
    match front.protocol {
        Protocol::Rest => {
            let mut builder = http1::Builder::new();
            builder
                .timer(TokioTimer::new())
                .header_read_timeout(limits.keep_alive)
                .max_buf_size(64 << 10)
                .max_headers(64);
            let connection = builder.serve_connection(io, service);
            let idle = Idle::http1(activity, limits);
            guard(
                connection,
                http1::Connection::graceful_shutdown,
                idle,
                shared,
            )
            .await;
        }
        Protocol::Grpc => {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder
                .timer(TokioTimer::new())
                .keep_alive_interval(limits.header_time)
                .keep_alive_timeout(limits.header_time)
                .max_concurrent_streams(256)
                .max_header_list_size(16 << 10)
                // An image of 224 × 224 in three frames instead of 37.
                .max_frame_size(1 << 18)
                .initial_stream_window_size(1 << 20)
                .initial_connection_window_size(4 << 20);
            let connection = builder.serve_connection(io, service);
            let idle = Idle::http2(activity, limits);
            guard(
                connection,
                http2::Connection::graceful_shutdown,
                idle,
                shared,
            )
            .await;
        }
    }
}

/// Decides when a connection has timed out.
struct Idle {
    activity: Arc<Activity>,
    /// Time limit for a header, from its first byte.
    header: Option<Duration>,
    /// Time limits for the first request and between requests.
    between: Option<[Duration; 2]>,
    /// Time limit for sending an answer. A client of HTTP/2 may hold back one while the
    /// connection goes on.
    answer: Option<Duration>,
    /// The number of requests so far, and when the last activity was seen.
    seen: (usize, Instant),
    tick: Duration,
}

impl Idle {
    /// hyper closes an idle HTTP/1 connection after the keep-alive time; this adds the
    /// shorter limit once a header has begun.
    fn http1(activity: Arc<Activity>, limits: &Limits) -> Self {
        Self {
            activity,
            header: Some(limits.header_time),
            between: None,
            answer: None,
            seen: (0, Instant::now()),
            tick: (limits.header_time / 4).clamp(Duration::from_millis(1), TICK),
        }
    }

    fn http2(activity: Arc<Activity>, limits: &Limits) -> Self {
        Self {
            header: None,
            between: Some([limits.header_time, limits.idle_time]),
            answer: Some(limits.write_time),
            ..Self::http1(activity, limits)
        }
    }

    fn busy(&self) -> bool {
        self.activity.busy.load(Ordering::Relaxed) > 0
    }

    /// Whether the connection has timed out by now.
    fn too_long(&mut self) -> bool {
        let total = self.activity.total.load(Ordering::Relaxed);
        let now = Instant::now();
        if self.busy() || total != self.seen.0 {
            self.seen = (total, now);
        }
        let began = *self.activity.header();
        let slow = |time| began.is_some_and(|began| now.duration_since(began) >= time);
        let idle = |[first, between]: [Duration; 2]| {
            now.duration_since(self.seen.1) >= if total == 0 { first } else { between }
        };
        let unread = |time| {
            let sending = self.activity.sending();
            let since = sending.iter().min();
            since.is_some_and(|&since| now.duration_since(since) >= time)
        };
        self.header.is_some_and(slow)
            || self.between.is_some_and(idle)
            || self.answer.is_some_and(unread)
    }
}

/// Runs a connection, and shuts it down gracefully when it has to end.
async fn guard<C: Future>(
    connection: C,
    shut_down: fn(Pin<&mut C>),
    mut idle: Idle,
    shared: Shared,
) {
    let mut connection = pin!(connection);
    let mut tick = tokio::time::interval(idle.tick);
    let mut stopping = false;
    // Whether a request may still be on its way.
    let mut expecting = true;
    let farewell = async {
        shared.stop().await;
        tokio::time::sleep(FAREWELL).await;
    };
    let mut farewell = pin!(farewell);
    loop {
        tokio::select! {
            _ = connection.as_mut() => return,
            () = shared.stop(), if !stopping => {
                // The server's drain limits how long requests in progress may take.
                shut_down(connection.as_mut());
                stopping = true;
            }
            () = farewell.as_mut(), if expecting => {
                // Whoever has sent a part of a header does not hold up the others.
                if !idle.busy() {
                    return;
                }
                expecting = false;
            }
            () = shared.room.clone().notified_owned() => {
                if !idle.busy() {
                    break;
                }
            }
            _ = tick.tick() => {
                if idle.too_long() {
                    break;
                }
            }
        }
    }
    shut_down(connection.as_mut());
    let _ = tokio::time::timeout(FAREWELL, connection).await;
}
