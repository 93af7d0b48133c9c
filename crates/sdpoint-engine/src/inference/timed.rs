//! Inference with per-step timing.

use std::time::Duration;

use sdpoint_core::Instance;

use super::plan::InferencePlan;
use super::{InferenceEngine, NormSource};
use crate::fuse::{ConvStep, Step};
use crate::timing::{Pass, StepTime, StepTimer, activation_name, node_time};
use crate::{EngineError, Images};

impl InferenceEngine {
    /// As [`InferenceEngine::run`]; also returns the time of each kernel call.
    ///
    /// # Errors
    /// As [`InferenceEngine::run`].
    pub fn run_timed(
        &self,
        images: Images<'_>,
        instance: Instance,
    ) -> Result<(Vec<f32>, Vec<StepTime>), EngineError> {
        let mut run = self.start(images)?;
        let mut timer = StepTimer::start();
        let logits = run.branch_with(instance, NormSource::Own, |plan, step| {
            timer.lap(|time| self.step_time(plan, step, time));
        })?;
        Ok((logits, timer.finish()))
    }

    fn step_time(&self, plan: &InferencePlan, step: &Step, time: Duration) -> StepTime {
        let network = &self.base.network;
        let choice = self.base.ctx.algorithms();
        let placement = &plan.placement;
        let shapes = &placement.lowered.shapes;
        match step {
            Step::Node(node) => node_time(network, placement, node, Pass::Forward, choice, time),
            Step::Conv(step) => {
                let shape = placement.conv_shape(step.input, &step.conv);
                StepTime {
                    layer: step.layer,
                    name: self.fused_name(step),
                    pass: Pass::Forward,
                    shapes: Some([shapes[step.input.0], shapes[step.output.0]]),
                    macs: shape.macs(),
                    algorithms: vec![choice.forward(&shape)],
                    time,
                }
            }
        }
    }

    /// The name of a convolution with its epilogue, such as
    /// `layer1.0.conv3+bn3+add+relu`.
    fn fused_name(&self, step: &ConvStep) -> String {
        let epilogue = &step.epilogue;
        let network = &self.base.network;
        let mut name = network.layer(step.layer).name.clone();
        let block = name.rfind('.').map_or(0, |dot| dot + 1);
        let prefix = name[..block].to_owned();
        let norms = network.norms();
        let mut add = |part: &str| {
            name.push('+');
            name.push_str(part.strip_prefix(&*prefix).unwrap_or(part));
        };
        if let Some(norm) = epilogue.norm {
            add(&norms[norm].name);
        }
        if epilogue.residual.is_some() {
            add("add");
        }
        if let Some(activation) = activation_name(epilogue.activation) {
            add(activation);
        }
        if let Some(second) = epilogue.second {
            add(&norms[second.norm].name);
            if let Some(activation) = activation_name(second.activation) {
                add(activation);
            }
        }
        name
    }
}
