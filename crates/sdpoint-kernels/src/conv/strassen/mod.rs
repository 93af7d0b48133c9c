//! One level of Strassen's algorithm, in Winograd's variant with 15 additions: seven products of
//! quadrants instead of eight.
//!
//! The GEMM of one image has the inputs `A` (pixels × input channels), the weights `B` (input ×
//! output channels) and the outputs `C` (pixels × output channels). Each dimension is halved: the
//! pixels in memory order, and the channels. `Aij` are the pixels of half `i` with the input
//! channels of half `j`; `Bij` and `Cij` likewise.
//!
//! ```text
//! S1 = A21 + A22   S2 = S1 - A11   S3 = A11 - A21   S4 = A12 - S2
//! T1 = B12 - B11   T2 = B22 - T1   T3 = B22 - B12   T4 = B21 - T2
//!
//! C11 = A11 B11 + A12 B21
//! U2  = A11 B11 + S2 T2
//! U3  = U2 + S3 T3
//! C21 = U3 + A22 T4
//! C12 = U2 + S1 T1 + S4 B22
//! C22 = U3 + S1 T1
//! ```
//!
//! See Winograd, "On Multiplication of 2 × 2 Matrices" (1971), and Huang et al., "Strassen's
//! Algorithm Reloaded" (2016). `T4` has the opposite of its usual sign, so that products are only
//! added.
//!
//! A strip is a range of pixels of the first half of an image, together with their partners: the
//! pixels at the same positions of the second half. The left operands (`A11`, `S1`, …) are computed
//! while a strip is gathered; the right ones (`T1`, …) once per packing (`weights.rs`). All tiles
//! of a strip compute one product before the next, so that only the weights of two products need to
//! stay in L2; the intermediate sums (`U2`, …) are stored between products.
//!
//! A pixel's rounding errors depend on its partner. Both belong to one image, so that no image's
//! result depends on the rest of its batch.

pub(super) mod product;
pub(super) mod weights;
