//! Per-channel mean, variance and sum.

use std::ops::Range;

use rten_simd::Isa;
use rten_simd::ops::NumOps;

use super::channel_sums::{add_tile, channel_sums};
use super::{check_parameters, check_pixels};
use crate::context::Context;
use crate::lanes::{Expression, Fold, fill_tile, fold_tile_len};

/// Pixels from whose mean the deviations of the first chunk are taken.
const FIRST_PIXELS: usize = 32;

/// Mean and biased variance of each channel of `x`, an array of
/// `x.len() / channels` pixels.
///
/// By the shifted-data algorithm (Chan, Golub and LeVeque, "Algorithms for
/// Computing the Sample Variance", 1983): deviations are taken from the mean of
/// the preceding pixels, so that a mean far from zero costs no precision. They
/// and their squares are summed in f32 over a chunk of pixels, and the chunks'
/// sums, relative to zero again, in f64.
///
/// # Panics
/// If `x` is empty or not a whole number of pixels, or `mean` or `var` is not
/// `channels` long.
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
    let add = |range: Range<usize>, before: usize, [sums, squares]: [&mut [f64]; 2]| {
        let x = &x[range];
        let mut scratch = ctx.scratch(channels + 3 * tile_len);
        let (about, rest) = scratch.split_at_mut(channels);
        let (about_tile, rest) = rest.split_at_mut(tile_len);
        let (sum_tile, square_tile) = rest.split_at_mut(tile_len);
        if before > 0 {
            average(sums, before, about);
        } else {
            let first = &x[..x.len().min(FIRST_PIXELS * channels)];
            fold_sum(ctx, first, sum_tile);
            add_tile(sum_tile, sums);
            average(sums, first.len() / channels, about);
            sums.fill(0.0);
        }
        fill_tile(about, about_tile);
        sum_tile.fill(0.0);
        square_tile.fill(0.0);
        ctx.dispatch(Fold {
            expression: Deviations,
            accumulators: [&mut *sum_tile, &mut *square_tile],
            streams: [x],
            tiles: [about_tile],
        });
        let tiles = sum_tile
            .chunks_exact(channels)
            .zip(square_tile.chunks_exact(channels));
        add_moments(x.len() / channels, about, tiles, sums, squares);
    };
    channel_sums(ctx, channels, pixels, add, |[sums, squares]| {
        let count = pixels as f64;
        for (((mean, var), sum), square) in mean.iter_mut().zip(var).zip(sums).zip(squares) {
            let exact = *sum / count;
            *mean = exact as f32;
            // Rounding may leave a constant channel slightly below zero.
            *var = (*square / count - exact * exact).max(0.0) as f32;
        }
    });
}

/// The sum of each channel of `x` over all pixels: the gradient of a bias.
///
/// # Panics
/// If `x` is not a whole number of pixels of `sums.len()` channels.
pub fn sum_pixels(ctx: &Context, x: &[f32], sums: &mut [f32]) {
    let channels = sums.len();
    let pixels = check_pixels(x, channels);
    let tile_len = fold_tile_len(channels);
    let add = |range: Range<usize>, _: usize, [sums]: [&mut [f64]; 1]| {
        let mut tile = ctx.scratch(tile_len);
        fold_sum(ctx, &x[range], &mut tile);
        add_tile(&tile, sums);
    };
    channel_sums(ctx, channels, pixels, add, |[totals]| {
        for (sum, total) in sums.iter_mut().zip(totals) {
            *sum = *total as f32;
        }
    });
}

fn fold_sum(ctx: &Context, x: &[f32], tile: &mut [f32]) {
    tile.fill(0.0);
    ctx.dispatch(Fold {
        expression: Sum,
        accumulators: [tile],
        streams: [x],
        tiles: [],
    });
}

fn average(sums: &[f64], pixels: usize, means: &mut [f32]) {
    for (mean, sum) in means.iter_mut().zip(sums) {
        *mean = (sum / pixels as f64) as f32;
    }
}

/// Adds the values and their squares of `pixels` pixels to `sums` and `squares`,
/// given the sums of their deviations from `about` and of the squares of those.
fn add_moments<'a>(
    pixels: usize,
    about: &[f32],
    deviations: impl Iterator<Item = (&'a [f32], &'a [f32])>,
    sums: &mut [f64],
    squares: &mut [f64],
) {
    let pixels = pixels as f64;
    for ((sum, square), &about) in sums.iter_mut().zip(&mut *squares).zip(about) {
        let about = f64::from(about);
        *sum += pixels * about;
        *square += pixels * about * about;
    }
    for (sum_pixel, square_pixel) in deviations {
        let pixel = sum_pixel.iter().zip(square_pixel).zip(about);
        for ((sum, square), ((&s, &q), &about)) in sums.iter_mut().zip(&mut *squares).zip(pixel) {
            let s = f64::from(s);
            *sum += s;
            *square += f64::from(q) + 2.0 * f64::from(about) * s;
        }
    }
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
