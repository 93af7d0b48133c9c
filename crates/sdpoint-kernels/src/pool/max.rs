//! Maximum pooling.

use std::ops::Range;

use rten_simd::ops::{BitOps, NumOps};
use rten_simd::{Isa, SimdOp};

use super::PoolGeometry;
use crate::context::{Context, SharedMut};
use crate::lanes::{load_up_to, store_up_to};

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
            indices: None,
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
            indices: Some(indices),
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
    indices: Option<&'a mut [i32]>,
}

impl SimdOp for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(mut self, isa: I) {
        let PoolGeometry {
            channels,
            height,
            width,
            ..
        } = self.geometry;
        let channels = *channels;
        let (ops, int_ops) = (isa.f32(), isa.i32());
        let image_len = height.input() * width.input() * channels;
        let mut written = 0;
        for (row, y) in self
            .rows
            .zip(self.y.chunks_exact_mut(width.output() * channels))
        {
            let image = row / height.output();
            let x = &self.x[image * image_len..(image + 1) * image_len];
            let rows = &height.windows[row % height.output()];
            for (column, y) in y.chunks_exact_mut(channels).enumerate() {
                let columns = &width.windows[column];
                let mut channel = 0;
                for y in y.chunks_mut(ops.len()) {
                    let mut largest = ops.splat(f32::NEG_INFINITY);
                    let first = rows.start * width.input() + columns.start;
                    let mut index = int_ops.splat(first as i32);
                    for row in rows.clone() {
                        for column in columns.clone() {
                            let pixel = row * width.input() + column;
                            let at = pixel * channels + channel;
                            let x = load_up_to(ops, &x[at..at + y.len()]);
                            let pixel = int_ops.splat(pixel as i32);
                            let (larger, number) = (ops.gt(x, largest), ops.eq(x, x));
                            largest = ops.select(x, largest, larger);
                            largest = ops.select(largest, x, number);
                            index = int_ops.select(pixel, index, larger);
                            index = int_ops.select(index, pixel, number);
                        }
                    }
                    store_up_to(ops, largest, y);
                    if let Some(indices) = &mut self.indices {
                        store_up_to(int_ops, index, &mut indices[written..written + y.len()]);
                    }
                    channel += y.len();
                    written += y.len();
                }
            }
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
        let (ops, int_ops) = (isa.f32(), isa.i32());
        let image_len = height.output() * width.output() * channels;
        for (row, dx) in self
            .rows
            .zip(self.dx.chunks_exact_mut(width.input() * channels))
        {
            let image = row / height.input() * image_len;
            let row = row % height.input();
            let rows = &height.covering[row];
            for (column, dx) in dx.chunks_exact_mut(channels).enumerate() {
                let columns = &width.covering[column];
                let pixel = int_ops.splat((row * width.input() + column) as i32);
                let mut channel = 0;
                for dx in dx.chunks_mut(ops.len()) {
                    let mut sum = if self.accumulate {
                        load_up_to(ops, dx)
                    } else {
                        ops.zero()
                    };
                    for y in rows.clone() {
                        for x in columns.clone() {
                            let at = image + (y * width.output() + x) * channels + channel;
                            let range = at..at + dx.len();
                            let chosen = load_up_to(int_ops, &self.indices[range.clone()]);
                            let dy = load_up_to(ops, &self.dy[range]);
                            let passes = int_ops.eq(chosen, pixel);
                            sum = ops.add(sum, ops.select(dy, ops.zero(), passes));
                        }
                    }
                    store_up_to(ops, sum, dx);
                    channel += dx.len();
                }
            }
        }
    }
}
