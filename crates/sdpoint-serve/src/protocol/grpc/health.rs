//! gRPC's health checking: the whole server, and the inference service.

use std::sync::Arc;
use std::time::Duration;

use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};

use crate::app::App;

/// The services that clients may ask for: all, and inference.
const SERVICES: [&str; 2] = ["", "inference.GRPCInferenceService"];

/// How often readiness is looked at.
const TICK: Duration = Duration::from_millis(100);

/// What clients are told about the server's health.
#[derive(Clone)]
pub struct Health(HealthReporter);

impl Health {
    /// Nothing is served yet.
    pub fn new() -> Self {
        Self(HealthReporter::new())
    }

    /// The service that tells clients.
    pub fn service(&self) -> HealthServer<HealthService> {
        HealthServer::new(HealthService::from_health_reporter(self.0.clone()))
    }

    /// Follows the server's readiness, for ever.
    pub async fn follow(self, app: Arc<App>) {
        let mut known = false;
        loop {
            let ready = app.ready();
            if known != ready {
                self.set(ready).await;
                known = ready;
            }
            tokio::time::sleep(TICK).await;
        }
    }

    /// Ends the streams of those who watch.
    pub async fn end(mut self) {
        for service in SERVICES {
            self.0.clear_service_status(service).await;
        }
    }

    /// Tells clients whether the server is ready.
    pub async fn set(&self, ready: bool) {
        let status = if ready {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        for service in SERVICES {
            self.0.set_service_status(service, status).await;
        }
    }
}
