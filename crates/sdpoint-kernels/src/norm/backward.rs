//! The gradient of training-mode batch normalisation, which uses the batch's
//! own statistics.

use std::ops::Range;

use rten_simd::Isa;
use rten_simd::ops::NumOps;

use super::channel_sums::{add_tile, channel_sums};
use super::{activation_gradient, check_parameters, check_pixels, fold_one, nth_tiles, with_tiles};
use crate::activation::Activation;
use crate::context::Context;
use crate::lanes::{Expression, Fold, fill_tile, fold_tile_len, sweep};

/// What [`batch_norm_backward`] reads.
#[derive(Clone, Copy, Debug)]
pub struct BackwardInputs<'a> {
    /// The input of the forward pass.
    pub x: &'a [f32],
    /// The gradient with respect to the output.
    pub dy: &'a [f32],
    /// The scale of each channel.
    pub gamma: &'a [f32],
    /// The shift of each channel.
    pub beta: &'a [f32],
    /// The mean of each channel over the batch.
    pub mean: &'a [f32],
    /// The inverse standard deviation of each channel.
    pub invstd: &'a [f32],
    /// The activation on the output.
    pub activation: Activation,
    /// The gradient that reaches `x` by another path, a residual block's
    /// shortcut.
    pub skip_grad: Option<&'a [f32]>,
}

/// What [`batch_norm_backward`] writes.
#[derive(Debug)]
pub struct BackwardGradients<'a> {
    /// The gradient with respect to each scale.
    pub dgamma: &'a mut [f32],
    /// The gradient with respect to each shift.
    pub dbeta: &'a mut [f32],
    /// The gradient with respect to the input.
    pub dx: &'a mut [f32],
}

/// Gradients of training-mode batch normalisation with an activation on its
/// output.
///
/// With `dz` the gradient with respect to the activation's input (`dy` where
/// the activation passes it, 0 elsewhere), `xhat = (x - mean) * invstd`, and
/// averages over pixels:
///
/// ```text
/// dbeta  = sum(dz)
/// dgamma = sum(dz * xhat)
/// dx     = gamma * invstd * (dz - average(dz) - xhat * average(dz * xhat)) + skip_grad
/// ```
///
/// (Ioffe and Szegedy, "Batch Normalization", 2015, section 3.) The
/// activation's input is recomputed from `x`, bit by bit as
/// [`fold`](super::fold) and [`scale_shift`](super::scale_shift) compute it,
/// which is faster than reading it from memory.
///
/// # Panics
/// If the lengths differ or `x` is not whole pixels.
pub fn batch_norm_backward(
    ctx: &Context,
    inputs: BackwardInputs<'_>,
    gradients: BackwardGradients<'_>,
) {
    let BackwardInputs {
        x,
        dy,
        gamma,
        beta,
        mean,
        invstd,
        activation,
        skip_grad,
    } = inputs;
    let BackwardGradients { dgamma, dbeta, dx } = gradients;
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
    // Scale, shift and mean, and the two coefficients of the second pass.
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
    let add = |range: Range<usize>, _: usize, [sums, products]: [&mut [f64]; 2]| {
        let mut scratch = ctx.scratch(2 * tile_len);
        scratch.fill(0.0);
        let (sum_tile, product_tile) = scratch.split_at_mut(tile_len);
        ctx.dispatch(Fold {
            expression: BackwardSums { activation },
            accumulators: [&mut *sum_tile, &mut *product_tile],
            streams: [&x[range.clone()], &dy[range]],
            tiles: nth_tiles(tiles),
        });
        add_tile(sum_tile, sums);
        add_tile(product_tile, products);
    };
    channel_sums(ctx, channels, pixels, add, |[sums, products]| {
        for c in 0..channels {
            let (sum, product) = (sums[c], products[c] * f64::from(invstd[c]));
            dbeta[c] = sum as f32;
            dgamma[c] = product as f32;
            let per_pixel = f64::from(scale_shift_mean[c]) / pixels as f64;
            coefficients[c] = (-per_pixel * product * f64::from(invstd[c])) as f32;
            coefficients[channels + c] = (-per_pixel * sum) as f32;
        }
    });
    let expression = BackwardApply { activation };
    let parameters = &*parameters;
    with_tiles(ctx, nth_tiles::<5>(parameters), |tiles| match skip_grad {
        Some(skip) => sweep(ctx, expression, [dx], [x, dy, skip], tiles),
        None => sweep(ctx, expression, [dx], [x, dy], tiles),
    });
}

/// Sums of `dz` and of `dz * (x - mean)`.
#[derive(Clone, Copy)]
struct BackwardSums {
    activation: Activation,
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
        let dz = activation_gradient(isa, self.activation, [x, dy], [scale, shift]);
        [
            ops.add(sum, dz),
            ops.mul_add(dz, ops.sub(x, mean), products),
        ]
    }
}

/// `dx = scale * dz + slope * (x - mean) + offset (+ skip)`.
#[derive(Clone, Copy)]
struct BackwardApply {
    activation: Activation,
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
        let dz = activation_gradient(isa, self.activation, [x, dy], [scale, shift]);
        let mut dx = ops.mul_add(slope, ops.sub(x, mean), offset);
        dx = ops.mul_add(scale, dz, dx);
        if let &[skip] = &inputs[2..] {
            dx = ops.add(dx, skip);
        }
        [dx]
    }
}
