//! The backward pass to weights.

use super::algorithm::ConvAlgorithm;
use super::gather::Source;
use super::geometry::{ConvShape, Flattened};
use super::merge::Merged;
use super::problem::Problem;
use super::reduction::Reduction;
use super::{assert_len, direct, grouped, winograd};
use crate::context::Context;

/// Computes the gradient `dw` with respect to the weights (`[out_channels, in_channels / groups,
/// kernel height, kernel width]`) from the input `x` and the gradient `dy` with respect to the
/// output. Adds it to the content of `dw` if `accumulate`, and replaces it otherwise. Returns the
/// algorithm that computed it.
///
/// # Panics
///
/// If a length does not fit `shape`.
pub fn conv_backward_weights(
    ctx: &Context,
    shape: &ConvShape,
    x: &[f32],
    dy: &[f32],
    dw: &mut [f32],
    accumulate: bool,
) -> ConvAlgorithm {
    let geometry = &shape.geometry;
    geometry.assert_valid();
    assert_len("input", x.len(), shape.input_len());
    assert_len("output gradient", dy.len(), shape.output_len());
    assert_len("weight gradient", dw.len(), shape.weight_len());
    let algorithm = ctx.algorithms().backward_weights(shape);
    if dy.is_empty() {
        if !accumulate {
            dw.fill(0.0);
        }
        return algorithm;
    }
    let merged = Merged::new(geometry);
    let layout = merged.forward_layout(ctx.isa(), geometry);
    let Flattened {
        input: [height, width],
        ..
    } = shape.flattened();
    let reduction = Reduction {
        source: Source {
            data: x,
            height,
            width,
            channels: geometry.in_channels,
        },
        gradient: dy,
        geometry,
        problem: Problem::forward(shape),
        layout: &layout,
    };
    match algorithm {
        ConvAlgorithm::Direct => {
            direct::backward_weights::run(ctx, &reduction, &merged, dw, accumulate);
        }
        ConvAlgorithm::Grouped => {
            grouped::backward_weights::run(ctx, &reduction, dw, accumulate);
        }
        ConvAlgorithm::Winograd(_) => {
            winograd::backward_weights::run(ctx, &reduction, dw, accumulate);
        }
        ConvAlgorithm::Strassen => unreachable!("Strassen's algorithm computes products only"),
    }
    algorithm
}
