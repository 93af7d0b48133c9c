//! Batch normalisation of NHWC arrays. With known statistics it is a scale and
//! a shift per channel.

mod backward;
mod channel_sums;
mod statistics;

use rten_simd::Isa;
use rten_simd::ops::NumOps;

use crate::activation::Activation;
use crate::context::Context;
use crate::lanes::{Expression, fill_tile, sweep, sweep_tile_len};

pub use backward::{BackwardGradients, BackwardInputs, batch_norm_backward};
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

/// Folds batch normalisation with given statistics into a scale and a shift
/// per channel: `scale = gamma / sqrt(var + eps)`,
/// `shift = beta - mean * scale`.
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

/// `y = activation(x * scale + shift)`; `scale` and `shift` have one value per
/// channel.
///
/// # Panics
/// If the lengths differ or `x` is not a whole number of pixels.
pub fn scale_shift(
    ctx: &Context,
    x: &[f32],
    scale: &[f32],
    shift: &[f32],
    activation: Activation,
    y: &mut [f32],
) {
    check_pixels(x, scale.len());
    with_tiles(ctx, [scale, shift], |tiles| {
        sweep(ctx, ScaleShift { activation }, [y], [x], tiles);
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

/// `tiles` divided into `N` slices of equal length.
fn nth_tiles<const N: usize>(tiles: &[f32]) -> [&[f32]; N] {
    let len = tiles.len() / N;
    std::array::from_fn(|i| &tiles[i * len..(i + 1) * len])
}

#[derive(Clone, Copy)]
struct ScaleShift {
    activation: Activation,
}

impl Expression<1, 1, 2> for ScaleShift {
    #[inline(always)]
    fn eval<I: Isa>(
        self,
        isa: I,
        _: [I::F32; 1],
        [x]: [I::F32; 1],
        [scale, shift]: [I::F32; 2],
    ) -> [I::F32; 1] {
        let y = isa.f32().mul_add(x, scale, shift);
        [self.activation.of(isa, y)]
    }
}

/// The gradient with respect to the input of the activation, `x * scale +
/// shift`: `dy` where the activation passes it, 0 elsewhere.
#[inline(always)]
fn activation_gradient<I: Isa>(
    isa: I,
    activation: Activation,
    [x, dy]: [I::F32; 2],
    [scale, shift]: [I::F32; 2],
) -> I::F32 {
    match activation {
        Activation::Identity => dy,
        _ => activation.gradient(isa, isa.f32().mul_add(x, scale, shift), dy),
    }
}
