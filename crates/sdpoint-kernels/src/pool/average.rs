//! Average pooling.

use std::ops::Range;

use rten_simd::ops::{BitOps, NumOps};
use rten_simd::{Isa, SimdOp};

use super::{Gather, PoolGeometry, gather_pixel};
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
        let image_len = height.input() * width.input() * channels;
        for (row, y) in self
            .rows
            .zip(self.y.chunks_exact_mut(width.output() * channels))
        {
            let image = row / height.output() * image_len;
            let row = row % height.output();
            for (column, y) in y.chunks_exact_mut(channels).enumerate() {
                let window = Window {
                    image: &self.x[image..image + image_len],
                    width: width.input(),
                    channels,
                    rows: &height.windows[row],
                    columns: &width.windows[column],
                    weight: height.weights[row] * width.weights[column],
                };
                gather_pixel(isa, window, y);
            }
        }
    }
}

/// The input pixels of an output, whose sum times `weight` it is.
struct Window<'a> {
    image: &'a [f32],
    width: usize,
    channels: usize,
    rows: &'a Range<usize>,
    columns: &'a Range<usize>,
    weight: f32,
}

impl Gather for Window<'_> {
    #[inline(always)]
    fn gather<I: Isa, const V: usize>(&mut self, isa: I, channel: usize, out: &mut [f32]) {
        let ops = isa.f32();
        let lanes = ops.len();
        let mut sums = [ops.zero(); V];
        for row in self.rows.clone() {
            for column in self.columns.clone() {
                let at = (row * self.width + column) * self.channels + channel;
                let x = &self.image[at..at + out.len()];
                for (v, sum) in sums.iter_mut().enumerate() {
                    *sum = ops.add(*sum, load_up_to(ops, &x[v * lanes..]));
                }
            }
        }
        let weight = ops.splat(self.weight);
        for (v, sum) in sums.into_iter().enumerate() {
            store_up_to(ops, ops.mul(sum, weight), &mut out[v * lanes..]);
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
        let image_len = height.output() * width.output() * channels;
        for (row, dx) in self
            .rows
            .zip(self.dx.chunks_exact_mut(width.input() * channels))
        {
            let image = row / height.input() * image_len;
            for (column, dx) in dx.chunks_exact_mut(channels).enumerate() {
                let covering = Covering {
                    image: &self.dy[image..image + image_len],
                    channels,
                    rows: &height.covering[row % height.input()],
                    row_weights: &height.weights,
                    columns: &width.covering[column],
                    column_weights: &width.weights,
                    accumulate: self.accumulate,
                };
                gather_pixel(isa, covering, dx);
            }
        }
    }
}

/// The outputs that an input pixel is part of.
struct Covering<'a> {
    image: &'a [f32],
    channels: usize,
    rows: &'a Range<usize>,
    row_weights: &'a [f32],
    columns: &'a Range<usize>,
    column_weights: &'a [f32],
    accumulate: bool,
}

impl Gather for Covering<'_> {
    #[inline(always)]
    fn gather<I: Isa, const V: usize>(&mut self, isa: I, channel: usize, out: &mut [f32]) {
        let ops = isa.f32();
        let lanes = ops.len();
        let mut sums = [ops.zero(); V];
        if self.accumulate {
            for (v, sum) in sums.iter_mut().enumerate() {
                *sum = load_up_to(ops, &out[v * lanes..]);
            }
        }
        for row in self.rows.clone() {
            for column in self.columns.clone() {
                let weight = ops.splat(self.row_weights[row] * self.column_weights[column]);
                let at = (row * self.column_weights.len() + column) * self.channels + channel;
                let dy = &self.image[at..at + out.len()];
                for (v, sum) in sums.iter_mut().enumerate() {
                    *sum = ops.mul_add(load_up_to(ops, &dy[v * lanes..]), weight, *sum);
                }
            }
        }
        for (v, sum) in sums.into_iter().enumerate() {
            store_up_to(ops, sum, &mut out[v * lanes..]);
        }
    }
}
