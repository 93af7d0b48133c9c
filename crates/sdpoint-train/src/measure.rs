//! The accuracy of `full` during a run.

use std::sync::Arc;

use sdpoint_core::{Instance, Network, Weights};

use crate::calibrate::{Feed, calibrate};
use crate::error::TrainError;
use crate::evaluate::{EvaluateOptions, Trained, evaluate};
use crate::metrics::FullMetrics;
use crate::observer::Silent;
use crate::plan::TrainPlan;
use crate::run::Run;

/// Calibrates `full` with the current weights, and measures it on the test
/// images and on some training images. It is short next to an epoch, so it
/// reports no progress and cannot be stopped.
pub(crate) fn measure_full(
    run: &Run<'_>,
    plan: &TrainPlan,
    network: &Arc<Network>,
    weights: &Weights,
) -> Result<FullMetrics, TrainError> {
    let feed = |data| Feed {
        data,
        preprocessing: &plan.preprocessing,
        batch_size: plan.recipe.batch_size,
    };
    let instances = [Instance::Full];
    let options = plan.calibrate_options(&instances);
    let train = feed(run.train);
    let statistics = calibrate(run.ctx, network, weights, train, options, &mut Silent)?;
    let trained = Trained {
        network,
        weights,
        statistics: &statistics,
    };
    let sample = run.train.balanced(plan.calibration_images, plan.seed)?;
    let [train, test] = [&sample, run.test].map(|data| {
        let options = EvaluateOptions::new(&instances);
        evaluate(run.ctx, trained, feed(data), options, &mut Silent)
    });
    let value = |value: Option<f64>| value.expect("evaluation measures every instance");
    let (train, test) = (train?.records.remove(0), test?.records.remove(0));
    Ok(FullMetrics {
        train_loss: value(train.loss),
        train_accuracy: value(train.top1),
        test_loss: value(test.loss),
        test_accuracy: value(test.top1),
    })
}
