//! One level of Strassen's algorithm, in Winograd's form: seven products where quarters of
//! two matrices would take eight.
//!
//! The outputs of an image are cut into two halves of its pixels, `1` and `2`, and two of the
//! channels; the reduction into two halves of the input channels. With `Aij` half `j` of the
//! input channels that pixels `i` see, and `Bij` the weights from half `i` of the input channels
//! to half `j` of the output channels,
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
//! See Winograd, "On multiplication of 2 × 2 matrices" (1971). Sums that several products share are
//! kept for each register block and its partner in the other half of the pixels.
//!
//! Rounding errors of an output reach its partner's. Both are of one image, so that no image's
//! result depends on what else is in its batch.

pub(super) mod product;
pub(super) mod weights;
