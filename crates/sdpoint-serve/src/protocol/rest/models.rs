//! What the page shows of the models: their curves, test images and load. Read-only, and
//! open to other programs; `docs/serving.md` describes the answers.

use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use sdpoint::core::words::plural;
use sdpoint::core::{Combination, CombinedRecord, ExifOrientation, Record, Times};
use sdpoint::profile::TimeSource;
use serde::Serialize;
use serde_json::{Value, json};

use super::super::error::{ApiError, Kind, quoted};
use super::super::parameters::query;
use super::respond;
use super::router::{Shared, Target};
use crate::models::{Model, State as ModelState, Status, UNLOADED};
use crate::recent::{Second, Times as Latencies};

/// `GET /models`: the models and the server's limits.
pub async fn list(State(app): Shared) -> Response {
    let one = |status: Status| {
        let (state, reason, generation) = match status.state {
            ModelState::Ready(model) => {
                let reason = status.failure.map(|failure| reload_failed(&failure));
                ("ready", reason, Some(model.generation))
            }
            ModelState::Loading => ("loading", None, None),
            ModelState::Unloaded => ("unavailable", Some(UNLOADED.to_owned()), None),
            ModelState::Unavailable(reason) => ("unavailable", Some(reason), None),
        };
        json!({
            "name": status.name, "state": state, "reason": reason, "generation": generation,
        })
    };
    let models: Vec<Value> = app.registry.statuses().into_iter().map(one).collect();
    let body = json!({
        "models": models,
        "objective_ms": milliseconds(app.objective),
        "max_images": app.limits.images,
        "max_body_bytes": app.limits.body,
        "max_pixels": app.limits.pixels,
    });
    respond::json(StatusCode::OK, &body)
}

/// Why a model that is ready is not the one in its file.
pub fn reload_failed(failure: &str) -> String {
    format!("the last reload failed, so the old model answers: {failure}")
}

#[derive(Serialize)]
struct Description<'a> {
    name: &'a str,
    generation: u64,
    network: &'a str,
    /// Height and width.
    input: [usize; 2],
    classes: usize,
    /// Whether images are turned as their EXIF data says before they are classified.
    exif_orientation: ExifOrientation,
    times: String,
    instances: Vec<Row>,
    samples: Vec<Sample<'a>>,
}

/// A test image that the model file keeps.
#[derive(Serialize)]
struct Sample<'a> {
    label: usize,
    class: &'a str,
}

/// An instance, a cascade or an ensemble.
#[derive(Serialize)]
struct Row {
    name: String,
    kind: &'static str,
    /// The number of a combination, for the parameter of that name.
    #[serde(skip_serializing_if = "Option::is_none")]
    combination: Option<usize>,
    macs: u64,
    share: f64,
    /// The time of one image on an idle machine; for combinations, estimated.
    #[serde(skip_serializing_if = "Option::is_none")]
    ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top1: Option<f64>,
}

/// `GET /models/{model}`: the cost and accuracy of its instances and combinations.
pub async fn describe(State(app): Shared, target: Target) -> Result<Response, ApiError> {
    let model = app.model(&target.model, None)?;
    let engine = model.engine.clone();
    // Loading has measured or read the times; this may only have to copy them.
    let times = tokio::task::spawn_blocking(move || engine.times(1)).await;
    let times = times.ok().and_then(Result::ok).unwrap_or_default();
    let classes = model.engine.classes();
    let samples = model.engine.samples().iter().map(|kept| Sample {
        label: kept.label,
        class: &classes[kept.label],
    });
    let body = Description {
        name: &model.name,
        generation: model.generation,
        network: model.engine.network().name(),
        input: model.signature.size,
        classes: model.signature.classes,
        exif_orientation: model.engine.preprocessing().exif_orientation,
        times: origin(model.engine.time_source()),
        instances: rows(&model, &times),
        samples: samples.collect(),
    };
    Ok(respond::json(StatusCode::OK, &body))
}

/// Where the times are from, without the path of a profile that cannot be used: the log has it.
fn origin(source: &TimeSource) -> String {
    match source {
        TimeSource::Unusable(_) => "the latency profile beside the model cannot be used, so a few \
                                    instances were measured and the others estimated"
            .to_owned(),
        source => source.to_string(),
    }
}

