//! The results of a run: statistics, accuracies, the curve, the model file.

use std::io::Write;
use std::sync::Arc;

use sdpoint_core::atomic::write_atomically;
use sdpoint_core::{Instance, Model, Network, Weights};
use sdpoint_data::{Augmentation, Dataset};

use crate::calibrate::calibrate;
use crate::curve::{Series, curve_csv, curve_svg};
use crate::draw::Method;
use crate::error::TrainError;
use crate::evaluate::{EvaluateOptions, Evaluation, Trained, evaluate};
use crate::folder;
use crate::keep::kept_images;
use crate::observer::Observer;
use crate::plan::TrainPlan;
use crate::run::Run;
use crate::sampler::Phases;
use crate::splits::Splits;
use crate::statistics_from;

/// The results of a run.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Finished {
    /// The model, as in the model file. Its accuracies are those on the images
    /// held out of training, unless there are none.
    pub model: Model,
    /// The accuracy of every instance on the test images.
    pub evaluation: Evaluation,
    /// The models that end at each early exit, as in their model files.
    pub exits: Vec<Model>,
    /// The number of training steps in each instance.
    pub drawn: Vec<(Instance, u64)>,
}

/// What a run has after its last step.
pub(crate) struct FinishedTraining<'a> {
    pub plan: &'a TrainPlan,
    /// The network that was trained.
    pub network: &'a Arc<Network>,
    pub weights: Weights,
    /// The number of training steps in each instance.
    pub drawn: Vec<(Instance, u64)>,
}

/// Calibrates and evaluates all instances of the trained `network`, and writes
/// the results. Repeated, it writes the same bytes.
pub(crate) fn finish(
    run: &Run<'_>,
    splits: &Splits,
    training: FinishedTraining<'_>,
    observer: &mut dyn Observer,
) -> Result<Finished, TrainError> {
    let FinishedTraining {
        plan,
        network,
        weights,
        drawn,
    } = training;
    let own = Arc::new(plan.network.clone());
    let mut ends = Vec::new();
    if plan.exits {
        let exits = plan.network.exits();
        let exits = exits.map_err(|error| TrainError::Plan(error.to_string()))?;
        for (index, exit) in exits.into_iter().enumerate() {
            let weights = part(&weights, network, &exit)?;
            let (model, _) = model(run, splits, plan, &Arc::new(exit), weights, observer)?;
            model.save(run.folder.join(folder::exit(index + 1)))?;
            ends.push(model);
        }
    }
    let weights = if plan.exits {
        part(&weights, network, &own)?
    } else {
        weights
    };
    let (model, evaluation) = model(run, splits, plan, &own, weights, observer)?;
    let title = format!(
        "{} on {}: accuracy over cost",
        network.name(),
        run.test.source().name()
    );
    let series = [Series::new(plan.method.to_string(), &model.instances, &[])];
    for (file, text) in [
        (folder::CURVE_CSV, curve_csv(&model.instances, &[])),
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

/// The weights of a network that is a part of the trained one.
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

/// A model of a trained network with the statistics and accuracies of all
/// instances, and their evaluation on the test images.
fn model(
    run: &Run<'_>,
    splits: &Splits,
    plan: &TrainPlan,
    network: &Arc<Network>,
    weights: Weights,
    observer: &mut dyn Observer,
) -> Result<(Model, Evaluation), TrainError> {
    let instances = network.instances(&plan.ratios);
    let options = plan.calibrate_options(&instances);
    let train = plan.feed(&splits.train);
    let statistics = calibrate(run.ctx, network, &weights, train, options, observer)?;
    let trained = Trained {
        network,
        weights: &weights,
        statistics: &statistics,
    };
    let mut measured = |data: &Dataset| {
        let options = EvaluateOptions::new(&instances);
        evaluate(run.ctx, trained, plan.feed(data), options, observer)
    };
    let evaluation = measured(&splits.test)?;
    let mut records = evaluation.records.clone();
    if let Some(held_out) = &splits.held_out {
        let on_test = std::mem::replace(&mut records, measured(held_out)?.records);
        for (record, on_test) in std::iter::zip(&mut records, on_test) {
            record.test = on_test.scores();
        }
    }
    let model = Model {
        network: network.as_ref().clone(),
        weights,
        statistics,
        classes: plan.classes.clone(),
        preprocessing: plan.preprocessing.clone(),
        instances: records,
        combinations: Vec::new(),
        held_out: plan.held_out(),
        samples: kept_images(plan, run.test)?,
        training: provenance(plan),
    };
    Ok((model, evaluation))
}

/// The training's settings, for the model file. It has no times and no thread
/// counts, so equal runs write equal files.
fn provenance(plan: &TrainPlan) -> serde_json::Value {
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
        statistics_from::KEY: plan.statistics_from,
    });
    // Settings that few runs have are listed only if set.
    if plan.phases != Phases::default() {
        provenance["phases"] = serde_json::json!(plan.phases);
    }
    if plan.method == Method::Branched {
        provenance["branching"] = serde_json::json!(plan.branching);
    }
    if plan.parts > 1 {
        provenance["parts"] = plan.parts.into();
    }
    if !plan.branch_scales.is_empty() {
        provenance["branch_scales"] = serde_json::json!(plan.branch_scales);
    }
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
    if plan.augmentation != Augmentation::default() {
        provenance["augmentation"] = serde_json::json!(plan.augmentation);
    }
    if !plan.scales.is_empty() {
        provenance["scales"] = serde_json::json!(plan.scales);
    }
    provenance
}
