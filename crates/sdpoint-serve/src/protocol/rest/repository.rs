//! Model control: the list of models, loading and unloading.

use axum::body::{Body, Bytes};
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::error::ApiError;
use super::json::words;
use super::models::reload_failed;
use super::router::{Shared, Target};
use super::{body, respond};
use crate::app::{App, Call, VERSION};
use crate::models::{State as ModelState, Status, UNLOADED};

/// The body of a request; everything is optional.
#[derive(Default, Deserialize)]
#[serde(expecting = "an object")]
struct Request {
    #[serde(default, deserialize_with = "words::ready")]
    ready: Option<bool>,
    #[serde(default, deserialize_with = "words::parameters")]
    parameters: Option<serde_json::Map<String, Value>>,
}

async fn read(
    app: &App,
    call: &Call,
    headers: &HeaderMap,
    body: Body,
) -> Result<Request, ApiError> {
    const MOST: usize = 1 << 16;
    let body: Bytes = body::read(app, call, headers, body, MOST.min(app.limits.body)).await?;
    if body.is_empty() {
        return Ok(Request::default());
    }
    serde_json::from_slice(&body).map_err(|error| words::invalid(&error))
}

pub async fn index(
    State(app): Shared,
    Extension(call): Extension<Call>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let request = read(&app, &call, &headers, body).await?;
    let ready_only = request.ready.unwrap_or(false);
    let models: Vec<Value> = app
        .registry
        .statuses()
        .into_iter()
        .map(|status| {
            let state = state_name(&status);
            (status.name, state)
        })
        .filter(|(_, (state, _))| !ready_only || *state == "READY")
        .map(|(name, (state, reason))| {
            json!({"name": name, "version": VERSION, "state": state, "reason": reason})
        })
        .collect();
    Ok(respond::json(StatusCode::OK, &models))
}

/// The name that Triton has for a model's state, and the reason.
pub fn state_name(status: &Status) -> (&'static str, String) {
    match &status.state {
        ModelState::Ready(_) => {
            let reason = status.failure.as_deref().map(reload_failed);
            ("READY", reason.unwrap_or_default())
        }
        ModelState::Loading => ("LOADING", String::new()),
        ModelState::Unloaded => ("UNAVAILABLE", UNLOADED.to_owned()),
        ModelState::Unavailable(reason) => ("UNAVAILABLE", reason.clone()),
    }
}

pub async fn load(
    State(app): Shared,
    Extension(call): Extension<Call>,
    target: Target,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let request = read(&app, &call, &headers, body).await?;
    check_load(request.parameters.unwrap_or_default().keys())?;
    app.load(&target.model).await?;
    Ok(respond::json(StatusCode::OK, &json!({})))
}

/// Refuses parameters that would replace a model's file or configuration.
pub fn check_load<'a>(mut names: impl Iterator<Item = &'a String>) -> Result<(), ApiError> {
    if names.any(|name| name == "config" || name.starts_with("file:")) {
        return Err(ApiError::invalid(
            "a model is always loaded from its own file; a request cannot send another file or \
             configuration",
        ));
    }
    Ok(())
}

pub async fn unload(
    State(app): Shared,
    Extension(call): Extension<Call>,
    target: Target,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    read(&app, &call, &headers, body).await?;
    app.unload(&target.model).await?;
    Ok(respond::json(StatusCode::OK, &json!({})))
}
