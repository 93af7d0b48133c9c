//! Convolutions in groups of few channels, depth-wise ones among them: vectors run over the output
//! channels of several groups, and there is no matrix product.

pub(super) mod backward_weights;
pub(super) mod product;
pub(super) mod weights;
