//! Two-dimensional convolution: forward, backward to data, backward to weights.
//!
//! ```text
//! forward.rs, backward_data.rs           backward_weights.rs           entry points
//!      │ Product: a Problem and tensors       │ Reduction
//! execute.rs ────── algorithm.rs ─────────────┤                        choice of the algorithm
//!      │                                      │
//! direct/ grouped/ winograd/ strassen/   direct/ grouped/ winograd/    loop nests
//!      │ product.rs of each                   │ backward_weights.rs of each
//! microkernel.rs                         reduction_kernel.rs           register blocks
//! ```
//!
//! `grouped/`, for depth-wise convolutions and groups of few channels, has register blocks of its
//! own.
//!
//! # The loop nest
//!
//! The direct algorithm is an implicit GEMM (Chetlur et al. 2014): the matrix of input patches
//! that im2col would write is never formed. M counts output pixels, N output channels, and K
//! input channels times taps. The loop nest is that of Goto and van de Geijn (2008) as refined by
//! BLIS (Van Zee and van de Geijn 2015), in `direct/product.rs`; the sizes on the right are in
//! `tuning.rs`.
//!
//! ```text
//! loop over                                  what stays where          size set by
//! tasks: strips × ranges of panels                                     TASK_MACS, TASKS_PER_THREAD
//! └ strips of output pixels (m_C)            gathered inputs: L2       STRIP_FLOATS, ROW_FLOATS,
//!   │ gather the strip's inputs                                        STRIP_FLOATS_LARGE_WEIGHTS
//!   └ parts of K (k_C)                                                 part_floats
//!     └ panels of weights (n_R)        ┐ *   a panel's part: L2        max_vectors × lanes
//!       └ tiles of pixels (m_R)        ┘     sums: registers           max_pixels
//!         ├ micro-kernel
//!         │ └ channel blocks                 inputs: L1                BLOCK, in gather.rs
//!         │   └ taps
//!         │     └ channels                                             unroll
//!         │         load the vectors of weights,
//!         │         broadcast the channel of each pixel, multiply-add
//!         └ epilogue                         sums: registers
//!
//! * With at most WEIGHT_FLOATS weights, which stay in L2, in panels of equal width, tiles are the
//!   outer of these two loops: the output channels of a pixel are then written in sequence.
//! ```
//!
//! BLIS's loop over n_C is missing: weights are packed once, when they are set, and tasks divide
//! their panels. If K has several parts, the output holds the partial sums between them, and the
//! epilogue follows the last. While a tile is computed, its share of the next panel and of the next
//! strip's inputs is prefetched (`prefetch.rs`).
//!
//! Winograd's and Strassen's algorithms have loop nests of their own around the same micro-kernel,
//! which multiplies their transformed operands.
//!
//! # Glossary
//!
//! - **kernel**: the weights between one input and one output channel; code is a micro-kernel.
//! - **tap**: a position (row, column) of the kernel.
//! - **strip**: a rectangle of one image's outputs, whole rows where they fit, whose inputs are
//!   gathered at once and stay in L2: BLIS's m_C block. A strip of Winograd's or Strassen's
//!   algorithm is a run of Winograd tiles or of pixels.
//! - **gather**: copy the inputs of a strip into the order in which the micro-kernel reads them,
//!   with zeros for the padding: BLIS's packing of A (`gather.rs`).
//! - **channel block**: [`BLOCK`](gather::BLOCK) = 16 input channels of one pixel, a cache line.
//! - **plane**: one channel block of all gathered pixels; the stride between channel blocks.
//! - **panel**: the packed weights of up to `max_vectors` vectors of output channels of one group,
//!   for all of the group's input channels and taps: BLIS's micro-panel of B (`layout.rs`). Panels
//!   are numbered through all groups. A **row** of a panel has the weights of one input channel at
//!   one tap, for all of the panel's output channels.
//! - **tile**: a register block, up to `max_pixels` pixels times the output channels of a panel
//!   (`tiling.rs`, `microkernel.rs`). A **Winograd tile** is a square of 4×4 or 2×2 outputs.
//! - **part**: a range of the K dimension: of the channels, such that a panel's weights for it stay
//!   in a cache; or, where K is pixels (gradients of weights), with partial sums of its own.
//! - **split**: one of the ranges of panels that the tasks of one strip compute (`partition.rs`).
//! - **step**: a channel block at a tap, the micro-kernel's unit of issuing prefetches.
//! - **share**: the consecutive tasks that a thread runs before it steals from other threads
//!   (`context.rs`); and the part of a prefetch that one tile or step issues.
//! - **epilogue**: scale, shift, residual and activation, applied to sums while they are in
//!   registers (`epilogue.rs`).
//! - **phase**: the rows or columns with one remainder modulo the stride; of the gathered inputs
//!   (`gather.rs`), or of the input gradients that a backward pass to data computes (`problem.rs`).
//! - **problem, product**: the sizes of one implicit GEMM, and the same with its tensors. A
//!   forward pass is one product; a backward pass to data is one for each phase.
//! - **reduction**: a backward pass to weights, in which each gradient is a sum over all pixels
//!   (`reduction.rs`).
//! - **merged group**: neighbouring groups too narrow for a GEMM, computed as one dense group with
//!   zero weights between them (`merge.rs`).
//! - **point**: an interpolation point of Winograd's algorithm, each with a GEMM of its own.
//! - **quadrant, operand**: a quarter of a matrix in Strassen's algorithm, and the sum of
//!   quadrants that is a factor of one of its seven products. A **partner** is the pixel or panel
//!   at the same position of the other half.
//!
//! # Papers
//!
//! - Goto, van de Geijn: Anatomy of High-Performance Matrix Multiplication, ACM TOMS 34(3), 2008.
//! - Van Zee, van de Geijn: BLIS: A Framework for Rapidly Instantiating BLAS Functionality, ACM
//!   TOMS 41(3), 2015.
//! - Chetlur et al.: cuDNN: Efficient Primitives for Deep Learning, arXiv:1410.0759, 2014.
//! - Zhang, Franchetti, Low: High Performance Zero-Memory Overhead Direct Convolutions, ICML 2018.
//!   As in theirs, a convolution of one tap reads its input tensor in place (`direct/product.rs`).
//! - Lavin, Gray: Fast Algorithms for Convolutional Neural Networks, CVPR 2016 (`winograd/`).
//! - Strassen: Gaussian Elimination is not Optimal, Numerische Mathematik 13, 1969; Winograd: On
//!   Multiplication of 2 × 2 Matrices, Linear Algebra and its Applications 4, 1971; Huang, Smith,
//!   Henry, van de Geijn: Strassen's Algorithm Reloaded, SC 2016 (`strassen/`).

