//! The loops over windows, which maximum and average pooling share.

use std::ops::Range;

use rten_simd::ops::BitOps;
use rten_simd::{Isa, SimdOp};

use super::PoolGeometry;
use crate::lanes::{load_up_to, store_up_to};

/// Vectors of a pixel that are computed at once, for independent dependency
/// chains.
const GROUP: usize = 4;

/// The window of one output pixel.
pub(super) struct PoolWindow<'a> {
    /// The pixels of the output's image.
    image: &'a [f32],
    /// Pixels of a row of the image.
    pub width: usize,
    channels: usize,
    pub rows: &'a Range<usize>,
    pub columns: &'a Range<usize>,
    /// The reciprocal of the number of pixels that an average divides by.
    pub weight: f32,
}

/// A reduction of the pixels of a window to an output pixel.
pub(super) trait Reduction {
    /// A vector of intermediate results.
    type Sum<I: Isa>: Copy;

    /// The result of no pixels.
    fn start<I: Isa>(&self, isa: I, window: &PoolWindow<'_>) -> Self::Sum<I>;

    /// Adds the channels `x` of the pixel numbered `pixel` in its image.
    fn add<I: Isa, const V: usize>(
        &self,
        isa: I,
        sums: &mut [Self::Sum<I>; V],
        x: &[f32],
        pixel: usize,
    );

    /// Stores the output in `out`, element `at` of the range of rows that is
    /// computed.
    fn store<I: Isa, const V: usize>(
        &mut self,
        isa: I,
        sums: [Self::Sum<I>; V],
        window: &PoolWindow<'_>,
        at: usize,
        out: &mut [f32],
    );
}

/// Computes a range of output rows, counted over all images.
pub(super) struct OutputRows<'a, R> {
    pub geometry: &'a PoolGeometry,
    pub rows: Range<usize>,
    pub x: &'a [f32],
    pub y: &'a mut [f32],
    pub reduction: R,
}

impl<R: Reduction> SimdOp for OutputRows<'_, R> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let OutputRows {
            geometry,
            rows,
            x,
            y,
            mut reduction,
        } = self;
        let PoolGeometry {
            channels,
            height,
            width,
            ..
        } = geometry;
        let channels = *channels;
        let image_len = height.input() * width.input() * channels;
        let mut at = 0;
        for (row, y) in rows.zip(y.chunks_exact_mut(width.output() * channels)) {
            let image = row / height.output() * image_len;
            let row = row % height.output();
            for (column, y) in y.chunks_exact_mut(channels).enumerate() {
                let window = PoolWindow {
                    image: &x[image..image + image_len],
                    width: width.input(),
                    channels,
                    rows: &height.windows[row],
                    columns: &width.windows[column],
                    weight: height.weights[row] * width.weights[column],
                };
                reduce_window(isa, &mut reduction, &window, at, y);
                at += channels;
            }
        }
    }
}

/// Reduces all channels of a window to the pixel `out`.
#[inline(always)]
fn reduce_window<I: Isa, R: Reduction>(
    isa: I,
    reduction: &mut R,
    window: &PoolWindow<'_>,
    at: usize,
    out: &mut [f32],
) {
    let lanes = isa.f32().len();
    let mut groups = out.chunks_exact_mut(GROUP * lanes);
    let mut channel = 0;
    for out in &mut groups {
        reduce_channels::<I, R, GROUP>(isa, reduction, window, channel, at + channel, out);
        channel += out.len();
    }
    for out in groups.into_remainder().chunks_mut(lanes) {
        reduce_channels::<I, R, 1>(isa, reduction, window, channel, at + channel, out);
        channel += out.len();
    }
}

/// Reduces `V` vectors of channels, or as many lanes of one as fit in `out`.
#[inline(always)]
fn reduce_channels<I: Isa, R: Reduction, const V: usize>(
    isa: I,
    reduction: &mut R,
    window: &PoolWindow<'_>,
    channel: usize,
    at: usize,
    out: &mut [f32],
) {
    let mut sums = [reduction.start(isa, window); V];
    for row in window.rows.clone() {
        for column in window.columns.clone() {
            let pixel = row * window.width + column;
            let from = pixel * window.channels + channel;
            let x = &window.image[from..from + out.len()];
            reduction.add(isa, &mut sums, x, pixel);
        }
    }
    reduction.store(isa, sums, window, at, out);
}

