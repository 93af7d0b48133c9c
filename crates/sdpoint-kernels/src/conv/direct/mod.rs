//! The direct algorithm: an implicit GEMM with all multiplications of the definition. The inputs of
//! a strip of outputs are gathered and multiplied with the packed weights tile by tile; see
//! [`super`] for the loop nest.

pub(super) mod backward_weights;
pub(super) mod product;
