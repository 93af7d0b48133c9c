//! Per-step timing of inference and training.

use std::time::{Duration, Instant};

use sdpoint_core::{LayerId, Network, Op, Shape};
use sdpoint_kernels::{Activation, AlgorithmChoice, ConvAlgorithm, linear_shape};

use crate::lower::{Node, NodeOp};
use crate::placement::Placement;

/// The time of one step: a kernel call, or a few that belong together.
#[derive(Clone, Debug, PartialEq)]
pub struct StepTime {
    /// The first layer that it computes; the input layer for steps that
    /// belong to no layer.
    pub layer: LayerId,
    /// The layers that it computes, such as `layer1.0.conv3+bn3+add+relu`, or
    /// a description such as `pack weights`.
    pub name: String,
    /// The pass that it belongs to.
    pub pass: Pass,
    /// The sizes of the first input and of the output for one image; none for
    /// steps that belong to no layer.
    pub shapes: Option<[Shape; 2]>,
    /// Multiply-accumulates of convolutions and linear layers, for the whole
    /// batch.
    pub macs: u64,
    /// The algorithms of its convolution or linear layer. The gradient with respect to the input
    /// of a convolution with a stride is several products, whose algorithms may differ.
    pub algorithms: Vec<ConvAlgorithm>,
    /// Wall-clock time.
    pub time: Duration,
}

/// The passes of a training step; inference has [`Pass::Forward`] only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pass {
    /// Repacking the weights for the kernels, once per training step.
    Pack,
    /// The forward pass.
    Forward,
    /// The loss and its gradient.
    Loss,
    /// Gradients with respect to the weights.
    BackwardWeights,
    /// Gradients with respect to a layer's inputs; for batch norms, which
    /// compute both in one kernel, with respect to the parameters too.
    BackwardData,
    /// The optimiser's step. The engine does not run it; callers time it.
    Update,
}

/// Measures the time between the ends of successive steps.
pub(crate) struct StepTimer {
    last: Instant,
    steps: Vec<StepTime>,
}

impl StepTimer {
    pub fn start() -> Self {
        Self {
            last: Instant::now(),
            steps: Vec::new(),
        }
    }

    /// Ends a step. The time spent in `describe` is not measured.
    pub fn lap(&mut self, describe: impl FnOnce(Duration) -> StepTime) {
        let time = self.last.elapsed();
        self.steps.push(describe(time));
        self.last = Instant::now();
    }

    pub fn finish(self) -> Vec<StepTime> {
        self.steps
    }
}

/// The step of a node in a pass.
pub(crate) fn node_time(
    network: &Network,
    placement: &Placement,
    node: &Node,
    pass: Pass,
    choice: AlgorithmChoice,
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
        algorithms: algorithms(placement, node, pass, choice),
        time,
    }
}

/// The name of a fused activation; none for the identity.
pub(crate) fn activation_name(activation: Activation) -> Option<&'static str> {
    match activation {
        Activation::Identity => None,
        Activation::Relu => Some("relu"),
        Activation::Relu6 => Some("relu6"),
    }
}

/// The algorithms that a pass of a node chooses.
fn algorithms(
    placement: &Placement,
    node: &Node,
    pass: Pass,
    choice: AlgorithmChoice,
) -> Vec<ConvAlgorithm> {
    let shape = match &node.op {
        NodeOp::Conv(conv) => placement.conv_shape(node.inputs[0], conv),
        NodeOp::Linear { .. } => {
            let [inputs, outputs] =
                [node.inputs[0], node.output].map(|value| placement.channels(value));
            linear_shape(placement.batch, inputs, outputs)
        }
        _ => return Vec::new(),
    };
    match pass {
        Pass::Forward => vec![choice.forward(&shape)],
        Pass::BackwardData => choice.backward_data(&shape),
        Pass::BackwardWeights => vec![choice.backward_weights(&shape)],
        Pass::Pack | Pass::Loss | Pass::Update => Vec::new(),
    }
}

fn node_name(network: &Network, node: &Node) -> String {
    let name = &network.layer(node.layer).name;
    match node.op {
        NodeOp::Norm { activation, .. } => match activation_name(activation) {
            Some(activation) => format!("{name}+{activation}"),
            None => name.clone(),
        },
        NodeOp::Mask { .. } => format!("{name} noise"),
        // A downsampling node has the layer of its point.
        NodeOp::AdaptiveAvgPool if network.layer(node.layer).op != Op::GlobalAvgPool => {
            format!("{name} downsampled")
        }
        _ => name.clone(),
    }
}
