//! The update of the weights by stochastic gradient descent.

use rten_simd::Isa;
use rten_simd::ops::{BitOps, NumOps};

use crate::context::Context;
use crate::lanes::{Expression, sweep};

/// The hyperparameters of one update by stochastic gradient descent with
/// momentum, as in PyTorch's `SGD` without dampening.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SgdUpdate {
    /// Learning rate.
    pub lr: f32,
    /// Momentum, in [0, 1).
    pub momentum: f32,
    /// Weight decay: L2 regularisation, added to the gradients.
    pub weight_decay: f32,
    /// Whether to use Nesterov momentum.
    pub nesterov: bool,
}

/// Updates the weights and the momentum buffer in one pass over memory:
///
/// ```text
/// g = grad + weight_decay * weight
/// buffer = momentum * buffer + g
/// weight -= lr * (g + momentum * buffer if nesterov, else buffer)
/// ```
///
/// `momentum_buffer` must be zero before the first update.
///
/// # Panics
/// If the lengths differ.
pub fn sgd_step(
    ctx: &Context,
    update: SgdUpdate,
    weights: &mut [f32],
    grads: &[f32],
    momentum_buffer: &mut [f32],
) {
    sweep(ctx, update, [weights, momentum_buffer], [grads], []);
}

impl Expression<2, 1, 0> for SgdUpdate {
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
