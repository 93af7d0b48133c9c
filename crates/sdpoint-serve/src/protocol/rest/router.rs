//! The routes of REST.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, FromRequestParts, Path, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use serde_json::json;

use super::super::error::{ApiError, Kind, shared_memory};
use super::super::parameters::{Parameter, add, query};
use super::{binary, body, models, predict, repository, respond, triton};
use crate::app::{App, Call, VERSION};
use crate::page;

/// The state that handlers share.
pub type Shared = State<Arc<App>>;

/// The protocol extensions that the server supports.
pub const EXTENSIONS: [&str; 5] = [
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "statistics",
];

/// Routes for REST, `/predict`, and the page with what it shows.
pub fn router(app: Arc<App>) -> Router {
    let mut router = Router::new()
        .route("/v2", get(server))
        .route("/v2/", get(server))
        .route("/v2/models/stats", get(triton::all_statistics))
        .route("/v2/repository/index", post(repository::index))
        .route("/v2/repository/models/{model}/load", post(repository::load))
        .route(
            "/v2/repository/models/{model}/unload",
            post(repository::unload),
        )
        .route("/predict", post(predict::predict))
        .route("/models", get(models::list))
        .route("/models/{model}", get(models::describe))
        .route("/models/{model}/load", get(models::load))
        .route("/models/{model}/samples/{sample}", get(models::sample))
        .merge(health())
        .merge(page::router());
    for prefix in [
        "/v2/models/{model}",
        "/v2/models/{model}/versions/{version}",
    ] {
        router = router
            .route(prefix, get(model))
            .route(&format!("{prefix}/ready"), get(model_ready))
            .route(&format!("{prefix}/config"), get(triton::config))
            .route(&format!("{prefix}/stats"), get(triton::statistics))
            .route(&format!("{prefix}/infer"), post(infer));
    }
    for prefix in ["/v2/systemsharedmemory", "/v2/cudasharedmemory"] {
        let path = format!("{prefix}/{{*rest}}");
        router = router.route(&path, any(async || shared_memory()));
    }
    router
        .fallback(async || ApiError::new(Kind::NotFound, "there is nothing at this path"))
        .method_not_allowed_fallback(async || {
            ApiError::new(Kind::Method, "this path does not support this method")
        })
        .with_state(app)
}

/// Routes for probes.
pub fn health() -> Router<Arc<App>> {
    Router::new()
        .route("/v2/health/live", get(live))
        .route("/v2/health/ready", get(ready))
}

/// The model and version in a path.
pub struct Target {
    /// The model's name.
    pub model: String,
    /// The version, if there is one.
    pub version: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for Target {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = Path::<HashMap<String, String>>::from_request_parts(parts, state).await;
        let Path(mut names) = path.map_err(|_| ApiError::invalid("the path is not valid"))?;
        Ok(Self {
            model: names.remove("model").unwrap_or_default(),
            version: names.remove("version"),
        })
    }
}

async fn server() -> Response {
    let body = json!({
        "name": "sdpoint",
        "version": env!("CARGO_PKG_VERSION"),
        "extensions": EXTENSIONS,
    });
    respond::json(StatusCode::OK, &body)
}

async fn live() -> Response {
    respond::json(StatusCode::OK, &json!({"live": true}))
}

async fn ready(State(app): Shared) -> Response {
    let ready = app.ready();
    let status = ready_status(ready);
    respond::json(status, &json!({"live": true, "ready": ready}))
}

fn ready_status(ready: bool) -> StatusCode {
    if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}

async fn model(State(app): Shared, target: Target) -> Result<Response, ApiError> {
    let model = app.model(&target.model, target.version.as_deref())?;
    let body = json!({
        "name": model.name,
        "versions": [VERSION],
        "platform": "sdpoint_safetensors",
        "inputs": model.signature.inputs(),
        "outputs": model.signature.outputs(),
        "properties": {
            "network": model.engine.network().name(),
            "generation": model.generation.to_string(),
        },
    });
    Ok(respond::json(StatusCode::OK, &body))
}

async fn model_ready(State(app): Shared, target: Target) -> Result<Response, ApiError> {
    let found = app.model(&target.model, target.version.as_deref());
    let (ready, error) = match found {
        Ok(_) => (true, None),
        Err(error) if error.kind == Kind::Unavailable => (false, Some(error.message)),
        Err(error) => return Err(error),
    };
    let mut body = json!({"name": target.model, "ready": ready});
    if let Some(error) = error {
        body["error"] = error.into();
    }
    Ok(respond::json(ready_status(ready), &body))
}

async fn infer(
    State(app): Shared,
    Extension(call): Extension<Call>,
    target: Target,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let request = async {
        let body = body::read(&app, &call, &headers, body, app.limits.body).await?;
        let _turn = body::turn(&app, binary::json_length(&headers, &body)).await;
        let (mut request, binary) = binary::read(&headers, body, &call.memory)?;
        // A body that is an image file has no other place for parameters.
        for (name, value) in query(&uri) {
            add(&mut request.parameters, name, Parameter::Text(value))?;
        }
        Ok((request, binary))
    };
    let version = target.version.as_deref();
    let answer = app.infer(&call, &target.model, version, request).await?;
    Ok(respond::answer(&answer).into_response())
}