/// The outputs whose windows contain an input pixel.
pub(super) struct CoveringOutputs<'a> {
    /// The input pixel's number in its image.
    pub pixel: usize,
    /// Offset of the image's outputs.
    image: usize,
    /// Outputs of a row.
    width: usize,
    channels: usize,
    rows: &'a Range<usize>,
    columns: &'a Range<usize>,
}

/// The gradient of a window's output with respect to the pixels of the window.
pub(super) trait WindowGradient {
    /// Adds the contribution of one output to the gradient of an input pixel.
    /// `outputs` are all whose windows contain that pixel, `output` is the row
    /// and column of this one, and `dy` its gradient, element `at` of all.
    fn add<I: Isa, const V: usize>(
        &self,
        isa: I,
        sums: &mut [I::F32; V],
        dy: &[f32],
        outputs: &CoveringOutputs<'_>,
        output: [usize; 2],
        at: usize,
    );
}

/// Computes the gradients of a range of input rows, counted over all images.
pub(super) struct InputRows<'a, G> {
    pub geometry: &'a PoolGeometry,
    pub rows: Range<usize>,
    pub dy: &'a [f32],
    pub accumulate: bool,
    pub dx: &'a mut [f32],
    pub gradient: G,
}

impl<G: WindowGradient> SimdOp for InputRows<'_, G> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let InputRows {
            geometry,
            rows,
            dy,
            accumulate,
            dx,
            gradient,
        } = self;
        let PoolGeometry {
            channels,
            height,
            width,
            ..
        } = geometry;
        let channels = *channels;
        let image_len = height.output() * width.output() * channels;
        for (row, dx) in rows.zip(dx.chunks_exact_mut(width.input() * channels)) {
            let image = row / height.input() * image_len;
            let row = row % height.input();
            for (column, dx) in dx.chunks_exact_mut(channels).enumerate() {
                let outputs = CoveringOutputs {
                    pixel: row * width.input() + column,
                    image,
                    width: width.output(),
                    channels,
                    rows: &height.covering[row],
                    columns: &width.covering[column],
                };
                sum_outputs(isa, &gradient, dy, &outputs, accumulate, dx);
            }
        }
    }
}

/// Sums the gradients of all channels of the pixel `out`.
#[inline(always)]
fn sum_outputs<I: Isa, G: WindowGradient>(
    isa: I,
    gradient: &G,
    dy: &[f32],
    outputs: &CoveringOutputs<'_>,
    accumulate: bool,
    out: &mut [f32],
) {
    let lanes = isa.f32().len();
    let mut groups = out.chunks_exact_mut(GROUP * lanes);
    let mut channel = 0;
    for out in &mut groups {
        sum_channels::<I, G, GROUP>(isa, gradient, dy, outputs, accumulate, channel, out);
        channel += out.len();
    }
    for out in groups.into_remainder().chunks_mut(lanes) {
        sum_channels::<I, G, 1>(isa, gradient, dy, outputs, accumulate, channel, out);
        channel += out.len();
    }
}

/// Sums the gradients of `V` vectors of channels, or of as many lanes of one as
/// fit in `out`.
#[inline(always)]
fn sum_channels<I: Isa, G: WindowGradient, const V: usize>(
    isa: I,
    gradient: &G,
    dy: &[f32],
    outputs: &CoveringOutputs<'_>,
    accumulate: bool,
    channel: usize,
    out: &mut [f32],
) {
    let ops = isa.f32();
    let mut sums = [ops.zero(); V];
    if accumulate {
        for (v, sum) in sums.iter_mut().enumerate() {
            *sum = load_up_to(ops, &out[v * ops.len()..]);
        }
    }
    for row in outputs.rows.clone() {
        for column in outputs.columns.clone() {
            let pixel = row * outputs.width + column;
            let at = outputs.image + pixel * outputs.channels + channel;
            let dy = &dy[at..at + out.len()];
            gradient.add(isa, &mut sums, dy, outputs, [row, column], at);
        }
    }
    for (v, sum) in sums.into_iter().enumerate() {
        store_up_to(ops, sum, &mut out[v * ops.len()..]);
    }
}
