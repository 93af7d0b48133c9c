//! Winograd's minimal filtering, F(4×4, 3×3): 36 multiplications for 16 outputs where the
//! direct way takes 144.
//!
//! Tiles of 6 × 6 inputs, overlapping by two, and the 3 × 3 kernels are transformed; the
//! products of transformed inputs and kernels, summed over channels, are 36 matrix products;
//! a last transform makes 4 × 4 outputs of them. See Lavin and Gray, "Fast Algorithms for
//! Convolutional Neural Networks" (2016). The interpolation points are 0, ±1/√2, ±√2 and ∞:
//! with them, rounding errors are about a third of those with the usual 0, ±1, ±2 and ∞.
//!
//! Where that would make few tiles, F(2×2, 3×3) makes four times as many, with 16
//! multiplications for 4 outputs.

pub(super) mod backward_weights;
mod lines;
mod product;
mod tiles;
mod weights;

pub(super) use product::run;
pub(super) use weights::TransformedWeights;

use super::gather::BLOCK;
use super::pack::BlockedLayout;

/// Outputs of a tile, in rows and columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    /// F(2×2, 3×3).
    Two,
    /// F(4×4, 3×3).
    Four,
}

/// All of them, those first that save most.
pub(super) const SIZES: [Size; 2] = [Size::Four, Size::Two];

impl Size {
    const fn outputs(self) -> usize {
        match self {
            Size::Two => 2,
            Size::Four => 4,
        }
    }

    /// Matrix products, which are the inputs of a tile.
    const fn points(self) -> usize {
        let inputs = self.outputs() + 2;
        inputs * inputs
    }

    /// Narrower convolutions spend on the transforms what they save.
    const fn fewest_channels(self) -> usize {
        match self {
            Size::Two => 32,
            Size::Four => 16,
        }
    }

    /// Whether tiles of this size pay for a batch of grids of outputs of a layout.
    ///
    /// They have to fit a grid well enough, and be enough to keep the kernel busy: with fewer,
    /// loading the weights takes longer than the multiplications that they save.
    pub fn fits(self, layout: &BlockedLayout, batch: usize, grid: [usize; 2]) -> bool {
        let channels = layout.group_in.min(layout.group_out);
        let side = self.outputs();
        let tiles = grid[0].div_ceil(side) * grid[1].div_ceil(side);
        channels >= self.fewest_channels()
            && tiles * side * side * 2 <= grid[0] * grid[1] * 3
            && batch * tiles >= FEWEST_TILES
    }
}

/// Fewer tiles of a batch are a small part of what the micro-kernel computes at once.
const FEWEST_TILES: usize = 16;

/// Whether this is a convolution that the algorithm computes, and not too narrow for it. Groups
/// have to begin where channel blocks do.
pub(super) fn applies(kernel: [usize; 2], stride: [usize; 2], layout: &BlockedLayout) -> bool {
    kernel == [3, 3]
        && stride == [1, 1]
        && (layout.groups == 1 || layout.group_in.is_multiple_of(BLOCK))
        && layout.group_in.min(layout.group_out) >= Size::Four.fewest_channels()
}
