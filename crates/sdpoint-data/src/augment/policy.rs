//! Which operations an image gets, and how strong they are.

use rand::seq::SliceRandom;
use rand::{Rng, RngExt};

use super::pixels::Pixels;

/// The number of strengths of an operation.
const STRENGTHS: u32 = 31;

/// An operation of TrivialAugment.
type Operation = fn(&mut Pixels, f64);

/// The operations of TrivialAugment's wide search space. The strength is from 0
/// to 1, and of either sign where that means something.
const OPERATIONS: [Operation; 14] = [
    |_, _| {},
    |pixels, s| pixels.affine([1.0, 0.99 * s, 0.0, 0.0, 1.0, 0.0]),
    |pixels, s| pixels.affine([1.0, 0.0, 0.0, 0.99 * s, 1.0, 0.0]),
    |pixels, s| pixels.affine([1.0, 0.0, (32.0 * s).trunc(), 0.0, 1.0, 0.0]),
    |pixels, s| pixels.affine([1.0, 0.0, 0.0, 0.0, 1.0, (32.0 * s).trunc()]),
    |pixels, s| pixels.rotate(135.0 * s),
    |pixels, s| pixels.brightness(1.0 + 0.99 * s),
    |pixels, s| pixels.saturation(1.0 + 0.99 * s),
    |pixels, s| pixels.contrast(1.0 + 0.99 * s),
    |pixels, s| pixels.sharpness(1.0 + 0.99 * s),
    // 8 bits down to 2.
    |pixels, s| pixels.posterize((8.0 - (6.0 * s.abs()).round_ties_even()) as u32),
    |pixels, s| pixels.solarize(255.0 * (1.0 - s.abs())),
    |pixels, _| pixels.auto_contrast(),
    |pixels, _| pixels.equalize(),
];

/// TrivialAugment: one operation, all equally likely, with one of 31 strengths,
/// all equally likely.
pub fn trivial(pixels: &mut Pixels, rng: &mut impl Rng) {
    let operation = OPERATIONS[rng.random_range(0..OPERATIONS.len() as u32) as usize];
    let strength = f64::from(rng.random_range(0..STRENGTHS)) / f64::from(STRENGTHS - 1);
    let sign = if rng.random() { -1.0 } else { 1.0 };
    operation(pixels, sign * strength);
}

/// Changes brightness, contrast and saturation in random order.
pub fn jitter(pixels: &mut Pixels, strength: f64, rng: &mut impl Rng) {
    let mut order: [Operation; 3] = [Pixels::brightness, Pixels::contrast, Pixels::saturation];
    order.shuffle(rng);
    for operation in order {
        let factor = 1.0 + strength * (2.0 * rng.random::<f64>() - 1.0);
        operation(pixels, factor);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Use, stream};

    fn image() -> Pixels {
        let mut pixels = Pixels::default();
        pixels.reset([16, 16], [0; 3]);
        for (index, value) in pixels.data.as_flattened_mut().iter_mut().enumerate() {
            *value = (index * 31 % 251) as u8;
        }
        pixels
    }

    #[test]
    fn every_operation_runs_at_every_strength() {
        for (number, operation) in OPERATIONS.into_iter().enumerate() {
            let mut changed = 0;
            for strength in 0..STRENGTHS {
                for sign in [-1.0, 1.0] {
                    let mut pixels = image();
                    operation(&mut pixels, sign * f64::from(strength) / 30.0);
                    assert_eq!(pixels.data.len(), 256);
                    changed += usize::from(pixels.data != image().data);
                }
            }
            // All but the identity change something.
            assert_eq!(changed > 20, number != 0, "{number}: {changed}");
        }
    }

    #[test]
    fn an_image_depends_on_its_stream_alone() {
        for change in [
            (|p: &mut Pixels, n| trivial(p, &mut stream(Use::Augmentation, 0, 0, n)))
                as fn(&mut Pixels, u64),
            |p, n| jitter(p, 0.5, &mut stream(Use::Augmentation, 0, 0, n)),
        ] {
            let of = |number| {
                let mut pixels = image();
                change(&mut pixels, number);
                pixels.data
            };
            let all: std::collections::HashSet<_> = (0..50).map(of).collect();
            assert!(all.len() > 30, "{}", all.len());
            assert_eq!(of(7), of(7));
        }
        let mut same = image();
        jitter(&mut same, 0.0, &mut stream(Use::Augmentation, 0, 0, 1));
        assert_eq!(same.data, image().data);
    }
}
