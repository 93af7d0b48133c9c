//! Training steps with per-step timing.

use std::time::Duration;

use sdpoint_core::{LayerId, Network};
use sdpoint_kernels::AlgorithmChoice;

use super::plan::StepPlan;
use super::{BranchedInput, BranchedOutcome, StepInput, StepOutcome, TrainingEngine};
use crate::EngineError;
use crate::lower::Node;
use crate::timing::{Pass, StepTime, StepTimer, node_time};

/// The part of a training step that has just finished.
pub(super) enum StepEvent<'a> {
    /// Repacking the weights for the kernels.
    Pack,
    /// The forward pass of a node.
    Forward(&'a StepPlan, &'a Node),
    /// The loss and its gradient.
    Loss,
    /// The gradients of a node's weights.
    BackwardWeights(&'a StepPlan, &'a Node),
    /// The gradient with respect to one of a node's inputs; for batch norms,
    /// with respect to the parameters too.
    BackwardData(&'a StepPlan, &'a Node),
    /// The sum of two gradients of one value.
    GradientSum,
}

impl TrainingEngine {
    /// As [`TrainingEngine::step`]; also returns the time of each part.
    ///
    /// # Errors
    /// As [`TrainingEngine::step`].
    pub fn step_timed(
        &mut self,
        input: StepInput<'_>,
    ) -> Result<(StepOutcome, Vec<StepTime>), EngineError> {
        let network = self.pass.base.network.clone();
        let choice = self.pass.base.ctx.algorithms();
        let mut timer = StepTimer::start();
        let outcome = self.step_with_events(input, |event| {
            timer.lap(|time| event.step_time(&network, choice, time))
        })?;
        Ok((outcome, timer.finish()))
    }

    /// As [`TrainingEngine::step_branched`]; also returns the time of each part.
    /// The names of those that belong to a branch begin with its instance, as in
    /// `3@0.5: layer2.1.conv1`.
    ///
    /// # Errors
    /// As [`TrainingEngine::step_branched`].
    pub fn step_branched_timed(
        &mut self,
        input: BranchedInput<'_>,
    ) -> Result<(BranchedOutcome, Vec<StepTime>), EngineError> {
        let network = self.pass.base.network.clone();
        let choice = self.pass.base.ctx.algorithms();
        let mut timer = StepTimer::start();
        let outcome = self.step_branched_with_events(input, |(branch, event)| {
            timer.lap(|time| {
                let mut step = event.step_time(&network, choice, time);
                if let Some(instance) = branch {
                    step.name = format!("{instance}: {}", step.name);
                }
                step
            });
        })?;
        Ok((outcome, timer.finish()))
    }
}

impl StepEvent<'_> {
    fn step_time(&self, network: &Network, choice: AlgorithmChoice, time: Duration) -> StepTime {
        let node = |plan: &StepPlan, node: &Node, pass| {
            node_time(network, &plan.placement, node, pass, choice, time)
        };
        let last = LayerId(network.layers().len() - 1);
        let other = |layer, name: &str, pass| StepTime {
            layer,
            name: name.into(),
            pass,
            shapes: None,
            macs: 0,
            algorithms: Vec::new(),
            time,
        };
        match *self {
            StepEvent::Pack => other(LayerId(0), "pack weights", Pass::Pack),
            StepEvent::Forward(plan, n) => node(plan, n, Pass::Forward),
            StepEvent::Loss => other(last, "loss", Pass::Loss),
            StepEvent::BackwardWeights(plan, n) => node(plan, n, Pass::BackwardWeights),
            StepEvent::BackwardData(plan, n) => node(plan, n, Pass::BackwardData),
            StepEvent::GradientSum => other(LayerId(0), "sum of gradients", Pass::BackwardData),
        }
    }
}
