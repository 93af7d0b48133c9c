//! Two-dimensional convolution: forward, backward to data, backward to weights.
//!
//! ```text
//! forward.rs, backward_data.rs        backward_weights.rs      what callers see
//!      │ a Product for each Problem        │ a Reduction
//! execute.rs ── algorithm.rs ──────────────┤                   which algorithm
//!      │                                   │
//! direct/  grouped/  winograd/  strassen/  (product.rs, backward_weights.rs in each)
//!      │                                   │
//! microkernel.rs                      reduction_kernel.rs      register blocks
//! ```
//!
//! A product multiplies the pixels that a band of outputs sees, gathered into panels (`gather.rs`),
//! with packed weights (`pack.rs`, in the order of `layout.rs`), one tile of pixels times one block
//! of output channels at a time (`tiling.rs`), and finishes the sums in registers (`epilogue.rs`).
//! How work is divided among threads is in `cut.rs`, what was found by measuring in `tuning.rs`.

mod addresses;
pub(crate) mod algorithm;
mod backward_data;
mod backward_weights;
mod cut;
mod direct;
mod epilogue;
mod execute;
mod forward;
mod gather;
mod geometry;
mod grouped;
mod kernels;
mod layout;
mod merge;
mod microkernel;
mod pack;
mod prefetch;
mod problem;
mod product;
mod reduction;
mod reduction_kernel;
mod strassen;
mod tiling;
mod tuning;
mod winograd;

use crate::activation::Activation;
pub use algorithm::{AlgorithmChoice, ConvAlgorithm, UnknownAlgorithm, WinogradTile};
pub use backward_data::{PackedConvTranspose, conv_backward_data};
pub use backward_weights::conv_backward_weights;
pub use forward::{PackedConv, conv_forward};
pub use geometry::{ConvGeometry, ConvShape};

/// What happens to a convolution's sums before they are stored:
/// `y = activation(sum * scale + shift + residual)`, each part where given.
#[derive(Debug, Default)]
pub struct Epilogue<'a> {
    /// A factor for each output channel.
    pub scale: Option<&'a [f32]>,
    /// A summand for each output channel: a bias, or batch norm's shift.
    pub shift: Option<&'a [f32]>,
    /// A tensor of the output's shape.
    pub residual: Option<Residual<'a>>,
    /// Whether negative results become zero.
    pub activation: Activation,
    /// A second tensor made from the finished output.
    pub second: Option<Second<'a>>,
}

/// What a convolution's result is added to.
#[derive(Clone, Copy, Debug)]
pub enum Residual<'a> {
    /// A tensor elsewhere.
    Tensor(&'a [f32]),
    /// What the output holds, which saves memory and bringing its cache lines twice; for
    /// convolutions that [`PackedConv::adds_in_place`] alone.
    Output,
}

/// A second output, `out = activation(y * scale + shift)` of a convolution's finished output `y`:
/// in pre-activation networks the sum and its normalised activation are both needed.
#[derive(Debug)]
pub struct Second<'a> {
    /// A factor for each output channel.
    pub scale: &'a [f32],
    /// A summand for each output channel.
    pub shift: &'a [f32],
    /// Whether negative results become zero.
    pub activation: Activation,
    /// A tensor of the output's shape.
    pub out: &'a mut [f32],
}

fn assert_len(what: &str, len: usize, expected: usize) {
    assert_eq!(
        len, expected,
        "{what}: {len} floats where the shape has {expected}"
    );
}
