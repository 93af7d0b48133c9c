//! The optimiser's update of the weights.

use rten_simd::Isa;
use rten_simd::ops::{BitOps, NumOps};

use crate::context::Context;
use crate::lanes::{Expression, sweep};

/// Stochastic gradient descent with momentum, as PyTorch's `SGD` without
/// dampening has it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sgd {
    /// Learning rate.
    pub lr: f32,
    /// What is kept of the momentum from step to step, in [0, 1).
    pub momentum: f32,
    /// Factor of the weights that is added to their gradients.
    pub weight_decay: f32,
    /// Whether to step along the momentum that the next step would have
    /// (Nesterov).
    pub nesterov: bool,
}

/// One step, in one pass over memory:
///
/// ```text
/// g = grad + weight_decay * weight
/// buffer = momentum * buffer + g
/// weight -= lr * (g + momentum * buffer if nesterov, else buffer)
/// ```
///
/// `momentum_buffer` starts as zeros.
///
/// # Panics
/// If the lengths differ.
pub fn sgd_step(
    ctx: &Context,
    sgd: Sgd,
    weights: &mut [f32],
    grads: &[f32],
    momentum_buffer: &mut [f32],
) {
    sweep(ctx, sgd, [weights, momentum_buffer], [grads], []);
}

impl Expression<2, 1, 0> for Sgd {
    #[inline(always)]
    fn eval<I: Isa>(
        self,
        isa: I,
        [weight, buffer]: [I::F32; 2],
        [grad]: [I::F32; 1],
        _: [I::F32; 0],
    ) -> [I::F32; 2] {
        let ops = isa.f32();
        let momentum = ops.splat(self.momentum);
        let grad = ops.mul_add(ops.splat(self.weight_decay), weight, grad);
        let buffer = ops.mul_add(momentum, buffer, grad);
        let step = if self.nesterov {
            ops.mul_add(momentum, buffer, grad)
        } else {
            buffer
        };
        [ops.mul_add(ops.splat(-self.lr), step, weight), buffer]
    }
}
