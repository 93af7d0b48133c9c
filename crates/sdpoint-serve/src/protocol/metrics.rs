//! The endpoints that Prometheus scrapes and that probes ask.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::error::{ApiError, Kind};
use super::rest::router::health;
use crate::app::App;

/// Routes for `/metrics`, and for probes, whose connections clients cannot take up here.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .merge(health())
        .fallback(async || ApiError::new(Kind::NotFound, "metrics are at /metrics"))
        .with_state(app)
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    app.metrics
        .memory
        .set(i64::try_from(app.memory.used()).unwrap_or(i64::MAX));
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], app.metrics.text()).into_response()
}
