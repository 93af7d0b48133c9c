//! Steps of `full` with branches.

use sdpoint_core::Instance;
use sdpoint_engine::{BranchedInput, EngineError, Images, StepInput, StepOutcome, Target, softmax};

use super::{Step, Trainer, add_to_mean};
use crate::branch_sizes::{SizedBranch, reduced};
use crate::branching::Branching;
use crate::checkpoint::Checkpoint;

impl Trainer<'_> {
    /// Computes the gradients of a step of `full` and its branches. Returns the
    /// outcome of `full`, or of the first branch whose loss is not finite.
    pub(super) fn branched(&mut self, step: &Step<'_>) -> Result<StepOutcome, EngineError> {
        let drawn = self.drawn(step);
        let branches = Branching::branches_of(&drawn[1..], step.batch.len());
        let steps = self.steps();
        let Checkpoint {
            plan,
            counters,
            weights,
            ..
        } = &self.state;
        let branching = plan.branching;
        let outcome = self.engine.step_branched(BranchedInput {
            weights,
            images: step.images(),
            target: step.targets(plan).target(None),
            branches: &branches,
            distillation: branching.distillation(plan.distill, counters.step, steps),
        })?;
        let mut all = std::iter::once(&outcome.full).chain(&outcome.branches);
        let infinite = all.find(|outcome| !outcome.loss.is_finite());
        Ok(*infinite.unwrap_or(&outcome.full))
    }

    /// The branches of a step on smaller images.
    pub(super) fn sized_branches(&self, step: &Step<'_>) -> Vec<SizedBranch> {
        let Checkpoint { plan, counters, .. } = &self.state;
        plan.sized_branches(&self.sampler, counters.step, step.batch.len())
    }

    /// As [`Trainer::branched`], with branches that run `full` on smaller images.
    /// The gradients are in `mean` afterwards.
    pub(super) fn branched_by_size(
        &mut self,
        step: &Step<'_>,
        branches: &[SizedBranch],
    ) -> Result<StepOutcome, EngineError> {
        let steps = self.steps();
        let Checkpoint {
            plan,
            counters,
            weights,
            ..
        } = &self.state;
        let distillation = plan
            .branching
            .distillation(plan.distill, counters.step, steps);
        let images = step.images();
        let classes = self.network.classes();
        let target =
            |labels| Target::labels(labels).with_smoothing(plan.recipe.label_smoothing as f32);
        let full = self.engine.step(StepInput {
            weights,
            images,
            target: target(&step.batch.labels),
            instance: Instance::Full,
        })?;
        add_to_mean(&mut self.mean, self.engine.gradients(), 1.0, true);
        let mut predictions = self.engine.logits().to_vec();
        softmax(&mut predictions, classes);
        let of_an_image = images.data.len() / images.batch;
        for SizedBranch { size, images: part } in branches {
            let data = &images.data[part.start * of_an_image..part.end * of_an_image];
            let channels = self.network.input_channels();
            let data = reduced(data, channels, images.size, *size);
            let rows = part.start * classes..part.end * classes;
            let outcome = self.engine.step(StepInput {
                weights,
                images: Images {
                    data: &data,
                    batch: part.len(),
                    size: *size,
                },
                target: Target {
                    soft: (distillation.share > 0.0)
                        .then_some((&predictions[rows], distillation.share)),
                    ..target(&step.batch.labels[part.clone()])
                },
                instance: Instance::Full,
            })?;
            if !outcome.loss.is_finite() {
                return Ok(outcome);
            }
            let share = distillation.weight * part.len() as f32 / images.batch as f32;
            add_to_mean(&mut self.mean, self.engine.gradients(), share, false);
        }
        Ok(full)
    }
}