mod addresses;
pub(crate) mod algorithm;
mod backward_data;
mod backward_weights;
mod compiler;
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
mod partition;
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

/// Element-wise operations fused into a convolution, applied to its sums before they are stored:
/// `y = activation(sum * scale + shift + residual)`. Absent parts are left out.
#[derive(Debug, Default)]
pub struct Epilogue<'a> {
    /// One factor per output channel.
    pub scale: Option<&'a [f32]>,
    /// One summand per output channel: a bias, or batch norm's shift.
    pub shift: Option<&'a [f32]>,
    /// A tensor of the output's shape, added before the activation.
    pub residual: Option<Residual<'a>>,
    /// The activation, applied last.
    pub activation: Activation,
    /// A second tensor computed from `y`.
    pub second: Option<SecondOutput<'a>>,
}

/// The tensor that a convolution's result is added to.
#[derive(Clone, Copy, Debug)]
pub enum Residual<'a> {
    /// A separate tensor.
    Tensor(&'a [f32]),
    /// The previous content of the output itself, which saves a tensor and half of the memory
    /// traffic. Only where [`PackedConv::adds_in_place`] is true.
    Output,
}

/// A second output of a convolution, `out = activation(y * scale + shift)` of its first output
/// `y`. Pre-activation networks need both a block's sum and its normalised activation.
#[derive(Debug)]
pub struct SecondOutput<'a> {
    /// One factor per output channel.
    pub scale: &'a [f32],
    /// One summand per output channel.
    pub shift: &'a [f32],
    /// The activation, applied last.
    pub activation: Activation,
    /// Receives the result; of the output's shape.
    pub out: &'a mut [f32],
}

fn assert_len(what: &str, len: usize, expected: usize) {
    assert_eq!(
        len, expected,
        "{what}: {len} floats where the shape needs {expected}"
    );
}
