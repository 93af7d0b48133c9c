//! Element-wise kernels.

use sdpoint_kernels::Activation;
use sdpoint_kernels::elementwise::*;

use crate::testing::{activated, check, contexts, differentiate, dot, random, widen};

const LENGTHS: [usize; 8] = [0, 1, 3, 16, 17, 40, 1001, 100_003];

fn run(len: usize, f: impl FnOnce(&mut [f32])) -> Vec<f32> {
    let mut y = random(len, 99);
    f(&mut y);
    y
}

fn map2(a: &[f32], b: &[f32], f: impl Fn(f64, f64) -> f64) -> Vec<f64> {
    a.iter()
        .zip(b)
        .map(|(&a, &b)| f(a.into(), b.into()))
        .collect()
}

#[test]
fn forward_matches() {
    for len in LENGTHS {
        let (a, b, old) = (random(len, 1), random(len, 2), random(len, 99));
        let expected = [map2(&a, &b, |a, b| a + b), map2(&a, &old, |a, old| a + old)];
        check(expected, 1e-6, |ctx| {
            [
                run(len, |y| add(ctx, &a, &b, y)),
                run(len, |y| accumulate(ctx, &a, y)),
            ]
        });
        // Includes values beyond both bounds of each activation.
        let a: Vec<f32> = a.iter().map(|a| 5.0 * a).collect();
        let expected = Activation::ALL.map(|f| map2(&a, &a, |a, _| activated(f, a)));
        check(expected, 1e-6, |ctx| {
            Activation::ALL.map(|f| run(len, |y| activate(ctx, f, &a, y)))
        });
    }
}

#[test]
fn activations_keep_nan() {
    for ctx in contexts(1) {
        for activation in Activation::ALL {
            let y = run(19, |y| activate(&ctx, activation, &[f32::NAN; 19], y));
            assert!(
                y.iter().all(|y| y.is_nan()),
                "{activation:?}, {}",
                ctx.isa()
            );
        }
    }
}

#[test]
fn gradients_of_activations_match_finite_differences() {
    let lengths = LENGTHS.into_iter().filter(|len| *len < 2000);
    for (len, activation) in lengths.flat_map(|len| Activation::ALL.map(|f| (len, f))) {
        let x: Vec<f32> = random(len, 1).iter().map(|x| 5.0 * x).collect();
        let (dy, old) = (random(len, 2), random(len, 99));
        let forward =
            |x: &[f64]| -> Vec<f64> { x.iter().map(|&x| activated(activation, x)).collect() };
        let dx = differentiate(&widen(&x), |x| dot(&forward(x), &dy));
        let sum = dx
            .iter()
            .zip(&old)
            .map(|(dx, &old)| dx + f64::from(old))
            .collect();
        check([dx, sum], 1e-6, |ctx| {
            let y = run(len, |y| activate(ctx, activation, &x, y));
            [false, true].map(|accumulate| {
                run(len, |dx| {
                    activate_backward(ctx, activation, &y, &dy, accumulate, dx);
                })
            })
        });
    }
}

#[test]
fn concatenating_and_slicing_are_inverse() {
    for (pixels, widths) in [(1, [1, 3, 5]), (7, [16, 1, 17]), (2001, [40, 16, 3])] {
        let parts: [Vec<f32>; 3] = std::array::from_fn(|i| random(pixels * widths[i], i as u64));
        let channels: usize = widths.iter().sum();
        let mut joined = Vec::new();
        for pixel in 0..pixels {
            for (part, width) in parts.iter().zip(widths) {
                joined.extend(&part[pixel * width..(pixel + 1) * width]);
            }
        }
        let inputs: Vec<_> = parts.iter().map(Vec::as_slice).zip(widths).collect();
        check([widen(&joined)], 0.0, |ctx| {
            let mut y = vec![9.0; pixels * channels];
            concat_channels(ctx, &inputs, &mut y);
            [y]
        });
        for accumulate in [false, true] {
            let factor = if accumulate { 2.0 } else { 1.0 };
            let expected = parts.each_ref().map(|part| {
                part.iter()
                    .map(|x| factor * f64::from(*x))
                    .collect::<Vec<_>>()
            });
            check(expected, 0.0, |ctx| {
                let mut outputs = parts.clone();
                let mut at = 0;
                for (y, width) in outputs.iter_mut().zip(widths) {
                    let part = at..at + width;
                    slice_channels(ctx, &joined, channels, part, accumulate, y);
                    at += width;
                }
                outputs
            });
        }
    }
}
