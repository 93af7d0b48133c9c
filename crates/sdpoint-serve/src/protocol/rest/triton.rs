//! Triton's model configuration and statistics, which its tools request.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};

use super::super::error::ApiError;
use super::super::signature::TensorMetadata;
use super::respond;
use super::router::{Shared, Target};
use crate::app::{App, VERSION};
use crate::statistics::{Counts, Tally};

pub async fn config(State(app): Shared, target: Target) -> Result<Response, ApiError> {
    let model = app.model(&target.model, target.version.as_deref())?;
    let tensor = |tensor: TensorMetadata| {
        json!({
            "name": tensor.name,
            "data_type": type_name(&tensor),
            "dims": tensor.shape,
        })
    };
    let inputs: Vec<Value> = model
        .signature
        .inputs()
        .map(|input| {
            let mut value = tensor(input);
            // A request has exactly one of them.
            value["optional"] = true.into();
            value
        })
        .into();
    let body = json!({
        "name": model.name,
        "platform": "sdpoint_safetensors",
        "backend": "sdpoint",
        // 0: shapes include the number of images. Triton's tools read input files only
        // then, and batching is up to the server.
        "max_batch_size": 0,
        "input": inputs,
        "output": model.signature.outputs().map(tensor),
    });
    Ok(respond::json(StatusCode::OK, &body))
}

/// The data type's name in a configuration.
pub fn type_name(tensor: &TensorMetadata) -> String {
    match tensor.datatype.to_string().as_str() {
        "BYTES" => "TYPE_STRING".to_owned(),
        name => format!("TYPE_{name}"),
    }
}

pub async fn statistics(State(app): Shared, target: Target) -> Result<Response, ApiError> {
    app.model(&target.model, target.version.as_deref())?;
    let counts = [counts(&app, &target.model)?];
    Ok(respond::json(
        StatusCode::OK,
        &json!({"model_stats": counts}),
    ))
}

pub async fn all_statistics(State(app): Shared) -> Result<Response, ApiError> {
    let names = app.registry.names();
    let counts: Result<Vec<Value>, ApiError> = names.map(|name| counts(&app, name)).collect();
    Ok(respond::json(
        StatusCode::OK,
        &json!({"model_stats": counts?}),
    ))
}

fn counts(app: &App, name: &str) -> Result<Value, ApiError> {
    let counts = app.registry.statistics(name)?.counts();
    let none = Tally::default();
    Ok(json!({
        "name": name,
        "version": VERSION,
        "last_inference": counts.last_inference,
        "inference_count": counts.inferences,
        "execution_count": executions(counts.executions),
        "inference_stats": {
            "success": counts.success,
            "fail": counts.fail,
            "queue": counts.queue,
            "compute_input": counts.input,
            "compute_infer": counts.compute,
            "compute_output": counts.output,
            "cache_hit": none,
            "cache_miss": none,
        },
        "response_stats": {},
        "batch_stats": batches(&counts).map(|(size, compute)| json!({
            "batch_size": size,
            "compute_input": none,
            "compute_infer": compute,
            "compute_output": none,
        })).collect::<Vec<Value>>(),
        "memory_usage": [],
    }))
}

/// A whole number of batches from a sum of shares.
pub fn executions(parts: f64) -> u64 {
    parts.round() as u64
}

/// The statistics of each batch size.
pub fn batches(counts: &Counts) -> impl Iterator<Item = (usize, Tally)> {
    counts
        .batches
        .iter()
        .map(|(&size, &(parts, time))| (size, tally(parts, time)))
}

fn tally(parts: f64, time: Duration) -> Tally {
    Tally {
        count: executions(parts),
        ns: u64::try_from(time.as_nanos()).unwrap_or(u64::MAX),
    }
}
