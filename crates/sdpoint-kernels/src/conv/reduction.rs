//! The backward pass to weights as a reduction over pixels: for every tap, a GEMM of the transposed
//! input and the output gradient. M counts input channels, N output channels, and K all pixels of
//! the batch.
//!
//! The pixels are divided into parts whose number depends on the shape and the instruction set
//! alone. Each part has partial sums of its own, which are added in the order of the parts, so that
//! neither the number of threads nor their timing changes a bit of the result.

use super::gather::{ConvWindow, Source};
use super::geometry::ConvGeometry;
use super::layout::BlockedLayout;
use super::problem::Problem;

/// A reduction over all outputs of a grid.
pub(super) struct Reduction<'a> {
    pub source: Source<'a>,
    /// The gradient with respect to the output.
    pub gradient: &'a [f32],
    pub geometry: &'a ConvGeometry,
    /// The sizes of the forward pass.
    pub problem: Problem,
    /// The order of the sums: that of packed weights.
    pub layout: &'a BlockedLayout,
}

impl Reduction<'_> {
    pub fn window(&self) -> ConvWindow {
        self.problem.window
    }

    pub fn batch(&self) -> usize {
        self.problem.batch
    }

    pub fn grid(&self) -> [usize; 2] {
        self.problem.grid
    }

    pub fn out_channels(&self) -> usize {
        self.geometry.out_channels
    }
}
