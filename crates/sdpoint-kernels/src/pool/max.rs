//! Maximum pooling.

use std::ops::Range;

use rten_simd::ops::{BitOps, NumOps};
use rten_simd::{Isa, SimdOp};

use super::{Gather, PoolGeometry, gather_pixel};
use crate::context::Context;
use crate::lanes::{load_up_to, store_up_to};
use crate::shared_mut::SharedMut;

/// The largest value of each window of `x`; padding never is. NaN counts as
/// larger than any number.
///
/// # Panics
/// If a length does not fit the geometry.
pub fn max_pool(ctx: &Context, geometry: &PoolGeometry, x: &[f32], y: &mut [f32]) {
    geometry.check(x.len(), y.len());
    geometry.parallel_output_rows(ctx, y, |rows, y| {
        ctx.dispatch(Forward {
            geometry,
            rows,
            x,
            y,
            indices: &mut [],
        });
    });
}

/// [`max_pool`] that also writes, for each output, which pixel of its image the
/// value is from (`row * width + column`), for [`max_pool_backward`]. Of equal
/// values the first one is chosen, row by row.
///
/// # Panics
/// If a length does not fit the geometry.
pub fn max_pool_with_indices(
    ctx: &Context,
    geometry: &PoolGeometry,
    x: &[f32],
    y: &mut [f32],
    indices: &mut [u32],
) {
    geometry.check(x.len(), y.len());
    assert_eq!(indices.len(), y.len(), "length of the pooling's indices");
    assert!(
        i32::try_from(geometry.height.input() * geometry.width.input()).is_ok(),
        "an image has more pixels than indices can count"
    );
    let row_len = geometry.width.output() * geometry.channels;
    let indices = SharedMut::new(signed_mut(indices));
    geometry.parallel_output_rows(ctx, y, |rows, y| {
        // SAFETY: every row is one call's.
        let indices = unsafe { indices.slice(rows.start * row_len..rows.end * row_len) };
        ctx.dispatch(Forward {
            geometry,
            rows,
            x,
            y,
            indices,
        });
    });
}

/// The gradient of [`max_pool_with_indices`]; with `accumulate` it is added to
/// `dx`.
///
/// # Panics
/// If a length does not fit the geometry.
pub fn max_pool_backward(
    ctx: &Context,
    geometry: &PoolGeometry,
    dy: &[f32],
    indices: &[u32],
    accumulate: bool,
    dx: &mut [f32],
) {
    geometry.check(dx.len(), dy.len());
    assert_eq!(indices.len(), dy.len(), "length of the pooling's indices");
    let indices = signed(indices);
    geometry.parallel_input_rows(ctx, dx, |rows, dx| {
        ctx.dispatch(Backward {
            geometry,
            rows,
            dy,
            indices,
            accumulate,
            dx,
        });
    });
}

// rten-simd computes with signed integers of 32 bits only.

fn signed(values: &[u32]) -> &[i32] {
    // SAFETY: the types have one size and alignment, and no bits are invalid.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), values.len()) }
}

fn signed_mut(values: &mut [u32]) -> &mut [i32] {
    // SAFETY: as above; the borrow passes over to the result.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), values.len()) }
}

struct Forward<'a> {
    geometry: &'a PoolGeometry,
    rows: Range<usize>,
    x: &'a [f32],
    y: &'a mut [f32],
    /// As long as `y`, or empty where nobody asks for indices.
    indices: &'a mut [i32],
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
        let mut indices = self.indices.chunks_exact_mut(channels);
        for (row, y) in self
            .rows
            .zip(self.y.chunks_exact_mut(width.output() * channels))
        {
            let image = row / height.output() * image_len;
            for (column, y) in y.chunks_exact_mut(channels).enumerate() {
                let window = Window {
                    image: &self.x[image..image + image_len],
                    width: width.input(),
                    channels,
                    rows: &height.windows[row % height.output()],
                    columns: &width.windows[column],
                };
                match indices.next() {
                    Some(indices) => gather_pixel(isa, WithIndices { window, indices }, y),
                    None => gather_pixel(isa, window, y),
                }
            }
        }
    }
}

/// The input pixels of an output.
struct Window<'a> {
    image: &'a [f32],
    width: usize,
    channels: usize,
    rows: &'a Range<usize>,
    columns: &'a Range<usize>,
}