fn rows(model: &Model, times: &Times) -> Vec<Row> {
    let records = model.engine.records();
    let most = records.iter().map(|record| record.macs).max().unwrap_or(0);
    let share = |macs: u64| macs as f64 / most.max(1) as f64;
    let instances = records.iter().map(|record| Row {
        name: record.instance.to_string(),
        kind: "instance",
        combination: None,
        macs: record.macs,
        share: share(record.macs),
        ms: times.get(&record.instance).copied().map(milliseconds),
        top1: record.top1,
    });
    let combinations = model.engine.combinations().iter().enumerate();
    let combinations = combinations.map(|(number, combined)| Row {
        name: combined.combination.to_string(),
        kind: combined.combination.kind(),
        combination: Some(number),
        macs: combined.macs,
        share: share(combined.macs),
        ms: estimate(combined, records, times),
        top1: Some(combined.top1),
    });
    instances.chain(combinations).collect()
}

/// The expected time of a combination, in milliseconds: its members' times, less what they
/// share, in proportion to multiply-accumulates.
fn estimate(combined: &CombinedRecord, records: &[Record], times: &Times) -> Option<f64> {
    let cost = |instance| {
        let record = records.iter().find(|record| record.instance == instance)?;
        let time = times.get(&instance).copied().map(milliseconds)?;
        Some((record.macs as f64, time))
    };
    match &combined.combination {
        Combination::Cascade(_) | Combination::BlendedCascade(_) => {
            let stages = combined.combination.members();
            let (first, time) = cost(*stages.first()?)?;
            let (last, longer) = cost(*stages.last()?)?;
            let extra = (combined.macs as f64 - first).max(0.0);
            Some(time + extra / last.max(1.0) * longer)
        }
        Combination::Ensemble(members) => {
            let costs: Option<Vec<(f64, f64)>> = members.iter().map(|&m| cost(m)).collect();
            let costs = costs?;
            let macs: f64 = costs.iter().map(|(macs, _)| macs).sum();
            let time: f64 = costs.iter().map(|(_, time)| time).sum();
            Some(time * combined.macs as f64 / macs.max(1.0))
        }
    }
}

/// `GET /models/{model}/samples/{sample}`: a test image, as a PNG file.
pub async fn sample(
    State(app): Shared,
    Path((name, index)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let model = app.model(&name, None)?;
    let index: Option<usize> = index.parse().ok();
    let kept = index.and_then(|index| model.engine.samples().get(index));
    let kept = kept.ok_or_else(|| {
        let count = model.engine.samples().len();
        let images = plural(count, "test image", "test images");
        let problem = format!("model '{name}' has {images}, counted from 0");
        ApiError::new(Kind::NotFound, problem)
    })?;
    let headers = [
        (header::CONTENT_TYPE, "image/png"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; sandbox",
        ),
    ];
    Ok((headers, kept.png.clone()).into_response())
}

/// `GET /models/{model}/load`: what it did in each of the last 120 seconds; with
/// `?after=N`, only in the seconds after `N`.
pub async fn load(State(app): Shared, target: Target, uri: Uri) -> Result<Response, ApiError> {
    let mut after = None;
    for (key, value) in query(&uri) {
        let number = || value.parse().ok();
        match &*key {
            "after" => after = Some(number().ok_or_else(|| bad("'after' must be a number"))?),
            _ => return Err(bad(&format!("unknown parameter {}", quoted(&key)))),
        }
    }
    let metrics = app.registry.metrics(&target.model)?;
    let queue = match app.registry.state(&target.model)? {
        ModelState::Ready(model) => app.waiting(&model),
        _ => 0,
    };
    let recent = metrics.recent();
    let summary = recent.summary();
    let second = |second: Second| {
        json!({
            "at": second.at,
            "answered": second.answered,
            "refused": second.refused,
            "refused_images": second.refused_images,
            "in_time": second.met,
            "p50_ms": quantile(&second.times, 0.5),
            "p99_ms": quantile(&second.times, 0.99),
            "images": second.images,
        })
    };
    let body = json!({
        "now": recent.now(),
        "objective_ms": milliseconds(app.objective),
        "queued_images": queue,
        "answered_per_second": summary.answered,
        "in_time": summary.met,
        "p50_ms": quantile(&summary.times, 0.5),
        "p99_ms": quantile(&summary.times, 0.99),
        "seconds": recent.after(after).into_iter().map(second).collect::<Vec<Value>>(),
    });
    Ok(respond::json(StatusCode::OK, &body))
}

fn bad(problem: &str) -> ApiError {
    ApiError::new(Kind::Invalid, problem.to_owned())
}

fn quantile(times: &Latencies, share: f64) -> Option<f64> {
    times.quantile(share).map(milliseconds)
}

/// With as many digits as are meaningful.
fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}
