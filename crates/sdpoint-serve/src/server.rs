//! The server: its listeners and graceful shutdown.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sdpoint::core::words::plural;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use crate::Executor;
use crate::app::App;
use crate::clients::Clients;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::models::Registry;
use crate::net::connection::Shared;
use crate::net::listener::accept;
use crate::net::open_files;
use crate::net::origin::{Origin, Pages};
use crate::net::token::Tokens;
use crate::net::{Front, Protocol};
use crate::protocol::grpc::health::Health;
use crate::protocol::{grpc, metrics, rest};

/// Connections for metrics and their probes, beside those of clients.
const METRICS_PLACES: usize = 16;

/// The configuration of a server.
#[derive(Clone, Debug)]
pub struct Options {
    /// The address of REST and `/predict`.
    pub rest: SocketAddr,
    /// The address of gRPC; none turns it off.
    pub grpc: Option<SocketAddr>,
    /// The address of metrics; none turns them off.
    pub metrics: Option<SocketAddr>,
    /// The tokens of clients; without any, everyone may use the server.
    pub tokens: Tokens,
    /// Other origins whose web pages may use it.
    pub origins: Vec<Origin>,
    /// Whether requests may load and unload models.
    pub admin: bool,
    /// The time that a request without a deadline has once it was received and decoded.
    pub objective: Duration,
    /// How long requests in progress may take once the server stops.
    pub drain: Duration,
    /// Limits on memory, time and connections.
    pub limits: Limits,
}

/// The addresses that a server listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// REST and `/predict`.
    pub rest: SocketAddr,
    /// gRPC.
    pub grpc: Option<SocketAddr>,
    /// Metrics.
    pub metrics: Option<SocketAddr>,
}

/// An error of starting a server.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The reason.
        source: io::Error,
    },
}

/// Requests that were in progress when the server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the server ended before {} could be answered, {} s after it was told to",
    plural(*requests, "request", "requests"),
    drain.as_secs_f64()
)]
pub struct Lost {
    /// Their number.
    pub requests: usize,
    /// The time that they had.
    pub drain: Duration,
}

/// A server with open listeners.
pub struct Server {
    app: Arc<App>,
    listeners: Vec<(TcpListener, Kind)>,
    addresses: Addresses,
    options: Options,
}

/// The kind of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Rest,
    Grpc,
    Metrics,
}

impl Server {
    /// Listens on the addresses. Connections are accepted once [`Server::run`] is called.
    ///
    /// # Errors
    /// If an address is in use, or not of this machine.
    pub async fn bind(
        options: Options,
        registry: Registry,
        executor: Arc<dyn Executor>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, ServeError> {
        let wanted = [
            (Some(options.rest), Kind::Rest),
            (options.grpc, Kind::Grpc),
            (options.metrics, Kind::Metrics),
        ];
        let mut addresses = Addresses {
            rest: options.rest,
            grpc: None,
            metrics: None,
        };
        let mut listeners = Vec::new();
        for (address, kind) in wanted {
            let Some(address) = address else { continue };
            let fail = |source| ServeError::Listen { address, source };
            let listener = TcpListener::bind(address).await.map_err(fail)?;
            let bound = listener.local_addr().map_err(fail)?;
            match kind {
                Kind::Rest => addresses.rest = bound,
                Kind::Grpc => addresses.grpc = Some(bound),
                Kind::Metrics => addresses.metrics = Some(bound),
            }
            listeners.push((listener, kind));
        }
        let app = App::new(
            registry,
            executor,
            metrics,
            options.limits.clone(),
            options.objective,
            options.admin,
        );
        Ok(Self {
            app: Arc::new(app),
            listeners,
            addresses,
            options,
        })
    }

    /// The addresses; a port of 0 has been replaced by the one that was assigned.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// A handle to load models while the server runs.
    pub fn app(&self) -> Handle {
        Handle(self.app.clone())
    }

    /// Serves until `stop` completes, then answers the requests in progress.
    ///
    /// # Errors
    /// If some are not answered within the time to drain.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), Lost> {
        open_files::warn(self.options.limits.connections);
        let (stopping, receiver) = watch::channel(false);
        // Metrics and readiness can be watched while requests are answered.
        let (drained, until_drained) = watch::channel(false);
        let places = self
            .options
            .limits
            .connections
            .clamp(1, Semaphore::MAX_PERMITS >> 3);
        let clients = Shared::new(places, receiver);
        let watchers = Shared::new(METRICS_PLACES, until_drained);
        let busy = Arc::<Clients>::default();
        let health = Health::new();
        health.set(false).await;
        let tokens = Arc::new(self.options.tokens.clone());
        for (listener, kind) in self.listeners {
            let local = listener
                .local_addr()
                .is_ok_and(|address| address.ip().is_loopback());
            let (protocol, router) = match kind {
                Kind::Rest => (Protocol::Rest, rest::router(self.app.clone())),
                Kind::Grpc => (Protocol::Grpc, grpc::router(self.app.clone(), &health)),
                Kind::Metrics => (Protocol::Rest, metrics::router(self.app.clone())),
            };
            let (shared, busy) = match kind {
                Kind::Metrics => (&watchers, Arc::default()),
                Kind::Rest | Kind::Grpc => (&clients, busy.clone()),
            };
            let front = Front {
                app: self.app.clone(),
                pages: Arc::new(Pages {
                    allowed: self.options.origins.clone(),
                    local: local && tokens.is_empty(),
                }),
                tokens: tokens.clone(),
                busy,
                protocol,
                router,
            };
            tokio::spawn(accept(listener, front, shared.clone()));
        }
        let watching = tokio::spawn(health.clone().follow(self.app.clone()));
        stop.await;
        tracing::info!("shutting down; answering requests in progress");
        self.app.stop();
        let _ = stopping.send(true);
        watching.abort();
        health.set(false).await;
        health.end().await;
        let all = u32::try_from(places).unwrap_or(u32::MAX);
        let all = clients.places.acquire_many(all);
        let in_time = tokio::time::timeout(self.options.drain, all).await.is_ok();
        let lost = match in_time {
            true => 0,
            false => clients.busy.load(Ordering::Relaxed),
        };
        let _ = drained.send(true);
        self.app.close();
        match lost {
            0 => Ok(()),
            requests => Err(Lost {
                requests,
                drain: self.options.drain,
            }),
        }
    }
}

/// A handle to a running server.
#[derive(Clone)]
pub struct Handle(Arc<App>);

impl Handle {
    /// The models.
    pub fn registry(&self) -> &Registry {
        &self.0.registry
    }
}
