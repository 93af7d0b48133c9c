//! Inference with the time of each step taken.

use std::time::Duration;

use sdpoint_core::Instance;

use super::fuse::Step;
use super::plan::Plan;
use super::{InferenceEngine, NormSource};
use crate::timing::{Pass, StepTime, Stopwatch, node_time};
use crate::{EngineError, Images};

impl InferenceEngine {
    /// As [`InferenceEngine::run`], with the time of each kernel call.
    ///
    /// # Errors
    /// As [`InferenceEngine::run`].
    pub fn run_timed(
        &self,
        images: Images<'_>,
        instance: Instance,
    ) -> Result<(Vec<f32>, Vec<StepTime>), EngineError> {
        let mut flight = self.start(images)?;
        let mut watch = Stopwatch::start();
        let logits = flight.branch_with(instance, NormSource::Own, |plan, step| {
            watch.lap(|time| self.step_time(plan, step, time));
        })?;
        Ok((logits, watch.finish()))
    }

    fn step_time(&self, plan: &Plan, step: &Step, time: Duration) -> StepTime {
        let network = &self.base.network;
        let lowered = &plan.lowered;
        match step {
            Step::Node(node) => node_time(network, lowered, plan.batch, node, Pass::Forward, time),
            Step::Conv {
                conv,
                layer,
                input,
                output,
                ..
            } => StepTime {
                layer: *layer,
                name: self.joined_name(step),
                pass: Pass::Forward,
                shapes: Some([lowered.shapes[input.0], lowered.shapes[output.0]]),
                macs: lowered.conv_shape(*input, conv, plan.batch).macs(),
                time,
            },
        }
    }

    /// A convolution and what was joined to it: `layer1.0.conv3+bn3+add+relu`.
    fn joined_name(&self, step: &Step) -> String {
        let Step::Conv { layer, joined, .. } = step else {
            unreachable!("called for convolutions");
        };
        let network = &self.base.network;
        let mut name = network.layer(*layer).name.clone();
        let block = name.rfind('.').map_or(0, |dot| dot + 1);
        let prefix = name[..block].to_owned();
        let norms = network.norms();
        let mut add = |part: &str| {
            name.push('+');
            name.push_str(part.strip_prefix(&*prefix).unwrap_or(part));
        };
        if let Some(norm) = joined.norm {
            add(&norms[norm].name);
        }
        if joined.residual.is_some() {
            add("add");
        }
        if joined.relu {
            add("relu");
        }
        if let Some(second) = joined.second {
            add(&norms[second.norm].name);
            if second.relu {
                add("relu");
            }
        }
        name
    }
}
