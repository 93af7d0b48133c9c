//! Code shared by the kernels' tests: contexts, random inputs, and comparisons with
//! references.

use std::num::NonZeroUsize;

use chacha20::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use sdpoint_kernels::{Activation, Context, Isa};

/// Random numbers around zero; the same for a seed on every machine.
pub fn random(len: usize, seed: u64) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..len).map(|_| rng.random_range(-2.0..2.0)).collect()
}

/// An activation in double precision.
pub fn activated(activation: Activation, x: f64) -> f64 {
    let [least, largest] = activation.bounds().map(f64::from);
    x.clamp(least, largest)
}

pub fn widen(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| f64::from(value)).collect()
}

/// A context for each instruction set of this machine.
pub fn contexts(threads: usize) -> impl Iterator<Item = Context> {
    let threads = NonZeroUsize::new(threads);
    Isa::available()
        .into_iter()
        .map(move |isa| Context::with_isa(threads, isa).unwrap())
}

/// Runs `kernel` on every instruction set, with one thread and with two, which
/// must give the same bits, and compares its results with `expected`.
/// `tolerance` is relative for numbers above 1 and absolute below.
pub fn check<const N: usize>(
    expected: [Vec<f64>; N],
    tolerance: f64,
    kernel: impl Fn(&Context) -> [Vec<f32>; N],
) {
    for (one, two) in contexts(1).zip(contexts(2)) {
        let isa = one.isa();
        let results = kernel(&one);
        let again = kernel(&two);
        for (which, (result, expected)) in results.iter().zip(&expected).enumerate() {
            assert_eq!(
                result.len(),
                expected.len(),
                "{isa}: length of result {which}"
            );
            for (i, (&result, &expected)) in result.iter().zip(expected).enumerate() {
                let error = (f64::from(result) - expected).abs();
                assert!(
                    error <= tolerance * expected.abs().max(1.0),
                    "{isa}: result {which}[{i}] is {result}, should be {expected}"
                );
            }
        }
        for (result, again) in results.iter().zip(&again) {
            assert!(
                result
                    .iter()
                    .zip(again)
                    .all(|(a, b)| a.to_bits() == b.to_bits()),
                "{isa}: two threads give another result than one"
            );
        }
    }
}

/// The gradient of `f` at `x` by central differences.
pub fn differentiate(x: &[f64], f: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    const STEP: f64 = 1e-5;
    let mut x = x.to_vec();
    (0..x.len())
        .map(|i| {
            let at = x[i];
            x[i] = at + STEP;
            let above = f(&x);
            x[i] = at - STEP;
            let below = f(&x);
            x[i] = at;
            (above - below) / (2.0 * STEP)
        })
        .collect()
}

/// The scalar whose gradient with respect to `y` is `dy`.
pub fn dot(y: &[f64], dy: &[f32]) -> f64 {
    y.iter().zip(dy).map(|(y, &dy)| y * f64::from(dy)).sum()
}
