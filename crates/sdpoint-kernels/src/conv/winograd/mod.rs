//! Winograd's minimal filtering, F(4×4, 3×3): 36 multiplications for 16 outputs where the
//! direct way takes 144.
//!
//! Tiles of 6 × 6 inputs, overlapping by two, and the 3 × 3 kernels are transformed; the
//! products of transformed inputs and kernels, summed over channels, are 36 matrix products;
//! a last transform makes 4 × 4 outputs of them. See Lavin and Gray, "Fast Algorithms for
//! Convolutional Neural Networks" (2016). The interpolation points are 0, ±1/√2, ±√2 and ∞:
//! with them, rounding errors are about a third of those with the usual 0, ±1, ±2 and ∞.

pub(super) mod backward_weights;
mod lines;
mod product;
mod tiles;
mod weights;

pub(super) use product::run;
pub(super) use weights::TransformedWeights;

use super::pack::BlockedLayout;

/// Outputs of a tile, in rows and columns.
const TILE: usize = 4;

/// Inputs of a tile, in rows and columns.
const INPUTS: usize = TILE + 2;

/// Matrix products.
const POINTS: usize = INPUTS * INPUTS;

/// Narrower convolutions spend on the transforms what they save.
const FEWEST_CHANNELS: usize = 16;

/// Whether this is a convolution that the algorithm computes, and not too narrow for it.
pub(super) fn applies(kernel: [usize; 2], stride: [usize; 2], layout: &BlockedLayout) -> bool {
    kernel == [3, 3]
        && stride == [1, 1]
        && layout.groups == 1
        && layout.group_in.min(layout.group_out) >= FEWEST_CHANNELS
}

/// Whether tiles fit a grid of outputs well enough, and are enough to keep the kernel busy: with
/// fewer, loading the weights takes longer than the multiplications that they save.
pub(super) fn fits(batch: usize, grid: [usize; 2]) -> bool {
    let tiles = grid[0].div_ceil(TILE) * grid[1].div_ceil(TILE);
    tiles * TILE * TILE * 2 <= grid[0] * grid[1] * 3 && batch * tiles >= 16
}
