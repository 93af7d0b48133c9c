//! Passes over whole arrays: ReLU, sums of branches, and joining or splitting
//! the channels of several arrays.

use rten_simd::Isa;
use rten_simd::ops::{BitOps, NumOps};

use crate::context::Context;
use crate::lanes::{Expression, relu as relu_lanes, sweep};

/// `y = max(x, 0)`; NaN stays NaN, so that a diverging run is noticed.
///
/// # Panics
/// If the lengths differ.
pub fn relu(ctx: &Context, x: &[f32], y: &mut [f32]) {
    sweep(ctx, Relu, [y], [x], []);
}

/// `y = max(y, 0)`; see [`relu`].
pub fn relu_in_place(ctx: &Context, y: &mut [f32]) {
    sweep(ctx, ReluInPlace, [y], [], []);
}

/// `dx = dy` where ReLU's output `y` is positive, else 0; with `accumulate`,
/// that is added to `dx`.
///
/// # Panics
/// If the lengths differ.
pub fn relu_backward(ctx: &Context, y: &[f32], dy: &[f32], accumulate: bool, dx: &mut [f32]) {
    sweep(ctx, ReluBackward { accumulate }, [dx], [y, dy], []);
}

/// `dy = 0` where ReLU's output `y` is not positive: [`relu_backward`] in the
/// gradient's own memory.
///
/// # Panics
/// If the lengths differ.
pub fn relu_backward_in_place(ctx: &Context, y: &[f32], dy: &mut [f32]) {
    sweep(ctx, ReluBackwardInPlace, [dy], [y], []);
}

/// `y = a + b`.
///
/// # Panics
/// If the lengths differ.
pub fn add(ctx: &Context, a: &[f32], b: &[f32], y: &mut [f32]) {
    sweep(ctx, Add { relu: false }, [y], [a, b], []);
}

/// `y = max(a + b, 0)`, the end of a post-activation residual block.
///
/// # Panics
/// If the lengths differ.
pub fn add_relu(ctx: &Context, a: &[f32], b: &[f32], y: &mut [f32]) {
    sweep(ctx, Add { relu: true }, [y], [a, b], []);
}

/// `y += x`.
///
/// # Panics
/// If the lengths differ.
pub fn accumulate(ctx: &Context, x: &[f32], y: &mut [f32]) {
    sweep(ctx, Accumulate, [y], [x], []);
}

#[derive(Clone, Copy)]
struct Relu;

impl Expression<1, 1, 0> for Relu {
    #[inline(always)]
    fn eval<I: Isa>(
        self,
        isa: I,
        _: [I::F32; 1],
        [x]: [I::F32; 1],
        _: [I::F32; 0],
    ) -> [I::F32; 1] {
        [relu_lanes(isa, x)]
    }
}

#[derive(Clone, Copy)]
struct ReluInPlace;

impl Expression<1, 0, 0> for ReluInPlace {
    #[inline(always)]
    fn eval<I: Isa>(
        self,
        isa: I,
        [y]: [I::F32; 1],
        _: [I::F32; 0],
        _: [I::F32; 0],
    ) -> [I::F32; 1] {
        [relu_lanes(isa, y)]
    }
}

#[derive(Clone, Copy)]
struct ReluBackward {
    accumulate: bool,
}

impl Expression<1, 2, 0> for ReluBackward {
    #[inline(always)]
    fn eval<I: Isa>(
        self,
        isa: I,
        [old]: [I::F32; 1],
        [y, dy]: [I::F32; 2],
        _: [I::F32; 0],
    ) -> [I::F32; 1] {
        let ops = isa.f32();
        let dx = ops.select(dy, ops.zero(), ops.gt(y, ops.zero()));
        [if self.accumulate {
            ops.add(old, dx)
        } else {
            dx
        }]
    }
}

#[derive(Clone, Copy)]
struct ReluBackwardInPlace;

impl Expression<1, 1, 0> for ReluBackwardInPlace {
    #[inline(always)]
    fn eval<I: Isa>(
        self,
        isa: I,
        [dy]: [I::F32; 1],
        [y]: [I::F32; 1],
        _: [I::F32; 0],
    ) -> [I::F32; 1] {
        let ops = isa.f32();
        [ops.select(dy, ops.zero(), ops.gt(y, ops.zero()))]
    }
}

#[derive(Clone, Copy)]
struct Add {
    relu: bool,
}

impl Expression<1, 2, 0> for Add {
    #[inline(always)]
    fn eval<I: Isa>(
        self,
        isa: I,
        _: [I::F32; 1],
        [a, b]: [I::F32; 2],
        _: [I::F32; 0],
    ) -> [I::F32; 1] {
        let sum = isa.f32().add(a, b);
        [if self.relu { relu_lanes(isa, sum) } else { sum }]
    }
}

#[derive(Clone, Copy)]
struct Accumulate;

impl Expression<1, 1, 0> for Accumulate {
    #[inline(always)]
    fn eval<I: Isa>(
        self,
        isa: I,
        [y]: [I::F32; 1],
        [x]: [I::F32; 1],
        _: [I::F32; 0],
    ) -> [I::F32; 1] {
        [isa.f32().add(y, x)]
    }
}
