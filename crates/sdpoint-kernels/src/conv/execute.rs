//! Dispatches a product to the algorithm chosen for it.

use super::algorithm::ConvAlgorithm;
use super::product::Product;
use super::{direct, grouped, strassen, winograd};
use crate::context::Context;

/// Computes a product and returns the algorithm that computed it.
pub(super) fn execute(ctx: &Context, product: &Product<'_>) -> ConvAlgorithm {
    let Product {
        problem, weights, ..
    } = product;
    let algorithm = weights.algorithm(problem);
    if problem.is_empty() {
        return algorithm;
    }
    match algorithm {
        ConvAlgorithm::Direct => direct::product::run(ctx, product),
        ConvAlgorithm::Grouped => grouped::product::run(ctx, product, weights.grouped()),
        ConvAlgorithm::Winograd(tile) => {
            winograd::product::run(ctx, product, weights.transformed(ctx, tile));
        }
        ConvAlgorithm::Strassen => {
            strassen::product::run(ctx, product, weights.quadrant_sums(ctx));
        }
    }
    algorithm
}
