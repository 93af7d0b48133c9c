//! Optional methods of the inference service that are refused, each with the reason.

use axum::Router;
use axum::body::Body;
use axum::routing::post;
use tonic::Status;

use super::super::error::{ApiError, Kind, shared_memory};

/// The extensions' methods, and what is said to their callers.
const METHODS: [(&str, Option<&str>); 9] = [
    (
        "ModelStreamInfer",
        Some("streaming is not supported; call ModelInfer for each request"),
    ),
    ("SystemSharedMemoryStatus", None),
    ("SystemSharedMemoryRegister", None),
    ("SystemSharedMemoryUnregister", None),
    ("CudaSharedMemoryStatus", None),
    ("CudaSharedMemoryRegister", None),
    ("CudaSharedMemoryUnregister", None),
    ("TraceSetting", Some("tracing is not supported")),
    ("LogSettings", Some("logging is set on the command line")),
];

/// Routes for these methods. They are no part of the generated service, whose generic code for
/// each method takes longer to compile than all of them here.
pub(super) fn routes() -> Router {
    METHODS
        .into_iter()
        .fold(Router::new(), |router, (method, reason)| {
            let path = format!("/inference.GRPCInferenceService/{method}");
            let refuse = async move || refusal(reason).into_http::<Body>();
            router.route(&path, post(refuse))
        })
}

/// The answer to a call; shared memory has one text for both protocols.
fn refusal(reason: Option<&str>) -> Status {
    let error = reason.map_or_else(shared_memory, |text| ApiError::new(Kind::Unsupported, text));
    error.into()
}
