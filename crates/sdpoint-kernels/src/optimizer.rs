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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check, random, widen};

    #[test]
    fn steps_match() {
        for len in [1, 3, 16, 17, 40, 70_001] {
            let start = random(len, 1);
            let grads: [Vec<f32>; 3] = std::array::from_fn(|step| random(len, step as u64 + 2));
            for (momentum, nesterov) in [(0.0, false), (0.9, false), (0.9, true)] {
                let sgd = Sgd {
                    lr: 0.1,
                    momentum,
                    weight_decay: 0.05,
                    nesterov,
                };
                let [lr, momentum, decay] = [sgd.lr, sgd.momentum, sgd.weight_decay].map(f64::from);
                let mut weights = widen(&start);
                let mut buffer = vec![0.0; len];
                for grads in &grads {
                    for ((w, b), &g) in weights.iter_mut().zip(&mut buffer).zip(grads) {
                        let g = f64::from(g) + decay * *w;
                        *b = momentum * *b + g;
                        *w -= lr * if nesterov { g + momentum * *b } else { *b };
                    }
                }
                check([weights, buffer], 1e-6, |ctx| {
                    let mut weights = start.clone();
                    let mut buffer = vec![0.0; len];
                    for grads in &grads {
                        sgd_step(ctx, sgd, &mut weights, grads, &mut buffer);
                    }
                    [weights, buffer]
                });
            }
        }
    }

    #[test]
    #[should_panic(expected = "length of input 0")]
    fn a_wrong_length_is_refused() {
        let ctx = crate::testing::contexts(1).next().unwrap();
        let sgd = Sgd {
            lr: 0.1,
            momentum: 0.9,
            weight_decay: 0.0,
            nesterov: false,
        };
        sgd_step(&ctx, sgd, &mut [0.0; 3], &[0.0; 2], &mut [0.0; 3]);
    }
}
