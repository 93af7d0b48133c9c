//! Batch normalisation compared with its definition.

use sdpoint_kernels::norm::*;
use sdpoint_kernels::{Activation, Context};

use crate::testing::{activated, check, differentiate, dot, random, widen};

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

/// Batch normalisation with the statistics of `x`, and an activation.
fn batch_norm(x: &[f64], gamma: &[f64], beta: &[f64], activation: Activation) -> Vec<f64> {
    let channels = gamma.len();
    let (mean, var) = statistics(x, channels);
    x.iter()
        .enumerate()
        .map(|(i, x)| {
            let c = i % channels;
            let xhat = (x - mean[c]) / (var[c] + f64::from(EPS)).sqrt();
            activated(activation, gamma[c] * xhat + beta[c])
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
fn sums_match() {
    for (channels, pixels) in SHAPES {
        let x = random(channels * pixels, 1);
        let mut sums = vec![0.0; channels];
        for (i, x) in x.iter().enumerate() {
            sums[i % channels] += f64::from(*x);
        }
        check([sums], 1e-4, |ctx| {
            let mut sums = vec![9.0; channels];
            sum_pixels(ctx, &x, &mut sums);
            [sums]
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
        // Some results beyond every bound.
        let scale: Vec<f32> = random(channels, 2).iter().map(|s| 5.0 * s).collect();
        let shift = random(channels, 3);
        for activation in Activation::ALL {
            let expected: Vec<f64> = (0..x.len())
                .map(|i| {
                    let c = i % channels;
                    let y = f64::from(x[i]) * f64::from(scale[c]) + f64::from(shift[c]);
                    activated(activation, y)
                })
                .collect();
            check([expected], 1e-6, |ctx| {
                let mut y = vec![9.0; x.len()];
                scale_shift(ctx, &x, &scale, &shift, activation, &mut y);
                [y]
            });
        }
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

/// Runs the kernel; returns dgamma, dbeta and dx.
fn backward(
    ctx: &Context,
    x: &[f32],
    dy: &[f32],
    gamma: &[f32],
    beta: &[f32],
    activation: Activation,
    skip: Option<&[f32]>,
) -> [Vec<f32>; 3] {
    let channels = gamma.len();
    let [mut mean, mut var, mut invstd, mut dgamma, mut dbeta] =
        std::array::from_fn(|_| vec![9.0; channels]);
    let mut dx = vec![9.0; x.len()];
    batch_statistics(ctx, x, channels, &mut mean, &mut var);
    inverse_std(&var, EPS, &mut invstd);
    let inputs = BackwardInputs {
        x,
        dy,
        gamma,
        beta,
        mean: &mean,
        invstd: &invstd,
        activation,
        skip_grad: skip,
    };
    let gradients = BackwardGradients {
        dgamma: &mut dgamma,
        dbeta: &mut dbeta,
        dx: &mut dx,
    };
    batch_norm_backward(ctx, inputs, gradients);
    [dgamma, dbeta, dx]
}

#[test]
fn backward_matches_finite_differences() {
    for (channels, pixels) in SHAPES.into_iter().filter(|(c, p)| c * p < 1000 && *p > 1) {
        let [x, dy, skip] = [1, 2, 3].map(|seed| random(channels * pixels, seed));
        let beta = random(channels, 5);
        // Some results beyond every bound.
        let gamma: Vec<f32> = random(channels, 4).iter().map(|g| 5.0 * g).collect();
        let [x64, gamma64, beta64] = [&x, &gamma, &beta].map(|v| widen(v));
        for activation in Activation::ALL {
            let dgamma = differentiate(&gamma64, |gamma| {
                dot(&batch_norm(&x64, gamma, &beta64, activation), &dy)
            });
            let dbeta = differentiate(&beta64, |beta| {
                dot(&batch_norm(&x64, &gamma64, beta, activation), &dy)
            });
            let dx = differentiate(&x64, |x| {
                dot(&batch_norm(x, &gamma64, &beta64, activation), &dy)
            });
            for skip in [None, Some(&skip[..])] {
                let dx = dx
                    .iter()
                    .enumerate()
                    .map(|(i, dx)| dx + skip.map_or(0.0, |skip| f64::from(skip[i])))
                    .collect();
                check([dgamma.clone(), dbeta.clone(), dx], 2e-4, |ctx| {
                    backward(ctx, &x, &dy, &gamma, &beta, activation, skip)
                });
            }
        }
    }
}

/// Long enough for several parts, for which finite differences would be too slow.
#[test]
fn backward_of_a_large_array_matches_the_formula() {
    let (channels, pixels) = (16, 30_001);
    let [x, dy] = [1, 2].map(|seed| random(channels * pixels, seed));
    let [gamma, beta] = [4, 5].map(|seed| random(channels, seed));
    let x64 = widen(&x);
    let (mean, var) = statistics(&x64, channels);
    let y = batch_norm(&x64, &widen(&gamma), &widen(&beta), Activation::Relu);
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
        backward(ctx, &x, &dy, &gamma, &beta, Activation::Relu, None)
    });
}
