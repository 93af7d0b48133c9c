//! The definition's products, as an implicit matrix product: what a band of outputs sees is copied
//! into panels, and multiplied tile by tile with the packed weights.

pub(super) mod backward_weights;
pub(super) mod product;
