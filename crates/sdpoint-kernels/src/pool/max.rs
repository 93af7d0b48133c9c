//! Maximum pooling.

use rten_simd::Isa;
use rten_simd::ops::{BitOps, NumOps};

use super::PoolGeometry;
use super::walk::{CoveringOutputs, InputRows, OutputRows, PoolWindow, Reduction, WindowGradient};
use crate::context::Context;
use crate::lanes::{load_up_to, store_up_to};
use crate::shared_mut::SharedMut;

/// The maximum of each window of `x`
/// (`[batch, height.input(), width.input(), channels]`), without the padding.
/// NaN counts as larger than any number.
///
/// # Panics
/// If a length does not fit the geometry.
pub fn max_pool(ctx: &Context, geometry: &PoolGeometry, x: &[f32], y: &mut [f32]) {
    geometry.check(x.len(), y.len());
    geometry.parallel_output_rows(ctx, y, |rows, y| {
        ctx.dispatch(OutputRows {
            geometry,
            rows,
            x,
            y,
            reduction: Max,
        });
    });
}

/// [`max_pool`] that also writes the argmax of each window to `indices`, of the
/// output's shape, for [`max_pool_backward`]: the number of the maximum's pixel
/// in its image, `row * width + column`. Of equal values the first in
/// row-major order is chosen.
///
/// # Panics
/// If a length does not fit the geometry, or an image has 2³¹ pixels or more.
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
        // SAFETY: each row belongs to one call.
        let indices = unsafe { indices.slice(rows.start * row_len..rows.end * row_len) };
        ctx.dispatch(OutputRows {
            geometry,
            rows,
            x,
            y,
            reduction: ArgMax { indices },
        });
    });
}

/// The gradient of [`max_pool_with_indices`] with respect to its input, added
/// to `dx` if `accumulate`.
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
        ctx.dispatch(InputRows {
            geometry,
            rows,
            dy,
            accumulate,
            dx,
            gradient: MaxGradient { indices },
        });
    });
}

// rten-simd has vectors of signed 32-bit integers only.

fn signed(values: &[u32]) -> &[i32] {
    // SAFETY: the types have the same size and alignment, and no invalid bit patterns.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), values.len()) }
}

fn signed_mut(values: &mut [u32]) -> &mut [i32] {
    // SAFETY: as above; the borrow passes to the result.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), values.len()) }
}

/// The maximum of a window's pixels.
struct Max;

impl Reduction for Max {
    type Sum<I: Isa> = I::F32;

    #[inline(always)]
    fn start<I: Isa>(&self, isa: I, _: &PoolWindow<'_>) -> I::F32 {
        isa.f32().splat(f32::NEG_INFINITY)
    }

    #[inline(always)]
    fn add<I: Isa, const V: usize>(&self, isa: I, maxima: &mut [I::F32; V], x: &[f32], _: usize) {
        let ops = isa.f32();
        for (v, max) in maxima.iter_mut().enumerate() {
            let x = load_up_to(ops, &x[v * ops.len()..]);
            *max = ops.select(x, *max, ops.gt(x, *max));
            *max = ops.select(*max, x, ops.eq(x, x));
        }
    }

    #[inline(always)]
    fn store<I: Isa, const V: usize>(
        &mut self,
        isa: I,
        maxima: [I::F32; V],
        _: &PoolWindow<'_>,
        _: usize,
        out: &mut [f32],
    ) {
        let ops = isa.f32();
        for (v, max) in maxima.into_iter().enumerate() {
            store_up_to(ops, max, &mut out[v * ops.len()..]);
        }
    }
}

/// The maximum of a window's pixels, and its pixel's number.
struct ArgMax<'a> {
    /// As long as the outputs.
    indices: &'a mut [i32],
}

impl Reduction for ArgMax<'_> {
    type Sum<I: Isa> = (I::F32, I::I32);

    #[inline(always)]
    fn start<I: Isa>(&self, isa: I, window: &PoolWindow<'_>) -> (I::F32, I::I32) {
        let first = window.rows.start * window.width + window.columns.start;
        (
            isa.f32().splat(f32::NEG_INFINITY),
            isa.i32().splat(first as i32),
        )
    }

    #[inline(always)]
    fn add<I: Isa, const V: usize>(
        &self,
        isa: I,
        maxima: &mut [(I::F32, I::I32); V],
        x: &[f32],
        pixel: usize,
    ) {
        let (ops, int_ops) = (isa.f32(), isa.i32());
        let pixel = int_ops.splat(pixel as i32);
        for (v, (max, index)) in maxima.iter_mut().enumerate() {
            let x = load_up_to(ops, &x[v * ops.len()..]);
            let (larger, number) = (ops.gt(x, *max), ops.eq(x, x));
            *max = ops.select(ops.select(x, *max, larger), x, number);
            *index = int_ops.select(int_ops.select(pixel, *index, larger), pixel, number);
        }
    }

    #[inline(always)]
    fn store<I: Isa, const V: usize>(
        &mut self,
        isa: I,
        maxima: [(I::F32, I::I32); V],
        _: &PoolWindow<'_>,
        at: usize,
        out: &mut [f32],
    ) {
        let (ops, int_ops) = (isa.f32(), isa.i32());
        let indices = &mut self.indices[at..at + out.len()];
        for (v, (max, index)) in maxima.into_iter().enumerate() {
            store_up_to(ops, max, &mut out[v * ops.len()..]);
            store_up_to(int_ops, index, &mut indices[v * ops.len()..]);
        }
    }
}

/// Passes an output's gradient to the pixel that was its window's maximum.
struct MaxGradient<'a> {
    /// As long as the outputs' gradient.
    indices: &'a [i32],
}

impl WindowGradient for MaxGradient<'_> {
    #[inline(always)]
    fn add<I: Isa, const V: usize>(
        &self,
        isa: I,
        sums: &mut [I::F32; V],
        dy: &[f32],
        outputs: &CoveringOutputs<'_>,
        _: [usize; 2],
        at: usize,
    ) {
        let (ops, int_ops) = (isa.f32(), isa.i32());
        let pixel = int_ops.splat(outputs.pixel as i32);
        let indices = &self.indices[at..at + dy.len()];
        for (v, sum) in sums.iter_mut().enumerate() {
            let is_max = int_ops.eq(load_up_to(int_ops, &indices[v * ops.len()..]), pixel);
            let dy = load_up_to(ops, &dy[v * ops.len()..]);
            *sum = ops.add(*sum, ops.select(dy, ops.zero(), is_max));
        }
    }
}
