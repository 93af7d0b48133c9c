//! Batch normalisation over the pixels of an NHWC array, and the scale and
//! shift for each channel that it is once its statistics are known.

use std::ops::Range;

use rten_simd::Isa;
use rten_simd::ops::{BitOps, NumOps};

use crate::context::Context;
use crate::lanes::{Expression, Fold, fill_tile, fold_tile_len, relu, sweep, sweep_tile_len};

/// Mean and biased variance of each channel of `x`, an array of
/// `x.len() / channels` pixels.
///
/// Sums of squares are taken about the mean of a few hundred pixels and merged
/// in f64, so that a mean far from zero costs no precision.
///
/// # Panics
/// If `x` is empty or not whole pixels, or `mean` or `var` is not `channels` long.
pub fn batch_statistics(
    ctx: &Context,
    x: &[f32],
    channels: usize,
    mean: &mut [f32],
    var: &mut [f32],
) {
    let pixels = check_pixels(x, channels);
    assert!(pixels > 0, "statistics of no pixels");
    check_parameters(channels, &[("mean", mean), ("var", var)]);
    let tile_len = fold_tile_len(channels);
    let moments = channel_sums(ctx, channels, pixels, |range, sums| {
        let x = &x[range];
        let pixels = (x.len() / channels) as f64;
        let mut scratch = ctx.scratch(3 * tile_len);
        let (sum, rest) = scratch.split_at_mut(tile_len);
        let (squares, about) = rest.split_at_mut(tile_len);

        sum.fill(0.0);
        ctx.dispatch(Fold {
            expression: Sum,
            accumulators: [sum],
            streams: [x],
            tiles: [],
        });
        for (channel, about) in about[..channels].iter_mut().enumerate() {
            *about = (total(sum, channel, channels) / pixels) as f32;
        }
        let (first, others) = about.split_at_mut(channels);
        fill_tile(first, others);

        sum.fill(0.0);
        squares.fill(0.0);
        ctx.dispatch(Fold {
            expression: Deviations,
            accumulators: [sum, squares],
            streams: [x],
            tiles: [about],
        });
        let (sums, sums_of_squares) = sums.split_at_mut(channels);
        for channel in 0..channels {
            let about = f64::from(about[channel]);
            let sum = total(sum, channel, channels);
            sums[channel] += pixels * about + sum;
            sums_of_squares[channel] +=
                total(squares, channel, channels) + about * (2.0 * sum + pixels * about);
        }
    });
    for channel in 0..channels {
        let exact = moments[channel] / pixels as f64;
        mean[channel] = exact as f32;
        // Rounding may leave a constant channel slightly below zero.
        var[channel] =
            (moments[channels + channel] / pixels as f64 - exact * exact).max(0.0) as f32;
    }
}

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

