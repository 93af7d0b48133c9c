//! Steps that train another instance on each part of the batch.

use sdpoint_engine::{EngineError, Images, StepInput, StepOutcome};

use super::{Step, Trainer, add_to_mean};
use crate::branching::Branching;
use crate::checkpoint::Checkpoint;

impl Trainer<'_> {
    /// Computes the mean of the gradients of all images, each in the instance of
    /// its part, and leaves it in `mean`. Returns the outcome over all images, or
    /// that of the first part whose loss is not finite.
    pub(super) fn in_parts(&mut self, step: &Step<'_>) -> Result<StepOutcome, EngineError> {
        let Checkpoint { plan, weights, .. } = &self.state;
        let images = step.images();
        let classes = plan.classes.len();
        let mut targets = step.targets(plan);
        let target = targets.target(None);
        let of_an_image = images.data.len() / images.batch;
        let mut total: Option<StepOutcome> = None;
        let parts = Branching::images_of_parts(step.instances.len(), images.batch);
        for (&index, part) in std::iter::zip(step.instances, parts) {
            let outcome = self.engine.step(StepInput {
                weights,
                images: Images {
                    data: &images.data[part.start * of_an_image..part.end * of_an_image],
                    batch: part.len(),
                    size: images.size,
                },
                target: target.part(part.clone(), classes),
                instance: self.sampler.instance(index),
            })?;
            if !outcome.loss.is_finite() {
                return Ok(outcome);
            }
            let share = part.len() as f64 / images.batch as f64;
            let gradients = self.engine.gradients();
            add_to_mean(&mut self.mean, gradients, share as f32, total.is_none());
            let mut sum = total.unwrap_or(outcome);
            match total {
                None => sum.loss *= share,
                Some(_) => {
                    sum.loss += share * outcome.loss;
                    sum.correct += outcome.correct;
                }
            }
            total = Some(sum);
        }
        Ok(total.expect("a step has at least one part"))
    }
}
