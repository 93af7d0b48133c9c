//! The accuracy of `full` during a run.

use std::sync::Arc;

use sdpoint_core::{Instance, Network, Scores, Weights};
use sdpoint_data::Dataset;

use crate::calibrate::calibrate;
use crate::error::TrainError;
use crate::evaluate::{EvaluateOptions, Trained, evaluate};
use crate::metrics::FullMetrics;
use crate::observer::Silent;
use crate::plan::TrainPlan;
use crate::run::Run;
use crate::splits::Splits;

/// Calibrates `full` with the current weights, and measures it on the test
/// images, on those held out of training, and on some training images. It is short next to an epoch, so it
/// reports no progress and cannot be stopped.
pub(crate) fn measure_full(
    run: &Run<'_>,
    splits: &Splits,
    plan: &TrainPlan,
    network: &Arc<Network>,
    weights: &Weights,
) -> Result<FullMetrics, TrainError> {
    let instances = [Instance::Full];
    let options = plan.calibrate_options(&instances);
    let train = plan.feed(&splits.train);
    let statistics = calibrate(run.ctx, network, weights, train, options, &mut Silent)?;
    let trained = Trained {
        network,
        weights,
        statistics: &statistics,
    };
    let measured = |data: &Dataset| -> Result<Scores, TrainError> {
        let options = EvaluateOptions::new(&instances);
        let evaluation = evaluate(run.ctx, trained, plan.feed(data), options, &mut Silent)?;
        let scores = evaluation.records[0].scores();
        Ok(scores.expect("evaluation measures every instance"))
    };
    let sample = splits.train.balanced(plan.calibration_images, plan.seed)?;
    let (train, test) = (measured(&sample)?, measured(&splits.test)?);
    let held_out = splits.held_out.as_ref().map(measured).transpose()?;
    Ok(FullMetrics {
        train_loss: train.loss,
        train_accuracy: train.top1,
        val_loss: held_out.map(|scores| scores.loss),
        val_accuracy: held_out.map(|scores| scores.top1),
        test_loss: test.loss,
        test_accuracy: test.top1,
    })
}
