//! Two-dimensional convolution: forward, backward to data, backward to weights.

mod geometry;

pub use geometry::{ConvGeometry, ConvShape};

use crate::context::Context;

/// A convolution's weights, laid out for [`conv_forward`] on one instruction set; any batch
/// and any input size use the same copy.
#[derive(Clone, Debug)]
pub struct PackedConv {
    geometry: ConvGeometry,
    weights: Vec<f32>,
}

impl PackedConv {
    /// Packs `weights`, in the order output channel, input channel, row, column.
    pub fn new(ctx: &Context, geometry: ConvGeometry, weights: &[f32]) -> Self {
        geometry.assert_valid();
        let mut packed = PackedConv {
            geometry,
            weights: vec![0.0; geometry.weight_len()],
        };
        packed.repack(ctx, weights);
        packed
    }

    /// Replaces the weights without allocating.
    pub fn repack(&mut self, _ctx: &Context, weights: &[f32]) {
        assert_len("weights", weights.len(), self.geometry.weight_len());
        self.weights.copy_from_slice(weights);
    }

    /// The convolution.
    pub fn geometry(&self) -> &ConvGeometry {
        &self.geometry
    }

    /// Memory that the packed weights take.
    pub fn bytes(&self) -> usize {
        size_of_val(self.weights.as_slice())
    }
}

/// A convolution's weights, laid out for [`conv_backward_data`] on one instruction set.
#[derive(Clone, Debug)]
pub struct PackedConvTranspose {
    geometry: ConvGeometry,
    weights: Vec<f32>,
}

impl PackedConvTranspose {
    /// Packs `weights`, in the order output channel, input channel, row, column.
    pub fn new(ctx: &Context, geometry: ConvGeometry, weights: &[f32]) -> Self {
        geometry.assert_valid();
        let mut packed = PackedConvTranspose {
            geometry,
            weights: vec![0.0; geometry.weight_len()],
        };
        packed.repack(ctx, weights);
        packed
    }

    /// Replaces the weights without allocating.
    pub fn repack(&mut self, _ctx: &Context, weights: &[f32]) {
        assert_len("weights", weights.len(), self.geometry.weight_len());
        self.weights.copy_from_slice(weights);
    }

    /// The convolution whose data gradient this serves.
    pub fn geometry(&self) -> &ConvGeometry {
        &self.geometry
    }

    /// Memory that the packed weights take.
    pub fn bytes(&self) -> usize {
        size_of_val(self.weights.as_slice())
    }
}

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

/// Convolves `x` with `w` and stores the epilogue's result in `y`.
///
/// # Panics
///
/// If a length does not fit `shape`, or `w` is of another geometry.
pub fn conv_forward(
    ctx: &Context,
    shape: &ConvShape,
    x: &[f32],
    w: &PackedConv,
    epilogue: Epilogue<'_>,
    y: &mut [f32],
) {
    let geometry = &shape.geometry;
    assert_eq!(
        *geometry, w.geometry,
        "weights packed for another convolution"
    );
    assert_len("input", x.len(), shape.input_len());
    assert_len("output", y.len(), shape.output_len());
    let Epilogue {
        scale,
        shift,
        residual,
        relu,
        mut second,
    } = epilogue;
    let channels = geometry.out_channels;
    for part in [scale, shift].into_iter().flatten() {
        assert_len("scale or shift", part.len(), channels);
    }
    if let Some(residual) = residual {
        assert_len("residual", residual.len(), y.len());
    }
    if let Some(second) = &second {
        assert_len("second scale", second.scale.len(), channels);
        assert_len("second shift", second.shift.len(), channels);
        assert_len("second output", second.out.len(), y.len());
    }
    y.fill(0.0);
    let _ = ctx;
    for_each_product(shape, |yi, xi, wi| y[yi] += x[xi] * w.weights[wi]);
    for (i, y) in y.iter_mut().enumerate() {
        let c = i % channels;
        *y = *y * scale.map_or(1.0, |s| s[c]) + shift.map_or(0.0, |s| s[c]);
        *y += residual.map_or(0.0, |r| r[i]);
        if relu {
            *y = y.max(0.0);
        }
        if let Some(second) = &mut second {
            let z = *y * second.scale[c] + second.shift[c];
            second.out[i] = if second.relu { z.max(0.0) } else { z };
        }
    }
}

/// The gradient `dx` with respect to the input, from the gradient `dy` with respect to the
/// output; added to what `dx` holds if `accumulate`.
///
/// # Panics
///
/// If a length does not fit `shape`, or `w` is of another geometry.
pub fn conv_backward_data(
    ctx: &Context,
    shape: &ConvShape,
    dy: &[f32],
    w: &PackedConvTranspose,
    dx: &mut [f32],
    accumulate: bool,
) {
    assert_eq!(
        shape.geometry, w.geometry,
        "weights packed for another convolution"
    );
    assert_len("output gradient", dy.len(), shape.output_len());
    assert_len("input gradient", dx.len(), shape.input_len());
    if !accumulate {
        dx.fill(0.0);
    }
    let _ = ctx;
    for_each_product(shape, |yi, xi, wi| dx[xi] += dy[yi] * w.weights[wi]);
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
