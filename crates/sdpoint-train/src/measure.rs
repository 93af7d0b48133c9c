//! What `full` is worth in the middle of a run.

use std::sync::Arc;

use sdpoint_core::{Instance, Network, Weights};
use sdpoint_engine::NormSource;

use crate::calibrate::{Feed, calibrate};
use crate::error::TrainError;
use crate::evaluate::evaluate;
use crate::metrics::FullMetrics;
use crate::observer::Silent;
use crate::plan::Plan;
use crate::run::Run;

/// Calibrates `full` with the weights as they are, and measures it on the
/// test images and on some training images. It takes seconds where training
/// takes minutes, so that nobody is told and nobody can stop it.
pub(crate) fn measure_full(
    run: &Run<'_>,
    plan: &Plan,
    network: &Arc<Network>,
    weights: &Weights,
) -> Result<FullMetrics, TrainError> {
    let feed = |data| Feed {
        data,
        preprocessing: &plan.preprocessing,
        batch_size: plan.recipe.batch_size,
    };
    let instances = [Instance::Full];
    let (ctx, count) = (run.ctx, plan.calibration_images);
    let statistics = calibrate(
        ctx,
        network,
        weights,
        &instances,
        feed(run.train),
        count,
        plan.seed,
        &mut Silent,
    )?;
    let known = run.train.balanced(count, plan.seed)?;
    let [train, test] = [&known, run.test].map(|data| {
        evaluate(
            ctx,
            network,
            weights,
            &statistics,
            &instances,
            &[],
            NormSource::Own,
            feed(data),
            &mut Silent,
        )
    });
    let value = |value: Option<f64>| value.expect("evaluation measures all it is given");
    let (train, test) = (train?.records.remove(0), test?.records.remove(0));
    Ok(FullMetrics {
        train_loss: value(train.loss),
        train_accuracy: value(train.top1),
        test_loss: value(test.loss),
        test_accuracy: value(test.top1),
    })
}
