//! gRPC health checking for the whole server and the inference service.

use std::sync::Arc;
use std::time::Duration;

use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};

use crate::app::App;

/// The names of the services: the whole server, and inference.
const SERVICES: [&str; 2] = ["", "inference.GRPCInferenceService"];

/// How often readiness is checked.
const TICK: Duration = Duration::from_millis(100);

/// The health that is reported to clients.
#[derive(Clone)]
pub struct Health(HealthReporter);

impl Health {
    /// Creates the service; nothing is serving yet.
    pub fn new() -> Self {
        Self(HealthReporter::new())
    }

    /// The gRPC service.
    pub fn service(&self) -> HealthServer<HealthService> {
        HealthServer::new(HealthService::from_health_reporter(self.0.clone()))
    }

    /// Reports the server's readiness until it is cancelled.
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

    /// Ends the streams of watching clients.
    pub async fn end(mut self) {
        for service in SERVICES {
            self.0.clear_service_status(service).await;
        }
    }

    /// Reports whether the server is ready.
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
