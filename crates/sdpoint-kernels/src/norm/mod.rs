//! Batch normalisation over the pixels of an NHWC array, and the scale and
//! shift for each channel that it is once its statistics are known.

mod backward;
mod channel_sums;
mod statistics;
#[cfg(test)]
mod tests;

use rten_simd::Isa;
use rten_simd::ops::{BitOps, NumOps};

use crate::context::Context;
use crate::lanes::{Expression, fill_tile, relu, sweep, sweep_tile_len};

pub use backward::batch_norm_backward;
pub use statistics::{batch_statistics, sum_pixels};

/// `1 / sqrt(var + eps)`.
///
/// # Panics
/// If the lengths differ.
pub fn inverse_std(var: &[f32], eps: f32, invstd: &mut [f32]) {
    check_parameters(var.len(), &[("invstd", invstd)]);
    for (invstd, &var) in invstd.iter_mut().zip(var) {
        *invstd = inverse_std_of(var, eps);
    }
}

/// The scale and shift that batch normalisation is for given statistics:
/// `scale = gamma / sqrt(var + eps)`, `shift = beta - mean * scale`.
///
/// # Panics
/// If the lengths differ.
pub fn fold(
    gamma: &[f32],
    beta: &[f32],
    mean: &[f32],
    var: &[f32],
    eps: f32,
    scale: &mut [f32],
    shift: &mut [f32],
) {
    check_parameters(
        gamma.len(),
        &[
            ("beta", beta),
            ("mean", mean),
            ("var", var),
            ("scale", scale),
            ("shift", shift),
        ],
    );
    for c in 0..gamma.len() {
        (scale[c], shift[c]) = fold_one(gamma[c], beta[c], mean[c], inverse_std_of(var[c], eps));
    }
}

fn inverse_std_of(var: f32, eps: f32) -> f32 {
    (1.0 / (f64::from(var) + f64::from(eps)).sqrt()) as f32
}

fn fold_one(gamma: f32, beta: f32, mean: f32, invstd: f32) -> (f32, f32) {
    let scale = gamma * invstd;
    (
        scale,
        (f64::from(beta) - f64::from(mean) * f64::from(scale)) as f32,
    )
}

/// `y = x * scale + shift (+ residual)`, then ReLU if `relu`; `scale` and
/// `shift` have a value for each channel.
///
/// # Panics
/// If the lengths differ or `x` is not whole pixels.
pub fn scale_shift(
    ctx: &Context,
    x: &[f32],
    scale: &[f32],
    shift: &[f32],
    residual: Option<&[f32]>,
    relu: bool,
    y: &mut [f32],
) {
    check_pixels(x, scale.len());
    with_tiles(ctx, [scale, shift], |tiles| match residual {
        Some(residual) => sweep(ctx, ScaleShift { relu }, [y], [x, residual], tiles),
        None => sweep(ctx, ScaleShift { relu }, [y], [x], tiles),
    });
}

/// [`scale_shift`] with `y` in the place of `x`.
///
/// # Panics
/// If the lengths differ or `y` is not whole pixels.
pub fn scale_shift_in_place(
    ctx: &Context,
    y: &mut [f32],
    scale: &[f32],
    shift: &[f32],
    residual: Option<&[f32]>,
    relu: bool,
) {
    check_pixels(y, scale.len());
    with_tiles(ctx, [scale, shift], |tiles| match residual {
        Some(residual) => sweep(ctx, ScaleShiftInPlace { relu }, [y], [residual], tiles),
        None => sweep(ctx, ScaleShiftInPlace { relu }, [y], [], tiles),
    });
}

/// The gradient of [`scale_shift`] with respect to `x`, for frozen statistics:
/// `dx = dy * scale (+ skip_grad)`, and 0 for `dy` where ReLU cut if `relu`.
///
/// # Panics
/// If the lengths differ or `x` is not whole pixels.
pub fn scale_shift_backward(
    ctx: &Context,
    x: &[f32],
    dy: &[f32],
    scale: &[f32],
    shift: &[f32],
    relu: bool,
    skip_grad: Option<&[f32]>,
    dx: &mut [f32],
) {
    check_pixels(x, scale.len());
    let expression = ScaleShiftBackward { relu };
    with_tiles(ctx, [scale, shift], |tiles| match skip_grad {
        Some(skip) => sweep(ctx, expression, [dx], [x, dy, skip], tiles),
        None => sweep(ctx, expression, [dx], [x, dy], tiles),
    });
}

