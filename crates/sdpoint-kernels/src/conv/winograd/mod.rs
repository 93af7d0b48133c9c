//! Winograd's minimal filtering F(4×4, 3×3): 36 multiplications for 16 outputs instead of 144. See
//! Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2016).
//!
//! - Input transform: tiles of 6×6 inputs, overlapping by two, to their values at 36 points
//!   (`tiles.rs`).
//! - Kernel transform: the 3×3 kernels to their values at the same points, once per packing
//!   (`weights.rs`).
//! - 36 GEMMs, one per point: tiles × input channels times input × output channels, by the
//!   micro-kernel of the direct algorithm, with tiles in place of pixels.
//! - Output transform: the 36 sums of a tile to 4×4 outputs, followed by the epilogue
//!   (`product.rs`).
//!
//! A strip of tiles is transformed at once. For each panel of output channels, all GEMMs and the
//! output transform follow, so that only the sums of one panel have to stay in L2.
//!
//! The interpolation points are 0, ±1/√2, ±√2 and ∞, of the form 0, ±1/c, ±c and ∞ proposed by Alam
//! et al., "Winograd Convolution for Deep Neural Networks: Efficient Point Selection" (2022).
//! Rounding errors are half of those with the points 0, ±1, ±2 and ∞ of Lavin and Gray (the test in
//! `transforms.rs`).
//!
//! Where F(4×4, 3×3) has too few tiles, F(2×2, 3×3) has four times as many, with 16
//! multiplications for 4 outputs.

pub(super) mod backward_weights;
pub(super) mod product;
mod tiles;
mod transforms;
pub(super) mod weights;
