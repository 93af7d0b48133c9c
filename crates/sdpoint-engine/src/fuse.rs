//! Fusion: moves the operations that follow a convolution into its epilogue.
//! They are applied while the output tile is in registers, so the output is
//! written to memory once and not read back.

use sdpoint_core::{Conv, LayerId};
use sdpoint_kernels::Activation;

use crate::lower::{Lowered, Node, NodeOp, Value};

/// One kernel call of a forward pass.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    /// A convolution with its fused epilogue.
    Conv(ConvStep),
    /// Any other operation.
    Node(Node),
}

/// A convolution with its fused epilogue.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ConvStep {
    pub conv: Conv,
    pub layer: LayerId,
    pub input: Value,
    pub output: Value,
    pub epilogue: FusedEpilogue,
}

/// The operations applied to a convolution's sums before they are stored, in
/// the order of the fields.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct FusedEpilogue {
    /// The batch norm, as scale and shift.
    pub norm: Option<usize>,
    /// The tensor that is added.
    pub residual: Option<Value>,
    /// The activation.
    pub activation: Activation,
    /// A second output: the first one, normalised by another batch norm.
    pub second: Option<FusedSecondOutput>,
}

/// A second output of a convolution: batch norm and activation of the
/// first output.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct FusedSecondOutput {
    pub norm: usize,
    pub activation: Activation,
    pub output: Value,
}

impl ConvStep {
    /// The convolution of a node, with an empty epilogue.
    pub fn unfused(node: &Node, conv: Conv) -> Self {
        Self {
            conv,
            layer: node.layer,
            input: node.inputs[0],
            output: node.output,
            epilogue: FusedEpilogue::default(),
        }
    }
}

impl Step {
    /// The first layer that it computes.
    pub fn layer(&self) -> LayerId {
        match self {
            Step::Conv(step) => step.layer,
            Step::Node(node) => node.layer,
        }
    }

    /// The values that it reads.
    pub fn inputs(&self) -> Vec<Value> {
        match self {
            Step::Conv(step) => {
                let residual = step.epilogue.residual;
                [step.input].into_iter().chain(residual).collect()
            }
            Step::Node(node) => node.inputs.clone(),
        }
    }

    /// The values that it writes.
    pub fn outputs(&self) -> Vec<Value> {
        match self {
            Step::Conv(step) => {
                let second = step.epilogue.second.map(|second| second.output);
                [step.output].into_iter().chain(second).collect()
            }
            Step::Node(node) => vec![node.output],
        }
    }
}

/// Fuses a lowered network into kernel calls, in execution order.
pub(crate) fn fuse(lowered: &Lowered) -> Vec<Step> {
    let use_counts = lowered.use_counts();
    let mut consumers: Vec<Vec<usize>> = vec![Vec::new(); lowered.shapes.len()];
    for (index, node) in lowered.nodes.iter().enumerate() {
        for input in &node.inputs {
            consumers[input.0].push(index);
        }
    }
    let mut ready = vec![false; lowered.shapes.len()];
    ready[lowered.input.0] = true;
    let mut fused = vec![false; lowered.nodes.len()];
    let mut steps = Vec::new();
    for (index, node) in lowered.nodes.iter().enumerate() {
        if fused[index] {
            continue;
        }
        let step = if let NodeOp::Conv(conv) = node.op {
            let mut step = ConvStep::unfused(node, conv);
            while use_counts[step.output.0] == 1
                && let Some(&consumer) = consumers[step.output.0].first()
                && step.try_fuse(&lowered.nodes[consumer], &ready)
            {
                fused[consumer] = true;
                step.output = lowered.nodes[consumer].output;
            }
            step.epilogue.second = consumers[step.output.0].iter().find_map(|&consumer| {
                let Node { op, output, .. } = lowered.nodes[consumer];
                let NodeOp::Norm {
                    norm, activation, ..
                } = op
                else {
                    return None;
                };
                fused[consumer] = true;
                Some(FusedSecondOutput {
                    norm,
                    activation,
                    output,
                })
            });
            Step::Conv(step)
        } else {
            Step::Node(node.clone())
        };
        for output in step.outputs() {
            ready[output.0] = true;
        }
        steps.push(step);
    }
    steps
}

impl ConvStep {
    /// Appends `consumer`, the only consumer of the output, to the epilogue.
    /// Returns false if the epilogue cannot express it. `ready` marks the
    /// values that are computed before this step.
    fn try_fuse(&mut self, consumer: &Node, ready: &[bool]) -> bool {
        let epilogue = &mut self.epilogue;
        let activated = epilogue.activation != Activation::Identity;
        match consumer.op {
            // The epilogue has one shift: the bias or the norm's, not both.
            NodeOp::Norm {
                norm, activation, ..
            } if *epilogue == FusedEpilogue::default() && !self.conv.bias => {
                epilogue.norm = Some(norm);
                epilogue.activation = activation;
            }
            NodeOp::Add if !activated && epilogue.residual.is_none() => {
                let other = consumer.inputs[usize::from(consumer.inputs[0] == self.output)];
                if other == self.output || !ready[other.0] {
                    return false;
                }
                epilogue.residual = Some(other);
            }
            NodeOp::Activation(activation) if !activated => epilogue.activation = activation,
            // All others remain separate steps.
            NodeOp::Norm { .. }
            | NodeOp::Add
            | NodeOp::Activation(_)
            | NodeOp::Conv(_)
            | NodeOp::MaxPool(_)
            | NodeOp::AvgPool(_)
            | NodeOp::AdaptiveMaxPool
            | NodeOp::AdaptiveAvgPool
            | NodeOp::Linear { .. }
            | NodeOp::Concat
            | NodeOp::Mask { .. } => return false,
        }
        true
    }
}
