//! The optimiser.

use crate::testing::{check, random, widen};
use sdpoint_kernels::optimizer::*;

#[test]
fn steps_match() {
    for len in [1, 3, 16, 17, 40, 70_001] {
        let start = random(len, 1);
        let grads: [Vec<f32>; 3] = std::array::from_fn(|step| random(len, step as u64 + 2));
        for (momentum, nesterov) in [(0.0, false), (0.9, false), (0.9, true)] {
            let sgd = SgdUpdate {
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
    let sgd = SgdUpdate {
        lr: 0.1,
        momentum: 0.9,
        weight_decay: 0.0,
        nesterov: false,
    };
    sgd_step(&ctx, sgd, &mut [0.0; 3], &[0.0; 2], &mut [0.0; 3]);
}
