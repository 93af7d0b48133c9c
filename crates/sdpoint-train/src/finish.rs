//! From trained weights to results: statistics, curve, model file.

use std::io::Write;
use std::sync::Arc;

use sdpoint_core::atomic::write_atomically;
use sdpoint_core::{Instance, Model, Network, Weights};
use sdpoint_engine::NormSource;

use crate::calibrate::{Feed, calibrate};
use crate::curve::{Series, curve_csv, curve_svg};
use crate::error::TrainError;
use crate::evaluate::{Evaluation, evaluate};
use crate::folder;
use crate::observer::Observer;
use crate::plan::Plan;
use crate::run::Run;

/// What a run gave.
#[derive(Clone, Debug, PartialEq)]
pub struct Finished {
    /// The model, as it was written.
    pub model: Model,
    /// Every instance on the test images.
    pub evaluation: Evaluation,
    /// The models that end at each early exit, as they were written.
    pub exits: Vec<Model>,
    /// Steps in each instance.
    pub drawn: Vec<(Instance, u64)>,
}

/// Calibrates and evaluates all instances of what was trained, `network`, and
/// writes the results. Done twice, it gives the same bytes twice.
pub(crate) fn finish(
    run: &Run<'_>,
    plan: &Plan,
    network: &Arc<Network>,
    weights: Weights,
    drawn: Vec<(Instance, u64)>,
    observer: &mut dyn Observer,
) -> Result<Finished, TrainError> {
    let own = Arc::new(plan.network.clone());
    let mut ends = Vec::new();
    if plan.exits {
        let exits = plan.network.exits();
        let exits = exits.map_err(|error| TrainError::Plan(error.to_string()))?;
        for (index, exit) in exits.into_iter().enumerate() {
            let weights = part(&weights, network, &exit)?;
            let (model, _) = model(run, plan, &Arc::new(exit), weights, observer)?;
            model.save(run.folder.join(folder::exit(index + 1)))?;
            ends.push(model);
        }
    }
    let weights = if plan.exits {
        part(&weights, network, &own)?
    } else {
        weights
    };
    let (model, evaluation) = model(run, plan, &own, weights, observer)?;
    let title = format!(
        "{} on {}: accuracy over cost",
        network.name(),
        run.test.source().name()
    );
    let series = [Series::new(
        plan.method.to_string(),
        &evaluation.records,
        &[],
    )];
    for (file, text) in [
        (folder::CURVE_CSV, curve_csv(&evaluation.records, &[])),
        (folder::CURVE_SVG, curve_svg(&title, &series)),
    ] {
        write_atomically(&run.folder.join(file), |out| out.write_all(text.as_bytes()))?;
    }
    model.save(run.folder.join(folder::MODEL))?;
    Ok(Finished {
        model,
        evaluation,
        exits: ends,
        drawn,
    })
}

/// The weights of a network that is a part of the one that was trained.
fn part(weights: &Weights, trained: &Network, network: &Network) -> Result<Weights, TrainError> {
    let part = weights.select(trained, network);
    part.ok_or_else(|| {
        TrainError::Plan(format!(
            "{} lacks weights of {}",
            trained.name(),
            network.name()
        ))
    })
}

/// A trained network with the statistics of all instances, and what they make
/// of the test images.
fn model(
    run: &Run<'_>,
    plan: &Plan,
    network: &Arc<Network>,
    weights: Weights,
    observer: &mut dyn Observer,
) -> Result<(Model, Evaluation), TrainError> {
    let instances = network.instances(&plan.ratios);
    let feed = |data| Feed {
        data,
        preprocessing: &plan.preprocessing,
        batch_size: plan.recipe.batch_size,
    };
    let statistics = calibrate(
        run.ctx,
        network,
        &weights,
        &instances,
        feed(run.train),
        plan.calibration_images,
        plan.seed,
        observer,
    )?;
    let evaluation = evaluate(
        run.ctx,
        network,
        &weights,
        &statistics,
        &instances,
        &[],
        NormSource::Own,
        feed(run.test),
        observer,
    )?;
    let model = Model {
        network: network.as_ref().clone(),
        weights,
        statistics,
        classes: plan.classes.clone(),
        preprocessing: plan.preprocessing.clone(),
        instances: evaluation.records.clone(),
        combinations: Vec::new(),
        training: provenance(plan),
    };
    Ok((model, evaluation))
}

/// What a model file says of its training. No times and no thread counts:
/// equal runs write equal files.
fn provenance(plan: &Plan) -> serde_json::Value {
    let mut provenance = serde_json::json!({
        "program": concat!("sdpoint ", env!("CARGO_PKG_VERSION")),
        "data": plan.data,
        "init": plan.init,
        "method": plan.method,
        "draw": plan.draw,
        "ratios": plan.ratios,
        "recipe": plan.recipe,
        "seed": plan.seed,
        "calibration_images": plan.calibration_images,
    });
    // What few runs have is said where it is.
    for (name, value) in [
        ("distill", plan.distill),
        ("dropout", plan.dropout),
        ("stochastic_depth", plan.stochastic_depth),
    ] {
        if value > 0.0 {
            provenance[name] = value.into();
        }
    }
    if plan.exits {
        provenance["exits"] = true.into();
    }
    if !plan.scales.is_empty() {
        provenance["scales"] = serde_json::json!(plan.scales);
    }
    provenance
}
