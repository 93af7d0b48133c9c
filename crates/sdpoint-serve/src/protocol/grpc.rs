//! The protocol over gRPC.

mod config;
mod convert;
pub mod deadline;
pub mod health;
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
pub mod inference;
mod service;
mod status;
mod unsupported;

use std::sync::Arc;

use axum::Router;

use crate::app::App;
use health::Health;
use inference::grpc_inference_service_server::GrpcInferenceServiceServer;
use service::Service;

/// Routes for the gRPC services.
pub fn router(app: Arc<App>, health: &Health) -> Router {
    let most = app.limits.body;
    let inference = GrpcInferenceServiceServer::new(Service(app)).max_decoding_message_size(most);
    unsupported::routes()
        .route_service("/inference.GRPCInferenceService/{method}", inference)
        .route_service("/grpc.health.v1.Health/{method}", health.service())
        .fallback(async || {
            tonic::Status::unimplemented("there is no such service").into_http::<axum::body::Body>()
        })
}
