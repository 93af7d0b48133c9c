//! Joins what follows a convolution to it, so that its output is finished
//! while it is in registers and memory is passed over once.

use sdpoint_core::{Conv, LayerId};

use crate::lower::{Lowered, Node, Value, Work};

/// One kernel call of an inference pass.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    /// A convolution and what was joined to it.
    Conv {
        conv: Conv,
        layer: LayerId,
        input: Value,
        output: Value,
        joined: Joined,
    },
    /// Anything else.
    Node(Node),
}

/// What is done to a convolution's sums before they are stored, in this order.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Joined {
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

impl Step {
    /// The tensors that are read.
    pub fn inputs(&self) -> Vec<Value> {
        match self {
            Step::Conv { input, joined, .. } => {
                [*input].into_iter().chain(joined.residual).collect()
            }
            Step::Node(node) => node.inputs.clone(),
        }
    }

    /// The tensors that are written.
    pub fn outputs(&self) -> Vec<Value> {
        match self {
            Step::Conv { output, joined, .. } => {
                let second = joined.second.map(|second| second.output);
                [*output].into_iter().chain(second).collect()
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
    let mut joined_already = vec![false; lowered.nodes.len()];
    let mut steps = Vec::new();
    for (index, node) in lowered.nodes.iter().enumerate() {
        if joined_already[index] {
            continue;
        }
        let step = match node.work {
            Work::Conv(conv) => {
                let mut joined = Joined::default();
                let mut output = node.output;
                while uses[output.0] == 1
                    && let Some(&user) = users[output.0].first()
                    && join(&conv, &lowered.nodes[user], output, &ready, &mut joined)
                {
                    joined_already[user] = true;
                    output = lowered.nodes[user].output;
                }
                joined.second = users[output.0].iter().find_map(|&user| {
                    let Node { work, output, .. } = lowered.nodes[user];
                    let Work::Norm { norm, relu, .. } = work else {
                        return None;
                    };
                    joined_already[user] = true;
                    Some(SecondOutput { norm, relu, output })
                });
                Step::Conv {
                    conv,
                    layer: node.layer,
                    input: node.inputs[0],
                    output,
                    joined,
                }
            }
            _ => Step::Node(node.clone()),
        };
        for output in step.outputs() {
            ready[output.0] = true;
        }
        steps.push(step);
    }
    steps
}

/// Joins `user`, the only user of `output`, if the epilogue has room for it.
fn join(conv: &Conv, user: &Node, output: Value, ready: &[bool], joined: &mut Joined) -> bool {
    match user.work {
        // The epilogue's shift is the bias or the norm's, not both.
        Work::Norm { norm, relu, .. } if *joined == Joined::default() && !conv.bias => {
            joined.norm = Some(norm);
            joined.relu = relu;
        }
        Work::Add if !joined.relu && joined.residual.is_none() => {
            let other = user.inputs[usize::from(user.inputs[0] == output)];
            if other == output || !ready[other.0] {
                return false;
            }
            joined.residual = Some(other);
        }
        Work::Relu if !joined.relu => joined.relu = true,
        _ => return false,
    }
    true
}
