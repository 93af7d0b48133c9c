//! Average pooling.

use rten_simd::Isa;
use rten_simd::ops::{BitOps, NumOps};

use super::walk::{CoveringOutputs, InputRows, OutputRows, PoolWindow, Reduction, WindowGradient};
use super::{PoolAxis, PoolGeometry};
use crate::context::Context;
use crate::lanes::{load_up_to, store_up_to};

/// The average of each window of `x`
/// (`[batch, height.input(), width.input(), channels]`).
///
/// # Panics
/// If a length does not fit the geometry.
pub fn average_pool(ctx: &Context, geometry: &PoolGeometry, x: &[f32], y: &mut [f32]) {
    geometry.check(x.len(), y.len());
    geometry.parallel_output_rows(ctx, y, |rows, y| {
        ctx.dispatch(OutputRows {
            geometry,
            rows,
            x,
            y,
            reduction: Average,
        });
    });
}

/// The gradient of [`average_pool`] with respect to its input, added to `dx` if
/// `accumulate`.
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
        ctx.dispatch(InputRows {
            geometry,
            rows,
            dy,
            accumulate,
            dx,
            gradient: AverageGradient {
                height: &geometry.height,
                width: &geometry.width,
            },
        });
    });
}

/// The sum of a window's pixels, times the window's weight.
struct Average;

impl Reduction for Average {
    type Sum<I: Isa> = I::F32;

    #[inline(always)]
    fn start<I: Isa>(&self, isa: I, _: &PoolWindow<'_>) -> I::F32 {
        isa.f32().zero()
    }

    #[inline(always)]
    fn add<I: Isa, const V: usize>(&self, isa: I, sums: &mut [I::F32; V], x: &[f32], _: usize) {
        let ops = isa.f32();
        for (v, sum) in sums.iter_mut().enumerate() {
            *sum = ops.add(*sum, load_up_to(ops, &x[v * ops.len()..]));
        }
    }

    #[inline(always)]
    fn store<I: Isa, const V: usize>(
        &mut self,
        isa: I,
        sums: [I::F32; V],
        window: &PoolWindow<'_>,
        _: usize,
        out: &mut [f32],
    ) {
        let ops = isa.f32();
        let weight = ops.splat(window.weight);
        for (v, sum) in sums.into_iter().enumerate() {
            store_up_to(ops, ops.mul(sum, weight), &mut out[v * ops.len()..]);
        }
    }
}

/// Passes an output's gradient to all pixels of its window, times its weight.
struct AverageGradient<'a> {
    height: &'a PoolAxis,
    width: &'a PoolAxis,
}

impl WindowGradient for AverageGradient<'_> {
    #[inline(always)]
    fn add<I: Isa, const V: usize>(
        &self,
        isa: I,
        sums: &mut [I::F32; V],
        dy: &[f32],
        _: &CoveringOutputs<'_>,
        [row, column]: [usize; 2],
        _: usize,
    ) {
        let ops = isa.f32();
        let weight = ops.splat(self.height.weights[row] * self.width.weights[column]);
        for (v, sum) in sums.iter_mut().enumerate() {
            *sum = ops.mul_add(load_up_to(ops, &dy[v * ops.len()..]), weight, *sum);
        }
    }
}