/// The sum of each channel over all pixels: the gradient of a bias.
///
/// # Panics
/// If `x` is not whole pixels of as many channels as `sums` is long.
pub fn sum_pixels(ctx: &Context, x: &[f32], sums: &mut [f32]) {
    let channels = sums.len();
    let pixels = check_pixels(x, channels);
    let tile_len = fold_tile_len(channels);
    let total_sums = channel_sums(ctx, channels, pixels, |range, sums| {
        let mut sum = ctx.scratch(tile_len);
        sum.fill(0.0);
        ctx.dispatch(Fold {
            expression: Sum,
            accumulators: [&mut sum],
            streams: [&x[range]],
            tiles: [],
        });
        for (channel, total_sum) in sums[..channels].iter_mut().enumerate() {
            *total_sum += total(&sum, channel, channels);
        }
    });
    for (sum, total) in sums.iter_mut().zip(total_sums) {
        *sum = total as f32;
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

/// Gradients of training-mode batch normalisation, with ReLU on its output if
/// `relu`.
///
/// With `dz` the gradient `dy` where the output is positive (everywhere
/// without ReLU), `xhat = (x - mean) * invstd` and averages over pixels:
///
/// ```text
/// dbeta  = sum(dz)
/// dgamma = sum(dz * xhat)
/// dx     = gamma * invstd * (dz - average(dz) - xhat * average(dz * xhat)) + skip_grad
/// ```
///
/// (Ioffe and Szegedy, "Batch Normalization", 2015, section 3.) Whether the
/// output was positive is computed anew from `x`, as [`fold`] and
/// [`scale_shift`] do, which costs less than reading it. `skip_grad` is the
/// gradient that reaches `x` by another way, a residual block's shortcut.
///
/// # Panics
/// If the lengths differ or `x` is not whole pixels.
pub fn batch_norm_backward(
    ctx: &Context,
    x: &[f32],
    dy: &[f32],
    gamma: &[f32],
    beta: &[f32],
    mean: &[f32],
    invstd: &[f32],
    relu: bool,
    skip_grad: Option<&[f32]>,
    dgamma: &mut [f32],
    dbeta: &mut [f32],
    dx: &mut [f32],
) {
    let channels = gamma.len();
    let pixels = check_pixels(x, channels);
    assert_eq!(dy.len(), x.len(), "length of dy is not that of x");
    check_parameters(
        channels,
        &[
            ("beta", beta),
            ("mean", mean),
            ("invstd", invstd),
            ("dgamma", dgamma),
            ("dbeta", dbeta),
        ],
    );
    // Scale, shift, mean, and the two coefficients of the second pass.
    let mut parameters = ctx.scratch(5 * channels);
    let (scale_shift_mean, coefficients) = parameters.split_at_mut(3 * channels);
    for c in 0..channels {
        let (scale, shift) = fold_one(gamma[c], beta[c], mean[c], invstd[c]);
        scale_shift_mean[c] = scale;
        scale_shift_mean[channels + c] = shift;
        scale_shift_mean[2 * channels + c] = mean[c];
    }

    let tile_len = fold_tile_len(channels);
    let mut tiles = ctx.scratch(3 * tile_len);
    for (parameter, tile) in scale_shift_mean
        .chunks_exact(channels)
        .zip(tiles.chunks_exact_mut(tile_len))
    {
        fill_tile(parameter, tile);
    }
    let tiles = &*tiles;
    let sums = channel_sums(ctx, channels, pixels, |range, sums| {
        let mut scratch = ctx.scratch(2 * tile_len);
        scratch.fill(0.0);
        let (sum, products) = scratch.split_at_mut(tile_len);
        ctx.dispatch(Fold {
            expression: BackwardSums { relu },
            accumulators: [sum, products],
            streams: [&x[range.clone()], &dy[range]],
            tiles: nth_tiles(tiles),
        });
        let (sums, sums_of_products) = sums.split_at_mut(channels);
        for channel in 0..channels {
            sums[channel] += total(sum, channel, channels);
            sums_of_products[channel] += total(products, channel, channels);
        }
    });

    for c in 0..channels {
        let (sum, product) = (sums[c], sums[channels + c] * f64::from(invstd[c]));
        dbeta[c] = sum as f32;
        dgamma[c] = product as f32;
        let per_pixel = f64::from(scale_shift_mean[c]) / pixels as f64;
        coefficients[c] = (-per_pixel * product * f64::from(invstd[c])) as f32;
        coefficients[channels + c] = (-per_pixel * sum) as f32;
    }
    let expression = BackwardApply { relu };
    let parameters = &*parameters;
    with_tiles(ctx, nth_tiles::<5>(parameters), |tiles| match skip_grad {
        Some(skip) => sweep(ctx, expression, [dx], [x, dy, skip], tiles),
        None => sweep(ctx, expression, [dx], [x, dy], tiles),
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

/// The sum over a tile's pixels of one channel.
fn total(tile: &[f32], channel: usize, channels: usize) -> f64 {
    tile[channel..]
        .iter()
        .step_by(channels)
        .map(|&value| f64::from(value))
        .sum()
}

/// Elements of one array that are summed in f32 before f64 takes over: few
/// enough to be exact and to stay in the nearest caches when read twice.
const CHUNK: usize = 8192;

/// Pixels summed in f32 at the least: with fewer the work in f64, once a chunk
/// and channel, would show.
const CHUNK_PIXELS: usize = 32;

/// Parts of the pixels that are summed apart and in parallel. Fixed, for the
/// order of additions must not depend on the number of threads.
const PARTS: usize = 32;

/// Two sums for each channel, the first ones before the second ones. `add`
/// adds what a range of elements contributes.
fn channel_sums(
    ctx: &Context,
    channels: usize,
    pixels: usize,
    add: impl Fn(Range<usize>, &mut [f64]) + Sync,
) -> Vec<f64> {
    let chunk = (CHUNK / channels).max(CHUNK_PIXELS);
    let part = pixels.div_ceil(chunk).div_ceil(PARTS) * chunk;
    let parts = pixels.div_ceil(part.max(1));
    let mut partial = vec![0.0; parts.max(1) * 2 * channels];
    ctx.parallel_chunks(&mut partial, 2 * channels, |i, sums| {
        let end = pixels.min((i + 1) * part);
        for start in (i * part..end).step_by(chunk) {
            add(start * channels..end.min(start + chunk) * channels, sums);
        }
    });
    let (sums, others) = partial.split_at_mut(2 * channels);
    for other in others.chunks_exact(2 * channels) {
        for (sum, other) in sums.iter_mut().zip(other) {
            *sum += other;
        }
    }
    partial.truncate(2 * channels);
    partial
}

#[derive(Clone, Copy)]
struct Sum;

impl Expression<1, 1, 0> for Sum {
    #[inline(always)]
    fn eval<I: Isa>(
        self,
        isa: I,
        [sum]: [I::F32; 1],
        [x]: [I::F32; 1],
        _: [I::F32; 0],
    ) -> [I::F32; 1] {
        [isa.f32().add(sum, x)]
    }
}

/// Sums of the deviations from a value, and of their squares.
#[derive(Clone, Copy)]
struct Deviations;

impl Expression<2, 1, 1> for Deviations {
    #[inline(always)]
    fn eval<I: Isa>(
        self,
        isa: I,
        [sum, squares]: [I::F32; 2],
        [x]: [I::F32; 1],
        [about]: [I::F32; 1],
    ) -> [I::F32; 2] {
        let ops = isa.f32();
        let deviation = ops.sub(x, about);
        [
            ops.add(sum, deviation),
            ops.mul_add(deviation, deviation, squares),
        ]
    }
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

/// Sums of `dz` and of `dz * (x - mean)`.
#[derive(Clone, Copy)]
struct BackwardSums {
    relu: bool,
}

impl Expression<2, 2, 3> for BackwardSums {
    #[inline(always)]
    fn eval<I: Isa>(
        self,
        isa: I,
        [sum, products]: [I::F32; 2],
        [x, dy]: [I::F32; 2],
        [scale, shift, mean]: [I::F32; 3],
    ) -> [I::F32; 2] {
        let ops = isa.f32();
        let dz = if self.relu {
            masked(isa, x, dy, scale, shift)
        } else {
            dy
        };
        [
            ops.add(sum, dz),
            ops.mul_add(dz, ops.sub(x, mean), products),
        ]
    }
}

/// `dx = scale * dz + slope * (x - mean) + offset (+ skip)`.
#[derive(Clone, Copy)]
struct BackwardApply {
    relu: bool,
}

impl<const IN: usize> Expression<1, IN, 5> for BackwardApply {
    #[inline(always)]
    fn eval<I: Isa>(
        self,
        isa: I,
        _: [I::F32; 1],
        inputs: [I::F32; IN],
        [scale, shift, mean, slope, offset]: [I::F32; 5],
    ) -> [I::F32; 1] {
        let ops = isa.f32();
        let (x, dy) = (inputs[0], inputs[1]);
        let dz = if self.relu {
            masked(isa, x, dy, scale, shift)
        } else {
            dy
        };
        let mut dx = ops.mul_add(slope, ops.sub(x, mean), offset);
        dx = ops.mul_add(scale, dz, dx);
        if let &[skip] = &inputs[2..] {
            dx = ops.add(dx, skip);
        }
        [dx]
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check, contexts, differentiate, dot, random, widen};

    const EPS: f32 = 1e-5;

    /// Channels and pixels: less than a vector, odd, more than a vector with
    /// and without remainder, one pixel, and several parts for the threads.
    const SHAPES: [(usize, usize); 12] = [
        (1, 1),
        (1, 70),
        (3, 35),
        (5, 1),
        (5, 13),
        (16, 1),
        (16, 9),
        (17, 6),
        (40, 7),
        (70, 3),
        (300, 2),
        (16, 20_001),
    ];

    fn statistics(x: &[f64], channels: usize) -> (Vec<f64>, Vec<f64>) {
        let pixels = (x.len() / channels) as f64;
        let mut mean = vec![0.0; channels];
        let mut var = vec![0.0; channels];
        for pixel in x.chunks_exact(channels) {
            for c in 0..channels {
                mean[c] += pixel[c] / pixels;
            }
        }
        for pixel in x.chunks_exact(channels) {
            for c in 0..channels {
                var[c] += (pixel[c] - mean[c]).powi(2) / pixels;
            }
        }
        (mean, var)
    }

    /// Batch normalisation with the statistics of `x`, and ReLU.
    fn batch_norm(x: &[f64], gamma: &[f64], beta: &[f64], relu: bool) -> Vec<f64> {
        let channels = gamma.len();
        let (mean, var) = statistics(x, channels);
        x.iter()
            .enumerate()
            .map(|(i, x)| {
                let c = i % channels;
                let xhat = (x - mean[c]) / (var[c] + f64::from(EPS)).sqrt();
                let y = gamma[c] * xhat + beta[c];
                if relu { y.max(0.0) } else { y }
            })
            .collect()
    }

    #[test]
    fn statistics_match() {
        for (channels, pixels) in SHAPES {
            let x = random(channels * pixels, 1);
            let (mean, var) = statistics(&widen(&x), channels);
            check([mean, var], 1e-6, |ctx| {
                let (mut mean, mut var) = (vec![9.0; channels], vec![9.0; channels]);
                batch_statistics(ctx, &x, channels, &mut mean, &mut var);
                [mean, var]
            });
        }
    }

    #[test]
    fn a_mean_far_from_zero_leaves_the_variance_exact() {
        let channels = 5;
        let x: Vec<f32> = random(channels * 3000, 2)
            .iter()
            .enumerate()
            .map(|(i, x)| 1000.0 * (i % channels) as f32 + x)
            .collect();
        let (mean, var) = statistics(&widen(&x), channels);
        check([mean, var], 1e-6, |ctx| {
            let (mut mean, mut var) = (vec![0.0; channels], vec![0.0; channels]);
            batch_statistics(ctx, &x, channels, &mut mean, &mut var);
            [mean, var]
        });
    }

    #[test]
    fn scale_shift_matches() {
        for (channels, pixels) in SHAPES {
            let x = random(channels * pixels, 1);
            let (scale, shift) = (random(channels, 2), random(channels, 3));
            let residual = random(x.len(), 4);
            for relu in [false, true] {
                for residual in [None, Some(&residual[..])] {
                    let expected: Vec<f64> = (0..x.len())
                        .map(|i| {
                            let c = i % channels;
                            let mut y = f64::from(x[i]) * f64::from(scale[c]) + f64::from(shift[c]);
                            y += residual.map_or(0.0, |r| f64::from(r[i]));
                            if relu { y.max(0.0) } else { y }
                        })
                        .collect();
                    check([expected.clone(), expected], 1e-6, |ctx| {
                        let mut y = vec![9.0; x.len()];
                        scale_shift(ctx, &x, &scale, &shift, residual, relu, &mut y);
                        let mut in_place = x.clone();
                        scale_shift_in_place(ctx, &mut in_place, &scale, &shift, residual, relu);
                        [y, in_place]
                    });
                }
            }
        }
    }

    #[test]
    fn nan_passes_through_relu() {
        for ctx in contexts(1) {
            let mut y = [f32::NAN; 19];
            scale_shift_in_place(&ctx, &mut y, &[1.0], &[0.0], None, true);
            assert!(y.iter().all(|y| y.is_nan()), "{}", ctx.isa());
        }
    }

    #[test]
    fn fold_matches() {
        let [gamma, beta, mean] = [1, 2, 3].map(|seed| random(7, seed));
        let var: Vec<f32> = random(7, 4).iter().map(|x| x * x).collect();
        let (mut scale, mut shift, mut invstd) = ([0.0; 7], [0.0; 7], [0.0; 7]);
        fold(&gamma, &beta, &mean, &var, EPS, &mut scale, &mut shift);
        inverse_std(&var, EPS, &mut invstd);
        for c in 0..7 {
            let expected = 1.0 / (f64::from(var[c]) + f64::from(EPS)).sqrt();
            assert!((f64::from(invstd[c]) / expected - 1.0).abs() < 1e-6);
            let expected = f64::from(gamma[c]) * expected;
            assert!((f64::from(scale[c]) / expected - 1.0).abs() < 1e-6);
            let at_mean = f64::from(mean[c]) * expected + f64::from(shift[c]);
            assert!((at_mean - f64::from(beta[c])).abs() < 1e-5);
        }
    }

    /// Runs the kernel; gives dgamma, dbeta and dx.
    fn backward(
        ctx: &Context,
        x: &[f32],
        dy: &[f32],
        gamma: &[f32],
        beta: &[f32],
        relu: bool,
        skip: Option<&[f32]>,
    ) -> [Vec<f32>; 3] {
        let channels = gamma.len();
        let [mut mean, mut var, mut invstd, mut dgamma, mut dbeta] =
            std::array::from_fn(|_| vec![9.0; channels]);
        let mut dx = vec![9.0; x.len()];
        batch_statistics(ctx, x, channels, &mut mean, &mut var);
        inverse_std(&var, EPS, &mut invstd);
        batch_norm_backward(
            ctx,
            x,
            dy,
            gamma,
            beta,
            &mean,
            &invstd,
            relu,
            skip,
            &mut dgamma,
            &mut dbeta,
            &mut dx,
        );
        [dgamma, dbeta, dx]
    }

    #[test]
    fn backward_matches_finite_differences() {
        for (channels, pixels) in SHAPES.into_iter().filter(|(c, p)| c * p < 1000 && *p > 1) {
            let [x, dy, skip] = [1, 2, 3].map(|seed| random(channels * pixels, seed));
            let [gamma, beta] = [4, 5].map(|seed| random(channels, seed));
            let [x64, gamma64, beta64] = [&x, &gamma, &beta].map(|v| widen(v));
            for relu in [false, true] {
                let dgamma = differentiate(&gamma64, |gamma| {
                    dot(&batch_norm(&x64, gamma, &beta64, relu), &dy)
                });
                let dbeta = differentiate(&beta64, |beta| {
                    dot(&batch_norm(&x64, &gamma64, beta, relu), &dy)
                });
                let dx = differentiate(&x64, |x| dot(&batch_norm(x, &gamma64, &beta64, relu), &dy));
                for skip in [None, Some(&skip[..])] {
                    let dx = dx
                        .iter()
                        .enumerate()
                        .map(|(i, dx)| dx + skip.map_or(0.0, |skip| f64::from(skip[i])))
                        .collect();
                    check([dgamma.clone(), dbeta.clone(), dx], 2e-4, |ctx| {
                        backward(ctx, &x, &dy, &gamma, &beta, relu, skip)
                    });
                }
            }
        }
    }

    /// Long enough for several parts, which finite differences cannot be.
    #[test]
    fn backward_of_a_large_array_matches_the_formula() {
        let (channels, pixels) = (16, 30_001);
        let [x, dy] = [1, 2].map(|seed| random(channels * pixels, seed));
        let [gamma, beta] = [4, 5].map(|seed| random(channels, seed));
        let x64 = widen(&x);
        let (mean, var) = statistics(&x64, channels);
        let y = batch_norm(&x64, &widen(&gamma), &widen(&beta), true);
        let invstd: Vec<f64> = var
            .iter()
            .map(|v| 1.0 / (v + f64::from(EPS)).sqrt())
            .collect();
        let xhat = |i: usize| (x64[i] - mean[i % channels]) * invstd[i % channels];
        let dz: Vec<f64> = (0..x.len())
            .map(|i| if y[i] > 0.0 { f64::from(dy[i]) } else { 0.0 })
            .collect();
        let (mut dgamma, mut dbeta) = (vec![0.0; channels], vec![0.0; channels]);
        for i in 0..x.len() {
            dbeta[i % channels] += dz[i];
            dgamma[i % channels] += dz[i] * xhat(i);
        }
        let dx = (0..x.len())
            .map(|i| {
                let c = i % channels;
                let average = (dbeta[c] + xhat(i) * dgamma[c]) / pixels as f64;
                f64::from(gamma[c]) * invstd[c] * (dz[i] - average)
            })
            .collect();
        check([dgamma, dbeta, dx], 1e-4, |ctx| {
            backward(ctx, &x, &dy, &gamma, &beta, true, None)
        });
    }

    #[test]
    fn frozen_backward_matches_finite_differences() {
        for (channels, pixels) in SHAPES.into_iter().filter(|(c, p)| c * p < 1000) {
            let [x, dy, skip] = [1, 2, 3].map(|seed| random(channels * pixels, seed));
            let [scale, shift] = [4, 5].map(|seed| random(channels, seed));
            for relu in [false, true] {
                let forward = |x: &[f64]| -> Vec<f64> {
                    let at = |i: usize| {
                        let c = i % channels;
                        let y = x[i] * f64::from(scale[c]) + f64::from(shift[c]);
                        if relu { y.max(0.0) } else { y }
                    };
                    (0..x.len()).map(at).collect()
                };
                let dx = differentiate(&widen(&x), |x| dot(&forward(x), &dy));
                let with_skip = dx
                    .iter()
                    .zip(&skip)
                    .map(|(dx, &s)| dx + f64::from(s))
                    .collect();
                check([dx, with_skip], 1e-5, |ctx| {
                    [None, Some(&skip[..])].map(|skip| {
                        let mut dx = vec![9.0; x.len()];
                        scale_shift_backward(ctx, &x, &dy, &scale, &shift, relu, skip, &mut dx);
                        dx
                    })
                });
            }
        }
    }
}
