//! How long each part of a run took.

use std::time::{Duration, Instant};

use sdpoint_core::{LayerId, Network, Op, Shape};

use crate::lower::{Node, Work};
use crate::placement::Placement;

/// One step of a run: a kernel call, or the few that belong together.
#[derive(Clone, Debug, PartialEq)]
pub struct StepTime {
    /// The layer that it starts with; the network's input where it belongs
    /// to no layer.
    pub layer: LayerId,
    /// The layers that it computes, `layer1.0.conv3+bn3+add+relu`, or what
    /// else it does.
    pub name: String,
    /// Which part of the run it belongs to.
    pub pass: Pass,
    /// Sizes of the first input and of the output for one image, where it
    /// stands for layers.
    pub shapes: Option<[Shape; 2]>,
    /// Multiply-accumulates for the whole batch, of convolutions and linear
    /// layers alone.
    pub macs: u64,
    /// How long it took.
    pub time: Duration,
}

/// The parts of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pass {
    /// Weights laid out anew for the kernels, as every training step does.
    Pack,
    /// From the images to the logits.
    Forward,
    /// The loss and its gradient.
    Loss,
    /// Gradients with respect to parameters.
    BackwardWeights,
    /// Gradients with respect to what a layer reads; batch norm's with
    /// respect to its parameters too, which come along.
    BackwardData,
    /// The optimiser's step, which is its caller's to time.
    Update,
}

/// Takes the time at the end of each step.
pub(crate) struct Stopwatch {
    last: Instant,
    steps: Vec<StepTime>,
}

impl Stopwatch {
    pub fn start() -> Self {
        Self {
            last: Instant::now(),
            steps: Vec::new(),
        }
    }

    /// Ends a step. What it takes to describe it counts for no step.
    pub fn lap(&mut self, describe: impl FnOnce(Duration) -> StepTime) {
        let time = self.last.elapsed();
        self.steps.push(describe(time));
        self.last = Instant::now();
    }

    pub fn finish(self) -> Vec<StepTime> {
        self.steps
    }
}

/// A node's step in a pass.
pub(crate) fn node_time(
    network: &Network,
    placement: &Placement,
    node: &Node,
    pass: Pass,
    time: Duration,
) -> StepTime {
    let lowered = &placement.lowered;
    StepTime {
        layer: node.layer,
        name: node_name(network, node),
        pass,
        shapes: Some([
            lowered.shapes[node.inputs[0].0],
            lowered.shapes[node.output.0],
        ]),
        macs: placement.batch as u64 * lowered.macs(node),
        time,
    }
}

fn node_name(network: &Network, node: &Node) -> String {
    let name = &network.layer(node.layer).name;
    match node.work {
        Work::Norm { relu: true, .. } => format!("{name}+relu"),
        Work::Mask { .. } => format!("{name} noise"),
        // Downsampling is its point's layer, which it follows.
        Work::AdaptiveAvgPool if network.layer(node.layer).op != Op::GlobalAvgPool => {
            format!("{name} downsampled")
        }
        _ => name.clone(),
    }
}
