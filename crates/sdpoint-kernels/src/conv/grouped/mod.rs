//! Convolutions with few channels per group, depth-wise ones included: a vector spans the output
//! channels of several groups. There is too little reuse for a GEMM.

pub(super) mod backward_weights;
pub(super) mod product;
pub(super) mod weights;
