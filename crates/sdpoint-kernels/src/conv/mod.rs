//! Two-dimensional convolution: forward, backward to data, backward to weights.

mod backward_data;
mod epilogue;
mod forward;
mod gather;
mod geometry;
mod grouped;
mod microkernel;
mod pack;
mod product;
#[cfg(test)]
mod tests;

pub use geometry::{ConvGeometry, ConvShape};

pub use backward_data::{PackedConvTranspose, conv_backward_data};
pub use forward::{PackedConv, conv_forward};

use crate::context::Context;

/// What happens to a convolution's sums before they are stored:
/// `y = relu(sum * scale + shift + residual)`, each part where given.
#[derive(Debug, Default)]
pub struct Epilogue<'a> {
    /// A factor for each output channel.
    pub scale: Option<&'a [f32]>,
    /// A summand for each output channel: a bias, or batch norm's shift.
    pub shift: Option<&'a [f32]>,
    /// A tensor of the output's shape.
    pub residual: Option<&'a [f32]>,
    /// Whether negative results become zero.
    pub relu: bool,
    /// A second tensor made from the finished output.
    pub second: Option<Second<'a>>,
}

/// A second output, `out = relu(y * scale + shift)` of a convolution's finished output `y`:
/// in pre-activation networks the sum and its normalised activation are both needed.
#[derive(Debug)]
pub struct Second<'a> {
    /// A factor for each output channel.
    pub scale: &'a [f32],
    /// A summand for each output channel.
    pub shift: &'a [f32],
    /// Whether negative results become zero.
    pub relu: bool,
    /// A tensor of the output's shape.
    pub out: &'a mut [f32],
}

/// The gradient `dw` with respect to the weights (output channel, input channel, row, column),
/// from the input `x` and the gradient `dy` with respect to the output; added to what `dw`
/// holds if `accumulate`.
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
) {
    shape.geometry.assert_valid();
    assert_len("input", x.len(), shape.input_len());
    assert_len("output gradient", dy.len(), shape.output_len());
    assert_len("weight gradient", dw.len(), shape.weight_len());
    if !accumulate {
        dw.fill(0.0);
    }
    let _ = ctx;
    for_each_product(shape, |yi, xi, wi| dw[wi] += dy[yi] * x[xi]);
}

fn assert_len(what: &str, len: usize, expected: usize) {
    assert_eq!(
        len, expected,
        "{what}: {len} floats where the shape has {expected}"
    );
}

/// Calls `f(output, input, weight)` with the indices of every product of the convolution.
fn for_each_product(shape: &ConvShape, mut f: impl FnMut(usize, usize, usize)) {
    let g = &shape.geometry;
    let (group_in, group_out) = (g.group_in_channels(), g.group_out_channels());
    let [kh, kw] = g.kernel;
    let (out_height, out_width) = (shape.out_height(), shape.out_width());
    for n in 0..shape.batch {
        for oy in 0..out_height {
            for ox in 0..out_width {
                for ky in 0..kh {
                    let Some(iy) = (oy * g.stride[0] + ky).checked_sub(g.padding[0]) else {
                        continue;
                    };
                    for kx in 0..kw {
                        let Some(ix) = (ox * g.stride[1] + kx).checked_sub(g.padding[1]) else {
                            continue;
                        };
                        if iy >= shape.in_height || ix >= shape.in_width {
                            continue;
                        }
                        let y = ((n * out_height + oy) * out_width + ox) * g.out_channels;
                        let x = ((n * shape.in_height + iy) * shape.in_width + ix) * g.in_channels;
                        for oc in 0..g.out_channels {
                            let first = oc / group_out * group_in;
                            for ic in 0..group_in {
                                f(
                                    y + oc,
                                    x + first + ic,
                                    ((oc * group_in + ic) * kh + ky) * kw + kx,
                                );
                            }
                        }
                    }
                }
            }
        }
    }
}
