//! Convolutions with few channels per group, depth-wise ones included. A vector spans the output
//! channels of several groups, which read different inputs: unlike in a GEMM, an input is used by
//! the output channels of its group only.

pub(super) mod backward_weights;
pub(super) mod product;
pub(super) mod weights;
