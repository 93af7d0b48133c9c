//! Average pooling.

use std::ops::Range;

use rten_simd::ops::{BitOps, NumOps};
use rten_simd::{Isa, SimdOp};

use super::PoolGeometry;
use crate::context::Context;
use crate::lanes::{load_up_to, store_up_to};

/// The average of each window of `x`.
///
/// # Panics
/// If a length does not fit the geometry.
pub fn average_pool(ctx: &Context, geometry: &PoolGeometry, x: &[f32], y: &mut [f32]) {
    geometry.check(x.len(), y.len());
    geometry.parallel_output_rows(ctx, y, |rows, y| {
        ctx.dispatch(Forward {
            geometry,
            rows,
            x,
            y,
        });
    });
}

/// The gradient of [`average_pool`]; with `accumulate` it is added to `dx`.
///
/// # Panics
/// If a length does not fit the geometry.
pub fn average_pool_backward(
    ctx: &Context,
    geometry: &PoolGeometry,
    dy: &[f32],
    accumulate: bool,
    dx: &mut [f32],
) {
    geometry.check(dx.len(), dy.len());
    geometry.parallel_input_rows(ctx, dx, |rows, dx| {
        ctx.dispatch(Backward {
            geometry,
            rows,
            dy,
            accumulate,
            dx,
        });
    });
}

/// Vectors of a pixel summed side by side.
const GROUP: usize = 4;

struct Forward<'a> {
    geometry: &'a PoolGeometry,
    rows: Range<usize>,
    x: &'a [f32],
    y: &'a mut [f32],
}

impl SimdOp for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let PoolGeometry {
            channels,
            height,
            width,
            ..
        } = self.geometry;
        let channels = *channels;
        let lanes = isa.f32().len();
        let image_len = height.input() * width.input() * channels;
        for (row, y) in self
            .rows
            .zip(self.y.chunks_exact_mut(width.output() * channels))
        {
            let image = row / height.output();
            let x = &self.x[image * image_len..(image + 1) * image_len];
            let rows = height.windows[row % height.output()].clone();
            let row_size = height.sizes[row % height.output()];
            for (column, y) in y.chunks_exact_mut(channels).enumerate() {
                let columns = width.windows[column].clone();
                let scale = 1.0 / (row_size * width.sizes[column]) as f32;
                let window = Window {
                    pixels: x,
                    width: width.input(),
                    rows: rows.clone(),
                    columns,
                };
                let mut groups = y.chunks_exact_mut(GROUP * lanes);
                let mut channel = 0;
                for y in &mut groups {
                    window.average::<I, GROUP>(isa, channels, channel, scale, y);
                    channel += y.len();
                }
                for y in groups.into_remainder().chunks_mut(lanes) {
                    window.average::<I, 1>(isa, channels, channel, scale, y);
                    channel += y.len();
                }
            }
        }
    }
}

/// A rectangle of an image's pixels.
struct Window<'a> {
    pixels: &'a [f32],
    width: usize,
    rows: Range<usize>,
    columns: Range<usize>,
}

impl Window<'_> {
    /// Writes the sum of `V` vectors of channels, from `channel` on, times `scale`.
    #[inline(always)]
    fn average<I: Isa, const V: usize>(
        &self,
        isa: I,
        channels: usize,
        channel: usize,
        scale: f32,
        y: &mut [f32],
    ) {
        let ops = isa.f32();
        let lanes = ops.len();
        let mut sums = [ops.zero(); V];
        for row in self.rows.clone() {
            for column in self.columns.clone() {
                let at = (row * self.width + column) * channels + channel;
                let x = &self.pixels[at..at + y.len()];
                for v in 0..V {
                    sums[v] = ops.add(sums[v], load_up_to(ops, &x[v * lanes..]));
                }
            }
        }
        let scale = ops.splat(scale);
        for v in 0..V {
            store_up_to(ops, ops.mul(sums[v], scale), &mut y[v * lanes..]);
        }
    }
}

struct Backward<'a> {
    geometry: &'a PoolGeometry,
    rows: Range<usize>,
    dy: &'a [f32],
    accumulate: bool,
    dx: &'a mut [f32],
}

impl SimdOp for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let PoolGeometry {
            channels,
            height,
            width,
            ..
        } = self.geometry;
        let channels = *channels;
        let ops = isa.f32();
        let image_len = height.output() * width.output() * channels;
        for (row, dx) in self
            .rows
            .zip(self.dx.chunks_exact_mut(width.input() * channels))
        {
            let image = row / height.input();
            let dy = &self.dy[image * image_len..(image + 1) * image_len];
            let rows = &height.covering[row % height.input()];
            for (column, dx) in dx.chunks_exact_mut(channels).enumerate() {
                let columns = &width.covering[column];
                let mut channel = 0;
                for dx in dx.chunks_mut(ops.len()) {
                    let mut sum = if self.accumulate {
                        load_up_to(ops, dx)
                    } else {
                        ops.zero()
                    };
                    for y in rows.clone() {
                        for x in columns.clone() {
                            let scale = 1.0 / (height.sizes[y] * width.sizes[x]) as f32;
                            let at = (y * width.output() + x) * channels + channel;
                            let dy = load_up_to(ops, &dy[at..at + dx.len()]);
                            sum = ops.mul_add(dy, ops.splat(scale), sum);
                        }
                    }
                    store_up_to(ops, sum, dx);
                    channel += dx.len();
                }
            }
        }
    }
}
