//! The table of operations: which tensors each one's backward pass reads, and
//! how it computes gradients.
//!
//! Inference, training and calibration plan memory and kernel calls from this
//! table alone. Its match is exhaustive, so an operation without a row does
//! not compile.

use sdpoint_core::Window;

use crate::lower::NodeOp;

/// The properties of an operation that planning depends on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct OpProperties {
    /// The forward tensors that the backward pass reads, besides the gradient
    /// with respect to the output. They stay live until then.
    pub reads: BackwardReads,
    /// How the gradients with respect to the inputs are computed.
    pub input_gradient: InputGradient,
    /// Whether a separate kernel call computes the gradients of its weights.
    pub weights: bool,
    /// The kind of pooling, for pooling operations.
    pub pooling: Option<Pooling>,
}

/// The tensors of the forward pass that an operation's backward pass reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BackwardReads {
    /// None. Other state (the argmax of a max pool, a mask) is saved outside
    /// of the arena.
    Nothing,
    /// The first input.
    Input,
    /// The output.
    Output,
}

/// How the gradients with respect to an operation's inputs are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InputGradient {
    /// Each input's gradient is the output's: nothing is computed.
    Shared,
    /// A kernel writes or accumulates it. Skipped where the input is the images,
    /// which need no gradient.
    Written,
    /// One kernel computes it together with the parameters' gradients, so it
    /// is never skipped. The kernel can add a second gradient to it in the
    /// same pass over memory.
    WithParameters,
}

/// How a pooling operation divides its input into windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pooling {
    /// A sliding window.
    Sliding(Window),
    /// Adaptive pooling: output cell `i` of `m` covers inputs `⌊i·n/m⌋` up to,
    /// not including, `⌈(i+1)·n/m⌉`.
    Adaptive,
}

impl NodeOp {
    /// This operation's row of the table.
    pub fn properties(&self) -> OpProperties {
        use BackwardReads::{Input, Nothing, Output};
        use InputGradient::{Shared, WithParameters, Written};

        let op = |reads, input_gradient| OpProperties {
            reads,
            input_gradient,
            weights: false,
            pooling: None,
        };
        let pool = |pooling| OpProperties {
            pooling: Some(pooling),
            ..op(Nothing, Written)
        };
        match *self {
            NodeOp::Conv(_) | NodeOp::Linear { .. } => OpProperties {
                weights: true,
                ..op(Input, Written)
            },
            NodeOp::Norm { .. } => op(Input, WithParameters),
            NodeOp::Activation(_) => op(Output, Written),
            NodeOp::MaxPool(window) | NodeOp::AvgPool(window) => pool(Pooling::Sliding(window)),
            NodeOp::AdaptiveMaxPool | NodeOp::AdaptiveAvgPool => pool(Pooling::Adaptive),
            NodeOp::Add => op(Nothing, Shared),
            NodeOp::Concat | NodeOp::Mask { .. } => op(Nothing, Written),
        }
    }
}
