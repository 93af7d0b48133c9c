//! The protocol over gRPC.

mod codec;
mod config;
mod convert;
pub mod deadline;
pub mod health;
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
pub mod inference;
mod service;
mod status;
mod unsupported;

use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::routing::post;
use tonic::server::{Grpc, UnaryService};
use tonic::{Response, Status};

use crate::app::App;
use codec::Bounded;
use health::Health;
use inference::grpc_inference_service_server::{GrpcInferenceService, GrpcInferenceServiceServer};
use inference::{ModelInferRequest, ModelInferResponse};
use service::Service;

/// Bytes of a message other than an inference request: names and a few parameters.
const LONGEST_MESSAGE: usize = 1 << 16;

/// Routes for the gRPC services.
pub fn router(app: Arc<App>, health: &Health) -> Router {
    let most = app.limits.body;
    let service = Arc::new(Service(app));
    let others = GrpcInferenceServiceServer::from_arc(service.clone())
        .max_decoding_message_size(LONGEST_MESSAGE);
    let infer = move |request: Request<Body>| async move {
        Grpc::new(Bounded::default())
            .apply_max_message_size_config(Some(most), None)
            .unary(Infer(service), request)
            .await
    };
    unsupported::routes()
        .route("/inference.GRPCInferenceService/ModelInfer", post(infer))
        .route_service("/inference.GRPCInferenceService/{method}", others)
        .route_service("/grpc.health.v1.Health/{method}", health.service())
        .fallback(async || Status::unimplemented("there is no such service").into_http::<Body>())
}

/// The method for inference. The generated one would decode any message.
struct Infer(Arc<Service>);

impl UnaryService<ModelInferRequest> for Infer {
    type Response = ModelInferResponse;
    type Future =
        Pin<Box<dyn Future<Output = Result<Response<ModelInferResponse>, Status>> + Send>>;

    fn call(&mut self, request: tonic::Request<ModelInferRequest>) -> Self::Future {
        let service = self.0.clone();
        Box::pin(async move { service.model_infer(request).await })
    }
}
