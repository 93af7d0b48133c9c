//! The table of operations: what each reads, saves and passes on, forward and
//! backward. The planners of inference, training and calibration ask it and
//! decide nothing of the kind themselves, so that an operation which is
//! missing here does not compile.

use sdpoint_core::Window;

use crate::lower::Work;

/// What the planners have to know of an operation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Operation {
    /// The tensors that the backward pass reads, besides the gradient with
    /// respect to the output. They stay in memory until then.
    pub reads: BackwardReads,
    /// How the gradient with respect to its inputs comes about.
    pub input_gradient: InputGradient,
    /// Whether it has weights whose gradients are a kernel call of their own.
    pub weights: bool,
    /// The pooling that it does, if it is one.
    pub pooling: Option<Pooling>,
}

/// The tensors of the forward pass that an operation's backward pass reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BackwardReads {
    /// None. What else it needs (the argmax of a max pool, a mask), the
    /// forward pass keeps outside of the arena.
    Nothing,
    /// Its first input.
    Input,
    /// Its output.
    Output,
}

/// How the gradient with respect to an operation's inputs comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InputGradient {
    /// It is the output's, for each input: nothing is computed.
    Shared,
    /// A kernel writes it, or adds it to what is there; left out where the
    /// input is the images.
    Written,
    /// A kernel writes it together with the parameters' gradients, always,
    /// and adds another part of the gradient on the way if there is one.
    WithParameters,
}

/// How the cells of a pool's output divide its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pooling {
    /// A window that slides.
    Sliding(Window),
    /// Cells that divide the input as evenly as can be.
    Adaptive,
}

impl Work {
    /// The row of the table for this operation.
    pub fn operation(&self) -> Operation {
        use BackwardReads::{Input, Nothing, Output};
        use InputGradient::{Shared, WithParameters, Written};

        let operation = |reads, input_gradient| Operation {
            reads,
            input_gradient,
            weights: false,
            pooling: None,
        };
        let pool = |pooling| Operation {
            pooling: Some(pooling),
            ..operation(Nothing, Written)
        };
        match *self {
            Work::Conv(_) | Work::Linear { .. } => Operation {
                weights: true,
                ..operation(Input, Written)
            },
            Work::Norm { .. } => operation(Input, WithParameters),
            Work::Relu => operation(Output, Written),
            Work::MaxPool(window) | Work::AvgPool(window) => pool(Pooling::Sliding(window)),
            Work::AdaptiveMaxPool | Work::AdaptiveAvgPool => pool(Pooling::Adaptive),
            Work::Add => operation(Nothing, Shared),
            Work::Concat | Work::Mask { .. } => operation(Nothing, Written),
        }
    }
}
