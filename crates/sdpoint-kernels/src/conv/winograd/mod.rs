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
pub(super) mod product;
mod tiles;
pub(super) mod weights;
