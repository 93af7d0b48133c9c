//! Fuses what follows a convolution into its epilogue, so that its output is
//! finished while it is in registers and memory is passed over once.

use sdpoint_core::{Conv, LayerId};

use crate::lower::{Lowered, Node, Value, Work};

/// One kernel call of a forward pass.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    /// A convolution and what was fused into it.
    Conv(ConvStep),
    /// Anything else.
    Node(Node),
}

/// A convolution with its epilogue.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ConvStep {
    pub conv: Conv,
    pub layer: LayerId,
    pub input: Value,
    pub output: Value,
    pub epilogue: FusedEpilogue,
}

/// What is done to a convolution's sums before they are stored, in this order.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct FusedEpilogue {
    /// The batch norm that scales and shifts them.
    pub norm: Option<usize>,
    /// A tensor that is added.
    pub residual: Option<Value>,
    /// Whether negative results become zero.
    pub relu: bool,
    /// Another output: the finished values, normalised once more.
    pub second: Option<SecondOutput>,
}

/// The batch norm, with or without ReLU, of a convolution's finished output.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct SecondOutput {
    pub norm: usize,
    pub relu: bool,
    pub output: Value,
}

impl ConvStep {
    /// The convolution of a node and nothing else.
    pub fn alone(node: &Node, conv: Conv) -> Self {
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
    /// The layer that it starts with.
    pub fn layer(&self) -> LayerId {
        match self {
            Step::Conv(step) => step.layer,
            Step::Node(node) => node.layer,
        }
    }

    /// The tensors that are read.
    pub fn inputs(&self) -> Vec<Value> {
        match self {
            Step::Conv(step) => {
                let residual = step.epilogue.residual;
                [step.input].into_iter().chain(residual).collect()
            }
            Step::Node(node) => node.inputs.clone(),
        }
    }

    /// The tensors that are written.
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

/// The kernel calls that compute a lowered network.
pub(crate) fn fuse(lowered: &Lowered) -> Vec<Step> {
    let uses = lowered.uses();
    let mut users: Vec<Vec<usize>> = vec![Vec::new(); lowered.shapes.len()];
    for (index, node) in lowered.nodes.iter().enumerate() {
        for input in &node.inputs {
            users[input.0].push(index);
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
        let step = if let Work::Conv(conv) = node.work {
            let mut step = ConvStep::alone(node, conv);
            while uses[step.output.0] == 1
                && let Some(&user) = users[step.output.0].first()
                && step.take(&lowered.nodes[user], &ready)
            {
                fused[user] = true;
                step.output = lowered.nodes[user].output;
            }
            step.epilogue.second = users[step.output.0].iter().find_map(|&user| {
                let Node { work, output, .. } = lowered.nodes[user];
                let Work::Norm { norm, relu, .. } = work else {
                    return None;
                };
                fused[user] = true;
                Some(SecondOutput { norm, relu, output })
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
    /// Takes `user`, the only user of the output, into the epilogue, and
    /// says whether that has room for it. `ready` are the values that are
    /// computed before this step.
    fn take(&mut self, user: &Node, ready: &[bool]) -> bool {
        let epilogue = &mut self.epilogue;
        match user.work {
            // The epilogue's shift is the bias or the norm's, not both.
            Work::Norm { norm, relu, .. }
                if *epilogue == FusedEpilogue::default() && !self.conv.bias =>
            {
                epilogue.norm = Some(norm);
                epilogue.relu = relu;
            }
            Work::Add if !epilogue.relu && epilogue.residual.is_none() => {
                let other = user.inputs[usize::from(user.inputs[0] == self.output)];
                if other == self.output || !ready[other.0] {
                    return false;
                }
                epilogue.residual = Some(other);
            }
            Work::Relu if !epilogue.relu => epilogue.relu = true,
            // Everything else stays a step of its own.
            Work::Norm { .. }
            | Work::Add
            | Work::Relu
            | Work::Conv(_)
            | Work::MaxPool(_)
            | Work::AvgPool(_)
            | Work::AdaptiveMaxPool
            | Work::AdaptiveAvgPool
            | Work::Linear { .. }
            | Work::Concat
            | Work::Mask { .. } => return false,
        }
        true
    }
}
