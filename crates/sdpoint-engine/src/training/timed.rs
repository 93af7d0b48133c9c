//! A training step with the time of each part taken.

use std::time::Duration;

use sdpoint_core::{Instance, LayerId, Network, Weights};

use super::plan::Plan;
use super::{StepOutcome, Target, TrainingEngine};
use crate::lower::Node;
use crate::timing::{Pass, StepTime, Stopwatch, node_time};
use crate::{EngineError, Images};

/// What has just been done in a training step.
pub(super) enum Part<'a> {
    /// Weights laid out for the kernels.
    Pack,
    /// A node's output.
    Forward(&'a Plan, &'a Node),
    /// The loss and its gradient.
    Loss,
    /// The gradients of a node's parameters.
    Weights(&'a Plan, &'a Node),
    /// The gradient with respect to one of a node's inputs.
    Data(&'a Plan, &'a Node),
    /// Two parts of a gradient added.
    Sum,
}

impl TrainingEngine {
    /// As [`TrainingEngine::step`], with the time of each part.
    ///
    /// # Errors
    /// As [`TrainingEngine::step`].
    pub fn step_timed(
        &mut self,
        weights: &Weights,
        images: Images<'_>,
        labels: &[u32],
        instance: Instance,
        label_smoothing: f32,
    ) -> Result<(StepOutcome, Vec<StepTime>), EngineError> {
        let network = self.pass.base.network.clone();
        let mut watch = Stopwatch::start();
        let target = Target {
            smoothing: label_smoothing,
            ..Target::labels(labels)
        };
        let outcome = self.step_in_parts(weights, images, target, instance, |part| {
            watch.lap(|time| part.step_time(&network, time))
        })?;
        Ok((outcome, watch.finish()))
    }
}

impl Part<'_> {
    fn step_time(&self, network: &Network, time: Duration) -> StepTime {
        let node =
            |plan: &Plan, node: &Node, pass| node_time(network, &plan.placement, node, pass, time);
        let last = LayerId(network.layers().len() - 1);
        let other = |layer, name: &str, pass| StepTime {
            layer,
            name: name.into(),
            pass,
            shapes: None,
            macs: 0,
            time,
        };
        match *self {
            Part::Pack => other(LayerId(0), "pack weights", Pass::Pack),
            Part::Forward(plan, n) => node(plan, n, Pass::Forward),
            Part::Loss => other(last, "loss", Pass::Loss),
            Part::Weights(plan, n) => node(plan, n, Pass::BackwardWeights),
            Part::Data(plan, n) => node(plan, n, Pass::BackwardData),
            Part::Sum => other(LayerId(0), "sum of gradients", Pass::BackwardData),
        }
    }
}