impl Gather for Window<'_> {
    #[inline(always)]
    fn gather<I: Isa, const V: usize>(&mut self, isa: I, channel: usize, out: &mut [f32]) {
        let ops = isa.f32();
        let lanes = ops.len();
        let mut largest = [ops.splat(f32::NEG_INFINITY); V];
        for row in self.rows.clone() {
            for column in self.columns.clone() {
                let at = (row * self.width + column) * self.channels + channel;
                let x = &self.image[at..at + out.len()];
                for (v, largest) in largest.iter_mut().enumerate() {
                    let x = load_up_to(ops, &x[v * lanes..]);
                    *largest = ops.select(x, *largest, ops.gt(x, *largest));
                    *largest = ops.select(*largest, x, ops.eq(x, x));
                }
            }
        }
        for (v, largest) in largest.into_iter().enumerate() {
            store_up_to(ops, largest, &mut out[v * lanes..]);
        }
    }
}

/// A window whose largest values' pixels are written to `indices`.
struct WithIndices<'a> {
    window: Window<'a>,
    indices: &'a mut [i32],
}

impl Gather for WithIndices<'_> {
    #[inline(always)]
    fn gather<I: Isa, const V: usize>(&mut self, isa: I, channel: usize, out: &mut [f32]) {
        let (ops, int_ops) = (isa.f32(), isa.i32());
        let lanes = ops.len();
        let Window {
            image,
            width,
            channels,
            rows,
            columns,
        } = &self.window;
        let first = int_ops.splat((rows.start * width + columns.start) as i32);
        let mut largest = [(ops.splat(f32::NEG_INFINITY), first); V];
        for row in rows.start..rows.end {
            for column in columns.start..columns.end {
                let pixel = row * width + column;
                let at = pixel * channels + channel;
                let pixel = int_ops.splat(pixel as i32);
                let x = &image[at..at + out.len()];
                for (v, (largest, index)) in largest.iter_mut().enumerate() {
                    let x = load_up_to(ops, &x[v * lanes..]);
                    let (larger, number) = (ops.gt(x, *largest), ops.eq(x, x));
                    *largest = ops.select(ops.select(x, *largest, larger), x, number);
                    *index = int_ops.select(int_ops.select(pixel, *index, larger), pixel, number);
                }
            }
        }
        let indices = &mut self.indices[channel..channel + out.len()];
        for (v, (largest, index)) in largest.into_iter().enumerate() {
            store_up_to(ops, largest, &mut out[v * lanes..]);
            store_up_to(int_ops, index, &mut indices[v * lanes..]);
        }
    }
}

struct Backward<'a> {
    geometry: &'a PoolGeometry,
    rows: Range<usize>,
    dy: &'a [f32],
    indices: &'a [i32],
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
            let row = row % height.input();
            for (column, dx) in dx.chunks_exact_mut(channels).enumerate() {
                let covering = Covering {
                    image: &self.dy[image..image + image_len],
                    indices: &self.indices[image..image + image_len],
                    width: width.output(),
                    channels,
                    pixel: (row * width.input() + column) as i32,
                    rows: &height.covering[row],
                    columns: &width.covering[column],
                    accumulate: self.accumulate,
                };
                gather_pixel(isa, covering, dx);
            }
        }
    }
}

/// The outputs that the input pixel numbered `pixel` may be the value of.
struct Covering<'a> {
    image: &'a [f32],
    indices: &'a [i32],
    width: usize,
    channels: usize,
    pixel: i32,
    rows: &'a Range<usize>,
    columns: &'a Range<usize>,
    accumulate: bool,
}

impl Gather for Covering<'_> {
    #[inline(always)]
    fn gather<I: Isa, const V: usize>(&mut self, isa: I, channel: usize, out: &mut [f32]) {
        let (ops, int_ops) = (isa.f32(), isa.i32());
        let lanes = ops.len();
        let pixel = int_ops.splat(self.pixel);
        let mut sums = [ops.zero(); V];
        if self.accumulate {
            for (v, sum) in sums.iter_mut().enumerate() {
                *sum = load_up_to(ops, &out[v * lanes..]);
            }
        }
        for row in self.rows.clone() {
            for column in self.columns.clone() {
                let at = (row * self.width + column) * self.channels + channel;
                let dy = &self.image[at..at + out.len()];
                let indices = &self.indices[at..at + out.len()];
                for (v, sum) in sums.iter_mut().enumerate() {
                    let chosen = int_ops.eq(load_up_to(int_ops, &indices[v * lanes..]), pixel);
                    let dy = load_up_to(ops, &dy[v * lanes..]);
                    *sum = ops.add(*sum, ops.select(dy, ops.zero(), chosen));
                }
            }
        }
        for (v, sum) in sums.into_iter().enumerate() {
            store_up_to(ops, sum, &mut out[v * lanes..]);
        }
    }
}