fn check_pixels(x: &[f32], channels: usize) -> usize {
    assert!(
        channels > 0 && x.len().is_multiple_of(channels),
        "{} values are not whole pixels of {channels} channels",
        x.len()
    );
    x.len() / channels
}

fn check_parameters(channels: usize, parameters: &[(&str, &[f32])]) {
    for (name, values) in parameters {
        assert_eq!(
            values.len(),
            channels,
            "length of {name} is not the number of channels"
        );
    }
}

/// Calls `f` with the parameters repeated into tiles for [`sweep`].
fn with_tiles<const N: usize>(ctx: &Context, parameters: [&[f32]; N], f: impl FnOnce([&[f32]; N])) {
    let channels = parameters[0].len();
    let tile_len = sweep_tile_len(channels);
    let mut tiles = ctx.scratch(N * tile_len);
    for (parameter, tile) in parameters.iter().zip(tiles.chunks_exact_mut(tile_len)) {
        assert_eq!(
            parameter.len(),
            channels,
            "per-channel parameters differ in length"
        );
        fill_tile(parameter, tile);
    }
    f(nth_tiles(&tiles));
}

/// `tiles` cut into `N` of equal length.
fn nth_tiles<const N: usize>(tiles: &[f32]) -> [&[f32]; N] {
    let len = tiles.len() / N;
    std::array::from_fn(|i| &tiles[i * len..(i + 1) * len])
}

/// Inputs are x and, if there is one, the residual.
#[derive(Clone, Copy)]
struct ScaleShift {
    relu: bool,
}

impl<const IN: usize> Expression<1, IN, 2> for ScaleShift {
    #[inline(always)]
    fn eval<I: Isa>(
        self,
        isa: I,
        _: [I::F32; 1],
        inputs: [I::F32; IN],
        [scale, shift]: [I::F32; 2],
    ) -> [I::F32; 1] {
        [scale_shift_lanes(
            isa,
            inputs[0],
            scale,
            shift,
            &inputs[1..],
            self.relu,
        )]
    }
}

/// The input is, if there is one, the residual.
#[derive(Clone, Copy)]
struct ScaleShiftInPlace {
    relu: bool,
}

impl<const IN: usize> Expression<1, IN, 2> for ScaleShiftInPlace {
    #[inline(always)]
    fn eval<I: Isa>(
        self,
        isa: I,
        [y]: [I::F32; 1],
        inputs: [I::F32; IN],
        [scale, shift]: [I::F32; 2],
    ) -> [I::F32; 1] {
        [scale_shift_lanes(isa, y, scale, shift, &inputs, self.relu)]
    }
}

#[inline(always)]
fn scale_shift_lanes<I: Isa>(
    isa: I,
    x: I::F32,
    scale: I::F32,
    shift: I::F32,
    residual: &[I::F32],
    with_relu: bool,
) -> I::F32 {
    let ops = isa.f32();
    let mut y = ops.mul_add(x, scale, shift);
    if let &[residual] = residual {
        y = ops.add(y, residual);
    }
    if with_relu { relu(isa, y) } else { y }
}

/// `dy` where ReLU let `x * scale + shift` pass.
#[inline(always)]
fn masked<I: Isa>(isa: I, x: I::F32, dy: I::F32, scale: I::F32, shift: I::F32) -> I::F32 {
    let ops = isa.f32();
    let positive = ops.gt(ops.mul_add(x, scale, shift), ops.zero());
    ops.select(dy, ops.zero(), positive)
}

/// Inputs are x, dy and, if there is one, the skip gradient.
#[derive(Clone, Copy)]
struct ScaleShiftBackward {
    relu: bool,
}

impl<const IN: usize> Expression<1, IN, 2> for ScaleShiftBackward {
    #[inline(always)]
    fn eval<I: Isa>(
        self,
        isa: I,
        _: [I::F32; 1],
        inputs: [I::F32; IN],
        [scale, shift]: [I::F32; 2],
    ) -> [I::F32; 1] {
        let ops = isa.f32();
        let (x, dy) = (inputs[0], inputs[1]);
        let dz = if self.relu {
            masked(isa, x, dy, scale, shift)
        } else {
            dy
        };
        [match &inputs[2..] {
            &[skip] => ops.mul_add(dz, scale, skip),
            _ => ops.mul(dz, scale),
        }]
    }
}
